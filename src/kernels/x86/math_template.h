/* kernels/x86/math_template.h - exp, tanh and erf on the vectors of vec_ISA.h, which is included
 * before. Argument reduction and polynomials; the coefficients are our own weighted least-maximum
 * fits, with the fit's error beside each. The error of the results against the exact functions is
 * held by tests/kernels/check_act.c. NaN stays NaN. */
#ifndef SFQ_KERNELS_X86_MATH_TEMPLATE_H
#define SFQ_KERNELS_X86_MATH_TEMPLATE_H

/* c[0] + c[1] x + ... by Horner's rule */
SFQ_INLINE vec v_poly(vec x, const float *c, const int count)
{
    vec p = v_set1(c[count - 1]);
    SFQ_UNROLL
    for (int i = count - 2; i >= 0; i--)
        p = v_fma(p, x, v_set1(c[i]));
    return p;
}

/* e^x = 2^n e^r with |r| <= ln2/2. Below about -104 it gives 0, above about 88.7 infinity. */
SFQ_INLINE vec v_exp(vec x)
{
    /* (e^r - 1 - r) / r^2 on |r| < 0.347, 5e-11 */
    static const float c[6] = {0.5f,           0.166666669f,   0.0416662681f,
                               0.00833326404f, 0.00139462030f, 0.000199185601f};
    x = v_min(v_set1(90.0f), x);
    x = v_max(v_set1(-106.0f), x);
    vec n = v_round(v_mul(x, v_set1(1.44269504f)));
    vec r = v_fnma(n, v_set1(0x1.62e4p-1f), x); /* ln2, leading 15 bits */
    r = v_fnma(n, v_set1(0x1.7f7d1cp-20f), r);  /* the rest of ln2 */
    vec p = v_fma(v_mul(r, r), v_poly(r, c, 6), r);
    return v_times_power2(v_add(p, v_set1(1.0f)), n);
}

SFQ_INLINE vec v_abs(vec x)
{
    return v_andnot(v_set1(-0.0f), x);
}

/* x + x^3 P(x^2) below 0.625, 1 - 2 / (e^2|x| + 1) above */
SFQ_INLINE vec v_tanh(vec x)
{
    /* (tanh x - x) / x^3 in x^2 < 0.39, 2e-10 */
    static const float c[6] = {-0.333333309f, 0.133332098f,    -0.0539472093f,
                               0.0217029958f, -0.00818274731f, 0.00214760633f};
    const vec one = v_set1(1.0f);
    vec size = v_abs(x), square = v_mul(x, x);
    vec small = v_fma(v_mul(square, size), v_poly(square, c, 6), size);
    vec e = v_exp(v_add(size, size));
    vec large = v_sub(one, v_div(v_set1(2.0f), v_add(e, one)));
    vec y = v_choose(v_less(size, v_set1(0.625f)), small, large);
    return v_or(y, v_and(v_set1(-0.0f), x)); /* the sign of x */
}

/* 1 + erf(z): 1 + z P(z^2) below 1; above, erfc(|z|) = e^-R(|z|) is taken itself or from 2, so that
 * nothing cancels for z < -1. Beyond 4.25 erfc counts as 0 (it is below 2e-9). */
SFQ_INLINE vec v_one_plus_erf(vec z)
{
    /* erf z / z in z^2 < 1, 3e-11 */
    static const float p[8] = {1.12837917f,    -0.376126385f,    0.112837827f,    -0.0268654458f,
                               0.00522107489f, -0.000848471159f, 0.000112705455f, -9.68013938e-06f};
    /* -ln erfc z on 1..4.3, 8e-9 */
    static const float r[10] = {-0.000424891033f, 1.13071850f,    0.630859150f,     0.111169130f,
                                -0.0271853777f,   0.00510645813f, -0.000698755951f, 6.47987455e-05f,
                                -3.59531694e-06f, 8.87546232e-08f};
    const vec one = v_set1(1.0f);
    vec size = v_abs(z), square = v_mul(z, z);
    vec small = v_fma(z, v_poly(square, p, 8), one);
    vec bounded = v_min(v_set1(4.3f), size);
    vec tail = v_exp(v_sub(v_zero(), v_poly(bounded, r, 10)));
    tail = v_choose(v_less(v_set1(4.25f), size), v_zero(), tail);
    vec large = v_choose(v_negative(z), tail, v_sub(v_set1(2.0f), tail));
    return v_choose(v_less(size, one), small, large);
}

#endif

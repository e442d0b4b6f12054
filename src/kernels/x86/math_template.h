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

/* erf(size / sqrt 2) for size >= 0: around each multiple of 0.4 a polynomial in 2.5 size less that
 * multiple; from 5.8 on 1. The errors are those of the leading coefficient's rounding, 3.3e-8. */
SFQ_INLINE vec v_erf_root_half(vec size)
{
    static const float c[6][16] = {
        {5.14605546e-11f, 0.310843468f, 0.576289177f, 0.769860685f, 0.890401423f, 0.954499722f,
         0.983604908f, 0.994889736f, 0.998625696f, 0.999681771f, 0.99993664f, 0.999989152f,
         0.999998391f, 0.999999821f, 1.0f, 1.0f},
        {0.319153816f, 0.294616103f, 0.231753245f, 0.155348852f, 0.0887366682f, 0.0431927703f,
         0.0179156214f, 0.00633235974f, 0.00190727029f, 0.00048952183f, 0.000107064428f,
         1.99540955e-05f, 3.16907949e-06f, 4.28893202e-07f, 4.94630648e-08f, 0.0f},
        {1.55365115e-07f, -0.0235685036f, -0.0370796882f, -0.0372834727f, -0.0283960178f,
         -0.0172774959f, -0.00859970227f, -0.00354613992f, -0.00122060045f, -0.000352408591f,
         -8.56275146e-05f, -1.75508249e-05f, -3.0398503e-06f, -4.4549887e-07f, -5.52993917e-08f,
         0.0f},
        {-0.00851199776f, -0.0065992563f, -0.00222494057f, 0.00182255858f, 0.00369134569f,
         0.00345544983f, 0.00227415678f, 0.00115506118f, 0.00046995774f, 0.000156118171f,
         4.28194799e-05f, 9.7664597e-06f, 1.86153056e-06f, 2.9755401e-07f, 3.99904962e-08f, 0.0f},
        {4.18181526e-06f, 0.000884100795f, 0.00115793117f, 0.000772842497f, 0.000169623498f,
         -0.000226232078f, -0.000314300269f, -0.000228654695f, -0.000118397518f, -4.73068285e-05f,
         -1.51002978e-05f, -3.92269203e-06f, -8.38715209e-07f, -1.48699527e-07f, -2.19753264e-08f,
         0.0f},
        {0.000198713227f, 0.000128851083f, -2.05400611e-05f, -0.000116834228f, -0.000109245775f,
         -4.62619028e-05f, 5.730873e-06f, 2.32785369e-05f, 1.8844541e-05f, 9.77758373e-06f,
         3.7647153e-06f, 1.13404587e-06f, 2.74305194e-07f, 5.40887761e-08f, 8.77945627e-09f, 0.0f},
    };
    const vec whole = v_set1(0x1.8p23f), steps = v_set1(2.5f);
    vec bounded = v_min(v_set1(6.1f), size); /* gives size for NaN */
    vec i = v_fma(bounded, steps, whole);
    vec t = v_fma(bounded, steps, v_sub(whole, i));
    vec p = v_pick(c[5], i);
    SFQ_UNROLL
    for (int d = 4; d >= 0; d--)
        p = v_fma(p, t, v_pick(c[d], i));
    return p;
}

/* x/2 (1 + erf(x / sqrt 2)); exactly x or 0 from 5.8 on. */
SFQ_INLINE vec v_gelu(vec x)
{
    const vec half = v_set1(0.5f), size = v_abs(x);
    return v_fma(v_mul(size, half), v_erf_root_half(size), v_mul(x, half));
}

#endif

/* tests/kernels/check_norm.c - RMSNorm and LayerNorm against ref (which sums in double): the error
 * of the float sums is (C/32 + 8) roundings of the mean, halved by the root; the mean of LayerNorm
 * may cancel, so its bound is taken from the largest |x|. */
#include "check.h"

#include <math.h>
#include <string.h>

typedef struct norm_case {
    const sfq_kernels *k;
    bool layer;
    size_t c;
    float *x, *gain, *bias, *y;
    float eps;
} norm_case;

static norm_case make_case(const sfq_kernels *k, bool layer, size_t c, float offset)
{
    norm_case n = {.k = k, .layer = layer, .c = c, .eps = 1e-5f};
    n.x = CHECK_ARRAY(float, c);
    n.gain = CHECK_ARRAY(float, c);
    n.bias = layer && check_between(0, 3) ? CHECK_ARRAY(float, c) : NULL;
    n.y = CHECK_ARRAY(float, c);
    check_floats(n.x, c, CHECK_PLAIN);
    check_floats(n.gain, c, CHECK_PLAIN);
    if (n.bias)
        check_floats(n.bias, c, CHECK_PLAIN);
    for (size_t i = 0; i < c; i++)
        n.x[i] += offset;
    return n;
}

static void apply(const sfq_kernels *k, float *y, const float *x, const norm_case *n)
{
    if (n->layer)
        k->layernorm(y, x, n->gain, n->bias, n->eps, n->c);
    else
        k->rmsnorm(y, x, n->gain, n->eps, n->c);
}

static void compare(const norm_case *n)
{
    float *want = CHECK_ARRAY(float, n->c);
    double largest = 0.0, mean = 0.0, var = 0.0;
    apply(check_ref(), want, n->x, n);
    apply(n->k, n->y, n->x, n);
    for (size_t i = 0; i < n->c; i++) {
        largest = fmax(largest, fabs((double)n->x[i]));
        mean += n->layer ? (double)n->x[i] / (double)n->c : 0.0;
    }
    for (size_t i = 0; i < n->c; i++)
        var += ((double)n->x[i] - mean) * ((double)n->x[i] - mean) / (double)n->c;
    const double root = sqrt(var + (double)n->eps), roundings = (double)n->c / 32 + 8;
    const double shift = n->layer ? roundings * CHECK_EPS * largest / root : 0.0;
    for (size_t i = 0; i < n->c; i++) {
        double z = fabs((double)n->x[i] - mean) / root;
        double bound =
            fabs((double)n->gain[i]) * (z * CHECK_EPS * (roundings + 8) + shift * (1.0 + z)) +
            (n->bias ? CHECK_EPS * 2.0 * fabs((double)n->bias[i]) : 0.0) + 1e-37;
        check_near((double)n->y[i], (double)want[i], bound, "norm", i);
    }
    float *in_place = check_copy(n->x, n->c * sizeof(float));
    apply(n->k, in_place, in_place, n);
    check_same(in_place, n->y, n->c * sizeof(float), "in place");
    float *apart = (float *)CHECK_ARRAY(float, n->c + 9) + 5;
    memcpy(apart, n->x, n->c * sizeof(float));
    apply(n->k, apart, apart, n);
    check_same(apart, n->y, n->c * sizeof(float), "elsewhere in memory");
}

static void check_norms(const sfq_kernels *k, bool layer)
{
    for (int turn = 0; turn < 250; turn++) {
        size_t c = check_between(1, turn % 3 ? 70 : 3000);
        float offset = turn % 5 == 0 ? 100.0f : 0.0f;
        norm_case n = make_case(k, layer, c, offset);
        if (turn % 7 == 0)
            memset(n.x, 0, c * sizeof(float));
        compare(&n);
        check_reset();
    }
}

static void run_norm(void *ctx)
{
    norm_case *n = ctx;
    apply(n->k, n->y, n->x, n);
}

static void bench_norms(const sfq_kernels *k, bool layer)
{
    norm_case n = make_case(k, layer, 2048, 0.0f);
    check_report("C=2048", check_seconds(run_norm, &n), 0, 2048 * 8);
}

void check_rmsnorm(const sfq_kernels *k)
{
    check_norms(k, false);
}

void check_layernorm(const sfq_kernels *k)
{
    check_norms(k, true);
}

void bench_rmsnorm(const sfq_kernels *k)
{
    bench_norms(k, false);
}

void bench_layernorm(const sfq_kernels *k)
{
    bench_norms(k, true);
}

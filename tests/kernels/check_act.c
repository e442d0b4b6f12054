/* tests/kernels/check_act.c - activation functions and elementwise operations against ref (double,
 * rounded once). The error is measured against |x|: what 1 + erf and 1 + tanh cancel is lost to
 * every float implementation, Transformers' included. */
#include "check.h"

#include <math.h>
#include <string.h>

static const char *const kind_names[SFQ_ACT_COUNT] = {"silu", "gelu", "gelu_tanh",
                                                      "relu", "tanh", "quick_gelu"};

/* Roundings allowed, of the larger of |result| and a share of |x|. */
static double act_bound(sfq_activation kind, double x, double want)
{
    double size = fabs(want);
    if (kind == SFQ_ACT_GELU || kind == SFQ_ACT_GELU_TANH)
        size = fmax(size, fabs(x) * 0.25); /* x/2 times roundings of 1 + erf, before it cancels */
    if (kind == SFQ_ACT_SILU || kind == SFQ_ACT_QUICK_GELU)
        size += size * fabs(x) * 0.5; /* the exponent's argument is rounded too */
    return kind == SFQ_ACT_RELU ? 0.0 : 6 * CHECK_EPS * size + 1e-37;
}

/* The whole line: every exponent and sign, and a dense grid where the functions bend. */
static size_t sweep(float *x, size_t room)
{
    size_t n = 0;
    for (int e = -140; e <= 127; e++)
        for (int s = 0; s < 2; s++)
            x[n++] = ldexpf(s ? -1.37f : 1.0f, e);
    while (n < room) {
        x[n] = (float)((double)n / (double)room * 24.0 - 12.0) + 0.001f * check_normal();
        n++;
    }
    return n;
}

static void against_ref(const sfq_kernels *k, sfq_activation kind)
{
    const size_t n = 60003;
    float *x = CHECK_ARRAY(float, n), *want = CHECK_ARRAY(float, n);
    sweep(x, n);
    memcpy(want, x, n * sizeof *x);
    float *got = check_copy(x, n * sizeof *x);
    check_ref()->act(kind, want, n);
    k->act(kind, got, n);
    for (size_t i = 0; i < n; i++)
        check_near((double)got[i], (double)want[i], act_bound(kind, (double)x[i], (double)want[i]),
                   kind_names[kind], i);
    for (size_t i = 0; i < n; i += 977) { /* an element alone gives the same bits */
        float one = x[i];
        k->act(kind, &one, 1);
        check_same(&one, &got[i], sizeof one, "element alone");
    }
    check_reset();
}

static void special_values(const sfq_kernels *k, sfq_activation kind)
{
    float x[4] = {INFINITY, NAN, 0.0f, 1e30f};
    k->act(kind, x, 4);
    float top = kind == SFQ_ACT_TANH ? 1.0f : INFINITY;
    CHECK(x[0] == top, "%s(inf) = %g", kind_names[kind], (double)x[0]);
    CHECK(isnan(x[1]), "%s(nan) = %g", kind_names[kind], (double)x[1]);
    CHECK(x[2] == 0.0f, "%s(0) = %g", kind_names[kind], (double)x[2]);
}

void check_act(const sfq_kernels *k)
{
    for (int kind = 0; kind < SFQ_ACT_COUNT; kind++) {
        against_ref(k, (sfq_activation)kind);
        special_values(k, (sfq_activation)kind);
    }
}

void check_act_mul(const sfq_kernels *k)
{
    for (int turn = 0; turn < 300; turn++) {
        sfq_activation kind = (sfq_activation)(turn % SFQ_ACT_COUNT);
        size_t n = check_between(1, 70);
        float *gate = CHECK_ARRAY(float, n), *up = CHECK_ARRAY(float, n);
        check_floats(gate, n, CHECK_PLAIN);
        check_floats(up, n, CHECK_WILD);
        float *want = check_copy(gate, n * sizeof *gate);
        k->act(kind, want, n); /* the product of act's own bits */
        k->act_mul(kind, gate, up, n);
        for (size_t i = 0; i < n; i++) {
            float product = want[i] * up[i];
            check_same(&gate[i], &product, sizeof product, "act_mul");
        }
        check_reset();
    }
}

void check_add(const sfq_kernels *k)
{
    for (int turn = 0; turn < 300; turn++) {
        size_t n = check_between(1, 70);
        float *y = CHECK_ARRAY(float, n), *x = CHECK_ARRAY(float, n);
        check_floats(y, n, CHECK_WILD);
        check_floats(x, n, CHECK_WILD);
        float *want = check_copy(y, n * sizeof *y);
        for (size_t i = 0; i < n; i++)
            want[i] += x[i];
        k->add(y, x, n);
        check_same(y, want, n * sizeof *y, "add");
        check_reset();
    }
}

typedef struct act_bench {
    const sfq_kernels *k;
    sfq_activation kind;
    float *x, *in, *up;
    size_t n;
} act_bench;

static act_bench make_bench(const sfq_kernels *k)
{
    act_bench b = {.k = k, .n = 8192};
    b.x = CHECK_ARRAY(float, b.n);
    b.in = CHECK_ARRAY(float, b.n);
    b.up = CHECK_ARRAY(float, b.n);
    check_floats(b.in, b.n, CHECK_PLAIN);
    check_floats(b.up, b.n, CHECK_PLAIN);
    return b;
}

static void run_act(void *ctx)
{
    act_bench *b = ctx;
    memcpy(b->x, b->in, b->n * sizeof *b->x);
    b->k->act(b->kind, b->x, b->n);
}

static void run_act_mul(void *ctx)
{
    act_bench *b = ctx;
    memcpy(b->x, b->in, b->n * sizeof *b->x);
    b->k->act_mul(b->kind, b->x, b->up, b->n);
}

static void run_add(void *ctx)
{
    act_bench *b = ctx;
    memcpy(b->x, b->in, b->n * sizeof *b->x);
    b->k->add(b->x, b->up, b->n);
}

void bench_act(const sfq_kernels *k)
{
    act_bench b = make_bench(k);
    for (int kind = 0; kind < SFQ_ACT_COUNT; kind++) {
        b.kind = (sfq_activation)kind;
        check_report(kind_names[kind], check_seconds(run_act, &b), 0, (double)b.n * 8);
    }
}

void bench_act_mul(const sfq_kernels *k)
{
    act_bench b = make_bench(k);
    check_report("silu n=8192", check_seconds(run_act_mul, &b), 0, (double)b.n * 12);
}

void bench_add(const sfq_kernels *k)
{
    act_bench b = make_bench(k);
    check_report("n=8192", check_seconds(run_add, &b), 0, (double)b.n * 12);
}

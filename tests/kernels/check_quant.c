/* tests/kernels/check_quant.c - activation quantization: codes, scales and sums are equal bit by
 * bit on every level, since every later integer depends on them. */
#include "check.h"

#include <math.h>
#include <string.h>

static sfq_quant_rows_args quant_case(size_t m, size_t k, size_t segment_k, int bits)
{
    sfq_quant_rows_args a = {.m = m, .k = k, .ldx = k + check_between(0, 5), .bits = bits};
    a.segment_k = segment_k;
    a.segments = (k + segment_k - 1) / segment_k;
    a.k_padded = (k + 63) / 64 * 64;
    float *x = CHECK_ARRAY(float, (m - 1) * a.ldx + k);
    check_floats(x, (m - 1) * a.ldx + k, (int)check_between(0, CHECK_FLAVOURS - 1));
    a.x = x;
    return a;
}

static void quant_outputs(sfq_quant_rows_args *a)
{
    a->codes = CHECK_ARRAY(int16_t, a->m * a->k_padded);
    a->scales = CHECK_ARRAY(float, a->m * a->segments);
    a->sums = CHECK_ARRAY(int32_t, a->m * a->segments);
}

static void compare_rows(const sfq_kernels *k, const sfq_quant_rows_args *in)
{
    sfq_quant_rows_args want = *in, got = *in;
    size_t split = check_between(0, in->m);
    quant_outputs(&want);
    quant_outputs(&got);
    check_ref()->quant_rows(&want, 0, in->m);
    k->quant_rows(&got, split, in->m);
    check_untouched(got.codes, split * got.k_padded * sizeof *got.codes, "rows before m_begin");
    k->quant_rows(&got, 0, split);
    check_same(got.codes, want.codes, in->m * in->k_padded * sizeof *got.codes, "codes");
    check_same(got.scales, want.scales, in->m * in->segments * sizeof *got.scales, "scales");
    check_same(got.sums, want.sums, in->m * in->segments * sizeof *got.sums, "sums");
}

/* The definition itself, on numbers worked out by hand. */
static void by_hand(const sfq_kernels *k)
{
    const float x[] = {127.0f, -63.5f, 0.5f, 1.5f, -254.0f, 1.0f, 3.0f, 0.0f};
    const int16_t want[] = {64, -32, 0, 1, -127, 0, 2, 0}; /* 63.5 and 0.5 round to even */
    sfq_quant_rows_args a = {
        .m = 1, .k = 8, .ldx = 8, .bits = 8, .segments = 1, .segment_k = 64, .k_padded = 64};
    a.x = check_copy(x, sizeof x);
    quant_outputs(&a);
    k->quant_rows(&a, 0, 1);
    check_same(a.codes, want, sizeof want, "codes by hand");
    CHECK(a.scales[0] == 2.0f, "scale %g", (double)a.scales[0]);
    CHECK(a.sums[0] == 64 - 32 + 1 - 127 + 2, "sum %d", a.sums[0]);
}

static void special_rows(const sfq_kernels *k)
{
    static const float values[] = {0.0f, 1e-40f, 1e-36f, 3e38f, INFINITY, NAN};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        sfq_quant_rows_args a = quant_case(2, 75, 64, 8);
        float *x = CHECK_ARRAY(float, 75 + a.ldx);
        for (size_t j = 0; j < 75 + a.ldx; j++)
            x[j] = values[i] < 1.0f ? values[i] : (float)j;
        x[70] = values[i];
        a.x = x;
        compare_rows(k, &a);
        quant_outputs(&a);
        k->quant_rows(&a, 0, 1);
        CHECK(isfinite(values[i]) == isfinite(a.scales[1]), "%g passed unseen", (double)values[i]);
    }
}

void check_quant_rows(const sfq_kernels *k)
{
    by_hand(k);
    special_rows(k);
    for (int turn = 0; turn < 300; turn++) {
        int bits = (int)check_between(8, 14);
        size_t n = check_between(1, turn % 2 ? 70 : 2500);
        sfq_quant_rows_args a = quant_case(check_between(1, 5), n, 64 * check_between(1, 16), bits);
        compare_rows(k, &a);
        check_reset();
    }
}

typedef struct quant_bench {
    const sfq_kernels *k;
    sfq_quant_rows_args a;
} quant_bench;

static void run_quant(void *ctx)
{
    quant_bench *b = ctx;
    b->k->quant_rows(&b->a, 0, b->a.m);
}

void bench_quant_rows(const sfq_kernels *k)
{
    quant_bench b = {.k = k, .a = quant_case(16, 2048, 1024, 8)};
    float *x = CHECK_ARRAY(float, 16 * b.a.ldx);
    check_floats(x, 16 * b.a.ldx, CHECK_PLAIN);
    b.a.x = x;
    quant_outputs(&b.a);
    check_report("M=16 K=2048 segment=1024", check_seconds(run_quant, &b), 0, 16 * 2048 * 4);
}

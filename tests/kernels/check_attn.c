/* tests/kernels/check_attn.c - attention of one query against ref. The bound: scores carry the
 * rounding of a dot product of D terms, which the exponential turns into a relative error of each
 * weight; sums of 64 weights and the merges add theirs. */
#include "check.h"

#include <math.h>

static sfq_attn_args make_case(size_t d, size_t t_begin, size_t t_end, size_t stride, int flavour)
{
    sfq_attn_args a = {.d = d, .t_begin = t_begin, .t_end = t_end, .stride = stride};
    float *q = CHECK_ARRAY(float, d);
    float *k = CHECK_ARRAY(float, (t_end - 1) * stride + d);
    float *v = CHECK_ARRAY(float, (t_end - 1) * stride + d);
    check_floats(q, d, CHECK_PLAIN);
    check_floats(k, (t_end - 1) * stride + d, CHECK_PLAIN);
    check_floats(v, (t_end - 1) * stride + d, flavour);
    if (flavour == CHECK_WILD) /* one key far above the others, and equal keys */
        for (size_t i = 0; i < d; i++)
            k[(t_end - 1) * stride + i] = 50.0f * q[i];
    a.q = q;
    a.k = k;
    a.v = v;
    a.scale = 1.0f / sqrtf((float)d);
    a.out = CHECK_ARRAY(float, d);
    return a;
}

/* Largest error of a score, relative to nothing: the exponent's argument. */
static double score_error(const sfq_attn_args *a)
{
    double worst = 0.0;
    for (size_t t = a->t_begin; t < a->t_end; t++) {
        double size = 0.0;
        for (size_t i = 0; i < a->d; i++)
            size += fabs((double)a->q[i] * (double)a->k[t * a->stride + i]);
        worst = fmax(worst, size * (double)a->scale);
    }
    return CHECK_EPS * ((double)a->d / 8 + 8) * worst;
}

static void against_ref(const sfq_kernels *k, const sfq_attn_args *a)
{
    sfq_attn_args want = *a, got = *a;
    want.out = CHECK_ARRAY(float, a->d);
    got.out = CHECK_ARRAY(float, a->d);
    check_ref()->attn(&want);
    k->attn(&got);
    double chunks = (double)((a->t_end - a->t_begin) / SFQ_ATTN_CHUNK + 2);
    double relative = 2.0 * score_error(a) + CHECK_EPS * (64.0 + 16.0 + 8.0 * chunks);
    for (size_t i = 0; i < a->d; i++) {
        double size = 0.0;
        for (size_t t = a->t_begin; t < a->t_end; t++)
            size = fmax(size, fabs((double)a->v[t * a->stride + i]));
        check_near((double)got.out[i], (double)want.out[i], relative * size + 1e-37, "attn", i);
    }
}

/* A value that is constant over keys comes out as it is, whatever the scores. */
static void constant_values(const sfq_kernels *k)
{
    sfq_attn_args a = make_case(24, 3, 200, 24, CHECK_PLAIN);
    float *v = CHECK_ARRAY(float, 200 * 24);
    for (size_t i = 0; i < 200 * 24; i++)
        v[i] = (float)(i % 24) - 7.0f;
    a.v = v;
    k->attn(&a);
    for (size_t i = 0; i < 24; i++)
        check_near((double)a.out[i], (double)i - 7.0, 2e-5, "constant value", i);
}

/* Keys outside of [t_begin, t_end) and the place of the buffers do not matter. */
static void invariance(const sfq_kernels *k, const sfq_attn_args *a)
{
    sfq_attn_args moved = *a, got = *a;
    size_t count = (a->t_end - 1) * a->stride + a->d;
    float *keys = (float *)CHECK_ARRAY(float, count + 3) + 1;
    float *values = (float *)CHECK_ARRAY(float, count + 3) + 2;
    for (size_t t = 0; t < a->t_end; t++) {
        for (size_t i = 0; i < a->d; i++) {
            bool used = t >= a->t_begin;
            keys[t * a->stride + i] = used ? a->k[t * a->stride + i] : NAN;
            values[t * a->stride + i] = used ? a->v[t * a->stride + i] : NAN;
        }
    }
    moved.k = keys;
    moved.v = values;
    moved.out = CHECK_ARRAY(float, a->d);
    got.out = CHECK_ARRAY(float, a->d);
    k->attn(&got);
    k->attn(&moved);
    check_same(moved.out, got.out, a->d * sizeof(float), "moved keys");
}

void check_attn(const sfq_kernels *k)
{
    constant_values(k);
    for (int turn = 0; turn < 250; turn++) {
        size_t d = turn % 3 ? 8 * check_between(1, 16) : check_between(1, 130);
        if (turn == 10)
            d = SFQ_MAX_HEAD_DIM;
        size_t end = check_between(1, turn % 2 ? 20 : 400);
        size_t begin = turn % 4 == 3 ? check_between(0, end - 1) : 0;
        sfq_attn_args a = make_case(d, begin, end, d * check_between(1, 2), turn % 2);
        against_ref(k, &a);
        invariance(k, &a);
        check_reset();
    }
}

typedef struct attn_bench {
    const sfq_kernels *k;
    sfq_attn_args a;
} attn_bench;

static void run_attn(void *ctx)
{
    attn_bench *b = ctx;
    b->k->attn(&b->a);
}

void bench_attn(const sfq_kernels *k)
{
    static const size_t keys[] = {64, 512, 2048};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char what[64];
        attn_bench b = {.k = k, .a = make_case(64, 0, keys[i], 64, CHECK_PLAIN)};
        snprintf(what, sizeof what, "D=64 T=%zu", keys[i]);
        check_report(what, check_seconds(run_attn, &b), 2.0 * 64 * (double)keys[i],
                     2.0 * 4 * 64 * (double)keys[i]);
        check_reset();
    }
}

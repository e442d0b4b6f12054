/* tests/kernels/check_attn.c - attention against ref, and a query in a block against the same
 * query alone. The bound: scores carry the
 * rounding of a dot product of D terms, which the exponential turns into a relative error of each
 * weight; sums of 64 weights and the merges add theirs. */
#include "check.h"

#include <math.h>

enum { MASK_CAUSAL, MASK_WINDOW, MASK_SAME, MASK_ANY, MASK_KINDS, MAX_QUERIES = 40 };

typedef struct attn_case {
    sfq_attn_args a;
    sfq_attn_query query[MAX_QUERIES];
} attn_case;

/* Ranges of a block within the first `keys` keys: tokens in a row, with a window, queries that see
 * the same, and any. */
static void make_ranges(attn_case *c, size_t keys, int mask)
{
    const size_t window = check_between(1, 90);
    for (size_t i = 0; i < c->a.count; i++) {
        sfq_attn_query *q = &c->query[i];
        const size_t back = c->a.count - 1 - i;
        q->t_end = mask < MASK_SAME && keys > back ? keys - back : keys;
        q->t_begin = mask == MASK_WINDOW && q->t_end > window ? q->t_end - window : 0;
        if (mask == MASK_ANY) {
            q->t_end = check_between(1, keys);
            q->t_begin = check_between(0, q->t_end - 1);
        }
    }
}

static void new_outputs(attn_case *c)
{
    for (size_t i = 0; i < c->a.count; i++)
        c->query[i].out = CHECK_ARRAY(float, c->a.d);
}

static void make_case(attn_case *c, size_t count, size_t d, size_t keys, size_t stride, int mask,
                      int flavour)
{
    const size_t elements = (keys - 1) * stride + d;
    float *k = CHECK_ARRAY(float, elements);
    float *v = CHECK_ARRAY(float, elements);
    c->a = (sfq_attn_args){.query = c->query, .count = count, .k = k, .v = v, .stride = stride};
    c->a.d = d;
    c->a.scale = 1.0f / sqrtf((float)d);
    check_floats(k, elements, CHECK_PLAIN);
    check_floats(v, elements, flavour);
    make_ranges(c, keys, mask);
    for (size_t i = 0; i < count; i++) {
        float *q = CHECK_ARRAY(float, d);
        check_floats(q, d, CHECK_PLAIN);
        c->query[i].q = q;
    }
    if (flavour == CHECK_WILD) /* one key far above the others */
        for (size_t i = 0; i < d; i++)
            k[(keys - 1) * stride + i] = 50.0f * c->query[0].q[i];
    new_outputs(c);
}

/* Largest error of a score, relative to nothing: the exponent's argument. */
static double score_error(const sfq_attn_args *a, const sfq_attn_query *q)
{
    double worst = 0.0;
    for (size_t t = q->t_begin; t < q->t_end; t++) {
        double size = 0.0;
        for (size_t i = 0; i < a->d; i++)
            size += fabs((double)q->q[i] * (double)a->k[t * a->stride + i]);
        worst = fmax(worst, size * (double)a->scale);
    }
    return CHECK_EPS * ((double)a->d / 8 + 8) * worst;
}

static void query_near(const sfq_attn_args *a, const sfq_attn_query *q, const float *want)
{
    double chunks = (double)((q->t_end - q->t_begin) / SFQ_ATTN_CHUNK + 2);
    double relative = 2.0 * score_error(a, q) + CHECK_EPS * (64.0 + 16.0 + 8.0 * chunks);
    for (size_t i = 0; i < a->d; i++) {
        double size = 0.0;
        for (size_t t = q->t_begin; t < q->t_end; t++)
            size = fmax(size, fabs((double)a->v[t * a->stride + i]));
        check_near((double)q->out[i], (double)want[i], relative * size + 1e-37, "attn", i);
    }
}

static void against_ref(const sfq_kernels *k, attn_case *c)
{
    attn_case want = *c;
    want.a.query = want.query;
    new_outputs(&want);
    check_ref()->attn(&want.a);
    k->attn(&c->a);
    for (size_t i = 0; i < c->a.count; i++)
        query_near(&c->a, &c->query[i], want.query[i].out);
}

/* A value that is constant over keys comes out as it is, whatever the scores. */
static void constant_values(const sfq_kernels *k)
{
    attn_case c;
    make_case(&c, 5, 24, 200, 24, MASK_CAUSAL, CHECK_PLAIN);
    float *v = CHECK_ARRAY(float, 200 * 24);
    for (size_t i = 0; i < 200 * 24; i++)
        v[i] = (float)(i % 24) - 7.0f;
    c.a.v = v;
    k->attn(&c.a);
    for (size_t q = 0; q < c.a.count; q++)
        for (size_t i = 0; i < 24; i++)
            check_near((double)c.query[q].out[i], (double)i - 7.0, 2e-5, "constant value", i);
}

/* Query i alone, with keys that end where its own end, NaN before them, at other addresses: the
 * same bits as in the block, in which its neighbours see more. */
static void query_alone(const sfq_kernels *k, const attn_case *c, size_t i)
{
    sfq_attn_query q = c->query[i];
    sfq_attn_args a = c->a;
    const size_t elements = (q.t_end - 1) * a.stride + a.d;
    float *keys = CHECK_ARRAY(float, elements);
    float *values = (float *)CHECK_ARRAY(float, elements + 3) + check_between(0, 3);
    for (size_t t = 0; t < q.t_end; t++) {
        for (size_t j = 0; j < a.d; j++) {
            bool used = t >= q.t_begin;
            keys[t * a.stride + j] = used ? a.k[t * a.stride + j] : NAN;
            values[t * a.stride + j] = used ? a.v[t * a.stride + j] : NAN;
        }
    }
    a.k = keys;
    a.v = values;
    a.query = &q;
    a.count = 1;
    q.out = CHECK_ARRAY(float, a.d);
    k->attn(&a);
    check_same(q.out, c->query[i].out, a.d * sizeof(float), "query alone");
}

/* Other cuts of the block, and a last key of NaN for those who do not see it. */
static void invariance(const sfq_kernels *k, const attn_case *c, size_t keys)
{
    attn_case cut = *c;
    new_outputs(&cut);
    for (size_t i = 0, n; i < c->a.count; i += n) {
        n = check_between(1, c->a.count - i);
        cut.a.query = cut.query + i;
        cut.a.count = n;
        k->attn(&cut.a);
    }
    cut.a = c->a;
    attn_case spoilt = *c;
    const size_t elements = (keys - 1) * c->a.stride + c->a.d;
    float *nan_keys = check_copy(c->a.k, elements * sizeof(float));
    float *nan_values = check_copy(c->a.v, elements * sizeof(float));
    for (size_t j = 0; j < c->a.d; j++)
        nan_keys[(keys - 1) * c->a.stride + j] = nan_values[(keys - 1) * c->a.stride + j] = NAN;
    new_outputs(&spoilt);
    spoilt.a.query = spoilt.query;
    spoilt.a.k = nan_keys;
    spoilt.a.v = nan_values;
    k->attn(&spoilt.a);
    for (size_t i = 0; i < c->a.count; i++) {
        const sfq_attn_query *q = &c->query[i];
        check_same(cut.query[i].out, q->out, c->a.d * sizeof(float), "block cut elsewhere");
        if (q->t_end < keys)
            check_same(spoilt.query[i].out, q->out, c->a.d * sizeof(float), "key of a neighbour");
    }
}

void check_attn(const sfq_kernels *k)
{
    constant_values(k);
    for (int turn = 0; turn < 300; turn++) {
        attn_case c;
        size_t d = turn % 3 ? 8 * check_between(1, 16) : check_between(1, 130);
        if (turn == 10)
            d = SFQ_MAX_HEAD_DIM;
        size_t keys = check_between(1, turn % 2 ? 20 : 300);
        size_t count = check_between(1, turn % 8 == 5 ? MAX_QUERIES : 7);
        make_case(&c, count, d, keys, d * check_between(1, 2), turn / 2 % MASK_KINDS, turn % 2);
        against_ref(k, &c);
        invariance(k, &c, keys);
        for (size_t i = 0; i < count; i++)
            query_alone(k, &c, i);
        check_reset();
    }
}

typedef struct attn_bench {
    const sfq_kernels *k;
    attn_case c;
} attn_bench;

static void run_attn(void *ctx)
{
    attn_bench *b = ctx;
    b->k->attn(&b->c.a);
}

/* Queries of a causal block, GMAC over what each of them sees. */
void bench_attn(const sfq_kernels *k)
{
    static const size_t keys[] = {64, 512, 2048}, counts[] = {1, 2, 3, 4, 12, 36};
    for (size_t d = 32; d <= 128; d *= 2) {
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
            for (size_t j = 0; j < sizeof counts / sizeof *counts; j++) {
                char what[64];
                double seen = 0.0;
                attn_bench b = {.k = k};
                make_case(&b.c, counts[j], d, keys[i], d, MASK_CAUSAL, CHECK_PLAIN);
                for (size_t q = 0; q < counts[j]; q++)
                    seen += (double)b.c.query[q].t_end;
                snprintf(what, sizeof what, "queries=%zu D=%zu T=%zu", counts[j], d, keys[i]);
                check_report(what, check_seconds(run_attn, &b), 2.0 * (double)d * seen, 0.0);
                check_reset();
            }
        }
    }
}

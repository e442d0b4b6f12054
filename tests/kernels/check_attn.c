/* tests/kernels/check_attn.c - attention against ref over every form of keys and values, a query in
 * a block against the same query alone, a cache against the rows that it gives back, spans apart
 * against spans in one call; and the rows of a cache themselves. The bound: scores carry the
 * rounding of a dot product of D terms, which the exponential turns into a relative error of each
 * weight; sums of 64 weights and the merges add theirs. */
#include "check.h"

#include <math.h>
#include <string.h>

enum { MASK_CAUSAL, MASK_WINDOW, MASK_SAME, MASK_ANY, MASK_KINDS, MAX_QUERIES = 60 };
enum { ROWS, BLOCKS_F32, BLOCKS_F16, BLOCKS_I8, FORMS };

typedef struct attn_case {
    sfq_attn_args a;
    sfq_attn_query query[MAX_QUERIES];
    int form;
    size_t keys, stride;
    float *k, *v; /* [T, stride] what is read, as float */
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

/* ---- a cache ---- */

static sfq_dtype kind_of(int form)
{
    return form == BLOCKS_F16 ? SFQ_F16 : form == BLOCKS_I8 ? SFQ_I8 : SFQ_F32;
}

/* Key or value t of a cache from a row of floats. */
static void put_row(const attn_case *c, const float *row, void *packed, float *scale, size_t t,
                    bool key)
{
    const size_t bytes = sfq_dtype_info(c->a.kind)->bytes, d = c->a.d;
    float x[SFQ_MAX_HEAD_DIM], codes[SFQ_MAX_HEAD_DIM];
    memcpy(x, row, d * sizeof(float));
    check_ref()->kv_round(c->a.kind, x, codes, &scale[t], d);
    for (size_t i = 0; i < d; i++) {
        size_t at =
            key ? t / SFQ_ATTN_KEYS * SFQ_ATTN_KEYS * d + i * SFQ_ATTN_KEYS + t % SFQ_ATTN_KEYS
                : t * c->stride + i;
        memcpy((char *)packed + at * bytes, (char *)codes + i * bytes, bytes);
    }
}

/* The arguments' keys and values from rows of floats, of which `keys` are there. */
static void use_rows(attn_case *c, const float *k, const float *v, size_t keys)
{
    const size_t bytes = sfq_dtype_info(c->a.kind)->bytes;
    const size_t whole = (keys + SFQ_ATTN_KEYS - 1) / SFQ_ATTN_KEYS * SFQ_ATTN_KEYS;
    c->a.k = k;
    c->a.v = v;
    if (!c->a.blocked)
        return;
    char *to_k = check_guarded(whole * c->a.d * bytes);
    char *to_v = check_guarded(((keys - 1) * c->stride + c->a.d) * bytes);
    float *k_scale = CHECK_ARRAY(float, whole), *v_scale = CHECK_ARRAY(float, keys);
    for (size_t t = 0; t < keys; t++) {
        put_row(c, k + t * c->stride, to_k, k_scale, t, true);
        put_row(c, v + t * c->stride, to_v, v_scale, t, false);
    }
    c->a.k = to_k;
    c->a.v = to_v;
    c->a.k_scale = k_scale;
    c->a.v_scale = v_scale;
}

static void make_case(attn_case *c, int form, size_t count, size_t d, size_t keys, size_t stride,
                      int mask, int flavour)
{
    const size_t elements = (keys - 1) * stride + d;
    *c = (attn_case){.form = form, .keys = keys, .stride = stride};
    c->k = CHECK_ARRAY(float, elements);
    c->v = CHECK_ARRAY(float, elements);
    c->a = (sfq_attn_args){.query = c->query, .count = count, .stride = stride, .d = d};
    c->a.kind = kind_of(form);
    c->a.blocked = form != ROWS;
    c->a.scale = 1.0f / sqrtf((float)d);
    c->a.scratch = check_aligned(SFQ_ATTN_SCRATCH);
    check_floats(c->k, elements, CHECK_PLAIN);
    check_floats(c->v, elements, flavour);
    make_ranges(c, keys, mask);
    for (size_t i = 0; i < count; i++) {
        float *q = CHECK_ARRAY(float, d);
        check_floats(q, d, CHECK_PLAIN);
        c->query[i].q = q;
    }
    if (flavour == CHECK_WILD) /* one key far above the others */
        for (size_t i = 0; i < d; i++)
            c->k[(keys - 1) * stride + i] = 50.0f * c->query[0].q[i];
    for (size_t t = 0; t < keys && form != ROWS; t++) {
        check_ref()->kv_round(c->a.kind, c->k + t * stride, NULL, NULL, d);
        check_ref()->kv_round(c->a.kind, c->v + t * stride, NULL, NULL, d);
    }
    use_rows(c, c->k, c->v, keys);
    new_outputs(c);
}

/* ---- checks ---- */

/* Largest error of a score, relative to nothing: the exponent's argument. */
static double score_error(const attn_case *c, const sfq_attn_query *q)
{
    double worst = 0.0;
    for (size_t t = q->t_begin; t < q->t_end; t++) {
        double size = 0.0;
        for (size_t i = 0; i < c->a.d; i++)
            size += fabs((double)q->q[i] * (double)c->k[t * c->stride + i]);
        worst = fmax(worst, size * (double)c->a.scale);
    }
    return CHECK_EPS * ((double)c->a.d + 2) * worst;
}

static void query_near(const attn_case *c, const sfq_attn_query *q, const float *want)
{
    double chunks = (double)((q->t_end - q->t_begin) / SFQ_ATTN_CHUNK + 2);
    double relative = 2.0 * score_error(c, q) + CHECK_EPS * (64.0 + 16.0 + 8.0 * chunks);
    for (size_t i = 0; i < c->a.d; i++) {
        double size = 0.0;
        for (size_t t = q->t_begin; t < q->t_end; t++)
            size = fmax(size, fabs((double)c->v[t * c->stride + i]));
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
        query_near(c, &c->query[i], want.query[i].out);
}

/* A value that is constant over keys comes out as it is, whatever the scores. */
static void constant_values(const sfq_kernels *k)
{
    attn_case c;
    make_case(&c, ROWS, 5, 24, 200, 24, MASK_CAUSAL, CHECK_PLAIN);
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
    attn_case alone = *c;
    const size_t elements = (q.t_end - 1) * c->stride + c->a.d;
    float *keys = CHECK_ARRAY(float, elements);
    float *values = (float *)CHECK_ARRAY(float, elements + 3) + check_between(0, 3);
    for (size_t t = 0; t < q.t_end; t++) {
        for (size_t j = 0; j < c->a.d; j++) {
            bool used = t >= q.t_begin;
            keys[t * c->stride + j] = used ? c->k[t * c->stride + j] : NAN;
            values[t * c->stride + j] = used ? c->v[t * c->stride + j] : NAN;
        }
    }
    use_rows(&alone, keys, values, q.t_end);
    alone.a.query = &q;
    alone.a.count = 1;
    q.out = CHECK_ARRAY(float, c->a.d);
    k->attn(&alone.a);
    check_same(q.out, c->query[i].out, c->a.d * sizeof(float), "query alone");
}

/* Other cuts of the block, and a last key of NaN for those who do not see it. */
static void invariance(const sfq_kernels *k, const attn_case *c)
{
    attn_case cut = *c;
    const size_t keys = c->keys;
    new_outputs(&cut);
    for (size_t i = 0, n; i < c->a.count; i += n) {
        n = check_between(1, c->a.count - i);
        cut.a.query = cut.query + i;
        cut.a.count = n;
        k->attn(&cut.a);
    }
    cut.a = c->a;
    attn_case spoilt = *c;
    const size_t elements = (keys - 1) * c->stride + c->a.d;
    float *nan_keys = check_copy(c->k, elements * sizeof(float));
    float *nan_values = check_copy(c->v, elements * sizeof(float));
    for (size_t j = 0; j < c->a.d; j++)
        nan_keys[(keys - 1) * c->stride + j] = nan_values[(keys - 1) * c->stride + j] = NAN;
    new_outputs(&spoilt);
    spoilt.a.query = spoilt.query;
    use_rows(&spoilt, nan_keys, nan_values, keys);
    k->attn(&spoilt.a);
    for (size_t i = 0; i < c->a.count; i++) {
        const sfq_attn_query *q = &c->query[i];
        check_same(cut.query[i].out, q->out, c->a.d * sizeof(float), "block cut elsewhere");
        if (q->t_end < keys)
            check_same(spoilt.query[i].out, q->out, c->a.d * sizeof(float), "key of a neighbour");
    }
}

/* The rows that a cache gives back, as rows: the same bits as from the cache. */
static void cache_is_rows(const sfq_kernels *k, const attn_case *c)
{
    attn_case rows = *c;
    rows.a.query = rows.query;
    rows.a.kind = SFQ_F32;
    rows.a.blocked = false;
    use_rows(&rows, c->k, c->v, c->keys);
    new_outputs(&rows);
    k->attn(&rows.a);
    for (size_t i = 0; i < c->a.count; i++)
        check_same(rows.query[i].out, c->query[i].out, c->a.d * sizeof(float), "cache and rows");
}

/* Each query's spans one by one, in any order, and merged. */
static void spans_apart(const sfq_kernels *k, const attn_case *c)
{
    const size_t d = c->a.d;
    for (size_t i = 0; i < c->a.count; i++) {
        const sfq_attn_query *q = &c->query[i];
        const size_t first = q->t_begin / SFQ_ATTN_SPAN, end = (q->t_end - 1) / SFQ_ATTN_SPAN + 1;
        float *parts = CHECK_ARRAY(float, (end - first) * (d + 2)), *out = CHECK_ARRAY(float, d);
        for (size_t s = end; s-- > first;) {
            sfq_attn_query part = {.q = q->q, .out = parts + (s - first) * (d + 2)};
            sfq_attn_args a = c->a;
            part.t_begin = q->t_begin > s * SFQ_ATTN_SPAN ? q->t_begin : s * SFQ_ATTN_SPAN;
            part.t_end = q->t_end < (s + 1) * SFQ_ATTN_SPAN ? q->t_end : (s + 1) * SFQ_ATTN_SPAN;
            a.query = &part;
            a.count = 1;
            a.partial = true;
            k->attn(&a);
        }
        k->attn_merge(out, parts, end - first, d);
        check_same(out, q->out, d * sizeof(float), "spans apart");
    }
}

void check_attn(const sfq_kernels *k)
{
    constant_values(k);
    for (int turn = 0; turn < 160; turn++) {
        attn_case c;
        int form = turn / 4 % FORMS;
        size_t d = turn % 3 ? 8 * check_between(1, 16) : check_between(1, 130);
        size_t keys = check_between(1, turn % 4 ? 40 : 260);
        size_t count = check_between(1, turn % 16 == 5 ? MAX_QUERIES : 7);
        if (turn % 20 == 4) { /* over several spans, or wide heads */
            d = turn < 40 ? SFQ_MAX_HEAD_DIM : check_between(1, 24);
            keys = turn < 40 ? check_between(1, 70) : check_between(500, 1300);
            count = 2;
        }
        make_case(&c, form, count, d, keys, d * check_between(1, 2), turn / 2 % MASK_KINDS,
                  turn % 2);
        against_ref(k, &c);
        invariance(k, &c);
        cache_is_rows(k, &c);
        for (size_t i = 0; i < count; i++)
            query_alone(k, &c, i);
        check_reset();
    }
}

/* attn_merge is what puts the spans of attn together: the two are checked as one. */
void check_attn_merge(const sfq_kernels *k)
{
    for (int turn = 0; turn < 12; turn++) {
        attn_case c;
        size_t keys = check_between(1, 1800), d = turn % 2 ? 32 : check_between(1, 50);
        make_case(&c, turn % FORMS, 4, d, keys, d, turn % MASK_KINDS, turn % 2);
        k->attn(&c.a);
        spans_apart(k, &c);
        check_reset();
    }
}

/* ---- rows of a cache ---- */

static void check_row(const sfq_kernels *k, sfq_dtype kind, size_t d, int flavour)
{
    const size_t bytes = d * sfq_dtype_info(kind)->bytes;
    float *x = CHECK_ARRAY(float, d), got_scale = -1, want_scale = -1;
    check_floats(x, d, flavour);
    if (flavour == CHECK_WILD && check_u64() % 4 == 0)
        x[check_u64() % d] = 1e6f; /* beyond F16 */
    if (flavour == CHECK_WILD && check_u64() % 4 == 0)
        memset(x, 0, d * sizeof(float));
    float *got = check_copy(x, d * sizeof(float)), *want = check_copy(x, d * sizeof(float));
    float *bare = check_copy(x, d * sizeof(float));
    void *got_packed = check_guarded(bytes), *want_packed = check_guarded(bytes);
    k->kv_round(kind, got, got_packed, &got_scale, d);
    k->kv_round(kind, bare, NULL, NULL, d);
    check_ref()->kv_round(kind, want, want_packed, &want_scale, d);
    check_same(got, want, d * sizeof(float), "row given back");
    check_same(bare, want, d * sizeof(float), "row rounded only");
    check_same(got_packed, want_packed, bytes, "row kept");
    check_same(&got_scale, &want_scale, sizeof(float), "scale");
    for (size_t i = 0; i < d; i++) { /* within half a step */
        double size = fabs((double)x[i]);
        double step = kind == SFQ_I8 ? (double)want_scale : size / 1024 + 6e-8;
        if (kind != SFQ_F32 && !(kind == SFQ_F16 && size > 65504))
            check_near((double)want[i], (double)x[i], 0.501 * step + 1e-37, "row", i);
    }
}

void check_kv_round(const sfq_kernels *k)
{
    static const sfq_dtype kinds[] = {SFQ_F32, SFQ_F16, SFQ_I8};
    for (int turn = 0; turn < 300; turn++) {
        check_row(k, kinds[turn % 3], check_between(1, 140), turn / 3 % CHECK_FLAVOURS);
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

/* Queries of a causal or a bidirectional block, GMAC over what each of them sees. */
static void bench_form(const sfq_kernels *k, int form, int mask, size_t d, size_t keys,
                       size_t count)
{
    static const char *const names[FORMS] = {"rows", "F32", "F16", "I8"};
    char what[64];
    double seen = 0.0;
    attn_bench b = {.k = k};
    make_case(&b.c, form, count, d, keys, d, mask, CHECK_PLAIN);
    for (size_t q = 0; q < count; q++)
        seen += (double)b.c.query[q].t_end;
    snprintf(what, sizeof what, "%s queries=%zu D=%zu T=%zu", names[form], count, d, keys);
    check_report(what, check_seconds(run_attn, &b), 2.0 * (double)d * seen, 0.0);
    check_reset();
}

void bench_attn(const sfq_kernels *k)
{
    static const size_t counts[] = {1, 4, 16, 48};
    for (size_t d = 32; d <= 128; d *= 2) {
        bench_form(k, ROWS, MASK_SAME, d, 16, 16);
        bench_form(k, ROWS, MASK_SAME, d, 128, 48);
        bench_form(k, ROWS, MASK_CAUSAL, d, 512, 48);
    }
    for (int form = BLOCKS_F32; form < FORMS; form++)
        for (size_t j = 0; j < sizeof counts / sizeof *counts; j++)
            bench_form(k, form, MASK_CAUSAL, 64, 2048, counts[j]);
}

typedef struct row_bench {
    const sfq_kernels *k;
    sfq_dtype kind;
    float x[128], packed[128], scale, parts[8 * 130];
} row_bench;

static void run_round(void *ctx)
{
    row_bench *b = ctx;
    b->k->kv_round(b->kind, b->x, b->packed, &b->scale, 128);
}

static void run_merge(void *ctx)
{
    row_bench *b = ctx;
    b->k->attn_merge(b->x, b->parts, 8, 128);
}

void bench_attn_merge(const sfq_kernels *k)
{
    row_bench b = {.k = k};
    for (size_t i = 0; i < 8 * 130; i++)
        b.parts[i] = 1.0f;
    check_report("parts=8 D=128", check_seconds(run_merge, &b), 0, 8 * 130 * sizeof(float));
}

void bench_kv_round(const sfq_kernels *k)
{
    row_bench b = {.k = k};
    for (b.kind = SFQ_F32; b.kind <= SFQ_I8; b.kind++) {
        char what[32];
        if (b.kind == SFQ_BF16)
            continue;
        check_floats(b.x, 128, CHECK_PLAIN);
        snprintf(what, sizeof what, "%s D=128", sfq_dtype_info(b.kind)->name);
        check_report(what, check_seconds(run_round, &b), 0, 128 * sizeof(float));
    }
}

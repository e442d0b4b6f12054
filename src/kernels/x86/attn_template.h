/* kernels/x86/attn_template.h - attention of a block of queries over one KV head (the contract is
 * in kernels.h), written once over vectors of VL floats; each level's file says what a vector is
 * and how many queries share a load (TILE).
 *
 * Lanes of a score are keys: keys lie in blocks [D][16 keys], in which a score is one chain of
 * fused multiply-adds over D ascending, whatever is computed beside it, and needs no sum across
 * lanes. Rows of keys are brought into that form chunk by chunk, F16 and I8 become float on the
 * way; what comes out is read by up to BLOCK queries from L1. An output element is one chain over
 * the query's own keys of the chunk; keys that only neighbours see are left out of it, not
 * multiplied by 0, so that no bit (and no NaN) crosses. */
#include "base/ck.h"
#include "kernels/kernel_decls.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum { BLOCK = 48 /* queries that share a chunk */, KEYS = SFQ_ATTN_KEYS };

typedef struct attn_state {
    float *out; /* [D], rounded up to 16: weighted V */
    float max, sum;
    bool begun;
} attn_state;

/* One query in one chunk. Positions count from the start of the chunk. */
typedef struct attn_lane {
    _Alignas(64) float weight[SFQ_ATTN_CHUNK]; /* scores, then their exponentials */
    const float *q;
    size_t lo, hi; /* keys that it sees */
    attn_state *to;
} attn_lane;

typedef struct attn_chunk {
    sfq_dtype kind;
    const void *k;                  /* [4][D][16] */
    const void *v;                  /* [64, v_step] */
    const float *k_scale, *v_scale; /* I8: [64] */
    size_t v_step, d;
    float scale;
} attn_chunk;

/* What a query has so far: all spans before this one, and this one. */
typedef struct attn_sum {
    attn_state all, span;
} attn_sum;

typedef struct attn_work {
    float *k, *v;     /* a chunk as float */
    size_t rounded;   /* D up to 16 */
    attn_sum *sum;    /* [BLOCK] */
    attn_state *tile; /* [TILE] chunks that will be merged */
    attn_lane *lane;  /* [TILE] */
} attn_work;

/* ---- a tile of queries in a chunk ---- */

/* A vector of keys or values of a kind, of which `left` lanes are there. */
SFQ_INLINE vec element(const void *x, size_t at, size_t left, vec scale, const sfq_dtype kind)
{
    uint16_t tail[VL] = {0};
    if (kind == SFQ_F32)
        return left >= VL ? v_load((const float *)x + at)
                          : v_load_some((const float *)x + at, left);
    if (kind == SFQ_F16) {
        const uint16_t *h = (const uint16_t *)x + at;
        if (left < VL)
            h = (const uint16_t *)memcpy(tail, h, left * sizeof *h);
        return v_from_f16(h);
    }
    const int8_t *b = (const int8_t *)x + at;
    if (left < VL)
        b = (const int8_t *)memcpy(tail, b, left);
    return v_mul(v_from_i8(b), scale);
}

/* acc[q][j] += sum over i < n of a[q][i] * b[at[j] + i * step ..]; left: lanes that the only vector
 * has (VL: all). I8: the scale is by[i] for all lanes (by_row) or lanes[j]. */
SFQ_INLINE void product(vec (*acc)[4], const float *const *a, const void *b, const size_t *at,
                        size_t step, size_t n, size_t left, const float *by, const vec *lanes,
                        const int nq, const int nv, const sfq_dtype kind, const bool by_row)
{
    for (size_t i = 0; i < n; i++) {
        vec w[TILE];
        SFQ_UNROLL
        for (int q = 0; q < nq; q++)
            w[q] = v_set1(a[q][i]);
        SFQ_UNROLL
        for (int j = 0; j < nv; j++) {
            vec scale = kind != SFQ_I8 ? v_zero() : by_row ? v_set1(by[i]) : lanes[j];
            vec x = element(b, at[j] + i * step, nv > 1 ? VL : left, scale, kind);
            SFQ_UNROLL
            for (int q = 0; q < nq; q++) {
                acc[q][j] = v_fma(w[q], x, acc[q][j]);
                V_PIN(acc[q][j]);
            }
        }
    }
}

/* Scores of nv vectors of keys. */
SFQ_INLINE void score_vectors(attn_lane *lane, const attn_chunk *c, size_t at, const int nq,
                              const int nv, const sfq_dtype kind)
{
    vec acc[TILE][4], scale[4];
    const float *a[TILE];
    size_t from[4];
    SFQ_UNROLL
    for (int q = 0; q < nq; q++) {
        a[q] = lane[q].q;
        acc[q][0] = acc[q][1] = acc[q][2] = acc[q][3] = v_zero();
    }
    SFQ_UNROLL
    for (size_t j = 0; j < (size_t)nv; j++) {
        from[j] = (at + j * VL) / KEYS * KEYS * c->d + (at + j * VL) % KEYS;
        scale[j] = kind == SFQ_I8 ? v_load(c->k_scale + at + j * VL) : v_zero();
    }
    product(acc, (const float *const *)a, c->k, from, KEYS, c->d, VL, NULL, scale, nq, nv, kind,
            false);
    SFQ_UNROLL
    for (int q = 0; q < nq; q++) {
        SFQ_UNROLL
        for (size_t j = 0; j < (size_t)nv; j++)
            v_store(lane[q].weight + at + j * VL, v_mul(acc[q][j], v_set1(c->scale)));
    }
}

/* Scores of keys [lo, hi), whole vectors of them. */
SFQ_INLINE void tile_scores(attn_lane *lane, const attn_chunk *c, size_t lo, size_t hi,
                            const int nq, const sfq_dtype kind)
{
    size_t at = lo / VL * VL;
    for (; at + 3 * VL < hi; at += 4 * VL)
        score_vectors(lane, c, at, nq, 4, kind);
    for (; at + VL < hi; at += 2 * VL)
        score_vectors(lane, c, at, nq, 2, kind);
    if (at < hi)
        score_vectors(lane, c, at, nq, 1, kind);
}

/* Scores to e^(score - max); their sum, folded in one order. Vectors without a key would add 0. */
static void lane_softmax(attn_lane *l)
{
    const size_t first = l->lo / VL * VL, end = (l->hi + VL - 1) / VL * VL;
    for (size_t t = first; t < l->lo; t++)
        l->weight[t] = -INFINITY;
    for (size_t t = l->hi; t < end; t++)
        l->weight[t] = -INFINITY;
    vec max = v_load(l->weight + first), sum = v_zero();
    for (size_t t = first + VL; t < end; t += VL)
        max = v_max(max, v_load(l->weight + t));
    l->to->max = v_max_of(max);
    for (size_t t = first; t < end; t += VL) {
        vec e = v_exp(v_sub(v_load(l->weight + t), v_set1(l->to->max)));
        v_store(l->weight + t, e);
        sum = v_add(sum, e);
    }
    l->to->sum = v_sum_of(sum);
}

/* nv vectors of V from element i on: out += weight * v over keys [lo, hi) ascending. */
SFQ_INLINE void value_vectors(attn_lane *lane, const attn_chunk *c, size_t lo, size_t hi, size_t i,
                              const int nq, const int nv, const sfq_dtype kind)
{
    vec acc[TILE][4];
    const vec none[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    const float *a[TILE], *by = kind == SFQ_I8 ? c->v_scale + lo : NULL;
    size_t from[4];
    SFQ_UNROLL
    for (int q = 0; q < nq; q++) {
        a[q] = lane[q].weight + lo;
        SFQ_UNROLL
        for (int j = 0; j < nv; j++)
            acc[q][j] = v_load(lane[q].to->out + i + (size_t)j * VL);
    }
    SFQ_UNROLL
    for (int j = 0; j < nv; j++)
        from[j] = lo * c->v_step + i + (size_t)j * VL;
    product(acc, (const float *const *)a, c->v, from, c->v_step, hi - lo, c->d - i, by, none, nq,
            nv, kind, true);
    SFQ_UNROLL
    for (int q = 0; q < nq; q++) {
        SFQ_UNROLL
        for (int j = 0; j < nv; j++)
            v_store(lane[q].to->out + i + (size_t)j * VL, acc[q][j]);
    }
}

SFQ_INLINE void tile_values(attn_lane *lane, const attn_chunk *c, size_t lo, size_t hi,
                            const int nq, const sfq_dtype kind)
{
    size_t i = 0;
    if (lo >= hi)
        return;
    for (; i + 4 * VL <= c->d; i += 4 * VL)
        value_vectors(lane, c, lo, hi, i, nq, 4, kind);
    for (; i + 2 * VL <= c->d; i += 2 * VL)
        value_vectors(lane, c, lo, hi, i, nq, 2, kind);
    for (; i < c->d; i += VL)
        value_vectors(lane, c, lo, hi, i, nq, 1, kind);
}

static void lane_values(attn_lane *lane, const attn_chunk *c, size_t lo, size_t hi)
{
    if (c->kind == SFQ_F32)
        tile_values(lane, c, lo, hi, 1, SFQ_F32);
    else if (c->kind == SFQ_F16)
        tile_values(lane, c, lo, hi, 1, SFQ_F16);
    else
        tile_values(lane, c, lo, hi, 1, SFQ_I8);
}

/* A tile in one chunk, from scratch. Keys that all see are taken together, those before and after
 * by each query alone; every chain still runs in ascending order. */
SFQ_INLINE void tile_chunk(attn_lane *lane, const attn_chunk *c, const int nq, const sfq_dtype kind)
{
    size_t lo = lane[0].lo, hi = lane[0].hi, from = lo, to = hi; /* of any, of all */
    for (int q = 1; q < nq; q++) {
        lo = sfq_min_size(lo, lane[q].lo);
        hi = sfq_max_size(hi, lane[q].hi);
        from = sfq_max_size(from, lane[q].lo);
        to = sfq_min_size(to, lane[q].hi);
    }
    if (to < from)
        from = to = SFQ_ATTN_CHUNK; /* nothing in common */
    tile_scores(lane, c, lo, hi, nq, kind);
    for (int q = 0; q < nq; q++) {
        lane_softmax(&lane[q]);
        for (size_t i = 0; i < c->d; i += VL)
            v_store(lane[q].to->out + i, v_zero());
        if (nq > 1)
            lane_values(&lane[q], c, lane[q].lo, sfq_min_size(from, lane[q].hi));
    }
    tile_values(lane, c, from, to, nq, kind);
    for (int q = 0; nq > 1 && q < nq; q++)
        lane_values(&lane[q], c, sfq_max_size(to, lane[q].lo), lane[q].hi);
}

static void merge(attn_state *all, const attn_state *c, size_t d)
{
    const float max = all->max > c->max ? all->max : c->max;
    const vec keep = v_exp(v_set1(all->max - max)), take = v_exp(v_set1(c->max - max));
    for (size_t i = 0; i < d; i += VL) {
        vec kept = v_mul(v_load(all->out + i), keep);
        v_store(all->out + i, v_fma(v_load(c->out + i), take, kept));
    }
    all->sum = fmaf(c->sum, v_first(take), all->sum * v_first(keep));
    all->max = max;
}

/* ---- a chunk as float ---- */

/* The block of keys at t, of which [lo, hi) may be read; what stands for the others is not used. */
static void transpose_keys(float *to, const float *k, size_t stride, size_t t, size_t lo, size_t hi,
                           size_t d)
{
    const float *row[KEYS];
    size_t i = 0;
    for (size_t j = 0; j < KEYS; j++)
        row[j] = k + sfq_min_size(sfq_max_size(t + j, lo), hi - 1) * stride;
    for (; i + 4 <= d; i += 4)
        for (size_t j = 0; j < KEYS; j += VL)
            v_transpose4(to + i * KEYS + j, (const float *const *)row + j, i);
    for (; i < d; i++)
        for (size_t j = 0; j < KEYS; j++)
            to[i * KEYS + j] = row[j][i];
}

/* Keys of positions [lo, hi) of the chunk at base, in whole blocks. */
static void stage_keys(const sfq_attn_args *a, float *to, size_t base, size_t lo, size_t hi)
{
    for (size_t t = lo / KEYS * KEYS; t < hi; t += KEYS) {
        const size_t at = (base + t) * a->d;
        float *block = to + t * a->d;
        if (!a->blocked) {
            transpose_keys(block, (const float *)a->k + base * a->stride, a->stride, t, lo, hi,
                           a->d);
        } else if (a->kind == SFQ_F16) {
            for (size_t i = 0; i < KEYS * a->d; i += VL)
                v_store(block + i, element(a->k, at + i, VL, v_zero(), SFQ_F16));
        } else {
            for (size_t i = 0; i < KEYS * a->d; i += VL)
                v_store(block + i, element(a->k, at + i, VL,
                                           v_load(a->k_scale + base + t + i % KEYS), SFQ_I8));
        }
    }
}

/* One row of F16 or I8 values. */
static void stage_row(const sfq_attn_args *a, float *to, size_t t)
{
    const size_t at = t * a->stride;
    const vec scale = v_set1(a->kind == SFQ_I8 ? a->v_scale[t] : 1.0f);
    if (a->kind == SFQ_F16)
        for (size_t i = 0; i < a->d; i += VL)
            v_store(to + i, element(a->v, at + i, a->d - i, scale, SFQ_F16));
    else
        for (size_t i = 0; i < a->d; i += VL)
            v_store(to + i, element(a->v, at + i, a->d - i, scale, SFQ_I8));
}

/* The chunk at base, of which [lo, hi) are seen by any of `count` queries: as it lies, or as float
 * in L1 where that pays for itself. */
static attn_chunk open_chunk(const sfq_attn_args *a, const attn_work *w, size_t count, size_t base,
                             size_t lo, size_t hi)
{
    const size_t bytes = sfq_dtype_info(a->kind)->bytes;
    const bool packed = a->kind != SFQ_F32, stage = packed && count > DIRECT;
    attn_chunk c = {.kind = stage ? SFQ_F32 : a->kind, .d = a->d, .scale = a->scale};
    c.k = (const char *)a->k + base * a->d * bytes;
    c.v = (const char *)a->v + base * a->stride * bytes;
    c.k_scale = a->kind == SFQ_I8 ? a->k_scale + base : NULL;
    c.v_scale = a->kind == SFQ_I8 ? a->v_scale + base : NULL;
    c.v_step = a->stride;
    if (stage || !a->blocked) {
        stage_keys(a, w->k, base, lo, hi);
        c.k = w->k;
    }
    if (stage) {
        for (size_t t = lo; t < hi; t++)
            stage_row(a, w->v + t * w->rounded, base + t);
        c.v = w->v;
        c.v_step = w->rounded;
    }
    return c;
}

/* ---- blocks of queries ---- */

/* The first n lanes, in the tiles that are built. */
static void run_lanes(attn_work *w, attn_sum *const *sum, const attn_chunk *c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        w->tile[i].begun = true;
        w->lane[i].to = sum[i]->span.begun ? &w->tile[i] : &sum[i]->span;
    }
    tiles_chunk(w->lane, c, n);
    for (size_t i = 0; i < n; i++) {
        attn_state *span = &sum[i]->span;
        if (span->begun)
            merge(span, &w->tile[i], c->d);
        span->begun = true;
    }
}

/* Every query that sees keys of the chunk at `base`, [base + lo, base + hi) all together. */
static void run_chunk(const sfq_attn_args *a, attn_work *w, const sfq_attn_query *query,
                      size_t count, size_t base, size_t lo, size_t hi)
{
    attn_sum *sum[TILE];
    size_t n = 0;
    const attn_chunk c = open_chunk(a, w, count, base, lo, hi);
    for (size_t i = 0; i < count; i++) {
        const sfq_attn_query *q = &query[i];
        if (q->t_begin >= base + SFQ_ATTN_CHUNK || q->t_end <= base)
            continue;
        sum[n] = &w->sum[i];
        w->lane[n].q = q->q;
        w->lane[n].lo = q->t_begin > base ? q->t_begin - base : 0;
        w->lane[n].hi = sfq_min_size(q->t_end - base, SFQ_ATTN_CHUNK);
        if (++n == TILE) {
            run_lanes(w, sum, &c, n);
            n = 0;
        }
    }
    if (n > 0)
        run_lanes(w, sum, &c, n);
}

/* The span at hand goes to the sum of those before it. */
static void close_span(attn_sum *s, size_t d)
{
    if (!s->span.begun)
        return;
    if (s->all.begun) {
        merge(&s->all, &s->span, d);
    } else {
        attn_state first = s->span;
        s->span = s->all;
        s->all = first;
    }
    s->span.begun = false;
}

static void store_row(float *to, const float *from, vec divisor, size_t d)
{
    for (size_t i = 0; i < d; i += VL)
        v_store_some(to + i, v_div(v_load(from + i), divisor), d - i);
}

static void run_block(const sfq_attn_args *a, attn_work *w, const sfq_attn_query *query,
                      size_t count)
{
    size_t begin = query[0].t_begin, end = 0;
    for (size_t i = 0; i < count; i++) {
        assert(query[i].t_begin < query[i].t_end);
        begin = sfq_min_size(begin, query[i].t_begin);
        end = sfq_max_size(end, query[i].t_end);
        w->sum[i].all.begun = w->sum[i].span.begun = false;
    }
    for (size_t at = begin, next; at < end; at = next) {
        size_t base = at / SFQ_ATTN_CHUNK * SFQ_ATTN_CHUNK;
        next = sfq_min_size(base + SFQ_ATTN_CHUNK, end);
        run_chunk(a, w, query, count, base, at - base, next - base);
        if (next % SFQ_ATTN_SPAN == 0 || next == end)
            for (size_t i = 0; i < count; i++)
                close_span(&w->sum[i], a->d);
    }
    for (size_t i = 0; i < count; i++) {
        const attn_state *all = &w->sum[i].all;
        store_row(query[i].out, all->out, v_set1(a->partial ? 1.0f : all->sum), a->d);
        if (a->partial) {
            query[i].out[a->d] = all->max;
            query[i].out[a->d + 1] = all->sum;
        }
    }
}

static void attend(const sfq_attn_args *a)
{
    attn_sum sum[BLOCK];
    attn_state tile[TILE];
    attn_lane lane[TILE];
    attn_work w = {.k = (float *)a->scratch, .sum = sum, .tile = tile, .lane = lane};
    assert(a->d <= SFQ_MAX_HEAD_DIM && (a->blocked || a->kind == SFQ_F32));
    w.rounded = (a->d + KEYS - 1) / KEYS * KEYS;
    w.v = w.k + SFQ_ATTN_CHUNK * w.rounded;
    float *at = w.v + SFQ_ATTN_CHUNK * w.rounded;
    for (size_t i = 0; i < TILE; i++, at += w.rounded)
        tile[i].out = at;
    for (size_t i = 0; i < sfq_min_size(a->count, BLOCK); i++, at += 2 * w.rounded) {
        sum[i].all.out = at;
        sum[i].span.out = at + w.rounded;
    }
    for (size_t i = 0; i < a->count; i += BLOCK)
        run_block(a, &w, a->query + i, sfq_min_size(BLOCK, a->count - i));
}

/* Parts of a query, merged as close_span does. */
static void merge_parts(float *out, const float *parts, size_t count, size_t d)
{
    _Alignas(64) float buffer[2][SFQ_MAX_HEAD_DIM];
    attn_state all = {.out = buffer[0]}, span = {.out = buffer[1]};
    for (size_t i = 0; i < count; i++, parts += d + 2) {
        attn_state *to = i == 0 ? &all : &span;
        for (size_t j = 0; j < d; j += VL)
            v_store(to->out + j, v_load_some(parts + j, d - j));
        to->max = parts[d];
        to->sum = parts[d + 1];
        if (i > 0)
            merge(&all, &span, d);
    }
    store_row(out, all.out, v_set1(all.sum), d);
}

/* kernels/x86/attn_avx2.c - attention of a block of queries over one KV head: chunks of 64 keys
 * anchored at position 0, each from scratch, merged in ascending order (see attn_ref.c).
 *
 * A chunk is read by all queries of a block before the next one is touched, and TILE queries share
 * every load of a key or value: 3 queries x 4 vectors fill 12 of the 16 registers. A score is one
 * chain of fused multiply-adds over D in 8 lanes, whichever keys and queries are computed beside
 * it. An output element is one chain over the query's own keys of the chunk; keys that only
 * neighbours see are left out of it, not multiplied by 0, so that no bit (and no NaN) crosses. */
#include "base/ck.h"
#include "kernels/kernel_decls.h"
#include "kernels/x86/math_avx2.h"

#include <assert.h>
#include <math.h>

enum {
    TILE = 3,  /* queries that share loads */
    BLOCK = 12 /* queries that share a chunk in L1 */
};

typedef struct attn_state {
    _Alignas(32) float out[SFQ_MAX_HEAD_DIM]; /* [D], rounded up to whole vectors: weighted V */
    float max, sum;
    bool begun;
} attn_state;

/* One query in one chunk. Positions count from the start of the chunk. */
typedef struct attn_lane {
    _Alignas(32) float weight[SFQ_ATTN_CHUNK]; /* scores, then their exponentials */
    const float *q;
    size_t lo, hi; /* keys that it sees */
    attn_state *to;
} attn_lane;

typedef struct attn_chunk {
    const float *k, *v; /* of the chunk's first position */
    size_t stride, d;
    float scale;
} attn_chunk;

SFQ_INLINE __m256 load8(const float *x, size_t left)
{
    return left >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, sfq_avx2_mask(left));
}

/* acc[query][key] += 8 products */
SFQ_INLINE void dot_step(__m256 (*acc)[4], const attn_lane *lane, const float *const k[4], size_t i,
                         size_t left, const int nq)
{
    __m256 x[TILE];
    SFQ_UNROLL
    for (int q = 0; q < nq; q++)
        x[q] = load8(lane[q].q + i, left);
    SFQ_UNROLL
    for (int j = 0; j < 4; j++) {
        __m256 key = load8(k[j] + i, left);
        SFQ_UNROLL
        for (int q = 0; q < nq; q++) {
            acc[q][j] = _mm256_fmadd_ps(x[q], key, acc[q][j]);
            SFQ_PIN(acc[q][j]);
        }
    }
}

/* Scores of keys [lo, hi) for nq queries, four keys at a time; a key may be read twice. */
SFQ_INLINE void tile_scores(attn_lane *lane, const attn_chunk *c, size_t lo, size_t hi,
                            const int nq)
{
    const __m128 scale = _mm_set1_ps(c->scale);
    for (size_t t = lo & ~(size_t)3; t < hi; t += 4) {
        const float *k[4];
        __m256 acc[TILE][4];
        size_t i = 0;
        SFQ_UNROLL
        for (size_t j = 0; j < 4; j++)
            k[j] = c->k + sfq_max_size(lo, sfq_min_size(t + j, hi - 1)) * c->stride;
        SFQ_UNROLL
        for (int q = 0; q < nq; q++)
            acc[q][0] = acc[q][1] = acc[q][2] = acc[q][3] = _mm256_setzero_ps();
        for (; i + 8 <= c->d; i += 8)
            dot_step(acc, lane, (const float *const *)k, i, 8, nq);
        if (i < c->d)
            dot_step(acc, lane, (const float *const *)k, i, c->d - i, nq);
        SFQ_UNROLL
        for (int q = 0; q < nq; q++) {
            __m128 dot = sfq_avx2_sum4(acc[q][0], acc[q][1], acc[q][2], acc[q][3]);
            _mm_store_ps(lane[q].weight + t, _mm_mul_ps(dot, scale));
        }
    }
}

/* Scores to e^(score - max); their sum, folded in one order. Vectors without a key would add 0. */
static void lane_softmax(attn_lane *l)
{
    const size_t first = l->lo & ~(size_t)7, end = (l->hi + 7) & ~(size_t)7;
    for (size_t t = first; t < l->lo; t++)
        l->weight[t] = -INFINITY;
    for (size_t t = l->hi; t < end; t++)
        l->weight[t] = -INFINITY;
    __m256 max = _mm256_load_ps(l->weight + first), sum = _mm256_setzero_ps();
    for (size_t t = first + 8; t < end; t += 8)
        max = _mm256_max_ps(max, _mm256_load_ps(l->weight + t));
    l->to->max = sfq_avx2_max(max);
    for (size_t t = first; t < end; t += 8) {
        __m256 s = _mm256_sub_ps(_mm256_load_ps(l->weight + t), _mm256_set1_ps(l->to->max));
        __m256 e = sfq_avx2_exp(s);
        _mm256_store_ps(l->weight + t, e);
        sum = _mm256_add_ps(sum, e);
    }
    l->to->sum = sfq_avx2_sum(sum);
}

/* nv vectors of V from element i on: out += weight * v over keys [lo, hi) ascending. */
SFQ_INLINE void value_columns(attn_lane *lane, const attn_chunk *c, size_t lo, size_t hi, size_t i,
                              const int nq, const int nv)
{
    __m256 acc[TILE][4];
    const float *v = c->v + lo * c->stride + i;
    SFQ_UNROLL
    for (int q = 0; q < nq; q++) {
        SFQ_UNROLL
        for (int j = 0; j < nv; j++)
            acc[q][j] = _mm256_load_ps(lane[q].to->out + i + 8 * j);
    }
    for (size_t t = lo; t < hi; t++, v += c->stride) {
        __m256 w[TILE];
        SFQ_UNROLL
        for (int q = 0; q < nq; q++)
            w[q] = _mm256_broadcast_ss(lane[q].weight + t);
        SFQ_UNROLL
        for (int j = 0; j < nv; j++) {
            __m256 x = nv > 1 ? _mm256_loadu_ps(v + 8 * j) : load8(v, c->d - i);
            SFQ_UNROLL
            for (int q = 0; q < nq; q++) {
                acc[q][j] = _mm256_fmadd_ps(w[q], x, acc[q][j]);
                SFQ_PIN(acc[q][j]);
            }
        }
    }
    SFQ_UNROLL
    for (int q = 0; q < nq; q++) {
        SFQ_UNROLL
        for (int j = 0; j < nv; j++)
            _mm256_store_ps(lane[q].to->out + i + 8 * j, acc[q][j]);
    }
}

SFQ_INLINE void tile_values(attn_lane *lane, const attn_chunk *c, size_t lo, size_t hi,
                            const int nq)
{
    size_t i = 0;
    if (lo >= hi)
        return;
    for (; i + 32 <= c->d; i += 32)
        value_columns(lane, c, lo, hi, i, nq, 4);
    for (; i + 16 <= c->d; i += 16)
        value_columns(lane, c, lo, hi, i, nq, 2);
    for (; i < c->d; i += 8)
        value_columns(lane, c, lo, hi, i, nq, 1);
}

static void lane_values(attn_lane *lane, const attn_chunk *c, size_t lo, size_t hi)
{
    tile_values(lane, c, lo, hi, 1);
}

/* A tile in one chunk, from scratch. Keys that all see are taken together, those before and after
 * by each query alone; every chain still runs in ascending order. */
SFQ_INLINE void tile_chunk(attn_lane *lane, const attn_chunk *c, const int nq)
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
    tile_scores(lane, c, lo, hi, nq);
    for (int q = 0; q < nq; q++) {
        lane_softmax(&lane[q]);
        for (size_t i = 0; i < c->d; i += 8)
            _mm256_store_ps(lane[q].to->out + i, _mm256_setzero_ps());
        if (nq > 1)
            lane_values(&lane[q], c, lane[q].lo, sfq_min_size(from, lane[q].hi));
    }
    tile_values(lane, c, from, to, nq);
    for (int q = 0; nq > 1 && q < nq; q++)
        lane_values(&lane[q], c, sfq_max_size(to, lane[q].lo), lane[q].hi);
}

static void merge(attn_state *all, const attn_state *c, size_t d)
{
    const float max = all->max > c->max ? all->max : c->max;
    const __m256 keep = sfq_avx2_exp(_mm256_set1_ps(all->max - max));
    const __m256 take = sfq_avx2_exp(_mm256_set1_ps(c->max - max));
    for (size_t i = 0; i < d; i += 8) {
        __m256 kept = _mm256_mul_ps(_mm256_load_ps(all->out + i), keep);
        _mm256_store_ps(all->out + i, _mm256_fmadd_ps(_mm256_load_ps(c->out + i), take, kept));
    }
    all->sum = fmaf(c->sum, _mm256_cvtss_f32(take), all->sum * _mm256_cvtss_f32(keep));
    all->max = max;
}

/* The first n lanes: a first chunk goes into the query's own state, a later one is merged. */
static void run_tile(attn_lane *lane, attn_state *const *all, const attn_chunk *c, size_t n)
{
    attn_state state[TILE];
    for (size_t q = 0; q < n; q++)
        lane[q].to = all[q]->begun ? &state[q] : all[q];
    if (n == 3)
        tile_chunk(lane, c, 3);
    else if (n == 2)
        tile_chunk(lane, c, 2);
    else
        tile_chunk(lane, c, 1);
    for (size_t q = 0; q < n; q++) {
        if (all[q]->begun)
            merge(all[q], &state[q], c->d);
        all[q]->begun = true;
    }
}

/* All queries of the block over the chunk that begins at position `base`. */
static void run_chunk(attn_state *all, const sfq_attn_args *a, const sfq_attn_query *query,
                      size_t count, size_t base)
{
    const attn_chunk c = {.k = a->k + base * a->stride,
                          .v = a->v + base * a->stride,
                          .stride = a->stride,
                          .d = a->d,
                          .scale = a->scale};
    attn_state *to[TILE];
    attn_lane lane[TILE];
    size_t n = 0, left = 0;
    for (size_t i = 0; i < count; i++)
        left += query[i].t_begin < base + SFQ_ATTN_CHUNK && query[i].t_end > base;
    for (size_t i = 0; i < count; i++) {
        const sfq_attn_query *q = &query[i];
        if (q->t_begin >= base + SFQ_ATTN_CHUNK || q->t_end <= base)
            continue;
        to[n] = &all[i];
        lane[n].q = q->q;
        lane[n].lo = q->t_begin > base ? q->t_begin - base : 0;
        lane[n].hi = sfq_min_size(q->t_end - base, SFQ_ATTN_CHUNK);
        if (++n == sfq_min_size(left, TILE)) {
            run_tile(lane, to, &c, n);
            left -= n;
            n = 0;
        }
    }
}

static void run_block(const sfq_attn_args *a, const sfq_attn_query *query, size_t count)
{
    attn_state all[BLOCK];
    size_t begin = query[0].t_begin, end = 0;
    for (size_t i = 0; i < count; i++) {
        assert(query[i].t_begin < query[i].t_end);
        begin = sfq_min_size(begin, query[i].t_begin);
        end = sfq_max_size(end, query[i].t_end);
        all[i].begun = false;
    }
    for (size_t base = begin / SFQ_ATTN_CHUNK * SFQ_ATTN_CHUNK; base < end; base += SFQ_ATTN_CHUNK)
        run_chunk(all, a, query, count, base);
    for (size_t i = 0; i < count; i++) {
        const __m256 sum = _mm256_set1_ps(all[i].sum);
        for (size_t j = 0; j < a->d; j += 8) {
            __m256 y = _mm256_div_ps(_mm256_load_ps(all[i].out + j), sum);
            if (a->d - j >= 8)
                _mm256_storeu_ps(query[i].out + j, y);
            else
                _mm256_maskstore_ps(query[i].out + j, sfq_avx2_mask(a->d - j), y);
        }
    }
}

void sfq_attn_avx2(const sfq_attn_args *a)
{
    assert(a->d <= SFQ_MAX_HEAD_DIM);
    for (size_t i = 0; i < a->count; i += BLOCK)
        run_block(a, a->query + i, sfq_min_size(BLOCK, a->count - i));
}

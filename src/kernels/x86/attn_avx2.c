/* kernels/x86/attn_avx2.c - attention of one query vector: chunks of 64 keys anchored at position
 * 0, each from scratch, merged in ascending order (see attn_ref.c). A score is one chain of fused
 * multiply-adds over D in 8 lanes, whichever keys are computed beside it; an output element is one
 * chain over the keys of its chunk. */
#include "base/ck.h"
#include "kernels/kernel_decls.h"
#include "kernels/x86/math_avx2.h"

#include <assert.h>
#include <math.h>

typedef struct attn_chunk {
    _Alignas(32) float weight[SFQ_ATTN_CHUNK]; /* scores, then their exponentials; 0 beyond count */
    _Alignas(32) float out[SFQ_MAX_HEAD_DIM];  /* [D], rounded up to whole vectors */
    float max, sum;
} attn_chunk;

SFQ_INLINE __m256 load8(const float *x, size_t left)
{
    return left >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, sfq_avx2_mask(left));
}

/* Scores of four keys; a key may be named twice. */
SFQ_INLINE __m128 dot4(const float *q, const float *const k[4], size_t d)
{
    __m256 acc[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                     _mm256_setzero_ps()};
    for (size_t i = 0; i < d; i += 8) {
        __m256 x = load8(q + i, d - i);
        SFQ_UNROLL
        for (int j = 0; j < 4; j++)
            acc[j] = _mm256_fmadd_ps(x, load8(k[j] + i, d - i), acc[j]);
    }
    return sfq_avx2_sum4(acc[0], acc[1], acc[2], acc[3]);
}

static void chunk_scores(attn_chunk *c, const sfq_attn_args *a, size_t begin, size_t count)
{
    const __m128 scale = _mm_set1_ps(a->scale);
    for (size_t t = 0; t < SFQ_ATTN_CHUNK; t += 8)
        _mm256_store_ps(c->weight + t, _mm256_set1_ps(-INFINITY));
    for (size_t t = 0; t < count; t += 4) {
        const float *k[4];
        for (size_t j = 0; j < 4; j++)
            k[j] = a->k + (begin + sfq_min_size(t + j, count - 1)) * a->stride;
        _mm_store_ps(c->weight + t, _mm_mul_ps(dot4(a->q, (const float *const *)k, a->d), scale));
    }
    for (size_t t = count; t % 4 != 0; t++)
        c->weight[t] = -INFINITY;
}

/* Scores to e^(score - max); their sum, folded in one order. */
static void chunk_softmax(attn_chunk *c)
{
    __m256 max = _mm256_load_ps(c->weight), sum = _mm256_setzero_ps();
    for (size_t t = 8; t < SFQ_ATTN_CHUNK; t += 8)
        max = _mm256_max_ps(max, _mm256_load_ps(c->weight + t));
    c->max = sfq_avx2_max(max);
    for (size_t t = 0; t < SFQ_ATTN_CHUNK; t += 8) {
        __m256 s = _mm256_sub_ps(_mm256_load_ps(c->weight + t), _mm256_set1_ps(c->max));
        __m256 e = sfq_avx2_exp(s);
        _mm256_store_ps(c->weight + t, e);
        sum = _mm256_add_ps(sum, e);
    }
    c->sum = sfq_avx2_sum(sum);
}

/* out = sum over keys ascending of weight * v, 4 vectors of D at a time */
static void chunk_values(attn_chunk *c, const sfq_attn_args *a, size_t begin, size_t count)
{
    const float *v = a->v + begin * a->stride;
    size_t i = 0;
    for (; i + 32 <= a->d; i += 32) {
        __m256 acc[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                         _mm256_setzero_ps()};
        for (size_t t = 0; t < count; t++) {
            __m256 w = _mm256_broadcast_ss(c->weight + t);
            SFQ_UNROLL
            for (size_t j = 0; j < 4; j++) {
                __m256 x = _mm256_loadu_ps(v + t * a->stride + i + 8 * j);
                acc[j] = _mm256_fmadd_ps(w, x, acc[j]);
            }
        }
        SFQ_UNROLL
        for (size_t j = 0; j < 4; j++)
            _mm256_store_ps(c->out + i + 8 * j, acc[j]);
    }
    for (; i < a->d; i += 8) {
        __m256 acc = _mm256_setzero_ps();
        for (size_t t = 0; t < count; t++) {
            __m256 x = load8(v + t * a->stride + i, a->d - i);
            acc = _mm256_fmadd_ps(_mm256_broadcast_ss(c->weight + t), x, acc);
        }
        _mm256_store_ps(c->out + i, acc);
    }
}

static void merge(attn_chunk *all, const attn_chunk *c, size_t d)
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

void sfq_attn_avx2(const sfq_attn_args *a)
{
    attn_chunk all, chunk;
    assert(a->t_begin < a->t_end && a->d <= SFQ_MAX_HEAD_DIM);
    for (size_t begin = a->t_begin, end; begin < a->t_end; begin = end) {
        attn_chunk *c = begin == a->t_begin ? &all : &chunk;
        end = sfq_min_size((begin / SFQ_ATTN_CHUNK + 1) * SFQ_ATTN_CHUNK, a->t_end);
        chunk_scores(c, a, begin, end - begin);
        chunk_softmax(c);
        chunk_values(c, a, begin, end - begin);
        if (c == &chunk)
            merge(&all, c, a->d);
    }
    const __m256 sum = _mm256_set1_ps(all.sum);
    for (size_t i = 0; i < a->d; i += 8) {
        __m256 y = _mm256_div_ps(_mm256_load_ps(all.out + i), sum);
        if (a->d - i >= 8)
            _mm256_storeu_ps(a->out + i, y);
        else
            _mm256_maskstore_ps(a->out + i, sfq_avx2_mask(a->d - i), y);
    }
}

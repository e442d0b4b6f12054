/* kernels/ref/attn_ref.c - definition of attention: query by query, in chunks of 64 keys anchored
 * at position 0, each from scratch, merged in ascending order with the running maximum (Milakov and
 * Gimelshein 2018, "Online normalizer calculation for softmax", eq. 3-4); the results of spans of
 * 512 keys, rounded to float, are merged likewise (Dao et al. 2023, "Flash-Decoding"). */
#include "kernels/kernel_decls.h"

#include "base/ck.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

typedef struct attn_state {
    double max, sum;
    double out[SFQ_MAX_HEAD_DIM]; /* [D], weighted V */
} attn_state;

static double element(const void *x, sfq_dtype kind, size_t at, const float *scale, size_t t)
{
    if (kind == SFQ_F16)
        return (double)sfq_f16_to_f32(((const uint16_t *)x)[at]);
    if (kind == SFQ_I8)
        return (double)((float)((const int8_t *)x)[at] * scale[t]);
    return (double)((const float *)x)[at];
}

static double key(const sfq_attn_args *a, size_t t, size_t i)
{
    size_t block = t / SFQ_ATTN_KEYS * SFQ_ATTN_KEYS;
    size_t at =
        a->blocked ? block * a->d + i * SFQ_ATTN_KEYS + t % SFQ_ATTN_KEYS : t * a->stride + i;
    return element(a->k, a->kind, at, a->k_scale, t);
}

static void chunk_from_scratch(attn_state *c, const sfq_attn_args *a, const float *q, size_t begin,
                               size_t end)
{
    double score[SFQ_ATTN_CHUNK];
    c->max = -INFINITY;
    c->sum = 0.0;
    for (size_t t = begin; t < end; t++) {
        double dot = 0.0;
        for (size_t i = 0; i < a->d; i++)
            dot += (double)q[i] * key(a, t, i);
        score[t - begin] = dot * (double)a->scale;
        c->max = fmax(c->max, score[t - begin]);
    }
    for (size_t i = 0; i < a->d; i++)
        c->out[i] = 0.0;
    for (size_t t = begin; t < end; t++) {
        double p = exp(score[t - begin] - c->max);
        c->sum += p;
        for (size_t i = 0; i < a->d; i++)
            c->out[i] += p * element(a->v, a->kind, t * a->stride + i, a->v_scale, t);
    }
}

static void merge(attn_state *all, const attn_state *c, size_t d)
{
    double max = fmax(all->max, c->max);
    double keep = exp(all->max - max), take = exp(c->max - max);
    for (size_t i = 0; i < d; i++)
        all->out[i] = all->out[i] * keep + c->out[i] * take;
    all->sum = all->sum * keep + c->sum * take;
    all->max = max;
}

/* Keys [begin, end) of one span to part [D+2]. */
static void span_from_scratch(float *part, const sfq_attn_args *a, const float *q, size_t begin,
                              size_t end)
{
    attn_state all, chunk;
    for (size_t at = begin, next; at < end; at = next) {
        next = sfq_min_size((at / SFQ_ATTN_CHUNK + 1) * SFQ_ATTN_CHUNK, end);
        chunk_from_scratch(at == begin ? &all : &chunk, a, q, at, next);
        if (at > begin)
            merge(&all, &chunk, a->d);
    }
    for (size_t i = 0; i < a->d; i++)
        part[i] = (float)all.out[i];
    part[a->d] = (float)all.max;
    part[a->d + 1] = (float)all.sum;
}

static void take_part(attn_state *all, const float *part, size_t d, bool first)
{
    attn_state span = {.max = (double)part[d], .sum = (double)part[d + 1]};
    for (size_t i = 0; i < d; i++)
        span.out[i] = (double)part[i];
    if (first)
        *all = span;
    else
        merge(all, &span, d);
}

static void attend(const sfq_attn_args *a, const sfq_attn_query *q)
{
    attn_state all;
    float part[SFQ_MAX_HEAD_DIM + 2];
    assert(q->t_begin < q->t_end && a->d <= SFQ_MAX_HEAD_DIM);
    for (size_t begin = q->t_begin, end; begin < q->t_end; begin = end) {
        end = sfq_min_size((begin / SFQ_ATTN_SPAN + 1) * SFQ_ATTN_SPAN, q->t_end);
        span_from_scratch(a->partial ? q->out : part, a, q->q, begin, end);
        if (!a->partial)
            take_part(&all, part, a->d, begin == q->t_begin);
    }
    for (size_t i = 0; i < a->d && !a->partial; i++)
        q->out[i] = (float)(all.out[i] / all.sum);
}

void sfq_attn_ref(const sfq_attn_args *a)
{
    for (size_t i = 0; i < a->count; i++)
        attend(a, &a->query[i]);
}

void sfq_attn_merge_ref(float *out, const float *parts, size_t count, size_t d)
{
    attn_state all;
    for (size_t i = 0; i < count; i++)
        take_part(&all, parts + i * (d + 2), d, i == 0);
    for (size_t i = 0; i < d; i++)
        out[i] = (float)(all.out[i] / all.sum);
}

/* ---- rows of a cache ---- */

static void round_f16(float *x, uint16_t *packed, size_t d)
{
    for (size_t i = 0; i < d; i++) {
        float v = x[i] > 65504.0f ? 65504.0f : x[i] < -65504.0f ? -65504.0f : x[i];
        uint16_t h = sfq_f32_to_f16(v);
        x[i] = sfq_f16_to_f32(h);
        if (packed)
            packed[i] = h;
    }
}

/* The largest |x| by bit pattern, in which NaN orders above infinity. */
static float abs_max(const float *x, size_t d)
{
    uint32_t max = 0;
    float largest;
    for (size_t i = 0; i < d; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        max = bits > max ? bits : max;
    }
    memcpy(&largest, &max, sizeof largest);
    return largest;
}

static void round_i8(float *x, int8_t *packed, float *scale, size_t d)
{
    float s = abs_max(x, d) / 127.0f;
    s = s < FLT_MIN ? 0.0f : s;
    const float inverse = s == 0.0f ? 0.0f : 1.0f / s;
    for (size_t i = 0; i < d; i++) {
        float v = x[i] * inverse;
        v = v > -127.0f ? v : -127.0f; /* NaN too */
        v = v < 127.0f ? v : 127.0f;
        int8_t code = (int8_t)rintf(v);
        x[i] = (float)code * s;
        if (packed)
            packed[i] = code;
    }
    if (packed)
        *scale = s;
}

void sfq_kv_round_ref(sfq_dtype kind, float *x, void *packed, float *scale, size_t d)
{
    if (kind == SFQ_I8)
        round_i8(x, (int8_t *)packed, scale, d);
    else if (kind == SFQ_F16)
        round_f16(x, (uint16_t *)packed, d);
    else if (packed)
        memcpy(packed, x, d * sizeof(float));
}

/* kernels/ref/attn_ref.c - definition of attention: query by query, in chunks of 64
 * keys anchored at position 0, each from scratch, merged in ascending order with the running
 * maximum (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax", eq. 3-4). */
#include "kernels/kernel_decls.h"

#include "base/ck.h"

#include <assert.h>
#include <math.h>

typedef struct attn_state {
    double max, sum;
    double out[SFQ_MAX_HEAD_DIM]; /* [D], weighted V */
} attn_state;

static void chunk_from_scratch(attn_state *c, const sfq_attn_args *a, const float *q, size_t begin,
                               size_t end)
{
    double score[SFQ_ATTN_CHUNK];
    c->max = -INFINITY;
    c->sum = 0.0;
    for (size_t t = begin; t < end; t++) {
        double dot = 0.0;
        for (size_t i = 0; i < a->d; i++)
            dot += (double)q[i] * (double)a->k[t * a->stride + i];
        score[t - begin] = dot * (double)a->scale;
        c->max = fmax(c->max, score[t - begin]);
    }
    for (size_t i = 0; i < a->d; i++)
        c->out[i] = 0.0;
    for (size_t t = begin; t < end; t++) {
        double p = exp(score[t - begin] - c->max);
        c->sum += p;
        for (size_t i = 0; i < a->d; i++)
            c->out[i] += p * (double)a->v[t * a->stride + i];
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

static void attend(const sfq_attn_args *a, const sfq_attn_query *q)
{
    attn_state all, chunk;
    assert(q->t_begin < q->t_end && a->d <= SFQ_MAX_HEAD_DIM);
    for (size_t begin = q->t_begin, end; begin < q->t_end; begin = end) {
        end = sfq_min_size((begin / SFQ_ATTN_CHUNK + 1) * SFQ_ATTN_CHUNK, q->t_end);
        if (begin == q->t_begin) {
            chunk_from_scratch(&all, a, q->q, begin, end);
        } else {
            chunk_from_scratch(&chunk, a, q->q, begin, end);
            merge(&all, &chunk, a->d);
        }
    }
    for (size_t i = 0; i < a->d; i++)
        q->out[i] = (float)(all.out[i] / all.sum);
}

void sfq_attn_ref(const sfq_attn_args *a)
{
    for (size_t i = 0; i < a->count; i++)
        attend(a, &a->query[i]);
}

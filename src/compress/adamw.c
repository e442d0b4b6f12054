/* compress/adamw.c - one pass for the norm, one for the update. A piece is at most PIECE elements
 * of one array; its sum of squares is double, and the pieces' sums are added in their order. */
#include "compress/adamw.h"

#include "base/ck.h"
#include "base/mem.h"

#include <math.h>

enum { PIECE = 1 << 15 };

typedef struct piece {
    const sfq_adamw_array *array;
    size_t at, count;
    float *m, *v;
    double squares;
} piece;

struct sfq_adamw {
    sfq_adamw_options options;
    sfq_pool *pool;
    sfq_adamw_array *arrays;
    piece *pieces;
    size_t piece_count;
    size_t total;
    float *moments; /* [2, total] */
};

static size_t pieces_of(size_t count)
{
    return (count + PIECE - 1) / PIECE;
}

static void cut(sfq_adamw *a, size_t arrays)
{
    size_t done = 0, n = 0;
    for (size_t i = 0; i < arrays; i++) {
        const sfq_adamw_array *array = &a->arrays[i];
        for (size_t at = 0; at < array->count; at += PIECE)
            a->pieces[n++] = (piece){.array = array,
                                     .at = at,
                                     .count = sfq_min_size(PIECE, array->count - at),
                                     .m = a->moments + done + at,
                                     .v = a->moments + a->total + done + at};
        done += array->count;
    }
}

sfq_status sfq_adamw_open(sfq_adamw **out, const sfq_adamw_array *arrays, size_t count,
                          const sfq_adamw_options *options, sfq_pool *pool, sfq_error *err)
{
    *out = NULL;
    sfq_adamw *a = SFQ_NEW(sfq_adamw);
    if (a == NULL)
        return sfq_fail_memory(err, sizeof(*a), "the optimizer");
    a->options = *options;
    a->pool = pool;
    for (size_t i = 0; i < count; i++) {
        a->total += arrays[i].count;
        a->piece_count += pieces_of(arrays[i].count);
    }
    a->arrays = SFQ_NEW_ARRAY(sfq_adamw_array, count);
    a->pieces = SFQ_NEW_ARRAY(piece, a->piece_count);
    a->moments = SFQ_NEW_ARRAY(float, 2 * a->total);
    if (a->arrays == NULL || a->pieces == NULL || a->moments == NULL) {
        sfq_fail_memory(err, (size_t)sfq_adamw_bytes(a->total, count), "the optimizer");
        sfq_adamw_close(&a);
        return SFQ_E_MEMORY;
    }
    for (size_t i = 0; i < count; i++)
        a->arrays[i] = arrays[i];
    cut(a, count);
    *out = a;
    return SFQ_OK;
}

void sfq_adamw_close(sfq_adamw **adamw)
{
    if (*adamw == NULL)
        return;
    sfq_mem_free((*adamw)->arrays);
    sfq_mem_free((*adamw)->pieces);
    sfq_mem_free((*adamw)->moments);
    sfq_mem_free(*adamw);
    *adamw = NULL;
}

uint64_t sfq_adamw_bytes(uint64_t floats, size_t arrays)
{
    return sizeof(sfq_adamw) + 2 * sizeof(float) * floats +
           (sizeof(sfq_adamw_array) + sizeof(piece)) * (uint64_t)arrays +
           sizeof(piece) * (floats / PIECE);
}

float *sfq_adamw_moments(sfq_adamw *adamw)
{
    return adamw->moments;
}

/* ---- the norm ---- */

static void norm_task(void *ctx, size_t begin, size_t end, int worker)
{
    sfq_adamw *a = ctx;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        piece *p = &a->pieces[i];
        const float *g = p->array->gradient + p->at;
        const float *unit = p->array->unit != NULL ? p->array->unit + p->at : NULL;
        double sum = 0;
        for (size_t j = 0; j < p->count; j++) {
            double d = (double)g[j] * (unit != NULL ? (double)unit[j] : 1.0);
            sum += d * d;
        }
        p->squares = sum;
    }
}

static double gradient_norm(sfq_adamw *a)
{
    double sum = 0;
    sfq_pool_run_dynamic(a->pool, a->piece_count, 1, norm_task, a);
    for (size_t i = 0; i < a->piece_count; i++)
        sum += a->pieces[i].squares;
    return sqrt(sum);
}

/* ---- the update ---- */

typedef struct update {
    const sfq_adamw *a;
    float scale;      /* of gradients, to bound their norm */
    float keep;       /* 1 - lr * decay */
    float step;       /* lr / (1 - beta1^t) */
    float correction; /* 1 / sqrt(1 - beta2^t) */
} update;

static void update_piece(const update *u, const piece *p)
{
    const sfq_adamw_options *o = &u->a->options;
    const float beta1 = (float)o->beta1, beta2 = (float)o->beta2, eps = (float)o->eps;
    const float fresh1 = (float)(1 - o->beta1), fresh2 = (float)(1 - o->beta2);
    const float keep = p->array->decay ? u->keep : 1.0F;
    float *value = p->array->value + p->at, *m = p->m, *v = p->v;
    const float *gradient = p->array->gradient + p->at;
    const float *units = p->array->unit != NULL ? p->array->unit + p->at : NULL;
    for (size_t j = 0; j < p->count; j++) {
        float unit = units != NULL ? units[j] : 1.0F;
        float g = gradient[j] * unit * u->scale;
        m[j] = beta1 * m[j] + fresh1 * g;
        v[j] = beta2 * v[j] + fresh2 * g * g;
        float move = u->step * m[j] / (sqrtf(v[j]) * u->correction + eps);
        value[j] = keep * value[j] - unit * move;
    }
}

static void update_task(void *ctx, size_t begin, size_t end, int worker)
{
    const update *u = ctx;
    (void)worker;
    for (size_t i = begin; i < end; i++)
        update_piece(u, &u->a->pieces[i]);
}

bool sfq_adamw_step(sfq_adamw *a, uint64_t step, double lr)
{
    const sfq_adamw_options *o = &a->options;
    const double norm = gradient_norm(a), t = (double)step;
    if (!isfinite(norm))
        return false;
    update u = {.a = a,
                .scale = 1,
                .keep = (float)(1 - lr * o->decay),
                .step = (float)(lr / (1 - pow(o->beta1, t))),
                .correction = (float)(1 / sqrt(1 - pow(o->beta2, t)))};
    if (o->clip > 0 && norm > o->clip)
        u.scale = (float)(o->clip / (norm + 1e-6)); /* as torch's clip_grad_norm_ */
    sfq_pool_run_dynamic(a->pool, a->piece_count, 1, update_task, &u);
    return true;
}

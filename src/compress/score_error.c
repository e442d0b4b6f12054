/* compress/score_error.c - what is left of the error when a unit goes and its neighbours take over
 * as well as they can: rho = 1/2 tr(W_u^T [(H^-1)_uu]^-1 W_u), H the second moment of what the
 * output projection reads (M5). In units of the loss by kappa, so that layers compare. */
#include "base/ck.h"
#include "base/mem.h"
#include "compress/prune.h"
#include "compress/ridge.h"
#include "compress/score_parts.h"

#include <string.h>

#define DAMPING 1e-2

/* Room for one sublayer, the widest. */
typedef struct sums {
    double *h;       /* [K, K] */
    float *act;      /* [largest batch, K] */
    double *inverse; /* [K, K] */
    double *block;   /* [unit, unit] of the inverse */
    double *w;       /* [unit, C] */
    double *x;       /* [unit, C] */
    double *diagonal;
} sums;

typedef struct error_run {
    const sfq_work *work;
    const sfq_student *student;
    sfq_walk walk;
    sums sums;
} error_run;

static size_t widest(const sfq_arch *arch)
{
    size_t most = 0;
    for (int i = 0; i < arch->layers; i++) {
        const sfq_layer_arch *l = &arch->layer[i];
        most = sfq_max_size(most, (size_t)l->heads * (size_t)arch->head_dim);
        most = sfq_max_size(most, (size_t)l->ffn);
    }
    return most;
}

/* Columns of the largest unit: a group's heads, or one neuron. */
static size_t unit_columns(const sfq_arch *arch)
{
    size_t most = 1;
    for (int i = 0; i < arch->layers; i++) {
        const sfq_layer_arch *l = &arch->layer[i];
        if (l->kv_heads > 0)
            most = sfq_max_size(most, (size_t)(l->heads / l->kv_heads) * (size_t)arch->head_dim);
    }
    return most;
}

uint64_t sfq_error_bytes(const sfq_arch *arch, size_t tokens)
{
    const uint64_t k = widest(arch);
    const uint64_t unit = unit_columns(arch);
    const uint64_t c = (uint64_t)arch->hidden;
    const uint64_t doubles = sfq_cap_add(sfq_cap_mul(k, 2 * k + 1), unit * (unit + 2 * c));
    const uint64_t floats = sfq_cap_mul(k, tokens);
    return sfq_cap_add(sfq_cap_mul(doubles, sizeof(double)), sfq_cap_mul(floats, sizeof(float)));
}

static sfq_status open_sums(sums *s, const sfq_arch *arch, size_t batch, sfq_error *err)
{
    const size_t unit = unit_columns(arch);
    const size_t c = (size_t)arch->hidden;
    const size_t k = widest(arch);
    s->h = SFQ_NEW_ARRAY(double, k *k);
    s->inverse = SFQ_NEW_ARRAY(double, k *k);
    s->act = SFQ_NEW_ARRAY(float, batch *k);
    s->block = SFQ_NEW_ARRAY(double, unit *unit);
    s->w = SFQ_NEW_ARRAY(double, unit *c);
    s->x = SFQ_NEW_ARRAY(double, unit *c);
    s->diagonal = SFQ_NEW_ARRAY(double, k);
    if (s->h == NULL || s->inverse == NULL || s->act == NULL || s->block == NULL || s->w == NULL ||
        s->x == NULL || s->diagonal == NULL)
        return sfq_fail_memory(err, 2 * k * k * sizeof(double), "second moments");
    return SFQ_OK;
}

static void close_sums(sums *s)
{
    sfq_mem_free(s->h);
    sfq_mem_free(s->inverse);
    sfq_mem_free(s->act);
    sfq_mem_free(s->block);
    sfq_mem_free(s->w);
    sfq_mem_free(s->x);
    sfq_mem_free(s->diagonal);
}

/* ---- a sublayer ---- */

/* Columns [begin, begin + n) of m [C, K], transposed, to w [n, C]. */
static void columns_of(double *w, const sfq_matrix *m, size_t begin, size_t n)
{
    const size_t bytes = sfq_dtype_info(m->dtype)->bytes;
    for (size_t r = 0; r < m->n; r++)
        for (size_t i = 0; i < n; i++) {
            float value;
            sfq_to_f32(&value, (const uint8_t *)m->w + (r * m->k + begin + i) * bytes, m->dtype, 1);
            w[i * m->n + r] = (double)value;
        }
}

/* tr(W^T [(H^-1)_uu]^-1 W) / 2 of columns [begin, begin + n). */
static double unit_error(sums *s, sfq_pool *pool, const sfq_matrix *m, size_t begin, size_t n)
{
    double trace = 0;
    columns_of(s->w, m, begin, n);
    for (size_t i = 0; i < n * m->n; i++)
        s->x[i] = s->w[i];
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            s->block[i * n + j] = s->inverse[(begin + i) * m->k + begin + j];
    if (!sfq_linalg_cholesky(pool, s->block, n))
        return -1;
    sfq_linalg_solve(pool, s->block, n, s->x, m->n);
    for (size_t i = 0; i < n * m->n; i++)
        trace += s->w[i] * s->x[i];
    return trace / 2;
}

static sfq_status score_part(error_run *run, int layer, sfq_part part, float *worth, size_t units,
                             double kappa, sfq_error *err)
{
    const sfq_layer_weights *w = &run->student->net->layer[layer];
    const sfq_matrix *m = part == SFQ_PART_FFN ? &w->down : &w->o;
    sums *s = &run->sums;
    if (units == 0 || m->k == 0)
        return SFQ_OK;
    for (size_t i = 0; i < m->k; i++) /* the mean over tokens; weights have mean 1 */
        for (size_t j = 0; j <= i; j++)
            s->h[i * m->k + j] /= (double)run->walk.t;
    const sfq_ridge ridge = {
        .h = s->h, .diagonal = s->diagonal, .k = m->k, .features = m->k, .damping = DAMPING};
    bool ok = sfq_ridge_factor(run->work->pool, &ridge);
    if (ok)
        sfq_linalg_inverse(run->work->pool, s->h, m->k, s->inverse);
    const size_t n = m->k / units;
    for (size_t u = 0; ok && u < units; u++) {
        const double error = unit_error(s, run->work->pool, m, u * n, n);
        ok = error >= 0;
        worth[u] = (float)(kappa * error);
    }
    return ok ? SFQ_OK
              : sfq_fail(err, SFQ_E_NUMERIC,
                         "prune: the second moment of what layer %d's %s reads cannot be factored; "
                         "the weights are damaged, or overflow on the calibration data",
                         layer, part == SFQ_PART_FFN ? "MLP output" : "attention output");
}

/* ---- the walk ---- */

/* Second moment of what the sublayer's projection reads; the states go on to its output. */
static sfq_status sum_part(error_run *run, int layer, sfq_part part, size_t k, const float *weight,
                           sfq_error *err)
{
    const sfq_calibration *c = run->work->calibration;
    sums *s = &run->sums;
    const sfq_block_save save = part == SFQ_PART_FFN ? (sfq_block_save){.ffn_act = s->act}
                                                     : (sfq_block_save){.att = s->act};
    memset(s->h, 0, k * k * sizeof *s->h);
    for (size_t first = 0, end; first < c->tune; first = end) {
        end = sfq_walk_end(c, first);
        SFQ_TRY(sfq_work_check(run->work, err));
        SFQ_TRY(sfq_walk_run(&run->walk, layer, part, first, end, &save, true, err));
        if (k > 0)
            sfq_linalg_sum(run->work->pool,
                           &(sfq_linalg_sums){.h = s->h,
                                              .a = s->act,
                                              .lda = k,
                                              .weight = weight + c->offset[first],
                                              .t = c->offset[end] - c->offset[first],
                                              .k = k});
    }
    return SFQ_OK;
}

sfq_status sfq_error_saliency(sfq_saliency *out, const sfq_work *work, const sfq_student *student,
                              const double *kappa, sfq_error *err)
{
    error_run run = {.work = work, .student = student};
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_walk_open(&run.walk, work, student->net, err));
    SFQ_DO(open_sums(&run.sums, student->arch, run.walk.batch_t, err));
    for (int i = 0; i < out->layers; i++) {
        const sfq_layer_arch *a = &student->arch->layer[i];
        sfq_layer_saliency *l = &out->layer[i];
        SFQ_DO(sum_part(&run, i, SFQ_PART_ATTN, student->net->layer[i].o.k, l->attn_weight, err));
        SFQ_DO(score_part(&run, i, SFQ_PART_ATTN, l->group, (size_t)a->kv_heads,
                          kappa[i * SFQ_PARTS + SFQ_PART_ATTN], err));
        SFQ_DO(sum_part(&run, i, SFQ_PART_FFN, student->net->layer[i].down.k, l->ffn_weight, err));
        SFQ_DO(score_part(&run, i, SFQ_PART_FFN, l->neuron, (size_t)a->ffn,
                          kappa[i * SFQ_PARTS + SFQ_PART_FFN], err));
    }
done:
    close_sums(&run.sums);
    sfq_walk_close(&run.walk);
    return status;
}

/* compress/moment.c - C = sum over v of x_v x_v^t, x_v the word table's row v as the model's norm
 * leaves it (gain apart), damped by 0.3 of its mean diagonal, and its factors (docs/METHOD.md,
 * "Rounding"). The residual stream starts as such a row; how far its moment stays near to theirs
 * differs between models, hence the damping. A constant factor of C changes nothing, so it is not
 * divided by V.
 *
 * The factorization is Cholesky's from the last row to the first, so that T is upper: QuIP's LDL
 * (Chee et al. 2023, eq. 6), which gives GPTQ's rounding without an inverse. Everything is in
 * double, element by element in one order: the result depends on neither threads nor vectors. */
#include "compress/moment.h"

#include "base/ck.h"
#include "base/hooks.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

enum {
    LANES = 16,
    CHUNK = 64,        /* rows of the table at a time; a multiple of 4 */
    BLOCK = 32,        /* rows that are factored together; a multiple of 4 */
    TABLE_ROWS = 16384 /* of a larger table every n-th row is taken */
};
#define DAMPING 0.3 /* of the mean diagonal: how far the table is trusted */

typedef struct moment_job {
    double *c; /* [K, stride] */
    size_t stride;
    const double *x; /* [count, stride] */
    size_t count;    /* a multiple of 4 */
    double *factors; /* [count, K]; NULL: x itself */
} moment_job;

size_t sfq_moment_stride(size_t k)
{
    return sfq_round_up(k, LANES);
}

static size_t table_step(size_t v)
{
    return (v + TABLE_ROWS - 1) / TABLE_ROWS;
}

static size_t table_rows(size_t v)
{
    size_t step = sfq_max_size(1, table_step(v));
    return (v + step - 1) / step;
}

bool sfq_moment_possible(const sfq_arch *arch)
{
    return table_rows((size_t)arch->vocab) >= 2 * (size_t)arch->hidden;
}

uint64_t sfq_moment_bytes(size_t k)
{
    uint64_t stride = sfq_cap_add(k, LANES);
    uint64_t doubles = sfq_cap_mul(stride, sfq_cap_add(stride, 2 * CHUNK));
    return sfq_cap_add(sfq_cap_mul(doubles, sizeof(double)), sfq_cap_mul(stride, 2 * stride));
}

double sfq_moment_work(size_t v, size_t k)
{
    return (double)k * (double)k * ((double)table_rows(v) / 2 + (double)k / 6);
}

/* c += sum of a[i] * x[i], four rows of x, in their order */
static void add_four(double *restrict c, const double *restrict x, size_t stride, const double a[4],
                     size_t n)
{
    const double *x1 = x + stride;
    const double *x2 = x1 + stride;
    const double *x3 = x2 + stride;
    for (size_t j = 0; j < n; j += LANES)
        for (size_t l = j; l < j + LANES; l++)
            c[l] = (((c[l] + a[0] * x[l]) + a[1] * x1[l]) + a[2] * x2[l]) + a[3] * x3[l];
}

/* Rows of c, of which what is right of the diagonal has no meaning. */
static void row_task(void *ctx, size_t begin, size_t end, int worker)
{
    const moment_job *job = ctx;
    (void)worker;
    const double *factors = job->factors != NULL ? job->factors : job->x;
    for (size_t i = begin; i < end; i++)
        for (size_t v = 0; v < job->count; v += 4) {
            const double *f = factors + v * job->stride + i;
            const double a[4] = {f[0], f[job->stride], f[2 * job->stride], f[3 * job->stride]};
            add_four(job->c + i * job->stride, job->x + v * job->stride, job->stride, a,
                     sfq_round_up(i + 1, LANES));
        }
}

/* ---- factors ---- */

/* Rows [lo, hi): T's column j lies in row j; negated[j - lo] = -P_j times it. */
static bool factor_block(double *c, double *negated, size_t stride, size_t lo, size_t hi,
                         double least, double *pivot)
{
    for (size_t j = hi; j-- > lo;) {
        double *row = c + j * stride;
        double *minus = negated + (j - lo) * stride;
        double p = pivot[j] = row[j];
        if (!(p > least) || !isfinite(p))
            return false;
        for (size_t i = 0; i < j; i++) {
            minus[i] = -row[i];
            row[i] /= p;
        }
        for (size_t l = lo; l < j; l++)
            for (size_t i = 0; i <= l; i++)
                c[l * stride + i] += minus[l] * row[i];
    }
    return true;
}

static sfq_status factor(bool *positive, double *c, double *negated, sfq_moment *m, double least,
                         sfq_pool *pool, const sfq_hooks *hooks, sfq_error *err)
{
    const size_t stride = sfq_moment_stride(m->k);
    size_t lo;
    *positive = false;
    for (size_t hi = m->k; hi > 0; hi = lo) {
        lo = hi > BLOCK ? hi - BLOCK : 0;
        SFQ_TRY(sfq_hooks_check(hooks, err));
        if (!factor_block(c, negated, stride, lo, hi, least, m->pivot))
            return SFQ_OK;
        moment_job job = {
            .c = c, .stride = stride, .x = c + lo * stride, .count = BLOCK, .factors = negated};
        sfq_pool_run_dynamic(pool, lo, LANES, row_task, &job);
    }
    *positive = true;
    return SFQ_OK;
}

static double damp(double *c, size_t k)
{
    const size_t stride = sfq_moment_stride(k);
    double mean = 0;
    for (size_t i = 0; i < k; i++)
        mean += c[i * stride + i] / (double)k;
    for (size_t i = 0; i < k; i++)
        c[i * stride + i] += DAMPING * mean;
    return mean;
}

sfq_status sfq_moment_factor(sfq_moment **out, double *c, size_t k, sfq_pool *pool,
                             const sfq_hooks *hooks, sfq_error *err)
{
    const size_t stride = sfq_moment_stride(k);
    sfq_status status = SFQ_OK;
    bool positive = false;
    *out = NULL;
    sfq_moment *m = SFQ_NEW(sfq_moment);
    double *negated = SFQ_NEW_ARRAY(double, BLOCK *stride);
    if (m != NULL) {
        *m = (sfq_moment){.k = k,
                          .ratio = sfq_mem_raw(k * (k - 1) / 2 * sizeof(float)),
                          .pivot = SFQ_NEW_ARRAY(double, k)};
    }
    if (m == NULL || negated == NULL || m->ratio == NULL || m->pivot == NULL) {
        status = sfq_fail_memory(err, k * k * sizeof(float), "the second moment");
        goto done;
    }
    double mean = damp(c, k);
    SFQ_DO(factor(&positive, c, negated, m, 1e-6 * mean, pool, hooks, err));
    for (size_t j = 0; j < k; j++)
        for (size_t i = 0; i < j; i++)
            m->ratio[j * (j - 1) / 2 + i] = (float)c[j * stride + i];
done:
    sfq_mem_free(negated);
    if (!positive)
        sfq_moment_close(&m);
    *out = m;
    return status;
}

void sfq_moment_close(sfq_moment **moment)
{
    if (*moment == NULL)
        return;
    sfq_mem_free((*moment)->ratio);
    sfq_mem_free((*moment)->pivot);
    sfq_mem_free(*moment);
    *moment = NULL;
}

/* ---- the word table ---- */

/* The model's norm without gain and bias. */
static void normalise(double *x, const float *w, size_t k, const sfq_arch *arch)
{
    double mean = 0;
    double square = 0;
    for (size_t i = 0; i < k && !arch->rms_norm; i++)
        mean += (double)w[i] / (double)k;
    for (size_t i = 0; i < k; i++) {
        x[i] = (double)w[i] - mean;
        square += x[i] * x[i] / (double)k;
    }
    double factor = 1 / sqrt(square + (double)arch->norm_eps);
    for (size_t i = 0; i < k; i++)
        x[i] *= factor;
}

static sfq_status add_table(double *c, double *x, float *row, const sfq_source *s,
                            const sfq_hooks *hooks, sfq_error *err)
{
    const sfq_module *m = sfq_modules_find(s->modules, SFQ_ROLE_WORD_EMBEDDING, -1);
    const sfq_tensor *weight = sfq_module_weight(m, s->ck);
    const size_t stride = sfq_moment_stride(m->k);
    const size_t step = table_step(m->n);
    for (size_t v = 0; v < m->n;) {
        size_t n = 0;
        SFQ_TRY(sfq_hooks_check(hooks, err));
        for (; n < CHUNK && v < m->n; n++, v += step) {
            sfq_source_rows(row, m, weight, NULL, v, 1);
            normalise(x + n * stride, row, m->k, s->arch);
        }
        memset(x + n * stride, 0, (CHUNK - n) * stride * sizeof *x);
        moment_job job = {.c = c, .stride = stride, .x = x, .count = CHUNK};
        sfq_pool_run_dynamic(s->pool, m->k, LANES, row_task, &job);
    }
    return SFQ_OK;
}

sfq_status sfq_moment_make(sfq_moment **out, const sfq_source *s, const sfq_hooks *hooks,
                           sfq_error *err)
{
    const size_t k = (size_t)s->arch->hidden;
    const size_t stride = sfq_moment_stride(k);
    sfq_status status = SFQ_OK;
    *out = NULL;
    double *c = SFQ_NEW_ARRAY(double, stride *stride);
    double *x = SFQ_NEW_ARRAY(double, CHUNK *stride);
    float *row = SFQ_NEW_ARRAY(float, k);
    if (c == NULL || x == NULL || row == NULL) {
        status = sfq_fail_memory(err, stride * stride * sizeof *c, "the second moment");
        goto done;
    }
    SFQ_DO(add_table(c, x, row, s, hooks, err));
    SFQ_DO(sfq_moment_factor(out, c, k, s->pool, hooks, err));
done:
    sfq_mem_free(c);
    sfq_mem_free(x);
    sfq_mem_free(row);
    return status;
}

/* compress/fuse.c - the fuse stage. A panel of 16 rows is read as float, cut into its clusters
 * (tensor/cluster.h), each cluster gets its scale (scale.c) and codes, and the panel is packed into
 * its place. Sums that reports quote are kept per panel and added in panel order. */
#include "compress/fuse.h"

#include "base/ck.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "compress/scale.h"
#include "compress/source.h"

#include <math.h>
#include <string.h>

/* Weights between two looks at the hooks: a fraction of a second of work. */
#define RUN_WEIGHTS ((size_t)4 << 20)
/* Of the mean energy: what an input counts at least. */
#define ENERGY_FLOOR 1e-3

struct sfq_fuser {
    sfq_pool *pool;
    size_t max_k;
    size_t worker_bytes;
    unsigned char *memory; /* [threads][worker_bytes], then omega [most_weights] */
};

/* A worker's piece of memory. */
typedef struct panel_space {
    float *rows;    /* [16, K] */
    float *scratch; /* for the scale search, then for feedback */
    uint8_t *codes; /* [16, K] */
} panel_space;

/* What the panels of one run share. */
typedef struct panel_job {
    sfq_fuser *fuser;
    const sfq_fuse_input *in;
    size_t first; /* panel of item 0 */
    sfq_fuse_output *out;
    const float *omega;     /* of a cluster's places, from column 0 on; or NULL */
    double *error, *energy; /* [panels of the run] */
    bool *finite, *fits;    /* [panels of the run] */
} panel_job;

/* Weights of the largest cluster, or inputs of the widest matrix. */
static size_t most_weights(size_t max_k)
{
    return sfq_max_size(max_k, SFQ_PANEL_N * (size_t)SFQ_CLUSTER_MIN);
}

static size_t rows_bytes(size_t max_k)
{
    return sfq_round_up(SFQ_PANEL_N * max_k * sizeof(float), 64);
}

static size_t scratch_bytes(size_t max_k)
{
    size_t floats =
        sfq_max_size(sfq_scale_scratch(most_weights(max_k)), sfq_feedback_scratch(max_k));
    return sfq_round_up(floats * sizeof(float), 64);
}

static size_t worker_bytes(size_t max_k)
{
    return rows_bytes(max_k) + scratch_bytes(max_k) + sfq_round_up(SFQ_PANEL_N * max_k, 64);
}

uint64_t sfq_fuser_bytes(int threads, size_t max_k)
{
    return (uint64_t)threads * worker_bytes(max_k) + most_weights(max_k) * sizeof(float);
}

sfq_status sfq_fuser_open(sfq_fuser **out, sfq_pool *pool, size_t max_k, sfq_error *err)
{
    sfq_fuser *f = SFQ_NEW(sfq_fuser);
    *out = NULL;
    if (f == NULL)
        return sfq_fail_memory(err, sizeof *f, "the fuse stage");
    size_t bytes = (size_t)sfq_fuser_bytes(sfq_pool_threads(pool), max_k);
    *f = (sfq_fuser){.pool = pool, .max_k = max_k, .worker_bytes = worker_bytes(max_k)};
    f->memory = sfq_mem_aligned(bytes);
    if (f->memory == NULL) {
        sfq_mem_free(f);
        return sfq_fail_memory(err, bytes, "the fuse stage");
    }
    *out = f;
    return SFQ_OK;
}

void sfq_fuser_close(sfq_fuser **fuser)
{
    if (*fuser == NULL)
        return;
    sfq_mem_free((*fuser)->memory);
    sfq_mem_free(*fuser);
    *fuser = NULL;
}

static panel_space space_of(const sfq_fuser *f, int worker)
{
    unsigned char *base = f->memory + (size_t)worker * f->worker_bytes;
    return (panel_space){
        .rows = (float *)(void *)base,
        .scratch = (float *)(void *)(base + rows_bytes(f->max_k)),
        .codes = base + rows_bytes(f->max_k) + scratch_bytes(f->max_k),
    };
}

static size_t panel_rows(const sfq_cluster *c, size_t panel)
{
    return sfq_min_size(c->n - panel * SFQ_PANEL_N, SFQ_PANEL_N);
}

/* One cluster inside the float rows of a panel: with share > 1 there is one segment, so that the
 * rows that share lie one after the other; either way it is one run of memory. */
typedef struct cluster_run {
    size_t at, count; /* in the panel's rows [16, K] */
    size_t scale;     /* index into the panel's scales */
} cluster_run;

static cluster_run run_of(const sfq_cluster *c, size_t rows, size_t group, size_t segment)
{
    size_t begin = sfq_segment_begin(c, segment);
    size_t row = group * c->share;
    size_t shared = sfq_min_size(rows - row, c->share);
    return (cluster_run){
        .at = row * c->k + begin,
        .count = (shared - 1) * c->k + sfq_segment_end(c, segment) - begin,
        .scale = segment * (SFQ_PANEL_N / c->share) + group,
    };
}

/* The panel's rows as the artifact will have them. */
static void read_panel(const panel_space *space, const sfq_fuse_input *in, size_t panel,
                       size_t rows)
{
    const size_t k = in->module->k;
    sfq_source_rows(space->rows, in->module, in->weight, in->row_order, panel * SFQ_PANEL_N, rows);
    for (size_t r = 0; r < rows && in->column_order != NULL; r++) {
        float *row = space->rows + r * k;
        memcpy(space->scratch, row, k * sizeof *row);
        for (size_t i = 0; i < k; i++)
            row[i] = space->scratch[in->column_order[i]];
    }
}

/* ---- scan ---- */

static float run_max(const float *w, size_t count, bool *finite)
{
    float most = 0;
    float zero = 0; /* x * 0 is NaN for what is not finite */
    for (size_t i = 0; i < count; i++) {
        float a = fabsf(w[i]);
        most = a > most ? a : most;
        zero += w[i] * 0.0F;
    }
    *finite = *finite && zero == 0.0F;
    return most;
}

static void scan_panel(const panel_job *job, size_t item, const panel_space *space)
{
    const sfq_cluster *c = job->in->cluster;
    size_t panel = job->first + item;
    size_t rows = panel_rows(c, panel);
    read_panel(space, job->in, panel, rows);
    bool finite = true;
    bool fits = true;
    for (size_t group = 0; group * c->share < rows; group++)
        for (size_t s = 0; s < c->segments; s++) {
            cluster_run run = run_of(c, rows, group, s);
            float most = run_max(space->rows + run.at, run.count, &finite);
            fits = fits && sfq_scale_fits_f16(most, job->in->bits);
        }
    job->finite[item] = finite;
    job->fits[item] = fits;
}

static void scan_task(void *ctx, size_t begin, size_t end, int worker)
{
    const panel_job *job = ctx;
    panel_space space = space_of(job->fuser, worker);
    for (size_t i = begin; i < end; i++)
        scan_panel(job, i, &space);
}

static size_t run_panels(const sfq_cluster *c)
{
    return sfq_max_size(1, RUN_WEIGHTS / (SFQ_PANEL_N * c->k));
}

sfq_status sfq_fuser_scan(sfq_fuser *fuser, const sfq_fuse_input *in, const sfq_hooks *hooks,
                          sfq_fuse_scan *out, sfq_error *err)
{
    const sfq_cluster *c = in->cluster;
    size_t step = sfq_min_size(run_panels(c), c->panels);
    sfq_status status = SFQ_OK;
    bool *flags = SFQ_NEW_ARRAY(bool, 2 * step);
    if (flags == NULL)
        return sfq_fail_memory(err, 2 * step, "the fuse stage");
    *out = (sfq_fuse_scan){true, true};
    for (size_t at = 0; at < c->panels; at += step) {
        SFQ_DO(sfq_hooks_check(hooks, err));
        size_t n = sfq_min_size(step, c->panels - at);
        panel_job job = {
            .fuser = fuser, .in = in, .first = at, .finite = flags, .fits = flags + step};
        sfq_pool_run_dynamic(fuser->pool, n, 1, scan_task, &job);
        for (size_t i = 0; i < n; i++) {
            out->finite = out->finite && job.finite[i];
            out->fits_f16 = out->fits_f16 && job.fits[i];
        }
    }
done:
    sfq_mem_free(flags);
    return status;
}

/* ---- pack ---- */

/* What an error at each place of a cluster costs (M9's omega): the mean square of its input over
 * that of all inputs. An input that calibration hardly saw still counts a little: its weights must
 * not be lost. With rows that share a scale the same columns come once for each row. NULL: all
 * alike. */
static const float *weigh(const sfq_fuser *f, const sfq_fuse_input *in)
{
    const size_t k = in->module->k;
    float *omega =
        (float *)(void *)(f->memory + (size_t)sfq_pool_threads(f->pool) * f->worker_bytes);
    double mean = 0;
    for (size_t i = 0; i < k && in->energy != NULL; i++)
        mean += (double)in->energy[i] / (double)k;
    if (!(mean > 0) || !isfinite(mean))
        return NULL;
    for (size_t i = 0; i < k; i++) {
        size_t column = in->column_order != NULL ? in->column_order[i] : i;
        omega[i] = (float)((double)in->energy[column] / mean + ENERGY_FLOOR);
    }
    for (size_t r = 1; r < in->cluster->share; r++)
        memcpy(omega + r * k, omega, k * sizeof *omega);
    return omega;
}

/* Codes by feedback, and their squared error. */
static double feed_panel(const panel_job *job, size_t rows, const float *scales,
                         const panel_space *space)
{
    const sfq_cluster *c = job->in->cluster;
    const int zero = 1 << (job->in->bits - 1);
    sfq_feedback_panel panel = {.moment = job->in->moment,
                                .gain = job->in->gain,
                                .cluster = c,
                                .bits = job->in->bits,
                                .rows = rows,
                                .w = space->rows,
                                .scales = scales};
    sfq_feedback_round(space->codes, &panel, space->scratch, NULL, NULL);
    double error = 0;
    for (size_t r = 0; r < rows; r++)
        for (size_t g = 0; g < c->segments; g++) {
            const float scale = scales[g * (SFQ_PANEL_N / c->share) + r / c->share];
            for (size_t i = sfq_segment_begin(c, g); i < sfq_segment_end(c, g); i++) {
                size_t at = r * c->k + i;
                float decoded = scale * (float)(space->codes[at] - zero);
                double e = (double)space->rows[at] - (double)decoded;
                error += e * e;
            }
        }
    return error;
}

static void pack_panel(const panel_job *job, size_t item, const panel_space *space)
{
    const sfq_cluster *c = job->in->cluster;
    const int bits = job->in->bits;
    size_t panel = job->first + item;
    size_t rows = panel_rows(c, panel);
    size_t per_panel = c->segments * (SFQ_PANEL_N / c->share);
    float *scales = job->out->scales + panel * per_panel;
    double error = 0;
    double energy = 0;
    read_panel(space, job->in, panel, rows);
    for (size_t i = 0; i < per_panel; i++)
        scales[i] = 1.0F; /* of padding outputs */
    for (size_t group = 0; group * c->share < rows; group++)
        for (size_t s = 0; s < c->segments; s++) {
            cluster_run run = run_of(c, rows, group, s);
            const float *w = space->rows + run.at;
            sfq_scale_input in = {
                .w = w, .count = run.count, .bits = bits, .dtype = job->in->scale_dtype};
            if (job->omega != NULL)
                in.omega = job->omega + sfq_segment_begin(c, s);
            float scale = sfq_scale_search(&in, space->scratch, NULL);
            scales[run.scale] = scale;
            sfq_scale_codes(space->codes + run.at, w, run.count, scale, bits);
            in.omega = NULL; /* reports quote the plain error */
            error += sfq_scale_error(&in, scale);
            for (size_t i = 0; i < run.count; i++)
                energy += (double)w[i] * (double)w[i];
        }
    if (job->in->moment != NULL)
        error = feed_panel(job, rows, scales, space);
    sfq_cluster one;
    (void)sfq_cluster_make(&one, rows, c->k); /* sizes were proved for the whole matrix */
    sfq_panels_pack(job->out->codes + panel * sfq_cluster_panel_bytes(c, bits), space->codes, &one,
                    bits, 0, 1);
    job->error[item] = error;
    job->energy[item] = energy;
}

static void pack_task(void *ctx, size_t begin, size_t end, int worker)
{
    const panel_job *job = ctx;
    panel_space space = space_of(job->fuser, worker);
    for (size_t i = begin; i < end; i++)
        pack_panel(job, i, &space);
}

sfq_status sfq_fuser_pack(sfq_fuser *fuser, const sfq_fuse_input *in, sfq_fuse_progress_fn progress,
                          void *ud, sfq_fuse_output *out, sfq_error *err)
{
    const sfq_cluster *c = in->cluster;
    size_t step = sfq_min_size(run_panels(c), c->panels);
    sfq_status status = SFQ_OK;
    double *sums = SFQ_NEW_ARRAY(double, 2 * step);
    if (sums == NULL)
        return sfq_fail_memory(err, 2 * step * sizeof *sums, "the fuse stage");
    const float *omega = weigh(fuser, in);
    out->error = out->energy = 0;
    for (size_t at = 0; at < c->panels; at += step) {
        size_t n = sfq_min_size(step, c->panels - at);
        panel_job job = {.fuser = fuser,
                         .in = in,
                         .first = at,
                         .out = out,
                         .omega = omega,
                         .error = sums,
                         .energy = sums + step};
        sfq_pool_run_dynamic(fuser->pool, n, 1, pack_task, &job);
        for (size_t i = 0; i < n; i++) {
            out->error += job.error[i];
            out->energy += job.energy[i];
        }
        size_t end = sfq_min_size((at + n) * SFQ_PANEL_N, c->n);
        SFQ_DO(progress(ud, (uint64_t)(end - at * SFQ_PANEL_N) * c->k, err));
    }
done:
    sfq_mem_free(sums);
    return status;
}

/* compress/export.c - unpacks a model and makes its layers alike. The list of tensors is that of a
 * stock checkpoint with the result's widths; each is filled from the module of the same place, and
 * what that module does not have stays zero: rows of a head or neuron that was cut, columns that
 * would read it, a whole sublayer. Zero columns of o and down add nothing, so the function is the
 * same. The norm before a dropped sublayer is gone, too, and becomes ones.
 *
 * One tensor is in memory at a time. */
#include "compress/export.h"

#include "base/ck.h"
#include "base/clock.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "compress/copy.h"
#include "compress/emit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* F16 holds numbers down to 2^-24 and loses digits below this. */
#define F16_LEAST 0x1p-14F

enum { STAGES = 3 }; /* verify, check, write */

typedef struct exporter {
    const sfq_export_options *options;
    sfq_source *source; /* what is read; opened as an artifact or a dense model */
    sfq_artifact_info *artifact;
    sfq_net *net;
    const sfq_kernels *kernels;
    sfq_arch arch; /* of the result: the same widths in every layer */
    sfq_modules *modules;
    sfq_layer_dims dims;
    bool padded, wide;
    sfq_dtype *dtypes; /* [2 * modules]: weight, bias */
    sfq_st_writer *writer;
    uint64_t parameters;
} exporter;

/* ---- opening ---- */

static sfq_status open_source(exporter *x, sfq_error *err)
{
    const sfq_export_options *o = x->options;
    sfq_isa cap;
    sfq_source *s = x->source = SFQ_NEW(sfq_source);
    if (s == NULL)
        return sfq_fail_memory(err, sizeof *s, "the model");
    SFQ_TRY(sfq_isa_from_env(&cap, err));
    x->kernels = sfq_kernels_get(cap);
    SFQ_TRY(sfq_model_dir_resolve(&s->dir, o->model, err));
    SFQ_TRY(sfq_source_guard(s, o->output, err));
    SFQ_TRY(sfq_hf_config_open(&s->config, s->dir, err));
    SFQ_TRY(sfq_artifact_read(&x->artifact, s->config, err));
    SFQ_TRY(sfq_arch_open(&s->arch, s->config, x->artifact, s->dir, err));
    SFQ_TRY(sfq_checkpoint_open(&s->ck, s->dir, &o->hooks, err));
    SFQ_TRY(sfq_modules_open(&s->modules, s->arch, s->ck, x->artifact, err));
    SFQ_TRY(sfq_pool_open(&s->pool, o->threads, err));
    s->own_pool = true;
    return SFQ_OK;
}

/* The widest layer, raised to what a stock config can say. */
static sfq_status make_uniform(exporter *x, sfq_error *err)
{
    const sfq_arch *a = x->source->arch;
    const sfq_hf_config *c = x->source->config;
    sfq_layer_arch *layers = SFQ_NEW_ARRAY(sfq_layer_arch, (size_t)a->layers);
    x->arch = *a;
    x->arch.layer = layers;
    if (layers == NULL)
        return sfq_fail_memory(err, (size_t)a->layers * sizeof *layers, "the widths");
    for (int i = 0; i < a->layers; i++) {
        const sfq_layer_arch *l = &a->layer[i];
        if (l->heads * c->kv_heads != l->kv_heads * c->heads)
            return sfq_fail_at(err, SFQ_E_UNSUPPORTED, c->path, NULL,
                               "%s: layer %d: %d heads share %d KV heads; a plain checkpoint has "
                               "one ratio for all layers",
                               c->path, i, l->heads, l->kv_heads);
        x->dims.kv_heads = l->kv_heads > x->dims.kv_heads ? l->kv_heads : x->dims.kv_heads;
        x->dims.ffn = l->ffn > x->dims.ffn ? l->ffn : x->dims.ffn;
    }
    sfq_artifact_stock_dims(&x->dims, c);
    for (int i = 0; i < a->layers; i++) {
        layers[i] = a->layer[i];
        layers[i].heads = (int)x->dims.heads;
        layers[i].kv_heads = (int)x->dims.kv_heads;
        layers[i].ffn = (int)x->dims.ffn;
        x->padded =
            x->padded || a->layer[i].heads < layers[i].heads || a->layer[i].ffn < layers[i].ffn;
    }
    return sfq_modules_list(&x->modules, &x->arch, x->source->ck, err);
}

/* A bias that pruning added has no place in some families. */
static sfq_status check_biases(const exporter *x, sfq_error *err)
{
    const sfq_modules *have = x->source->modules;
    for (size_t i = 0; i < have->count; i++) {
        const sfq_module *m = &have->items[i];
        const sfq_module *stock = sfq_modules_find(x->modules, m->role, m->layer);
        if (m->bias && (stock == NULL || !stock->bias))
            return sfq_fail_at(err, SFQ_E_UNSUPPORTED, x->source->config->path, m->name,
                               "%s.bias: a plain %s has no such bias", m->name,
                               x->arch.architecture);
    }
    return SFQ_OK;
}

/* ---- one tensor ---- */

/* Rows [from, from + count) of what there is are rows [to, to + count) of the result. */
typedef struct row_run {
    size_t from, to, count;
} row_run;

/* Only qkv has parts behind a padded one. */
static size_t runs_of(row_run runs[3], const exporter *x, const sfq_module *m, size_t rows)
{
    if (m->role != SFQ_ROLE_QKV) {
        runs[0] = (row_run){0, 0, rows};
        return 1;
    }
    const size_t d = (size_t)x->arch.head_dim;
    const sfq_layer_arch *have = &x->source->arch->layer[m->layer];
    const size_t q = (size_t)have->heads * d, kv = (size_t)have->kv_heads * d;
    const size_t q_to = (size_t)x->dims.heads * d, kv_to = (size_t)x->dims.kv_heads * d;
    runs[0] = (row_run){0, 0, q};
    runs[1] = (row_run){q, q_to, kv};
    runs[2] = (row_run){q + kv, q_to + kv_to, kv};
    return 3;
}

typedef struct tensor_job {
    const exporter *x;
    const sfq_module *module; /* of the result */
    const sfq_matrix *have;   /* what there is; NULL: nothing */
    row_run run;
    float *rows; /* [threads][K of have] */
    /* looking: the largest magnitude of each row */
    float *most; /* [rows of have]; NULL: writing */
    /* writing */
    unsigned char *out; /* [N, K] or, transposed, [K, N] */
    sfq_dtype dtype;
} tensor_job;

static void store(unsigned char *dst, sfq_dtype dtype, float value)
{
    uint16_t h = dtype == SFQ_F16 ? sfq_f32_to_f16(value) : sfq_f32_to_bf16(value);
    if (dtype == SFQ_F32)
        memcpy(dst, &value, sizeof value);
    else
        memcpy(dst, &h, sizeof h);
}

static float largest(const float *w, size_t n)
{
    float most = 0;
    for (size_t i = 0; i < n; i++) {
        float a = fabsf(w[i]);
        most = a > most || isnan(a) ? a : most;
    }
    return most;
}

static void row_task(void *ctx, size_t begin, size_t end, int worker)
{
    const tensor_job *job = ctx;
    const size_t size = sfq_dtype_info(job->dtype)->bytes, k = job->have->k;
    const size_t along = job->module->transposed ? job->module->n : 1;
    float *row = job->rows + (size_t)worker * k;
    for (size_t i = begin; i < end; i++) {
        sfq_table_row(job->x->kernels, job->have, job->run.from + i, row);
        if (job->most != NULL) {
            job->most[i] = largest(row, k);
            continue;
        }
        size_t to = job->run.to + i;
        unsigned char *out = job->out + (along == 1 ? to * job->module->k : to) * size;
        for (size_t j = 0; j < k; j++)
            store(out + j * along * size, job->dtype, row[j]);
    }
}

/* A dtype that holds the values without losing their digits. Small vectors lie beside large ones
 * and may lose some. */
static sfq_dtype fitting(exporter *x, float most, bool vector)
{
    const json_t *root = x->source->config->root;
    const char *dtype = json_string_value(json_object_get(root, "dtype"));
    if (dtype == NULL)
        dtype = json_string_value(json_object_get(root, "torch_dtype"));
    bool small = !vector && most > 0 && most < F16_LEAST;
    if (!small && isfinite(sfq_f16_to_f32(sfq_f32_to_f16(most))))
        return SFQ_F16;
    if (dtype != NULL && strcmp(dtype, "bfloat16") == 0)
        return SFQ_BF16;
    x->wide = true;
    return SFQ_F32;
}

static void run_rows(tensor_job *job)
{
    if (job->run.count > 0)
        sfq_pool_run(job->x->source->pool, job->run.count, 1, row_task, job);
}

/* Fills job->out, which is zero. */
static void fill_matrix(tensor_job *job)
{
    row_run runs[3];
    size_t count = runs_of(runs, job->x, job->module, job->have->n);
    for (size_t i = 0; i < count; i++) {
        job->run = runs[i];
        run_rows(job);
    }
}

static void fill_vector(const exporter *x, const sfq_module *m, const float *from, size_t rows,
                        unsigned char *out, sfq_dtype dtype)
{
    const size_t size = sfq_dtype_info(dtype)->bytes;
    row_run runs[3];
    size_t count = runs_of(runs, x, m, rows);
    for (size_t r = 0; r < count && from != NULL; r++)
        for (size_t i = 0; i < runs[r].count; i++)
            store(out + (runs[r].to + i) * size, dtype, from[runs[r].from + i]);
}

/* ---- the list of tensors ---- */

/* One module of the result, and where its numbers are. */
typedef struct part {
    const sfq_module *module;
    const sfq_matrix *matrix; /* with columns; NULL: none */
    const float *vector;      /* bias of a matrix or norm, gain; NULL: none */
    size_t length;            /* of the vector in the result */
    size_t have;              /* of it that there is */
    float filler;             /* where there is nothing */
} part;

enum { WEIGHT = 0, BIAS = 1 };

static part part_of(const exporter *x, const sfq_module *m, int which)
{
    const sfq_matrix *matrix = sfq_net_matrix(x->net, m->role, m->layer);
    const sfq_norm *norm = sfq_net_norm(x->net, m->role, m->layer);
    part p = {.module = m};
    if (matrix != NULL && which == WEIGHT) {
        p.matrix = matrix->n > 0 && matrix->k > 0 ? matrix : NULL;
    } else if (matrix != NULL) {
        p.vector = matrix->bias;
        p.length = m->n;
        p.have = matrix->n;
    } else if (norm != NULL) {
        p.vector = which == WEIGHT ? norm->gain : norm->bias;
        p.length = p.have = m->k;
        p.filler = which == WEIGHT ? 1.0F : 0.0F;
    }
    return p;
}

static bool is_matrix(const part *p)
{
    return p->length == 0;
}

/* The largest magnitude of a tensor. */
static sfq_status look(const exporter *x, const part *p, float *rows, float *most, sfq_error *err)
{
    *most = p->vector != NULL ? largest(p->vector, p->have) : 0;
    if (p->matrix == NULL)
        return SFQ_OK;
    float *each = sfq_mem_raw(p->matrix->n * sizeof *each);
    if (each == NULL)
        return sfq_fail_memory(err, p->matrix->n * sizeof *each, p->module->name);
    tensor_job job = {.x = x,
                      .module = p->module,
                      .have = p->matrix,
                      .run = {0, 0, p->matrix->n},
                      .rows = rows,
                      .most = each};
    run_rows(&job);
    *most = largest(each, p->matrix->n);
    sfq_mem_free(each);
    return SFQ_OK;
}

static sfq_status declare(exporter *x, const part *p, int which, sfq_dtype dtype, sfq_error *err)
{
    const sfq_module *m = p->module;
    char name[256];
    uint64_t shape[2] = {m->transposed ? m->k : m->n, m->transposed ? m->n : m->k};
    if (!is_matrix(p))
        shape[0] = p->length;
    x->parameters += shape[0] * (is_matrix(p) ? shape[1] : 1);
    snprintf(name, sizeof name, "%s.%s", m->name, which == WEIGHT ? "weight" : "bias");
    return sfq_st_writer_declare(x->writer, name, dtype, is_matrix(p) ? 2 : 1, shape, err);
}

static sfq_status put(exporter *x, const part *p, float *rows, size_t index, sfq_dtype dtype,
                      sfq_error *err)
{
    const sfq_module *m = p->module;
    const size_t count = is_matrix(p) ? m->n * m->k : p->length;
    const size_t size = sfq_dtype_info(dtype)->bytes;
    unsigned char *out = sfq_mem_zero(count, size);
    if (out == NULL)
        return sfq_fail_memory(err, count * size, m->name);
    for (size_t i = 0; i < count && p->filler != 0 && p->vector == NULL; i++)
        store(out + i * size, dtype, p->filler);
    tensor_job job = {
        .x = x, .module = m, .have = p->matrix, .rows = rows, .out = out, .dtype = dtype};
    if (p->matrix != NULL)
        fill_matrix(&job);
    fill_vector(x, m, p->vector, p->have, out, dtype);
    sfq_status status = sfq_st_writer_put(x->writer, index, out, count * size, err);
    sfq_mem_free(out);
    return status;
}

/* Both passes over all tensors: what they need, then their bytes. */
static sfq_status visit(exporter *x, bool writing, float *rows, sfq_error *err)
{
    const sfq_hooks *hooks = &x->options->hooks;
    size_t index = 0;
    for (size_t i = 0; i < x->modules->count; i++) {
        const sfq_module *m = &x->modules->items[i];
        for (int which = WEIGHT; which <= (m->bias ? BIAS : WEIGHT); which++) {
            const part p = part_of(x, m, which);
            float most = 0;
            SFQ_TRY(sfq_hooks_check(hooks, err));
            if (writing) {
                SFQ_TRY(put(x, &p, rows, index, x->dtypes[index], err));
            } else {
                SFQ_TRY(look(x, &p, rows, &most, err));
                x->dtypes[index] = fitting(x, most, !is_matrix(&p));
                SFQ_TRY(declare(x, &p, which, x->dtypes[index], err));
            }
            index++;
        }
        sfq_hooks_progress(hooks, writing ? "write" : "check", writing ? 3 : 2, STAGES, i + 1,
                           x->modules->count, "tensors");
    }
    return SFQ_OK;
}

/* ---- what it takes ---- */

static uint64_t memory_of(const exporter *x)
{
    const uint64_t fixed = (uint64_t)8 << 20;
    uint64_t copies = 0, largest_tensor = 0;
    for (size_t i = 0; i < x->source->modules->count; i++) {
        const sfq_module *m = &x->source->modules->items[i];
        const sfq_tensor *t = m->transposed ? sfq_module_weight(m, x->source->ck) : NULL;
        const sfq_packed_spec *spec = m->packed ? sfq_artifact_find(x->artifact, m->name) : NULL;
        copies += t != NULL ? t->bytes : 0; /* what the net holds itself */
        copies += spec != NULL ? sizeof(float) * sfq_cluster_scales(&spec->cluster) : 0;
    }
    for (size_t i = 0; i < x->modules->count; i++) {
        uint64_t count = (uint64_t)x->modules->items[i].n * x->modules->items[i].k;
        largest_tensor = count > largest_tensor ? count : largest_tensor;
    }
    return sfq_cap_add(fixed + copies, sfq_cap_mul(largest_tensor, sizeof(float)));
}

static sfq_status check_memory(const exporter *x, sfq_error *err)
{
    uint64_t needed = memory_of(x), available = sfq_memory_available();
    if (needed <= available)
        return SFQ_OK;
    return sfq_fail(err, SFQ_E_MEMORY, "%llu MiB of memory are needed and %llu MiB are available",
                    (unsigned long long)(needed >> 20) + 1, (unsigned long long)(available >> 20));
}

static sfq_status check_disk(const exporter *x, sfq_error *err)
{
    uint64_t others;
    SFQ_TRY(sfq_copy_size(x->source->dir, &others, err));
    return sfq_copy_room(x->options->output,
                         sfq_st_writer_size(x->writer) + others + ((uint64_t)1 << 20), err);
}

/* ---- the whole ---- */

static float *open_rows(const exporter *x, sfq_error *err)
{
    size_t widest = 1;
    for (size_t i = 0; i < x->source->modules->count; i++)
        widest = sfq_max_size(widest, x->source->modules->items[i].k);
    size_t bytes = (size_t)sfq_pool_threads(x->source->pool) * widest * sizeof(float);
    float *rows = sfq_mem_raw(bytes);
    if (rows == NULL)
        (void)sfq_fail_memory(err, bytes, "the export");
    return rows;
}

static sfq_status write_weights(exporter *x, sfq_outdir *dir, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    float *rows = open_rows(x, err);
    x->dtypes = SFQ_NEW_ARRAY(sfq_dtype, 2 * x->modules->count);
    if (rows == NULL || x->dtypes == NULL) {
        status = sfq_fail_memory(err, 2 * x->modules->count * sizeof *x->dtypes, "the export");
        goto done;
    }
    SFQ_DO(sfq_st_writer_open(&x->writer, dir, "model.safetensors", err));
    SFQ_DO(visit(x, false, rows, err));
    SFQ_DO(check_disk(x, err));
    SFQ_DO(sfq_st_writer_begin(x->writer, err));
    SFQ_DO(visit(x, true, rows, err));
done:
    sfq_mem_free(rows);
    return status;
}

static sfq_status write_config(const exporter *x, sfq_outdir *dir, sfq_error *err)
{
    json_t *json = NULL;
    SFQ_TRY(sfq_artifact_dense_config(&json, x->source->config, &x->dims, x->wide, err));
    sfq_status status = sfq_emit_json(dir, "config.json", json, err);
    json_decref(json);
    return status;
}

static sfq_status check_options(const sfq_export_options *o, const sfq_export_result *out,
                                sfq_error *err)
{
    if (strcmp(o->format, "gguf") == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "--format gguf: this version does not write it; use --format dense");
    if (strcmp(o->format, "dense") != 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "--format %s: expected dense", o->format);
    if (strlen(o->output) >= sizeof out->output)
        return sfq_fail_at(err, SFQ_E_LIMIT, o->output, NULL, "the output's path is too long");
    return SFQ_OK;
}

/* Verification counts its own stages; to the caller it is the first of ours. */
static void verify_progress(void *ud, const sfq_progress *p)
{
    sfq_hooks_progress(ud, p->stage, 1, STAGES, p->done, p->total, p->unit);
}

static bool verify_cancelled(void *ud)
{
    const sfq_hooks *hooks = ud;
    return hooks->cancelled != NULL && hooks->cancelled(hooks->ud);
}

static sfq_status verify(const exporter *x, sfq_error *err)
{
    sfq_hooks outer = x->options->hooks;
    const sfq_hooks hooks = {
        .ud = &outer, .progress = verify_progress, .cancelled = verify_cancelled};
    return sfq_checkpoint_verify(x->source->ck, &hooks, err);
}

static sfq_status run(exporter *x, sfq_outdir **dir, sfq_export_result *out, sfq_error *err)
{
    const sfq_export_options *o = x->options;
    SFQ_TRY(check_options(o, out, err));
    SFQ_TRY(open_source(x, err));
    SFQ_TRY(make_uniform(x, err));
    SFQ_TRY(check_biases(x, err));
    SFQ_TRY(check_memory(x, err));
    SFQ_TRY(sfq_outdir_open(dir, o->output, o->force, err));
    SFQ_TRY(verify(x, err));
    SFQ_TRY(sfq_net_open(&x->net, x->source->arch, x->source->modules, x->source->ck, x->artifact,
                         &o->hooks, err));
    SFQ_TRY(write_weights(x, *dir, err));
    out->bytes = sfq_st_writer_size(x->writer);
    SFQ_TRY(sfq_st_writer_finish(&x->writer, err));
    SFQ_TRY(write_config(x, *dir, err));
    SFQ_TRY(sfq_copy_files(x->source->dir, *dir, err));
    SFQ_TRY(sfq_hooks_check(&o->hooks, err));
    return sfq_outdir_commit(dir, NULL, err);
}

sfq_status sfq_export_dense(const sfq_export_options *options, sfq_export_result *out,
                            sfq_error *err)
{
    exporter x = {.options = options};
    sfq_outdir *dir = NULL;
    *out = (sfq_export_result){0};
    sfq_status status = run(&x, &dir, out, err);
    if (status == SFQ_OK) {
        snprintf(out->output, sizeof out->output, "%s", options->output);
        out->parameters = x.parameters;
        out->heads = (int)x.dims.heads;
        out->kv_heads = (int)x.dims.kv_heads;
        out->ffn = (int)x.dims.ffn;
        out->padded = x.padded;
    } else {
        *out = (sfq_export_result){0};
    }
    sfq_st_writer_abort(&x.writer);
    sfq_outdir_abort(&dir);
    sfq_net_close(&x.net);
    sfq_modules_close(&x.modules);
    sfq_artifact_free(&x.artifact);
    sfq_source_close(&x.source);
    sfq_mem_free(x.arch.layer);
    sfq_mem_free(x.dtypes);
    return status;
}

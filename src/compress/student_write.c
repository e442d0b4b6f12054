/* compress/student_write.c - a student as a dense artifact: the source's names, the family's own
 * layout, the student's shapes. Matrices come first and vectors last, so that a matrix of 16 bits
 * never puts a float where it is not aligned. One transposed matrix is the most that is copied. */
#include "compress/emit.h"
#include "compress/student.h"

#include "base/hooks.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

typedef struct student_writer {
    sfq_student *student;
    const sfq_source *source;
    const sfq_hooks *hooks;
    sfq_st_writer *writer;
    size_t index; /* of the tensor that is put next */
    bool declaring;
} student_writer;

/* What a visit of a module does with one tensor: declares it, or puts it. */
static sfq_status visit_floats(student_writer *w, const sfq_module *m, const char *part,
                               const float *data, size_t count, sfq_error *err)
{
    char name[256];
    const uint64_t shape[1] = {count};
    if (data == NULL)
        return SFQ_OK;
    if (!w->declaring)
        return sfq_st_writer_put(w->writer, w->index++, data, count * sizeof *data, err);
    snprintf(name, sizeof name, "%s.%s", m->name, part); /* names.c: shorter than this */
    return sfq_st_writer_declare(w->writer, name, SFQ_F32, 1, shape, err);
}

/* [N, K] to [K, N]; tile by tile so that neither side runs through memory in strides. */
static void transpose(unsigned char *dst, const sfq_matrix *m)
{
    enum { TILE = 32 };
    const size_t size = sfq_dtype_info(m->dtype)->bytes;
    const unsigned char *src = m->w;
    for (size_t n0 = 0; n0 < m->n; n0 += TILE)
        for (size_t k0 = 0; k0 < m->k; k0 += TILE)
            for (size_t k = k0; k < m->k && k < k0 + TILE; k++)
                for (size_t n = n0; n < m->n && n < n0 + TILE; n++)
                    memcpy(dst + (k * m->n + n) * size, src + (n * m->k + k) * size, size);
}

static sfq_status put_transposed(student_writer *w, const sfq_matrix *m, size_t bytes,
                                 sfq_error *err)
{
    unsigned char *turned = sfq_mem_raw(bytes);
    if (turned == NULL)
        return sfq_fail_memory(err, bytes, "a transposed matrix");
    transpose(turned, m);
    sfq_status status = sfq_st_writer_put(w->writer, w->index++, turned, bytes, err);
    sfq_mem_free(turned);
    return status;
}

static sfq_status visit_weight(student_writer *w, const sfq_module *module, const sfq_matrix *m,
                               sfq_error *err)
{
    char name[256];
    bool turned = module->transposed;
    const uint64_t shape[2] = {turned ? m->k : m->n, turned ? m->n : m->k};
    const size_t bytes = m->n * m->k * sfq_dtype_info(m->dtype)->bytes;
    if (m->k == 0)
        return SFQ_OK;
    if (w->declaring) {
        snprintf(name, sizeof name, "%s.weight", module->name);
        return sfq_st_writer_declare(w->writer, name, m->dtype, 2, shape, err);
    }
    SFQ_TRY(sfq_hooks_check(w->hooks, err));
    return turned ? put_transposed(w, m, bytes, err)
                  : sfq_st_writer_put(w->writer, w->index++, m->w, bytes, err);
}

/* All tensors in the order of the file. */
static sfq_status visit_all(student_writer *w, bool declaring, sfq_error *err)
{
    const sfq_modules *modules = w->source->modules;
    w->declaring = declaring;
    for (size_t i = 0; i < modules->count; i++) {
        const sfq_module *m = &modules->items[i];
        const sfq_matrix *matrix = sfq_student_matrix(w->student, m->role, m->layer);
        if (matrix != NULL)
            SFQ_TRY(visit_weight(w, m, matrix, err));
    }
    for (size_t i = 0; i < modules->count; i++) {
        const sfq_module *m = &modules->items[i];
        const sfq_matrix *matrix = sfq_student_matrix(w->student, m->role, m->layer);
        const sfq_norm *norm = sfq_student_norm(w->student, m->role, m->layer);
        if (matrix != NULL)
            SFQ_TRY(visit_floats(w, m, "bias", matrix->bias, matrix->n, err));
        if (norm != NULL) {
            SFQ_TRY(visit_floats(w, m, "weight", norm->gain, m->k, err));
            SFQ_TRY(visit_floats(w, m, "bias", norm->bias, m->k, err));
        }
    }
    return SFQ_OK;
}

static sfq_status write_weights(student_writer *w, sfq_outdir *dir, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_st_writer_open(&w->writer, dir, "model.safetensors", err));
    SFQ_DO(visit_all(w, true, err));
    SFQ_DO(sfq_st_writer_begin(w->writer, err));
    SFQ_DO(visit_all(w, false, err));
    SFQ_DO(sfq_st_writer_finish(&w->writer, err));
done:
    sfq_st_writer_abort(&w->writer);
    return status;
}

static sfq_status write_config(const student_writer *w, sfq_outdir *dir, sfq_error *err)
{
    const sfq_arch *arch = w->student->arch;
    json_t *json = NULL;
    sfq_status status = SFQ_OK;
    sfq_artifact_info info = {
        .version = SFQ_ARTIFACT_VERSION,
        .original_parameters = w->source->original_parameters,
        .layers = SFQ_NEW_ARRAY(sfq_layer_dims, (size_t)arch->layers),
        .layer_count = arch->layers,
    };
    if (info.layers == NULL)
        return sfq_fail_memory(err, (size_t)arch->layers * sizeof *info.layers, "config.json");
    for (int i = 0; i < arch->layers; i++)
        info.layers[i] =
            (sfq_layer_dims){arch->layer[i].heads, arch->layer[i].kv_heads, arch->layer[i].ffn};
    SFQ_DO(sfq_artifact_config(&json, w->source->config, &info, err));
    SFQ_DO(sfq_emit_json(dir, "config.json", json, err));
done:
    json_decref(json);
    sfq_mem_free(info.layers);
    return status;
}

sfq_status sfq_student_write(const sfq_student *student, const sfq_source *source, sfq_outdir *dir,
                             const sfq_hooks *hooks, sfq_error *err)
{
    student_writer w = {.student = (sfq_student *)student, .source = source, .hooks = hooks};
    SFQ_TRY(write_weights(&w, dir, err));
    return write_config(&w, dir, err);
}

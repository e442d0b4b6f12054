/* compress/emit.c - model.safetensors and config.json of the artifact. One tensor's output is in
 * memory at a time. Nothing here depends on time, threads or paths: the same input gives the same
 * bytes. */
#include "compress/emit.h"

#include "base/ck.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "compress/fuse.h"

#include <stdlib.h>
#include <string.h>

typedef struct emitter {
    const sfq_plan *plan;
    const sfq_hooks *hooks;
    sfq_st_writer *writer;
    sfq_fuser *fuser;
    sfq_moment *moment; /* NULL: everything is rounded to nearest */
    uint64_t done;
    int index, stages;
} emitter;

static sfq_status advance(void *ud, uint64_t weights, sfq_error *err)
{
    emitter *e = ud;
    e->done += weights;
    sfq_hooks_progress(e->hooks, "fuse", e->index, e->stages, e->done, e->plan->source_weights,
                       "weights");
    return sfq_hooks_check(e->hooks, err);
}

/* ---- packed ---- */

static sfq_status put_scales(emitter *e, const sfq_plan_tensor *t, float *scales, sfq_error *err)
{
    size_t count = sfq_cluster_scales(&t->spec.cluster);
    if (t->scale_dtype == SFQ_F32)
        return sfq_st_writer_put(e->writer, t->scale_index, scales, count * sizeof *scales, err);
    uint16_t *half = (uint16_t *)(void *)scales; /* in place: value i is read before it is passed */
    for (size_t i = 0; i < count; i++) {
        uint16_t h = sfq_f32_to_f16(scales[i]);
        memcpy((unsigned char *)half + i * sizeof h, &h, sizeof h);
    }
    return sfq_st_writer_put(e->writer, t->scale_index, half, count * sizeof *half, err);
}

static sfq_status emit_packed(emitter *e, const sfq_plan_tensor *t, const sfq_source *source,
                              sfq_emit_loss *loss, sfq_error *err)
{
    const sfq_cluster *c = &t->spec.cluster;
    size_t code_bytes = sfq_cluster_code_bytes(c, t->spec.bits);
    size_t scale_bytes = sfq_cluster_scales(c) * sizeof(float);
    sfq_fuse_input in = sfq_plan_fuse_input(t);
    sfq_fuse_output out = {.codes = sfq_mem_raw(code_bytes), .scales = sfq_mem_raw(scale_bytes)};
    sfq_status status = SFQ_OK;
    float *gain = NULL;
    if (out.codes == NULL || out.scales == NULL) {
        status = sfq_fail_memory(err, code_bytes + scale_bytes, t->source->name);
        goto done;
    }
    if (t->feedback && e->moment != NULL)
        SFQ_DO(sfq_feedback_gain(&gain, source, t->module, err));
    in.gain = gain;
    in.moment = gain != NULL ? e->moment : NULL;
    SFQ_DO(sfq_fuser_pack(e->fuser, &in, advance, e, &out, err));
    SFQ_DO(sfq_st_writer_put(e->writer, t->index, out.codes, code_bytes, err));
    SFQ_DO(put_scales(e, t, out.scales, err));
    *loss = (sfq_emit_loss){out.error, out.energy, in.moment != NULL};
done:
    sfq_mem_free(gain);
    sfq_mem_free(out.codes);
    sfq_mem_free(out.scales);
    return status;
}

/* ---- dense ---- */

static void to_half(uint16_t *dst, const sfq_tensor *t)
{
    enum { CHUNK = 1024 };
    float w[CHUNK];
    const size_t size = sfq_dtype_info(t->dtype)->bytes;
    for (uint64_t at = 0; at < t->count; at += CHUNK) {
        size_t n = sfq_min_size(CHUNK, (size_t)(t->count - at));
        sfq_to_f32(w, (const unsigned char *)t->data + at * size, t->dtype, n);
        for (size_t i = 0; i < n; i++)
            dst[at + i] = sfq_f32_to_f16(w[i]);
    }
}

/* Elements of a bias in the order of the neurons that they belong to. */
static void reorder(unsigned char *dst, const unsigned char *src, const uint32_t *order, size_t n,
                    size_t size)
{
    for (size_t i = 0; i < n; i++)
        memcpy(dst + i * size, src + order[i] * size, size);
}

static sfq_status emit_dense(emitter *e, const sfq_plan_tensor *t, sfq_error *err)
{
    const sfq_tensor *src = t->source;
    const size_t size = sfq_dtype_info(t->dtype)->bytes;
    const size_t bytes = (size_t)src->count * size;
    const void *data = src->data;
    uint16_t *half = NULL;
    unsigned char *ordered = NULL;
    sfq_status status = SFQ_OK;
    if (t->dtype != src->dtype) {
        half = sfq_mem_raw(bytes);
        if (half == NULL) {
            status = sfq_fail_memory(err, bytes, src->name);
            goto done;
        }
        to_half(half, src);
        data = half;
    }
    if (t->row_order != NULL) {
        ordered = sfq_mem_raw(bytes);
        if (ordered == NULL) {
            status = sfq_fail_memory(err, bytes, src->name);
            goto done;
        }
        reorder(ordered, data, t->row_order, (size_t)src->count, size);
        data = ordered;
    }
    SFQ_DO(sfq_st_writer_put(e->writer, t->index, data, bytes, err));
    SFQ_DO(advance(e, src->count, err));
done:
    sfq_mem_free(half);
    sfq_mem_free(ordered);
    return status;
}

static sfq_status open_moment(emitter *e, const sfq_source *source, sfq_error *err)
{
    if (e->plan->feedback_count == 0)
        return SFQ_OK;
    SFQ_TRY(sfq_moment_make(&e->moment, source, e->hooks, err));
    if (e->moment == NULL)
        sfq_hooks_log(e->hooks, SFQ_LOG_NOTE,
                      "the word table's second moment is singular: codes are rounded to nearest");
    return SFQ_OK;
}

sfq_status sfq_emit_weights(const sfq_plan *plan, const sfq_source *source, sfq_outdir *dir,
                            const sfq_hooks *hooks, int index, int stages, sfq_emit_loss *losses,
                            sfq_error *err)
{
    emitter e = {.plan = plan, .hooks = hooks, .index = index, .stages = stages};
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_st_writer_open(&e.writer, dir, "model.safetensors", err));
    SFQ_DO(sfq_plan_declare(plan, e.writer, err));
    SFQ_DO(sfq_st_writer_begin(e.writer, err));
    SFQ_DO(open_moment(&e, source, err));
    SFQ_DO(sfq_fuser_open(&e.fuser, source->pool, sfq_plan_widest(plan), err));
    for (size_t i = 0; i < plan->count; i++) {
        const sfq_plan_tensor *t = &plan->tensors[i];
        if (t->packed)
            SFQ_DO(emit_packed(&e, t, source, &losses[i], err));
        else
            SFQ_DO(emit_dense(&e, t, err));
    }
    SFQ_DO(sfq_st_writer_finish(&e.writer, err));
done:
    sfq_fuser_close(&e.fuser);
    sfq_moment_close(&e.moment);
    sfq_st_writer_abort(&e.writer);
    return status;
}

/* ---- config.json ---- */

static int by_spec_name(const void *a, const void *b)
{
    const sfq_packed_spec *x = a;
    const sfq_packed_spec *y = b;
    return strcmp(x->name, y->name);
}

sfq_status sfq_emit_config(const sfq_plan *plan, const sfq_source *source, sfq_outdir *dir,
                           sfq_error *err)
{
    const sfq_arch *arch = source->arch;
    size_t layers = (size_t)arch->layers;
    json_t *json = NULL;
    sfq_status status = SFQ_OK;
    sfq_artifact_info info = {
        .version = SFQ_ARTIFACT_VERSION,
        .original_parameters = source->original_parameters,
        .layers = SFQ_NEW_ARRAY(sfq_layer_dims, layers),
        .layer_count = arch->layers,
        .packed = SFQ_NEW_ARRAY(sfq_packed_spec, plan->packed_count),
    };
    if (info.layers == NULL || info.packed == NULL) {
        status = sfq_fail_memory(err, plan->packed_count * sizeof *info.packed, "config.json");
        goto done;
    }
    for (size_t i = 0; i < layers; i++)
        info.layers[i] =
            (sfq_layer_dims){arch->layer[i].heads, arch->layer[i].kv_heads, arch->layer[i].ffn};
    for (size_t i = 0; i < plan->count; i++)
        if (plan->tensors[i].packed)
            info.packed[info.packed_count++] = plan->tensors[i].spec;
    qsort(info.packed, info.packed_count, sizeof *info.packed, by_spec_name);
    SFQ_DO(sfq_artifact_config(&json, source->config, &info, err));
    SFQ_DO(sfq_emit_json(dir, "config.json", json, err));
done:
    json_decref(json);
    sfq_mem_free(info.layers); /* the names in info.packed belong to the modules */
    sfq_mem_free(info.packed);
    return status;
}

sfq_status sfq_emit_json(sfq_outdir *dir, const char *name, const json_t *json, sfq_error *err)
{
    const size_t most = (size_t)64 << 20;
    sfq_buf text = SFQ_BUF_INIT(most);
    sfq_status status = sfq_artifact_text(&text, json, err);
    if (status == SFQ_OK)
        status = sfq_outdir_put(dir, name, text.data, text.len, err);
    sfq_buf_free(&text);
    return status;
}

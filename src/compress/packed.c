/* compress/packed.c - opening and writing. The order of tensors and the format's own metadata come
 * from the file, so that only values, and their checksums, differ. */
#include "compress/packed.h"

#include "base/ck.h"
#include "base/hooks.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

static const char weights_name[] = "model.safetensors";
static const char config_name[] = "config.json";

/* ---- open ---- */

static sfq_status find_tensor(const sfq_packed *p, const sfq_small *s, const sfq_tensor **out,
                              sfq_error *err)
{
    const sfq_module *m = sfq_modules_find(p->modules, s->role, s->layer);
    if (s->part == SFQ_SMALL_SCALES) {
        const sfq_tensor *codes;
        bool aligned;
        return sfq_packed_bind(sfq_artifact_find(p->artifact, m->name), p->ck, &codes, out,
                               &aligned, err);
    }
    *out = s->part == SFQ_SMALL_GAIN ? sfq_module_weight(m, p->ck) : sfq_module_bias(m, p->ck);
    return SFQ_OK;
}

/* The net's pointers go to copies; a tied head reads the word table's. */
static sfq_status own_values(sfq_packed *p, sfq_error *err)
{
    const size_t layers = (size_t)p->arch->layers;
    p->net = *p->bound;
    p->net.layer = SFQ_NEW_ARRAY(sfq_layer_weights, layers);
    if (p->net.layer == NULL)
        return sfq_fail_memory(err, layers * sizeof(*p->net.layer), "the quantized model");
    for (size_t i = 0; i < layers; i++)
        p->net.layer[i] = p->bound->layer[i];
    SFQ_TRY(sfq_smalls_open(&p->smalls, &p->net, err));
    p->tensors = SFQ_NEW_ARRAY(const sfq_tensor *, p->smalls->count);
    p->values = SFQ_NEW_ARRAY(float, p->smalls->total);
    if (p->values == NULL || p->tensors == NULL)
        return sfq_fail_memory(err, p->smalls->total * sizeof(float), "the quantized model");
    float *at = p->values;
    for (size_t i = 0; i < p->smalls->count; at += p->smalls->items[i++].count) {
        const sfq_small *s = &p->smalls->items[i];
        SFQ_TRY(find_tensor(p, s, &p->tensors[i], err));
        memcpy(at, *s->place, s->count * sizeof(float));
        *s->place = at;
    }
    if (p->arch->tied_head && p->arch->head == SFQ_MODEL_HEAD_LM)
        p->net.lm_head.scales = p->net.word.scales;
    return SFQ_OK;
}

sfq_status sfq_packed_open(sfq_packed **out, const char *dir, const sfq_hooks *hooks,
                           sfq_error *err)
{
    sfq_status status = SFQ_OK;
    *out = NULL;
    sfq_packed *p = SFQ_NEW(sfq_packed);
    if (p == NULL || (p->dir = sfq_mem_strdup(dir)) == NULL) {
        status = sfq_fail_memory(err, sizeof(*p), "the quantized model");
        goto done;
    }
    SFQ_DO(sfq_hf_config_open(&p->config, dir, err));
    SFQ_DO(sfq_artifact_read(&p->artifact, p->config, err));
    SFQ_DO(sfq_arch_open(&p->arch, p->config, p->artifact, dir, err));
    SFQ_DO(sfq_checkpoint_open(&p->ck, dir, hooks, err));
    SFQ_DO(sfq_modules_open(&p->modules, p->arch, p->ck, p->artifact, err));
    SFQ_DO(sfq_net_open(&p->bound, p->arch, p->modules, p->ck, p->artifact, hooks, err));
    SFQ_DO(own_values(p, err));
    *out = p;
    p = NULL;
done:
    sfq_packed_close(&p);
    return status;
}

void sfq_packed_close(sfq_packed **packed)
{
    sfq_packed *p = *packed;
    if (p == NULL)
        return;
    sfq_mem_free(p->tensors);
    sfq_mem_free(p->values);
    sfq_smalls_close(&p->smalls);
    sfq_mem_free(p->net.layer);
    sfq_net_close(&p->bound);
    sfq_modules_close(&p->modules);
    sfq_checkpoint_close(&p->ck);
    sfq_arch_close(&p->arch);
    sfq_artifact_free(&p->artifact);
    sfq_hf_config_close(&p->config);
    sfq_mem_free(p->dir);
    sfq_mem_free(p);
    *packed = NULL;
}

/* ---- write ---- */

/* The item whose values the file's tensor `name` holds, or the count of items. */
static size_t item_of(const sfq_packed *p, const char *name)
{
    size_t i = 0;
    while (i < p->smalls->count && strcmp(p->tensors[i]->name, name) != 0)
        i++;
    return i;
}

static sfq_status put_tensor(const sfq_packed *p, sfq_st_writer *w, size_t index,
                             const sfq_tensor *t, sfq_error *err)
{
    const size_t item = item_of(p, t->name), bytes = (size_t)t->bytes;
    if (item == p->smalls->count)
        return sfq_st_writer_put(w, index, t->data, bytes, err);
    const float *values = *p->smalls->items[item].place;
    if (t->dtype == SFQ_F32)
        return sfq_st_writer_put(w, index, values, bytes, err);
    uint16_t *half = sfq_mem_raw(bytes);
    if (half == NULL)
        return sfq_fail_memory(err, bytes, t->name);
    for (size_t i = 0; i < (size_t)t->count; i++)
        half[i] = t->dtype == SFQ_F16 ? sfq_f32_to_f16(values[i]) : sfq_f32_to_bf16(values[i]);
    sfq_status status = sfq_st_writer_put(w, index, half, bytes, err);
    sfq_mem_free(half);
    return status;
}

static sfq_status write_weights(const sfq_packed *p, const sfq_safetensors *st, sfq_outdir *dir,
                                const sfq_hooks *hooks, sfq_error *err)
{
    const char *version = sfq_safetensors_metadata(st, "sfq_version");
    const size_t count = sfq_safetensors_count(st);
    sfq_st_writer *w = NULL;
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_st_writer_open(&w, dir, weights_name, err));
    if (version != NULL)
        SFQ_DO(sfq_st_writer_metadata(w, "sfq_version", version, err));
    for (size_t i = 0; i < count; i++) {
        const sfq_tensor *t = sfq_safetensors_at(st, i);
        SFQ_DO(sfq_st_writer_declare(w, t->name, t->dtype, t->rank, t->shape, err));
    }
    SFQ_DO(sfq_st_writer_begin(w, err));
    for (size_t i = 0; i < count; i++) {
        SFQ_DO(put_tensor(p, w, i, sfq_safetensors_at(st, i), err));
        SFQ_DO(sfq_hooks_check(hooks, err));
    }
    SFQ_DO(sfq_st_writer_finish(&w, err));
done:
    sfq_st_writer_abort(&w);
    return status;
}

/* What config.json says does not depend on the values. */
static sfq_status copy_config(const char *path, sfq_outdir *dir, sfq_error *err)
{
    const size_t most = (size_t)64 << 20;
    sfq_buf text = SFQ_BUF_INIT(most);
    sfq_status status = sfq_file_read(&text, path, most, err);
    if (status == SFQ_OK)
        status = sfq_outdir_put(dir, config_name, text.data, text.len, err);
    sfq_buf_free(&text);
    return status;
}

sfq_status sfq_packed_write(const sfq_packed *packed, sfq_outdir *dir, const sfq_hooks *hooks,
                            sfq_error *err)
{
    sfq_safetensors *st = NULL;
    sfq_status status = SFQ_OK;
    char *weights = sfq_path_join(packed->dir, weights_name);
    char *config = sfq_path_join(packed->dir, config_name);
    if (weights == NULL || config == NULL) {
        status = sfq_fail_memory(err, strlen(packed->dir), "a path");
        goto done;
    }
    SFQ_DO(sfq_safetensors_open(&st, weights, err));
    SFQ_DO(write_weights(packed, st, dir, hooks, err));
    SFQ_DO(copy_config(config, dir, err));
done:
    sfq_safetensors_close(&st);
    sfq_mem_free(weights);
    sfq_mem_free(config);
    return status;
}

/* model/net.c - binds the proved tensors of a checkpoint to the pointers that the block computes
 * with. Big matrices stay where the file's map has them; what must be copied (Conv1D matrices that
 * lie transposed, data that a foreign writer left unaligned) and what becomes float (norms, biases,
 * scales) lives in one arena. Small tensors are checked for NaN and infinity here, big ones by
 * `inspect --verify` and by compress: reading every weight at each start would cost more than the
 * start itself. */
#include "model/net.h"

#include "base/ck.h"
#include "base/hooks.h"
#include "base/mem.h"

#include <string.h>

typedef struct sfq_net_owner {
    sfq_net public;
    sfq_arena *arena;
    uint64_t copied; /* bytes of unaligned tensors that were copied */
} sfq_net_owner;

typedef struct sfq_binder {
    sfq_net_owner *net;
    const sfq_modules *modules;
    const sfq_checkpoint *ck;
    const sfq_artifact_info *artifact;
    sfq_error *err;
} sfq_binder;

/* ---- small tensors ---- */

static sfq_status sfq_bind_floats(sfq_binder *b, const sfq_tensor *t, const float **out)
{
    uint64_t bad = sfq_tensor_first_nonfinite(t);
    if (bad < t->count)
        return sfq_fail_at(b->err, SFQ_E_NUMERIC, sfq_checkpoint_file(b->ck, t->name), t->name,
                           "tensor %s: element %llu is not a finite number", t->name,
                           (unsigned long long)bad);
    size_t bytes;
    float *f = sfq_ck_mul((size_t)t->count, sizeof(float), &bytes)
                   ? (float *)sfq_arena_aligned(b->net->arena, bytes)
                   : NULL;
    if (!f)
        return sfq_fail_memory(b->err, (size_t)t->count * sizeof(float), t->name);
    sfq_to_f32(f, t->data, t->dtype, (size_t)t->count);
    *out = f;
    return SFQ_OK;
}

static sfq_status sfq_bind_norm(sfq_binder *b, sfq_role role, int layer, sfq_norm *out)
{
    const sfq_module *m = sfq_modules_find(b->modules, role, layer);
    if (!m)
        return SFQ_OK;
    SFQ_TRY(sfq_bind_floats(b, sfq_module_weight(m, b->ck), &out->gain));
    if (m->bias)
        SFQ_TRY(sfq_bind_floats(b, sfq_module_bias(m, b->ck), &out->bias));
    b->net->public.weight_bytes += (m->bias ? 2 : 1) * m->k * sizeof(float);
    return SFQ_OK;
}

/* ---- matrices ---- */

/* [k, n] of a file to [n, k]; tile by tile so that neither side runs through memory in strides. */
static void sfq_transpose(uint8_t *dst, const uint8_t *src, size_t n, size_t k, size_t size)
{
    enum { TILE = 32 };
    for (size_t n0 = 0; n0 < n; n0 += TILE)
        for (size_t k0 = 0; k0 < k; k0 += TILE)
            for (size_t i = n0; i < n && i < n0 + TILE; i++)
                for (size_t j = k0; j < k && j < k0 + TILE; j++)
                    memcpy(dst + (i * k + j) * size, src + (j * n + i) * size, size);
}

static sfq_status sfq_bind_dense(sfq_binder *b, const sfq_module *m, sfq_matrix *out)
{
    const sfq_tensor *t = sfq_module_weight(m, b->ck);
    size_t size = sfq_dtype_info(t->dtype)->bytes;
    out->dtype = t->dtype;
    out->w = t->data;
    if (!m->transposed && (uintptr_t)t->data % size == 0)
        return SFQ_OK;
    uint8_t *copy = (uint8_t *)sfq_arena_aligned(b->net->arena, (size_t)t->bytes);
    if (!copy)
        return sfq_fail_memory(b->err, (size_t)t->bytes, t->name);
    if (m->transposed) {
        sfq_transpose(copy, (const uint8_t *)t->data, m->n, m->k, size);
    } else {
        memcpy(copy, t->data, (size_t)t->bytes);
        b->net->copied += t->bytes;
    }
    out->w = copy;
    return SFQ_OK;
}

static sfq_status sfq_bind_packed(sfq_binder *b, const sfq_module *m, sfq_matrix *out)
{
    const sfq_packed_spec *spec = sfq_artifact_find(b->artifact, m->name);
    const sfq_tensor *codes, *scales;
    bool aligned;
    SFQ_TRY(sfq_packed_bind(spec, b->ck, &codes, &scales, &aligned, b->err));
    out->packed = true;
    out->bits = spec->bits;
    out->activation_bits = spec->activation_bits;
    out->cluster = spec->cluster;
    out->panel_bytes = sfq_cluster_panel_bytes(&spec->cluster, spec->bits);
    out->codes = (const uint8_t *)codes->data;
    if (!aligned) {
        uint8_t *copy = (uint8_t *)sfq_arena_aligned(b->net->arena, (size_t)codes->bytes);
        if (!copy)
            return sfq_fail_memory(b->err, (size_t)codes->bytes, codes->name);
        memcpy(copy, codes->data, (size_t)codes->bytes);
        b->net->copied += codes->bytes;
        out->codes = copy;
    }
    return sfq_bind_floats(b, scales, &out->scales);
}

/* Bytes that one pass over the matrix reads. */
static uint64_t sfq_matrix_bytes(const sfq_matrix *m)
{
    uint64_t bytes = m->bias ? m->n * sizeof(float) : 0;
    if (m->k == 0)
        return bytes;
    if (m->packed)
        return bytes + sfq_cluster_code_bytes(&m->cluster, m->bits) +
               sfq_cluster_scales(&m->cluster) * sizeof(float);
    return bytes + (uint64_t)m->n * m->k * sfq_dtype_info(m->dtype)->bytes;
}

static sfq_status sfq_bind_matrix(sfq_binder *b, sfq_role role, int layer, sfq_matrix *out)
{
    const sfq_module *m = sfq_modules_find(b->modules, role, layer);
    if (!m)
        return SFQ_OK;
    out->n = m->n;
    out->k = m->k;
    if (m->packed)
        SFQ_TRY(sfq_bind_packed(b, m, out));
    else if (m->k > 0)
        SFQ_TRY(sfq_bind_dense(b, m, out));
    if (m->bias)
        SFQ_TRY(sfq_bind_floats(b, sfq_module_bias(m, b->ck), &out->bias));
    if (!sfq_role_is_embedding(role))
        b->net->public.weight_bytes += sfq_matrix_bytes(out);
    return SFQ_OK;
}

static sfq_status sfq_bind_layer(sfq_binder *b, int layer)
{
    sfq_net *net = &b->net->public;
    for (sfq_role role = 0; role < SFQ_ROLE_COUNT; role++) {
        sfq_matrix *matrix = (sfq_matrix *)sfq_net_matrix(net, role, layer);
        sfq_norm *norm = (sfq_norm *)sfq_net_norm(net, role, layer);
        if (matrix)
            SFQ_TRY(sfq_bind_matrix(b, role, layer, matrix));
        if (norm)
            SFQ_TRY(sfq_bind_norm(b, role, layer, norm));
    }
    return SFQ_OK;
}

static sfq_status sfq_bind_all(sfq_binder *b)
{
    sfq_net *net = &b->net->public;
    const sfq_arch *a = net->arch;
    SFQ_TRY(sfq_bind_matrix(b, SFQ_ROLE_WORD_EMBEDDING, -1, &net->word));
    SFQ_TRY(sfq_bind_matrix(b, SFQ_ROLE_POSITION_EMBEDDING, -1, &net->position));
    SFQ_TRY(sfq_bind_matrix(b, SFQ_ROLE_TYPE_EMBEDDING, -1, &net->type));
    SFQ_TRY(sfq_bind_norm(b, SFQ_ROLE_EMBEDDING_NORM, -1, &net->embedding_norm));
    for (int i = 0; i < a->layers; i++)
        SFQ_TRY(sfq_bind_layer(b, i));
    SFQ_TRY(sfq_bind_norm(b, SFQ_ROLE_FINAL_NORM, -1, &net->final_norm));
    SFQ_TRY(sfq_bind_matrix(b, SFQ_ROLE_POOLER, -1, &net->pooler));
    SFQ_TRY(sfq_bind_matrix(b, SFQ_ROLE_CLASSIFIER, -1, &net->classifier));
    if (a->head == SFQ_MODEL_HEAD_LM) {
        SFQ_TRY(sfq_bind_matrix(b, SFQ_ROLE_LM_HEAD, -1, &net->lm_head));
        if (a->tied_head)
            net->lm_head = net->word;
        net->weight_bytes += sfq_matrix_bytes(&net->lm_head);
    }
    return SFQ_OK;
}

sfq_status sfq_net_open(sfq_net **out, const sfq_arch *arch, const sfq_modules *modules,
                        const sfq_checkpoint *ck, const sfq_artifact_info *artifact,
                        const sfq_hooks *hooks, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    sfq_net *net = NULL;
    *out = NULL;
    sfq_net_owner *owner = SFQ_NEW(sfq_net_owner);
    if (!owner)
        return sfq_fail_memory(err, sizeof(*owner), "network");
    net = &owner->public;
    net->arch = arch;
    owner->arena = sfq_arena_open();
    if (owner->arena)
        net->layer = SFQ_ARENA_ARRAY(owner->arena, sfq_layer_weights, (size_t)arch->layers);
    if (!net->layer) {
        status = sfq_fail_memory(err, (size_t)arch->layers * sizeof(*net->layer), "network");
        goto done;
    }
    sfq_binder b = {owner, modules, ck, artifact, err};
    SFQ_DO(sfq_bind_all(&b));
    if (owner->copied > 0)
        sfq_hooks_log(hooks, SFQ_LOG_NOTE,
                      "%llu bytes of weights were copied: their file does not align them",
                      (unsigned long long)owner->copied);
    *out = net;
    net = NULL;
done:
    sfq_net_close(&net);
    return status;
}

void sfq_net_close(sfq_net **net)
{
    if (!net || !*net)
        return;
    sfq_net_owner *owner = (sfq_net_owner *)*net; /* its first member */
    sfq_arena_close(&owner->arena);
    sfq_mem_free(owner);
    *net = NULL;
}

/* ---- places by role ---- */

static const sfq_matrix *sfq_matrix_of_layer(const sfq_layer_weights *w, sfq_role role)
{
    switch (role) {
    case SFQ_ROLE_Q:
        return &w->q;
    case SFQ_ROLE_K:
        return &w->k;
    case SFQ_ROLE_V:
        return &w->v;
    case SFQ_ROLE_QKV:
        return &w->qkv;
    case SFQ_ROLE_O:
        return &w->o;
    case SFQ_ROLE_GATE:
        return &w->gate;
    case SFQ_ROLE_UP:
        return &w->up;
    case SFQ_ROLE_DOWN:
        return &w->down;
    default:
        return NULL;
    }
}

const sfq_matrix *sfq_net_matrix(const sfq_net *net, sfq_role role, int layer)
{
    if (layer >= 0)
        return layer < net->arch->layers ? sfq_matrix_of_layer(&net->layer[layer], role) : NULL;
    switch (role) {
    case SFQ_ROLE_WORD_EMBEDDING:
        return &net->word;
    case SFQ_ROLE_POSITION_EMBEDDING:
        return &net->position;
    case SFQ_ROLE_TYPE_EMBEDDING:
        return &net->type;
    case SFQ_ROLE_LM_HEAD:
        return &net->lm_head;
    case SFQ_ROLE_POOLER:
        return &net->pooler;
    case SFQ_ROLE_CLASSIFIER:
        return &net->classifier;
    default:
        return NULL;
    }
}

const sfq_norm *sfq_net_norm(const sfq_net *net, sfq_role role, int layer)
{
    if (layer >= net->arch->layers)
        return NULL;
    const sfq_layer_weights *w = layer >= 0 ? &net->layer[layer] : NULL;
    switch (role) {
    case SFQ_ROLE_EMBEDDING_NORM:
        return w ? NULL : &net->embedding_norm;
    case SFQ_ROLE_FINAL_NORM:
        return w ? NULL : &net->final_norm;
    case SFQ_ROLE_ATTN_NORM:
        return w ? &w->attn_norm : NULL;
    case SFQ_ROLE_FFN_NORM:
        return w ? &w->ffn_norm : NULL;
    case SFQ_ROLE_Q_NORM:
        return w ? &w->q_norm : NULL;
    case SFQ_ROLE_K_NORM:
        return w ? &w->k_norm : NULL;
    default:
        return NULL;
    }
}

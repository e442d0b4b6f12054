/* model/kv.c - keys and values of one sequence, one block of memory for all layers. Every KV head
 * has its own stretch: keys in blocks [D][16 positions], which the attention kernel reads without
 * sums across lanes, then values [capacity, D], then (8 bits) a scale per key and per value. The
 * memory is not touched before a position is written, so a long capacity costs address space first
 * and pages only as the text grows. */
#include "model/exec.h"

#include "base/ck.h"
#include "base/mem.h"

#include <string.h>

struct sfq_kv {
    sfq_dtype kind;
    int capacity, length;
    size_t d, positions; /* positions: capacity in whole blocks of keys */
    size_t head_bytes;   /* of one head's stretch */
    size_t parts;        /* spans of the capacity */
    void *memory;
    size_t *offset; /* [layers + 1] bytes before a layer's first head */
    uint8_t *data;  /* memory, aligned to 64 bytes */
};

enum { SFQ_KV_ALIGN = 64 };

/* Everything of kv but the memory, and its size; false on overflow. offset may be NULL. */
static bool sfq_kv_measure(sfq_kv *kv, const sfq_arch *arch, size_t *offset, size_t *bytes)
{
    size_t element = sfq_dtype_info(kv->kind)->bytes, heads = 0, parts;
    size_t of_position =
        2 * (size_t)arch->head_dim * element + (kv->kind == SFQ_I8 ? 2 * sizeof(float) : 0);
    kv->d = (size_t)arch->head_dim;
    kv->positions = ((size_t)kv->capacity + SFQ_ATTN_KEYS - 1) / SFQ_ATTN_KEYS * SFQ_ATTN_KEYS;
    kv->parts = ((size_t)kv->capacity + SFQ_ATTN_SPAN - 1) / SFQ_ATTN_SPAN;
    *bytes = 0;
    if (!sfq_ck_mul(kv->positions, of_position, &kv->head_bytes))
        return false;
    for (int i = 0; i < arch->layers; i++) {
        size_t layer;
        heads = sfq_max_size(heads, (size_t)arch->layer[i].heads);
        if (offset)
            offset[i] = *bytes;
        if (!sfq_ck_mul((size_t)arch->layer[i].kv_heads, kv->head_bytes, &layer) ||
            !sfq_ck_add(*bytes, layer, bytes))
            return false;
    }
    if (offset)
        offset[arch->layers] = *bytes;
    parts = kv->parts > 1 ? kv->parts * heads * (kv->d + 2) * sizeof(float) : 0;
    return sfq_ck_add(*bytes, parts, bytes) && *bytes <= SIZE_MAX - (1u << 20);
}

uint64_t sfq_kv_bytes(const sfq_arch *arch, sfq_dtype kind, int capacity)
{
    sfq_kv kv = {.kind = kind, .capacity = capacity};
    size_t bytes;
    if (capacity < 0 || !sfq_kv_measure(&kv, arch, NULL, &bytes))
        return UINT64_MAX;
    return sizeof(sfq_kv) + ((size_t)arch->layers + 1) * sizeof(size_t) + bytes + SFQ_KV_ALIGN;
}

sfq_status sfq_kv_open(sfq_kv **out, const sfq_arch *arch, sfq_dtype kind, int capacity,
                       sfq_error *err)
{
    size_t bytes = 0;
    *out = NULL;
    if (capacity < 1)
        return sfq_fail(err, SFQ_E_ARGUMENT, "KV cache of %d positions", capacity);
    sfq_kv *kv = SFQ_NEW(sfq_kv);
    if (!kv)
        return sfq_fail_memory(err, sizeof(*kv), "KV cache");
    kv->kind = kind;
    kv->capacity = capacity;
    kv->offset = SFQ_NEW_ARRAY(size_t, (size_t)arch->layers + 1);
    if (kv->offset && sfq_kv_measure(kv, arch, kv->offset, &bytes))
        kv->memory = sfq_mem_raw(bytes + SFQ_KV_ALIGN);
    if (!kv->memory) {
        sfq_kv_close(&kv);
        return sfq_fail_memory(err, (size_t)sfq_kv_bytes(arch, kind, capacity), "KV cache");
    }
    kv->data =
        (uint8_t *)(((uintptr_t)kv->memory + SFQ_KV_ALIGN - 1) & ~(uintptr_t)(SFQ_KV_ALIGN - 1));
    *out = kv;
    return SFQ_OK;
}

void sfq_kv_close(sfq_kv **kv)
{
    if (!kv || !*kv)
        return;
    sfq_mem_free((*kv)->memory);
    sfq_mem_free((*kv)->offset);
    sfq_mem_free(*kv);
    *kv = NULL;
}

int sfq_kv_length(const sfq_kv *kv)
{
    return kv->length;
}

int sfq_kv_capacity(const sfq_kv *kv)
{
    return kv->capacity;
}

sfq_dtype sfq_kv_kind(const sfq_kv *kv)
{
    return kv->kind;
}

void sfq_kv_truncate(sfq_kv *kv, int length)
{
    if (length >= 0 && length < kv->length)
        kv->length = length;
}

void sfq_kv_advance(sfq_kv *kv, size_t count)
{
    kv->length += (int)count;
}

/* ---- a head ---- */

sfq_kv_head sfq_kv_at(const sfq_kv *kv, int layer, size_t head)
{
    size_t bytes = kv->positions * kv->d * sfq_dtype_info(kv->kind)->bytes;
    uint8_t *k = kv->data + kv->offset[layer] + head * kv->head_bytes;
    float *scale = (float *)(void *)(k + 2 * bytes);
    return (sfq_kv_head){k, k + bytes, scale, scale + kv->positions};
}

/* A row of keys to its place in a block. */
static void sfq_kv_spread(uint8_t *block, const uint8_t *row, size_t d, size_t element)
{
    uint32_t *to4 = (uint32_t *)(void *)block;
    uint16_t *to2 = (uint16_t *)(void *)block;
    for (size_t i = 0; i < d; i++) {
        if (element == 4)
            to4[i * SFQ_ATTN_KEYS] = ((const uint32_t *)(const void *)row)[i];
        else if (element == 2)
            to2[i * SFQ_ATTN_KEYS] = ((const uint16_t *)(const void *)row)[i];
        else
            block[i * SFQ_ATTN_KEYS] = row[i];
    }
}

void sfq_kv_put(const sfq_kv *kv, const sfq_kernels *kernels, int layer, size_t head, size_t at,
                float *k, float *v)
{
    _Alignas(8) uint8_t row[SFQ_MAX_HEAD_DIM * sizeof(float)];
    size_t element = sfq_dtype_info(kv->kind)->bytes;
    sfq_kv_head h = sfq_kv_at(kv, layer, head);
    size_t block = at / SFQ_ATTN_KEYS * SFQ_ATTN_KEYS;
    kernels->kv_round(kv->kind, k, row, h.k_scale + at, kv->d);
    sfq_kv_spread(h.k + (block * kv->d + at % SFQ_ATTN_KEYS) * element, row, kv->d, element);
    kernels->kv_round(kv->kind, v, h.v + at * kv->d * element, h.v_scale + at, kv->d);
}

float *sfq_kv_parts(const sfq_kv *kv, int layers, size_t head)
{
    float *parts = (float *)(void *)(kv->data + kv->offset[layers]);
    return parts + head * kv->parts * (kv->d + 2);
}

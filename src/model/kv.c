/* model/kv.c - keys and values of one sequence, float, one block of memory for all layers. The
 * memory is not touched before a position is written, so a long capacity costs address space first
 * and pages only as the text grows. */
#include "model/exec.h"

#include "base/ck.h"
#include "base/mem.h"

struct sfq_kv {
    int capacity, length, layers;
    void *memory;
    size_t *offset; /* [layers + 1] floats before a layer's keys; its values follow the keys */
    float *data;    /* memory, aligned to 64 bytes */
};

enum { SFQ_KV_ALIGN = 64 };

/* Floats of all layers at this capacity; false on overflow. offset may be NULL. */
static bool sfq_kv_measure(const sfq_arch *arch, int capacity, size_t *offset, size_t *floats)
{
    size_t sum = 0;
    for (int i = 0; i < arch->layers; i++) {
        size_t width = (size_t)arch->layer[i].kv_heads * (size_t)arch->head_dim, rows;
        if (offset)
            offset[i] = sum;
        if (!sfq_ck_mul(2 * (size_t)capacity, width, &rows) || !sfq_ck_add(sum, rows, &sum))
            return false;
    }
    if (offset)
        offset[arch->layers] = sum;
    *floats = sum;
    return sum <= (SIZE_MAX - (1u << 20)) / sizeof(float);
}

uint64_t sfq_kv_bytes(const sfq_arch *arch, int capacity)
{
    size_t floats;
    if (capacity < 0 || !sfq_kv_measure(arch, capacity, NULL, &floats))
        return UINT64_MAX;
    return sizeof(sfq_kv) + ((size_t)arch->layers + 1) * sizeof(size_t) + floats * sizeof(float) +
           SFQ_KV_ALIGN;
}

sfq_status sfq_kv_open(sfq_kv **out, const sfq_arch *arch, int capacity, sfq_error *err)
{
    size_t floats = 0;
    *out = NULL;
    if (capacity < 1)
        return sfq_fail(err, SFQ_E_ARGUMENT, "KV cache of %d positions", capacity);
    sfq_kv *kv = SFQ_NEW(sfq_kv);
    if (!kv)
        return sfq_fail_memory(err, sizeof(*kv), "KV cache");
    kv->capacity = capacity;
    kv->layers = arch->layers;
    kv->offset = SFQ_NEW_ARRAY(size_t, (size_t)arch->layers + 1);
    if (kv->offset && sfq_kv_measure(arch, capacity, kv->offset, &floats))
        kv->memory = sfq_mem_raw(floats * sizeof(float) + SFQ_KV_ALIGN);
    if (!kv->memory) {
        sfq_kv_close(&kv);
        return sfq_fail_memory(err, (size_t)sfq_kv_bytes(arch, capacity), "KV cache");
    }
    kv->data =
        (float *)(((uintptr_t)kv->memory + SFQ_KV_ALIGN - 1) & ~(uintptr_t)(SFQ_KV_ALIGN - 1));
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

void sfq_kv_truncate(sfq_kv *kv, int length)
{
    if (length >= 0 && length < kv->length)
        kv->length = length;
}

void sfq_kv_advance(sfq_kv *kv, size_t count)
{
    kv->length += (int)count;
}

float *sfq_kv_keys(const sfq_kv *kv, int layer)
{
    return kv->data + kv->offset[layer];
}

float *sfq_kv_values(const sfq_kv *kv, int layer)
{
    size_t both = kv->offset[layer + 1] - kv->offset[layer];
    return kv->data + kv->offset[layer] + both / 2;
}

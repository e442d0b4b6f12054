/* tests/model/fixture.c - opens vectors; wraps the heap seam of base/sys.h. */
#include "fixture.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

size_t heap_bytes, heap_calls, heap_fail_at;

void heap_reset(void)
{
    heap_bytes = heap_calls = heap_fail_at = 0;
}

static bool heap_refuses(size_t bytes)
{
    heap_calls++;
    heap_bytes += bytes;
    return heap_calls == heap_fail_at;
}

void *__real_sfq_sys_malloc(size_t n);
void *__real_sfq_sys_calloc(size_t n, size_t size);
void *__real_sfq_sys_realloc(void *p, size_t n);
void *__real_sfq_sys_memalign(size_t align, size_t n);
void *__wrap_sfq_sys_malloc(size_t n);
void *__wrap_sfq_sys_calloc(size_t n, size_t size);
void *__wrap_sfq_sys_realloc(void *p, size_t n);
void *__wrap_sfq_sys_memalign(size_t align, size_t n);

void *__wrap_sfq_sys_malloc(size_t n)
{
    return heap_refuses(n) ? NULL : __real_sfq_sys_malloc(n);
}

void *__wrap_sfq_sys_calloc(size_t n, size_t size)
{
    return heap_refuses(n * size) ? NULL : __real_sfq_sys_calloc(n, size);
}

void *__wrap_sfq_sys_realloc(void *p, size_t n)
{
    return heap_refuses(n) ? NULL : __real_sfq_sys_realloc(p, n);
}

void *__wrap_sfq_sys_memalign(size_t align, size_t n)
{
    return heap_refuses(n) ? NULL : __real_sfq_sys_memalign(align, n);
}

static sfq_status read_expected(fixture *f, const char *dir, sfq_error *err)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/expected.safetensors", dir);
    SFQ_TRY(sfq_safetensors_open(&f->expected, path, err));
    const sfq_tensor *ids = sfq_safetensors_find(f->expected, "ids");
    const sfq_tensor *types = sfq_safetensors_find(f->expected, "types");
    const sfq_tensor *lengths = sfq_safetensors_find(f->expected, "lengths");
    const sfq_tensor *result = sfq_safetensors_find(f->expected, "result");
    for (size_t i = 0; i < FIXTURE_SEQUENCES; i++) {
        int64_t n;
        memcpy(&n, (const char *)lengths->data + i * sizeof(n), sizeof(n));
        f->offset[i + 1] = f->offset[i] + (size_t)n;
    }
    for (size_t i = 0; i < FIXTURE_TOKENS; i++) {
        int64_t id, type;
        memcpy(&id, (const char *)ids->data + i * sizeof(id), sizeof(id));
        memcpy(&type, (const char *)types->data + i * sizeof(type), sizeof(type));
        f->ids[i] = (int32_t)id;
        f->types[i] = (int32_t)type;
    }
    f->hidden = (const float *)sfq_safetensors_find(f->expected, "hidden")->data;
    f->result = (const float *)result->data;
    f->result_count = result->count;
    return SFQ_OK;
}

sfq_status fixture_open(fixture *f, const char *name, sfq_error *err)
{
    char dir[128];
    const sfq_hooks hooks = {0};
    memset(f, 0, sizeof(*f));
    snprintf(dir, sizeof(dir), "tests/model/vectors/%s", name);
    SFQ_TRY(sfq_hf_config_open(&f->config, dir, err));
    SFQ_TRY(sfq_arch_open(&f->arch, f->config, NULL, dir, err));
    SFQ_TRY(sfq_checkpoint_open(&f->ck, dir, &hooks, err));
    SFQ_TRY(sfq_modules_open(&f->modules, f->arch, f->ck, NULL, err));
    SFQ_TRY(sfq_net_open(&f->net, f->arch, f->modules, f->ck, NULL, &hooks, err));
    return read_expected(f, dir, err);
}

void fixture_close(fixture *f)
{
    sfq_safetensors_close(&f->expected);
    sfq_net_close(&f->net);
    sfq_modules_close(&f->modules);
    sfq_checkpoint_close(&f->ck);
    sfq_arch_close(&f->arch);
    sfq_hf_config_close(&f->config);
}

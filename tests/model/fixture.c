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

/* Tokens of sequence s in front of the pass that is checked. */
static size_t before(const fixture *f, size_t s, bool half)
{
    return half ? (f->offset[s + 1] - f->offset[s]) / 2 : 0;
}

/* Both kinds of pass over what is left of the sequences, each on its own caches. */
static void check_last_pass(const fixture *f, sfq_exec *exec, sfq_kv **all, sfq_kv **last,
                            bool half)
{
    const size_t c = (size_t)f->arch->hidden;
    size_t offset[FIXTURE_SEQUENCES + 1] = {0};
    int32_t ids[FIXTURE_TOKENS], types[FIXTURE_TOKENS];
    float want[FIXTURE_SEQUENCES][FIXTURE_WIDTH];
    const float *hidden;
    assert_true(c <= FIXTURE_WIDTH);
    for (size_t s = 0; s < FIXTURE_SEQUENCES; s++) {
        const size_t first = f->offset[s] + before(f, s, half), n = f->offset[s + 1] - first;
        offset[s + 1] = offset[s] + n;
        memcpy(ids + offset[s], f->ids + first, n * sizeof *ids);
        memcpy(types + offset[s], f->types + first, n * sizeof *types);
    }
    sfq_batch b = {.sequences = FIXTURE_SEQUENCES, .offset = offset, .ids = ids, .types = types};
    b.kv = all;
    assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_OK);
    for (size_t s = 0; s < FIXTURE_SEQUENCES; s++)
        memcpy(want[s], hidden + (offset[s + 1] - 1) * c, c * sizeof(float));
    b.kv = last;
    b.last_only = true;
    assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_OK);
    for (size_t s = 0; s < FIXTURE_SEQUENCES; s++)
        assert_memory_equal(hidden + s * c, want[s], c * sizeof(float));
}

/* Caches of all sequences, filled with what is before. */
static void fill_caches(const fixture *f, sfq_exec *exec, sfq_kv **kv, bool half, bool last_only)
{
    for (size_t s = 0; s < FIXTURE_SEQUENCES; s++) {
        const size_t offset[2] = {0, before(f, s, half)};
        const float *hidden;
        const sfq_batch b = {.sequences = 1,
                             .offset = offset,
                             .ids = f->ids + f->offset[s],
                             .kv = kv + s,
                             .last_only = last_only};
        assert_int_equal(sfq_kv_open(&kv[s], f->arch, sfq_exec_kv(exec), FIXTURE_TOKENS, NULL),
                         SFQ_OK);
        if (offset[1] > 0)
            assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_OK);
    }
}

void fixture_check_last(const fixture *f, sfq_exec *exec, bool cached)
{
    sfq_kv *all[FIXTURE_SEQUENCES] = {0}, *last[FIXTURE_SEQUENCES] = {0};
    check_last_pass(f, exec, NULL, NULL, false);
    for (int half = 0; cached && half < 2; half++) {
        fill_caches(f, exec, all, half, false);
        fill_caches(f, exec, last, half, true);
        check_last_pass(f, exec, all, last, half);
        for (size_t s = 0; s < FIXTURE_SEQUENCES; s++) {
            sfq_kv_close(&all[s]);
            sfq_kv_close(&last[s]);
        }
    }
}

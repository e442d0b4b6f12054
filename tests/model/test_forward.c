/* tests/model/test_forward.c - the forward pass against Transformers, against itself in every
 * way of calling it, and against a heap that refuses. */
#include "fixture.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

static sfq_batch whole_batch(const fixture *f)
{
    return (sfq_batch){
        .sequences = FIXTURE_SEQUENCES, .offset = f->offset, .ids = f->ids, .types = f->types};
}

static void assert_near(const float *got, const float *want, size_t n)
{
    double diff = 0, norm = 0, most_diff = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        diff += d * d;
        norm += (double)want[i] * (double)want[i];
        most_diff = fmax(most_diff, fabs(d));
        most = fmax(most, fabs((double)want[i]));
    }
    assert_true(sqrt(diff) <= 1e-4 * sqrt(norm));
    assert_true(most_diff <= 1e-4 * most);
}

static void check_layer(void *ud, int layer, const float *hidden, size_t t, size_t c)
{
    const fixture *f = (const fixture *)ud;
    assert_int_equal(t, FIXTURE_TOKENS);
    assert_near(hidden, f->hidden + (size_t)layer * t * c, t * c);
}

static void run_parity(const char *name, sfq_isa isa)
{
    fixture f;
    sfq_exec *exec = NULL;
    const float *hidden;
    size_t rows[FIXTURE_TOKENS];
    assert_int_equal(fixture_open(&f, name, NULL), SFQ_OK);
    assert_int_equal(sfq_exec_open(&exec, f.net, sfq_kernels_get(isa), NULL, NULL), SFQ_OK);
    sfq_batch b = whole_batch(&f);
    assert_int_equal(sfq_forward(exec, &b, &hidden, check_layer, &f, NULL), SFQ_OK);
    float *out = SFQ_NEW_ARRAY(float, f.result_count);
    for (size_t i = 0; i < FIXTURE_TOKENS; i++)
        rows[i] = i;
    if (f.arch->head == SFQ_MODEL_HEAD_LM)
        assert_int_equal(sfq_forward_logits(exec, hidden, rows, FIXTURE_TOKENS, out, NULL), SFQ_OK);
    else
        assert_int_equal(sfq_forward_labels(exec, &b, hidden, out, NULL), SFQ_OK);
    assert_near(out, f.result, f.result_count);
    sfq_mem_free(out);
    sfq_exec_close(&exec);
    fixture_close(&f);
}

static void test_parity(void **state)
{
    (void)state;
    for (sfq_isa isa = SFQ_ISA_REF; isa <= sfq_isa_detect(); isa++) {
        run_parity("llama", isa);
        run_parity("bert", isa);
    }
}

/* Logits of every token of the longest sequence, fed in pieces of `chunk`. */
static void feed(const fixture *f, sfq_exec *exec, sfq_kv *kv, size_t from, size_t chunk,
                 float *logits)
{
    size_t first = f->offset[2], count = f->offset[3] - first, v = (size_t)f->arch->vocab;
    for (size_t at = from; at < count; at += chunk) {
        size_t n = count - at < chunk ? count - at : chunk;
        size_t offset[2] = {0, n}, rows[FIXTURE_TOKENS];
        const float *hidden;
        sfq_batch b = {.sequences = 1, .offset = offset, .ids = f->ids + first + at, .kv = &kv};
        for (size_t i = 0; i < n; i++)
            rows[i] = i;
        assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_OK);
        assert_int_equal(sfq_forward_logits(exec, hidden, rows, n, logits + at * v, NULL), SFQ_OK);
    }
}

static void test_chunks_and_threads_change_no_bit(void **state)
{
    static const size_t chunks[] = {40, 7, 1, 13};
    fixture f;
    (void)state;
    assert_int_equal(fixture_open(&f, "llama", NULL), SFQ_OK);
    size_t n = 40 * (size_t)f.arch->vocab;
    float *first = SFQ_NEW_ARRAY(float, n), *again = SFQ_NEW_ARRAY(float, n);
    for (int threads = 1; threads <= 3; threads++) {
        sfq_pool *pool = NULL;
        sfq_exec *exec = NULL;
        assert_int_equal(sfq_pool_open(&pool, threads, NULL), SFQ_OK);
        assert_int_equal(sfq_exec_open(&exec, f.net, sfq_kernels_get(SFQ_ISA_COUNT), pool, NULL),
                         SFQ_OK);
        for (size_t i = 0; i < 4; i++) {
            sfq_kv *kv = NULL;
            assert_int_equal(sfq_kv_open(&kv, f.arch, SFQ_F32, 40, NULL), SFQ_OK);
            feed(&f, exec, kv, 0, chunks[i], again);
            if (threads == 1 && i == 0)
                memcpy(first, again, n * sizeof(float));
            assert_memory_equal(first, again, n * sizeof(float));
            sfq_kv_close(&kv);
        }
        sfq_exec_close(&exec);
        sfq_pool_close(&pool);
    }
    assert_near(first, f.result + 10 * (size_t)f.arch->vocab, n);
    sfq_mem_free(first);
    sfq_mem_free(again);
    fixture_close(&f);
}

static void test_last_tokens_alone(void **state)
{
    static const char *const names[] = {"llama", "bert"};
    (void)state;
    for (size_t i = 0; i < 2; i++)
        for (sfq_isa isa = SFQ_ISA_REF; isa <= sfq_isa_detect(); isa++)
            for (int order = 0; order < 2; order++) {
                fixture f;
                sfq_exec *exec = NULL;
                sfq_pool *pool = NULL;
                assert_int_equal(fixture_open(&f, names[i], NULL), SFQ_OK);
                assert_int_equal(sfq_pool_open(&pool, 2, NULL), SFQ_OK);
                assert_int_equal(sfq_exec_open(&exec, f.net, sfq_kernels_get(isa), pool, NULL),
                                 SFQ_OK);
                if (order == 1)
                    sfq_exec_free_order(exec);
                fixture_check_last(&f, exec, f.arch->causal);
                sfq_exec_close(&exec);
                sfq_pool_close(&pool);
                fixture_close(&f);
            }
}

static void test_truncated_cache_goes_on_as_before(void **state)
{
    fixture f;
    sfq_exec *exec = NULL;
    sfq_kv *kv = NULL;
    (void)state;
    assert_int_equal(fixture_open(&f, "llama", NULL), SFQ_OK);
    size_t v = (size_t)f.arch->vocab, n = 40 * v;
    float *first = SFQ_NEW_ARRAY(float, n), *again = SFQ_NEW_ARRAY(float, n);
    assert_int_equal(sfq_exec_open(&exec, f.net, sfq_kernels_get(SFQ_ISA_COUNT), NULL, NULL),
                     SFQ_OK);
    assert_int_equal(sfq_kv_open(&kv, f.arch, SFQ_F32, 40, NULL), SFQ_OK);
    feed(&f, exec, kv, 0, 40, first);
    assert_int_equal(sfq_kv_length(kv), 40);
    sfq_kv_truncate(kv, 11);
    assert_int_equal(sfq_kv_length(kv), 11);
    feed(&f, exec, kv, 11, 5, again);
    assert_memory_equal(first + 11 * v, again + 11 * v, (n - 11 * v) * sizeof(float));
    sfq_mem_free(first);
    sfq_mem_free(again);
    sfq_kv_close(&kv);
    sfq_exec_close(&exec);
    fixture_close(&f);
}

static void test_memory_is_what_was_announced(void **state)
{
    fixture f;
    sfq_exec *exec = NULL;
    sfq_kv *kv = NULL;
    float logits[64];
    (void)state;
    assert_int_equal(fixture_open(&f, "llama", NULL), SFQ_OK);
    heap_reset();
    assert_int_equal(sfq_kv_open(&kv, f.arch, SFQ_F32, 40, NULL), SFQ_OK);
    assert_int_equal(heap_bytes, sfq_kv_bytes(f.arch, SFQ_F32, 40));
    heap_reset();
    assert_int_equal(sfq_exec_open(&exec, f.net, sfq_kernels_get(SFQ_ISA_COUNT), NULL, NULL),
                     SFQ_OK);
    size_t offset[2] = {0, 20}, row = 19;
    const float *hidden;
    sfq_batch b = {.sequences = 1, .offset = offset, .ids = f.ids, .kv = &kv};
    assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_OK);
    assert_int_equal(heap_bytes, sfq_exec_bytes(f.net, 1, 20));
    heap_reset();
    offset[1] = 1;
    for (int i = 0; i < 20; i++) {
        row = 0;
        assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_OK);
        assert_int_equal(sfq_forward_logits(exec, hidden, &row, 1, logits, NULL), SFQ_OK);
    }
    assert_int_equal(heap_calls, 0);
    sfq_kv_close(&kv);
    sfq_exec_close(&exec);
    fixture_close(&f);
}

static void test_bad_batches_are_refused_whole(void **state)
{
    fixture llama, bert;
    sfq_exec *exec = NULL;
    sfq_kv *kv = NULL;
    const float *hidden;
    float out[256];
    (void)state;
    assert_int_equal(fixture_open(&llama, "llama", NULL), SFQ_OK);
    assert_int_equal(sfq_exec_open(&exec, llama.net, sfq_kernels_get(SFQ_ISA_COUNT), NULL, NULL),
                     SFQ_OK);
    assert_int_equal(sfq_kv_open(&kv, llama.arch, SFQ_F32, 8, NULL), SFQ_OK);
    sfq_kv *two[2] = {kv, kv};
    size_t offset[3] = {0, 9, 9};
    int32_t ids[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    sfq_batch b = {.sequences = 1, .offset = offset, .ids = ids, .kv = two};
    assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_E_LIMIT);
    offset[1] = 8;
    ids[7] = llama.arch->vocab;
    assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_E_DATA);
    ids[7] = -1;
    assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_E_DATA);
    ids[7] = 8;
    offset[2] = 8;
    b.sequences = 2;
    assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_E_DATA);
    b.sequences = 0;
    assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_E_ARGUMENT);
    b.sequences = 1;
    b.last_only = true;
    assert_int_equal(sfq_forward(exec, &b, &hidden, check_layer, &llama, NULL), SFQ_E_ARGUMENT);
    assert_int_equal(sfq_kv_length(kv), 0);
    b.last_only = false;
    assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_OK);
    assert_int_equal(sfq_kv_length(kv), 8);
    assert_int_equal(sfq_forward_labels(exec, &b, hidden, out, NULL), SFQ_E_UNSUPPORTED);
    assert_int_equal(sfq_forward_embedding(exec, &b, hidden, out, NULL), SFQ_E_UNSUPPORTED);
    sfq_exec_close(&exec);

    assert_int_equal(fixture_open(&bert, "bert", NULL), SFQ_OK);
    assert_int_equal(sfq_exec_open(&exec, bert.net, sfq_kernels_get(SFQ_ISA_COUNT), NULL, NULL),
                     SFQ_OK);
    assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_E_ARGUMENT);
    size_t too_long[2] = {0, 49}; /* 48 positions */
    b = (sfq_batch){.sequences = 1, .offset = too_long, .ids = bert.ids};
    assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_E_LIMIT);
    int32_t types[8] = {0, 0, 0, 0, 0, 0, 0, 2};
    too_long[1] = 8;
    b.types = types;
    assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_E_DATA);
    sfq_exec_close(&exec);
    sfq_kv_close(&kv);
    fixture_close(&llama);
    fixture_close(&bert);
}

/* Opens, computes, closes; the status of the first failure. */
static sfq_status one_life(const char *name, sfq_error *err)
{
    fixture f;
    sfq_exec *exec = NULL;
    sfq_kv *kv = NULL;
    const float *hidden;
    size_t offset[2] = {0, 9};
    sfq_status status;
    SFQ_DO(fixture_open(&f, name, err));
    SFQ_DO(sfq_exec_open(&exec, f.net, sfq_kernels_get(SFQ_ISA_COUNT), NULL, err));
    SFQ_DO(sfq_kv_open(&kv, f.arch, SFQ_F32, 16, err));
    sfq_batch b = {.sequences = 1, .offset = offset, .ids = f.ids};
    b.kv = f.arch->causal ? &kv : NULL;
    status = sfq_forward(exec, &b, &hidden, NULL, NULL, err);
done:
    sfq_kv_close(&kv);
    sfq_exec_close(&exec);
    fixture_close(&f);
    return status;
}

static void test_each_allocation_may_fail(void **state)
{
    static const char *const names[] = {"llama", "bert"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        sfq_status status = SFQ_E_MEMORY;
        size_t n;
        for (n = 1; status != SFQ_OK; n++) {
            sfq_error err = {0};
            heap_reset();
            heap_fail_at = n;
            status = one_life(names[i], &err);
            if (status != SFQ_OK) {
                assert_int_equal(status, SFQ_E_MEMORY);
                assert_int_equal(err.code, SFQ_E_MEMORY);
            }
        }
        assert_true(n > 30);
        heap_reset();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity),
        cmocka_unit_test(test_chunks_and_threads_change_no_bit),
        cmocka_unit_test(test_last_tokens_alone),
        cmocka_unit_test(test_truncated_cache_goes_on_as_before),
        cmocka_unit_test(test_memory_is_what_was_announced),
        cmocka_unit_test(test_bad_batches_are_refused_whole),
        cmocka_unit_test(test_each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/model/test_packed.c - the same forward pass over packed matrices: near the dense
 * matrices that the codes stand for, and equal to itself bit by bit at any thread count and
 * chunking. */
#include "packing.h"

#include <math.h>
#include <string.h>

/* Result of all sequences; chunk 0: one batch without caches. */
static void compute(const fixture *f, const sfq_net *net, sfq_isa isa, int threads, size_t chunk,
                    float *out)
{
    sfq_exec *exec = NULL;
    sfq_pool *pool = NULL;
    size_t rows[FIXTURE_TOKENS], v = (size_t)f->arch->vocab;
    const float *hidden;
    for (size_t i = 0; i < FIXTURE_TOKENS; i++)
        rows[i] = i;
    assert_int_equal(sfq_pool_open(&pool, threads, NULL), SFQ_OK);
    assert_int_equal(sfq_exec_open(&exec, net, sfq_kernels_get(isa), pool, NULL), SFQ_OK);
    sfq_batch b = {
        .sequences = FIXTURE_SEQUENCES, .offset = f->offset, .ids = f->ids, .types = f->types};
    if (chunk == 0) {
        assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_OK);
        if (f->arch->head == SFQ_MODEL_HEAD_LM)
            assert_int_equal(sfq_forward_logits(exec, hidden, rows, FIXTURE_TOKENS, out, NULL), 0);
        else
            assert_int_equal(sfq_forward_labels(exec, &b, hidden, out, NULL), SFQ_OK);
    }
    for (size_t s = 0; chunk > 0 && s < FIXTURE_SEQUENCES; s++) {
        sfq_kv *kv = NULL;
        assert_int_equal(sfq_kv_open(&kv, f->arch, sfq_exec_kv(exec), FIXTURE_TOKENS, NULL),
                         SFQ_OK);
        for (size_t at = f->offset[s]; at < f->offset[s + 1]; at += chunk) {
            size_t n = f->offset[s + 1] - at < chunk ? f->offset[s + 1] - at : chunk;
            size_t offset[2] = {0, n};
            b = (sfq_batch){.sequences = 1, .offset = offset, .ids = f->ids + at, .kv = &kv};
            assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_OK);
            assert_int_equal(sfq_forward_logits(exec, hidden, rows, n, out + at * v, NULL), 0);
        }
        sfq_kv_close(&kv);
    }
    sfq_exec_close(&exec);
    sfq_pool_close(&pool);
}

static double distance(const float *a, const float *b, size_t n)
{
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        diff += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(diff / norm);
}

static void check_packed(const char *name)
{
    fixture f;
    packed_net p;
    assert_int_equal(fixture_open(&f, name, NULL), SFQ_OK);
    packed_open(&p, f.net);
    size_t n = f.result_count;
    float *want = SFQ_NEW_ARRAY(float, n), *first = SFQ_NEW_ARRAY(float, n);
    float *again = SFQ_NEW_ARRAY(float, n);
    compute(&f, &p.dense, SFQ_ISA_REF, 1, 0, want);
    for (sfq_isa isa = SFQ_ISA_REF; isa <= sfq_isa_detect(); isa++) {
        compute(&f, &p.packed, isa, 1, 0, first);
        /* 12 bits of activation: 1/2047 of a segment's largest, averaged out over the inputs */
        double d = distance(first, want, n);
        assert_true(d < 2e-3);
        assert_true(d > 1e-7); /* the integer path did run */
        for (int threads = 1; threads <= 3; threads++)
            for (size_t chunk = 0; chunk <= (f.arch->causal ? 7 : 0); chunk += 7) {
                compute(&f, &p.packed, isa, threads, chunk, again);
                assert_memory_equal(first, again, n * sizeof(float));
            }
    }
    for (sfq_isa isa = SFQ_ISA_REF; isa <= sfq_isa_detect(); isa++) {
        sfq_exec *exec = NULL;
        assert_int_equal(sfq_exec_open(&exec, &p.packed, sfq_kernels_get(isa), NULL, NULL), SFQ_OK);
        fixture_check_last(&f, exec, f.arch->causal);
        sfq_exec_close(&exec);
    }
    sfq_mem_free(want);
    sfq_mem_free(first);
    sfq_mem_free(again);
    packed_close(&p);
    fixture_close(&f);
}

/* ---- long contexts ---- */

enum { LONG = 1100, DECODED = 3 };

/* Logits of the last DECODED tokens of a text over several spans of keys; cached: the text in
 * pieces, then token by token, the keys of which are shared out over the threads. */
static void compute_long(const fixture *f, const sfq_net *net, sfq_dtype kind, int threads,
                         bool cached, float *out)
{
    int32_t ids[LONG];
    size_t v = (size_t)f->arch->vocab, rows[DECODED], tokens = cached ? LONG - DECODED : LONG;
    const float *hidden;
    sfq_exec *exec = NULL;
    sfq_pool *pool = NULL;
    sfq_kv *kv = NULL;
    for (size_t i = 0; i < LONG; i++)
        ids[i] = f->ids[(i * 7 + i / 50) % FIXTURE_TOKENS];
    assert_int_equal(sfq_pool_open(&pool, threads, NULL), SFQ_OK);
    assert_int_equal(sfq_exec_open(&exec, net, sfq_kernels_get(SFQ_ISA_COUNT), pool, NULL), 0);
    sfq_exec_set_kv(exec, kind);
    assert_int_equal(sfq_kv_open(&kv, f->arch, kind, LONG, NULL), SFQ_OK);
    for (size_t at = 0; at < tokens; at += cached ? 500 : LONG) {
        size_t offset[2] = {0, cached && tokens - at > 500 ? 500 : tokens - at};
        sfq_batch b = {.sequences = 1, .offset = offset, .ids = ids + at};
        b.kv = cached ? &kv : NULL;
        assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_OK);
    }
    for (size_t i = 0; i < DECODED; i++)
        rows[i] = LONG - DECODED + i;
    if (!cached)
        assert_int_equal(sfq_forward_logits(exec, hidden, rows, DECODED, out, NULL), SFQ_OK);
    for (size_t i = 0; i < DECODED && cached; i++) {
        size_t offset[2] = {0, 1}, row = 0;
        sfq_batch b = {.sequences = 1, .offset = offset, .ids = ids + tokens + i, .kv = &kv};
        assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_OK);
        assert_int_equal(sfq_forward_logits(exec, hidden, &row, 1, out + i * v, NULL), SFQ_OK);
    }
    sfq_kv_close(&kv);
    sfq_exec_close(&exec);
    sfq_pool_close(&pool);
}

/* Each kind of cache: the pass without one reads what the cache would give back. */
static void test_long_contexts(void **state)
{
    static const sfq_dtype kinds[] = {SFQ_F32, SFQ_F16, SFQ_I8};
    fixture f;
    packed_net p;
    (void)state;
    assert_int_equal(fixture_open(&f, "llama", NULL), SFQ_OK);
    packed_open(&p, f.net);
    assert_int_equal(sfq_net_kv(&p.packed), SFQ_F16);
    assert_int_equal(sfq_net_kv(&p.dense), SFQ_F32);
    size_t n = DECODED * (size_t)f.arch->vocab;
    float *want = SFQ_NEW_ARRAY(float, n), *first = SFQ_NEW_ARRAY(float, n);
    float *again = SFQ_NEW_ARRAY(float, n);
    for (size_t i = 0; i < 3; i++) {
        compute_long(&f, &p.packed, kinds[i], 1, false, first);
        if (i == 0)
            memcpy(want, first, n * sizeof(float));
        double d = distance(first, want, n);
        assert_true(d < (kinds[i] == SFQ_I8 ? 0.05 : 3e-3));
        assert_true(i == 0 || d > 1e-6); /* it did round */
        for (int threads = 1; threads <= 4; threads++) {
            compute_long(&f, &p.packed, kinds[i], threads, true, again);
            assert_memory_equal(first, again, n * sizeof(float));
        }
    }
    sfq_mem_free(want);
    sfq_mem_free(first);
    sfq_mem_free(again);
    packed_close(&p);
    fixture_close(&f);
}

static void test_packed_llama(void **state)
{
    (void)state;
    check_packed("llama");
}

static void test_packed_bert(void **state)
{
    (void)state;
    check_packed("bert");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packed_llama),
        cmocka_unit_test(test_packed_bert),
        cmocka_unit_test(test_long_contexts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

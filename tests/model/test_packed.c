/* tests/model/test_packed.c - the same forward pass over packed matrices: near the dense
 * matrices that the codes stand for, and equal to itself bit by bit at any thread count and
 * chunking. The matrices are packed here by rounding, with activation bits that differ between
 * matrices of one input. */
#include "fixture.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

typedef struct packed_net {
    sfq_net packed; /* codes */
    sfq_net dense;  /* the floats that the codes stand for */
    sfq_arena *arena;
} packed_net;

static float dense_value(const sfq_matrix *m, size_t n, size_t k)
{
    float v;
    size_t size = sfq_dtype_info(m->dtype)->bytes;
    sfq_to_f32(&v, (const char *)m->w + (n * m->k + k) * size, m->dtype, 1);
    return v;
}

/* One scale per cluster: the largest magnitude over 2^(bits-1) - 1. */
static void round_matrix(const sfq_matrix *m, int bits, float *scales, uint8_t *codes)
{
    const sfq_cluster *c = &m->cluster;
    float most = (float)((1 << (bits - 1)) - 1);
    for (size_t n = 0; n < m->n; n++)
        for (size_t k = 0; k < m->k; k++) {
            float *s = &scales[sfq_scale_index(c, n, k / c->segment_k)];
            *s = fmaxf(*s, fabsf(dense_value(m, n, k)) / most);
        }
    for (size_t n = 0; n < m->n; n++)
        for (size_t k = 0; k < m->k; k++) {
            float s = scales[sfq_scale_index(c, n, k / c->segment_k)];
            float code = rintf(dense_value(m, n, k) / s) + (float)(1 << (bits - 1));
            codes[n * m->k + k] = (uint8_t)code;
        }
}

/* Replaces a dense matrix in both nets. */
static void pack(packed_net *p, sfq_matrix *packed, sfq_matrix *dense, int bits, int activation)
{
    sfq_matrix m = *packed;
    if (m.n == 0)
        return;
    assert_true(sfq_cluster_make(&m.cluster, m.n, m.k));
    const sfq_cluster *c = &m.cluster;
    float *scales = SFQ_ARENA_ARRAY(p->arena, float, sfq_cluster_scales(c));
    uint8_t *codes = SFQ_ARENA_ARRAY(p->arena, uint8_t, m.n * m.k);
    uint8_t *panels = (uint8_t *)sfq_arena_aligned(p->arena, sfq_cluster_code_bytes(c, bits));
    float *w = SFQ_ARENA_ARRAY(p->arena, float, m.n *m.k);
    round_matrix(&m, bits, scales, codes);
    sfq_panels_pack(panels, codes, c, bits, 0, c->panels);
    for (size_t n = 0; n < m.n; n++)
        for (size_t k = 0; k < m.k; k++)
            w[n * m.k + k] = scales[sfq_scale_index(c, n, k / c->segment_k)] *
                             (float)((int)codes[n * m.k + k] - (1 << (bits - 1)));
    dense->w = w;
    dense->dtype = SFQ_F32;
    m.packed = true;
    m.w = NULL;
    m.codes = panels;
    m.panel_bytes = sfq_cluster_panel_bytes(c, bits);
    m.bits = bits;
    m.activation_bits = activation;
    m.scales = scales;
    *packed = m;
}

static void packed_open(packed_net *p, const fixture *f)
{
    size_t layers = (size_t)f->arch->layers;
    p->arena = sfq_arena_open();
    p->packed = p->dense = *f->net;
    p->packed.layer = SFQ_ARENA_ARRAY(p->arena, sfq_layer_weights, layers);
    p->dense.layer = SFQ_ARENA_ARRAY(p->arena, sfq_layer_weights, layers);
    memcpy(p->packed.layer, f->net->layer, layers * sizeof(sfq_layer_weights));
    memcpy(p->dense.layer, f->net->layer, layers * sizeof(sfq_layer_weights));
    for (size_t i = 0; i < layers; i++) {
        sfq_layer_weights *a = &p->packed.layer[i], *b = &p->dense.layer[i];
        pack(p, &a->q, &b->q, 8, 14);
        pack(p, &a->k, &b->k, 6, 14);
        pack(p, &a->v, &b->v, 8, 12); /* other codes for the same input */
        pack(p, &a->o, &b->o, 8, 14);
        if (i == 0)
            pack(p, &a->gate, &b->gate, 7, 14); /* else a dense matrix beside a packed one */
        pack(p, &a->up, &b->up, 8, 14);
        pack(p, &a->down, &b->down, 5, 14);
    }
    pack(p, &p->packed.word, &p->dense.word, 8, 14);
    pack(p, &p->packed.position, &p->dense.position, 8, 14);
    pack(p, &p->packed.type, &p->dense.type, 8, 14);
    if (f->arch->head == SFQ_MODEL_HEAD_LM) {
        p->packed.lm_head = p->packed.word;
        p->dense.lm_head = p->dense.word;
    } else {
        pack(p, &p->packed.pooler, &p->dense.pooler, 8, 14);
    }
}

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
        assert_int_equal(sfq_kv_open(&kv, f->arch, FIXTURE_TOKENS, NULL), SFQ_OK);
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
    packed_open(&p, &f);
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
    sfq_mem_free(want);
    sfq_mem_free(first);
    sfq_mem_free(again);
    sfq_arena_close(&p.arena);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Scales that are fitted to what the inputs were: less error where it counts, in any order of the
 * columns, with rows that share a scale and with several segments. */
#include "unit/unit.h"

#include "base/rng.h"
#include "compress/plan.h"
#include "compress/scale.h"

static sfq_error err;

enum { MAX_N = 48, MAX_K = 1300 };

typedef struct matrix {
    size_t n, k;
    float w[MAX_N * MAX_K], energy[MAX_K];
    sfq_module module;
    sfq_tensor tensor;
    sfq_cluster cluster;
} matrix;

/* Few inputs carry most of the energy. */
static matrix *make(size_t n, size_t k)
{
    static matrix m;
    m = (matrix){.n = n, .k = k};
    for (size_t i = 0; i < n * k; i++)
        m.w[i] = (float)sfq_rng_normal(5, k, i);
    for (size_t i = 0; i < k; i++)
        m.energy[i] = (float)(0.01 + (i % 9 == 4 ? 20.0 : 0.5) * sfq_rng_uniform(6, k, i));
    m.module = (sfq_module){.name = (char *)"m", .role = SFQ_ROLE_UP, .n = n, .k = k};
    m.tensor = (sfq_tensor){.name = "m.weight",
                            .dtype = SFQ_F32,
                            .rank = 2,
                            .shape = {n, k},
                            .count = n * k,
                            .bytes = 4 * n * k,
                            .data = m.w};
    assert_true(sfq_cluster_make(&m.cluster, n, k));
    return &m;
}

static sfq_status nothing(void *ud, uint64_t weights, sfq_error *e)
{
    (void)ud, (void)weights, (void)e;
    return SFQ_OK;
}

typedef struct packed {
    uint8_t codes[2 * MAX_N * MAX_K];
    float scales[4 * MAX_N];
    double error;
} packed;

static void pack(packed *p, const matrix *m, int bits, const float *energy, const uint32_t *order)
{
    sfq_fuser *fuser;
    memset(p, 0, sizeof *p);
    sfq_fuse_input in = {.module = &m->module,
                         .weight = &m->tensor,
                         .cluster = &m->cluster,
                         .bits = bits,
                         .scale_dtype = SFQ_F32,
                         .column_order = order,
                         .energy = energy};
    sfq_fuse_output out = {.codes = p->codes, .scales = p->scales};
    assert_true(sfq_cluster_code_bytes(&m->cluster, bits) <= sizeof p->codes);
    assert_true(sfq_cluster_scales(&m->cluster) <= 4 * MAX_N);
    assert_ok(sfq_fuser_open(&fuser, NULL, m->k, &err));
    assert_ok(sfq_fuser_pack(fuser, &in, nothing, NULL, &out, &err));
    p->error = out.error;
    sfq_fuser_close(&fuser);
}

/* sum of energy (w - decoded)^2; energy NULL: 1. Codes are the nearest to the scales. */
static double error_of(const matrix *m, const packed *p, int bits, const float *energy)
{
    double sum = 0;
    for (size_t n = 0; n < m->n; n++)
        for (size_t k = 0; k < m->k; k++) {
            const float w = m->w[n * m->k + k];
            size_t segment = k / m->cluster.segment_k;
            float scale = p->scales[sfq_scale_index(&m->cluster, n, segment)];
            uint8_t code;
            sfq_scale_codes(&code, &w, 1, scale, bits);
            double e = (double)w - (double)scale * (code - (1 << (bits - 1)));
            sum += (energy != NULL ? (double)energy[k] : 1.0) * e * e;
        }
    return sum;
}

static const struct {
    size_t n, k; /* 1 segment, 2 segments, 8 and 2 rows that share, 16 that do */
} shapes[] = {{20, 400}, {33, 1300}, {40, 60}, {17, 200}, {16, 10}};

static void test_weighted_error_falls(void **state)
{
    (void)state;
    static packed plain, weighted;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int bits = 3; bits <= 8; bits += 5) {
            const matrix *m = make(shapes[i].n, shapes[i].k);
            pack(&plain, m, bits, NULL, NULL);
            pack(&weighted, m, bits, m->energy, NULL);
            double before = error_of(m, &plain, bits, m->energy);
            double after = error_of(m, &weighted, bits, m->energy);
            assert_true(after < before);
            if (bits == 3 && m->k > 20)
                assert_true(after < 0.99 * before);
            /* what reports quote stays the plain error of each */
            assert_near(plain.error / error_of(m, &plain, bits, NULL), 1.0, 1e-5);
            assert_near(weighted.error / error_of(m, &weighted, bits, NULL), 1.0, 1e-5);
            assert_true(weighted.error > plain.error);
        }
}

/* An order of columns moves their energies with them. */
static void test_order(void **state)
{
    (void)state;
    static packed ordered, moved;
    static uint32_t order[MAX_K];
    static float energy[MAX_K], w[MAX_N * MAX_K];
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        matrix *m = make(shapes[i].n, shapes[i].k);
        for (size_t k = 0; k < m->k; k++) {
            order[k] = (uint32_t)((k * 7 + 3) % m->k);
            energy[k] = m->energy[order[k]];
        }
        pack(&ordered, m, 4, m->energy, order);
        memcpy(w, m->w, sizeof w);
        for (size_t n = 0; n < m->n; n++)
            for (size_t k = 0; k < m->k; k++)
                m->w[n * m->k + k] = w[n * m->k + order[k]];
        pack(&moved, m, 4, energy, NULL);
        assert_memory_equal(&ordered, &moved, sizeof ordered);
        pack(&moved, m, 4, m->energy, NULL); /* and it matters */
        assert_memory_not_equal(&ordered, &moved, sizeof ordered);
    }
}

/* Energies that say nothing change nothing; inputs that were never seen keep their weights. */
static void test_edges(void **state)
{
    (void)state;
    static packed plain, other;
    matrix *m = make(20, 400);
    float zeros[400] = {0};
    pack(&plain, m, 4, NULL, NULL);
    pack(&other, m, 4, zeros, NULL);
    assert_memory_equal(&plain, &other, sizeof plain);
    for (size_t k = 0; k < 400; k++)
        zeros[k] = k == 7 ? 3.0F : 0.0F;
    pack(&other, m, 4, zeros, NULL);
    assert_true(other.error > plain.error);
    assert_true(other.error < 0.1 * 20 * 400); /* of the weights' own squares */
}

/* Only output projections have energies. */
static void test_roles(void **state)
{
    (void)state;
    float v[4], *att[] = {&v[0], &v[1]}, *ffn_act[] = {&v[2], &v[3]};
    const sfq_energy e = {2, att, ffn_act};
    for (sfq_role role = 0; role < SFQ_ROLE_COUNT; role++)
        for (int layer = -1; layer < 3; layer++) {
            const sfq_module m = {.role = role, .layer = layer};
            const float *want = NULL;
            if (layer == 0 || layer == 1)
                want = role == SFQ_ROLE_O      ? att[layer]
                       : role == SFQ_ROLE_DOWN ? ffn_act[layer]
                                               : NULL;
            assert_ptr_equal(sfq_energy_of(&e, &m), want);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weighted_error_falls),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_roles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

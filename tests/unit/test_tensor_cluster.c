/* The geometry of fusion clusters: a table worked out by hand from the rules, properties for every
 * K, and sizes that do not fit. */
#include "tensor/cluster.h"

#include "unit/unit.h"

static const struct {
    size_t n, k, panels, k_blocks, segments, segment_k, share;
} table[] = {
    {1, 1, 1, 1, 1, 64, 16},
    {16, 20, 1, 1, 1, 64, 16},
    {17, 21, 2, 1, 1, 64, 16},
    {16, 41, 1, 1, 1, 64, 16}, /* 8 * 41 = 328 < 334 */
    {16, 42, 1, 1, 1, 64, 8},
    {16, 64, 1, 1, 1, 64, 8},
    {16, 83, 1, 2, 1, 128, 8}, /* 4 * 83 = 332 */
    {16, 84, 1, 2, 1, 128, 4},
    {128, 128, 8, 2, 1, 128, 4},
    {16, 166, 1, 3, 1, 192, 4},
    {16, 167, 1, 3, 1, 192, 2},
    {16, 192, 1, 3, 1, 192, 2},
    {16, 333, 1, 6, 1, 384, 2},
    {16, 334, 1, 6, 1, 384, 1},
    {384, 384, 24, 6, 1, 384, 1},
    {512, 512, 32, 8, 1, 512, 1},
    {768, 768, 48, 12, 1, 768, 1},
    {16, 1023, 1, 16, 1, 1024, 1},
    {16, 1024, 1, 16, 2, 512, 1},
    {16, 1025, 1, 17, 2, 576, 1},
    {16, 1100, 1, 18, 2, 576, 1},
    {16, 1152, 1, 18, 2, 576, 1},
    {16, 1535, 1, 24, 2, 768, 1},
    {16, 1536, 1, 24, 3, 512, 1},
    {16, 1537, 1, 25, 3, 576, 1},
    {16, 2047, 1, 32, 3, 704, 1},
    {2048, 2048, 128, 32, 2, 1024, 1},
    {16, 2049, 1, 33, 3, 1024, 1},
    {768, 3072, 48, 48, 3, 1024, 1},
    {4096, 11008, 256, 172, 11, 1024, 1},
    {5, 14336, 1, 224, 14, 1024, 1},
};

static void table_by_hand(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        sfq_cluster c;
        assert_true(sfq_cluster_make(&c, table[i].n, table[i].k));
        assert_int_equal(c.n, table[i].n);
        assert_int_equal(c.k, table[i].k);
        assert_int_equal(c.panels, table[i].panels);
        assert_int_equal(c.k_blocks, table[i].k_blocks);
        assert_int_equal(c.segments, table[i].segments);
        assert_int_equal(c.segment_k, table[i].segment_k);
        assert_int_equal(c.share, table[i].share);
        for (int bits = 2; bits <= 8; bits++) {
            size_t panel = c.k_blocks * (size_t)bits * 128;
            assert_int_equal(sfq_cluster_panel_bytes(&c, bits), panel);
            assert_int_equal(sfq_cluster_code_bytes(&c, bits), c.panels * panel);
        }
    }
}

static void segments_cover_every_k(void **state)
{
    (void)state;
    for (size_t k = 1; k < 20000; k++) {
        sfq_cluster c;
        assert_true(sfq_cluster_make(&c, 16, k));
        assert_int_equal(c.segment_k % SFQ_BLOCK_K, 0);
        assert_true(c.segment_k <= SFQ_SEGMENT_MAX);
        size_t at = 0;
        for (size_t s = 0; s < c.segments; s++) {
            assert_int_equal(sfq_segment_begin(&c, s), at);
            assert_true(sfq_segment_end(&c, s) > at);
            at = sfq_segment_end(&c, s);
        }
        assert_int_equal(at, k);
        if (k < 2048)
            assert_int_equal(c.segments, k < 1024 ? 1 : k / 512);
        if (c.share > 1) /* no smaller power of two would do */
            assert_true(c.share / 2 * k < SFQ_CLUSTER_MIN && c.segments == 1);
    }
}

/* All scales / all weights, both without padding, stays under 0.3 %; in whole panels. */
static void overhead(void **state)
{
    (void)state;
    for (size_t k = 84; k < 40000; k++) {
        sfq_cluster c;
        assert_true(sfq_cluster_make(&c, 16, k));
        double share = (double)sfq_cluster_scales_true(&c) / (16.0 * (double)k);
        if (share >= 0.003)
            fail_msg("K = %zu: %g", k, share);
    }
}

/* Outputs that share a scale have one index, others have another, and all places are used. */
static void scale_places(void **state)
{
    (void)state;
    static const size_t ks[] = {1, 30, 64, 100, 200, 334, 1024, 1537, 4097};
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
        for (size_t n = 1; n < 70; n++) {
            sfq_cluster c;
            assert_true(sfq_cluster_make(&c, n, ks[i]));
            size_t scales = sfq_cluster_scales(&c);
            assert_int_equal(scales, c.panels * c.segments * 16 / c.share);
            int uses[400] = {0};
            int true_uses[400] = {0};
            assert_true(scales <= 400);
            for (size_t o = 0; o < 16 * c.panels; o++)
                for (size_t s = 0; s < c.segments; s++) {
                    size_t at = sfq_scale_index(&c, o, s);
                    assert_true(at < scales);
                    uses[at]++;
                    true_uses[at] += o < n;
                    /* [panels][segments][16/r], spelled out */
                    assert_int_equal(at, ((o / 16) * c.segments + s) * (16 / c.share) +
                                             o % 16 / c.share);
                }
            size_t used = 0;
            for (size_t s = 0; s < scales; s++) {
                assert_int_equal(uses[s], c.share);
                used += true_uses[s] > 0;
            }
            assert_int_equal(sfq_cluster_scales_true(&c), used);
        }
}

static void refused(void **state)
{
    (void)state;
    sfq_cluster c = {.n = 7};
    assert_false(sfq_cluster_make(&c, 0, 64));
    assert_false(sfq_cluster_make(&c, 64, 0));
    assert_false(sfq_cluster_make(&c, SIZE_MAX, SIZE_MAX));
    assert_false(sfq_cluster_make(&c, (size_t)1 << 40, (size_t)1 << 40));
    assert_false(sfq_cluster_make(&c, 1, SIZE_MAX));
    assert_false(sfq_cluster_make(&c, SIZE_MAX, 1));
    assert_int_equal(c.n, 7);      /* not touched by a refusal */
    size_t most = SIZE_MAX / 1024; /* blocks that fit, to the last */
    assert_true(sfq_cluster_make(&c, 1, most * 64));
    assert_true(sfq_cluster_code_bytes(&c, 8) == most * 1024);
    assert_true(sfq_segment_end(&c, c.segments - 1) == most * 64);
    assert_false(sfq_cluster_make(&c, 1, most * 64 + 1));
    assert_true(sfq_cluster_make(&c, most * 16, 1));
    assert_false(sfq_cluster_make(&c, most * 16 + 1, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_by_hand), cmocka_unit_test(segments_cover_every_k),
        cmocka_unit_test(overhead),      cmocka_unit_test(scale_places),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tensor/cluster.c - the geometry of fusion clusters; the rules stand in cluster.h. K/kb is rounded
 * up before it is rounded to blocks, so there are exactly kb segments. */
#include "tensor/cluster.h"

#include "base/ck.h"

enum {
    SEGMENT_LONG_FROM = 2048,
    SEGMENT_LONG = SFQ_SEGMENT_MAX,
    SEGMENT_UNIT = 512,
    BLOCK_BYTES_8 = 1024
};

static size_t divide_up(size_t a, size_t b)
{
    return a / b + (a % b != 0);
}

static void cut_segments(sfq_cluster *c)
{
    size_t pieces = c->k < SEGMENT_UNIT ? 1 : c->k / SEGMENT_UNIT;
    c->segment_k = c->k >= SEGMENT_LONG_FROM ? SEGMENT_LONG
                                             : sfq_round_up(divide_up(c->k, pieces), SFQ_BLOCK_K);
    c->segments = divide_up(c->k, c->segment_k);
    c->share = 1;
    while (c->share < SFQ_PANEL_N && c->share * c->k < SFQ_CLUSTER_MIN)
        c->share *= 2;
}

bool sfq_cluster_make(sfq_cluster *out, size_t n, size_t k)
{
    if (n == 0 || k == 0)
        return false;
    sfq_cluster c = {
        .n = n, .k = k, .panels = divide_up(n, SFQ_PANEL_N), .k_blocks = divide_up(k, SFQ_BLOCK_K)};
    size_t bytes;
    if (!sfq_ck_mul(c.panels, c.k_blocks, &bytes) || !sfq_ck_mul(bytes, BLOCK_BYTES_8, &bytes))
        return false;
    cut_segments(&c);
    *out = c;
    return true;
}

size_t sfq_cluster_panel_bytes(const sfq_cluster *c, int bits)
{
    return c->k_blocks * sfq_block_bytes(bits);
}

size_t sfq_cluster_code_bytes(const sfq_cluster *c, int bits)
{
    return c->panels * sfq_cluster_panel_bytes(c, bits);
}

size_t sfq_cluster_scales(const sfq_cluster *c)
{
    return c->panels * c->segments * (SFQ_PANEL_N / c->share);
}

size_t sfq_cluster_scales_true(const sfq_cluster *c)
{
    return c->segments * divide_up(c->n, c->share);
}

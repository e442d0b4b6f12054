/* tensor/cluster.h - the geometry of packed weights: panels, blocks, fusion clusters. Every reader,
 * writer and kernel takes its numbers from here; docs/FORMAT.md says the same in words.
 *
 * W[N outputs, K inputs] is cut into panels of 16 outputs and blocks of 64 inputs. A block of 8-bit
 * codes is [K/4 = 16 rows][16 outputs][4 inputs] = 1024 bytes; b bits take b*128 bytes. Codes are
 * unsigned with zero point 2^(b-1).
 *
 * A fusion cluster is a set of weights that share one scale:
 *   K >= 334: one output x one segment of K. kb = max(1, K/512) segments of round_up(K/kb, 64)
 *             inputs (the last takes what is left); from K = 2048 on segments of 1024.
 *   K <  334: r outputs of a panel share a scale over all of K, r the least power of two with
 *             r*K >= 334, at most 16.
 * scales are stored [panels][segments][16/r]. */
#ifndef SFQ_TENSOR_CLUSTER_H
#define SFQ_TENSOR_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SFQ_PANEL_N = 16,    /* outputs of a panel */
    SFQ_BLOCK_K = 64,    /* inputs of a block */
    SFQ_BLOCK_ROWS = 16, /* byte rows of an 8-bit block: K/4 */
    SFQ_ROW_BYTES = 64,  /* 16 outputs x 4 inputs */
    SFQ_BLOCK_WEIGHTS = 1024,
    SFQ_CLUSTER_MIN = 334, /* weights per cluster that keep scales under 0.3 % */
    SFQ_SEGMENT_MAX = 1024 /* inputs of a segment: what keeps its sum of products in an int32 */
};

_Static_assert(SFQ_BLOCK_ROWS *SFQ_ROW_BYTES == SFQ_BLOCK_WEIGHTS, "8-bit block");
_Static_assert(SFQ_PANEL_N *SFQ_BLOCK_K == SFQ_BLOCK_WEIGHTS, "block");

typedef struct sfq_cluster {
    size_t n, k;      /* true outputs and inputs */
    size_t panels;    /* ceil(n/16) */
    size_t k_blocks;  /* ceil(k/64) */
    size_t segments;  /* scales along K */
    size_t segment_k; /* inputs of every segment but the last; a multiple of 64 */
    size_t share;     /* outputs that share a scale: 1, 2, 4, 8 or 16 */
} sfq_cluster;

/* False when n or k is 0 or a size overflows. */
bool sfq_cluster_make(sfq_cluster *out, size_t n, size_t k);
/* Bytes of a block at `bits` (2..8), of a panel, of all codes. */
static inline size_t sfq_block_bytes(int bits)
{
    return (size_t)bits * 128;
}
size_t sfq_cluster_panel_bytes(const sfq_cluster *c, int bits);
size_t sfq_cluster_code_bytes(const sfq_cluster *c, int bits);
size_t sfq_cluster_scales(const sfq_cluster *c);      /* as stored, padding outputs included */
size_t sfq_cluster_scales_true(const sfq_cluster *c); /* those that true outputs use */
/* First input of a segment, and the end (at most k; the last segment's padding is not counted). */
static inline size_t sfq_segment_begin(const sfq_cluster *c, size_t s)
{
    return s * c->segment_k;
}
static inline size_t sfq_segment_end(const sfq_cluster *c, size_t s)
{
    size_t end = (s + 1) * c->segment_k;
    return end < c->k ? end : c->k;
}
/* Index into scales of output n (true or padding), segment s. */
static inline size_t sfq_scale_index(const sfq_cluster *c, size_t n, size_t s)
{
    size_t per_panel = SFQ_PANEL_N / c->share;
    return (n / SFQ_PANEL_N * c->segments + s) * per_panel + n % SFQ_PANEL_N / c->share;
}

#endif

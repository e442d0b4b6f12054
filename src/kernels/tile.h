/* kernels/tile.h - the innermost loop of float linear algebra: one tile of a product, from packed
 * operands. Inside src/kernels only.
 *
 * An element is sum = fma(a_k, b_k, sum) for k ascending from 0, then set, added to c or subtracted
 * from it. Every implementation does just that, so all give the same bits, and where the borders of
 * tiles lie does not matter. */
#ifndef SFQ_KERNELS_TILE_H
#define SFQ_KERNELS_TILE_H

#include <stddef.h>

enum {
    SFQ_TILE_ROWS = 12,
    SFQ_TILE_BYTES = 128 /* of a row: 32 floats or 16 doubles */
};

typedef enum sfq_tile_mode { SFQ_TILE_SET = 0, SFQ_TILE_ADD, SFQ_TILE_SUBTRACT } sfq_tile_mode;

/* c [12, ldc], a [K, 12], b [K, 32 or 16] */
typedef void sfq_tile_f32(float *c, size_t ldc, const float *a, const float *b, size_t k,
                          sfq_tile_mode mode);
typedef void sfq_tile_f64(double *c, size_t ldc, const double *a, const double *b, size_t k,
                          sfq_tile_mode mode);

typedef struct sfq_tiles {
    sfq_tile_f32 *f32;
    sfq_tile_f64 *f64;
} sfq_tiles;

/* The fastest that processor, OS and SFQ_MAX_ISA allow. Called for every product. */
const sfq_tiles *sfq_tiles_get(void);

sfq_tile_f32 sfq_tile_f32_ref, sfq_tile_f32_avx2, sfq_tile_f32_avx512;
sfq_tile_f64 sfq_tile_f64_ref, sfq_tile_f64_avx2, sfq_tile_f64_avx512;

#endif

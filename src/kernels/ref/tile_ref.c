/* kernels/ref/tile_ref.c - definition of a tile. The C library's fma is exact on any processor. */
#include "kernels/tile.h"

#include <math.h>

void sfq_tile_f32_ref(float *c, size_t ldc, const float *a, const float *b, size_t k,
                      sfq_tile_mode mode)
{
    enum { COLUMNS = SFQ_TILE_BYTES / sizeof(float) };
    for (size_t i = 0; i < SFQ_TILE_ROWS; i++)
        for (size_t j = 0; j < COLUMNS; j++) {
            float sum = 0.0F, *to = &c[i * ldc + j];
            for (size_t l = 0; l < k; l++)
                sum = fmaf(a[l * SFQ_TILE_ROWS + i], b[l * COLUMNS + j], sum);
            *to = mode == SFQ_TILE_SET ? sum : mode == SFQ_TILE_ADD ? *to + sum : *to - sum;
        }
}

void sfq_tile_f64_ref(double *c, size_t ldc, const double *a, const double *b, size_t k,
                      sfq_tile_mode mode)
{
    enum { COLUMNS = SFQ_TILE_BYTES / sizeof(double) };
    for (size_t i = 0; i < SFQ_TILE_ROWS; i++)
        for (size_t j = 0; j < COLUMNS; j++) {
            double sum = 0.0, *to = &c[i * ldc + j];
            for (size_t l = 0; l < k; l++)
                sum = fma(a[l * SFQ_TILE_ROWS + i], b[l * COLUMNS + j], sum);
            *to = mode == SFQ_TILE_SET ? sum : mode == SFQ_TILE_ADD ? *to + sum : *to - sum;
        }
}

/* kernels/x86/tile_template.h - a tile of a product on vectors, for one element type and one vector
 * width. The includer defines:
 *   REAL VEC    element and vector
 *   OP(name)    the intrinsic of that name
 *   ROWS        rows of the part of a tile whose sums stay in registers, two vectors each: 12 of
 *               16 registers on AVX2, 24 of 32 on AVX-512
 *   TILE_NAME   the function
 * A tile is cut into such parts. */
#include "kernels/tile.h"

#include <immintrin.h>

#ifdef __clang__
#define TILE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TILE_UNROLL _Pragma("GCC unroll 16")
#endif

enum { TILE_COLUMNS = SFQ_TILE_BYTES / sizeof(REAL), LANES = sizeof(VEC) / sizeof(REAL) };

static inline __attribute__((always_inline)) VEC tile_apply(VEC sum, const REAL *c,
                                                            const sfq_tile_mode mode)
{
    if (mode == SFQ_TILE_SET)
        return sum;
    return mode == SFQ_TILE_ADD ? OP(add)(OP(loadu)(c), sum) : OP(sub)(OP(loadu)(c), sum);
}

static inline __attribute__((always_inline)) void
tile_part(REAL *c, size_t ldc, const REAL *a, const REAL *b, size_t k, const sfq_tile_mode mode)
{
    VEC sum[ROWS][2];
    TILE_UNROLL
    for (size_t i = 0; i < ROWS; i++) {
        sum[i][0] = sum[i][1] = OP(setzero)();
        __builtin_prefetch(c + i * ldc, 1, 2);
        __builtin_prefetch(c + i * ldc + LANES, 1, 2);
    }
    for (size_t l = 0; l < k; l++, a += SFQ_TILE_ROWS, b += TILE_COLUMNS) {
        VEC b0 = OP(loadu)(b), b1 = OP(loadu)(b + LANES);
        TILE_UNROLL
        for (size_t i = 0; i < ROWS; i++) {
            VEC spread = OP(set1)(a[i]);
            sum[i][0] = OP(fmadd)(spread, b0, sum[i][0]);
            sum[i][1] = OP(fmadd)(spread, b1, sum[i][1]);
        }
    }
    TILE_UNROLL
    for (size_t i = 0; i < ROWS; i++) {
        REAL *to = c + i * ldc;
        OP(storeu)(to, tile_apply(sum[i][0], to, mode));
        OP(storeu)(to + LANES, tile_apply(sum[i][1], to + LANES, mode));
    }
}

static inline __attribute__((always_inline)) void
tile_parts(REAL *c, size_t ldc, const REAL *a, const REAL *b, size_t k, const sfq_tile_mode mode)
{
    for (size_t j = 0; j < TILE_COLUMNS; j += 2 * LANES)
        for (size_t i = 0; i < SFQ_TILE_ROWS; i += ROWS)
            tile_part(c + i * ldc + j, ldc, a + i, b + j, k, mode);
}

void TILE_NAME(REAL *c, size_t ldc, const REAL *a, const REAL *b, size_t k, sfq_tile_mode mode)
{
    if (mode == SFQ_TILE_SET)
        tile_parts(c, ldc, a, b, k, SFQ_TILE_SET);
    else if (mode == SFQ_TILE_ADD)
        tile_parts(c, ldc, a, b, k, SFQ_TILE_ADD);
    else
        tile_parts(c, ldc, a, b, k, SFQ_TILE_SUBTRACT);
}

/* kernels/x86/tile_f64_avx2.c - a tile of double products on avx2. */
#define REAL double
#define VEC __m256d
#define OP(name) _mm256_##name##_pd
#define ROWS 6
#define TILE_NAME sfq_tile_f64_avx2
#include "kernels/x86/tile_template.h"

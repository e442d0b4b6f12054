/* kernels/x86/tile_f32_avx2.c - a tile of float products on avx2. */
#define REAL float
#define VEC __m256
#define OP(name) _mm256_##name##_ps
#define ROWS 6
#define TILE_NAME sfq_tile_f32_avx2
#include "kernels/x86/tile_template.h"

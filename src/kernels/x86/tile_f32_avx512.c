/* kernels/x86/tile_f32_avx512.c - a tile of float products on avx512. */
#define REAL float
#define VEC __m512
#define OP(name) _mm512_##name##_ps
#define ROWS 12
#define TILE_NAME sfq_tile_f32_avx512
#include "kernels/x86/tile_template.h"

/* kernels/x86/tile_f64_avx512.c - a tile of double products on avx512. */
#define REAL double
#define VEC __m512d
#define OP(name) _mm512_##name##_pd
#define ROWS 12
#define TILE_NAME sfq_tile_f64_avx512
#include "kernels/x86/tile_template.h"

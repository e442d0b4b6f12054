/* kernels/tile.c - the choice of a tile's implementation. The library keeps no state, so it is made
 * for every product, from what the compiler's run-time library found out when it was loaded: cpuid
 * itself (sfq_isa_detect) takes tens of microseconds in a virtual machine, longer than a small
 * product. */
#include "kernels/tile.h"

#include "kernels/kernels.h"

static const sfq_tiles tiles_ref = {sfq_tile_f32_ref, sfq_tile_f64_ref};
static const sfq_tiles tiles_avx2 = {sfq_tile_f32_avx2, sfq_tile_f64_avx2};
static const sfq_tiles tiles_avx512 = {sfq_tile_f32_avx512, sfq_tile_f64_avx512};

/* The instructions that cmake/flags.cmake gives to a level's files. (F16C is one, but tiles hold no
 * half floats, and Clang 14 has no name for it here.) */
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

const sfq_tiles *sfq_tiles_get(void)
{
    sfq_isa max;
    if (sfq_isa_from_env(&max, NULL) != SFQ_OK) /* whoever asked for the kernels was told */
        max = SFQ_ISA_COUNT;
    if (max >= SFQ_ISA_AVX512 && has_avx512())
        return &tiles_avx512;
    return max >= SFQ_ISA_AVX2 && has_avx2() ? &tiles_avx2 : &tiles_ref;
}

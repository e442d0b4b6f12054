/* kernels/x86/peak_amx.c - tile products: two tiles of each operand, four of sums, nothing loaded
 * in the loop. The caller has been granted tile state. */
#include "kernels/peak.h"

#include <immintrin.h>
#include <string.h>

/* Intel SDM volume 1, 18.4: TILECFG */
typedef struct tile_config {
    uint8_t palette, start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

_Static_assert(sizeof(tile_config) == 64, "TILECFG");

enum { TILES = 8, TILE_BYTES = 1024, PRODUCTS = 4 };

/* Sums in tiles 0..3, operands of small numbers (1 as bytes and, in pairs, about 0.002 as bfloat16)
 * in 4..7. */
static void load_tiles(void)
{
    tile_config config = {.palette = 1};
    uint8_t ones[TILE_BYTES];
    for (int i = 0; i < TILES; i++) {
        config.rows[i] = 16;
        config.row_bytes[i] = 64;
    }
    for (size_t i = 0; i < sizeof ones; i++)
        ones[i] = i % 2 ? 0x3B : 1;
    /* GCC 12's tile intrinsics do not say that they read memory: without this the stores above may
     * be dropped. */
    __asm__ volatile("" : : "r"(&config), "r"(ones) : "memory");
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, ones, 64);
    _tile_loadd(5, ones, 64);
    _tile_loadd(6, ones, 64);
    _tile_loadd(7, ones, 64);
}

uint64_t sfq_peak_int8_amx(size_t rounds)
{
    load_tiles();
    for (size_t r = 0; r < rounds; r++) {
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
    }
    _tile_release();
    return (uint64_t)rounds * PRODUCTS * 16 * 16 * 64;
}

uint64_t sfq_peak_bf16_amx(size_t rounds)
{
    load_tiles();
    for (size_t r = 0; r < rounds; r++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return (uint64_t)rounds * PRODUCTS * 16 * 16 * 32;
}

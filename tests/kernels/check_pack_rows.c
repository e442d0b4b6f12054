/* tests/kernels/check_pack_rows.c - the byte form of quantized activations equals ref's, and gives
 * back the codes that went in. */
#include "check.h"

#include <string.h>

static sfq_pack_rows_args pack_case(size_t m, size_t blocks, int bits)
{
    sfq_pack_rows_args a = {.m = m, .planes = bits > 8 ? 2 : 1};
    a.blocks = a.k_blocks = blocks;
    const int limit = (1 << (bits - 1)) - 1;
    int16_t *codes = CHECK_ARRAY(int16_t, m * (blocks * 64));
    for (size_t i = 0; i < m * (blocks * 64); i++)
        codes[i] = (int16_t)(check_u64() % 8   ? (int)check_between(0, 2 * (size_t)limit) - limit
                             : check_u64() % 2 ? limit
                                               : -limit);
    a.codes = codes;
    a.bytes = CHECK_ARRAY(int8_t, m * a.planes * (blocks * 64));
    return a;
}

/* The definition, read backwards. */
static void codes_return(const sfq_pack_rows_args *a)
{
    for (size_t m = 0; m < a->m; m++) {
        const size_t height = m / 16 == a->m / 16 ? a->m % 16 : 16;
        const int8_t *group = a->bytes + m / 16 * 16 * a->planes * (a->k_blocks * 64);
        for (size_t k = 0; k < (a->k_blocks * 64); k++) {
            const int8_t *tile = group + k / 64 * a->planes * height * 64;
            const int lo = tile[m % 16 * 64 + k % 64];
            const int hi = a->planes == 2 ? tile[height * 64 + m % 16 * 64 + k % 64] : 0;
            CHECK(256 * hi + lo == a->codes[m * (a->k_blocks * 64) + k],
                  "row %zu input %zu: %d, %d", m, k, hi, lo);
        }
    }
}

/* Rows from `begin` on, some blocks and then the others. */
static void pack_in_parts(const sfq_kernels *k, sfq_pack_rows_args a, size_t begin)
{
    const size_t all = a.blocks * 64, cut = check_between(0, a.blocks);
    const int16_t *codes = a.codes;
    for (size_t m = begin; m < a.m; m++) {
        a.codes = codes + (m - begin) * all;
        a.first_block = 0;
        a.blocks = cut;
        k->pack_rows(&a, m, m + 1);
        a.codes += cut * 64;
        a.first_block = cut;
        a.blocks = a.k_blocks - cut;
        k->pack_rows(&a, m, m + 1);
    }
}

void check_pack_rows(const sfq_kernels *k)
{
    for (int turn = 0; turn < 60; turn++) {
        sfq_pack_rows_args want =
            pack_case(check_between(1, 50), check_between(1, 9), (int)check_between(8, 14));
        sfq_pack_rows_args got = want;
        got.bytes = CHECK_ARRAY(int8_t, got.m * got.planes * (got.k_blocks * 64));
        check_ref()->pack_rows(&want, 0, want.m);
        codes_return(&want);
        const size_t split = check_between(0, got.m);
        k->pack_rows(&got, 0, split);
        got.codes += split * (got.k_blocks * 64);
        pack_in_parts(k, got, split);
        check_same(got.bytes, want.bytes, got.m * got.planes * (got.k_blocks * 64), "bytes");
        check_reset();
    }
}

typedef struct pack_bench {
    const sfq_kernels *k;
    sfq_pack_rows_args a;
} pack_bench;

static void run_pack(void *ctx)
{
    pack_bench *b = ctx;
    b->k->pack_rows(&b->a, 0, b->a.m);
}

void bench_pack_rows(const sfq_kernels *k)
{
    for (int bits = 8; bits <= 12; bits += 4) {
        char what[64];
        pack_bench b = {.k = k, .a = pack_case(16, 32, bits)};
        snprintf(what, sizeof what, "bits=%d M=16 K=2048", bits);
        check_report(what, check_seconds(run_pack, &b), 0, 16 * 2048 * 2);
        check_reset();
    }
}

/* tests/kernels/check_pack.c - the packed fields: vectors written out by hand from the words of
 * docs/FORMAT.md, round trips at every width, panels with padding, and rows decoded from them. */
#include "check.h"

#include <stdlib.h>
#include <string.h>

/* What stored row `row` holds in every column when 8-bit row r is filled with `rows[r]`. */
typedef struct pack_vector {
    int bits;
    uint8_t rows[SFQ_BLOCK_ROWS];
    uint8_t stored[SFQ_BLOCK_ROWS];
} pack_vector;

static const pack_vector vectors[] = {
    /* row 7 = 0b1010101 tops stored rows 0, 2, 4, 6; row 15 = 0b0000010 tops row 1 of group 2 */
    {7,
     {1, 2, 3, 4, 5, 6, 7, 0x55, 11, 12, 13, 14, 15, 16, 17, 0x02},
     {0x81, 2, 0x83, 4, 0x85, 6, 0x87, 11, 0x8c, 13, 14, 15, 16, 17}},
    /* row 3 = 0b111001: fields 01, 10, 11 */
    {6,
     {1, 2, 3, 0x39, 4, 5, 6, 0x03, 7, 8, 9, 0x30, 10, 11, 12, 0},
     {0x41, 0x82, 0xc3, 0xc4, 5, 6, 7, 8, 0xc9, 10, 11, 12}},
    /* row 5 = 0b10011 (t0 = 3, t3 = 2), row 6 = 0b01100 (t1 = 4, t4 = 1), row 7 = 0b11001
     * (t2 = 1, t3 |= 4, t4 |= 4) */
    {5,
     {1, 2, 3, 4, 5, 0x13, 0x0c, 0x19, 31, 30, 29, 28, 27, 0, 0, 0},
     {0x61, 0x82, 0x23, 0xc4, 0xa5, 31, 30, 29, 28, 27}},
    {4,
     {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0},
     {0x91, 0xa2, 0xb3, 0xc4, 0xd5, 0xe6, 0xf7, 0x08}},
    /* row 6 = 0b101 (t0 = 1, t2 = 1), row 7 = 0b110 (t1 = 2, t2 |= 2) */
    {3, {1, 2, 3, 4, 5, 6, 5, 6, 7, 0, 1, 2, 3, 4, 0, 0}, {0x61, 0xaa, 0xf3, 0x17, 0x18, 0x21}},
    {2, {0, 1, 2, 3, 1, 2, 3, 0, 2, 3, 0, 1, 3, 0, 1, 2}, {0xe4, 0x39, 0x4e, 0x93}},
};

static void fixed_vectors(void)
{
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        const pack_vector *v = &vectors[i];
        uint8_t block[SFQ_BLOCK_WEIGHTS], want[SFQ_BLOCK_WEIGHTS], got[SFQ_BLOCK_WEIGHTS];
        for (size_t r = 0; r < SFQ_BLOCK_ROWS; r++) {
            memset(block + r * SFQ_ROW_BYTES, v->rows[r], SFQ_ROW_BYTES);
            memset(want + r * SFQ_ROW_BYTES, v->stored[r], SFQ_ROW_BYTES);
        }
        sfq_block_pack(got, block, v->bits);
        check_same(got, want, sfq_block_bytes(v->bits), "packed block");
        sfq_block_unpack(got, want, v->bits);
        check_same(got, block, sizeof block, "unpacked block");
    }
}

static void round_trips(void)
{
    for (int bits = 2; bits <= 8; bits++) {
        for (int turn = 0; turn < 50; turn++) {
            uint8_t *block = check_guarded(SFQ_BLOCK_WEIGHTS);
            uint8_t *packed = check_guarded(sfq_block_bytes(bits));
            uint8_t *back = check_guarded(SFQ_BLOCK_WEIGHTS);
            for (size_t i = 0; i < SFQ_BLOCK_WEIGHTS; i++)
                block[i] = (uint8_t)(check_u64() & ((1u << bits) - 1));
            sfq_block_pack(packed, block, bits);
            sfq_block_unpack(back, packed, bits);
            check_same(back, block, SFQ_BLOCK_WEIGHTS, "round trip");
            check_reset();
        }
    }
}

static void panels_with_padding(void)
{
    const int bits = 5;
    sfq_cluster c = {.n = 19, .k = 70, .panels = 2, .k_blocks = 2, .segments = 1};
    uint8_t *codes = check_guarded(c.n * c.k);
    uint8_t *packed = check_guarded(c.panels * c.k_blocks * sfq_block_bytes(bits));
    for (size_t i = 0; i < c.n * c.k; i++)
        codes[i] = (uint8_t)(check_u64() % 32);
    sfq_panels_pack(packed, codes, &c, bits, 1, 2);
    check_untouched(packed, c.k_blocks * sfq_block_bytes(bits), "panel 0");
    sfq_panels_pack(packed, codes, &c, bits, 0, 1);
    for (size_t p = 0; p < c.panels; p++) {
        for (size_t b = 0; b < c.k_blocks; b++) {
            uint8_t block[SFQ_BLOCK_WEIGHTS];
            sfq_block_unpack(block, packed + (p * c.k_blocks + b) * sfq_block_bytes(bits), bits);
            for (size_t i = 0; i < SFQ_BLOCK_WEIGHTS; i++) {
                size_t n = p * 16 + i / 4 % 16, k = b * 64 + i / 64 * 4 + i % 4;
                int want = n < c.n && k < c.k ? codes[n * c.k + k] : 16;
                CHECK(block[i] == want, "panel %zu block %zu byte %zu: %d, want %d", p, b, i,
                      block[i], want);
            }
        }
    }
}

void check_packing(void)
{
    fixed_vectors();
    round_trips();
    panels_with_padding();
}

/* A row decoded alone equals the codes it was packed from. */
void check_unpack_row(const sfq_kernels *k)
{
    for (int turn = 0; turn < 60; turn++) {
        const int bits = (int)check_between(2, 8);
        sfq_cluster c = {.n = check_between(1, 40), .k = check_between(1, 700)};
        c.panels = (c.n + 15) / 16;
        c.k_blocks = (c.k + 63) / 64;
        c.segment_k = 64 * check_between(1, c.k_blocks);
        c.segments = (c.k + c.segment_k - 1) / c.segment_k;
        c.share = (size_t)1 << check_between(0, 4);
        const size_t panel_bytes = c.k_blocks * sfq_block_bytes(bits);
        uint8_t *codes = check_guarded(c.n * c.k);
        uint8_t *packed = check_guarded(c.panels * panel_bytes);
        float *scales = CHECK_ARRAY(float, c.panels *c.segments *(16 / c.share));
        float *y = CHECK_ARRAY(float, c.k);
        for (size_t i = 0; i < c.n * c.k; i++)
            codes[i] = (uint8_t)(check_u64() & ((1u << bits) - 1));
        check_floats(scales, c.panels * c.segments * (16 / c.share), CHECK_PLAIN);
        sfq_panels_pack(packed, codes, &c, bits, 0, c.panels);
        for (size_t n = 0; n < c.n; n++) {
            const size_t p = n / 16;
            k->unpack_row(y, packed + p * panel_bytes, bits,
                          scales + p * c.segments * (16 / c.share), &c, n % 16);
            for (size_t i = 0; i < c.k; i++) {
                float scale = scales[sfq_scale_index(&c, n, i / c.segment_k)];
                float want = (float)(codes[n * c.k + i] - (1 << (bits - 1))) * scale;
                CHECK(y[i] == want, "output %zu input %zu: %g, want %g", n, i, (double)y[i],
                      (double)want);
            }
        }
        check_reset();
    }
}

typedef struct unpack_bench {
    const sfq_kernels *k;
    sfq_cluster c;
    uint8_t *packed;
    float *scales, *y;
} unpack_bench;

static void run_unpack(void *ctx)
{
    unpack_bench *b = ctx;
    b->k->unpack_row(b->y, b->packed, 4, b->scales, &b->c, 5);
}

void bench_unpack_row(const sfq_kernels *k)
{
    unpack_bench b = {.k = k,
                      .c = {.n = 16,
                            .k = 2048,
                            .panels = 1,
                            .k_blocks = 32,
                            .segments = 2,
                            .segment_k = 1024,
                            .share = 1}};
    b.packed = check_guarded(32 * sfq_block_bytes(4));
    b.scales = CHECK_ARRAY(float, 32);
    b.y = CHECK_ARRAY(float, 2048);
    check_floats(b.scales, 32, CHECK_PLAIN);
    check_report("bits=4 K=2048", check_seconds(run_unpack, &b), 2048, 0);
}

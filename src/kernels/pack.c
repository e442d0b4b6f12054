/* kernels/pack.c - the on-disk form of packed weights, byte for byte. An 8-bit block is 16 rows of
 * 64 bytes [16 outputs][4 inputs]; b bits store it in 2*b rows. Fields never cross a byte except
 * those of a residual row, whose bits lie in the tops of its group's stored rows, so that unpacking
 * is and/shift/or on whole rows with any vector width. Plain C, one implementation: it decides
 * bytes. docs/FORMAT.md ("Packed weights") says the same in words. */
#include "kernels/kernels.h"

#include <string.h>

/* One byte column of a group: `rows` codes <-> `stored` bytes. */
typedef struct group_shape {
    int groups, rows, stored;
} group_shape;

static const group_shape shapes[9] = {
    [2] = {1, 16, 4}, [3] = {2, 8, 3}, [4] = {1, 16, 8},  [5] = {2, 8, 5},
    [6] = {4, 4, 3},  [7] = {2, 8, 7}, [8] = {1, 16, 16},
};

#define CHECK_SHAPE(bits, groups, rows, stored)                         \
    _Static_assert((groups) * (rows) == SFQ_BLOCK_ROWS &&               \
                       (groups) * (stored)*SFQ_ROW_BYTES == (bits)*128, \
                   "packed block")
CHECK_SHAPE(2, 1, 16, 4);
CHECK_SHAPE(3, 2, 8, 3);
CHECK_SHAPE(4, 1, 16, 8);
CHECK_SHAPE(5, 2, 8, 5);
CHECK_SHAPE(6, 4, 4, 3);
CHECK_SHAPE(7, 2, 8, 7);
CHECK_SHAPE(8, 1, 16, 16);

/* row r of the group, as unsigned so that shifts need no casts */
static unsigned row_at(const uint8_t *col, int r)
{
    return col[(size_t)r * SFQ_ROW_BYTES];
}

static void pack_column(unsigned out[SFQ_BLOCK_ROWS], const uint8_t *col, int bits)
{
    switch (bits) {
    case 7: /* bit i of row 7 tops stored row i */
        for (int i = 0; i < 7; i++)
            out[i] = row_at(col, i) | (row_at(col, 7) >> i & 1) << 7;
        break;
    case 6: /* bits 2i..2i+1 of row 3 top stored row i */
        for (int i = 0; i < 3; i++)
            out[i] = row_at(col, i) | (row_at(col, 3) >> (2 * i) & 3) << 6;
        break;
    case 5: { /* tops of 3 bits; t3 and t4 are shared by rows 5, 6 and 7 */
        unsigned r5 = row_at(col, 5), r6 = row_at(col, 6), r7 = row_at(col, 7);
        unsigned top[5] = {r5 & 7, r6 & 7, r7 & 7, r5 >> 3 | (r7 >> 3 & 1) << 2,
                           r6 >> 3 | (r7 >> 4 & 1) << 2};
        for (int i = 0; i < 5; i++)
            out[i] = row_at(col, i) | top[i] << 5;
        break;
    }
    case 4:
        for (int i = 0; i < 8; i++)
            out[i] = row_at(col, i) | row_at(col, i + 8) << 4;
        break;
    case 3: { /* two fields of 3 bits and a top of 2; t2 is shared by rows 6 and 7 */
        unsigned r6 = row_at(col, 6), r7 = row_at(col, 7);
        unsigned top[3] = {r6 & 3, r7 & 3, r6 >> 2 | (r7 >> 2) << 1};
        for (int i = 0; i < 3; i++)
            out[i] = row_at(col, i) | row_at(col, i + 3) << 3 | top[i] << 6;
        break;
    }
    case 2:
        for (int i = 0; i < 4; i++)
            out[i] = row_at(col, i) | row_at(col, i + 4) << 2 | row_at(col, i + 8) << 4 |
                     row_at(col, i + 12) << 6;
        break;
    default:
        for (int i = 0; i < SFQ_BLOCK_ROWS; i++)
            out[i] = row_at(col, i);
        break;
    }
}

static void unpack_column(unsigned out[SFQ_BLOCK_ROWS], const uint8_t *col, int bits)
{
    switch (bits) {
    case 7:
        out[7] = 0;
        for (int i = 0; i < 7; i++) {
            out[i] = row_at(col, i) & 127;
            out[7] |= row_at(col, i) >> 7 << i;
        }
        break;
    case 6:
        out[3] = 0;
        for (int i = 0; i < 3; i++) {
            out[i] = row_at(col, i) & 63;
            out[3] |= row_at(col, i) >> 6 << (2 * i);
        }
        break;
    case 5: {
        unsigned t[5];
        for (int i = 0; i < 5; i++) {
            out[i] = row_at(col, i) & 31;
            t[i] = row_at(col, i) >> 5;
        }
        out[5] = t[0] | (t[3] & 3) << 3;
        out[6] = t[1] | (t[4] & 3) << 3;
        out[7] = t[2] | (t[3] >> 2) << 3 | (t[4] >> 2) << 4;
        break;
    }
    case 4:
        for (int i = 0; i < 8; i++) {
            out[i] = row_at(col, i) & 15;
            out[i + 8] = row_at(col, i) >> 4;
        }
        break;
    case 3: {
        unsigned t[3];
        for (int i = 0; i < 3; i++) {
            out[i] = row_at(col, i) & 7;
            out[i + 3] = row_at(col, i) >> 3 & 7;
            t[i] = row_at(col, i) >> 6;
        }
        out[6] = t[0] | (t[2] & 1) << 2;
        out[7] = t[1] | (t[2] >> 1) << 2;
        break;
    }
    case 2:
        for (int i = 0; i < 16; i++)
            out[i] = row_at(col, i % 4) >> (2 * (i / 4)) & 3;
        break;
    default:
        for (int i = 0; i < SFQ_BLOCK_ROWS; i++)
            out[i] = row_at(col, i);
        break;
    }
}

static void put_column(uint8_t *dst, const unsigned *values, int count)
{
    for (int i = 0; i < count; i++)
        dst[(size_t)i * SFQ_ROW_BYTES] = (uint8_t)values[i];
}

void sfq_block_pack(uint8_t *dst, const uint8_t src[SFQ_BLOCK_WEIGHTS], int bits)
{
    const group_shape s = shapes[bits];
    unsigned stored[SFQ_BLOCK_ROWS];
    for (size_t g = 0; g < (size_t)s.groups; g++) {
        const uint8_t *rows = src + g * (size_t)s.rows * SFQ_ROW_BYTES;
        uint8_t *out = dst + g * (size_t)s.stored * SFQ_ROW_BYTES;
        for (size_t c = 0; c < SFQ_ROW_BYTES; c++) {
            pack_column(stored, rows + c, bits);
            put_column(out + c, stored, s.stored);
        }
    }
}

void sfq_block_unpack(uint8_t dst[SFQ_BLOCK_WEIGHTS], const uint8_t *src, int bits)
{
    const group_shape s = shapes[bits];
    unsigned rows[SFQ_BLOCK_ROWS];
    for (size_t g = 0; g < (size_t)s.groups; g++) {
        const uint8_t *stored = src + g * (size_t)s.stored * SFQ_ROW_BYTES;
        uint8_t *out = dst + g * (size_t)s.rows * SFQ_ROW_BYTES;
        for (size_t c = 0; c < SFQ_ROW_BYTES; c++) {
            unpack_column(rows, stored + c, bits);
            put_column(out + c, rows, s.rows);
        }
    }
}

/* The 8-bit block of panel p, inputs [64*b, 64*b + 64). */
static void gather_block(uint8_t block[SFQ_BLOCK_WEIGHTS], const uint8_t *codes,
                         const sfq_cluster *c, int bits, size_t p, size_t b)
{
    size_t n0 = p * SFQ_PANEL_N, k0 = b * SFQ_BLOCK_K;
    memset(block, 1 << (bits - 1), SFQ_BLOCK_WEIGHTS);
    for (size_t j = 0; j < SFQ_PANEL_N && n0 + j < c->n; j++)
        for (size_t i = 0; i < SFQ_BLOCK_K && k0 + i < c->k; i++)
            block[i / 4 * SFQ_ROW_BYTES + j * 4 + i % 4] = codes[(n0 + j) * c->k + k0 + i];
}

void sfq_panels_pack(uint8_t *dst, const uint8_t *codes, const sfq_cluster *c, int bits,
                     size_t panel_begin, size_t panel_end)
{
    uint8_t block[SFQ_BLOCK_WEIGHTS];
    for (size_t p = panel_begin; p < panel_end; p++) {
        for (size_t b = 0; b < c->k_blocks; b++) {
            gather_block(block, codes, c, bits, p, b);
            sfq_block_pack(dst + (p * c->k_blocks + b) * sfq_block_bytes(bits), block, bits);
        }
    }
}

/* kernels/x86/unpack_template.h - the fields of pack.c on registers of any width.
 *
 * SFQ_EACH_b(src, put) unpacks one group of rows of b bits and calls put(r, side, codes, nth) with
 * each row r as soon as it is there: `codes` are the byte columns of register `side` of the row,
 * and nth rows of that side went before. So whoever multiplies them at once needs few registers,
 * and both sides of a row meet while its activations are at hand.
 *
 * unpack_avx2.h and unpack_avx512.h define the register and its operations and include it:
 *
 *   UNPACK_VECTOR               the register
 *   UNPACK_SIDES                registers of a row
 *   UNPACK(row)(stored, r)      stored row r
 *   UNPACK(field)(v, s, mask)   (v >> s) & mask in every byte. Shifts work on 16-bit lanes, so any
 *                               shifted value is masked to its field.
 *   UNPACK(lift)(v, mask, s)    (v & mask) << s in every byte; the result must fit the byte
 *   UNPACK(or)(a, b), UNPACK(or3)(a, b, c) */
#ifndef SFQ_KERNELS_X86_UNPACK_TEMPLATE_H
#define SFQ_KERNELS_X86_UNPACK_TEMPLATE_H

/* Rows of a group as unpacked and as stored. 8 bits have no groups: some rows, so that prefetches
 * are spread. */
enum {
    SFQ_ROWS_2 = 16,
    SFQ_STORED_2 = 4,
    SFQ_ROWS_3 = 8,
    SFQ_STORED_3 = 3,
    SFQ_ROWS_4 = 16,
    SFQ_STORED_4 = 8,
    SFQ_ROWS_5 = 8,
    SFQ_STORED_5 = 5,
    SFQ_ROWS_6 = 4,
    SFQ_STORED_6 = 3,
    SFQ_ROWS_7 = 8,
    SFQ_STORED_7 = 7,
    SFQ_ROWS_8 = 4,
    SFQ_STORED_8 = 4
};

#define SFQ_EACH_SIDE \
    SFQ_UNROLL        \
    for (size_t side = 0; side < UNPACK_SIDES; side++)

#define SFQ_STORED_ROW(src, r) UNPACK(row)((src) + side * sizeof(UNPACK_VECTOR), r)

#define SFQ_EACH_8(src, put)                           \
    SFQ_UNROLL                                         \
    for (size_t from = 0; from < SFQ_STORED_8; from++) \
        SFQ_EACH_SIDE                                  \
    put(from, side, SFQ_STORED_ROW(src, from), from)

#define SFQ_EACH_7(src, put)                                                 \
    UNPACK_VECTOR last[UNPACK_SIDES];                                        \
    SFQ_UNROLL                                                               \
    for (int from = 0; from < SFQ_STORED_7; from++)                          \
        SFQ_EACH_SIDE                                                        \
        {                                                                    \
            const UNPACK_VECTOR v = SFQ_STORED_ROW(src, (size_t)from);       \
            const UNPACK_VECTOR bit = UNPACK(field)(v, 7 - from, 1 << from); \
            put((size_t)from, side, UNPACK(field)(v, 0, 127), (size_t)from); \
            last[side] = from == 0 ? bit : UNPACK(or)(last[side], bit);      \
        }                                                                    \
    SFQ_EACH_SIDE put(7, side, last[side], 7)

#define SFQ_EACH_6(src, put)                                                          \
    UNPACK_VECTOR last[UNPACK_SIDES];                                                 \
    SFQ_UNROLL                                                                        \
    for (int from = 0; from < SFQ_STORED_6; from++)                                   \
        SFQ_EACH_SIDE                                                                 \
        {                                                                             \
            const UNPACK_VECTOR v = SFQ_STORED_ROW(src, (size_t)from);                \
            const UNPACK_VECTOR pair = UNPACK(field)(v, 6 - 2 * from, 3 << 2 * from); \
            put((size_t)from, side, UNPACK(field)(v, 0, 63), (size_t)from);           \
            last[side] = from == 0 ? pair : UNPACK(or)(last[side], pair);             \
        }                                                                             \
    SFQ_EACH_SIDE put(3, side, last[side], 3)

#define SFQ_EACH_5(src, put)                                                                   \
    UNPACK_VECTOR top[SFQ_STORED_5][UNPACK_SIDES];                                             \
    SFQ_UNROLL                                                                                 \
    for (size_t from = 0; from < SFQ_STORED_5; from++)                                         \
        SFQ_EACH_SIDE                                                                          \
        {                                                                                      \
            const UNPACK_VECTOR v = SFQ_STORED_ROW(src, from);                                 \
            put(from, side, UNPACK(field)(v, 0, 31), from);                                    \
            top[from][side] = UNPACK(field)(v, 5, 7);                                          \
        }                                                                                      \
    SFQ_EACH_SIDE put(5, side, UNPACK(or)(top[0][side], UNPACK(lift)(top[3][side], 3, 3)), 5); \
    SFQ_EACH_SIDE put(6, side, UNPACK(or)(top[1][side], UNPACK(lift)(top[4][side], 3, 3)), 6); \
    SFQ_EACH_SIDE put(7, side,                                                                 \
                      UNPACK(or3)(top[2][side], UNPACK(lift)(top[3][side], 4, 1),              \
                                  UNPACK(lift)(top[4][side], 4, 2)),                           \
                      7)

#define SFQ_EACH_4(src, put)                                            \
    SFQ_UNROLL                                                          \
    for (size_t from = 0; from < SFQ_STORED_4; from++)                  \
        SFQ_EACH_SIDE                                                   \
        {                                                               \
            const UNPACK_VECTOR v = SFQ_STORED_ROW(src, from);          \
            put(from, side, UNPACK(field)(v, 0, 15), 2 * from);         \
            put(from + 8, side, UNPACK(field)(v, 4, 15), 2 * from + 1); \
        }

#define SFQ_EACH_3(src, put)                                                                   \
    UNPACK_VECTOR top[SFQ_STORED_3][UNPACK_SIDES];                                             \
    SFQ_UNROLL                                                                                 \
    for (size_t from = 0; from < SFQ_STORED_3; from++)                                         \
        SFQ_EACH_SIDE                                                                          \
        {                                                                                      \
            const UNPACK_VECTOR v = SFQ_STORED_ROW(src, from);                                 \
            put(from, side, UNPACK(field)(v, 0, 7), 2 * from);                                 \
            put(from + 3, side, UNPACK(field)(v, 3, 7), 2 * from + 1);                         \
            top[from][side] = UNPACK(field)(v, 6, 3);                                          \
        }                                                                                      \
    SFQ_EACH_SIDE put(6, side, UNPACK(or)(top[0][side], UNPACK(lift)(top[2][side], 1, 2)), 6); \
    SFQ_EACH_SIDE put(7, side, UNPACK(or)(top[1][side], UNPACK(lift)(top[2][side], 2, 1)), 7)

#define SFQ_EACH_2(src, put)                                            \
    SFQ_UNROLL                                                          \
    for (size_t from = 0; from < SFQ_STORED_2; from++)                  \
        SFQ_EACH_SIDE                                                   \
        {                                                               \
            const UNPACK_VECTOR v = SFQ_STORED_ROW(src, from);          \
            put(from, side, UNPACK(field)(v, 0, 3), 4 * from);          \
            put(from + 4, side, UNPACK(field)(v, 2, 3), 4 * from + 1);  \
            put(from + 8, side, UNPACK(field)(v, 4, 3), 4 * from + 2);  \
            put(from + 12, side, UNPACK(field)(v, 6, 3), 4 * from + 3); \
        }

#endif

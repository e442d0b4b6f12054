/* kernels/x86/unpack_template.h - the fields of pack.c on registers of any width: one group of
 * rows, as many byte columns at a time as a register has bytes. unpack_avx2.h and unpack_avx512.h
 * define the register and its operations and include it:
 *
 *   UNPACK_VECTOR               the register
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

SFQ_INLINE void UNPACK(unpack8)(UNPACK_VECTOR *out, const uint8_t *src)
{
    SFQ_UNROLL
    for (size_t i = 0; i < SFQ_ROWS_8; i++)
        out[i] = UNPACK(row)(src, i);
}

SFQ_INLINE void UNPACK(unpack7)(UNPACK_VECTOR *out, const uint8_t *src)
{
    UNPACK_VECTOR last = UNPACK(field)(UNPACK(row)(src, 0), 7, 1);
    SFQ_UNROLL
    for (int i = 0; i < 7; i++) {
        UNPACK_VECTOR v = UNPACK(row)(src, (size_t)i);
        out[i] = UNPACK(field)(v, 0, 127);
        last = UNPACK(or)(last, UNPACK(field)(v, 7 - i, 1 << i));
    }
    out[7] = last;
}

SFQ_INLINE void UNPACK(unpack6)(UNPACK_VECTOR *out, const uint8_t *src)
{
    UNPACK_VECTOR a = UNPACK(row)(src, 0), b = UNPACK(row)(src, 1), c = UNPACK(row)(src, 2);
    out[0] = UNPACK(field)(a, 0, 63);
    out[1] = UNPACK(field)(b, 0, 63);
    out[2] = UNPACK(field)(c, 0, 63);
    out[3] = UNPACK(or3)(UNPACK(field)(a, 6, 0x03), UNPACK(field)(b, 4, 0x0c),
                         UNPACK(field)(c, 2, 0x30));
}

SFQ_INLINE void UNPACK(unpack5)(UNPACK_VECTOR *out, const uint8_t *src)
{
    UNPACK_VECTOR top[5];
    SFQ_UNROLL
    for (size_t i = 0; i < 5; i++) {
        UNPACK_VECTOR v = UNPACK(row)(src, i);
        out[i] = UNPACK(field)(v, 0, 31);
        top[i] = UNPACK(field)(v, 5, 7);
    }
    out[5] = UNPACK(or)(top[0], UNPACK(lift)(top[3], 3, 3));
    out[6] = UNPACK(or)(top[1], UNPACK(lift)(top[4], 3, 3));
    out[7] = UNPACK(or3)(top[2], UNPACK(lift)(top[3], 4, 1), UNPACK(lift)(top[4], 4, 2));
}

SFQ_INLINE void UNPACK(unpack4)(UNPACK_VECTOR *out, const uint8_t *src)
{
    SFQ_UNROLL
    for (size_t i = 0; i < 8; i++) {
        UNPACK_VECTOR v = UNPACK(row)(src, i);
        out[i] = UNPACK(field)(v, 0, 15);
        out[i + 8] = UNPACK(field)(v, 4, 15);
    }
}

SFQ_INLINE void UNPACK(unpack3)(UNPACK_VECTOR *out, const uint8_t *src)
{
    UNPACK_VECTOR top[3];
    SFQ_UNROLL
    for (size_t i = 0; i < 3; i++) {
        UNPACK_VECTOR v = UNPACK(row)(src, i);
        out[i] = UNPACK(field)(v, 0, 7);
        out[i + 3] = UNPACK(field)(v, 3, 7);
        top[i] = UNPACK(field)(v, 6, 3);
    }
    out[6] = UNPACK(or)(top[0], UNPACK(lift)(top[2], 1, 2));
    out[7] = UNPACK(or)(top[1], UNPACK(lift)(top[2], 2, 1));
}

SFQ_INLINE void UNPACK(unpack2)(UNPACK_VECTOR *out, const uint8_t *src)
{
    SFQ_UNROLL
    for (size_t i = 0; i < 4; i++) {
        UNPACK_VECTOR v = UNPACK(row)(src, i);
        out[i] = UNPACK(field)(v, 0, 3);
        out[i + 4] = UNPACK(field)(v, 2, 3);
        out[i + 8] = UNPACK(field)(v, 4, 3);
        out[i + 12] = UNPACK(field)(v, 6, 3);
    }
}

#endif

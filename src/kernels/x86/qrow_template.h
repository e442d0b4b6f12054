/* kernels/x86/qrow_template.h - one row of activations in bytes times packed codes, for levels with
 * 256-bit registers. qrow_ISA.c defines these, includes it, and gets the function QROW_NAME:
 *
 *   QROW_AHEAD(bits)   bytes to prefetch in each stream
 *   QROW_NO_8          if codes of 8 bits are not its own
 *   dot_codes()        codes of half a row times a plane of its activations. Where a level sums in
 *                      16 bits first, `first` and `last` say when such a sum begins and ends.
 *
 * Every code is read once, so there is nothing to share the unpacking with: rows are unpacked in
 * registers and multiplied at once, by both planes of the activations where these are wide. */
#ifndef SFQ_KERNELS_X86_QROW_TEMPLATE_H
#define SFQ_KERNELS_X86_QROW_TEMPLATE_H

/* What the widest codes go to. */
#ifdef QROW_NO_8
#define QROW_LAST break
#else
#define QROW_LAST QROW_GROUPS(8)
#endif

enum { STREAMS = SFQ_QROW_STREAMS };

/* Outputs 0..7 and 8..15, by planes. */
typedef struct qrow_sums {
    __m256i total[2][2], run[2][2];
} qrow_sums;

#define DOT(r, side, codes, nth)                                   \
    SFQ_UNROLL                                                     \
    for (size_t p = 0; p < planes; p++)                            \
    dot_codes(&sum[j].total[side][p], &sum[j].run[side][p], codes, \
              sfq_avx2_quad(x + p * plane, r), (nth) % run == 0, (nth) % run == run - 1)

#define QROW_GROUPS(bits)                                                                \
    for (size_t g = 0; g < blocks * (SFQ_BLOCK_ROWS / SFQ_ROWS_##bits); g++) {           \
        enum { run = SFQ_RUN_##bits };                                                   \
        SFQ_UNROLL                                                                       \
        for (size_t j = 0; j < streams; j++) {                                           \
            const uint8_t *group = codes + j * stride;                                   \
            SFQ_UNROLL                                                                   \
            for (size_t r = 0; r < SFQ_STORED_##bits; r++)                               \
                _mm_prefetch((const char *)group + r * SFQ_ROW_BYTES + QROW_AHEAD(bits), \
                             _MM_HINT_T0);                                               \
            SFQ_EACH_##bits(group, DOT);                                                 \
        }                                                                                \
        codes += (size_t)SFQ_STORED_##bits * SFQ_ROW_BYTES;                              \
        x += (size_t)SFQ_ROWS_##bits * 4;                                                \
    }                                                                                    \
    break

SFQ_INLINE void dot_streams(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes, size_t stride,
                            int bits, const sfq_qrow_bytes *a, size_t blocks, const size_t streams,
                            const size_t planes)
{
    const int8_t *x = a->high;
    const size_t plane = a->plane;
    qrow_sums sum[STREAMS];
    SFQ_UNROLL
    for (size_t j = 0; j < streams; j++)
        SFQ_UNROLL
    for (size_t h = 0; h < 2; h++)
        sum[j].total[h][0] = sum[j].total[h][1] = _mm256_setzero_si256();
    switch (bits) {
    case 2:
        QROW_GROUPS(2);
    case 3:
        QROW_GROUPS(3);
    case 4:
        QROW_GROUPS(4);
    case 5:
        QROW_GROUPS(5);
    case 6:
        QROW_GROUPS(6);
    case 7:
        QROW_GROUPS(7);
    default:
        QROW_LAST;
    }
    SFQ_UNROLL
    for (size_t j = 0; j < streams; j++) {
        __m256i *out = (__m256i *)(void *)acc[j];
        SFQ_UNROLL
        for (size_t h = 0; h < 2; h++) {
            const __m256i high = _mm256_slli_epi32(sum[j].total[h][0], a->shift);
            _mm256_storeu_si256(out + h, _mm256_add_epi32(high, sum[j].total[h][1]));
        }
    }
}

/* Apart, so that none's code crowds another's registers. */
static __attribute__((noinline)) void four_bytes(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes,
                                                 size_t stride, int bits, const sfq_qrow_bytes *a,
                                                 size_t blocks)
{
    dot_streams(acc, codes, stride, bits, a, blocks, STREAMS, 1);
}

static __attribute__((noinline)) void four_planes(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes,
                                                  size_t stride, int bits, const sfq_qrow_bytes *a,
                                                  size_t blocks)
{
    dot_streams(acc, codes, stride, bits, a, blocks, STREAMS, 2);
}

static __attribute__((noinline)) void one_bytes(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes,
                                                int bits, const sfq_qrow_bytes *a, size_t blocks)
{
    dot_streams(acc, codes, 0, bits, a, blocks, 1, 1);
}

static __attribute__((noinline)) void one_planes(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes,
                                                 int bits, const sfq_qrow_bytes *a, size_t blocks)
{
    dot_streams(acc, codes, 0, bits, a, blocks, 1, 2);
}

void QROW_NAME(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes, size_t stride, size_t streams,
               int bits, const sfq_qrow_bytes *a, size_t blocks)
{
    if (streams == STREAMS && a->shift == 0)
        four_bytes(acc, codes, stride, bits, a, blocks);
    else if (streams == STREAMS)
        four_planes(acc, codes, stride, bits, a, blocks);
    else if (a->shift == 0)
        one_bytes(acc, codes, bits, a, blocks);
    else
        one_planes(acc, codes, bits, a, blocks);
}

#endif

/* kernels/x86/qrow.h - one row of activations times packed codes of one panel, or of four that lie
 * `stride` bytes apart, over `blocks` blocks: acc[stream][16] = sums of code * activation. */
#ifndef SFQ_KERNELS_X86_QROW_H
#define SFQ_KERNELS_X86_QROW_H

#include "kernels/kernels.h"

enum { SFQ_QROW_STREAMS = 4 };

/* Panels of each of four streams that share [begin, end); 0: one stream takes them all. Memory
 * gives more to four streams far apart than to one, whose next lines its prefetchers and banks
 * do not keep up with (Zen 3, Golden Cove: a fifth to two fifths); Zen 5 gives one stream all it
 * has, and four a tenth less. docs/KERNELS.md has the figures. */
static inline size_t sfq_qrow_step(const sfq_qgemm_args *g, size_t begin, size_t end)
{
    const bool zen5 = __builtin_cpu_is("amd") && __builtin_cpu_supports("avx512vp2intersect");
    const size_t streams = g->streams ? g->streams : zen5 ? 1 : SFQ_QROW_STREAMS;
    return streams == 1 ? 0 : (end - begin) / SFQ_QROW_STREAMS;
}

/* Activations as bytes: a = high * 2^shift + low, the plane of low ones `plane` bytes behind
 * that of the high ones. shift 0: all are within +-127 and there are no low ones. By address: a
 * copy on the stack is written in pieces and read whole, which waits for every store before. */
typedef struct sfq_qrow_bytes {
    const int8_t *high;
    size_t plane;
    int shift;
} sfq_qrow_bytes;

/* int16 codes of up to 14 bits to planes [2, k]; returns the shift. k is a multiple of 64; out
 * 32-byte aligned. */
int sfq_qrow_split_avx2(int8_t *out, const int16_t *a, size_t k);

/* streams: 1 or 4. Codes of 2..7 bits (avx2), 2..8 (avxvnni). */
void sfq_qrow_bytes_avx2(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes, size_t stride,
                         size_t streams, int bits, const sfq_qrow_bytes *a, size_t blocks);
void sfq_qrow_bytes_avxvnni(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes, size_t stride,
                            size_t streams, int bits, const sfq_qrow_bytes *a, size_t blocks);
/* Codes of 8 bits, activations of up to 14. */
void sfq_qrow_words_avx2(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes, size_t stride,
                         size_t streams, const int16_t *a, size_t blocks);

#endif

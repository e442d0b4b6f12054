/* kernels/x86/attn_avx2.c - attention with vectors of 8: 3 queries x 4 vectors fill 12 of the 16
 * registers, with 3 broadcasts and the vector that they share 16. */
#include "kernels/x86/vec_avx2.h"

#include "kernels/x86/math_template.h"

#define V_PIN SFQ_PIN
enum { TILE = 3, DIRECT = 3 /* queries up to which a chunk is read as it lies */ };

SFQ_INLINE vec v_from_f16(const uint16_t *x)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)x));
}

SFQ_INLINE vec v_from_i8(const int8_t *x)
{
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)x)));
}

/* Elements i..i+3 of 8 rows to 4 rows of 16. */
SFQ_INLINE void v_transpose4(float *to, const float *const *row, size_t i)
{
    __m256 x[4];
    SFQ_UNROLL
    for (int r = 0; r < 4; r++)
        x[r] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row[r] + i)),
                                    _mm_loadu_ps(row[r + 4] + i), 1);
    __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(x[0], x[1]));
    __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(x[0], x[1]));
    __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(x[2], x[3]));
    __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(x[2], x[3]));
    _mm256_storeu_ps(to, _mm256_castpd_ps(_mm256_unpacklo_pd(a, c)));
    _mm256_storeu_ps(to + 16, _mm256_castpd_ps(_mm256_unpackhi_pd(a, c)));
    _mm256_storeu_ps(to + 32, _mm256_castpd_ps(_mm256_unpacklo_pd(b, d)));
    _mm256_storeu_ps(to + 48, _mm256_castpd_ps(_mm256_unpackhi_pd(b, d)));
}

struct attn_lane;
struct attn_chunk;
static void tiles_chunk(struct attn_lane *lane, const struct attn_chunk *c, size_t n);

#include "kernels/x86/attn_template.h"

SFQ_INLINE void tiles_of(attn_lane *lane, const attn_chunk *c, size_t n, const sfq_dtype kind)
{
    if (n == 3)
        tile_chunk(lane, c, 3, kind);
    else if (n == 2)
        tile_chunk(lane, c, 2, kind);
    else
        tile_chunk(lane, c, 1, kind);
}

static void tiles_chunk(attn_lane *lane, const attn_chunk *c, size_t n)
{
    if (c->kind == SFQ_F32)
        tiles_of(lane, c, n, SFQ_F32);
    else if (c->kind == SFQ_F16)
        tiles_of(lane, c, n, SFQ_F16);
    else
        tiles_of(lane, c, n, SFQ_I8);
}

void sfq_attn_avx2(const sfq_attn_args *a)
{
    attend(a);
}

void sfq_attn_merge_avx2(float *out, const float *parts, size_t count, size_t d)
{
    merge_parts(out, parts, count, d);
}

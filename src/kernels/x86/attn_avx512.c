/* kernels/x86/attn_avx512.c - attention with vectors of 16: 6 queries x 4 vectors fill 24 of the 32
 * registers; a chunk of 64 keys is 4 vectors. */
#include "kernels/x86/vec_avx512.h"

#include "kernels/x86/math_template.h"

#if defined(__clang__)
#define V_PIN(v) ((void)0)
#else
#define V_PIN(v) __asm__ volatile("" : "+v"(v))
#endif
enum { TILE = 6, DIRECT = 4 /* queries up to which a chunk is read as it lies */ };

SFQ_INLINE vec v_from_f16(const uint16_t *x)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)x));
}

SFQ_INLINE vec v_from_i8(const int8_t *x)
{
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)x)));
}

/* Elements i..i+3 of rows r, r+4, r+8, r+12. */
SFQ_INLINE vec v_quarters(const float *const *row, size_t i)
{
    vec x = _mm512_castps128_ps512(_mm_loadu_ps(row[0] + i));
    x = _mm512_insertf32x4(x, _mm_loadu_ps(row[4] + i), 1);
    x = _mm512_insertf32x4(x, _mm_loadu_ps(row[8] + i), 2);
    return _mm512_insertf32x4(x, _mm_loadu_ps(row[12] + i), 3);
}

/* Elements i..i+3 of 16 rows to 4 rows of 16. */
SFQ_INLINE void v_transpose4(float *to, const float *const *row, size_t i)
{
    vec x0 = v_quarters(row, i), x1 = v_quarters(row + 1, i);
    vec x2 = v_quarters(row + 2, i), x3 = v_quarters(row + 3, i);
    __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(x0, x1));
    __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(x0, x1));
    __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(x2, x3));
    __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(x2, x3));
    _mm512_storeu_ps(to, _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)));
    _mm512_storeu_ps(to + 16, _mm512_castpd_ps(_mm512_unpackhi_pd(a, c)));
    _mm512_storeu_ps(to + 32, _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)));
    _mm512_storeu_ps(to + 48, _mm512_castpd_ps(_mm512_unpackhi_pd(b, d)));
}

struct attn_lane;
struct attn_chunk;
static void tiles_chunk(struct attn_lane *lane, const struct attn_chunk *c, size_t n);

#include "kernels/x86/attn_template.h"

/* Up to 5 lanes. */
SFQ_INLINE void tiles_of(attn_lane *lane, const attn_chunk *c, size_t n, const sfq_dtype kind)
{
    if (n >= 4)
        tile_chunk(lane, c, 4, kind);
    else if (n >= 2)
        tile_chunk(lane, c, 2, kind);
    if (n % 2 == 1)
        tile_chunk(lane + n - 1, c, 1, kind);
}

static void tiles_chunk(attn_lane *lane, const attn_chunk *c, size_t n)
{
    if (c->kind == SFQ_F16)
        tiles_of(lane, c, n, SFQ_F16);
    else if (c->kind == SFQ_I8)
        tiles_of(lane, c, n, SFQ_I8);
    else if (n == TILE)
        tile_chunk(lane, c, 6, SFQ_F32);
    else
        tiles_of(lane, c, n, SFQ_F32);
}

void sfq_attn_avx512(const sfq_attn_args *a)
{
    attend(a);
}

void sfq_attn_merge_avx512(float *out, const float *parts, size_t count, size_t d)
{
    merge_parts(out, parts, count, d);
}

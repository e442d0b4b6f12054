/* kernels/x86/attn_avx512.c - attention with vectors of 16: 6 queries x 4 vectors fill 24 of the 32
 * registers; a chunk of 64 keys is 4 vectors. */
#include "kernels/x86/math_avx2.h"

#if defined(__clang__)
#define V_PIN(v) ((void)0)
#else
#define V_PIN(v) __asm__ volatile("" : "+v"(v))
#endif
typedef __m512 vec;
enum { VL = 16, TILE = 6, DIRECT = 4 /* queries up to which a chunk is read as it lies */ };

SFQ_INLINE __mmask16 v_mask(size_t left)
{
    return (__mmask16)(left >= VL ? 0xffffu : (1u << left) - 1u);
}

SFQ_INLINE vec v_zero(void)
{
    return _mm512_setzero_ps();
}

SFQ_INLINE vec v_set1(float x)
{
    return _mm512_set1_ps(x);
}

SFQ_INLINE vec v_load(const float *x)
{
    return _mm512_loadu_ps(x);
}

SFQ_INLINE vec v_load_some(const float *x, size_t left)
{
    return _mm512_maskz_loadu_ps(v_mask(left), x);
}

SFQ_INLINE void v_store(float *x, vec v)
{
    _mm512_storeu_ps(x, v);
}

SFQ_INLINE void v_store_some(float *x, vec v, size_t left)
{
    _mm512_mask_storeu_ps(x, v_mask(left), v);
}

#define v_fma _mm512_fmadd_ps
#define v_mul _mm512_mul_ps
#define v_add _mm512_add_ps
#define v_sub _mm512_sub_ps
#define v_max _mm512_max_ps
#define v_div _mm512_div_ps
#define v_first _mm512_cvtss_f32

/* As sfq_avx2_exp; the power is applied by one instruction that rounds once. */
SFQ_INLINE vec v_exp(vec x)
{
    static const float c[6] = {0.5f,           0.166666669f,   0.0416662681f,
                               0.00833326404f, 0.00139462030f, 0.000199185601f};
    x = _mm512_min_ps(_mm512_set1_ps(90.0f), x);
    x = _mm512_max_ps(_mm512_set1_ps(-106.0f), x);
    vec n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                 _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vec r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), x); /* ln2, leading 15 bits */
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);  /* the rest of ln2 */
    vec p = _mm512_set1_ps(c[5]);
    SFQ_UNROLL
    for (int i = 4; i >= 0; i--)
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c[i]));
    p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, r);
    return _mm512_scalef_ps(_mm512_add_ps(p, _mm512_set1_ps(1.0f)), n);
}

SFQ_INLINE float v_sum_of(vec v)
{
    return sfq_avx2_sum(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
}

SFQ_INLINE float v_max_of(vec v)
{
    return sfq_avx2_max(_mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
}

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

/* kernels/x86/kv_avx2.c - rows of a KV cache in F16 and I8, with the bits of ref. */
#include "kernels/kernel_decls.h"
#include "kernels/x86/avx2.h"

#include <float.h>
#include <string.h>

SFQ_INLINE __m256 load_some(const float *x, size_t left)
{
    return left >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, sfq_avx2_mask(left));
}

SFQ_INLINE void store_some(float *x, __m256 v, size_t left)
{
    if (left >= 8)
        _mm256_storeu_ps(x, v);
    else
        _mm256_maskstore_ps(x, sfq_avx2_mask(left), v);
}

static void round_f16(float *x, uint16_t *packed, size_t d)
{
    const __m256 limit = _mm256_set1_ps(65504.0f);
    for (size_t i = 0; i < d; i += 8) {
        __m256 v = _mm256_min_ps(limit, load_some(x + i, d - i)); /* NaN stays */
        v = _mm256_max_ps(_mm256_sub_ps(_mm256_setzero_ps(), limit), v);
        __m128i h = _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        store_some(x + i, _mm256_cvtph_ps(h), d - i);
        if (packed)
            memcpy(packed + i, &h, (d - i < 8 ? d - i : 8) * sizeof *packed);
    }
}

/* The largest |x| by bit pattern, in which NaN orders above infinity. */
static float abs_max(const float *x, size_t d)
{
    __m256i max = _mm256_setzero_si256();
    for (size_t i = 0; i < d; i += 8)
        max = _mm256_max_epi32(max, _mm256_and_si256(_mm256_castps_si256(load_some(x + i, d - i)),
                                                     _mm256_set1_epi32(0x7fffffff)));
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

static void round_i8(float *x, int8_t *packed, float *scale, size_t d)
{
    float s = abs_max(x, d) / 127.0f;
    s = s < FLT_MIN ? 0.0f : s;
    const __m256 inverse = _mm256_set1_ps(s == 0.0f ? 0.0f : 1.0f / s);
    const __m256 hi = _mm256_set1_ps(127.0f), lo = _mm256_set1_ps(-127.0f);
    for (size_t i = 0; i < d; i += 8) {
        __m256 v = _mm256_mul_ps(load_some(x + i, d - i), inverse);
        v = _mm256_min_ps(_mm256_max_ps(v, lo), hi); /* max gives lo for NaN */
        __m256i code = _mm256_cvtps_epi32(v);
        store_some(x + i, _mm256_mul_ps(_mm256_cvtepi32_ps(code), _mm256_set1_ps(s)), d - i);
        if (!packed)
            continue;
        __m128i half =
            _mm_packs_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
        half = _mm_packs_epi16(half, half);
        memcpy(packed + i, &half, d - i < 8 ? d - i : 8);
    }
    if (packed)
        *scale = s;
}

void sfq_kv_round_avx2(sfq_dtype kind, float *x, void *packed, float *scale, size_t d)
{
    if (kind == SFQ_I8)
        round_i8(x, (int8_t *)packed, scale, d);
    else if (kind == SFQ_F16)
        round_f16(x, (uint16_t *)packed, d);
    else if (packed)
        memcpy(packed, x, d * sizeof(float));
}

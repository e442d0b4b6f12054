/* tensor/dtype.c - the dtype table and exact conversions of 16-bit floats by bit arithmetic, the
 * same on every processor. NaNs stay NaNs and become quiet, as the conversion instructions do
 * it. */
#include "tensor/dtype.h"

#include <string.h>

static const sfq_dtype_facts facts[SFQ_DTYPE_COUNT] = {
    [SFQ_F32] = {"F32", 4, true},   [SFQ_F16] = {"F16", 2, true}, [SFQ_BF16] = {"BF16", 2, true},
    [SFQ_I8] = {"I8", 1, false},    [SFQ_U8] = {"U8", 1, false},  [SFQ_I64] = {"I64", 8, false},
    [SFQ_BOOL] = {"BOOL", 1, false}};

const sfq_dtype_facts *sfq_dtype_info(sfq_dtype dtype)
{
    return &facts[dtype];
}

bool sfq_dtype_from_name(const char *name, size_t n, sfq_dtype *out)
{
    for (int i = 0; i < SFQ_DTYPE_COUNT; i++) {
        if (strlen(facts[i].name) == n && memcmp(facts[i].name, name, n) == 0) {
            *out = (sfq_dtype)i;
            return true;
        }
    }
    return false;
}

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* Exponent and fraction move up and the bias is corrected. A subnormal gets an exponent of one more
 * and the power that this adds is taken away again: both are normal floats, so the result is exact
 * and no flush-to-zero mode touches it. */
float sfq_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t bits = (uint32_t)(h & 0x7FFFu) << 13;
    uint32_t exponent = bits & 0x0F800000u;
    uint32_t normal = bits + (112u << 23);
    uint32_t special = bits + (224u << 23);
    special |= (bits & 0x007FFFFFu) != 0 ? 0x00400000u : 0;
    uint32_t tiny = bits_of(float_of(bits + (113u << 23)) - 0x1p-14f);
    uint32_t value = exponent == 0 ? tiny : exponent == 0x0F800000u ? special : normal;
    return float_of(sign | value);
}

uint16_t sfq_f32_to_f16(float f)
{
    uint32_t bits = bits_of(f);
    uint32_t sign = bits >> 16 & 0x8000u;
    bits &= 0x7FFFFFFFu;
    if (bits > 0x7F800000u)
        return (uint16_t)(sign | 0x7E00u | (bits >> 13 & 0x1FFu));
    if (bits >= 0x477FF000u) /* 65520, half way to the first power beyond: infinity */
        return (uint16_t)(sign | 0x7C00u);
    if (bits >= 0x38800000u) { /* 2^-14 and above: a carry of the rounding raises the exponent */
        bits -= 112u << 23;
        bits += 0x0FFFu + (bits >> 13 & 1u);
        return (uint16_t)(sign | bits >> 13);
    }
    if (bits < 0x33000000u) /* below 2^-25; that itself is a tie, and goes to 0 below */
        return (uint16_t)sign;
    uint32_t shift = 126u - (bits >> 23); /* 14 .. 24: to units of 2^-24 */
    uint32_t fraction = (bits & 0x007FFFFFu) | 0x00800000u;
    uint32_t half = (uint32_t)1 << (shift - 1);
    uint32_t value = (fraction + half - 1 + (fraction >> shift & 1u)) >> shift;
    return (uint16_t)(sign | value);
}

float sfq_bf16_to_f32(uint16_t b)
{
    uint32_t bits = (uint32_t)b << 16;
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        bits |= 0x00400000u;
    return float_of(bits);
}

uint16_t sfq_f32_to_bf16(float f)
{
    uint32_t bits = bits_of(f);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(bits >> 16 | 0x0040u);
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

static uint16_t load_u16(const unsigned char *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

void sfq_to_f32(float *dst, const void *src, sfq_dtype dtype, size_t n)
{
    const unsigned char *bytes = src;
    if (dtype == SFQ_F32 && n > 0)
        memcpy(dst, src, n * sizeof *dst);
    else if (dtype == SFQ_F16)
        for (size_t i = 0; i < n; i++)
            dst[i] = sfq_f16_to_f32(load_u16(bytes + 2 * i));
    else if (dtype == SFQ_BF16)
        for (size_t i = 0; i < n; i++)
            dst[i] = sfq_bf16_to_f32(load_u16(bytes + 2 * i));
}

/* Conversions of 16-bit floats against values computed by ldexp, at every half-way point and over a
 * dense sweep of floats (all 2^32 with SFQ_TEST_EXHAUSTIVE set); the dtype table; the scan for
 * NaN. */
#include "tensor/dtype.h"

#include "tensor/tensor.h"
#include "unit/unit.h"

#include <math.h>

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The value that a finite pattern stands for, by its definition. */
static double value_of(uint16_t h, int fraction_bits, int bias)
{
    int exponent = (h & 0x7FFF) >> fraction_bits;
    double fraction = h & ((1 << fraction_bits) - 1);
    double v = exponent == 0
                   ? ldexp(fraction, 1 - bias - fraction_bits)
                   : ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
    return h & 0x8000 ? -v : v;
}

static void every_f16_to_f32(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = sfq_f16_to_f32((uint16_t)h);
        if ((h & 0x7C00) != 0x7C00) {
            assert_int_equal(bits_of(f), bits_of((float)value_of((uint16_t)h, 10, 15)));
        } else if ((h & 0x3FF) == 0) {
            assert_int_equal(bits_of(f), h & 0x8000 ? 0xFF800000u : 0x7F800000u);
        } else {
            assert_int_equal(bits_of(f), (h & 0x8000) << 16 | 0x7FC00000u | (h & 0x3FF) << 13);
        }
    }
}

static void every_bf16_to_f32(void **state)
{
    (void)state;
    for (uint32_t b = 0; b < 0x10000; b++) {
        float f = sfq_bf16_to_f32((uint16_t)b);
        bool nan = (b & 0x7FFF) > 0x7F80;
        assert_int_equal(bits_of(f), nan ? b << 16 | 0x400000u : b << 16);
        if ((b & 0x7F80) != 0x7F80)
            assert_true((double)f == value_of((uint16_t)b, 7, 127));
    }
}

/* Between each pair of neighbours: the lower one up to the middle, the upper one above it, the even
 * one in the middle. The last pair is the largest number and the first power beyond (infinity). */
static void rounds_at_every_half_way_point(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7C00; h++) {
        double low = value_of((uint16_t)h, 10, 15);
        double high = h == 0x7BFF ? 65536.0 : value_of((uint16_t)(h + 1), 10, 15);
        float middle = (float)((low + high) / 2);
        uint32_t even = h % 2 == 0 ? h : h + 1;
        for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
            float s = sign ? -1.0f : 1.0f;
            assert_int_equal(sfq_f32_to_f16(s * (float)low), sign | h);
            assert_int_equal(sfq_f32_to_f16(s * middle), sign | even);
            assert_int_equal(sfq_f32_to_f16(s * nextafterf(middle, 0)), sign | h);
            assert_int_equal(sfq_f32_to_f16(s * nextafterf(middle, 1e9f)), sign | (h + 1));
        }
    }
    for (uint32_t b = 0; b < 0x7F80; b++) {
        uint32_t middle = b << 16 | 0x8000u;
        assert_int_equal(sfq_f32_to_bf16(float_of(b << 16)), b);
        assert_int_equal(sfq_f32_to_bf16(float_of(middle)), b + b % 2);
        assert_int_equal(sfq_f32_to_bf16(float_of(middle - 1)), b);
        assert_int_equal(sfq_f32_to_bf16(float_of(middle + 1)), b + 1);
        assert_int_equal(sfq_f32_to_bf16(float_of(middle | 0x80000000u)), (b + b % 2) | 0x8000u);
    }
}

/* Round to nearest even by the definition, from the value in double. */
static uint16_t nearest_f16(float f)
{
    double a = fabs((double)f);
    uint16_t sign = signbit(f) ? 0x8000 : 0;
    if (isnan(f))
        return (uint16_t)(sign | 0x7E00u | (bits_of(f) >> 13 & 0x1FFu));
    if (a == 0)
        return sign;
    if (a >= 65520)
        return (uint16_t)(sign | 0x7C00u);
    int exponent;
    (void)frexp(a, &exponent);
    int unit = exponent - 11 < -24 ? -24 : exponent - 11;
    double steps = nearbyint(ldexp(a, -unit)); /* the default mode is to nearest even */
    if (unit == -24)
        return (uint16_t)(sign + (unsigned)steps);
    return (uint16_t)(sign + ((unsigned)(unit + 24) << 10) + (unsigned)steps);
}

static void sweep_of_floats(void **state)
{
    (void)state;
    bool all = getenv("SFQ_TEST_EXHAUSTIVE") != NULL;
    uint32_t step = all ? 1 : 1021;
    uint64_t wrong = 0;
    uint64_t bits = 0;
    for (; bits <= UINT32_MAX; bits += step) {
        float f = float_of((uint32_t)bits);
        wrong += sfq_f32_to_f16(f) != nearest_f16(f);
        uint16_t b = sfq_f32_to_bf16(f);
        if (isnan(f))
            wrong += b != ((uint32_t)bits >> 16 | 0x40u);
        else
            wrong += (b & 0x7FFFu) > 0x7F80u;
    }
    assert_int_equal(wrong, 0);
}

static void round_trip(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        bool nan16 = (h & 0x7FFF) > 0x7C00;
        bool nanb = (h & 0x7FFF) > 0x7F80;
        assert_int_equal(sfq_f32_to_f16(sfq_f16_to_f32((uint16_t)h)), nan16 ? h | 0x200 : h);
        assert_int_equal(sfq_f32_to_bf16(sfq_bf16_to_f32((uint16_t)h)), nanb ? h | 0x40 : h);
    }
}

static void arrays_from_odd_addresses(void **state)
{
    (void)state;
    static unsigned char bytes[4 * 1000 + 1];
    static float out[1001];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 37 + 11);
    for (size_t n = 0; n <= 1000; n += 125) {
        const sfq_dtype types[] = {SFQ_F32, SFQ_F16, SFQ_BF16};
        for (int t = 0; t < 3; t++) {
            out[n] = 77;
            sfq_to_f32(out, bytes + 1, types[t], n);
            for (size_t i = 0; i < n; i++) {
                uint32_t wide;
                uint16_t half;
                memcpy(&wide, bytes + 1 + 4 * i, 4);
                memcpy(&half, bytes + 1 + 2 * i, 2);
                uint32_t expected = t == 0   ? wide
                                    : t == 1 ? bits_of(sfq_f16_to_f32(half))
                                             : bits_of(sfq_bf16_to_f32(half));
                assert_int_equal(bits_of(out[i]), expected);
            }
            assert_true(out[n] == 77);
        }
    }
}

static void table_of_dtypes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        sfq_dtype dtype;
        size_t bytes;
        bool is_float;
    } table[] = {{"F32", SFQ_F32, 4, true},   {"F16", SFQ_F16, 2, true},
                 {"BF16", SFQ_BF16, 2, true}, {"I8", SFQ_I8, 1, false},
                 {"U8", SFQ_U8, 1, false},    {"I64", SFQ_I64, 8, false},
                 {"BOOL", SFQ_BOOL, 1, false}};
    assert_int_equal(sizeof table / sizeof *table, SFQ_DTYPE_COUNT);
    for (size_t i = 0; i < SFQ_DTYPE_COUNT; i++) {
        sfq_dtype found = SFQ_DTYPE_COUNT;
        assert_true(sfq_dtype_from_name(table[i].name, strlen(table[i].name), &found));
        assert_int_equal(found, table[i].dtype);
        assert_string_equal(sfq_dtype_info(found)->name, table[i].name);
        assert_int_equal(sfq_dtype_info(found)->bytes, table[i].bytes);
        assert_int_equal(sfq_dtype_info(found)->is_float, table[i].is_float);
    }
    sfq_dtype found;
    static const char *const bad[] = {"", "F", "F64", "F8_E4M3", "f32", "F322", "I32", "BF1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(sfq_dtype_from_name(bad[i], strlen(bad[i]), &found));
    assert_true(sfq_dtype_from_name("U8xyz", 2, &found));
}

static void first_nonfinite(void **state)
{
    (void)state;
    static const struct {
        sfq_dtype dtype;
        uint32_t fine, bad[4];
    } table[] = {{SFQ_F32, 0x7F7FFFFF, {0x7F800000, 0xFF800000, 0x7F800001, 0xFFC00000}},
                 {SFQ_F16, 0x7BFF, {0x7C00, 0xFC00, 0x7C01, 0xFE00}},
                 {SFQ_BF16, 0x7F7F, {0x7F80, 0xFF80, 0x7F81, 0xFFC0}}};
    enum { N = 37 };
    for (size_t t = 0; t < 3; t++) {
        size_t size = sfq_dtype_info(table[t].dtype)->bytes;
        unsigned char data[4 * N + 1];
        sfq_tensor tensor = {.dtype = table[t].dtype,
                             .rank = 1,
                             .shape = {N},
                             .count = N,
                             .bytes = N * size,
                             .data = data + 1};
        for (uint64_t at = 0; at <= N; at++)
            for (size_t b = 0; b < 4; b++) {
                for (uint64_t i = 0; i < N; i++)
                    memcpy(data + 1 + i * size, &table[t].fine, size);
                if (at < N)
                    memcpy(data + 1 + at * size, &table[t].bad[b], size);
                if (at + 2 < N) /* a second one behind does not matter */
                    memcpy(data + 1 + (at + 2) * size, &table[t].bad[b], size);
                assert_int_equal(sfq_tensor_first_nonfinite(&tensor), at);
            }
    }
    unsigned char ones[8];
    memset(ones, 0xFF, sizeof ones);
    sfq_tensor integers = {.dtype = SFQ_I64, .rank = 1, .count = 1, .bytes = 8, .data = ones};
    assert_int_equal(sfq_tensor_first_nonfinite(&integers), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_f16_to_f32),
        cmocka_unit_test(every_bf16_to_f32),
        cmocka_unit_test(rounds_at_every_half_way_point),
        cmocka_unit_test(sweep_of_floats),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(arrays_from_odd_addresses),
        cmocka_unit_test(table_of_dtypes),
        cmocka_unit_test(first_nonfinite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

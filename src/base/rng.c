/* base/rng.c - see rng.h. The finaliser is SplitMix64's (variant 13 of Stafford's mixers, as in
 * Steele, Lea and Flood 2014); seed, stream and counter pass it one after the other, so two streams
 * are not shifted copies of one sequence. */
#include "base/rng.h"

#include <math.h>

static const uint64_t golden = 0x9E3779B97F4A7C15u; /* 2^64 / golden ratio, odd */

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static uint64_t stream_key(uint64_t seed, uint64_t stream)
{
    return mix((mix(seed + golden) ^ stream) + golden);
}

uint64_t sfq_rng_u64(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return mix(stream_key(seed, stream) ^ (counter + 1) * golden);
}

void sfq_rng_fill(uint64_t *out, size_t n, uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint64_t key = stream_key(seed, stream), at = (counter + 1) * golden;
    for (size_t i = 0; i < n; i++, at += golden)
        out[i] = mix(key ^ at);
}

double sfq_rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return (double)(sfq_rng_u64(seed, stream, counter) >> 11) * 0x1p-53;
}

/* Box and Muller 1958; the second uniform comes from the same counter. */
double sfq_rng_normal(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint64_t a = sfq_rng_u64(seed, stream, counter);
    uint64_t b = mix(a + golden);
    double u = (double)((a >> 11) + 1) * 0x1p-53; /* (0, 1] */
    double v = (double)(b >> 11) * 0x1p-53;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

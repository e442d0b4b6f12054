/* base/rng.h - counter-based random numbers (SplitMix64 finaliser over seed, stream and counter;
 * Steele et al. 2014, "Fast splittable pseudorandom number generators"): a number depends on what
 * it is for, never on who asks first. */
#ifndef SFQ_BASE_RNG_H
#define SFQ_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

uint64_t sfq_rng_u64(uint64_t seed, uint64_t stream, uint64_t counter);
/* out[i] = sfq_rng_u64(seed, stream, counter + i), at about one number per nanosecond */
void sfq_rng_fill(uint64_t *out, size_t n, uint64_t seed, uint64_t stream, uint64_t counter);
double sfq_rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter); /* [0, 1) */
double sfq_rng_normal(uint64_t seed, uint64_t stream, uint64_t counter);

#endif

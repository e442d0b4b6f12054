/* base/ck.h - checked arithmetic for every number that a file or a request controls. Each function
 * returns true when the exact result fits and was stored. */
#ifndef SFQ_BASE_CK_H
#define SFQ_BASE_CK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool sfq_ck_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline bool sfq_ck_sub(size_t a, size_t b, size_t *out)
{
    return !__builtin_sub_overflow(a, b, out);
}

static inline bool sfq_ck_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

/* a * b + c */
static inline bool sfq_ck_mul_add(size_t a, size_t b, size_t c, size_t *out)
{
    size_t t;
    return sfq_ck_mul(a, b, &t) && sfq_ck_add(t, c, out);
}

/* the least multiple of `unit` (> 0) that is >= a */
static inline bool sfq_ck_round_up(size_t a, size_t unit, size_t *out)
{
    size_t rest = a % unit;
    return rest == 0 ? (*out = a, true) : sfq_ck_add(a, unit - rest, out);
}

/* Estimates of memory: what passes 64 bits stays at the top, which no machine has. */
static inline uint64_t sfq_cap_add(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static inline uint64_t sfq_cap_mul(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

/* for numbers that were checked before */
static inline size_t sfq_round_up(size_t a, size_t unit)
{
    return (a + unit - 1) / unit * unit;
}

static inline size_t sfq_min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t sfq_max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

#endif

/* tensor/tensor.c - see tensor.h. A float is finite unless its exponent bits are all ones. */
#include "tensor/tensor.h"

#include <string.h>

static uint64_t first_special_32(const unsigned char *p, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, p + 4 * i, sizeof bits);
        if ((bits & 0x7F800000u) == 0x7F800000u)
            return i;
    }
    return n;
}

static uint64_t first_special_16(const unsigned char *p, uint64_t n, uint16_t exponent)
{
    for (uint64_t i = 0; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, p + 2 * i, sizeof bits);
        if ((bits & exponent) == exponent)
            return i;
    }
    return n;
}

uint64_t sfq_tensor_first_nonfinite(const sfq_tensor *t)
{
    switch (t->dtype) {
    case SFQ_F32:
        return first_special_32(t->data, t->count);
    case SFQ_F16:
        return first_special_16(t->data, t->count, 0x7C00u);
    case SFQ_BF16:
        return first_special_16(t->data, t->count, 0x7F80u);
    default:
        return t->count;
    }
}

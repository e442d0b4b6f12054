/* tensor/tensor.h - a view of a tensor in somebody else's memory. */
#ifndef SFQ_TENSOR_TENSOR_H
#define SFQ_TENSOR_TENSOR_H

#include "tensor/dtype.h"

#define SFQ_MAX_RANK 8

typedef struct sfq_tensor {
    const char *name;
    sfq_dtype dtype;
    int rank;
    uint64_t shape[SFQ_MAX_RANK];
    uint64_t count; /* product of shape, proved not to overflow */
    uint64_t bytes;
    const void *data;
} sfq_tensor;

/* Index of the first NaN or infinity in a float tensor; count when there is none. */
uint64_t sfq_tensor_first_nonfinite(const sfq_tensor *t);

#endif

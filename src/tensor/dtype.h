/* tensor/dtype.h - the one table of dtypes, and conversions between the 16-bit floats and float. */
#ifndef SFQ_TENSOR_DTYPE_H
#define SFQ_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum sfq_dtype {
    SFQ_F32 = 0,
    SFQ_F16,
    SFQ_BF16,
    SFQ_I8,
    SFQ_U8,
    SFQ_I64,  /* accepted in files (position_ids), never computed with */
    SFQ_BOOL, /* the same */
    SFQ_DTYPE_COUNT
} sfq_dtype;

typedef struct sfq_dtype_facts {
    const char *name; /* as safetensors spells it */
    size_t bytes;
    bool is_float;
} sfq_dtype_facts;

const sfq_dtype_facts *sfq_dtype_info(sfq_dtype dtype);
bool sfq_dtype_from_name(const char *name, size_t n, sfq_dtype *out);

float sfq_f16_to_f32(uint16_t h);
uint16_t sfq_f32_to_f16(float f); /* round to nearest even; beyond 65504 -> infinity */
float sfq_bf16_to_f32(uint16_t b);
uint16_t sfq_f32_to_bf16(float f); /* round to nearest even */

/* n elements of a float dtype to float. src need not be aligned. */
void sfq_to_f32(float *dst, const void *src, sfq_dtype dtype, size_t n);

#endif

/* compress/export.h - an artifact back to a plain Hugging Face checkpoint. */
#ifndef SFQ_COMPRESS_EXPORT_H
#define SFQ_COMPRESS_EXPORT_H

#include "compress/source.h"

/* DIR (artifact or dense) to OUT: 16-bit model.safetensors in the family's own names and layout,
 * config.json without quantization_config, tokenizer and settings copied. Uneven widths are padded
 * with zero units to the widest layer, which leaves the function exactly as it is: stock
 * Transformers loads the result. A tensor that F16 cannot hold is BF16 where config.json says so,
 * else F32. UNSUPPORTED names what the family's stock model cannot hold. Checksums are verified
 * first. */
sfq_status sfq_export_dense(const sfq_export_options *options, sfq_export_result *out,
                            sfq_error *err);

#endif

/* format/artifact.h - the sfq artifact: "quantization_config" of config.json, and the packed
 * tensors NAME.codes (U8 [panels, K/64, 128*b]) and NAME.scales (F16 or F32 [panels, segments,
 * 16/share]). docs/FORMAT.md is the specification; this is its only reader and writer. */
#ifndef SFQ_FORMAT_ARTIFACT_H
#define SFQ_FORMAT_ARTIFACT_H

#include "base/buf.h"
#include "format/checkpoint.h"
#include "format/hf_config.h"
#include "tensor/cluster.h"

#define SFQ_ARTIFACT_VERSION 1
#define SFQ_ACTIVATION_BITS_MIN 8
#define SFQ_ACTIVATION_BITS_MAX 14

/* One quantized matrix as config.json describes it. */
typedef struct sfq_packed_spec {
    char *name;          /* without ".weight": "model.layers.0.mlp.up_proj" */
    int bits;            /* 2..8 */
    int activation_bits; /* 8..14: integer width of the input at run time */
    sfq_cluster cluster; /* from shape [n, k]; segments and share are checked against the file */
} sfq_packed_spec;

typedef struct sfq_layer_dims {
    int64_t heads, kv_heads, ffn;
} sfq_layer_dims;

typedef struct sfq_artifact_info {
    int version;
    uint64_t original_parameters;
    sfq_layer_dims *layers; /* [layer_count] */
    int layer_count;
    sfq_packed_spec *packed; /* sorted by name */
    size_t packed_count;
} sfq_artifact_info;

/* Whether config.json describes an artifact; another quant_method is UNSUPPORTED. Fills *out
 * (NULL for a dense model). Per-layer dims of a dense model with "per_layer_config" are read too:
 * *out is NULL then, see sfq_hf_layer_dims. */
sfq_status sfq_artifact_read(sfq_artifact_info **out, const sfq_hf_config *config, sfq_error *err);
void sfq_artifact_free(sfq_artifact_info **info);
const sfq_packed_spec *sfq_artifact_find(const sfq_artifact_info *info, const char *name);

/* Per-layer widths of any model: config's uniform numbers, per_layer_config's exceptions, the
 * artifact's table. dims [config->layers]. */
sfq_status sfq_hf_layer_dims(sfq_layer_dims *dims, const sfq_hf_config *config,
                             const sfq_artifact_info *info, sfq_error *err);

/* config.json of the artifact: the original object plus quantization_config (and per_layer_config
 * where widths differ). *out is freed with json_decref. */
sfq_status sfq_artifact_config(json_t **out, const sfq_hf_config *original,
                               const sfq_artifact_info *info, sfq_error *err);
/* Widths that the stock configuration class of the family can name, at least *dims: raises them
 * where it must. All heads of a model without a head_dim of its own, a head count that divides the
 * hidden size where the class demands that, no width of 0. */
void sfq_artifact_stock_dims(sfq_layer_dims *dims, const sfq_hf_config *config);
/* config.json of a plain checkpoint with the same widths in every layer: the original object
 * without what describes an artifact. wide: some weights are F32 because they overflow F16, so a
 * dtype of float16 becomes float32. *out is freed with json_decref. */
sfq_status sfq_artifact_dense_config(json_t **out, const sfq_hf_config *original,
                                     const sfq_layer_dims *dims, bool wide, sfq_error *err);
/* An object as the text of a config.json: keys sorted at every level, two spaces, a newline behind;
 * the same bytes for equal objects. Adds to *text. */
sfq_status sfq_artifact_text(sfq_buf *text, const json_t *object, sfq_error *err);

/* The two tensors of a packed matrix in a checkpoint, with dtype, shape, scale finiteness and
 * extents proved against the spec. Codes are 64-byte aligned in our own files; *aligned says so. */
sfq_status sfq_packed_bind(const sfq_packed_spec *spec, const sfq_checkpoint *ck,
                           const sfq_tensor **codes, const sfq_tensor **scales, bool *aligned,
                           sfq_error *err);

#endif

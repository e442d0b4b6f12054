/* compress/plan.h - what becomes of every tensor, and what that costs: decided before the work. */
#ifndef SFQ_COMPRESS_PLAN_H
#define SFQ_COMPRESS_PLAN_H

#include "compress/arrange.h"
#include "compress/energy.h"
#include "compress/fuse.h"

typedef struct sfq_plan_tensor {
    const sfq_module *module;
    const sfq_tensor *source;
    bool packed;
    /* packed */
    sfq_packed_spec spec; /* name is the module's */
    sfq_dtype scale_dtype;
    /* orders of FFN neurons, owned by the plan; NULL: as the source has it. A dense leftover has an
     * order of rows only where it is a bias. */
    const uint32_t *row_order, *column_order;
    bool feedback;       /* rounded with feedback, where the model's moment allows it */
    const float *energy; /* [K] of its inputs, borrowed; NULL: not known */
    /* dense leftover */
    sfq_dtype dtype; /* in the file: F16, or the source's where F16 overflows */
    /* places in the file's list of tensors */
    size_t index, scale_index;
} sfq_plan_tensor;

typedef struct sfq_plan {
    sfq_plan_tensor *tensors; /* sorted by the tensor's name */
    size_t count;
    size_t packed_count;
    sfq_arrangement arrangement;
    int arranged_layers;
    size_t feedback_count;
    uint64_t weights;        /* that are quantized, padding not counted */
    uint64_t scales;         /* that they use */
    uint64_t source_weights; /* elements that are read */
    uint64_t original_bytes; /* 2 * parameters */
    uint64_t file_bytes;     /* model.safetensors, exact */
    uint64_t memory_bytes;   /* peak beyond the mapped source */
    uint64_t disk_bytes;     /* of the whole output */
    double seconds;
} sfq_plan;

/* Options that this version cannot do, values out of range. `causal` decides the hint. */
sfq_status sfq_plan_check(const sfq_compress_options *options, bool causal, sfq_error *err);

/* Reads every weight once: NUMERIC for what is not finite, dtypes from what is there. `stages` is
 * the number of stages of the whole run, for progress; this is the first. */
sfq_status sfq_plan_make(sfq_plan **out, const sfq_source *source,
                         const sfq_compress_options *options, int stages, sfq_error *err);
void sfq_plan_free(sfq_plan **plan);
/* Scales are fitted to what the inputs were on calibration data. The energy is of a net with the
 * source's widths, and must live until the weights are emitted. */
void sfq_plan_weigh(sfq_plan *plan, const sfq_energy *energy);

/* A packed tensor as the fuse stage takes it. */
sfq_fuse_input sfq_plan_fuse_input(const sfq_plan_tensor *tensor);

/* Inputs of the widest packed tensor; 1 when none is packed. */
size_t sfq_plan_widest(const sfq_plan *plan);

/* Declares all tensors in the order of the file; shared by the size of a plan and by emit. */
sfq_status sfq_plan_declare(const sfq_plan *plan, sfq_st_writer *writer, sfq_error *err);

#endif

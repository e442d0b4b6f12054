/* runtime/compute.h - sequences in, numbers out: hidden states, logits, probabilities or vectors,
 * of token ids or of texts, batch by batch. What comes out does not depend on the batches. */
#ifndef SFQ_RUNTIME_COMPUTE_H
#define SFQ_RUNTIME_COMPUTE_H

#include "runtime/batch.h"

/* Rows of `out` are filled in order, so batches must come in order. */
typedef struct sfq_compute_pass {
    sfq_engine *engine;
    sfq_output output;
    const char *stage; /* of the progress */
    const sfq_hooks *hooks;
    float *out; /* [rows, columns] */
    size_t columns;
    size_t row;       /* rows that are filled */
    size_t sequences; /* of all batches, for the progress */
} sfq_compute_pass;

/* Numbers in a row of this output, and whether rows are tokens or sequences. UNSUPPORTED where the
 * model has no such output. */
sfq_status sfq_output_columns(const sfq_engine *engine, sfq_output output, size_t *columns,
                              bool *by_token, sfq_error *err);
/* An sfq_inputs_fn; ud is an sfq_compute_pass. NUMERIC where an answer is not finite. */
sfq_status sfq_compute_batch(void *ud, const sfq_batch *batch, size_t first, sfq_error *err);

/* As sfq_compute_shape and sfq_compute. */
sfq_status sfq_engine_compute_shape(const sfq_engine *engine, const sfq_tokens *tokens,
                                    sfq_output output, size_t *rows, size_t *columns,
                                    sfq_error *err);
sfq_status sfq_engine_compute(sfq_engine *engine, const sfq_tokens *tokens, sfq_output output,
                              const sfq_hooks *hooks, float *out, sfq_error *err);

#endif

/* compress/tune.h - elastic recalibration, second part: the scales, norms and biases of the
 * quantized model, codes as they are, by distillation from the original (M15; Esser et al. 2020,
 * "Learned step size quantization"; Chen et al. 2024, "EfficientQAT"). */
#ifndef SFQ_COMPRESS_TUNE_H
#define SFQ_COMPRESS_TUNE_H

#include "compress/distill.h"

typedef sfq_distill_report sfq_tune_report;

/* Trains the packed artifact in `packed` and writes it, with new scales, norms and biases (rounded
 * as their dtype in the file stores them, which is also what is judged), as model.safetensors and
 * config.json of `out`. Never worse on the held-out part than what it got. */
sfq_status sfq_tune_run(const sfq_work *work, const char *packed, sfq_loss *held_out,
                        const char *state, sfq_outdir *out, sfq_tune_report *report,
                        sfq_error *err);
int sfq_tune_steps(const sfq_work *work);
uint64_t sfq_tune_bytes(const sfq_work *work);

#endif

/* compress/reconstruct.h - output projections refitted to what was cut: ridge regression towards
 * the weights at hand, onto the teacher's residual sum, tokens weighted by what the loss sees of
 * them (M4; Park et al. 2024, "Accurate retraining-free pruning for pretrained encoder-based
 * language models"; Frantar et al. 2022). */
#ifndef SFQ_COMPRESS_RECONSTRUCT_H
#define SFQ_COMPRESS_RECONSTRUCT_H

#include "compress/loss.h"
#include "compress/score.h"

typedef struct sfq_reconstruct_report {
    double before, after; /* held-out loss */
    int solved, kept; /* sublayers that were solved, and whose solution the held-out loss kept */
} sfq_reconstruct_report;

/* Layer after layer, attention then FFN, with the student's own inputs (what was changed below is
 * seen above). Biases of o and down are refitted where the family has them. Never leaves the
 * student with a larger held-out loss than it had. `round` places the progress. */
sfq_status sfq_reconstruct_run(const sfq_work *work, sfq_student *student,
                               const sfq_saliency *saliency, sfq_loss *held_out, int round,
                               sfq_reconstruct_report *out, sfq_error *err);
uint64_t sfq_reconstruct_bytes(const sfq_work *work);

#endif

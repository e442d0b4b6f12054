/* compress/prune.h - the prune stage: rounds of score, choose, cut, reconstruct. */
#ifndef SFQ_COMPRESS_PRUNE_H
#define SFQ_COMPRESS_PRUNE_H

#include "compress/choose.h"
#include "compress/reconstruct.h"

typedef struct sfq_prune_report {
    double cut_loss;           /* held-out, after the last cut */
    double reconstructed_loss; /* and after reconstruction */
    double cut_seconds, reconstruct_seconds;
    int heads, neurons; /* removed so far against the original */
    double fraction;    /* of the block parameters */
    int solved, kept;   /* sublayers reconstructed, and kept */
} sfq_prune_report;

int sfq_prune_rounds(const sfq_compress_options *options);
/* The saliency asked for; the default where the name is NULL or unknown. */
sfq_saliency_kind sfq_prune_saliency(const sfq_compress_options *options);
/* Round `round` of sfq_prune_rounds() in two halves, which add to *report: score the student and
 * cut it, the share removed growing evenly up to options->prune; then refit its output matrices by
 * the same scores. A round depends on the student that it gets and on options alone, so that a run
 * can go on between rounds. */
sfq_status sfq_prune_cut(sfq_saliency **out, const sfq_work *work, sfq_student *student, int round,
                         sfq_prune_report *report, sfq_error *err);
sfq_status sfq_prune_refit(const sfq_work *work, sfq_student *student, const sfq_saliency *saliency,
                           sfq_loss *held_out, int round, sfq_prune_report *report, sfq_error *err);
/* Whether a sublayer's widths may change: not where --keep names one of its matrices. [layers] */
sfq_status sfq_prune_fixed(const sfq_work *work, bool *attn_fixed, bool *ffn_fixed, sfq_error *err);
/* Memory of the stage beyond the student and the held-out answers. */
uint64_t sfq_prune_bytes(const sfq_work *work);

/* Where a round stands, for its parts: calibration sequences scored, and the share of the
 * reconstruction that is done, which counts as two passes over them. */
void sfq_prune_progress(const sfq_work *work, int round, size_t scored, double refitted);

#endif

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
/* Round `round` of sfq_prune_rounds(): the share removed grows evenly up to options->prune. Adds
 * to *report. A round depends on the student that it gets and on options alone, so that a run can
 * go on between rounds. */
sfq_status sfq_prune_round(const sfq_work *work, sfq_student *student, sfq_loss *held_out,
                           int round, sfq_prune_report *report, sfq_error *err);
/* Whether a sublayer's widths may change: not where --keep names one of its matrices. */
sfq_status sfq_prune_fixed(const sfq_work *work, bool *attn_fixed, bool *ffn_fixed, sfq_error *err);

#endif

/* compress/distill.h - elastic recalibration, first part: a short distillation of the pruned model
 * from the original (M14) with AdamW (Loshchilov & Hutter 2019) on all weights of the blocks. */
#ifndef SFQ_COMPRESS_DISTILL_H
#define SFQ_COMPRESS_DISTILL_H

#include "compress/loss.h"

typedef struct sfq_distill_report {
    double before, after; /* held-out loss; after <= before */
    int steps;            /* that were taken */
    int best;             /* step whose weights were kept; 0: those it began with */
    bool late;            /* --minutes ended it */
} sfq_distill_report;

/* Where an interrupted stage left off; state files lie in `dir` (a directory of the journal) and
 * are replaced atomically. dir NULL: no checkpoints. */
sfq_status sfq_distill_run(const sfq_work *work, sfq_student *student, sfq_loss *held_out,
                           const char *dir, sfq_distill_report *out, sfq_error *err);
/* Steps by default for this calibration set; memory of the stage beyond the student. */
int sfq_distill_steps(const sfq_work *work);
uint64_t sfq_distill_bytes(const sfq_work *work, const sfq_net *student);

#endif

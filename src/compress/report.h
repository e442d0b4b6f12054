/* compress/report.h - what was done and measured, for programs (sfq_report.json) and for people
 * (README.md, the model card). The only files of an artifact that hold times and dates. */
#ifndef SFQ_COMPRESS_REPORT_H
#define SFQ_COMPRESS_REPORT_H

#include "compress/calibration.h"
#include "compress/emit.h"
#include "compress/prune.h"

/* What fusing did, as one object: widths per layer, each tensor's bits and error. It outlives the
 * plan, in the journal too. losses [plan->count]. */
sfq_status sfq_report_fused(json_t **out, const sfq_plan *plan, const sfq_source *source,
                            const sfq_emit_loss *losses, sfq_error *err);

typedef struct sfq_report {
    const sfq_compress_options *options;
    const sfq_source *source; /* the original */
    const sfq_compress_result *result;
    const json_t *fused;
    const sfq_calibration *calibration; /* NULL: no data was used */
    const sfq_prune_report *pruned;     /* NULL: nothing was */
} sfq_report;

sfq_status sfq_report_write(const sfq_report *report, sfq_outdir *dir, sfq_error *err);
sfq_status sfq_card_write(const sfq_report *report, sfq_outdir *dir, sfq_error *err);

#endif

/* compress/report.h - what was done and measured, for programs (sfq_report.json) and for people
 * (README.md, the model card). The only files of an artifact that hold times and dates. */
#ifndef SFQ_COMPRESS_REPORT_H
#define SFQ_COMPRESS_REPORT_H

#include "compress/emit.h"

typedef struct sfq_report {
    const sfq_compress_options *options;
    const sfq_source *source;
    const sfq_plan *plan;
    const sfq_emit_loss *losses; /* [plan->count] */
    const sfq_compress_result *result;
} sfq_report;

sfq_status sfq_report_write(const sfq_report *report, sfq_outdir *dir, sfq_error *err);
sfq_status sfq_card_write(const sfq_report *report, sfq_outdir *dir, sfq_error *err);

#endif

/* compress/pipeline.h - the stages in order, from a checkpoint to an artifact. */
#ifndef SFQ_COMPRESS_PIPELINE_H
#define SFQ_COMPRESS_PIPELINE_H

#include "base/pool.h"
#include "model/names.h"

#include <sfq/compress.h>

/* Measuring is the runtime's business, which this folder does not know: the API passes it in. dir
 * is a model directory (the original, or the artifact while still temporary); text is a file to
 * measure on, NULL: what the options name. value in the metric's own unit. */
typedef struct sfq_measure {
    void *ud;
    sfq_status (*run)(void *ud, const char *dir, const char *text, const sfq_hooks *hooks,
                      char metric[24], double *value, sfq_error *err);
} sfq_measure;

/* measure NULL: nothing is measured (no --task, no --text). */
sfq_status sfq_pipeline_run(const sfq_compress_options *options, const sfq_measure *measure,
                            sfq_compress_result *out, sfq_error *err);
sfq_status sfq_pipeline_plan(const sfq_compress_options *options, sfq_compress_result *out,
                             sfq_error *err);

#endif

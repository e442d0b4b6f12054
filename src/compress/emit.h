/* compress/emit.h - the artifact's files, written into a directory that is not visible yet. */
#ifndef SFQ_COMPRESS_EMIT_H
#define SFQ_COMPRESS_EMIT_H

#include "compress/plan.h"

/* What one packed tensor lost: sums over its weights. */
typedef struct sfq_emit_loss {
    double error;  /* sum of (w - decoded)^2 */
    double energy; /* sum of w^2 */
    bool feedback; /* rounded with feedback, not to nearest */
} sfq_emit_loss;

/* model.safetensors: fuses and writes one tensor after the other. losses [plan->count]. Progress is
 * reported as stage `index` of `stages`. */
sfq_status sfq_emit_weights(const sfq_plan *plan, const sfq_source *source, sfq_outdir *dir,
                            const sfq_hooks *hooks, int index, int stages, sfq_emit_loss *losses,
                            sfq_error *err);

/* config.json. */
sfq_status sfq_emit_config(const sfq_plan *plan, const sfq_source *source, sfq_outdir *dir,
                           sfq_error *err);

/* A JSON object as a file of the directory. */
sfq_status sfq_emit_json(sfq_outdir *dir, const char *name, const json_t *json, sfq_error *err);

#endif

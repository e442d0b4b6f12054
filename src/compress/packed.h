/* compress/packed.h - a packed artifact whose small tensors (norms, biases, scales) can change:
 * codes stay in the file's map, the rest is float in memory of its own, and is written back as the
 * file stores it. */
#ifndef SFQ_COMPRESS_PACKED_H
#define SFQ_COMPRESS_PACKED_H

#include "compress/small.h"

typedef struct sfq_packed {
    char *dir;
    sfq_hf_config *config;
    sfq_artifact_info *artifact;
    sfq_arch *arch;
    sfq_checkpoint *ck;
    sfq_modules *modules;
    sfq_net *bound;             /* as the file has it */
    sfq_net net;                /* the same over `values` */
    sfq_smalls *smalls;         /* of net */
    const sfq_tensor **tensors; /* [smalls->count] of the file that the values came from */
    float *values;              /* [smalls->total] in the order of the list */
} sfq_packed;

sfq_status sfq_packed_open(sfq_packed **out, const char *dir, const sfq_hooks *hooks,
                           sfq_error *err);
void sfq_packed_close(sfq_packed **packed);

static inline float *sfq_packed_values(const sfq_packed *packed, size_t i)
{
    return (float *)(uintptr_t)*packed->smalls->items[i].place; /* in `values` */
}

/* model.safetensors and config.json with the values at hand, everything else as it was. */
sfq_status sfq_packed_write(const sfq_packed *packed, sfq_outdir *dir, const sfq_hooks *hooks,
                            sfq_error *err);

#endif

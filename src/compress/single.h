/* compress/single.h - fusing one matrix that lies in the caller's memory. */
#ifndef SFQ_COMPRESS_SINGLE_H
#define SFQ_COMPRESS_SINGLE_H

#include "compress/fuse.h"

/* w [n, k] floats; the rest as sfq_linear_pack. */
sfq_status sfq_single_pack(sfq_pool *pool, const float *w, const sfq_cluster *cluster, int bits,
                           const float *energy, const sfq_hooks *hooks, sfq_fuse_output *out,
                           bool *f16, sfq_error *err);

#endif

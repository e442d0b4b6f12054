/* compress/fuse.h - one matrix at a time: rows to panels, panels to clusters, clusters to a scale
 * and codes. The unit of work is a panel, so a result never depends on the thread count. */
#ifndef SFQ_COMPRESS_FUSE_H
#define SFQ_COMPRESS_FUSE_H

#include "compress/feedback.h"

typedef struct sfq_fuser sfq_fuser;

/* Scratch for matrices of up to max_k inputs. */
sfq_status sfq_fuser_open(sfq_fuser **out, sfq_pool *pool, size_t max_k, sfq_error *err);
void sfq_fuser_close(sfq_fuser **fuser);
uint64_t sfq_fuser_bytes(int threads, size_t max_k);

typedef struct sfq_fuse_input {
    const sfq_module *module;
    const sfq_tensor *weight;
    const sfq_cluster *cluster; /* of module's [n, k] */
    int bits;
    sfq_dtype scale_dtype;
    const uint32_t *row_order;    /* [N]: place n holds the source's row row_order[n]; or NULL */
    const uint32_t *column_order; /* [K]: the same for inputs */
    /* rounding with feedback; NULL: to nearest */
    const sfq_moment *moment;
    const float *gain; /* [K] */
    /* [K] in the source's order: the mean square of each input, for the scales; NULL: all alike */
    const float *energy;
} sfq_fuse_input;

typedef struct sfq_fuse_scan {
    bool finite;
    bool fits_f16; /* every cluster's scale does */
} sfq_fuse_scan;

/* One reading pass over the matrix. INTERRUPTED by the hooks. */
sfq_status sfq_fuser_scan(sfq_fuser *fuser, const sfq_fuse_input *in, const sfq_hooks *hooks,
                          sfq_fuse_scan *out, sfq_error *err);

typedef struct sfq_fuse_output {
    uint8_t *codes; /* sfq_cluster_code_bytes */
    float *scales;  /* sfq_cluster_scales, values that scale_dtype holds exactly; padding 1 */
    double error;   /* sum of (w - decoded)^2 */
    double energy;  /* sum of w^2 */
} sfq_fuse_output;

/* Called between runs of panels with the weights that were done since the last call. */
typedef sfq_status (*sfq_fuse_progress_fn)(void *ud, uint64_t weights, sfq_error *err);

/* out->codes and out->scales are the caller's memory. */
sfq_status sfq_fuser_pack(sfq_fuser *fuser, const sfq_fuse_input *in, sfq_fuse_progress_fn progress,
                          void *ud, sfq_fuse_output *out, sfq_error *err);

#endif

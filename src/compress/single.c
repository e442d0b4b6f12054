/* compress/single.c - see single.h. */
#include "compress/single.h"

#include "base/hooks.h"

typedef struct single_run {
    const sfq_hooks *hooks;
    uint64_t done, total;
} single_run;

static sfq_status on_weights(void *ud, uint64_t weights, sfq_error *err)
{
    single_run *run = ud;
    run->done += weights;
    sfq_hooks_progress(run->hooks, "fuse", 1, 1, run->done, run->total, "weights");
    return sfq_hooks_check(run->hooks, err);
}

sfq_status sfq_single_pack(sfq_pool *pool, const float *w, const sfq_cluster *cluster, int bits,
                           const float *energy, const sfq_hooks *hooks, sfq_fuse_output *out,
                           bool *f16, sfq_error *err)
{
    sfq_module module = {.n = cluster->n, .k = cluster->k};
    sfq_tensor weight = {.dtype = SFQ_F32, .rank = 2, .data = w};
    sfq_fuse_input in = {
        .module = &module, .weight = &weight, .cluster = cluster, .bits = bits, .energy = energy};
    single_run run = {.hooks = hooks, .total = (uint64_t)cluster->n * cluster->k};
    sfq_fuse_scan scan;
    sfq_fuser *fuser = NULL;
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_fuser_open(&fuser, pool, cluster->k, err));
    SFQ_DO(sfq_fuser_scan(fuser, &in, hooks, &scan, err));
    if (!scan.finite) {
        status = sfq_fail(err, SFQ_E_NUMERIC,
                          "the matrix of %zu x %zu weights holds a NaN or an infinity", cluster->n,
                          cluster->k);
        goto done;
    }
    *f16 = scan.fits_f16;
    in.scale_dtype = scan.fits_f16 ? SFQ_F16 : SFQ_F32;
    SFQ_DO(sfq_fuser_pack(fuser, &in, on_weights, &run, out, err));
done:
    sfq_fuser_close(&fuser);
    return status;
}

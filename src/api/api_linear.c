/* api/api_linear.c - <sfq/linear.h>: checks of arguments, and forwarding. */
#include "api/api.h"
#include "compress/single.h"
#include "model/product.h"

sfq_status sfq_workers_open(sfq_workers **out, int threads, sfq_error *err)
{
    SFQ_API_NEED(out);
    *out = NULL;
    return sfq_workers_make(out, threads, err);
}

void sfq_workers_close(sfq_workers **workers)
{
    sfq_workers_free(workers);
}

sfq_status sfq_workers_set_threads(sfq_workers *workers, int threads, sfq_error *err)
{
    SFQ_API_NEED(workers);
    return sfq_workers_resize(workers, threads, err);
}

static sfq_status make_cluster(sfq_cluster *c, size_t n, size_t k, int bits, sfq_error *err)
{
    if (n == 0 || k == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "a matrix of %zu x %zu weights is empty", n, k);
    if (bits < 2 || bits > 8)
        return sfq_fail(err, SFQ_E_ARGUMENT, "bits is %d, it must be in 2..8", bits);
    if (!sfq_cluster_make(c, n, k))
        return sfq_fail(err, SFQ_E_LIMIT, "a matrix of %zu x %zu weights is too large", n, k);
    return SFQ_OK;
}

sfq_status sfq_linear_layout_get(size_t n, size_t k, int bits, sfq_linear_layout *out,
                                 sfq_error *err)
{
    sfq_cluster c;
    SFQ_API_NEED(out);
    *out = (sfq_linear_layout){0};
    SFQ_TRY(make_cluster(&c, n, k, bits, err));
    *out = (sfq_linear_layout){.panels = c.panels,
                               .k_blocks = c.k_blocks,
                               .segments = c.segments,
                               .share = c.share,
                               .segment_k = c.segment_k,
                               .code_bytes = sfq_cluster_code_bytes(&c, bits),
                               .scale_count = sfq_cluster_scales(&c)};
    return SFQ_OK;
}

sfq_status sfq_linear_pack(sfq_workers *workers, const float *w, size_t n, size_t k, int bits,
                           const float *energy, const sfq_hooks *hooks, uint8_t *codes,
                           float *scales, bool *f16, sfq_error *err)
{
    sfq_cluster c;
    sfq_fuse_output out = {.codes = codes, .scales = scales};
    SFQ_API_NEED(workers);
    SFQ_API_NEED(w);
    SFQ_API_NEED(codes);
    SFQ_API_NEED(scales);
    SFQ_API_NEED(f16);
    SFQ_TRY(make_cluster(&c, n, k, bits, err));
    sfq_pool *pool = sfq_workers_take(workers);
    sfq_status status = sfq_single_pack(pool, w, &c, bits, energy, hooks, &out, f16, err);
    sfq_workers_leave(workers);
    return status;
}

/* The weight as the forward pass has its matrices. */
static sfq_status take_weight(sfq_matrix *m, const sfq_linear_weight *w, sfq_error *err)
{
    *m = (sfq_matrix){.n = w->n, .k = w->k, .packed = true};
    SFQ_API_NEED(w->codes);
    SFQ_API_NEED(w->scales);
    SFQ_TRY(make_cluster(&m->cluster, w->n, w->k, w->bits, err));
    if (w->activation_bits < SFQ_ACTIVATION_BITS_MIN ||
        w->activation_bits > SFQ_ACTIVATION_BITS_MAX)
        return sfq_fail(err, SFQ_E_ARGUMENT, "activation_bits is %d, it must be in %d..%d",
                        w->activation_bits, SFQ_ACTIVATION_BITS_MIN, SFQ_ACTIVATION_BITS_MAX);
    if ((uintptr_t)w->codes % 64 != 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "the codes must be aligned to 64 bytes");
    m->bits = w->bits;
    m->activation_bits = w->activation_bits;
    m->codes = w->codes;
    m->panel_bytes = sfq_cluster_panel_bytes(&m->cluster, w->bits);
    m->scales = w->scales;
    m->bias = w->bias;
    return SFQ_OK;
}

sfq_status sfq_linear_apply(sfq_workers *workers, const sfq_linear_weight *weight, const float *x,
                            size_t m, float *y, sfq_error *err)
{
    sfq_matrix matrix;
    SFQ_API_NEED(workers);
    SFQ_API_NEED(weight);
    SFQ_TRY(take_weight(&matrix, weight, err));
    if (m > 0) {
        SFQ_API_NEED(x);
        SFQ_API_NEED(y);
    }
    return sfq_product_run(workers, &matrix, x, m, y, err);
}

sfq_status sfq_linear_unpack(sfq_workers *workers, const sfq_linear_weight *weight, float *w,
                             sfq_error *err)
{
    sfq_matrix matrix;
    SFQ_API_NEED(workers);
    SFQ_API_NEED(weight);
    SFQ_API_NEED(w);
    SFQ_TRY(take_weight(&matrix, weight, err));
    sfq_product_decode(workers, &matrix, NULL, matrix.n, w);
    return SFQ_OK;
}

sfq_status sfq_linear_rows(sfq_workers *workers, const sfq_linear_weight *weight,
                           const int64_t *rows, size_t count, float *out, sfq_error *err)
{
    sfq_matrix matrix;
    SFQ_API_NEED(workers);
    SFQ_API_NEED(weight);
    SFQ_TRY(take_weight(&matrix, weight, err));
    if (count == 0)
        return SFQ_OK;
    SFQ_API_NEED(rows);
    SFQ_API_NEED(out);
    for (size_t i = 0; i < count; i++)
        if (rows[i] < 0 || (uint64_t)rows[i] >= matrix.n)
            return sfq_fail(err, SFQ_E_DATA, "row %lld is outside the table of %zu",
                            (long long)rows[i], matrix.n);
    sfq_product_decode(workers, &matrix, rows, count, out);
    return SFQ_OK;
}

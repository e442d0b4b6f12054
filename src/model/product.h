/* model/product.h - y = x W^T + b of one packed matrix outside any network: the same code as inside
 * (linear.c), with scratch of its own. */
#ifndef SFQ_MODEL_PRODUCT_H
#define SFQ_MODEL_PRODUCT_H

#include "base/pool.h"
#include "model/net.h"

#include <sfq/linear.h>

sfq_status sfq_workers_make(sfq_workers **out, int threads, sfq_error *err);
void sfq_workers_free(sfq_workers **workers);
sfq_status sfq_workers_resize(sfq_workers *workers, int threads, sfq_error *err);
/* The pool alone, until it is left: calls with the same workers wait for each other. */
sfq_pool *sfq_workers_take(sfq_workers *workers);
void sfq_workers_leave(sfq_workers *workers);

/* x [m, k], y [m, n]; the matrix is packed. */
sfq_status sfq_product_run(sfq_workers *workers, const sfq_matrix *w, const float *x, size_t m,
                           float *y, sfq_error *err);
/* Rows of the matrix, which are there; rows NULL: the first `count`. out [count, k] */
void sfq_product_decode(sfq_workers *workers, const sfq_matrix *w, const int64_t *rows,
                        size_t count, float *out);

#endif

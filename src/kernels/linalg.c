/* kernels/linalg.c - float products and weighted sums of outer products. */
#include "kernels/linalg.h"

#define REAL float
#define TILE f32
#define TILE_FN sfq_tile_f32
#include "kernels/product_template.h"

void sfq_linalg_gemm(sfq_pool *pool, const sfq_linalg_product *p)
{
    if (p->m == 0 || p->n == 0)
        return;
    if (p->k == 0) {
        for (size_t i = 0; i < p->m && !p->add; i++)
            memset(p->c + i * p->ldc, 0, p->n * sizeof *p->c);
        return;
    }
    product job = {.m = p->m, .n = p->n, .k = p->k, .c = p->c, .ldc = p->ldc};
    job.a = (operand){p->a, p->transpose_a ? p->lda : 1, p->transpose_a ? 1 : p->lda};
    job.b = (operand){p->b, p->transpose_b ? 1 : p->ldb, p->transpose_b ? p->ldb : 1};
    job.mode = p->add ? SFQ_TILE_ADD : SFQ_TILE_SET;
    product_run(pool, &job);
}

/* The weights are applied while a is packed; a block of K is a block of rows. */
void sfq_linalg_sum(sfq_pool *pool, const sfq_linalg_sums *s)
{
    if (s->t == 0 || s->k == 0)
        return;
    product job = {.m = s->k, .k = s->t, .weight = s->weight, .a = {s->a, s->lda, 1}};
    if (s->h != NULL) {
        job.b = job.a;
        job.sum = s->h;
        job.n = job.ldc = s->k;
        job.lower = true;
        product_run(pool, &job);
    }
    if (s->g != NULL && s->n > 0) {
        job.b = (operand){s->z, s->ldz, 1};
        job.sum = s->g;
        job.n = job.ldc = s->n;
        job.lower = false;
        product_run(pool, &job);
    }
}

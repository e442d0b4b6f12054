/* model/linear_grad.c - backward of y = x W^T + bias. The three products are calls of
 * kernels/linalg.h; what is done here is to give them float rows of W. A dense F32 matrix is used
 * where it lies; any other is decoded in blocks of whole panels, so that no float copy of W exists.
 *
 * With w = scale * (code - zero point), a scale's gradient is the sum over its cluster of the
 * weight's gradient times (code - zero point) (Esser et al. 2020, "Learned step size quantization",
 * eq. 3 with the codes kept). The gradient of a block of weights lives in scratch for that long. */
#include "model/grad_parts.h"

#include "base/ck.h"
#include "kernels/linalg.h"

enum {
    GRAD_ROWS = 256,   /* rows of W in a block; a multiple of SFQ_PANEL_N */
    BIAS_COLUMNS = 192 /* outputs of an item */
};

typedef struct linear_block {
    sfq_exec *e;
    const sfq_linear_grad_args *a;
    size_t row, rows;  /* of W */
    float *values;     /* [rows, K] weights, or codes less zero point */
    const float *d_w;  /* [rows, K] */
    const float *ones; /* [segments][16/share]: the scales that leave codes as they are */
} linear_block;

/* ---- the bias ---- */

static void bias_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_linear_grad_args *a = (const sfq_linear_grad_args *)ctx;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        double sum[BIAS_COLUMNS] = {0};
        size_t column = i * BIAS_COLUMNS, n = sfq_min_size(BIAS_COLUMNS, a->w->n - column);
        for (size_t t = 0; t < a->t; t++) {
            const float *d_y = a->d_y + t * a->ld_dy + column;
            if (n == BIAS_COLUMNS) /* a constant length: vectors */
                for (size_t j = 0; j < BIAS_COLUMNS; j++)
                    sum[j] += (double)d_y[j];
            else
                for (size_t j = 0; j < n; j++)
                    sum[j] += (double)d_y[j];
        }
        for (size_t j = 0; j < n; j++)
            a->into->bias[column + j] += (float)sum[j];
    }
}

static void bias_grad(sfq_exec *e, const sfq_linear_grad_args *a)
{
    sfq_linear_grad_args job = *a;
    size_t items = (a->w->n + BIAS_COLUMNS - 1) / BIAS_COLUMNS;
    sfq_exec_rows(e, items, a->t * BIAS_COLUMNS, bias_task, &job);
}

/* ---- the inputs ---- */

/* Whether the rows of W are floats in memory already. Offsets in a file need not be multiples of
 * four. */
static bool in_place(const sfq_matrix *w)
{
    return !w->packed && w->dtype == SFQ_F32 && (uintptr_t)w->w % _Alignof(float) == 0;
}

static void decode_task(void *ctx, size_t begin, size_t end, int worker)
{
    const linear_block *b = (const linear_block *)ctx;
    const sfq_matrix *w = b->a->w;
    (void)worker;
    for (size_t i = begin; i < end; i++)
        sfq_table_row(b->e->kernels, w, b->row + i, b->values + i * w->k);
}

/* d_x (+)= d_y[:, rows] W[rows, :] */
static void input_block(const linear_block *b, const float *rows_of_w, bool add)
{
    const sfq_linear_grad_args *a = b->a;
    sfq_linalg_gemm(b->e->pool, &(sfq_linalg_product){.a = a->d_y + b->row,
                                                      .lda = a->ld_dy,
                                                      .b = rows_of_w,
                                                      .ldb = a->w->k,
                                                      .m = a->t,
                                                      .n = a->w->k,
                                                      .k = b->rows,
                                                      .c = a->d_x,
                                                      .ldc = a->ld_dx,
                                                      .add = add});
}

static void input_grad(sfq_exec *e, const sfq_linear_grad_args *a)
{
    const sfq_matrix *w = a->w;
    linear_block b = {.e = e, .a = a, .values = a->scratch};
    if (in_place(w)) {
        b.rows = w->n;
        input_block(&b, (const float *)w->w, a->add);
        return;
    }
    for (; b.row < w->n; b.row += b.rows) {
        b.rows = sfq_min_size(GRAD_ROWS, w->n - b.row);
        sfq_exec_rows(e, b.rows, 2 * w->k, decode_task, &b);
        input_block(&b, b.values, a->add || b.row > 0);
    }
}

/* ---- the weights ---- */

/* d_w [rows, K] (+)= d_y[:, rows]^T x */
static void weight_product(sfq_exec *e, const sfq_linear_grad_args *a, size_t row, size_t rows,
                           float *d_w, bool add)
{
    sfq_linalg_gemm(e->pool, &(sfq_linalg_product){.a = a->d_y + row,
                                                   .lda = a->ld_dy,
                                                   .transpose_a = true,
                                                   .b = a->x,
                                                   .ldb = a->ldx,
                                                   .m = rows,
                                                   .n = a->w->k,
                                                   .k = a->t,
                                                   .c = d_w,
                                                   .ldc = a->w->k,
                                                   .add = add});
}

/* ---- the scales ---- */

/* sum_i a_i b_i: four partial sums, which depend on n alone */
static double dot(const float *a, const float *b, size_t n)
{
    double sum[4] = {0};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (size_t j = 0; j < 4; j++)
            sum[j] += (double)a[i + j] * (double)b[i + j];
    for (; i < n; i++)
        sum[0] += (double)a[i] * (double)b[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* The scales of one panel. Outputs that pad it have none of the gradient. */
static void panel_scales(const linear_block *b, size_t panel)
{
    const sfq_matrix *w = b->a->w;
    const sfq_cluster *c = &w->cluster;
    size_t first = b->row + panel * SFQ_PANEL_N, rows = sfq_min_size(SFQ_PANEL_N, w->n - first);
    size_t k = w->k;
    const uint8_t *codes = w->codes + first / SFQ_PANEL_N * w->panel_bytes;
    const float *d_w = b->d_w + panel * SFQ_PANEL_N * k;
    float *values = b->values + panel * SFQ_PANEL_N * k;
    for (size_t r = 0; r < rows; r++)
        b->e->kernels->unpack_row(values + r * k, codes, w->bits, b->ones, c, r);
    for (size_t group = 0; group < rows; group += c->share)
        for (size_t s = 0; s < c->segments; s++) {
            size_t begin = sfq_segment_begin(c, s), n = sfq_segment_end(c, s) - begin;
            double sum = 0;
            for (size_t r = group; r < sfq_min_size(rows, group + c->share); r++)
                sum += dot(d_w + r * k + begin, values + r * k + begin, n);
            b->a->into->scales[sfq_scale_index(c, first + group, s)] += (float)sum;
        }
}

static void scales_task(void *ctx, size_t begin, size_t end, int worker)
{
    (void)worker;
    for (size_t panel = begin; panel < end; panel++)
        panel_scales((const linear_block *)ctx, panel);
}

static void scale_grad(sfq_exec *e, const sfq_linear_grad_args *a)
{
    const sfq_matrix *w = a->w;
    size_t block = sfq_min_size(GRAD_ROWS, w->n) * w->k;
    float *d_w = a->scratch + block, *ones = d_w + block;
    for (size_t i = 0; i < w->cluster.segments * SFQ_PANEL_N; i++)
        ones[i] = 1.0F;
    linear_block b = {.e = e, .a = a, .values = a->scratch, .d_w = d_w, .ones = ones};
    for (; b.row < w->n; b.row += b.rows) {
        b.rows = sfq_min_size(GRAD_ROWS, w->n - b.row);
        weight_product(e, a, b.row, b.rows, d_w, false);
        size_t panels = (b.rows + SFQ_PANEL_N - 1) / SFQ_PANEL_N;
        sfq_exec_rows(e, panels, 4 * SFQ_PANEL_N * w->k, scales_task, &b);
    }
}

/* ---- all of it ---- */

size_t sfq_linear_grad_floats(const sfq_matrix *w)
{
    size_t block = sfq_min_size(GRAD_ROWS, w->n) * w->k;
    if (w->packed)
        return 2 * block + w->cluster.segments * SFQ_PANEL_N;
    return in_place(w) ? 0 : block;
}

void sfq_linear_grad(sfq_exec *e, const sfq_linear_grad_args *a)
{
    const sfq_matrix_grad *into = a->into;
    if (a->t == 0 || a->w->n == 0)
        return;
    if (into && into->bias)
        bias_grad(e, a);
    if (a->w->k == 0)
        return;
    if (into && into->w)
        weight_product(e, a, 0, a->w->n, into->w, true);
    if (into && into->scales && a->w->packed)
        scale_grad(e, a);
    if (a->d_x)
        input_grad(e, a);
}

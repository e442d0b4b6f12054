/* model/norm_grad.c - backward of LayerNorm and RMSNorm. With u = gain * d_y, n the normed row and
 * s = 1 / sqrt(var + eps):
 *   LayerNorm  d_x = s (u - mean(u) - n mean(u n))   (Ba et al. 2016, differentiated)
 *   RMSNorm    d_x = s (u - n mean(u n))             (Zhang and Sennrich 2019, section 4)
 *   d_gain = sum_t d_y n, d_bias = sum_t d_y
 * Sums over a row are double in lanes that depend on C alone. Sums over rows are float inside fixed
 * chunks, which are then merged in order. */
#include "model/grad_parts.h"

#include "base/ck.h"

#include <math.h>
#include <string.h>

enum {
    CHUNK_ROWS = 64,
    LANES = 8,
    MERGE_COLUMNS = 64 /* of an item */
};

static double lanes_sum(const double lane[LANES])
{
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* sum_i (x_i - mean) */
static double sum_from(const float *x, double mean, size_t c)
{
    double lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= c; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lane[j] += (double)x[i + j] - mean;
    for (; i < c; i++)
        lane[i % LANES] += (double)x[i] - mean;
    return lanes_sum(lane);
}

/* sum_i (x_i - mean)^2 */
static double squares_from(const float *x, double mean, size_t c)
{
    double lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= c; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lane[j] += ((double)x[i + j] - mean) * ((double)x[i + j] - mean);
    for (; i < c; i++)
        lane[i % LANES] += ((double)x[i] - mean) * ((double)x[i] - mean);
    return lanes_sum(lane);
}

/* sum_i u_i (x_i - mean) where x is given, else sum_i u_i; u = gain d_y */
static double sum_u(const float *gain, const float *d_y, const float *x, double mean, size_t c)
{
    double lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= c; i += LANES)
        for (size_t j = 0; j < LANES; j++) {
            double u = (double)gain[i + j] * (double)d_y[i + j];
            lane[j] += x ? u * ((double)x[i + j] - mean) : u;
        }
    for (; i < c; i++) {
        double u = (double)gain[i] * (double)d_y[i];
        lane[i % LANES] += x ? u * ((double)x[i] - mean) : u;
    }
    return lanes_sum(lane);
}

/* Partial sums of a chunk of rows, [C] each, or NULL. */
typedef struct norm_parts {
    float *gain, *bias;
} norm_parts;

static void norm_row(const sfq_norm_grad_args *a, size_t t, norm_parts parts)
{
    size_t c = a->c;
    const float *x = a->x + t * a->ldx, *d_y = a->d_y + t * a->ld_dy, *gain = a->norm->gain;
    float *d_x = a->d_x + t * a->ld_dx;
    double count = (double)c, mean = a->rms ? 0.0 : sum_from(x, 0.0, c) / count;
    double s = 1.0 / sqrt(squares_from(x, mean, c) / count + (double)a->eps);
    double mean_u = a->rms ? 0.0 : sum_u(gain, d_y, NULL, 0.0, c) / count;
    float mean_un = (float)(sum_u(gain, d_y, x, mean, c) * s / count);
    float center = (float)mean, inverse = (float)s, shift = (float)mean_u;
    for (size_t i = 0; i < c; i++) {
        float n = (x[i] - center) * inverse, d = d_y[i];
        float d_in = inverse * (gain[i] * d - shift - n * mean_un);
        if (parts.gain)
            parts.gain[i] += d * n;
        if (parts.bias)
            parts.bias[i] += d;
        d_x[i] = a->add ? d_x[i] + d_in : d_in;
    }
}

static norm_parts chunk_parts(const sfq_norm_grad_args *a, size_t chunk)
{
    float *base = a->scratch + chunk * 2 * a->c;
    norm_parts parts = {NULL, NULL};
    if (a->into && a->into->gain)
        parts.gain = base;
    if (a->into && a->into->bias)
        parts.bias = base + a->c;
    return parts;
}

static void chunk_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_norm_grad_args *a = (const sfq_norm_grad_args *)ctx;
    (void)worker;
    for (size_t chunk = begin; chunk < end; chunk++) {
        norm_parts parts = chunk_parts(a, chunk);
        if (parts.gain)
            memset(parts.gain, 0, a->c * sizeof(float));
        if (parts.bias)
            memset(parts.bias, 0, a->c * sizeof(float));
        size_t first = chunk * CHUNK_ROWS, last = sfq_min_size(a->t, first + CHUNK_ROWS);
        for (size_t t = first; t < last; t++)
            norm_row(a, t, parts);
    }
}

static size_t chunk_count(size_t t)
{
    return (t + CHUNK_ROWS - 1) / CHUNK_ROWS;
}

/* to[column..] += the chunks' parts in order */
static void merge(const sfq_norm_grad_args *a, const float *parts, float *to, size_t column,
                  size_t n)
{
    double sum[MERGE_COLUMNS] = {0};
    for (size_t chunk = 0; chunk < chunk_count(a->t); chunk++)
        for (size_t j = 0; j < n; j++)
            sum[j] += (double)parts[chunk * 2 * a->c + column + j];
    for (size_t j = 0; j < n; j++)
        to[column + j] += (float)sum[j];
}

static void merge_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_norm_grad_args *a = (const sfq_norm_grad_args *)ctx;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        size_t column = i * MERGE_COLUMNS, n = sfq_min_size(MERGE_COLUMNS, a->c - column);
        if (a->into->gain)
            merge(a, a->scratch, a->into->gain, column, n);
        if (a->into->bias)
            merge(a, a->scratch + a->c, a->into->bias, column, n);
    }
}

size_t sfq_norm_grad_floats(size_t t, size_t c)
{
    return chunk_count(t) * 2 * c;
}

void sfq_norm_grad_run(sfq_exec *e, const sfq_norm_grad_args *a)
{
    sfq_norm_grad_args job = *a;
    size_t chunks = chunk_count(a->t);
    sfq_exec_uneven(e, chunks, CHUNK_ROWS * 16 * a->c, 1, chunk_task, &job);
    if (chunks > 0 && a->into && (a->into->gain || a->into->bias))
        sfq_exec_rows(e, (a->c + MERGE_COLUMNS - 1) / MERGE_COLUMNS, chunks * MERGE_COLUMNS,
                      merge_task, &job);
}

/* compress/least_squares.c - with H the second moments of all inputs, S those that stay and P those
 * that go, the outputs lack A_P W_P^T, and the change of W_S^T that makes the error least is
 *     D = (H_SS + lambda)^-1 H_SP W_P^T
 * (Kurtic et al. 2022, "The optimal BERT surgeon", equation 5, for a whole set; M4 and the update
 * of M5). Lambda pulls towards the weights that are there, not towards zero. */
#include "compress/least_squares.h"

#include "base/ck.h"
#include "base/mem.h"

#include <math.h>

#define LARGEST_CHANGE 1.0 /* of the matrix' norm */

double sfq_least_squares_length(const double *g, size_t count, double norm_squared)
{
    double change = 0;
    for (size_t i = 0; i < count; i++)
        change += g[i] * g[i];
    if (!isfinite(change) || change == 0)
        return 0;
    const double ratio = sqrt(norm_squared / change) * LARGEST_CHANGE;
    return ratio < 1 ? ratio : 1;
}

/* Inputs S that stay, P that go. */
typedef struct parts {
    size_t *kept, *gone; /* [s], [p] ascending */
    size_t s, p;
    double *h;        /* [S, S] */
    double *across;   /* [P, S] */
    double *w;        /* [P, N] */
    double *g;        /* [S, N] */
    double *diagonal; /* [S] */
} parts;

static void close_parts(parts *a)
{
    sfq_mem_free(a->kept);
    sfq_mem_free(a->gone);
    sfq_mem_free(a->h);
    sfq_mem_free(a->across);
    sfq_mem_free(a->w);
    sfq_mem_free(a->g);
    sfq_mem_free(a->diagonal);
}

static bool products_fit(const sfq_least_squares *in)
{
    size_t count = 0;
    return sfq_ck_mul(in->k, in->k, &count) && sfq_ck_mul(count, sizeof(double), &count) &&
           sfq_ck_mul(in->k, in->n, &count) && sfq_ck_mul(count, sizeof(double), &count);
}

static sfq_status open_parts(parts *a, const sfq_least_squares *in, sfq_error *err)
{
    if (!products_fit(in))
        return sfq_fail(err, SFQ_E_LIMIT, "a matrix of %zu x %zu weights is too large to refit",
                        in->n, in->k);
    for (size_t i = 0; i < in->k; i++)
        a->s += in->keep[i];
    a->p = in->k - a->s;
    a->kept = SFQ_NEW_ARRAY(size_t, a->s);
    a->gone = SFQ_NEW_ARRAY(size_t, a->p);
    a->h = SFQ_NEW_ARRAY(double, a->s * a->s);
    a->across = SFQ_NEW_ARRAY(double, a->p * a->s);
    a->w = SFQ_NEW_ARRAY(double, a->p * in->n);
    a->g = SFQ_NEW_ARRAY(double, a->s * in->n);
    a->diagonal = SFQ_NEW_ARRAY(double, a->s);
    if (a->kept == NULL || a->gone == NULL || a->h == NULL || a->across == NULL || a->w == NULL ||
        a->g == NULL || a->diagonal == NULL)
        return sfq_fail_memory(err, in->k * (in->k + in->n) * sizeof(double), "least squares");
    for (size_t i = 0, s = 0, p = 0; i < in->k; i++)
        if (in->keep[i])
            a->kept[s++] = i;
        else
            a->gone[p++] = i;
    return SFQ_OK;
}

static double moment(const sfq_least_squares *in, size_t i, size_t j)
{
    return i > j ? in->gram[i * in->k + j] : in->gram[j * in->k + i];
}

/* Fills the parts; whether all that is read is finite, and no square is below 0. */
static bool gather(parts *a, const sfq_least_squares *in)
{
    bool finite = true;
    for (size_t i = 0; i < a->s; i++) {
        for (size_t j = 0; j <= i; j++) {
            a->h[i * a->s + j] = moment(in, a->kept[i], a->kept[j]);
            finite = finite && isfinite(a->h[i * a->s + j]);
        }
        finite = finite && a->h[i * a->s + i] >= 0;
    }
    for (size_t i = 0; i < a->p; i++)
        for (size_t j = 0; j < a->s; j++) {
            a->across[i * a->s + j] = moment(in, a->gone[i], a->kept[j]);
            finite = finite && isfinite(a->across[i * a->s + j]);
        }
    for (size_t n = 0; n < in->n; n++)
        for (size_t i = 0; i < a->p; i++)
            a->w[i * in->n + n] = (double)in->w[n * in->k + a->gone[i]];
    return finite;
}

/* Sum of the weights' squares; NaN or infinite where one is. */
static double norm_squared(const sfq_least_squares *in)
{
    double sum = 0;
    for (size_t i = 0; i < in->n * in->k; i++)
        sum += (double)in->w[i] * (double)in->w[i];
    return sum;
}

/* out = W_S + length * D^T; false where it is not finite. */
static bool add_change(const parts *a, const sfq_least_squares *in, double length, float *out)
{
    bool finite = true;
    for (size_t n = 0; n < in->n; n++)
        for (size_t i = 0; i < a->s; i++) {
            const double old = (double)in->w[n * in->k + a->kept[i]];
            const float now = (float)(old + length * a->g[i * in->n + n]);
            finite = finite && isfinite(now);
            out[n * a->s + i] = now;
        }
    return finite;
}

static sfq_status solve(sfq_pool *pool, parts *a, const sfq_least_squares *in, float *out,
                        sfq_error *err)
{
    const double norm = norm_squared(in);
    if (!isfinite(norm))
        return sfq_fail(err, SFQ_E_NUMERIC,
                        "the matrix of %zu x %zu weights holds a NaN or an infinity", in->n, in->k);
    if (!gather(a, in))
        return sfq_fail(
            err, SFQ_E_NUMERIC,
            "the second moments of %zu inputs hold a NaN, an infinity or a negative square", in->k);
    const sfq_ridge ridge = {.h = a->h,
                             .diagonal = a->diagonal,
                             .k = a->s,
                             .features = a->s - in->constants,
                             .damping = in->ridge,
                             .constant_damping = SFQ_CONSTANT_DAMPING};
    sfq_linalg_add_product(pool, a->g, a->across, a->w, a->s, in->n, a->p);
    if (!sfq_ridge_factor(pool, &ridge))
        return sfq_fail(err, SFQ_E_NUMERIC,
                        "the second moments of %zu inputs are not those of any data: they have "
                        "no Cholesky factor",
                        in->k);
    sfq_linalg_solve(pool, a->h, a->s, a->g, in->n);
    const double length = sfq_least_squares_length(a->g, ridge.features * in->n, norm);
    if (!add_change(a, in, length > 0 ? length : 1, out)) /* 0: constants alone change, or NaN */
        return sfq_fail(err, SFQ_E_NUMERIC, "the refitted weights are not finite");
    return SFQ_OK;
}

sfq_status sfq_least_squares_refit(sfq_pool *pool, const sfq_least_squares *in, float *out,
                                   sfq_error *err)
{
    parts a = {0};
    sfq_status status = SFQ_OK;
    SFQ_DO(open_parts(&a, in, err));
    SFQ_DO(solve(pool, &a, in, out, err));
done:
    close_parts(&a);
    return status;
}

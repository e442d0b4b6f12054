/* kernels/factor.c - Cholesky factor, solve and inverse in double, by halving: the halves are
 * joined by matrix products, in which nearly all of the work lies (Gustavson 1997, "Recursion leads
 * to automatic variable blocking for dense linear-algebra algorithms"; Peise and Bientinesi 2017,
 * "Algorithm 979: recursive algorithms for dense linear algebra"). Plain loops take over at LEAF.
 * Which rows and columns share an item of work decides no bit. */
#include "kernels/linalg.h"

#include <math.h>

#define REAL double
#define TILE f64
#define TILE_FN sfq_tile_f64
#include "kernels/product_template.h"

enum {
    LEAF = 16,
    SOLVE_COLUMNS = 128, /* of an item */
    SOLVE_ROWS = 64
};

/* c [m, n] -= a b; a and b as operands, [k, m] and [k, n]. */
static void subtract(sfq_pool *pool, double *c, size_t ldc, bool lower, operand a, operand b,
                     size_t m, size_t n, size_t k)
{
    product job = {.a = a, .b = b, .m = m, .n = n, .k = k, .c = c, .ldc = ldc, .lower = lower};
    job.mode = SFQ_TILE_SUBTRACT;
    product_run(pool, &job);
}

void sfq_linalg_add_product(sfq_pool *pool, double *c, const double *a, const double *b, size_t m,
                            size_t n, size_t k)
{
    product job = {.a = {a, m, 1}, .b = {b, n, 1}, .m = m, .n = n, .k = k, .c = c, .ldc = n};
    job.mode = SFQ_TILE_ADD;
    if (m > 0 && n > 0 && k > 0)
        product_run(pool, &job);
}

/* The first half: a whole number of leaves. */
static size_t half(size_t n)
{
    return sfq_round_up(n / 2, LEAF);
}

/* ---- triangular solves, x in place ---- */

/* L [n, ldl], lower; x [n, count], or [count, n] in solve_rows */
typedef struct triangle {
    const double *l;
    size_t ldl, n;
    double *x;
    size_t ldx, count;
} triangle;

/* L x = b of at most LEAF rows */
static void forward_leaf(const triangle *s)
{
    for (size_t i = 0; i < s->n; i++) {
        double *row = s->x + i * s->ldx, inverse = 1.0 / s->l[i * s->ldl + i];
        for (size_t k = 0; k < i; k++) {
            const double factor = s->l[i * s->ldl + k], *other = s->x + k * s->ldx;
            for (size_t j = 0; j < s->count; j++)
                row[j] -= factor * other[j];
        }
        for (size_t j = 0; j < s->count; j++)
            row[j] *= inverse;
    }
}

/* L^T x = b of at most LEAF rows */
static void backward_leaf(const triangle *s)
{
    for (size_t i = s->n; i-- > 0;) {
        double *row = s->x + i * s->ldx, inverse = 1.0 / s->l[i * s->ldl + i];
        for (size_t k = i + 1; k < s->n; k++) {
            const double factor = s->l[k * s->ldl + i], *other = s->x + k * s->ldx;
            for (size_t j = 0; j < s->count; j++)
                row[j] -= factor * other[j];
        }
        for (size_t j = 0; j < s->count; j++)
            row[j] *= inverse;
    }
}

/* L x = b */
static void solve_forward(triangle s)
{
    if (s.n <= LEAF) {
        forward_leaf(&s);
        return;
    }
    const size_t h = half(s.n), rest = s.n - h;
    triangle first = s, last = s;
    first.n = h;
    last.n = rest;
    last.l += h * s.ldl + h;
    last.x += h * s.ldx;
    solve_forward(first);
    subtract(NULL, last.x, s.ldx, false, (operand){s.l + h * s.ldl, 1, s.ldl},
             (operand){s.x, s.ldx, 1}, rest, s.count, h);
    solve_forward(last);
}

/* L^T x = b */
static void solve_backward(triangle s)
{
    if (s.n <= LEAF) {
        backward_leaf(&s);
        return;
    }
    const size_t h = half(s.n), rest = s.n - h;
    triangle first = s, last = s;
    first.n = h;
    last.n = rest;
    last.l += h * s.ldl + h;
    last.x += h * s.ldx;
    solve_backward(last);
    subtract(NULL, s.x, s.ldx, false, (operand){s.l + h * s.ldl, s.ldl, 1},
             (operand){last.x, s.ldx, 1}, h, s.count, rest);
    solve_backward(first);
}

/* x L^T = b of at most LEAF columns: a forward solve of the rows as columns */
__attribute__((noinline)) static void rows_leaf(const triangle *s)
{
    double turned[LEAF * SOLVE_ROWS];
    triangle t = {s->l, s->ldl, s->n, turned, SOLVE_ROWS, s->count};
    for (size_t i = 0; i < s->count; i++)
        for (size_t j = 0; j < s->n; j++)
            turned[j * SOLVE_ROWS + i] = s->x[i * s->ldx + j];
    forward_leaf(&t);
    for (size_t i = 0; i < s->count; i++)
        for (size_t j = 0; j < s->n; j++)
            s->x[i * s->ldx + j] = turned[j * SOLVE_ROWS + i];
}

/* x L^T = b */
static void solve_rows(triangle s)
{
    if (s.n <= LEAF) {
        rows_leaf(&s);
        return;
    }
    const size_t h = half(s.n), rest = s.n - h;
    triangle first = s, last = s;
    first.n = h;
    last.n = rest;
    last.l += h * s.ldl + h;
    last.x += h;
    solve_rows(first);
    subtract(NULL, last.x, s.ldx, false, (operand){s.x, 1, s.ldx},
             (operand){s.l + h * s.ldl, 1, s.ldl}, s.count, rest, h);
    solve_rows(last);
}

static void columns_task(void *ctx, size_t begin, size_t end, int worker)
{
    const triangle *all = ctx;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        triangle s = *all;
        s.x += i * SOLVE_COLUMNS;
        s.count = sfq_min_size(SOLVE_COLUMNS, s.count - i * SOLVE_COLUMNS);
        solve_forward(s);
        solve_backward(s);
    }
}

void sfq_linalg_solve(sfq_pool *pool, const double *factor, size_t k, double *x, size_t n)
{
    triangle all = {factor, k, k, x, n, n};
    if (k > 0)
        sfq_pool_run_dynamic(pool, pieces(n, SOLVE_COLUMNS), 1, columns_task, &all);
}

void sfq_linalg_inverse(sfq_pool *pool, const double *factor, size_t k, double *inverse)
{
    memset(inverse, 0, k * k * sizeof *inverse);
    for (size_t i = 0; i < k; i++)
        inverse[i * k + i] = 1.0;
    sfq_linalg_solve(pool, factor, k, inverse, k);
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < i; j++)
            inverse[j * k + i] = inverse[i * k + j];
}

/* ---- factor ---- */

/* The pivot that is not above zero, or is no number, ends it. */
static bool factor_leaf(double *h, size_t ld, size_t n)
{
    for (size_t j = 0; j < n; j++) {
        double *row = h + j * ld;
        for (size_t i = 0; i < j; i++) {
            double sum = row[i];
            for (size_t k = 0; k < i; k++)
                sum -= row[k] * h[i * ld + k];
            row[i] = sum / h[i * ld + i];
        }
        double pivot = row[j];
        for (size_t k = 0; k < j; k++)
            pivot -= row[k] * row[k];
        if (!(pivot > 0.0) || !isfinite(pivot))
            return false;
        row[j] = sqrt(pivot);
    }
    return true;
}

static void rows_task(void *ctx, size_t begin, size_t end, int worker)
{
    const triangle *all = ctx;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        triangle s = *all;
        s.x += i * SOLVE_ROWS * s.ldx;
        s.count = sfq_min_size(SOLVE_ROWS, s.count - i * SOLVE_ROWS);
        solve_rows(s);
    }
}

static bool factor(sfq_pool *pool, double *h, size_t ld, size_t n)
{
    if (n <= LEAF)
        return factor_leaf(h, ld, n);
    const size_t first = half(n), rest = n - first;
    double *below = h + first * ld, *corner = below + first;
    if (!factor(pool, h, ld, first))
        return false;
    triangle all = {h, ld, first, below, ld, rest};
    sfq_pool_run_dynamic(pool, pieces(rest, SOLVE_ROWS), 1, rows_task, &all);
    const operand columns = {below, 1, ld};
    subtract(pool, corner, ld, true, columns, columns, rest, rest, first);
    return factor(pool, corner, ld, rest);
}

bool sfq_linalg_cholesky(sfq_pool *pool, double *h, size_t k)
{
    return k == 0 || factor(pool, h, k, k);
}

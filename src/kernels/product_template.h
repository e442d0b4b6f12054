/* kernels/product_template.h - matrix products out of tiles, for one element type (Goto and van de
 * Geijn 2008, "Anatomy of high-performance matrix multiplication"): a block of K x COLUMNS of b is
 * packed once, then each panel of 12 rows of a runs over it from the first-level cache. The packed
 * operands live on the stack, so that nothing can fail.
 *
 * K is cut into blocks of BLOCK_K anchored at 0: an element is the sum of its blocks in ascending
 * order. Nothing else decides its bits, so regions may be cut as suits the number of threads.
 *
 * The includer defines REAL, TILE_FN (type of a tile) and TILE (its member of sfq_tiles). */
#include "base/ck.h"
#include "base/pool.h"
#include "kernels/tile.h"

#include <string.h>

enum {
    TILE_COLUMNS = SFQ_TILE_BYTES / sizeof(REAL),
    BLOCK_K = 256,
    BLOCK_COLUMNS = 512 * 1024 / (BLOCK_K * (int)sizeof(REAL)),
    MIN_ROWS = 4 * SFQ_TILE_ROWS,
    MAX_ROWS = 80 * SFQ_TILE_ROWS,
    REGIONS_PER_THREAD = 4,
    INLINE_WORK = 1 << 15 /* multiply-adds below which waking the pool costs more */
};

/* An operand as [K, width], whichever way it lies in memory: one of the strides is 1. */
typedef struct operand {
    const REAL *at;
    size_t stride_k, stride;
} operand;

/* c [M, ldc] = or += or -= a b. lower: elements above the diagonal are neither read nor written. */
typedef struct product {
    operand a, b;
    const float *weight; /* [K] factors of a, or NULL */
    size_t m, n, k;
    REAL *c;
    double *sum; /* instead of c: += each block of K, in double */
    size_t ldc;
    sfq_tile_mode mode;
    bool lower;
    TILE_FN *tile;
    size_t rows, columns, row_regions; /* of a region; regions along M */
} product;

/* dst [k, WIDTH] from `width` columns, zeros behind them */
static inline __attribute__((always_inline)) void pack_panel(REAL *dst, const operand *o, size_t k,
                                                             size_t width, const size_t WIDTH)
{
    const REAL *src = o->at;
    if (width < WIDTH)
        memset(dst, 0, k * WIDTH * sizeof(REAL));
    if (o->stride != 1)
        for (size_t j = 0; j < width; j++)
            for (size_t l = 0; l < k; l++)
                dst[l * WIDTH + j] = src[j * o->stride + l];
    else if (width == WIDTH)
        for (size_t l = 0; l < k; l++)
            memcpy(dst + l * WIDTH, src + l * o->stride_k, WIDTH * sizeof(REAL));
    else
        for (size_t l = 0; l < k; l++)
            memcpy(dst + l * WIDTH, src + l * o->stride_k, width * sizeof(REAL));
}

static operand operand_at(const operand *o, size_t k, size_t column)
{
    operand at = *o;
    at.at += k * o->stride_k + column * o->stride;
    return at;
}

static void pack_b(const product *p, REAL *dst, size_t k0, size_t k, size_t j0, size_t n)
{
    for (size_t j = 0; j < n; j += TILE_COLUMNS) {
        operand b = operand_at(&p->b, k0, j0 + j);
        pack_panel(dst + j * BLOCK_K, &b, k, sfq_min_size(TILE_COLUMNS, n - j), TILE_COLUMNS);
    }
}

static void pack_a(const product *p, REAL *dst, size_t k0, size_t k, size_t i0, size_t m)
{
    operand a = operand_at(&p->a, k0, i0);
    pack_panel(dst, &a, k, m, SFQ_TILE_ROWS);
    for (size_t l = 0; p->weight != NULL && l < k; l++)
        for (size_t i = 0; i < SFQ_TILE_ROWS; i++)
            dst[l * SFQ_TILE_ROWS + i] *= (REAL)p->weight[k0 + l];
}

/* A tile that goes beyond c, crosses the diagonal or is summed in double: on the side. */
static void edge_tile(const product *p, const REAL *a, const REAL *b, size_t k, sfq_tile_mode mode,
                      size_t i0, size_t m, size_t j0, size_t n)
{
    _Alignas(64) REAL tile[SFQ_TILE_ROWS * TILE_COLUMNS];
    p->tile(tile, TILE_COLUMNS, a, b, k, SFQ_TILE_SET);
    for (size_t i = 0; i < m; i++) {
        size_t end = p->lower ? sfq_min_size(i0 + i + 1, j0 + n) : j0 + n;
        const REAL *from = tile + i * TILE_COLUMNS;
        size_t row = (i0 + i) * p->ldc;
        for (size_t j = j0; j < end; j++) {
            REAL value = from[j - j0];
            if (p->sum != NULL)
                p->sum[row + j] += (double)value;
            else if (mode == SFQ_TILE_SET)
                p->c[row + j] = value;
            else
                p->c[row + j] += mode == SFQ_TILE_ADD ? value : -value;
        }
    }
}

/* Asks for inputs [begin, end) of the rows of a that are packed next: their lines lie far apart, so
 * that packing would wait for each. */
static void prefetch_a(const operand *a, size_t begin, size_t end)
{
    const size_t line = 64 / sizeof(REAL);
    if (a->stride == 1)
        for (size_t l = begin; l < end; l++)
            __builtin_prefetch(a->at + l * a->stride_k, 0, 2);
    else
        for (size_t l = begin; l < end; l += line)
            for (size_t j = 0; j < SFQ_TILE_ROWS; j++)
                __builtin_prefetch(a->at + j * a->stride + l, 0, 2);
}

/* One panel of a over the packed block of b. next: the panel after it, or NULL. */
static void panel_row(const product *p, const REAL *a, const REAL *b, size_t k, sfq_tile_mode mode,
                      size_t i0, size_t m, size_t j0, size_t n, const operand *next)
{
    for (size_t j = 0; j < n; j += TILE_COLUMNS) {
        size_t column = j0 + j, width = sfq_min_size(TILE_COLUMNS, n - j);
        if (p->lower && column >= i0 + m)
            return;
        if (next != NULL)
            prefetch_a(next, k * j / n, k * (j + width) / n);
        bool crosses = p->lower && column + width > i0 + 1;
        if (p->sum != NULL || crosses || m < SFQ_TILE_ROWS || width < TILE_COLUMNS)
            edge_tile(p, a, b + j * BLOCK_K, k, mode, i0, m, column, width);
        else
            p->tile(p->c + i0 * p->ldc + column, p->ldc, a, b + j * BLOCK_K, k, mode);
    }
}

/* Not inlined: callers that recurse must not carry its frame. */
__attribute__((noinline)) static void region(const product *p, size_t i0, size_t m, size_t j0,
                                             size_t n)
{
    _Alignas(64) REAL a[BLOCK_K * SFQ_TILE_ROWS];
    _Alignas(64) REAL b[BLOCK_K * BLOCK_COLUMNS];
    sfq_tile_mode mode = p->mode;
    for (size_t k0 = 0; k0 < p->k; k0 += BLOCK_K) {
        size_t k = sfq_min_size(BLOCK_K, p->k - k0);
        pack_b(p, b, k0, k, j0, n);
        for (size_t i = 0; i < m; i += SFQ_TILE_ROWS) {
            size_t rows = sfq_min_size(SFQ_TILE_ROWS, m - i);
            if (p->lower && j0 >= i0 + i + rows)
                continue;
            pack_a(p, a, k0, k, i0 + i, rows);
            bool whole = i + 2 * SFQ_TILE_ROWS <= m; /* the next panel is */
            operand next = operand_at(&p->a, k0, i0 + i + (whole ? SFQ_TILE_ROWS : 0));
            panel_row(p, a, b, k, mode, i0 + i, rows, j0, n, whole ? &next : NULL);
        }
        mode = mode == SFQ_TILE_SET ? SFQ_TILE_ADD : mode;
    }
}

static void region_task(void *ctx, size_t begin, size_t end, int worker)
{
    const product *p = ctx;
    (void)worker;
    for (size_t r = begin; r < end; r++) {
        size_t i = r % p->row_regions * p->rows, j = r / p->row_regions * p->columns;
        size_t m = sfq_min_size(p->rows, p->m - i);
        if (!p->lower || j < i + m)
            region(p, i, m, j, sfq_min_size(p->columns, p->n - j));
    }
}

static size_t pieces(size_t n, size_t most)
{
    return (n + most - 1) / most;
}

/* Regions as even as can be, of whole tiles. M, N and K are not 0. */
static void product_run(sfq_pool *pool, product *p)
{
    size_t threads = (size_t)sfq_pool_threads(pool);
    size_t across = pieces(p->n, BLOCK_COLUMNS);
    p->tile = sfq_tiles_get()->TILE;
    p->columns = sfq_round_up(pieces(p->n, across), TILE_COLUMNS);
    across = pieces(p->n, p->columns);
    size_t wanted = threads == 1 ? 1 : pieces(REGIONS_PER_THREAD * threads, across);
    p->rows = sfq_round_up(pieces(p->m, wanted), SFQ_TILE_ROWS);
    p->rows = sfq_min_size(sfq_max_size(p->rows, MIN_ROWS), MAX_ROWS);
    p->row_regions = pieces(p->m, p->rows);
    size_t regions = p->row_regions * across;
    if (p->m * p->n < INLINE_WORK / p->k)
        region_task(p, 0, regions, 0);
    else
        sfq_pool_run_dynamic(pool, regions, 1, region_task, p);
}

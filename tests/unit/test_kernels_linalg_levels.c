/* Products, sums, Cholesky, solve and inverse at every instruction set that the host has: the same
 * bits as ref, and nothing touched beyond the matrices, which lie directly before or behind a page
 * that nobody may touch. */
#include "kernels/linalg.h"

#include "base/rng.h"
#include "kernels/tile.h"

#include "unit/unit.h"

#include <sys/mman.h>
#include <unistd.h>

enum { LEVELS = 3, MOST_MAPS = 32 };
static const char *const level_names[LEVELS] = {"ref", "avx2", "avx512"};
static sfq_tile_f32 *const level_tiles[LEVELS] = {sfq_tile_f32_ref, sfq_tile_f32_avx2,
                                                  sfq_tile_f32_avx512};

/* False where the host lacks the level. */
static bool use_level(int level)
{
    assert_int_equal(setenv("SFQ_MAX_ISA", level_names[level], 1), 0);
    for (int above = level + 1; above < LEVELS; above++)
        assert_false(sfq_tiles_get()->f32 == level_tiles[above]);
    return sfq_tiles_get()->f32 == level_tiles[level];
}

/* ---- memory between two pages that nobody may touch ---- */

static struct {
    void *at;
    size_t bytes;
} maps[MOST_MAPS];
static int map_count;

static void *guarded(size_t bytes, bool at_end)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inside = (bytes + page - 1) / page * page;
    char *p = mmap(NULL, inside + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED && map_count < MOST_MAPS);
    if (inside > 0)
        assert_int_equal(mprotect(p + page, inside, PROT_READ | PROT_WRITE), 0);
    maps[map_count].at = p;
    maps[map_count++].bytes = inside + 2 * page;
    return at_end ? p + page + inside - bytes : p + page;
}

static void free_guarded(void)
{
    while (map_count > 0) {
        map_count--;
        munmap(maps[map_count].at, maps[map_count].bytes);
    }
}

static float *floats(size_t count, uint64_t stream, bool at_end)
{
    float *x = guarded(count * sizeof *x, at_end);
    for (size_t i = 0; i < count; i++)
        x[i] = (float)sfq_rng_normal(3, stream, i);
    return x;
}

static double *doubles(size_t count, uint64_t stream, bool at_end)
{
    double *x = guarded(count * sizeof *x, at_end);
    for (size_t i = 0; i < count; i++)
        x[i] = sfq_rng_normal(3, stream, i);
    return x;
}

/* What the levels made of the same inputs, from that of ref on. */
static void *expected;

static void same_as_ref(int level, const void *got, size_t bytes)
{
    if (level == 0) {
        expected = malloc(bytes + 1);
        assert_non_null(expected);
        memcpy(expected, got, bytes);
    } else {
        assert_memory_equal(got, expected, bytes);
    }
}

static void each_level(void (*run)(int level, const void *ctx), const void *ctx)
{
    for (int level = 0; level < LEVELS; level++) {
        if (use_level(level))
            run(level, ctx);
        free_guarded();
    }
    free(expected);
    expected = NULL;
}

/* ---- products ---- */

typedef struct shape {
    size_t m, n, k, gap;
    bool ta, tb, add, at_end;
} shape;

/* elements of `rows` rows, the last one without its gap */
static size_t extent(size_t rows, size_t columns, size_t ld)
{
    return rows == 0 || columns == 0 ? 0 : (rows - 1) * ld + columns;
}

static void run_product(int level, const void *ctx)
{
    const shape *s = ctx;
    sfq_linalg_product p = {.m = s->m, .n = s->n, .k = s->k, .add = s->add};
    p.transpose_a = s->ta;
    p.transpose_b = s->tb;
    p.lda = (s->ta ? s->m : s->k) + s->gap;
    p.ldb = (s->tb ? s->k : s->n) + s->gap;
    p.ldc = s->n + s->gap;
    size_t size_c = extent(s->m, s->n, p.ldc);
    p.a = floats(extent(s->ta ? s->k : s->m, s->ta ? s->m : s->k, p.lda), 1, s->at_end);
    p.b = floats(extent(s->tb ? s->n : s->k, s->tb ? s->k : s->n, p.ldb), 2, s->at_end);
    p.c = floats(size_c, 3, s->at_end);
    sfq_linalg_gemm(NULL, &p);
    same_as_ref(level, p.c, size_c * sizeof(float));
}

static void products(void **state)
{
    (void)state;
    static const size_t sizes[][3] = {{1, 1, 1},    {5, 7, 0},    {13, 33, 1},     {12, 32, 256},
                                      {11, 31, 2},  {1, 70, 300}, {70, 1, 257},    {25, 65, 513},
                                      {96, 64, 40}, {49, 5, 3},   {100, 530, 260}, {970, 3, 5}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int v = 0; v < 32; v++) {
            shape s = {sizes[i][0],  sizes[i][1],  sizes[i][2],  (v & 1) != 0 ? 3 : 0,
                       (v & 2) != 0, (v & 4) != 0, (v & 8) != 0, (v & 16) != 0};
            each_level(run_product, &s);
        }
}

/* ---- sums ---- */

static void run_sum(int level, const void *ctx)
{
    const shape *s = ctx; /* m: rows; n: columns of z; k: of a */
    size_t lda = s->k + s->gap, ldz = s->n + s->gap, all = s->k * (s->k + s->n);
    double *hg = doubles(all, 4, s->at_end);
    float *weight = floats(s->m, 5, s->at_end);
    sfq_linalg_sums sums = {.h = hg, .g = hg + s->k * s->k, .lda = lda, .ldz = ldz};
    sums.a = floats(extent(s->m, s->k, lda), 6, s->at_end);
    sums.z = floats(extent(s->m, s->n, ldz), 7, s->at_end);
    sums.weight = s->add ? weight : NULL;
    sums.t = s->m;
    sums.k = s->k;
    sums.n = s->n;
    sfq_linalg_sum(NULL, &sums);
    same_as_ref(level, hg, all * sizeof(double));
}

static void weighted_sums(void **state)
{
    (void)state;
    static const size_t sizes[][3] = {{1, 1, 1}, {700, 17, 33}, {257, 0, 70}, {40, 270, 65}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int v = 0; v < 8; v++) {
            shape s = {.m = sizes[i][0], .n = sizes[i][1], .k = sizes[i][2]};
            s.gap = (v & 1) != 0 ? 5 : 0;
            s.add = (v & 2) != 0;
            s.at_end = (v & 4) != 0;
            each_level(run_sum, &s);
        }
}

/* ---- Cholesky, solve and inverse ---- */

/* Diagonally dominant. All results one behind the other. */
static void run_factor(int level, const void *ctx)
{
    const shape *s = ctx;
    size_t k = s->k, n = s->n;
    double *h = doubles(k * k, 8, s->at_end), *x = doubles(k * n, 9, s->at_end);
    double *inverse = doubles(k * k, 10, s->at_end), *all = doubles(k * (2 * k + n), 11, false);
    for (size_t i = 0; i < k; i++)
        h[i * k + i] = 3.0 * (double)k;
    assert_true(sfq_linalg_cholesky(NULL, h, k));
    sfq_linalg_solve(NULL, h, k, x, n);
    sfq_linalg_inverse(NULL, h, k, inverse);
    memcpy(all, h, k * k * sizeof *h);
    memcpy(all + k * k, inverse, k * k * sizeof *h);
    memcpy(all + 2 * k * k, x, k * n * sizeof *h);
    same_as_ref(level, all, k * (2 * k + n) * sizeof *h);
}

static void factors(void **state)
{
    (void)state;
    static const size_t sizes[][2] = {{1, 1}, {15, 2}, {17, 130}, {33, 1}, {100, 29}, {291, 3}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int v = 0; v < 2; v++) {
            shape s = {.k = sizes[i][0], .n = sizes[i][1], .at_end = v == 1};
            each_level(run_factor, &s);
        }
}

/* ---- the choice ---- */

static void cap_is_kept(void **state)
{
    (void)state;
    assert_true(use_level(0)); /* ref is everywhere */
    for (int level = 1; level < LEVELS; level++)
        if (!use_level(level))
            print_message("SKIP: this processor has no %s\n", level_names[level]);
}

static int restore_cap(void **state)
{
    (void)state;
    return unsetenv("SFQ_MAX_ISA");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),
        cmocka_unit_test(weighted_sums),
        cmocka_unit_test(factors),
        cmocka_unit_test(cap_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, restore_cap);
}

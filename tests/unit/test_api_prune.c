/* unit/test_api_prune.c - pruning outside any model: the units that cost least go, floors and
 * multiples hold, and a matrix whose inputs were cut is refitted to what it gave before. */
#include "unit.h"

#include "base/rng.h"

#include <math.h>
#include <sfq/sfq.h>

enum { HEADS = 4, NEURONS = 96, UNITS = 2 * (HEADS + NEURONS), GROUPS = 4 };

static sfq_error err;

/* Two layers: groups 0 and 2 are heads, 1 and 3 neurons. */
typedef struct layers {
    double saliency[UNITS];
    uint64_t cost[UNITS];
    uint32_t group[UNITS];
    size_t floor[GROUPS], multiple[GROUPS];
    bool keep[UNITS];
    sfq_prune_units units;
} layers;

static void layers_make(layers *l, uint64_t seed)
{
    *l = (layers){.floor = {1, 16, 1, 16}, .multiple = {1, 0, 1, 0}};
    for (uint32_t i = 0; i < UNITS; i++) {
        const uint32_t layer = i % 2; /* units of a group need not lie together */
        const bool head = i / 2 < HEADS;
        l->group[i] = 2 * layer + !head;
        l->cost[i] = head ? 160 : 10;
        l->saliency[i] = sfq_rng_uniform(seed, head, i) * (head ? 16 : 1);
    }
    l->units = (sfq_prune_units){.n = UNITS,
                                 .groups = GROUPS,
                                 .saliency = l->saliency,
                                 .cost = l->cost,
                                 .group = l->group,
                                 .floor = l->floor,
                                 .multiple = l->multiple};
}

static size_t kept(const layers *l, uint32_t group)
{
    size_t count = 0;
    for (size_t i = 0; i < UNITS; i++)
        count += l->group[i] == group && l->keep[i];
    return count;
}

/* Worth and cost of what went. */
static double removed(const layers *l, uint64_t *cost)
{
    double worth = 0;
    *cost = 0;
    for (size_t i = 0; i < UNITS; i++) {
        worth += l->keep[i] ? 0 : l->saliency[i];
        *cost += l->keep[i] ? 0 : l->cost[i];
    }
    return worth;
}

static void shares_are_met(void **state)
{
    (void)state;
    const uint64_t all = (uint64_t)2 * (HEADS * 160 + NEURONS * 10);
    for (uint64_t seed = 0; seed < 10; seed++) {
        double before = -1;
        layers l;
        layers_make(&l, seed);
        for (int percent = 0; percent <= 75; percent += 5) {
            uint64_t cost = 0;
            assert_ok(sfq_prune_choose_units(&l.units, percent / 100.0, l.keep, &err));
            const double worth = removed(&l, &cost);
            assert_true((double)cost >= percent / 100.0 * (double)all - 1e-6);
            assert_true((double)cost < percent / 100.0 * (double)all + 160);
            assert_true(worth >= before);
            before = worth;
            for (uint32_t g = 0; g < GROUPS; g++)
                assert_true(g % 2 == 0 ? kept(&l, g) >= 1 : kept(&l, g) % 16 == 0);
        }
        assert_fails(SFQ_E_INFEASIBLE, "let 80.00 % go",
                     sfq_prune_choose_units(&l.units, 0.81, l.keep, &err));
    }
}

/* In each group those worth least go, and equal ones from the front. */
static void least_worth_goes(void **state)
{
    (void)state;
    layers l;
    layers_make(&l, 3);
    assert_ok(sfq_prune_choose_units(&l.units, 0.5, l.keep, &err));
    for (size_t i = 0; i < UNITS; i++)
        for (size_t j = 0; j < UNITS; j++)
            if (l.group[i] == l.group[j] && l.keep[i] && !l.keep[j])
                assert_true(l.saliency[i] >= l.saliency[j]);
    for (size_t i = 0; i < UNITS; i++)
        l.saliency[i] = (double)l.cost[i];
    assert_ok(sfq_prune_choose_units(&l.units, 0.05, l.keep, &err));
    for (size_t i = 0; i < UNITS; i++) /* 16 neurons of layer 0, which are as good as a head */
        assert_true(l.keep[i] == !(l.group[i] == 1 && i < 2 * (HEADS + 16)));
}

/* Wide groups go by 64; a multiple of its own, a floor above the width, and no units at all. */
static void multiples(void **state)
{
    (void)state;
    enum { WIDE = 300, LESS = 24 };
    double saliency[WIDE + LESS];
    uint64_t cost[WIDE + LESS];
    uint32_t group[WIDE + LESS];
    bool keep[WIDE + LESS];
    size_t floor[2] = {64, 4}, multiple[2] = {0, 8}, count = 0;
    for (size_t i = 0; i < WIDE + LESS; i++) {
        saliency[i] = i < WIDE ? 1 : 100;
        cost[i] = 3;
        group[i] = i >= WIDE;
    }
    const sfq_prune_units u = {WIDE + LESS, 2, saliency, cost, group, floor, multiple};
    assert_ok(sfq_prune_choose_units(&u, 0.01, keep, &err));
    for (size_t i = 0; i < WIDE; i++)
        count += keep[i];
    assert_int_equal(count, 256);
    for (size_t i = WIDE; i < WIDE + LESS; i++)
        assert_true(keep[i]);
    floor[0] = WIDE + 1;
    assert_ok(sfq_prune_choose_units(&u, 0.01, keep, &err));
    for (count = 0; count < WIDE; count++)
        assert_true(keep[count]);
    for (size_t i = WIDE; i < WIDE + LESS; i++)
        assert_true(keep[i] == (i >= WIDE + 8));
    assert_ok(sfq_prune_choose_units(&(sfq_prune_units){0}, 0.5, NULL, &err));
}

static void bad_units(void **state)
{
    (void)state;
    layers l;
    layers_make(&l, 1);
    assert_fails(SFQ_E_ARGUMENT, "units is NULL", sfq_prune_choose_units(NULL, 0, l.keep, &err));
    assert_fails(SFQ_E_ARGUMENT, "keep is NULL", sfq_prune_choose_units(&l.units, 0, NULL, &err));
    const double shares[] = {-0.1, 1, NAN, INFINITY};
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++)
        assert_fails(SFQ_E_ARGUMENT, "share is",
                     sfq_prune_choose_units(&l.units, shares[i], l.keep, &err));
    l.saliency[7] = NAN;
    assert_fails(SFQ_E_NUMERIC, "unit 7", sfq_prune_choose_units(&l.units, 0, l.keep, &err));
    l.saliency[7] = -1;
    assert_fails(SFQ_E_ARGUMENT, "below 0", sfq_prune_choose_units(&l.units, 0, l.keep, &err));
    l.saliency[7] = 1;
    l.group[9] = GROUPS;
    assert_fails(SFQ_E_ARGUMENT, "in group 4", sfq_prune_choose_units(&l.units, 0, l.keep, &err));
    l.group[9] = 0;
    l.cost[2] = 0;
    assert_fails(SFQ_E_ARGUMENT, "unit 2", sfq_prune_choose_units(&l.units, 0, l.keep, &err));
    l.cost[2] = UINT64_MAX;
    assert_fails(SFQ_E_LIMIT, "2^64", sfq_prune_choose_units(&l.units, 0, l.keep, &err));
    l.cost[2] = 1;
    l.units.n = (size_t)UINT32_MAX + 1;
    assert_fails(SFQ_E_LIMIT, "too many", sfq_prune_choose_units(&l.units, 0, l.keep, &err));
    l.units.n = UNITS;
    l.saliency[0] = l.saliency[1] = 1.7e308; /* their sum is infinite: no crash, an answer */
    assert_ok(sfq_prune_choose_units(&l.units, 0.5, l.keep, &err));
    assert_true(l.keep[0] && l.keep[1]);
}

/* ---- refitting ---- */

/* x1 = 2 x0 over the data: when x1 goes, its weight goes to x0 twice. x2 is apart from both. */
static void by_hand(void **state)
{
    (void)state;
    const double gram[9] = {1, NAN, NAN, 2, 4, NAN, 0, 0, 5}; /* above the diagonal: not read */
    const float w[6] = {1, 1.5F, -2, 0.5F, -1, 4};
    const bool keep[3] = {true, false, true};
    float out[4];
    sfq_workers *workers = NULL;
    assert_ok(sfq_workers_open(&workers, 1, &err));
    sfq_prune_matrix m = {.n = 2, .k = 3, .w = w, .gram = gram, .keep = keep};
    assert_ok(sfq_prune_refit_matrix(workers, &m, out, &err));
    assert_near((double)out[0], 4, 1e-5);
    assert_near((double)out[1], -2, 1e-5);
    assert_near((double)out[2], -1.5, 1e-5);
    assert_near((double)out[3], 4, 1e-5);
    m.ridge = 1; /* of the mean 3: 1 / (1 + 3) of the way */
    assert_ok(sfq_prune_refit_matrix(workers, &m, out, &err));
    assert_near((double)out[0], 1 + 3.0 / 4, 1e-6);
    assert_near((double)out[2], 0.5 - 2.0 / 4, 1e-6);
    const float alone[3] = {0, 3, 4}; /* would change by 6, its norm is 5 */
    m = (sfq_prune_matrix){.n = 1, .k = 3, .w = alone, .gram = gram, .keep = keep};
    assert_ok(sfq_prune_refit_matrix(workers, &m, out, &err));
    assert_near((double)out[0], 5, 1e-5);
    sfq_workers_close(&workers);
}

/* An input that is always 3 becomes bias. */
static void bias(void **state)
{
    (void)state;
    const double gram[9] = {4, 0, 0, 0, 90, 30, 0, 30, 10};
    const float w[3] = {1, 2, 0.5F};
    const bool keep[3] = {true, false, true};
    float out[2];
    sfq_workers *workers = NULL;
    assert_ok(sfq_workers_open(&workers, 1, &err));
    const sfq_prune_matrix m = {
        .n = 1, .k = 3, .w = w, .gram = gram, .keep = keep, .constants = 1, .ridge = 1};
    assert_ok(sfq_prune_refit_matrix(workers, &m, out, &err));
    assert_near((double)out[0], 1, 1e-6);
    assert_near((double)out[1], 6.5, 1e-4);
    sfq_workers_close(&workers);
}

typedef struct fit {
    size_t n, k, kept;
    double *gram;
    float *w, *out;
    bool *keep;
    sfq_prune_matrix m;
} fit;

/* Inputs mixed of k / 2 sources; every third goes. */
static void fit_make(fit *f, size_t n, size_t k)
{
    const size_t tokens = 2 * k, sources = k / 2;
    double *x = calloc(tokens * k, sizeof *x);
    *f = (fit){.n = n, .k = k};
    f->gram = calloc(k * k, sizeof *f->gram);
    f->w = calloc(n * k, sizeof *f->w);
    f->out = calloc(n * k, sizeof *f->out);
    f->keep = calloc(k, sizeof *f->keep);
    assert_true(x != NULL && f->gram != NULL && f->w != NULL && f->out != NULL && f->keep != NULL);
    for (size_t t = 0; t < tokens; t++)
        for (size_t i = 0; i < k; i++)
            x[t * k + i] = sfq_rng_uniform(1, t, i % sources) - 0.5 +
                           0.5 * sfq_rng_uniform(1, t, (7 * i + i / sources) % sources);
    for (size_t t = 0; t < tokens; t++)
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j <= i; j++)
                f->gram[i * k + j] += x[t * k + i] * x[t * k + j];
    for (size_t i = 0; i < n * k; i++)
        f->w[i] = (float)(sfq_rng_uniform(2, 0, i) - 0.5);
    for (size_t i = 0; i < k; i++)
        f->kept += f->keep[i] = i % 3 != 1;
    f->m = (sfq_prune_matrix){
        .n = n, .k = k, .w = f->w, .gram = f->gram, .keep = f->keep, .ridge = 1e-4};
    free(x);
}

static void fit_free(fit *f)
{
    free(f->gram);
    free(f->w);
    free(f->out);
    free(f->keep);
}

/* Mean square by which the outputs of w with some inputs differ from all of them. */
static double error_of(const fit *f, const float *cut)
{
    double sum = 0;
    for (size_t n = 0; n < f->n; n++) {
        double d[256];
        for (size_t i = 0, s = 0; i < f->k; i++)
            d[i] = (f->keep[i] ? (double)cut[n * f->kept + s++] : 0) - (double)f->w[n * f->k + i];
        for (size_t i = 0; i < f->k; i++)
            for (size_t j = 0; j < f->k; j++)
                sum += d[i] * d[j] * f->gram[i > j ? i * f->k + j : j * f->k + i];
    }
    return sum;
}

static void refit_helps(void **state)
{
    (void)state;
    fit f;
    sfq_workers *workers[3] = {NULL};
    fit_make(&f, 37, 150);
    float *cut = calloc(f.n * f.kept, sizeof *cut), *again = calloc(f.n * f.kept, sizeof *again);
    assert_true(cut != NULL && again != NULL);
    for (size_t n = 0; n < f.n; n++)
        for (size_t i = 0, s = 0; i < f.k; i++)
            if (f.keep[i])
                cut[n * f.kept + s++] = f.w[n * f.k + i];
    for (int i = 0; i < 3; i++) {
        float *out = i == 0 ? f.out : again;
        assert_ok(sfq_workers_open(&workers[i], i + 1, &err));
        assert_ok(sfq_prune_refit_matrix(workers[i], &f.m, out, &err));
        assert_memory_equal(out, f.out, f.n * f.kept * sizeof *out);
        sfq_workers_close(&workers[i]);
    }
    assert_true(error_of(&f, f.out) < 0.25 * error_of(&f, cut));
    free(cut);
    free(again);
    fit_free(&f);
}

/* Nothing cut: the same bits. */
static void all_kept(void **state)
{
    (void)state;
    fit f;
    sfq_workers *workers = NULL;
    fit_make(&f, 5, 40);
    assert_ok(sfq_workers_open(&workers, 2, &err));
    for (size_t i = 0; i < f.k; i++)
        f.keep[i] = true;
    assert_ok(sfq_prune_refit_matrix(workers, &f.m, f.out, &err));
    assert_memory_equal(f.out, f.w, f.n * f.k * sizeof *f.w);
    sfq_workers_close(&workers);
    fit_free(&f);
}

static void bad_matrices(void **state)
{
    (void)state;
    fit f;
    sfq_workers *w = NULL;
    fit_make(&f, 4, 12);
    assert_ok(sfq_workers_open(&w, 1, &err));
    sfq_prune_matrix m = f.m;
    assert_fails(SFQ_E_ARGUMENT, "workers", sfq_prune_refit_matrix(NULL, &m, f.out, &err));
    assert_fails(SFQ_E_ARGUMENT, "matrix is NULL", sfq_prune_refit_matrix(w, NULL, f.out, &err));
    assert_fails(SFQ_E_ARGUMENT, "out is NULL", sfq_prune_refit_matrix(w, &m, NULL, &err));
    m.gram = NULL;
    assert_fails(SFQ_E_ARGUMENT, "gram is NULL", sfq_prune_refit_matrix(w, &m, f.out, &err));
    m = f.m;
    m.k = 0;
    assert_fails(SFQ_E_ARGUMENT, "empty", sfq_prune_refit_matrix(w, &m, f.out, &err));
    m = f.m;
    m.ridge = -1;
    assert_fails(SFQ_E_ARGUMENT, "ridge", sfq_prune_refit_matrix(w, &m, f.out, &err));
    m.ridge = NAN;
    assert_fails(SFQ_E_ARGUMENT, "ridge", sfq_prune_refit_matrix(w, &m, f.out, &err));
    m = f.m;
    m.constants = m.k;
    assert_fails(SFQ_E_ARGUMENT, "constants", sfq_prune_refit_matrix(w, &m, f.out, &err));
    m.constants = 2; /* input 10 goes */
    assert_fails(SFQ_E_ARGUMENT, "input 10", sfq_prune_refit_matrix(w, &m, f.out, &err));
    m = f.m;
    m.n = SIZE_MAX / 4;
    assert_fails(SFQ_E_LIMIT, "too large", sfq_prune_refit_matrix(w, &m, f.out, &err));
    memset(f.keep, 0, f.k * sizeof *f.keep);
    assert_fails(SFQ_E_ARGUMENT, "none", sfq_prune_refit_matrix(w, &f.m, f.out, &err));
    sfq_workers_close(&w);
    fit_free(&f);
}

static void numbers_that_are_none(void **state)
{
    (void)state;
    fit f;
    sfq_workers *w = NULL;
    fit_make(&f, 4, 12);
    assert_ok(sfq_workers_open(&w, 1, &err));
    f.w[7] = NAN;
    assert_fails(SFQ_E_NUMERIC, "4 x 12", sfq_prune_refit_matrix(w, &f.m, f.out, &err));
    f.w[7] = 1;
    const size_t places[] = {0, 1 * 12 + 0, 2 * 12 + 1, 5 * 12 + 2}; /* kept, across, both ways */
    const double values[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            const double old = f.gram[places[i]];
            f.gram[places[i]] = values[v];
            assert_fails(SFQ_E_NUMERIC, "moments", sfq_prune_refit_matrix(w, &f.m, f.out, &err));
            f.gram[places[i]] = old;
        }
    f.gram[0] = -1e300; /* no sum of squares */
    assert_fails(SFQ_E_NUMERIC, "negative", sfq_prune_refit_matrix(w, &f.m, f.out, &err));
    for (size_t i = 0; i < f.k * f.k; i++)
        f.gram[i] = i / f.k == i % f.k ? 1e-300 : 1e308;
    assert_status(SFQ_E_NUMERIC, sfq_prune_refit_matrix(w, &f.m, f.out, &err));
    memset(f.gram, 0, f.k * f.k * sizeof *f.gram); /* inputs that are always zero: as they were */
    assert_ok(sfq_prune_refit_matrix(w, &f.m, f.out, &err));
    assert_memory_equal(f.out, f.w, sizeof *f.w);
    sfq_workers_close(&w);
    fit_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_met), cmocka_unit_test(least_worth_goes),
        cmocka_unit_test(multiples),      cmocka_unit_test(bad_units),
        cmocka_unit_test(by_hand),        cmocka_unit_test(bias),
        cmocka_unit_test(refit_helps),    cmocka_unit_test(all_kept),
        cmocka_unit_test(bad_matrices),   cmocka_unit_test(numbers_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

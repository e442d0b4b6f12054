/* compress/knapsack.c - the loss model is the diagonal of the Fisher information, so what a set of
 * units costs is the sum of what each costs, and with one price for every group of one kind and one
 * for every block of the other the best set is found exactly: for each number of the first, those
 * worth least, and of the blocks worth least as many as are missing then (Kwon et al. 2022, "A fast
 * post-training pruning framework for transformers", algorithm 1, with parameters for FLOPs). Where
 * prices differ inside a kind (a width that is no multiple), units go by worth per parameter, and
 * what turns out not to be needed is put back. */
#include "compress/knapsack.h"

#include "base/ck.h"
#include "base/mem.h"

#include <stdlib.h>

/* A step that narrows one group (all of them when uniform). */
struct sfq_knapsack_step {
    double worth;   /* sum over its units */
    double density; /* per cost; never falls from one step of a group to the next */
    uint64_t cost;
    size_t group;
    size_t rank; /* how many steps of this group come before */
    bool taken;
    double worth_sum; /* of all steps so far and this one */
    uint64_t cost_sum;
};

sfq_status sfq_knapsack_open(sfq_knapsack_kind *kind, size_t groups, sfq_error *err)
{
    *kind = (sfq_knapsack_kind){.groups = groups};
    kind->group = SFQ_NEW_ARRAY(sfq_knapsack_group, groups);
    return kind->group != NULL
               ? SFQ_OK
               : sfq_fail_memory(err, groups * sizeof *kind->group, "the order of units");
}

sfq_status sfq_knapsack_room(sfq_knapsack_group *group, sfq_error *err)
{
    group->unit = SFQ_NEW_ARRAY(sfq_knapsack_unit, group->width);
    return group->unit != NULL
               ? SFQ_OK
               : sfq_fail_memory(err, group->width * sizeof *group->unit, "the order of units");
}

void sfq_knapsack_close(sfq_knapsack_kind *kind)
{
    for (size_t i = 0; kind->group != NULL && i < kind->groups; i++)
        sfq_mem_free(kind->group[i].unit);
    sfq_mem_free(kind->group);
    sfq_mem_free(kind->steps);
    *kind = (sfq_knapsack_kind){0};
}

/* ---- order ---- */

/* Whether x goes before y. */
static bool before(const sfq_knapsack_unit *x, const sfq_knapsack_unit *y)
{
    const double one = x->worth / (double)x->cost, other = y->worth / (double)y->cost;
    return one != other ? one < other : x->index < y->index;
}

static void sift_down(sfq_knapsack_unit *unit, size_t n, size_t i)
{
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(&unit[child], &unit[child + 1]))
            child++;
        if (!before(&unit[i], &unit[child]))
            return;
        const sfq_knapsack_unit swap = unit[i];
        unit[i] = unit[child];
        unit[child] = swap;
    }
}

/* In place: qsort would take memory for units of this size. */
static void sort_units(sfq_knapsack_unit *unit, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(unit, n, i);
    while (n > 1) {
        const sfq_knapsack_unit last = unit[--n];
        unit[n] = unit[0];
        unit[0] = last;
        sift_down(unit, n, 0);
    }
}

static int by_density(const void *a, const void *b)
{
    const sfq_knapsack_step *x = a, *y = b;
    if (x->density != y->density)
        return x->density < y->density ? -1 : 1;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

/* The next width below, a multiple of the group's; false: the floor forbids it. */
static bool narrower(const sfq_knapsack_group *g, size_t width, size_t *next)
{
    if (width == 0)
        return false;
    *next = (width - 1) / g->multiple * g->multiple;
    return *next >= g->floor;
}

static size_t widest(const sfq_knapsack_kind *k)
{
    size_t most = 0;
    for (size_t i = 0; i < k->groups; i++)
        most = sfq_max_size(most, k->group[i].width);
    return most;
}

/* ---- steps ---- */

/* Adds to the step what a group gives when its width falls from `from` to `to`. */
static void add_group(sfq_knapsack_step *s, const sfq_knapsack_group *g, size_t from, size_t to)
{
    const size_t top = sfq_min_size(g->width, from);
    for (size_t i = g->width - top; i + to < g->width; i++) {
        s->worth += g->unit[i].worth;
        s->cost += g->unit[i].cost;
    }
}

/* All steps of a group, or of all groups side by side, from the width down to the floor. */
static void add_steps(sfq_knapsack_kind *k, size_t group, size_t from)
{
    const size_t first = k->uniform ? 0 : group;
    const size_t end = k->uniform ? k->groups : group + 1;
    double least = 0;
    size_t to = 0;
    for (size_t rank = 0; narrower(&k->group[group], from, &to); rank++, from = to) {
        sfq_knapsack_step s = {.group = group, .rank = rank};
        for (size_t i = first; i < end; i++)
            add_group(&s, &k->group[i], from, to);
        s.density = s.worth / (double)s.cost;
        least = s.density = s.density > least ? s.density : least;
        k->steps[k->count++] = s;
    }
}

static bool all_free(const sfq_knapsack_kind *k)
{
    for (size_t i = 0; i < k->groups; i++)
        if (k->group[i].fixed)
            return false;
    return k->groups > 0;
}

sfq_status sfq_knapsack_rank(sfq_knapsack_kind *k, bool uniform, sfq_error *err)
{
    size_t most = widest(k);
    k->uniform = uniform;
    for (size_t i = 0; i < k->groups; i++) {
        sfq_knapsack_group *g = &k->group[i];
        most += g->width;
        sort_units(g->unit, g->width);
    }
    k->steps = SFQ_NEW_ARRAY(sfq_knapsack_step, most);
    if (k->steps == NULL)
        return sfq_fail_memory(err, most * sizeof *k->steps, "the search over units");
    if (uniform && all_free(k))
        add_steps(k, 0, widest(k));
    for (size_t i = 0; i < k->groups && !uniform; i++)
        if (!k->group[i].fixed)
            add_steps(k, i, k->group[i].width);
    qsort(k->steps, k->count, sizeof *k->steps, by_density);
    for (size_t i = 0; i < k->count; i++) {
        k->steps[i].worth_sum = k->steps[i].worth + (i > 0 ? k->steps[i - 1].worth_sum : 0);
        k->steps[i].cost_sum = k->steps[i].cost + (i > 0 ? k->steps[i - 1].cost_sum : 0);
    }
    return SFQ_OK;
}

/* ---- the search ---- */

typedef struct best {
    double worth;
    uint64_t cost;
    size_t a, b; /* steps taken of each */
} best;

static double worth_of(const sfq_knapsack_kind *k, size_t count)
{
    return count > 0 ? k->steps[count - 1].worth_sum : 0;
}

static uint64_t cost_of(const sfq_knapsack_kind *k, size_t count)
{
    return count > 0 ? k->steps[count - 1].cost_sum : 0;
}

uint64_t sfq_knapsack_most(const sfq_knapsack_kind *kind)
{
    return cost_of(kind, kind->count);
}

/* Every number of steps of a with the least number of b's that then suffices. */
static bool search(best *out, const sfq_knapsack_kind *a, const sfq_knapsack_kind *b,
                   uint64_t remove)
{
    bool found = false;
    size_t blocks = b->count;
    for (size_t g = 0; g <= a->count; g++) {
        while (blocks > 0 && cost_of(a, g) + cost_of(b, blocks - 1) >= remove)
            blocks--;
        const best at = {.worth = worth_of(a, g) + worth_of(b, blocks),
                         .cost = cost_of(a, g) + cost_of(b, blocks),
                         .a = g,
                         .b = blocks};
        if (at.cost >= remove &&
            (!found || at.worth < out->worth || (at.worth == out->worth && at.cost < out->cost))) {
            *out = at;
            found = true;
        }
    }
    return found;
}

static void take(sfq_knapsack_kind *k, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        k->steps[i].taken = true;
        k->group[k->steps[i].group].cut++;
    }
}

/* Steps of which the rest does without, those worth most first. */
static void put_back(sfq_knapsack_kind *k, uint64_t *removed, uint64_t remove)
{
    for (size_t i = k->count; i-- > 0;) {
        sfq_knapsack_step *s = &k->steps[i];
        size_t *cut = &k->group[s->group].cut;
        if (s->taken && s->rank + 1 == *cut && *removed - s->cost >= remove) {
            s->taken = false;
            (*cut)--;
            *removed -= s->cost;
        }
    }
}

static void set_left(sfq_knapsack_kind *k)
{
    for (size_t i = 0; i < k->groups; i++) {
        sfq_knapsack_group *g = &k->group[i];
        size_t left = k->uniform ? widest(k) : g->width;
        for (size_t c = 0; c < k->group[k->uniform ? 0 : i].cut; c++)
            (void)narrower(g, left, &left);
        g->left = sfq_min_size(g->width, left);
    }
}

bool sfq_knapsack_solve(sfq_knapsack_kind *a, sfq_knapsack_kind *b, uint64_t remove,
                        uint64_t *removed)
{
    best found = {0};
    if (!search(&found, a, b, remove))
        return false;
    take(a, found.a);
    take(b, found.b);
    put_back(b, &found.cost, remove);
    put_back(a, &found.cost, remove);
    set_left(a);
    set_left(b);
    *removed = found.cost;
    return true;
}

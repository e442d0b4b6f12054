/* compress/units.c - groups of multiple 1 (heads) are one kind of the knapsack, those of larger
 * multiples (neurons) the other: the search is exact where each kind has one price. */
#include "compress/units.h"

#include "base/ck.h"
#include "base/mem.h"
#include "compress/knapsack.h"

#include <math.h>

/* A group's place: which kind, and where in it. */
typedef struct place {
    bool neurons;
    size_t at;
    size_t width, filled;
    size_t multiple;
} place;

typedef struct search {
    place *group; /* [groups] */
    sfq_knapsack_kind heads, neurons;
    uint64_t cost; /* of all units */
} search;

/* Widths, and the multiple of groups that leave it to the rule. */
static void measure(search *s, const sfq_prune_units *u)
{
    size_t widest = 0;
    for (size_t i = 0; i < u->n; i++)
        s->group[u->group[i]].width++;
    for (size_t g = 0; g < u->groups; g++)
        if (u->multiple[g] == 0)
            widest = sfq_max_size(widest, s->group[g].width);
    for (size_t g = 0; g < u->groups; g++) {
        place *p = &s->group[g];
        p->multiple = u->multiple[g];
        if (p->multiple == 0)
            p->multiple = widest < SFQ_SMALL_WIDTH ? SFQ_NEURON_SMALL_BLOCK : SFQ_NEURON_BLOCK;
        p->neurons = p->multiple > 1;
        p->at = p->neurons ? s->neurons.groups++ : s->heads.groups++;
    }
}

static sfq_knapsack_group *group_of(search *s, const place *p)
{
    return p->neurons ? &s->neurons.group[p->at] : &s->heads.group[p->at];
}

static sfq_status open_search(search *s, const sfq_prune_units *u, sfq_error *err)
{
    s->group = SFQ_NEW_ARRAY(place, u->groups);
    if (s->group == NULL)
        return sfq_fail_memory(err, u->groups * sizeof *s->group, "the order of units");
    measure(s, u);
    SFQ_TRY(sfq_knapsack_open(&s->heads, s->heads.groups, err));
    SFQ_TRY(sfq_knapsack_open(&s->neurons, s->neurons.groups, err));
    for (size_t g = 0; g < u->groups; g++) {
        const place *p = &s->group[g];
        sfq_knapsack_group *to = group_of(s, p);
        to->width = p->width;
        to->floor = u->floor[g];
        to->multiple = p->multiple;
        SFQ_TRY(sfq_knapsack_room(to, err));
    }
    for (size_t i = 0; i < u->n; i++) {
        place *p = &s->group[u->group[i]];
        group_of(s, p)->unit[p->filled++] =
            (sfq_knapsack_unit){u->saliency[i], u->cost[i], (uint32_t)i};
        if (__builtin_add_overflow(s->cost, u->cost[i], &s->cost))
            return sfq_fail(err, SFQ_E_LIMIT, "the units cost more than 2^64 parameters");
    }
    SFQ_TRY(sfq_knapsack_rank(&s->heads, false, err));
    return sfq_knapsack_rank(&s->neurons, false, err);
}

static void close_search(search *s)
{
    sfq_knapsack_close(&s->heads);
    sfq_knapsack_close(&s->neurons);
    sfq_mem_free(s->group);
}

static void mark(const sfq_knapsack_kind *k, bool *keep)
{
    for (size_t g = 0; g < k->groups; g++) {
        const sfq_knapsack_group *group = &k->group[g];
        for (size_t i = 0; i < group->width; i++)
            keep[group->unit[i].index] = i + group->left >= group->width;
    }
}

static sfq_status solve(search *s, double share, bool *keep, sfq_error *err)
{
    const double all = (double)s->cost;
    const double goal = ceil(share * all);
    const uint64_t remove = goal < all ? (uint64_t)goal : s->cost;
    uint64_t removed = 0;
    if (!sfq_knapsack_solve(&s->heads, &s->neurons, remove, &removed)) {
        const uint64_t most = sfq_knapsack_most(&s->heads) + sfq_knapsack_most(&s->neurons);
        return sfq_fail(err, SFQ_E_INFEASIBLE,
                        "%.2f %% of the units' %.0f parameters shall go, but their floors and "
                        "multiples let %.2f %% go; prune less",
                        100 * share, all, all > 0 ? 100 * (double)most / all : 0.0);
    }
    mark(&s->heads, keep);
    mark(&s->neurons, keep);
    return SFQ_OK;
}

sfq_status sfq_units_choose(const sfq_prune_units *units, double share, bool *keep, sfq_error *err)
{
    search s = {0};
    sfq_status status = SFQ_OK;
    SFQ_DO(open_search(&s, units, err));
    SFQ_DO(solve(&s, share, keep, err));
done:
    close_search(&s);
    return status;
}

/* compress/choose.c - the search over which units go (M2). The loss model is the diagonal of the
 * Fisher information, so what a set of units costs is the sum of what each costs, and with one
 * price for every group and one for every block of neurons the best set is found exactly: for each
 * number of groups, those worth least, and of the blocks worth least as many as are missing then
 * (Kwon et al. 2022, "A fast post-training pruning framework for transformers", algorithm 1, with
 * parameters for FLOPs). Where prices differ inside a kind (a width that is no multiple), units go
 * by worth per parameter, and what turns out not to be needed is put back. */
#include "compress/choose.h"

#include "base/mem.h"

#include <stdlib.h>

enum { FLOOR_NEURONS = 64, BLOCK = 64, SMALL_BLOCK = 16, SMALL_WIDTH = 256 };

/* A unit of one layer by worth. */
typedef struct ranked {
    float worth;
    uint32_t index;
} ranked;

/* A step that narrows one layer (all of them when uniform: layer -1) by a group or a block. */
typedef struct step {
    double worth;   /* sum of saliencies */
    double density; /* per parameter; never falls from one step of a layer to the next */
    uint64_t cost;  /* parameters */
    int layer;
    int rank; /* how many steps of this layer come before */
    bool taken;
    double worth_sum; /* of all steps so far and this one */
    uint64_t cost_sum;
} step;

/* One of the two kinds of units. */
typedef struct kind {
    bool ffn;
    const sfq_arch *arch;
    const bool *fixed;
    int block;      /* neurons of a step; 1 for groups */
    ranked **order; /* [layers][width] least worth first */
    step *steps;
    size_t count;
    int *cut; /* [layers] steps taken */
} kind;

uint64_t sfq_choose_group_cost(const sfq_arch *arch, int layer)
{
    const sfq_layer_arch *l = &arch->layer[layer];
    uint64_t head = (uint64_t)arch->hidden * (uint64_t)arch->head_dim;
    return l->kv_heads > 0 ? head * (uint64_t)(2 * (l->heads / l->kv_heads) + 2) : 0;
}

uint64_t sfq_choose_neuron_cost(const sfq_arch *arch)
{
    return (uint64_t)arch->hidden * (arch->gated ? 3 : 2);
}

uint64_t sfq_choose_block_parameters(const sfq_arch *arch)
{
    uint64_t sum = 0;
    for (int i = 0; i < arch->layers; i++)
        sum += sfq_choose_group_cost(arch, i) * (uint64_t)arch->layer[i].kv_heads +
               sfq_choose_neuron_cost(arch) * (uint64_t)arch->layer[i].ffn;
    return sum;
}

/* ---- units in order ---- */

static int width_of(const kind *k, int layer)
{
    return k->ffn ? k->arch->layer[layer].ffn : k->arch->layer[layer].kv_heads;
}

static uint64_t unit_cost(const kind *k, int layer)
{
    return k->ffn ? sfq_choose_neuron_cost(k->arch) : sfq_choose_group_cost(k->arch, layer);
}

static bool is_fixed(const kind *k, int layer)
{
    return k->fixed != NULL && k->fixed[layer];
}

static int widest(const kind *k)
{
    int most = 0;
    for (int i = 0; i < k->arch->layers; i++)
        most = width_of(k, i) > most ? width_of(k, i) : most;
    return most;
}

/* The next width below, a multiple of the block; -1: the floor forbids it. */
static int narrower(const kind *k, int width)
{
    const int floor = k->ffn ? FLOOR_NEURONS : 1;
    const int next = width > 0 ? (width - 1) / k->block * k->block : -1;
    return next >= floor ? next : -1;
}

static int by_worth(const void *a, const void *b)
{
    const ranked *x = a;
    const ranked *y = b;
    if (x->worth != y->worth)
        return x->worth < y->worth ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int by_density(const void *a, const void *b)
{
    const step *x = a;
    const step *y = b;
    if (x->density != y->density)
        return x->density < y->density ? -1 : 1;
    if (x->layer != y->layer)
        return x->layer < y->layer ? -1 : 1;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static sfq_status rank_units(kind *k, const sfq_saliency *saliency, sfq_error *err)
{
    for (int i = 0; i < k->arch->layers; i++) {
        const size_t n = (size_t)width_of(k, i);
        const float *worth = k->ffn ? saliency->layer[i].neuron : saliency->layer[i].group;
        ranked *order = k->order[i] = SFQ_NEW_ARRAY(ranked, n);
        if (order == NULL)
            return sfq_fail_memory(err, n * sizeof *order, "the order of units");
        for (size_t u = 0; u < n; u++)
            order[u] = (ranked){worth[u], (uint32_t)u};
        qsort(order, n, sizeof *order, by_worth);
    }
    return SFQ_OK;
}

/* ---- steps ---- */

/* Adds to the step what one layer gives when its width falls from `from` to `to`. */
static void add_layer(step *s, const kind *k, int layer, int from, int to)
{
    const int width = width_of(k, layer);
    const int top = width < from ? width : from;
    for (int i = width - top; i < width - to; i++) {
        s->worth += (double)k->order[layer][i].worth;
        s->cost += unit_cost(k, layer);
    }
}

/* All steps of a layer (-1: of all layers side by side) from its width down to the floor. */
static void add_steps(kind *k, int layer)
{
    int from = layer < 0 ? widest(k) : width_of(k, layer);
    double least = 0;
    for (int rank = 0, to; (to = narrower(k, from)) >= 0; rank++, from = to) {
        step s = {.layer = layer, .rank = rank};
        if (layer >= 0)
            add_layer(&s, k, layer, from, to);
        for (int i = 0; layer < 0 && i < k->arch->layers; i++)
            add_layer(&s, k, i, from, to);
        s.density = s.worth / (double)s.cost;
        least = s.density = s.density > least ? s.density : least;
        k->steps[k->count++] = s;
    }
}

static sfq_status make_steps(kind *k, bool uniform, sfq_error *err)
{
    size_t most = (size_t)widest(k);
    bool fixed = false;
    for (int i = 0; i < k->arch->layers; i++) {
        most += (size_t)width_of(k, i);
        fixed = fixed || is_fixed(k, i);
    }
    k->steps = SFQ_NEW_ARRAY(step, most);
    if (k->steps == NULL)
        return sfq_fail_memory(err, most * sizeof(step), "the search over units");
    if (uniform && !fixed)
        add_steps(k, -1);
    for (int i = 0; i < k->arch->layers && !uniform; i++)
        if (!is_fixed(k, i))
            add_steps(k, i);
    qsort(k->steps, k->count, sizeof *k->steps, by_density);
    for (size_t i = 0; i < k->count; i++) {
        k->steps[i].worth_sum = k->steps[i].worth + (i > 0 ? k->steps[i - 1].worth_sum : 0);
        k->steps[i].cost_sum = k->steps[i].cost + (i > 0 ? k->steps[i - 1].cost_sum : 0);
    }
    return SFQ_OK;
}

static sfq_status open_kind(kind *k, const sfq_arch *arch, bool ffn, const sfq_saliency *saliency,
                            const sfq_choose_options *o, sfq_error *err)
{
    const size_t layers = (size_t)arch->layers;
    *k = (kind){.ffn = ffn, .arch = arch, .fixed = ffn ? o->ffn_fixed : o->attn_fixed, .block = 1};
    if (ffn)
        k->block = widest(k) < SMALL_WIDTH ? SMALL_BLOCK : BLOCK;
    k->order = SFQ_NEW_ARRAY(ranked *, layers);
    k->cut = SFQ_NEW_ARRAY(int, layers);
    if (k->order == NULL || k->cut == NULL)
        return sfq_fail_memory(err, layers * sizeof(ranked *), "the order of units");
    SFQ_TRY(rank_units(k, saliency, err));
    return make_steps(k, o->uniform, err);
}

static void close_kind(kind *k)
{
    for (int i = 0; k->order != NULL && i < k->arch->layers; i++)
        sfq_mem_free(k->order[i]);
    sfq_mem_free(k->order);
    sfq_mem_free(k->steps);
    sfq_mem_free(k->cut);
}

/* ---- the search ---- */

typedef struct best {
    double worth;
    uint64_t cost;
    size_t groups, blocks; /* steps taken of each */
} best;

static double worth_of(const kind *k, size_t count)
{
    return count > 0 ? k->steps[count - 1].worth_sum : 0;
}

static uint64_t cost_of(const kind *k, size_t count)
{
    return count > 0 ? k->steps[count - 1].cost_sum : 0;
}

/* Every number of groups with the least number of blocks that then suffices. */
static bool search(best *out, const kind *groups, const kind *ffn, uint64_t remove)
{
    bool found = false;
    size_t blocks = ffn->count;
    for (size_t g = 0; g <= groups->count; g++) {
        while (blocks > 0 && cost_of(groups, g) + cost_of(ffn, blocks - 1) >= remove)
            blocks--;
        const best at = {.worth = worth_of(groups, g) + worth_of(ffn, blocks),
                         .cost = cost_of(groups, g) + cost_of(ffn, blocks),
                         .groups = g,
                         .blocks = blocks};
        if (at.cost >= remove &&
            (!found || at.worth < out->worth || (at.worth == out->worth && at.cost < out->cost))) {
            *out = at;
            found = true;
        }
    }
    return found;
}

static void take(kind *k, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const int layer = k->steps[i].layer;
        k->steps[i].taken = true;
        k->cut[layer < 0 ? 0 : layer]++;
    }
}

/* Steps of which the rest does without, those worth most first. */
static void put_back(kind *k, uint64_t *removed, uint64_t remove)
{
    for (size_t i = k->count; i-- > 0;) {
        step *s = &k->steps[i];
        int *cut = &k->cut[s->layer < 0 ? 0 : s->layer];
        if (s->taken && s->rank == *cut - 1 && *removed - s->cost >= remove) {
            s->taken = false;
            (*cut)--;
            *removed -= s->cost;
        }
    }
}

static sfq_status infeasible(const kind *groups, const kind *ffn, uint64_t remove, sfq_error *err)
{
    const uint64_t most = cost_of(groups, groups->count) + cost_of(ffn, ffn->count);
    const double all = (double)sfq_choose_block_parameters(groups->arch);
    return sfq_fail(
        err, SFQ_E_INFEASIBLE,
        "%.2f %% of the blocks' %.0f parameters shall go, but at most %.2f %% can: every "
        "layer keeps a key-value head and %d neurons%s; prune less",
        100 * (double)remove / (all > 0 ? all : 1), all, all > 0 ? 100 * (double)most / all : 0.0,
        FLOOR_NEURONS,
        groups->fixed != NULL || ffn->fixed != NULL ? ", and --keep protects some" : "");
}

/* ---- lists ---- */

static int width_after(const kind *k, int layer, bool uniform)
{
    const int width = width_of(k, layer);
    int left = uniform ? widest(k) : width;
    for (int i = 0; i < k->cut[uniform ? 0 : layer]; i++)
        left = narrower(k, left);
    return width < left ? width : left;
}

static int by_index(const void *a, const void *b)
{
    const uint32_t *x = a;
    const uint32_t *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* The units of a layer that stay, ascending. */
static sfq_status keep_units(uint32_t **out, int *count, const kind *k, int layer, bool uniform,
                             sfq_error *err)
{
    const int width = width_of(k, layer);
    *count = width_after(k, layer, uniform);
    *out = SFQ_NEW_ARRAY(uint32_t, (size_t)*count);
    if (*out == NULL)
        return sfq_fail_memory(err, (size_t)*count * sizeof **out, "the units that stay");
    for (int i = 0; i < *count; i++)
        (*out)[i] = k->order[layer][width - *count + i].index;
    qsort(*out, (size_t)*count, sizeof **out, by_index);
    return SFQ_OK;
}

static sfq_status fill(sfq_choice *c, const kind *groups, const kind *ffn, bool uniform,
                       sfq_error *err)
{
    const sfq_arch *arch = groups->arch;
    c->layer = SFQ_NEW_ARRAY(sfq_layer_keep, (size_t)arch->layers);
    if (c->layer == NULL)
        return sfq_fail_memory(err, (size_t)arch->layers * sizeof *c->layer, "the units that stay");
    c->layers = arch->layers;
    for (int i = 0; i < arch->layers; i++) {
        const sfq_layer_arch *l = &arch->layer[i];
        sfq_layer_keep *keep = &c->layer[i];
        SFQ_TRY(keep_units(&keep->groups, &keep->kv_heads, groups, i, uniform, err));
        SFQ_TRY(keep_units(&keep->neurons, &keep->ffn, ffn, i, uniform, err));
        const int cut = l->kv_heads - keep->kv_heads;
        c->groups += cut;
        c->heads += cut > 0 ? cut * (l->heads / l->kv_heads) : 0;
        c->neurons += l->ffn - keep->ffn;
    }
    return SFQ_OK;
}

sfq_status sfq_choose_units(sfq_choice **out, const sfq_arch *arch, const sfq_saliency *saliency,
                            const sfq_choose_options *options, sfq_error *err)
{
    kind groups = {0};
    kind ffn = {0};
    best b = {0};
    sfq_status status = SFQ_OK;
    *out = SFQ_NEW(sfq_choice);
    if (*out == NULL)
        return sfq_fail_memory(err, sizeof **out, "the units that stay");
    SFQ_DO(open_kind(&groups, arch, false, saliency, options, err));
    SFQ_DO(open_kind(&ffn, arch, true, saliency, options, err));
    if (!search(&b, &groups, &ffn, options->remove)) {
        status = infeasible(&groups, &ffn, options->remove, err);
        goto done;
    }
    take(&groups, b.groups);
    take(&ffn, b.blocks);
    put_back(&ffn, &b.cost, options->remove);
    put_back(&groups, &b.cost, options->remove);
    (*out)->removed = b.cost;
    SFQ_DO(fill(*out, &groups, &ffn, options->uniform, err));
done:
    close_kind(&groups);
    close_kind(&ffn);
    if (status != SFQ_OK)
        sfq_choice_close(out);
    return status;
}

void sfq_choice_close(sfq_choice **choice)
{
    sfq_choice *c = *choice;
    if (c == NULL)
        return;
    for (int i = 0; i < c->layers; i++) {
        sfq_mem_free(c->layer[i].groups);
        sfq_mem_free(c->layer[i].neurons);
    }
    sfq_mem_free(c->layer);
    sfq_mem_free(c);
    *choice = NULL;
}

/* compress/choose.c - the model's KV groups and neurons as a knapsack (knapsack.c), and its answer
 * as lists. */
#include "compress/choose.h"

#include "base/mem.h"
#include "compress/knapsack.h"

#include <stdlib.h>

enum { FLOOR_NEURONS = 64 };

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

/* ---- units ---- */

static size_t width_of(const sfq_arch *arch, bool ffn, int layer)
{
    return (size_t)(ffn ? arch->layer[layer].ffn : arch->layer[layer].kv_heads);
}

static size_t widest(const sfq_arch *arch, bool ffn)
{
    size_t most = 0;
    for (int i = 0; i < arch->layers; i++)
        most = width_of(arch, ffn, i) > most ? width_of(arch, ffn, i) : most;
    return most;
}

static sfq_status add_units(sfq_knapsack_group *g, const float *worth, uint64_t cost,
                            sfq_error *err)
{
    SFQ_TRY(sfq_knapsack_room(g, err));
    for (size_t u = 0; u < g->width; u++)
        g->unit[u] = (sfq_knapsack_unit){(double)worth[u], cost, (uint32_t)u};
    return SFQ_OK;
}

static sfq_status open_kind(sfq_knapsack_kind *k, const sfq_arch *arch, bool ffn,
                            const sfq_saliency *saliency, const sfq_choose_options *o,
                            sfq_error *err)
{
    const bool *fixed = ffn ? o->ffn_fixed : o->attn_fixed;
    const size_t block =
        widest(arch, ffn) < SFQ_SMALL_WIDTH ? SFQ_NEURON_SMALL_BLOCK : SFQ_NEURON_BLOCK;
    SFQ_TRY(sfq_knapsack_open(k, (size_t)arch->layers, err));
    for (int i = 0; i < arch->layers; i++) {
        sfq_knapsack_group *g = &k->group[i];
        const sfq_layer_saliency *l = &saliency->layer[i];
        g->width = width_of(arch, ffn, i);
        g->floor = ffn ? FLOOR_NEURONS : 1;
        g->multiple = ffn ? block : 1;
        g->fixed = fixed != NULL && fixed[i];
        SFQ_TRY(add_units(g, ffn ? l->neuron : l->group,
                          ffn ? sfq_choose_neuron_cost(arch) : sfq_choose_group_cost(arch, i),
                          err));
    }
    return sfq_knapsack_rank(k, o->uniform, err);
}

static sfq_status infeasible(const sfq_arch *arch, const sfq_choose_options *o, uint64_t most,
                             sfq_error *err)
{
    const double all = (double)sfq_choose_block_parameters(arch);
    return sfq_fail(
        err, SFQ_E_INFEASIBLE,
        "%.2f %% of the blocks' %.0f parameters shall go, but at most %.2f %% can: every "
        "layer keeps a key-value head and %d neurons%s; prune less",
        100 * (double)o->remove / (all > 0 ? all : 1), all,
        all > 0 ? 100 * (double)most / all : 0.0, FLOOR_NEURONS,
        o->attn_fixed != NULL || o->ffn_fixed != NULL ? ", and --keep protects some" : "");
}

/* ---- lists ---- */

static int by_index(const void *a, const void *b)
{
    const uint32_t *x = a;
    const uint32_t *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* The units of a layer that stay, ascending. */
static sfq_status keep_units(uint32_t **out, int *count, const sfq_knapsack_group *g,
                             sfq_error *err)
{
    *count = (int)g->left;
    *out = SFQ_NEW_ARRAY(uint32_t, g->left);
    if (*out == NULL)
        return sfq_fail_memory(err, g->left * sizeof **out, "the units that stay");
    for (size_t i = 0; i < g->left; i++)
        (*out)[i] = g->unit[g->width - g->left + i].index;
    qsort(*out, g->left, sizeof **out, by_index);
    return SFQ_OK;
}

static sfq_status fill(sfq_choice *c, const sfq_arch *arch, const sfq_knapsack_kind *groups,
                       const sfq_knapsack_kind *ffn, sfq_error *err)
{
    c->layer = SFQ_NEW_ARRAY(sfq_layer_keep, (size_t)arch->layers);
    if (c->layer == NULL)
        return sfq_fail_memory(err, (size_t)arch->layers * sizeof *c->layer, "the units that stay");
    c->layers = arch->layers;
    for (int i = 0; i < arch->layers; i++) {
        const sfq_layer_arch *l = &arch->layer[i];
        sfq_layer_keep *keep = &c->layer[i];
        SFQ_TRY(keep_units(&keep->groups, &keep->kv_heads, &groups->group[i], err));
        SFQ_TRY(keep_units(&keep->neurons, &keep->ffn, &ffn->group[i], err));
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
    sfq_knapsack_kind groups = {0};
    sfq_knapsack_kind ffn = {0};
    sfq_status status = SFQ_OK;
    *out = SFQ_NEW(sfq_choice);
    if (*out == NULL)
        return sfq_fail_memory(err, sizeof **out, "the units that stay");
    SFQ_DO(open_kind(&groups, arch, false, saliency, options, err));
    SFQ_DO(open_kind(&ffn, arch, true, saliency, options, err));
    if (!sfq_knapsack_solve(&groups, &ffn, options->remove, &(*out)->removed)) {
        const uint64_t most = sfq_knapsack_most(&groups) + sfq_knapsack_most(&ffn);
        status = infeasible(arch, options, most, err);
        goto done;
    }
    SFQ_DO(fill(*out, arch, &groups, &ffn, err));
done:
    sfq_knapsack_close(&groups);
    sfq_knapsack_close(&ffn);
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

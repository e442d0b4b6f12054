/* Which units go: against every possible choice on small instances, with floors, ties, protected
 * sublayers, uneven widths and uniform results. */
#include "unit/unit.h"

#include "base/rng.h"
#include "compress/choose.h"

enum { LAYERS = 3, MOST = 320 };

static sfq_error err;

typedef struct instance {
    sfq_arch arch;
    sfq_layer_arch layer[LAYERS];
    sfq_saliency saliency;
    sfq_layer_saliency part[LAYERS];
    float group[LAYERS][MOST], neuron[LAYERS][MOST];
} instance;

/* Saliencies drawn from the seed; group `boost` times as much as neurons. */
static void make(instance *in, int kv, int per_group, int ffn, bool gated, uint64_t seed,
                 double boost)
{
    *in = (instance){.arch = {.layers = LAYERS, .hidden = 8, .head_dim = 4, .gated = gated}};
    in->arch.layer = in->layer;
    in->saliency = (sfq_saliency){.layers = LAYERS, .layer = in->part};
    for (size_t l = 0; l < LAYERS; l++) {
        in->layer[l] = (sfq_layer_arch){.heads = kv * per_group, .kv_heads = kv, .ffn = ffn};
        in->part[l] = (sfq_layer_saliency){.group = in->group[l], .neuron = in->neuron[l]};
        for (size_t u = 0; u < MOST; u++) {
            in->group[l][u] = (float)(boost * sfq_rng_uniform(seed, 2 * l, u));
            in->neuron[l][u] = (float)sfq_rng_uniform(seed, 2 * l + 1, u);
        }
    }
}

static sfq_choice *choose(const instance *in, const sfq_choose_options *o)
{
    sfq_choice *c = NULL;
    assert_ok(sfq_choose_units(&c, &in->arch, &in->saliency, o, &err));
    assert_non_null(c);
    return c;
}

/* Adds the worth of what is missing in an ascending list; proves that it ascends and stays inside.
 */
static double worth_removed(const uint32_t *keep, int count, const float *worth, int width)
{
    double sum = 0;
    int at = 0;
    for (int u = 0; u < width; u++) {
        bool kept = at < count && keep[at] == (uint32_t)u;
        at += kept;
        sum += kept ? 0 : (double)worth[u];
    }
    assert_int_equal(at, count);
    return sum;
}

static double choice_worth(const instance *in, const sfq_choice *c)
{
    double sum = 0;
    uint64_t removed = 0;
    int groups = 0;
    int neurons = 0;
    assert_int_equal(c->layers, LAYERS);
    for (int l = 0; l < LAYERS; l++) {
        const sfq_layer_arch *a = &in->layer[l];
        const sfq_layer_keep *k = &c->layer[l];
        sum += worth_removed(k->groups, k->kv_heads, in->group[l], a->kv_heads);
        sum += worth_removed(k->neurons, k->ffn, in->neuron[l], a->ffn);
        removed += (uint64_t)(a->kv_heads - k->kv_heads) * sfq_choose_group_cost(&in->arch, l) +
                   (uint64_t)(a->ffn - k->ffn) * sfq_choose_neuron_cost(&in->arch);
        groups += a->kv_heads - k->kv_heads;
        neurons += a->ffn - k->ffn;
    }
    assert_int_equal(removed, c->removed);
    assert_int_equal(groups, c->groups);
    assert_int_equal(neurons, c->neurons);
    return sum;
}

static int ascending(const void *a, const void *b)
{
    const float *x = a;
    const float *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* The n lowest of a list. */
static double lowest(const float *worth, int width, int n)
{
    float sorted[MOST];
    double sum = 0;
    memcpy(sorted, worth, (size_t)width * sizeof *worth);
    qsort(sorted, (size_t)width, sizeof *sorted, ascending);
    for (int i = 0; i < n; i++)
        sum += (double)sorted[i];
    return sum;
}

/* The least worth of all choices of counts per layer. block: neurons of a step. */
static double brute_force(const instance *in, uint64_t remove, int block)
{
    const int kv = in->layer[0].kv_heads;
    const int ffn = in->layer[0].ffn;
    const int steps = (ffn - 64) / block;
    int n[2 * LAYERS] = {0};
    double least = 1e30;
    for (;;) {
        double worth = 0;
        uint64_t cost = 0;
        for (int l = 0; l < LAYERS; l++) {
            worth +=
                lowest(in->group[l], kv, n[l]) + lowest(in->neuron[l], ffn, n[LAYERS + l] * block);
            cost += (uint64_t)n[l] * sfq_choose_group_cost(&in->arch, l) +
                    (uint64_t)(n[LAYERS + l] * block) * sfq_choose_neuron_cost(&in->arch);
        }
        least = cost >= remove && worth < least ? worth : least;
        int i = 0;
        while (i < 2 * LAYERS && n[i] == (i < LAYERS ? kv - 1 : steps))
            n[i++] = 0;
        if (i == 2 * LAYERS)
            return least;
        n[i]++;
    }
}

static void is_the_best_choice(void **state)
{
    instance in;
    (void)state;
    for (uint64_t seed = 0; seed < 8; seed++) {
        const bool small = seed % 2 == 0;
        make(&in, 3, 1 + (int)(seed % 3), small ? 112 : 256, seed % 4 > 1, seed,
             small ? 20.0 : 60.0);
        const uint64_t all = sfq_choose_block_parameters(&in.arch);
        const uint64_t unit = sfq_choose_group_cost(&in.arch, 0);
        const uint64_t block = (small ? 16 : 64) * sfq_choose_neuron_cost(&in.arch);
        for (int share = 1; share < 8; share++) {
            const uint64_t remove = all * (uint64_t)share / 20;
            sfq_choice *c = choose(&in, &(sfq_choose_options){.remove = remove});
            assert_true(c->removed >= remove);
            assert_true(c->removed - remove < (unit > block ? unit : block));
            assert_near(choice_worth(&in, c), brute_force(&in, remove, small ? 16 : 64), 1e-9);
            sfq_choice_close(&c);
            assert_null(c);
        }
    }
}

static void nothing_to_remove(void **state)
{
    instance in;
    (void)state;
    make(&in, 2, 2, 128, true, 1, 1);
    sfq_choice *c = choose(&in, &(sfq_choose_options){0});
    assert_int_equal(c->removed, 0);
    assert_near(choice_worth(&in, c), 0, 0);
    sfq_choice_close(&c);
}

/* Equal worth everywhere: the lower layer, then the lower index. */
static void ties(void **state)
{
    instance in;
    (void)state;
    make(&in, 4, 1, 128, false, 1, 1);
    for (size_t l = 0; l < LAYERS; l++)
        for (size_t u = 0; u < MOST; u++) {
            in.group[l][u] = 8; /* as much as 8 neurons: as many parameters */
            in.neuron[l][u] = 1;
        }
    const uint64_t neuron = sfq_choose_neuron_cost(&in.arch);
    assert_int_equal(sfq_choose_group_cost(&in.arch, 0), 8 * neuron);
    sfq_choice *c = choose(&in, &(sfq_choose_options){.remove = 20 * neuron});
    assert_int_equal(c->removed, 24 * neuron); /* 16 + 8, not 32 */
    assert_int_equal(c->layer[0].ffn, 112);
    assert_int_equal(c->layer[0].kv_heads, 3);
    assert_int_equal(c->layer[0].neurons[0], 16);
    assert_int_equal(c->layer[0].groups[0], 1);
    assert_int_equal(c->layer[1].ffn + c->layer[2].ffn, 256);
    sfq_choice_close(&c);
}

/* A layer that is worth nothing keeps its floor; the rest comes from elsewhere. */
static void floors(void **state)
{
    instance in;
    (void)state;
    make(&in, 4, 2, 320, true, 3, 10);
    memset(in.group[1], 0, sizeof in.group[1]);
    memset(in.neuron[1], 0, sizeof in.neuron[1]);
    const uint64_t all = sfq_choose_block_parameters(&in.arch);
    sfq_choice *c = choose(&in, &(sfq_choose_options){.remove = all * 7 / 10});
    assert_int_equal(c->layer[1].kv_heads, 1);
    assert_int_equal(c->layer[1].ffn, 64);
    assert_int_equal(c->layer[0].ffn % 64, 0);
    assert_int_equal(c->heads, 2 * c->groups);
    sfq_choice_close(&c);
    assert_fails(SFQ_E_INFEASIBLE, "at most 79.55 % can",
                 sfq_choose_units(&c, &in.arch, &in.saliency,
                                  &(sfq_choose_options){.remove = all * 8 / 10}, &err));
    assert_null(c);
    /* to the floors everywhere is feasible, and one parameter more is not */
    const uint64_t most =
        LAYERS * (3 * sfq_choose_group_cost(&in.arch, 0) + 256 * sfq_choose_neuron_cost(&in.arch));
    c = choose(&in, &(sfq_choose_options){.remove = most});
    assert_int_equal(c->removed, most);
    sfq_choice_close(&c);
    assert_status(SFQ_E_INFEASIBLE,
                  sfq_choose_units(&c, &in.arch, &in.saliency,
                                   &(sfq_choose_options){.remove = most + 1}, &err));
}

static void protected_sublayers(void **state)
{
    const bool attn[LAYERS] = {true, false, false};
    const bool ffn[LAYERS] = {false, true, false};
    instance in;
    (void)state;
    make(&in, 4, 1, 256, false, 4, 1);
    memset(in.group[0], 0, sizeof in.group[0]);
    memset(in.neuron[1], 0, sizeof in.neuron[1]);
    const uint64_t remove = sfq_choose_block_parameters(&in.arch) / 3;
    const sfq_choose_options o = {.remove = remove, .attn_fixed = attn, .ffn_fixed = ffn};
    sfq_choice *c = choose(&in, &o);
    assert_true(c->removed >= remove);
    assert_int_equal(c->layer[0].kv_heads, 4);
    assert_int_equal(c->layer[1].ffn, 256);
    assert_true(c->layer[0].ffn < 256);
    sfq_choice_close(&c);
    const sfq_choose_options uniform = {.remove = 1, .uniform = true, .attn_fixed = attn};
    c = choose(&in, &uniform); /* one protected attention protects all, as widths are alike */
    assert_int_equal(c->groups, 0);
    assert_int_equal(c->neurons, LAYERS * 64);
    sfq_choice_close(&c);
}

static void uniform_widths(void **state)
{
    instance in;
    (void)state;
    make(&in, 4, 1, 320, true, 5, 30);
    const uint64_t all = sfq_choose_block_parameters(&in.arch);
    for (uint64_t share = 1; share < 14; share++) {
        sfq_choice *c =
            choose(&in, &(sfq_choose_options){.remove = all * share / 20, .uniform = true});
        assert_true(c->removed >= all * share / 20);
        for (int l = 1; l < LAYERS; l++) {
            assert_int_equal(c->layer[l].kv_heads, c->layer[0].kv_heads);
            assert_int_equal(c->layer[l].ffn, c->layer[0].ffn);
        }
        (void)choice_worth(&in, c);
        sfq_choice_close(&c);
    }
}

/* Widths that are no multiples stay as they are or become multiples; layers of several widths and
 * dropped sublayers are fine; nothing is removed that is not needed. */
static void uneven_widths(void **state)
{
    instance in;
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        make(&in, 4, 1, 300, false, seed, 30);
        in.layer[1] = (sfq_layer_arch){.heads = 0, .kv_heads = 0, .ffn = 100};
        in.layer[2] = (sfq_layer_arch){.heads = 2, .kv_heads = 1, .ffn = 0};
        const uint64_t remove = 20 * seed * sfq_choose_neuron_cost(&in.arch) / 2;
        sfq_choice *c = choose(&in, &(sfq_choose_options){.remove = remove});
        assert_true(c->removed >= remove);
        assert_true(c->layer[0].ffn == 300 || c->layer[0].ffn % 64 == 0);
        assert_true(c->layer[1].ffn == 100 || c->layer[1].ffn == 64);
        assert_int_equal(c->layer[1].kv_heads, 0);
        assert_int_equal(c->layer[2].kv_heads, 1);
        assert_int_equal(c->layer[2].ffn, 0);
        (void)choice_worth(&in, c);
        if (c->layer[1].ffn == 64)
            assert_true(c->removed - 36 * sfq_choose_neuron_cost(&in.arch) < remove);
        if (c->layer[0].kv_heads < 4)
            assert_true(c->removed - sfq_choose_group_cost(&in.arch, 0) < remove);
        sfq_choice_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_the_best_choice),
        cmocka_unit_test(nothing_to_remove),
        cmocka_unit_test(ties),
        cmocka_unit_test(floors),
        cmocka_unit_test(protected_sublayers),
        cmocka_unit_test(uniform_widths),
        cmocka_unit_test(uneven_widths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* compress/distill.c - what the pruned model learns, and at which pace. A student whose matrices
 * are F32 learns all of its blocks and heads; one that was opened in 16 bits to fit the memory has
 * no room for gradients of matrices, and learns norms and biases. Tables of words, positions and
 * types stay: few of their rows occur in so little data.
 *
 * The figures were measured on MiniLM (MRPC, SST-2, STS-B) and novels-5m, pruned by 33 to 50 %:
 * docs/METHOD.md. */
#include "compress/distill.h"

#include "base/ck.h"
#include "base/mem.h"
#include "compress/small.h"
#include "compress/train.h"

enum { EPOCHS = 10, STEPS_MIN = 20, STEPS_MAX = 600 };

static const sfq_train_recipe encoder_recipe = {.lr = 2e-5,
                                                .warm_up = 0.05,
                                                .clip = 1,
                                                .temperature = 2,
                                                .hidden = 1,
                                                .augmented = 0.5,
                                                .augment = {.replace = 0.1},
                                                .sequences = 32,
                                                .tokens = 4096};
static const sfq_train_recipe lm_recipe = {
    .lr = 2e-4, .warm_up = 0.05, .clip = 1, .temperature = 1, .sequences = 32, .tokens = 1024};

static const sfq_train_recipe *recipe_of(const sfq_net *net)
{
    return net->arch->head == SFQ_MODEL_HEAD_LM ? &lm_recipe : &encoder_recipe;
}

int sfq_distill_steps(const sfq_work *work)
{
    if (work->options->steps >= 0)
        return work->options->steps;
    size_t batch = sfq_train_batch(work, recipe_of(work->teacher));
    size_t steps = (EPOCHS * work->calibration->tune + batch - 1) / batch;
    return (int)sfq_max_size(STEPS_MIN, sfq_min_size(STEPS_MAX, steps));
}

/* ---- memory ---- */

static bool learns_matrices(const sfq_net *net)
{
    return net->word.dtype == SFQ_F32;
}

static size_t add_weights(const sfq_matrix *m, uint64_t *floats)
{
    size_t count = m->n * m->k;
    *floats += count;
    return count > 0;
}

static size_t count_weights(const sfq_net *net, uint64_t *floats)
{
    size_t arrays = add_weights(&net->pooler, floats) + add_weights(&net->classifier, floats);
    if (!net->arch->tied_head)
        arrays += add_weights(&net->lm_head, floats);
    for (int i = 0; i < net->arch->layers; i++) {
        const sfq_layer_weights *l = &net->layer[i];
        const sfq_matrix *all[] = {&l->q, &l->k, &l->v, &l->qkv, &l->o, &l->gate, &l->up, &l->down};
        for (size_t j = 0; j < sizeof(all) / sizeof(all[0]); j++)
            arrays += add_weights(all[j], floats);
    }
    return arrays;
}

uint64_t sfq_distill_bytes(const sfq_work *work, const sfq_net *student)
{
    uint64_t floats;
    size_t arrays = sfq_smalls_count(student, &floats);
    if (learns_matrices(student))
        arrays += count_weights(student, &floats);
    uint64_t lists = arrays * (sizeof(sfq_trainable) + sizeof(sfq_param));
    return sfq_cap_add(lists,
                       sfq_train_bytes(work, student, recipe_of(student), floats, arrays, false));
}

/* ---- run ---- */

static sfq_status run_list(sfq_train *train, sfq_trainable *items, size_t count,
                           sfq_distill_report *out, sfq_error *err)
{
    train->items = items;
    train->count = count;
    return sfq_train_run(train, out, err);
}

static sfq_status run_all(sfq_train *train, sfq_student *student, sfq_distill_report *out,
                          sfq_error *err)
{
    sfq_params *params = NULL;
    SFQ_TRY(sfq_params_open(&params, student, false, err));
    sfq_status status = SFQ_OK;
    sfq_trainable *items = SFQ_NEW_ARRAY(sfq_trainable, params->count);
    if (items == NULL) {
        status = sfq_fail_memory(err, params->count * sizeof(*items), "the list of parameters");
        goto done;
    }
    for (size_t i = 0; i < params->count; i++) {
        const sfq_param *p = &params->items[i];
        items[i] = (sfq_trainable){
            .value = p->value, .gradient = p->gradient, .count = p->count, .decay = p->decay};
    }
    train->grads = &params->grads;
    SFQ_DO(run_list(train, items, params->count, out, err));
done:
    sfq_mem_free(items);
    sfq_params_close(&params);
    return status;
}

static sfq_status run_small(sfq_train *train, sfq_student *student, sfq_distill_report *out,
                            sfq_error *err)
{
    sfq_smalls *smalls = NULL;
    SFQ_TRY(sfq_smalls_open(&smalls, student->net, err));
    sfq_status status = SFQ_OK;
    sfq_trainable *items = SFQ_NEW_ARRAY(sfq_trainable, smalls->count);
    if (items == NULL) {
        status = sfq_fail_memory(err, smalls->count * sizeof(*items), "the list of parameters");
        goto done;
    }
    for (size_t i = 0; i < smalls->count; i++) /* the student's own memory */
        items[i] = (sfq_trainable){.value = (float *)(uintptr_t)*smalls->items[i].place,
                                   .gradient = smalls->items[i].gradient,
                                   .count = smalls->items[i].count};
    train->grads = &smalls->grads;
    sfq_work_log(train->work, SFQ_LOG_NOTE,
                 "the matrices stay as they are: in 16 bits only norms and biases learn");
    SFQ_DO(run_list(train, items, smalls->count, out, err));
done:
    sfq_mem_free(items);
    sfq_smalls_close(&smalls);
    return status;
}

sfq_status sfq_distill_run(const sfq_work *work, sfq_student *student, sfq_loss *held_out,
                           const char *dir, sfq_distill_report *out, sfq_error *err)
{
    sfq_train train = {.work = work,
                       .student = student->net,
                       .recipe = recipe_of(student->net),
                       .steps = sfq_distill_steps(work),
                       .held_out = held_out,
                       .dir = dir,
                       .name = "distill.state"};
    *out = (sfq_distill_report){0};
    return student->dtype == SFQ_F32 ? run_all(&train, student, out, err)
                                     : run_small(&train, student, out, err);
}

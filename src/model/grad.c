/* model/grad.c - the backward pass over all layers: what the forward pass keeps, the order of the
 * layers, and where to stop. Memory is one block whose size is a function of network, threads,
 * tokens and the longest sequence, so that what sfq_grad_bytes promises is what is allocated; it
 * grows when a larger batch comes. */
#include "model/grad_parts.h"

#include "base/ck.h"
#include "base/mem.h"

#include <string.h>

enum {
    ROUND = 16, /* tokens: batches of changing size do not reallocate */
    ARRAYS = 14
};

/* ---- memory ---- */

static size_t linear_floats(const sfq_net *net)
{
    size_t most = sfq_linear_grad_floats(&net->lm_head);
    most = sfq_max_size(most, sfq_linear_grad_floats(&net->pooler));
    most = sfq_max_size(most, sfq_linear_grad_floats(&net->classifier));
    for (int i = 0; i < net->arch->layers; i++) {
        const sfq_layer_weights *w = &net->layer[i];
        const sfq_matrix *all[] = {&w->q, &w->k, &w->v, &w->qkv, &w->o, &w->gate, &w->up, &w->down};
        for (size_t j = 0; j < sizeof(all) / sizeof(all[0]); j++)
            most = sfq_max_size(most, sfq_linear_grad_floats(all[j]));
    }
    return most;
}

/* The pieces use it one after the other. */
static size_t scratch_floats(const sfq_net *net, int threads, size_t t, size_t longest)
{
    size_t c = (size_t)net->arch->hidden;
    size_t most = sfq_max_size(linear_floats(net), sfq_norm_grad_floats(t, c));
    most = sfq_max_size(most, sfq_attention_grad_floats(net, threads, t, longest));
    return sfq_max_size(most, 2 * c + SFQ_PANEL_N); /* a row of a table and its panel's scales */
}

/* Offsets of the arrays in the order of struct sfq_grad, from states on. */
static bool layout(const sfq_net *net, int threads, size_t t, size_t longest, size_t offset[ARRAYS],
                   size_t *bytes)
{
    sfq_exec_widths w = sfq_exec_measure(net);
    size_t c = (size_t)net->arch->hidden, layers = (size_t)net->arch->layers;
    size_t f = net->arch->gated ? w.ffn / 2 : w.ffn, states;
    const size_t row[ARRAYS - 2] = {c,
                                    c,
                                    c,
                                    c,
                                    c,
                                    w.qkv,
                                    w.qkv,
                                    w.att,
                                    w.ffn,
                                    f,
                                    sfq_max_size(w.att, f),
                                    sfq_max_size(w.qkv, w.ffn)};
    *bytes = 0;
    if (!sfq_ck_mul(layers + 1, c, &states) ||
        !sfq_exec_carve(bytes, t, states, sizeof(float), &offset[0]))
        return false;
    for (size_t i = 0; i < ARRAYS - 2; i++)
        if (!sfq_exec_carve(bytes, t, row[i], sizeof(float), &offset[i + 1]))
            return false;
    return sfq_exec_carve(bytes, 1, scratch_floats(net, threads, t, longest), sizeof(float),
                          &offset[ARRAYS - 1]);
}

/* Rounds both up; false where the batch is too large. */
static bool round_batch(size_t *tokens, size_t *longest)
{
    return sfq_ck_round_up(*tokens, ROUND, tokens) && *tokens <= UINT32_MAX &&
           sfq_ck_round_up(*longest, ROUND, longest) && *longest <= UINT32_MAX;
}

uint64_t sfq_grad_bytes(const sfq_net *net, int threads, size_t tokens, size_t longest)
{
    size_t offset[ARRAYS], bytes;
    uint64_t exec = sfq_exec_bytes(net, threads, tokens);
    if (!round_batch(&tokens, &longest) || !layout(net, threads, tokens, longest, offset, &bytes))
        return UINT64_MAX;
    return sfq_cap_add(sfq_cap_add(exec, bytes), sizeof(sfq_grad));
}

static sfq_status reserve(sfq_grad *g, size_t tokens, size_t longest, sfq_error *err)
{
    size_t offset[ARRAYS], bytes;
    if (tokens <= g->capacity && longest <= g->longest)
        return SFQ_OK;
    size_t t = sfq_max_size(tokens, g->capacity), most = sfq_max_size(longest, g->longest);
    if (!round_batch(&t, &most) || !layout(g->net, (int)g->exec->threads, t, most, offset, &bytes))
        return sfq_fail(err, SFQ_E_LIMIT, "a batch of %zu tokens is too large", tokens);
    sfq_mem_free(g->memory); /* first: both at once would pass what sfq_grad_bytes says */
    g->capacity = g->longest = 0;
    g->memory = sfq_mem_aligned(bytes);
    if (!g->memory)
        return sfq_fail_memory(err, bytes, "memory of the backward pass");
    float **const arrays[ARRAYS] = {&g->states,  &g->last,    &g->work,  &g->in,     &g->attn_sum,
                                    &g->ffn_in,  &g->qkv_raw, &g->qkv,   &g->att,    &g->ffn_pre,
                                    &g->ffn_act, &g->d_act,   &g->d_pre, &g->scratch};
    for (size_t i = 0; i < ARRAYS; i++)
        *arrays[i] = (float *)((char *)g->memory + offset[i]);
    g->capacity = t;
    g->longest = most;
    return SFQ_OK;
}

sfq_status sfq_grad_open(sfq_grad **out, const sfq_net *net, const sfq_kernels *kernels,
                         sfq_pool *pool, sfq_error *err)
{
    *out = NULL;
    sfq_grad *g = SFQ_NEW(sfq_grad);
    if (!g)
        return sfq_fail_memory(err, sizeof(*g), "memory of the backward pass");
    g->net = net;
    sfq_status status = sfq_exec_open(&g->exec, net, kernels, pool, err);
    if (status != SFQ_OK)
        sfq_grad_close(&g);
    *out = g;
    return status;
}

void sfq_grad_close(sfq_grad **grad)
{
    if (!grad || !*grad)
        return;
    sfq_exec_close(&(*grad)->exec);
    sfq_mem_free((*grad)->memory);
    sfq_mem_free(*grad);
    *grad = NULL;
}

sfq_exec *sfq_grad_exec(sfq_grad *grad)
{
    return grad->exec;
}

/* ---- forward ---- */

sfq_status sfq_grad_forward(sfq_grad *grad, const sfq_batch *batch, const float **hidden,
                            sfq_error *err)
{
    const sfq_arch *arch = grad->net->arch;
    size_t row = (size_t)arch->hidden * sizeof(float), longest = 0;
    grad->batch = NULL;
    SFQ_TRY(sfq_forward_open(grad->exec, batch, err));
    for (size_t s = 0; s < batch->sequences; s++)
        longest = sfq_max_size(longest, batch->offset[s + 1] - batch->offset[s]);
    SFQ_TRY(reserve(grad, batch->offset[batch->sequences], longest, err));
    grad->t = batch->offset[batch->sequences];
    SFQ_TRY(sfq_forward_embed(grad->exec, batch, grad->states, err));
    for (int layer = 0; layer < arch->layers; layer++) {
        float *next = sfq_grad_state(grad, layer + 1);
        memcpy(next, sfq_grad_state(grad, layer), grad->t * row);
        SFQ_TRY(sfq_forward_layer(grad->exec, batch, layer, next, NULL, err));
    }
    if (grad->net->final_norm.gain) {
        memcpy(grad->last, sfq_grad_state(grad, arch->layers), grad->t * row);
        sfq_forward_final(grad->exec, grad->last, grad->t);
    }
    grad->batch = batch;
    *hidden = sfq_grad_hidden(grad, arch->layers);
    return SFQ_OK;
}

const float *sfq_grad_hidden(const sfq_grad *grad, int layer)
{
    if (layer == grad->net->arch->layers && grad->net->final_norm.gain)
        return grad->last;
    return sfq_grad_state(grad, layer);
}

/* ---- backward ---- */

static bool wants_norm(const sfq_norm_grad *n)
{
    return n->gain || n->bias;
}

static bool wants_matrix(const sfq_matrix_grad *m)
{
    return m->w || m->scales || m->bias;
}

static bool wants_embeddings(const sfq_net_grad *into)
{
    return wants_matrix(&into->word) || wants_matrix(&into->position) ||
           wants_matrix(&into->type) || wants_norm(&into->embedding_norm);
}

static bool wants_layer(const sfq_layer_grad *l)
{
    const sfq_matrix_grad *matrix[] = {&l->q, &l->k,    &l->v,  &l->qkv,
                                       &l->o, &l->gate, &l->up, &l->down};
    const sfq_norm_grad *norm[] = {&l->attn_norm, &l->ffn_norm, &l->q_norm, &l->k_norm};
    bool wants = false;
    for (size_t i = 0; i < sizeof(matrix) / sizeof(matrix[0]); i++)
        wants |= wants_matrix(matrix[i]);
    for (size_t i = 0; i < sizeof(norm) / sizeof(norm[0]); i++)
        wants |= wants_norm(norm[i]);
    return wants;
}

/* The lowest layer that backward has to pass; `layers`: none. */
static int lowest_layer(const sfq_net *net, const sfq_net_grad *into, const sfq_grad_hooks *hooks)
{
    int layer = 0, layers = net->arch->layers;
    if (hooks || (into && wants_embeddings(into)))
        return 0;
    if (!into || !into->layer)
        return layers;
    while (layer < layers && !wants_layer(&into->layer[layer]))
        layer++;
    return layer;
}

sfq_status sfq_grad_backward(sfq_grad *grad, float *d_hidden, const sfq_net_grad *into,
                             const sfq_grad_hooks *hooks, sfq_error *err)
{
    const sfq_net *net = grad->net;
    int layers = net->arch->layers, lowest = lowest_layer(net, into, hooks);
    if (!grad->batch)
        return sfq_fail(err, SFQ_E_ARGUMENT, "backward without a forward pass before it");
    sfq_grad_norm(grad, &net->final_norm, net->arch->rms_norm, sfq_grad_state(grad, layers),
                  d_hidden, d_hidden, false, into ? &into->final_norm : NULL);
    for (int layer = layers - 1; layer >= lowest; layer--) {
        const sfq_layer_grad *l = into && into->layer ? &into->layer[layer] : NULL;
        SFQ_TRY(sfq_block_grad(grad, layer, d_hidden, l, hooks, err));
        if (hooks && hooks->inject)
            hooks->inject(hooks->ud, layer, d_hidden, grad->t, (size_t)net->arch->hidden);
    }
    if (into && wants_embeddings(into))
        sfq_embed_grad(grad, d_hidden, into);
    return SFQ_OK;
}

/* tests/model/random_net.c - builds the networks by hand: no checkpoint, no names. */
#include "random_net.h"

#include "base/rng.h"

#include <math.h>
#include <string.h>

static float *random_floats(random_net *r, size_t n, float mean, float size)
{
    float *x = SFQ_ARENA_ARRAY(r->arena, float, n);
    for (size_t i = 0; i < n; i++)
        x[i] = mean + size * (float)sfq_rng_normal(5, r->slots, i);
    return x;
}

static void add_slot(random_net *r, const char *name, int layer, float *w, float **grad, size_t n)
{
    assert_true(r->slots < NET_SLOTS);
    *grad = SFQ_ARENA_ARRAY(r->arena, float, n);
    r->slot[r->slots++] = (net_slot){name, layer, w, *grad, n};
}

static void add_matrix(random_net *r, const char *name, int layer, sfq_matrix *m,
                       sfq_matrix_grad *grad, size_t n, size_t k, bool bias)
{
    float size = layer < 0 && !bias ? 1.0F : 1.2F / sqrtf((float)k);
    *m = (sfq_matrix){.n = n, .k = k, .dtype = SFQ_F32};
    if (k > 0) {
        float *w = random_floats(r, n * k, 0, size);
        m->w = w;
        add_slot(r, name, layer, w, &grad->w, n * k);
    }
    if (bias) {
        float *b = random_floats(r, n, 0, 0.3F);
        m->bias = b;
        add_slot(r, name, layer, b, &grad->bias, n);
    }
}

static void add_norm(random_net *r, const char *name, int layer, sfq_norm *norm,
                     sfq_norm_grad *grad, size_t n, bool bias)
{
    float *gain = random_floats(r, n, 1, 0.3F);
    norm->gain = gain;
    add_slot(r, name, layer, gain, &grad->gain, n);
    if (bias) {
        float *b = random_floats(r, n, 0, 0.3F);
        norm->bias = b;
        add_slot(r, name, layer, b, &grad->bias, n);
    }
}

static sfq_arch arch_of(net_kind kind)
{
    sfq_arch a = {.architecture = "a random network",
                  .head = SFQ_MODEL_HEAD_LM,
                  .layers = NET_LAYERS,
                  .hidden = NET_C,
                  .head_dim = NET_D,
                  .vocab = NET_V,
                  .max_positions = 128,
                  .norm_eps = 1e-5F,
                  .attn_scale = 0.35F};
    if (kind == NET_LLAMA || kind == NET_QWEN3 || kind == NET_RAGGED_PRE || kind == NET_DROPPED) {
        a.causal = a.pre_norm = a.rms_norm = a.gated = true;
        a.qk_norm = a.bias_qkv = kind == NET_QWEN3;
        a.bias_o = a.bias_mlp = kind == NET_RAGGED_PRE;
        a.tied_head = kind != NET_QWEN3;
        a.rope.theta = 100;
        a.rope_dims = kind == NET_RAGGED_PRE ? NET_D - 2 : NET_D;
        a.activation = SFQ_ACT_SILU;
        return a;
    }
    a.learned_positions = a.bias_qkv = a.bias_o = a.bias_mlp = true;
    if (kind == NET_GPT2) {
        a.causal = a.pre_norm = a.tied_head = true;
        a.activation = SFQ_ACT_GELU_TANH;
        return a;
    }
    a.type_vocab = kind == NET_DISTILBERT ? 0 : 2;
    a.activation = SFQ_ACT_GELU;
    a.pooler_tanh = kind != NET_DISTILBERT;
    a.labels = NET_LABELS;
    a.head = SFQ_MODEL_HEAD_CLASSIFIER;
    if (kind == NET_DISTILBERT)
        a.head = SFQ_MODEL_HEAD_REGRESSION;
    if (kind == NET_EMBEDDER)
        a.head = SFQ_MODEL_HEAD_EMBEDDING;
    a.normalize_embedding = kind == NET_EMBEDDER;
    return a;
}

static void add_attention(random_net *r, int i, net_kind kind)
{
    const sfq_arch *a = &r->arch;
    sfq_layer_weights *w = &r->layer[i];
    sfq_layer_grad *g = &r->into_layer[i];
    sfq_layer_arch *l = &r->layer_arch[i];
    size_t q = (size_t)l->heads * NET_D, kv = (size_t)l->kv_heads * NET_D;
    if (kind == NET_DROPPED && i == 0)
        return;
    add_norm(r, "attention norm", i, &w->attn_norm, &g->attn_norm, NET_C, !a->rms_norm);
    add_matrix(r, "o", i, &w->o, &g->o, NET_C, q, a->bias_o);
    if (q == 0)
        return;
    if (kind == NET_GPT2) {
        add_matrix(r, "qkv", i, &w->qkv, &g->qkv, q + 2 * kv, NET_C, true);
        return;
    }
    add_matrix(r, "q", i, &w->q, &g->q, q, NET_C, a->bias_qkv);
    add_matrix(r, "k", i, &w->k, &g->k, kv, NET_C, a->bias_qkv);
    add_matrix(r, "v", i, &w->v, &g->v, kv, NET_C, a->bias_qkv);
    if (a->qk_norm) {
        add_norm(r, "q norm", i, &w->q_norm, &g->q_norm, NET_D, false);
        add_norm(r, "k norm", i, &w->k_norm, &g->k_norm, NET_D, false);
    }
}

static void add_mlp(random_net *r, int i, net_kind kind)
{
    const sfq_arch *a = &r->arch;
    sfq_layer_weights *w = &r->layer[i];
    sfq_layer_grad *g = &r->into_layer[i];
    size_t f = (size_t)r->layer_arch[i].ffn;
    if (kind == NET_DROPPED && i == 1)
        return;
    add_norm(r, "ffn norm", i, &w->ffn_norm, &g->ffn_norm, NET_C, !a->rms_norm);
    add_matrix(r, "down", i, &w->down, &g->down, NET_C, f, a->bias_mlp);
    if (f == 0)
        return;
    add_matrix(r, "up", i, &w->up, &g->up, f, NET_C, a->bias_mlp);
    if (a->gated)
        add_matrix(r, "gate", i, &w->gate, &g->gate, f, NET_C, a->bias_mlp);
}

static void add_layers(random_net *r, net_kind kind)
{
    bool ragged = kind == NET_RAGGED_PRE || kind == NET_RAGGED_POST || kind == NET_DROPPED;
    for (int i = 0; i < NET_LAYERS; i++) {
        sfq_layer_arch *l = &r->layer_arch[i];
        *l = (sfq_layer_arch){.heads = 4, .kv_heads = 4, .ffn = NET_F};
        l->rope = r->arch.rope_dims > 0 && !(kind == NET_QWEN3 && i == 1);
        l->window = kind == NET_QWEN3 ? 7 : 0;
        if (r->arch.gated)
            l->kv_heads = 2;
        if (ragged && i == 0)
            l->heads = l->kv_heads = 0;
        if (ragged && i == 1) {
            l->ffn = 0;
            l->heads = l->kv_heads = 3;
        }
        add_attention(r, i, kind);
        add_mlp(r, i, kind);
    }
}

static void add_heads(random_net *r)
{
    const sfq_arch *a = &r->arch;
    sfq_net *net = &r->net;
    sfq_net_grad *g = &r->into;
    if (a->head == SFQ_MODEL_HEAD_LM && a->tied_head) {
        net->lm_head = net->word;
        g->lm_head = g->word;
    } else if (a->head == SFQ_MODEL_HEAD_LM) {
        add_matrix(r, "head", 0, &net->lm_head, &g->lm_head, NET_V, NET_C, false);
    } else if (a->head != SFQ_MODEL_HEAD_EMBEDDING) {
        add_matrix(r, "pooler", -1, &net->pooler, &g->pooler, NET_C, NET_C, true);
        add_matrix(r, "classifier", -1, &net->classifier, &g->classifier, NET_LABELS, NET_C, true);
    }
}

static void fill_batch(random_net *r)
{
    static const size_t offset[NET_SEQUENCES + 1] = {0, 5, 6, NET_TOKENS};
    memcpy(r->offset, offset, sizeof(offset));
    for (size_t t = 0; t < NET_TOKENS; t++) {
        r->ids[t] = (int32_t)(sfq_rng_u64(6, 0, t) % NET_V);
        r->types[t] = t % 3 == 0;
    }
    r->batch = (sfq_batch){.sequences = NET_SEQUENCES,
                           .offset = r->offset,
                           .ids = r->ids,
                           .types = r->arch.type_vocab > 0 ? r->types : NULL};
}

void random_net_open(random_net *r, net_kind kind)
{
    memset(r, 0, sizeof(*r));
    r->arena = sfq_arena_open();
    assert_non_null(r->arena);
    r->arch = arch_of(kind);
    r->arch.layer = r->layer_arch;
    r->net.arch = &r->arch;
    r->net.layer = r->layer;
    r->into.layer = r->into_layer;
    const sfq_arch *a = &r->arch;
    add_matrix(r, "word", -1, &r->net.word, &r->into.word, NET_V, NET_C, false);
    if (a->learned_positions)
        add_matrix(r, "position", -1, &r->net.position, &r->into.position, 128, NET_C, false);
    if (a->type_vocab > 0)
        add_matrix(r, "type", -1, &r->net.type, &r->into.type, 2, NET_C, false);
    if (!a->pre_norm)
        add_norm(r, "embedding norm", -1, &r->net.embedding_norm, &r->into.embedding_norm, NET_C,
                 true);
    add_layers(r, kind);
    if (a->pre_norm)
        add_norm(r, "final norm", -1, &r->net.final_norm, &r->into.final_norm, NET_C, !a->rms_norm);
    add_heads(r);
    fill_batch(r);
}

void random_net_close(random_net *r)
{
    sfq_arena_close(&r->arena);
}

void random_net_zero(random_net *r)
{
    for (size_t i = 0; i < r->slots; i++)
        memset(r->slot[i].grad, 0, r->slot[i].n * sizeof(float));
}

/* tests/model/random_net.h - small networks with random float weights, one of each kind of block
 * that the families have, with a place for every tensor's gradient. */
#ifndef SFQ_TESTS_MODEL_RANDOM_NET_H
#define SFQ_TESTS_MODEL_RANDOM_NET_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "model/grad.h"

typedef enum net_kind {
    NET_LLAMA = 0,  /* pre-norm, RMSNorm, RoPE, grouped queries, gated; tied head */
    NET_QWEN3,      /* the same with head norms, a window, biases, a layer without RoPE; own head */
    NET_GPT2,       /* pre-norm, LayerNorm, fused qkv, plain MLP, learned positions; tied head */
    NET_BERT,       /* post-norm, bidirectional, token types, tanh pooler, classifier */
    NET_DISTILBERT, /* post-norm without types, relu pooler, regression */
    NET_EMBEDDER,   /* post-norm, mean of the hidden states, normalised */
    NET_RAGGED_PRE, /* NET_LLAMA: layer 0 without heads, layer 1 without an MLP, biases left */
    NET_RAGGED_POST, /* NET_BERT, the same */
    NET_DROPPED,     /* NET_LLAMA: the same, not even biases and norms left */
    NET_KINDS
} net_kind;

enum {
    NET_C = 24, /* model width */
    NET_D = 8,  /* head dim */
    NET_F = 20,
    NET_V = 19,
    NET_LAYERS = 2,
    NET_LABELS = 3,
    NET_SLOTS = 64,
    NET_SEQUENCES = 3,
    NET_TOKENS = 76 /* 5, 1 and 70 */
};

/* A tensor, and where its gradient is added. */
typedef struct net_slot {
    const char *name;
    int layer; /* -1 outside the layers */
    float *w, *grad;
    size_t n;
} net_slot;

typedef struct random_net {
    sfq_arch arch;
    sfq_layer_arch layer_arch[NET_LAYERS];
    sfq_layer_weights layer[NET_LAYERS];
    sfq_net net;
    sfq_net_grad into;
    sfq_layer_grad into_layer[NET_LAYERS];
    net_slot slot[NET_SLOTS];
    size_t slots;
    size_t offset[NET_SEQUENCES + 1];
    int32_t ids[NET_TOKENS], types[NET_TOKENS];
    sfq_batch batch;
    sfq_arena *arena;
} random_net;

void random_net_open(random_net *r, net_kind kind);
void random_net_close(random_net *r);
void random_net_zero(random_net *r); /* all gradients */

#endif

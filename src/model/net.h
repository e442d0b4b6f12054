/* model/net.h - a network ready to compute: architecture and weights bound to memory. Dense
 * matrices stay in the file's map as they are (GPT-2's transposed ones are copied), packed codes
 * too; scales, biases and norms are small and become float. Immutable after open. */
#ifndef SFQ_MODEL_NET_H
#define SFQ_MODEL_NET_H

#include "model/names.h"

typedef struct sfq_matrix {
    size_t n, k; /* 0 x 0: absent */
    bool packed;
    /* dense */
    const void *w; /* [N, K] */
    sfq_dtype dtype;
    /* packed */
    const uint8_t *codes;
    size_t panel_bytes;
    int bits, activation_bits;
    sfq_cluster cluster;
    const float *scales; /* [panels][segments][16/share] */
    /* both */
    const float *bias; /* [N] or NULL */
} sfq_matrix;

typedef struct sfq_norm {
    const float *gain; /* [C]; NULL: absent */
    const float *bias; /* [C] or NULL */
} sfq_norm;

typedef struct sfq_layer_weights {
    sfq_norm attn_norm, ffn_norm, q_norm, k_norm;
    sfq_matrix q, k, v, qkv, o, gate, up, down;
} sfq_layer_weights;

typedef struct sfq_net {
    const sfq_arch *arch;
    sfq_matrix word, position, type; /* tables: n rows of k */
    sfq_norm embedding_norm, final_norm;
    sfq_layer_weights *layer; /* [layers] */
    sfq_matrix lm_head;       /* tied: the same pointers as word, no bias */
    sfq_matrix pooler, classifier;
    uint64_t weight_bytes; /* that one token's pass reads: matrices without the tables' rows */
} sfq_net;

/* All handles must outlive the net. */
sfq_status sfq_net_open(sfq_net **out, const sfq_arch *arch, const sfq_modules *modules,
                        const sfq_checkpoint *ck, const sfq_artifact_info *artifact,
                        const sfq_hooks *hooks, sfq_error *err);
void sfq_net_close(sfq_net **net);

/* The place of a role in a net, absent matrices (n = 0) and norms (gain NULL) included; NULL where
 * the role is none of its kind, or the layer none of the role's (-1: outside the layers). */
const sfq_matrix *sfq_net_matrix(const sfq_net *net, sfq_role role, int layer);
const sfq_norm *sfq_net_norm(const sfq_net *net, sfq_role role, int layer);
/* One row of a table or matrix, dense or packed, as float: y [K]. */
void sfq_table_row(const sfq_kernels *kernels, const sfq_matrix *table, size_t row, float *y);

#endif

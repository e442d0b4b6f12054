/* model/names.h - which tensors a model of a family has, under which names, with which shapes. The
 * one list that loading, compressing and inspecting go by. */
#ifndef SFQ_MODEL_NAMES_H
#define SFQ_MODEL_NAMES_H

#include "model/arch.h"

typedef enum sfq_role {
    SFQ_ROLE_WORD_EMBEDDING = 0,
    SFQ_ROLE_POSITION_EMBEDDING,
    SFQ_ROLE_TYPE_EMBEDDING,
    SFQ_ROLE_LM_HEAD, /* untied only */
    SFQ_ROLE_Q,
    SFQ_ROLE_K,
    SFQ_ROLE_V,
    SFQ_ROLE_QKV, /* GPT-2: rows q | k | v in one matrix */
    SFQ_ROLE_O,
    SFQ_ROLE_GATE,
    SFQ_ROLE_UP, /* the first matrix of a plain MLP, too */
    SFQ_ROLE_DOWN,
    SFQ_ROLE_POOLER, /* BERT pooler.dense, DistilBERT pre_classifier */
    SFQ_ROLE_CLASSIFIER,
    SFQ_ROLE_EMBEDDING_NORM,
    SFQ_ROLE_ATTN_NORM, /* pre: before attention; post: after its residual */
    SFQ_ROLE_FFN_NORM,
    SFQ_ROLE_Q_NORM,
    SFQ_ROLE_K_NORM,
    SFQ_ROLE_FINAL_NORM,
    SFQ_ROLE_COUNT
} sfq_role;

/* One module: a matrix with an optional bias, or a norm with gain and optional bias. */
typedef struct sfq_module {
    char *name; /* "model.layers.0.mlp.up_proj": + ".weight", ".bias", ".codes", ".scales" */
    sfq_role role;
    int layer;       /* -1 outside the layers */
    size_t n, k;     /* outputs, inputs; a table has n rows of k; a norm has n = 1, k = width */
    bool transposed; /* the file holds [k, n] (GPT-2 Conv1D) while dense; packed is always [n, k] */
    bool bias;       /* NAME.bias is there */
    bool packed;     /* NAME.codes and NAME.scales instead of NAME.weight */
} sfq_module;

typedef struct sfq_modules {
    sfq_module *items;
    size_t count;
} sfq_modules;

/* A dropped sublayer (heads or ffn 0) has no matrices and, before a pre-norm, no norm either; where
 * its output matrix has a bias, that bias still counts: a module with k = 0 and bias. An artifact
 * may carry a bias that the family does not have (what pruning took away on average).
 *
 * The modules of this checkpoint. Resolves optional prefixes ("bert.", "transformer."), proves that
 * every tensor is there with its shape and dtype (dense float, or as the artifact says), and that
 * nothing unknown is (buffers and unused heads of known names are skipped). FORMAT names the
 * tensor. artifact NULL: dense. */
sfq_status sfq_modules_open(sfq_modules **out, const sfq_arch *arch, const sfq_checkpoint *ck,
                            const sfq_artifact_info *artifact, sfq_error *err);
/* The modules that a dense checkpoint of this arch has, for whoever writes one; nothing is proved.
 * Named as ck's are: with the family's prefix or without (ck NULL: with). */
sfq_status sfq_modules_list(sfq_modules **out, const sfq_arch *arch, const sfq_checkpoint *ck,
                            sfq_error *err);
void sfq_modules_close(sfq_modules **modules);
const sfq_module *sfq_modules_find(const sfq_modules *modules, sfq_role role, int layer);
/* NAME.weight and NAME.bias of a module (old BERT files call a norm's .gamma and .beta); NULL where
 * the module has none (packed, k = 0, no bias). */
const sfq_tensor *sfq_module_weight(const sfq_module *module, const sfq_checkpoint *ck);
const sfq_tensor *sfq_module_bias(const sfq_module *module, const sfq_checkpoint *ck);
/* Whether the role's matrix is a weight table or matrix that can be packed (norms cannot). */
bool sfq_role_is_matrix(sfq_role role);
/* word, position and type tables and LM heads: what --embedding-bits rules */
bool sfq_role_is_embedding(sfq_role role);
/* attention and FFN matrices: the prunable blocks */
bool sfq_role_is_block(sfq_role role);
const char *sfq_role_name(sfq_role role);

#endif

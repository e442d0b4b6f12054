/* model/families.c - which name each family gives to each module. Data only; names.c reads it. Rows
 * of a table are in the order in which a token meets them. */
#include "model/families.h"

static const sfq_name_row sfq_rows_llama[] = {
    {SFQ_ROLE_WORD_EMBEDDING, "embed_tokens", false},
    {SFQ_ROLE_ATTN_NORM, "layers.#.input_layernorm", false},
    {SFQ_ROLE_Q, "layers.#.self_attn.q_proj", false},
    {SFQ_ROLE_K, "layers.#.self_attn.k_proj", false},
    {SFQ_ROLE_V, "layers.#.self_attn.v_proj", false},
    {SFQ_ROLE_Q_NORM, "layers.#.self_attn.q_norm", false},
    {SFQ_ROLE_K_NORM, "layers.#.self_attn.k_norm", false},
    {SFQ_ROLE_O, "layers.#.self_attn.o_proj", false},
    {SFQ_ROLE_FFN_NORM, "layers.#.post_attention_layernorm", false},
    {SFQ_ROLE_GATE, "layers.#.mlp.gate_proj", false},
    {SFQ_ROLE_UP, "layers.#.mlp.up_proj", false},
    {SFQ_ROLE_DOWN, "layers.#.mlp.down_proj", false},
    {SFQ_ROLE_FINAL_NORM, "norm", false},
    {SFQ_ROLE_LM_HEAD, "lm_head", true},
};

static const sfq_name_row sfq_rows_gpt2[] = {
    {SFQ_ROLE_WORD_EMBEDDING, "wte", false}, {SFQ_ROLE_POSITION_EMBEDDING, "wpe", false},
    {SFQ_ROLE_ATTN_NORM, "h.#.ln_1", false}, {SFQ_ROLE_QKV, "h.#.attn.c_attn", false},
    {SFQ_ROLE_O, "h.#.attn.c_proj", false},  {SFQ_ROLE_FFN_NORM, "h.#.ln_2", false},
    {SFQ_ROLE_UP, "h.#.mlp.c_fc", false},    {SFQ_ROLE_DOWN, "h.#.mlp.c_proj", false},
    {SFQ_ROLE_FINAL_NORM, "ln_f", false},    {SFQ_ROLE_LM_HEAD, "lm_head", true},
};

static const sfq_name_row sfq_rows_bert[] = {
    {SFQ_ROLE_WORD_EMBEDDING, "embeddings.word_embeddings", false},
    {SFQ_ROLE_POSITION_EMBEDDING, "embeddings.position_embeddings", false},
    {SFQ_ROLE_TYPE_EMBEDDING, "embeddings.token_type_embeddings", false},
    {SFQ_ROLE_EMBEDDING_NORM, "embeddings.LayerNorm", false},
    {SFQ_ROLE_Q, "encoder.layer.#.attention.self.query", false},
    {SFQ_ROLE_K, "encoder.layer.#.attention.self.key", false},
    {SFQ_ROLE_V, "encoder.layer.#.attention.self.value", false},
    {SFQ_ROLE_O, "encoder.layer.#.attention.output.dense", false},
    {SFQ_ROLE_ATTN_NORM, "encoder.layer.#.attention.output.LayerNorm", false},
    {SFQ_ROLE_UP, "encoder.layer.#.intermediate.dense", false},
    {SFQ_ROLE_DOWN, "encoder.layer.#.output.dense", false},
    {SFQ_ROLE_FFN_NORM, "encoder.layer.#.output.LayerNorm", false},
    {SFQ_ROLE_POOLER, "pooler.dense", false},
    {SFQ_ROLE_CLASSIFIER, "classifier", true},
};

static const sfq_name_row sfq_rows_distilbert[] = {
    {SFQ_ROLE_WORD_EMBEDDING, "embeddings.word_embeddings", false},
    {SFQ_ROLE_POSITION_EMBEDDING, "embeddings.position_embeddings", false},
    {SFQ_ROLE_EMBEDDING_NORM, "embeddings.LayerNorm", false},
    {SFQ_ROLE_Q, "transformer.layer.#.attention.q_lin", false},
    {SFQ_ROLE_K, "transformer.layer.#.attention.k_lin", false},
    {SFQ_ROLE_V, "transformer.layer.#.attention.v_lin", false},
    {SFQ_ROLE_O, "transformer.layer.#.attention.out_lin", false},
    {SFQ_ROLE_ATTN_NORM, "transformer.layer.#.sa_layer_norm", false},
    {SFQ_ROLE_UP, "transformer.layer.#.ffn.lin1", false},
    {SFQ_ROLE_DOWN, "transformer.layer.#.ffn.lin2", false},
    {SFQ_ROLE_FFN_NORM, "transformer.layer.#.output_layer_norm", false},
    {SFQ_ROLE_POOLER, "pre_classifier", true},
    {SFQ_ROLE_CLASSIFIER, "classifier", true},
};

static const char *const sfq_skip_llama[] = {
    "rotary_emb.inv_freq",
    "layers.#.self_attn.rotary_emb.inv_freq",
};
static const char *const sfq_skip_gpt2[] = {
    "h.#.attn.bias",
    "h.#.attn.masked_bias",
    "score.weight",
};
static const char *const sfq_skip_bert[] = {
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    "pooler.dense.weight",
    "pooler.dense.bias",
    "classifier.weight",
    "classifier.bias",
    "qa_outputs.*",
    "cls.*",
};
static const char *const sfq_skip_distilbert[] = {
    "embeddings.position_ids", "pre_classifier.*",  "classifier.*",       "qa_outputs.*",
    "vocab_transform.*",       "vocab_projector.*", "vocab_layer_norm.*",
};

#define SFQ_ROWS(rows) (rows), sizeof(rows) / sizeof((rows)[0])

static const sfq_name_table sfq_table_llama = {"model.", false, SFQ_ROWS(sfq_rows_llama),
                                               SFQ_ROWS(sfq_skip_llama)};
static const sfq_name_table sfq_table_gpt2 = {"transformer.", true, SFQ_ROWS(sfq_rows_gpt2),
                                              SFQ_ROWS(sfq_skip_gpt2)};
static const sfq_name_table sfq_table_bert = {"bert.", false, SFQ_ROWS(sfq_rows_bert),
                                              SFQ_ROWS(sfq_skip_bert)};
static const sfq_name_table sfq_table_distilbert = {
    "distilbert.", false, SFQ_ROWS(sfq_rows_distilbert), SFQ_ROWS(sfq_skip_distilbert)};

const sfq_name_table *sfq_name_table_of(sfq_family family)
{
    switch (family) {
    case SFQ_FAMILY_GPT2:
        return &sfq_table_gpt2;
    case SFQ_FAMILY_BERT:
        return &sfq_table_bert;
    case SFQ_FAMILY_DISTILBERT:
        return &sfq_table_distilbert;
    case SFQ_FAMILY_LLAMA:
    case SFQ_FAMILY_QWEN2:
    case SFQ_FAMILY_QWEN3:
    case SFQ_FAMILY_COUNT:
        break;
    }
    return &sfq_table_llama;
}

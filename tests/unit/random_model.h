/* unit/random_model.h - a checkpoint of any family with random weights, in a scratch directory:
 * small, odd widths, every bias that the family can have. */
#ifndef SFQ_TESTS_RANDOM_MODEL_H
#define SFQ_TESTS_RANDOM_MODEL_H

#include "unit/unit.h"

#include "base/mem.h"
#include "base/rng.h"
#include "format/safetensors.h"
#include "model/families.h"

#define RANDOM_LLAMA_LIKE(type, class, more)                                                       \
    "{\"model_type\": \"" type                                                                     \
    "\", \"architectures\": [\"" class "\"], \"hidden_size\": 40, "                                \
                                       "\"intermediate_size\": 72, \"num_hidden_layers\": 3, "     \
                                       "\"num_attention_heads\": 10, "                             \
                                       "\"num_key_value_heads\": 5, \"head_dim\": 8, "             \
                                       "\"vocab_size\": 96, "                                      \
                                       "\"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-5, " \
                                       "\"hidden_act\": \"silu\", "                                \
                                       "\"rope_theta\": 10000.0" more "}"

static const struct random_family {
    const char *name, *config;
} random_families[] = {
    {"llama", RANDOM_LLAMA_LIKE("llama", "LlamaForCausalLM",
                                ", \"attention_bias\": true, \"mlp_bias\": true, "
                                "\"tie_word_embeddings\": false")},
    {"mistral",
     RANDOM_LLAMA_LIKE("mistral", "MistralForCausalLM", ", \"tie_word_embeddings\": false")},
    {"qwen2", RANDOM_LLAMA_LIKE("qwen2", "Qwen2ForCausalLM", ", \"tie_word_embeddings\": true")},
    {"qwen3", RANDOM_LLAMA_LIKE("qwen3", "Qwen3ForCausalLM", ", \"tie_word_embeddings\": true")},
    {"gpt2", "{\"model_type\": \"gpt2\", \"architectures\": [\"GPT2LMHeadModel\"], "
             "\"n_embd\": 40, \"n_layer\": 3, \"n_head\": 5, \"n_positions\": 64, "
             "\"n_inner\": 72, \"vocab_size\": 96, \"layer_norm_epsilon\": 1e-5, "
             "\"activation_function\": \"gelu_new\"}"},
    {"bert", "{\"model_type\": \"bert\", \"architectures\": [\"BertForSequenceClassification\"], "
             "\"hidden_size\": 40, \"intermediate_size\": 72, \"num_hidden_layers\": 3, "
             "\"num_attention_heads\": 5, \"vocab_size\": 96, \"max_position_embeddings\": 64, "
             "\"type_vocab_size\": 2, \"layer_norm_eps\": 1e-12, \"hidden_act\": \"gelu\", "
             "\"id2label\": {\"0\": \"a\", \"1\": \"b\", \"2\": \"c\"}}"},
    {"distilbert", "{\"model_type\": \"distilbert\", "
                   "\"architectures\": [\"DistilBertForSequenceClassification\"], \"dim\": 40, "
                   "\"hidden_dim\": 72, \"n_layers\": 3, \"n_heads\": 5, \"vocab_size\": 96, "
                   "\"max_position_embeddings\": 64, \"activation\": \"gelu\", "
                   "\"id2label\": {\"0\": \"a\", \"1\": \"b\", \"2\": \"c\"}}"},
};

enum { RANDOM_FAMILIES = sizeof random_families / sizeof *random_families };

typedef struct random_shape {
    size_t n, k; /* k 0: absent; a norm has n 0 */
    bool bias;
} random_shape;

static inline random_shape random_shape_of(const sfq_arch *a, sfq_role role)
{
    const sfq_layer_arch *l = &a->layer[0];
    size_t c = (size_t)a->hidden, v = (size_t)a->vocab, d = (size_t)a->head_dim;
    size_t q = (size_t)l->heads * d, kv = (size_t)l->kv_heads * d, f = (size_t)l->ffn;
    size_t labels = (size_t)a->labels;
    switch (role) {
    case SFQ_ROLE_WORD_EMBEDDING:
        return (random_shape){v, c, false};
    case SFQ_ROLE_POSITION_EMBEDDING:
        return (random_shape){(size_t)a->max_positions, a->learned_positions ? c : 0, false};
    case SFQ_ROLE_TYPE_EMBEDDING:
        return (random_shape){(size_t)a->type_vocab, a->type_vocab > 0 ? c : 0, false};
    case SFQ_ROLE_LM_HEAD:
        return (random_shape){v, a->head == SFQ_MODEL_HEAD_LM && !a->tied_head ? c : 0, false};
    case SFQ_ROLE_POOLER:
        return (random_shape){c, labels > 0 ? c : 0, true};
    case SFQ_ROLE_CLASSIFIER:
        return (random_shape){labels, labels > 0 ? c : 0, true};
    case SFQ_ROLE_Q:
        return (random_shape){q, c, a->bias_qkv};
    case SFQ_ROLE_K:
    case SFQ_ROLE_V:
        return (random_shape){kv, c, a->bias_qkv};
    case SFQ_ROLE_QKV:
        return (random_shape){q + 2 * kv, c, a->bias_qkv};
    case SFQ_ROLE_O:
        return (random_shape){c, q, a->bias_o};
    case SFQ_ROLE_GATE:
        return (random_shape){f, a->gated ? c : 0, a->bias_mlp};
    case SFQ_ROLE_UP:
        return (random_shape){f, c, a->bias_mlp};
    case SFQ_ROLE_DOWN:
        return (random_shape){c, f, a->bias_mlp};
    case SFQ_ROLE_Q_NORM:
    case SFQ_ROLE_K_NORM:
        return (random_shape){0, a->qk_norm ? d : 0, false};
    default:
        return (random_shape){0, c, !a->rms_norm};
    }
}

typedef struct random_writer {
    sfq_st_writer *writer;
    sfq_dtype dtype;
    uint64_t seed;
    size_t index;
    bool declaring;
} random_writer;

/* Gains 0.5 to 1.5, all else -0.4 to 0.4. */
static inline sfq_status random_tensor(random_writer *w, const char *name, size_t rows, size_t cols,
                                       bool gain, sfq_error *err)
{
    const uint64_t shape[2] = {rows, cols};
    size_t count = rows * (cols > 0 ? cols : 1), size = sfq_dtype_info(w->dtype)->bytes;
    if (w->declaring)
        return sfq_st_writer_declare(w->writer, name, w->dtype, cols > 0 ? 2 : 1, shape, err);
    unsigned char *data = malloc(count * size);
    assert_non_null(data);
    for (size_t i = 0; i < count; i++) {
        float f = (float)sfq_rng_uniform(w->seed, w->index, i);
        f = gain ? 0.5F + f : 0.8F * (f - 0.5F);
        uint16_t h = w->dtype == SFQ_F16 ? sfq_f32_to_f16(f) : sfq_f32_to_bf16(f);
        memcpy(data + i * size, w->dtype == SFQ_F32 ? (void *)&f : (void *)&h, size);
    }
    sfq_status status = sfq_st_writer_put(w->writer, w->index++, data, count * size, err);
    free(data);
    return status;
}

static inline void random_module(random_writer *w, const sfq_name_table *table,
                                 const sfq_name_row *row, const random_shape *s, int layer)
{
    sfq_error err = {0};
    char name[160], full[200];
    const char *mark = strchr(row->name, '#');
    int n = mark != NULL ? (int)(mark - row->name) : (int)strlen(row->name);
    snprintf(name, sizeof name, "%s%.*s", row->outside ? "" : table->prefix, n, row->name);
    if (mark != NULL)
        snprintf(name + strlen(name), sizeof name - strlen(name), "%d%s", layer, mark + 1);
    bool turned = table->transposed && sfq_role_is_block(row->role), norm = s->n == 0;
    snprintf(full, sizeof full, "%s.weight", name);
    assert_ok(random_tensor(w, full,
                            norm     ? s->k
                            : turned ? s->k
                                     : s->n,
                            norm     ? 0
                            : turned ? s->n
                                     : s->k,
                            norm, &err));
    snprintf(full, sizeof full, "%s.bias", name);
    if (s->bias)
        assert_ok(random_tensor(w, full, norm ? s->k : s->n, 0, false, &err));
}

/* Two passes over all modules: declare, put. */
static inline void random_weights(random_writer *w, const sfq_arch *a)
{
    const sfq_name_table *table = sfq_name_table_of(a->family);
    for (size_t r = 0; r < table->count; r++) {
        const sfq_name_row *row = &table->rows[r];
        random_shape s = random_shape_of(a, row->role);
        int layers = strchr(row->name, '#') != NULL ? a->layers : 1;
        for (int layer = 0; layer < layers && s.k > 0; layer++)
            random_module(w, table, row, &s, layer);
    }
}

/* A new model directory `target`, which must not be there. config: one of random_families, or any
 * of these architectures. */
static inline void random_model(const char *target, const char *config, sfq_dtype dtype,
                                uint64_t seed)
{
    sfq_error err = {0};
    sfq_outdir *dir = NULL;
    sfq_hf_config *parsed = NULL;
    sfq_arch *arch = NULL;
    random_writer w = {.dtype = dtype, .seed = seed};
    assert_ok(sfq_outdir_open(&dir, target, false, &err));
    assert_ok(sfq_outdir_put(dir, "config.json", config, strlen(config), &err));
    assert_ok(sfq_hf_config_open(&parsed, sfq_outdir_path(dir), &err));
    assert_ok(sfq_arch_open(&arch, parsed, NULL, sfq_outdir_path(dir), &err));
    assert_ok(sfq_st_writer_open(&w.writer, dir, "model.safetensors", &err));
    w.declaring = true;
    random_weights(&w, arch);
    assert_ok(sfq_st_writer_begin(w.writer, &err));
    w.declaring = false;
    random_weights(&w, arch);
    assert_ok(sfq_st_writer_finish(&w.writer, &err));
    assert_ok(sfq_outdir_commit(&dir, NULL, &err));
    sfq_arch_close(&arch);
    sfq_hf_config_close(&parsed);
}

#endif

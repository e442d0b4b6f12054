/* config.json: both spellings give one result, absent keys give what Transformers gives, and each
 * number out of range is refused with its key. */
#include "unit/format_files.h"

#include "format/hf_config.h"

static sfq_hf_config *open_text(const char *text)
{
    sfq_hf_config *c = NULL;
    sfq_error err = {0};
    put_text("config.json", text);
    if (sfq_hf_config_open(&c, scratch, &err) != SFQ_OK)
        fail_msg("%s\n%s", text, err.message);
    return c;
}

#define LLAMA_DIMS                                                          \
    "\"hidden_size\":64,\"num_hidden_layers\":3,\"num_attention_heads\":4," \
    "\"intermediate_size\":96,\"vocab_size\":100"
#define LLAMA(more) "{\"model_type\":\"llama\"," LLAMA_DIMS more "}"
#define OF(type, more) "{\"model_type\":\"" type "\"," LLAMA_DIMS more "}"

/* Absent keys: the values of Transformers 5.23's LlamaConfig(), MistralConfig(), ... */
static void defaults(void **state)
{
    static const struct {
        const char *text, *activation;
        double eps, theta;
        int64_t positions, window;
        int kv, head_dim, bos, eos, pad, types;
        bool tie;
    } want[] = {
        {LLAMA(""), "silu", 1e-6, 1e4, 2048, 0, 4, 16, 1, 2, -1, 0, false},
        {OF("mistral", ",\"num_key_value_heads\":2"), "silu", 1e-6, 1e4, 131072, 4096, 2, 16, 1, 2,
         -1, 0, false},
        {OF("mistral", ",\"num_key_value_heads\":null,\"sliding_window\":null"), "silu", 1e-6, 1e4,
         131072, 0, 4, 16, 1, 2, -1, 0, false},
        {OF("smollm3", ""), "silu", 1e-6, 2e6, 32768, 0, 4, 16, -1, -1, -1, 0, true},
        {OF("qwen2", ",\"num_key_value_heads\":1"), "silu", 1e-6, 1e4, 32768, 0, 1, 16, -1, -1, -1,
         0, false},
        {OF("qwen3", ",\"num_key_value_heads\":1"), "silu", 1e-6, 1e4, 32768, 0, 1, 128, -1, -1, -1,
         0, false},
        {"{\"model_type\":\"gpt2\",\"n_embd\":64,\"n_layer\":3,\"n_head\":4,\"vocab_size\":100}",
         "gelu_new", 1e-5, 0, 1024, 0, 4, 16, -1, -1, -1, 0, true},
        {OF("bert", ""), "gelu", 1e-12, 0, 512, 0, 4, 16, -1, -1, 0, 2, true},
        {"{\"model_type\":\"distilbert\",\"dim\":64,\"n_layers\":3,\"n_heads\":4,\"hidden_dim\":96,"
         "\"vocab_size\":100}",
         "gelu", 1e-12, 0, 512, 0, 4, 16, -1, -1, 0, 0, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        sfq_hf_config *c = open_text(want[i].text);
        print_message("%s\n", c->model_type);
        assert_int_equal(c->hidden, 64);
        assert_int_equal(c->layers, 3);
        assert_int_equal(c->heads, 4);
        assert_int_equal(c->kv_heads, want[i].kv);
        assert_int_equal(c->head_dim, want[i].head_dim);
        assert_int_equal(c->ffn, strcmp(c->model_type, "gpt2") ? 96 : 256);
        assert_int_equal(c->vocab, 100);
        assert_int_equal(c->max_positions, want[i].positions);
        assert_int_equal(c->type_vocab, want[i].types);
        assert_true(c->norm_eps == want[i].eps);
        assert_string_equal(c->activation, want[i].activation);
        assert_int_equal(c->tie_embeddings, want[i].tie);
        assert_true(c->rope.theta == want[i].theta);
        assert_int_equal(c->rope.kind, SFQ_ROPE_DEFAULT);
        assert_true(c->rope.partial_rotary_factor == 1);
        assert_int_equal(c->sliding_window, want[i].window);
        assert_int_equal(c->layer_sliding[2], want[i].window > 0);
        assert_int_equal(c->bos, want[i].bos);
        assert_int_equal(c->eos_count, want[i].eos >= 0);
        assert_int_equal(c->pad, want[i].pad);
        assert_int_equal(c->label_count, 0);
        assert_string_equal(c->architecture, "");
        assert_null(c->quantization);
        sfq_hf_config_close(&c);
        assert_null(c);
    }
}

/* Version 4 and version 5 of the same model. */
static void both_spellings(void **state)
{
    static const char *const texts[] = {
        LLAMA(",\"torch_dtype\":\"float16\",\"rope_theta\":5e5,\"rope_scaling\":{\"type\":\"yarn\","
              "\"factor\":4.0,\"original_max_position_embeddings\":512,\"attention_factor\":1.5}"),
        LLAMA(",\"dtype\":\"float16\",\"rope_parameters\":{\"rope_theta\":500000,\"rope_type\":"
              "\"yarn\",\"factor\":4,\"original_max_position_embeddings\":512,"
              "\"attention_factor\":1.5,\"beta_fast\":null}"),
    };
    (void)state;
    for (int i = 0; i < 2; i++) {
        sfq_hf_config *c = open_text(texts[i]);
        assert_int_equal(c->rope.kind, SFQ_ROPE_YARN);
        assert_true(c->rope.theta == 5e5 && c->rope.factor == 4);
        assert_true(c->rope.original_max_positions == 512 && c->rope.attention_factor == 1.5);
        assert_true(c->rope.beta_fast == 32 && c->rope.beta_slow == 1 && c->rope.truncate);
        sfq_hf_config_close(&c);
    }
    sfq_hf_config *c =
        open_text(LLAMA(",\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":5e5,"
                        "\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4},"
                        "\"max_position_embeddings\":4096"));
    assert_int_equal(c->rope.kind, SFQ_ROPE_LLAMA3);
    assert_true(c->rope.original_max_positions == 4096 && c->rope.high_freq_factor == 4);
    sfq_hf_config_close(&c);
    c = open_text(LLAMA(",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.0}"));
    assert_int_equal(c->rope.kind, SFQ_ROPE_LINEAR);
    assert_true(c->rope.factor == 2 && c->rope.theta == 1e4);
    sfq_hf_config_close(&c);
}

static void layers_differ(void **state)
{
    sfq_hf_config *c;
    (void)state;
    c = open_text(OF("qwen2", ",\"num_key_value_heads\":4,\"use_sliding_window\":true,"
                              "\"sliding_window\":32,\"max_window_layers\":2"));
    assert_memory_equal(c->layer_sliding, "\0\0\1", 3);
    assert_int_equal(c->sliding_window, 32);
    sfq_hf_config_close(&c);
    c = open_text(OF("qwen3", ",\"num_key_value_heads\":4,\"use_sliding_window\":true,"
                              "\"sliding_window\":32,\"layer_types\":[\"sliding_attention\","
                              "\"full_attention\",\"full_attention\"]"));
    assert_memory_equal(c->layer_sliding, "\1\0\0", 3);
    sfq_hf_config_close(&c);
    c = open_text(OF("smollm3", ",\"no_rope_layers\":[1,0,1]"));
    assert_memory_equal(c->layer_no_rope, "\0\1\0", 3);
    assert_memory_equal(c->layer_sliding, "\0\0\0", 3);
    sfq_hf_config_close(&c);
    c = open_text(OF("smollm3", ",\"no_rope_layer_interval\":2,\"use_sliding_window\":true,"
                                "\"sliding_window\":7"));
    assert_memory_equal(c->layer_no_rope, "\0\1\0", 3);
    assert_memory_equal(c->layer_sliding, "\0\1\0", 3);
    sfq_hf_config_close(&c);
}

static void labels_and_ids(void **state)
{
    sfq_hf_config *c;
    (void)state;
    c = open_text(OF("bert", ",\"architectures\":[\"BertForSequenceClassification\"]"));
    assert_int_equal(c->label_count, 2);
    assert_string_equal(c->labels[1], "LABEL_1");
    sfq_hf_config_close(&c);
    c = open_text(OF("bert", ",\"id2label\":{\"1\":\"good\",\"0\":\"bad\"},\"problem_type\":"
                             "\"single_label_classification\""));
    assert_int_equal(c->label_count, 2);
    assert_string_equal(c->labels[0], "bad");
    assert_string_equal(c->labels[1], "good");
    assert_string_equal(c->problem_type, "single_label_classification");
    sfq_hf_config_close(&c);
    c = open_text(OF("bert", ",\"num_labels\":3"));
    assert_string_equal(c->labels[2], "LABEL_2");
    sfq_hf_config_close(&c);
    c = open_text(LLAMA(",\"eos_token_id\":[5,300,7],\"bos_token_id\":null,\"pad_token_id\":-1"));
    assert_int_equal(c->eos_count, 2); /* 300 is outside the vocabulary */
    assert_int_equal(c->eos[1], 7);
    assert_int_equal(c->bos, -1);
    assert_int_equal(c->pad, -1);
    sfq_hf_config_close(&c);
    put_text("generation_config.json", "{\"eos_token_id\":9,\"bos_token_id\":3}");
    c = open_text(LLAMA(",\"eos_token_id\":[5,7],\"bos_token_id\":null"));
    assert_int_equal(c->eos_count, 1);
    assert_int_equal(c->eos[0], 9);
    assert_int_equal(c->bos, 3);
    sfq_hf_config_close(&c);
    unlink(in_scratch("generation_config.json"));
}

/* Numbers that do not fit, types that are wrong, features that are not built. */
static const struct {
    const char *text;
    sfq_status status;
    const char *words;
} refusals[] = {
    {"", SFQ_E_FORMAT, "config.json"},
    {"{", SFQ_E_FORMAT, "config.json"},
    {"[]", SFQ_E_FORMAT, "expected a JSON object"},
    {"{}", SFQ_E_FORMAT, "\"model_type\" is missing"},
    {"{\"model_type\":1}", SFQ_E_FORMAT, "model_type"},
    {"{\"model_type\":\"llama\",\"model_type\":\"llama\"}", SFQ_E_FORMAT, "duplicate"},
    {"{\"model_type\":\"llama\"}", SFQ_E_FORMAT, "\"hidden_size\" is missing"},
    {LLAMA(",\"architectures\":\"x\""), SFQ_E_FORMAT, "architectures"},
    {LLAMA(",\"architectures\":[1]"), SFQ_E_FORMAT, "architectures"},
    {OF("bert", ",\"type_vocab_size\":-1"), SFQ_E_FORMAT, "type_vocab_size"},
    {LLAMA(",\"num_key_value_heads\":0"), SFQ_E_FORMAT, "num_key_value_heads"},
    {LLAMA(",\"num_key_value_heads\":3"), SFQ_E_FORMAT, "does not divide"},
    {LLAMA(",\"num_key_value_heads\":5"), SFQ_E_FORMAT, "more than num_attention_heads 4"},
    {LLAMA(",\"head_dim\":0"), SFQ_E_FORMAT, "head_dim"},
    {LLAMA(",\"head_dim\":7"), SFQ_E_FORMAT, "RoPE turns pairs"},
    {LLAMA(",\"head_dim\":1000000"), SFQ_E_LIMIT, "limit 16384"},
    {LLAMA(",\"max_position_embeddings\":4611686018427387904"), SFQ_E_LIMIT, "limit 16777216"},
    {LLAMA(",\"max_position_embeddings\":99999999999999999999"), SFQ_E_FORMAT, "integer"},
    {LLAMA(",\"rms_norm_eps\":0"), SFQ_E_FORMAT, "rms_norm_eps"},
    {LLAMA(",\"rms_norm_eps\":-1e-5"), SFQ_E_FORMAT, "rms_norm_eps"},
    {LLAMA(",\"rms_norm_eps\":\"1e-5\""), SFQ_E_FORMAT, "rms_norm_eps"},
    {LLAMA(",\"hidden_act\":7"), SFQ_E_FORMAT, "hidden_act"},
    {LLAMA(",\"tie_word_embeddings\":1"), SFQ_E_FORMAT, "tie_word_embeddings"},
    {LLAMA(",\"rope_theta\":0"), SFQ_E_FORMAT, "rope_theta"},
    {LLAMA(",\"rope_theta\":-5"), SFQ_E_FORMAT, "rope_theta"},
    {LLAMA(",\"rope_theta\":1e400"), SFQ_E_FORMAT, "real number overflow"},
    {LLAMA(",\"rope_theta\":NaN"), SFQ_E_FORMAT, "config.json"},
    {LLAMA(",\"rope_scaling\":[1]"), SFQ_E_FORMAT, "rope_scaling is no object"},
    {LLAMA(",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}"), SFQ_E_UNSUPPORTED,
     "\"dynamic\""},
    {LLAMA(",\"rope_scaling\":{\"type\":\"linear\"}"), SFQ_E_FORMAT, "\"factor\" is missing"},
    {LLAMA(",\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
           "\"high_freq_factor\":4}"),
     SFQ_E_FORMAT, "not above"},
    {LLAMA(",\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1e4}}"), SFQ_E_UNSUPPORTED,
     "per layer type"},
    {LLAMA(",\"partial_rotary_factor\":1.5"), SFQ_E_FORMAT, "partial_rotary_factor"},
    {LLAMA(",\"bos_token_id\":-7"), SFQ_E_FORMAT, "bos_token_id"},
    {LLAMA(",\"bos_token_id\":true"), SFQ_E_FORMAT, "bos_token_id"},
    {LLAMA(",\"eos_token_id\":\"2\""), SFQ_E_FORMAT, "eos_token_id"},
    {LLAMA(",\"eos_token_id\":[1,[2]]"), SFQ_E_FORMAT, "eos_token_id"},
    {LLAMA(",\"eos_token_id\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"), SFQ_E_LIMIT, "limit 16"},
    {LLAMA(",\"eos_token_id\":4294967298"), SFQ_E_FORMAT, "eos_token_id"},
    {LLAMA(",\"quantization_config\":[]"), SFQ_E_FORMAT, "quantization_config"},
    {LLAMA(",\"compression_config\":{}"), SFQ_E_UNSUPPORTED, "compression_config"},
    {LLAMA(",\"pruned_heads\":{\"0\":[1]}"), SFQ_E_UNSUPPORTED, "pruned_heads"},
    {OF("bert", ",\"problem_type\":\"x\""), SFQ_E_FORMAT, "problem_type"},
    {OF("bert", ",\"id2label\":{\"1\":\"a\"}"), SFQ_E_FORMAT, "id2label"},
    {OF("bert", ",\"id2label\":{\"0\":\"a\",\"00\":\"b\"}"), SFQ_E_FORMAT, "id2label"},
    {OF("bert", ",\"id2label\":{\"0\":1}"), SFQ_E_FORMAT, "id2label"},
    {OF("bert", ",\"id2label\":{}"), SFQ_E_FORMAT, "id2label"},
    {OF("bert", ",\"num_labels\":5000"), SFQ_E_LIMIT, "limit 4096"},
    {OF("qwen2", ",\"num_key_value_heads\":4,\"layer_types\":[\"full_attention\"]"), SFQ_E_FORMAT,
     "layer_types"},
    {OF("qwen2", ",\"num_key_value_heads\":4,\"layer_types\":[\"full_attention\","
                 "\"chunked_attention\",\"full_attention\"]"),
     SFQ_E_UNSUPPORTED, "chunked_attention"},
    {OF("smollm3", ",\"no_rope_layers\":[1]"), SFQ_E_FORMAT, "no_rope_layers"},
    {OF("smollm3", ",\"no_rope_layers\":[1,2,1]"), SFQ_E_FORMAT, "no_rope_layers[1]"},
    {OF("smollm3", ",\"no_rope_layer_interval\":0"), SFQ_E_FORMAT, "no_rope_layer_interval"},
    {OF("mistral", ",\"num_key_value_heads\":4,\"sliding_window\":0"), SFQ_E_FORMAT,
     "sliding_window"},
    {"{\"model_type\":\"llama\",\"hidden_size\":4096,\"num_hidden_layers\":2147483648,"
     "\"num_attention_heads\":32,\"intermediate_size\":1,\"vocab_size\":1}",
     SFQ_E_LIMIT, "limit 1024"},
    {"{\"model_type\":\"llama\",\"hidden_size\":4096,\"num_hidden_layers\":1,"
     "\"num_attention_heads\":7,\"intermediate_size\":1,\"vocab_size\":1}",
     SFQ_E_FORMAT, "num_attention_heads 7 does not divide hidden_size 4096"},
    {"{\"model_type\":\"llama\",\"hidden_size\":4096,\"num_hidden_layers\":1,"
     "\"num_attention_heads\":0,\"intermediate_size\":1,\"vocab_size\":1}",
     SFQ_E_FORMAT, "num_attention_heads"},
};

static void refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        sfq_hf_config *c = NULL;
        sfq_error err = {0};
        put_text("config.json", refusals[i].text);
        sfq_status status = sfq_hf_config_open(&c, scratch, &err);
        if (status != refusals[i].status || !strstr(err.message, refusals[i].words) ||
            !strstr(err.message, "config.json"))
            fail_msg("case %zu %s: %d \"%s\"", i, refusals[i].text, status, err.message);
        assert_null(c);
    }
}

static void other_families_pass_by_name(void **state)
{
    sfq_hf_config *c =
        open_text("{\"model_type\":\"t5\",\"d_model\":-1,\"architectures\":[\"T5\"]}");
    (void)state;
    assert_string_equal(c->model_type, "t5");
    assert_string_equal(c->architecture, "T5");
    assert_int_equal(c->layers, 0);
    sfq_hf_config_close(&c);
}

static void missing_directory(void **state)
{
    sfq_hf_config *c;
    sfq_error err;
    (void)state;
    assert_int_equal(sfq_hf_config_open(&c, in_scratch("nowhere"), &err), SFQ_E_NOT_FOUND);
    assert_non_null(strstr(err.message, "nowhere/config.json"));
}

static void models_of_the_repository(void **state)
{
    sfq_hf_config *c;
    (void)state;
    assert_int_equal(sfq_hf_config_open(&c, "models/novels-5m", NULL), SFQ_OK);
    assert_int_equal(c->kv_heads, 4);
    assert_int_equal(c->head_dim, 32);
    assert_int_equal(c->eos[0], 1);
    sfq_hf_config_close(&c);
    assert_int_equal(sfq_hf_config_open(&c, "models/sst2-tiny", NULL), SFQ_OK);
    assert_string_equal(c->labels[0], "negative");
    assert_string_equal(c->architecture, "BertForSequenceClassification");
    sfq_hf_config_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),          cmocka_unit_test(both_spellings),
        cmocka_unit_test(layers_differ),     cmocka_unit_test(labels_and_ids),
        cmocka_unit_test(refused),           cmocka_unit_test(other_families_pass_by_name),
        cmocka_unit_test(missing_directory), cmocka_unit_test(models_of_the_repository),
    };
    return cmocka_run_group_tests(tests, files_open, files_close);
}

/* unit/test_model_modules.c - the list of modules against checkpoints with a dropped sublayer: what
 * may be left of it, and what must not pass as such. */
#include "format_files.h"

#include "model/names.h"

static sfq_error err;

enum { C = 8, VOCAB = 4, HEADER_ROOM = 8192 };

/* A llama of one layer without attention, hidden and ffn 8. */
static const char CONFIG[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 8, "
    "\"num_hidden_layers\": 1, \"num_attention_heads\": 1, \"intermediate_size\": 8, "
    "\"vocab_size\": 4, \"max_position_embeddings\": 16, \"hidden_act\": \"silu\", "
    "\"rms_norm_eps\": 1e-5, \"tie_word_embeddings\": true, "
    "\"per_layer_config\": {\"0\": {\"skip\": [\"attention\"]}}}";

static const st_entry model[] = {{"model.embed_tokens.weight", VOCAB, C},
                                 {"model.layers.0.post_attention_layernorm.weight", C, 0},
                                 {"model.layers.0.mlp.gate_proj.weight", C, C},
                                 {"model.layers.0.mlp.up_proj.weight", C, C},
                                 {"model.layers.0.mlp.down_proj.weight", C, C},
                                 {"model.norm.weight", C, 0}};

/* The modules of the model with one tensor more; whether attention's output is among them. */
static sfq_status open_with(st_entry more, bool *output)
{
    static char header[HEADER_ROOM];
    sfq_hf_config *config = NULL;
    sfq_arch *arch = NULL;
    sfq_checkpoint *ck = NULL;
    sfq_modules *modules = NULL;
    size_t at = 0;
    strcpy(header, "{");
    for (size_t i = 0; i < sizeof model / sizeof *model; i++)
        at = add_f16(header, sizeof header, model[i], at);
    at = add_f16(header, sizeof header, more, at);
    strcat(header, "}");
    (void)put_safetensors("model.safetensors", header, at);
    (void)put_text("config.json", CONFIG);
    assert_ok(sfq_hf_config_open(&config, scratch, &err));
    assert_ok(sfq_arch_open(&arch, config, NULL, scratch, &err));
    assert_ok(sfq_checkpoint_open(&ck, scratch, NULL, &err));
    sfq_status status = sfq_modules_open(&modules, arch, ck, NULL, &err);
    *output = modules != NULL && sfq_modules_find(modules, SFQ_ROLE_O, 0) != NULL;
    sfq_modules_close(&modules);
    sfq_checkpoint_close(&ck);
    sfq_arch_close(&arch);
    sfq_hf_config_close(&config);
    return status;
}

/* An empty bias is no bias: a module of it would have neither inputs nor anything to add. */
static void test_empty_leftovers(void **state)
{
    (void)state;
    bool output;
    assert_ok(open_with((st_entry){"model.layers.0.self_attn.o_proj.bias", 0, 0}, &output));
    assert_false(output);
    assert_ok(open_with((st_entry){"model.layers.0.self_attn.q_proj.weight", 0, C}, &output));
    assert_false(output);
    assert_fails(SFQ_E_FORMAT, "no such tensor",
                 open_with((st_entry){"model.layers.0.self_attn.o_proj.bias", C, 0}, &output));
}

/* The norm of the dropped sublayer may stay; a bias of a norm that is used may not be dropped. */
static void test_norms(void **state)
{
    (void)state;
    bool output;
    assert_ok(open_with((st_entry){"model.layers.0.input_layernorm.weight", C, 0}, &output));
    assert_fails(
        SFQ_E_FORMAT, "no such tensor",
        open_with((st_entry){"model.layers.0.post_attention_layernorm.bias", C, 0}, &output));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_leftovers),
        cmocka_unit_test(test_norms),
    };
    return cmocka_run_group_tests(tests, files_open, files_close);
}

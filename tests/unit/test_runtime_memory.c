/* unit/test_runtime_memory.c - what opening and computing announce before they take it. */
#include "format_files.h"

#include "runtime/engine.h"
#include "runtime/session.h"

static sfq_error err;

/* GPT-2 of one layer, hidden 8, F16: its Conv1D matrices are turned, 2 bytes a weight; norms and
 * biases become float. */
static void test_copies(void **state)
{
    (void)state;
    enum { C = 8, F = 32 };
    static const st_entry model[] = {{"wte.weight", 4, C},
                                     {"wpe.weight", 16, C},
                                     {"h.0.ln_1.weight", C, 0},
                                     {"h.0.ln_1.bias", C, 0},
                                     {"h.0.attn.c_attn.weight", C, 3 * C},
                                     {"h.0.attn.c_attn.bias", 3 * C, 0},
                                     {"h.0.attn.c_proj.weight", C, C},
                                     {"h.0.attn.c_proj.bias", C, 0},
                                     {"h.0.ln_2.weight", C, 0},
                                     {"h.0.ln_2.bias", C, 0},
                                     {"h.0.mlp.c_fc.weight", C, F},
                                     {"h.0.mlp.c_fc.bias", F, 0},
                                     {"h.0.mlp.c_proj.weight", F, C},
                                     {"h.0.mlp.c_proj.bias", C, 0},
                                     {"ln_f.weight", C, 0},
                                     {"ln_f.bias", C, 0}};
    static char header[8192];
    size_t at = 0;
    strcpy(header, "{");
    for (size_t i = 0; i < sizeof model / sizeof *model; i++)
        at = add_f16(header, sizeof header, model[i], at);
    strcat(header, "}");
    if (strlen(header) % 2 != 0)
        strcat(header, " "); /* or no tensor is aligned */
    (void)put_safetensors("model.safetensors", header, at);
    (void)put_text("config.json", "{\"architectures\": [\"GPT2LMHeadModel\"], \"model_type\": "
                                  "\"gpt2\", \"n_embd\": 8, \"n_layer\": 1, \"n_head\": 2, "
                                  "\"vocab_size\": 4, \"n_positions\": 16}");
    const sfq_model_options o = {.struct_size = sizeof o, .header_only = true};
    sfq_engine *engine = NULL;
    assert_ok(sfq_engine_open(&engine, scratch, &o, &err));
    const uint64_t turned = 3 * C * C + C * C + 2 * C * F, floats = 6 * C + 3 * C + C + F + C;
    assert_int_equal(sfq_engine_copies(engine), 2 * turned + 4 * floats);
    sfq_engine_close(&engine);
}

/* A cache beyond 64 bits is not announced as a small one. */
static void test_timeline_beyond_all(void **state)
{
    (void)state;
    enum { LAYERS = 1024 };
    static sfq_layer_arch layers[LAYERS];
    for (size_t i = 0; i < LAYERS; i++)
        layers[i].kv_heads = 1 << 22;
    sfq_arch arch = {
        .layers = LAYERS, .head_dim = 512, .vocab = 4, .max_positions = INT32_MAX, .layer = layers};
    const sfq_engine engine = {.arch = &arch};
    assert_true(sfq_timeline_bytes(&engine, INT32_MAX) == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_timeline_beyond_all),
    };
    return cmocka_run_group_tests(tests, files_open, files_close);
}

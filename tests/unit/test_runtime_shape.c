/* unit/test_runtime_shape.c - models of random weights: which shapes there are, what pruning leaves
 * of them, what is refused, and that one seed gives one model at any thread count. */
#include "unit.h"

#include "base/mem.h"
#include "base/rng.h"
#include "model/pack_rule.h"
#include "runtime/engine.h"

#include <math.h>
#include <sfq/sfq.h>

static sfq_error err;

static const char TINY[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 200, "
    "\"intermediate_size\": 328, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, "
    "\"num_key_value_heads\": 2, \"head_dim\": 16, \"vocab_size\": 997, "
    "\"max_position_embeddings\": 64, \"hidden_act\": \"silu\"}";

static char dir[SCRATCH_ROOM], path[SCRATCH_ROOM + 16];

static int open_files(void **state)
{
    (void)state;
    scratch_open(dir);
    return 0;
}

static int close_files(void **state)
{
    (void)state;
    scratch_close(dir);
    return 0;
}

static const char *config(const char *text)
{
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    return path;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* The published parameter counts of the models that have these shapes (Llama 2 7B and 13B, LLaMA
 * 30B, BERT-base and MiniLM-L6 without poolers), and by hand for the others. */
static void names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t parameters;
        int layers, heads, kv_heads, ffn;
    } want[] = {
        {"llama-1b", 2 * 65536000 + 16 * (2u * 4194304 + 2 * 1048576 + 3 * 16777216 + 4096) + 2048,
         16, 32, 8, 8192},
        {"llama-3b", 2 * 98304000 + 28 * (2u * 9437184 + 2 * 3145728 + 3 * 25165824 + 6144) + 3072,
         28, 24, 8, 8192},
        {"llama-7b", 6738415616, 32, 32, 32, 11008},
        {"llama-13b", 13015864320, 40, 40, 40, 13824},
        {"llama-30b", 32528943616, 60, 52, 52, 17920},
        {"bert-base", 108891648, 12, 12, 12, 3072},
        {"minilm", 22565376, 6, 12, 12, 1536},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        sfq_bench_shape o = {.shape = want[i].name, .bits = 8};
        sfq_shape_model *s = NULL;
        assert_ok(sfq_shape_open(&s, &o, &err));
        assert_int_equal(s->artifact->original_parameters, want[i].parameters);
        assert_int_equal(s->arch->layers, want[i].layers);
        for (int l = 0; l < want[i].layers; l++) {
            assert_int_equal(s->arch->layer[l].heads, want[i].heads);
            assert_int_equal(s->arch->layer[l].kv_heads, want[i].kv_heads);
            assert_int_equal(s->arch->layer[l].ffn, want[i].ffn);
        }
        sfq_shape_close(&s);
        o.bits = 16;
        assert_ok(sfq_shape_open(&s, &o, &err));
        assert_null(s->artifact);
        uint64_t elements = 0;
        for (size_t t = 0; t < s->count; t++) {
            assert_int_equal(s->tensors[t].dtype, SFQ_F16);
            elements += s->tensors[t].count;
        }
        assert_int_equal(elements, want[i].parameters);
        sfq_shape_close(&s);
    }
}

/* ---- pruning --------------------------------------------------------------------------------- */

static double block_weights(const sfq_arch *a, const sfq_layer_arch *l)
{
    return (double)a->hidden * a->head_dim * 2 * (l->heads + l->kv_heads) +
           (double)a->hidden * (a->gated ? 3 : 2) * l->ffn;
}

/* The share is reached, by less than one unit of neurons more; groups stay whole. */
static void pruned_widths(void **state)
{
    (void)state;
    static const char *const shapes[] = {"llama-1b", "llama-7b", "llama-13b", "bert-base"};
    static const double shares[] = {0.001, 0.1, 0.25, 0.4, 0.55, 0.75};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t p = 0; p < sizeof shares / sizeof *shares; p++) {
            sfq_shape_model *whole = NULL, *cut = NULL;
            sfq_bench_shape o = {.shape = shapes[i], .bits = 8};
            assert_ok(sfq_shape_open(&whole, &o, &err));
            o.prune = shares[p];
            assert_ok(sfq_shape_open(&cut, &o, &err));
            const sfq_layer_arch *w = &whole->arch->layer[0], *c = &cut->arch->layer[0];
            double before = block_weights(whole->arch, w), after = block_weights(cut->arch, c);
            double unit = (double)cut->arch->hidden * (cut->arch->gated ? 3 : 2) * 64;
            assert_true(before - after >= shares[p] * before);
            assert_true(before - after < shares[p] * before + unit + 1);
            assert_int_equal(c->ffn % 64, 0);
            assert_int_equal(c->heads * w->kv_heads, c->kv_heads * w->heads);
            assert_int_equal(cut->artifact->original_parameters,
                             whole->artifact->original_parameters);
            assert_true(cut->bytes < whole->bytes);
            sfq_shape_close(&whole);
            sfq_shape_close(&cut);
        }
}

static void pruned_to_the_floor(void **state)
{
    (void)state;
    sfq_shape_model *s = NULL;
    sfq_bench_shape o = {.shape = "llama-1b", .bits = 4, .prune = 0.999};
    assert_ok(sfq_shape_open(&s, &o, &err));
    assert_int_equal(s->arch->layer[15].kv_heads, 1);
    assert_int_equal(s->arch->layer[15].heads, 4);
    assert_int_equal(s->arch->layer[15].ffn, 64);
    sfq_shape_close(&s);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void refuse(sfq_status status, const char *part, const char *shape, int bits, double prune)
{
    sfq_shape_model *s = NULL;
    sfq_bench_shape o = {.shape = shape, .bits = bits, .prune = prune};
    assert_fails(status, part, sfq_shape_open(&s, &o, &err));
    assert_null(s);
}

static void nonsense(void **state)
{
    (void)state;
    refuse(SFQ_E_ARGUMENT, "llama-1b, llama-3b", "llama-2b", 8, 0);
    refuse(SFQ_E_ARGUMENT, "shape", NULL, 8, 0);
    refuse(SFQ_E_ARGUMENT, "bits 1", "llama-1b", 1, 0);
    refuse(SFQ_E_ARGUMENT, "bits 9", "llama-1b", 9, 0);
    refuse(SFQ_E_ARGUMENT, "bits 0", "llama-1b", 0, 0);
    refuse(SFQ_E_ARGUMENT, "prune 1", "llama-1b", 8, 1);
    refuse(SFQ_E_ARGUMENT, "prune -0.1", "llama-1b", 8, -0.1);
    refuse(SFQ_E_ARGUMENT, "prune", "llama-1b", 8, (double)NAN);
}

static void hostile_configs(void **state)
{
    (void)state;
    refuse(SFQ_E_FORMAT, "config.json", config("{"), 8, 0);
    refuse(SFQ_E_FORMAT, "object", config("[1]"), 8, 0);
    refuse(SFQ_E_FORMAT, "model_type", config("{}"), 8, 0);
    refuse(SFQ_E_UNSUPPORTED, "Mamba",
           config("{\"architectures\": [\"MambaForCausalLM\"], \"model_type\": \"mamba\"}"), 8, 0);
    char text[sizeof TINY + 64];
    static const struct {
        const char *from, *to;
        sfq_status status;
    } bad[] = {
        {"\"hidden_size\": 200", "\"hidden_size\": -1", SFQ_E_FORMAT},
        {"\"hidden_size\": 200", "\"hidden_size\": 9e99", SFQ_E_FORMAT},
        {"\"vocab_size\": 997", "\"vocab_size\": 99999999999", SFQ_E_LIMIT},
        {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 0", SFQ_E_FORMAT},
        {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", SFQ_E_FORMAT},
        {"\"hidden_act\": \"silu\"", "\"hidden_act\": \"sin\"", SFQ_E_UNSUPPORTED},
        {"\"hidden_act\": \"silu\"", "\"quantization_config\": 1", SFQ_E_FORMAT},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *at = strstr(TINY, bad[i].from);
        assert_non_null(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - TINY), TINY, bad[i].to,
                 at + strlen(bad[i].from));
        refuse(bad[i].status, "config.json", config(text), 8, 0);
    }
}

/* More than any machine has is refused with the figure; past 2^50 bytes it is a limit. Both before
 * anything is taken. */
static void too_large(void **state)
{
    (void)state;
    static const char format[] =
        "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": "
        "%d, "
        "\"intermediate_size\": %d, \"num_hidden_layers\": 1024, \"num_attention_heads\": 256, "
        "\"vocab_size\": 32000, \"hidden_act\": \"silu\"}";
    char text[512];
    sfq_engine *e = NULL;
    sfq_model_options o;
    sfq_bench_result result;
    sfq_bench_options b;
    sfq_model_options_default(&o);
    sfq_bench_options_default(&b);
    snprintf(text, sizeof text, format, 65536, 262144);
    sfq_bench_shape shape = {.shape = config(text), .bits = 16};
    assert_fails(SFQ_E_MEMORY, "MB of memory", sfq_engine_open_shape(&e, &shape, &o, &err));
    assert_null(e);
    assert_fails(SFQ_E_MEMORY, "MB of memory",
                 sfq_bench_shapes(&shape, 1, &b, &result, NULL, NULL, &err));
    snprintf(text, sizeof text, format, 131072, 4194304);
    refuse(SFQ_E_LIMIT, "2^50", config(text), 16, 0);
}

/* What was announced covers the weights and all that opening copies, transposed ones, too. */
static void memory_of_copies(void **state)
{
    (void)state;
    static const char gpt2[] =
        "{\"architectures\": [\"GPT2LMHeadModel\"], \"model_type\": \"gpt2\", \"n_embd\": 128, "
        "\"n_layer\": 2, \"n_head\": 4, \"n_positions\": 64, \"vocab_size\": 301, "
        "\"activation_function\": \"gelu_new\"}";
    static const char *const texts[] = {TINY, gpt2};
    sfq_model_options o;
    sfq_model_options_default(&o);
    for (size_t i = 0; i < 2; i++)
        for (int bits = 8; bits <= 16; bits += 8) {
            sfq_engine *e = NULL;
            const sfq_bench_shape shape = {.shape = config(texts[i]), .bits = bits};
            assert_ok(sfq_engine_open_shape(&e, &shape, &o, &err));
            const uint64_t copies = sfq_engine_copies(e), weights = sfq_checkpoint_bytes(e->ck);
            assert_true(copies > (i == 1 && bits == 16 ? 2 * 12 * 128 * 128 * 2 : 0));
            assert_true(sfq_shape_bytes(e->shape) >= copies + weights);
            sfq_engine_close(&e);
        }
}

/* ---- running --------------------------------------------------------------------------------- */

enum { TOKENS = 11, VOCAB = 997 };

static void logits_of(const sfq_bench_shape *shape, int threads, float *logits)
{
    sfq_engine *e = NULL;
    sfq_model_options o;
    sfq_model_options_default(&o);
    o.threads = threads;
    assert_ok(sfq_engine_open_shape(&e, shape, &o, &err));
    sfq_model_info info;
    assert_ok(sfq_engine_info(e, &info, &err));
    assert_int_equal(info.compressed, shape->bits != 16);
    int32_t ids[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (i * 89 + 3) % VOCAB;
    size_t offset[2] = {0, TOKENS}, rows[TOKENS];
    for (size_t i = 0; i < TOKENS; i++)
        rows[i] = i;
    sfq_batch batch = {.sequences = 1, .offset = offset, .ids = ids};
    const float *hidden = NULL;
    assert_ok(sfq_forward(e->exec, &batch, &hidden, NULL, NULL, &err));
    assert_ok(sfq_forward_logits(e->exec, hidden, rows, TOKENS, logits, &err));
    sfq_engine_close(&e);
}

/* Finite logits that are neither constant nor huge; the same bits at 1 and 3 threads, others with
 * another seed. */
static void runs_at_all_bits(void **state)
{
    (void)state;
    static const int bits[] = {2, 3, 4, 5, 6, 7, 8, 16};
    static float one[TOKENS * VOCAB], three[TOKENS * VOCAB], other[TOKENS * VOCAB];
    const char *file = config(TINY);
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
        for (int pruned = 0; pruned < 2; pruned++) {
            sfq_bench_shape shape = {.shape = file, .bits = bits[i], .prune = 0.4 * pruned};
            double sum = 0, square = 0;
            logits_of(&shape, 1, one);
            logits_of(&shape, 3, three);
            assert_memory_equal(one, three, sizeof one);
            shape.seed = 1;
            logits_of(&shape, 1, other);
            assert_memory_not_equal(one, other, sizeof one);
            for (size_t j = 0; j < sizeof one / sizeof *one; j++) {
                sum += (double)one[j];
                square += (double)one[j] * (double)one[j];
            }
            double n = sizeof one / sizeof *one, deviation = sqrt(square / n - sum / n * sum / n);
            assert_true(deviation > 0.05 && deviation < 5);
        }
}

static void figures(void **state)
{
    (void)state;
    const char *file = config(TINY), *isa = NULL;
    const sfq_bench_shape shapes[] = {{.shape = file, .bits = 4, .prune = 0.4},
                                      {.shape = file, .bits = 16}};
    sfq_bench_options o;
    sfq_bench_result r[2];
    int threads = 0;
    sfq_bench_options_default(&o);
    o.prompt_tokens = 16;
    o.generate_tokens = 4;
    o.rounds = 1;
    o.threads = 2;
    assert_ok(sfq_bench_shapes(shapes, 2, &o, r, &isa, &threads, &err));
    assert_int_equal(threads, 2);
    assert_non_null(isa);
    for (int i = 0; i < 2; i++) {
        assert_true(r[i].prefill_tokens_per_second > 0 && r[i].decode_tokens_per_second > 0);
        assert_near(r[i].latency_seconds * r[i].prefill_tokens_per_second, 16, 1e-9);
        assert_true(r[i].multiply_share > 0 && r[i].read_bandwidth_share > 0);
        assert_non_null(r[i].multiply_peak_isa);
        assert_true(r[i].products_per_mac >= 1 && r[i].products_per_mac <= 5);
        assert_true(r[i].peak_rss_bytes > 0);
    }
    assert_near(r[1].bits, 16, 0);
    assert_true(r[0].bytes < r[1].bytes && r[0].bytes_per_token < r[1].bytes_per_token);
    /* 16 bits: every matrix but the word table, norms as float, and a cache of floats */
    double layer = 2.0 * (200 * 64 * 2 + 200 * 32 * 2 + 3 * 200 * 328) + 4.0 * 400;
    double want = 2 * layer + 2.0 * 200 * 997 + 4.0 * 200;
    assert_true(r[1].bytes_per_token > want && r[1].bytes_per_token < want * 1.05);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(pruned_widths),
        cmocka_unit_test(pruned_to_the_floor),
        cmocka_unit_test(nonsense),
        cmocka_unit_test_setup_teardown(hostile_configs, open_files, close_files),
        cmocka_unit_test_setup_teardown(too_large, open_files, close_files),
        cmocka_unit_test_setup_teardown(memory_of_copies, open_files, close_files),
        cmocka_unit_test_setup_teardown(runs_at_all_bits, open_files, close_files),
        cmocka_unit_test_setup_teardown(figures, open_files, close_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

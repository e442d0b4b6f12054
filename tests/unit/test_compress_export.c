/* Export without Transformers: a cut student of every family goes out with alike layers and
 * computes the same; what has no place in a plain checkpoint is refused. */
#include "unit/random_model.h"
#include "unit/unit.h"

#include "compress/export.h"
#include "compress/student.h"

#include <math.h>

enum { TOKENS = 14 };

static sfq_error err;
static const sfq_hooks no_hooks;

static float *hidden_of(const sfq_net *net)
{
    const size_t offset[2] = {0, TOKENS}, count = TOKENS * (size_t)net->arch->hidden;
    int32_t ids[TOKENS];
    sfq_exec *exec;
    const float *hidden;
    for (int t = 0; t < TOKENS; t++)
        ids[t] = t * 31 % net->arch->vocab;
    sfq_batch batch = {.sequences = 1, .offset = offset, .ids = ids};
    assert_ok(sfq_exec_open(&exec, net, sfq_kernels_get(SFQ_ISA_REF), NULL, &err));
    assert_ok(sfq_forward(exec, &batch, &hidden, NULL, NULL, &err));
    float *copy = malloc(count * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, hidden, count * sizeof *copy);
    sfq_exec_close(&exec);
    return copy;
}

/* Layer 0 loses its FFN, layer 1 its attention, layer 2 some of both. */
static void cut(sfq_student *student)
{
    static const uint32_t groups[] = {0, 3}, neurons[] = {1, 5, 6, 7, 40, 41, 64};
    uint32_t all[128];
    for (uint32_t i = 0; i < 128; i++)
        all[i] = i;
    sfq_layer_keep no_ffn = {all, student->arch->layer[0].kv_heads - 1, all, 0};
    sfq_layer_keep no_attention = {all, 0, all, 30};
    sfq_layer_keep some = {(uint32_t *)groups, 2, (uint32_t *)neurons, 7};
    sfq_student_cut(student, 0, &no_ffn);
    sfq_student_cut(student, 1, &no_attention);
    sfq_student_cut(student, 2, &some);
}

static void write_student(const sfq_student *student, const sfq_source *source, const char *path)
{
    sfq_outdir *out;
    assert_ok(sfq_outdir_open(&out, path, true, &err));
    assert_ok(sfq_student_write(student, source, out, &no_hooks, &err));
    assert_ok(sfq_outdir_commit(&out, NULL, &err));
}

static sfq_export_options options(const char *model, const char *output)
{
    return (sfq_export_options){.struct_size = sizeof(sfq_export_options),
                                .model = model,
                                .output = output,
                                .format = "dense",
                                .force = true};
}

static void check_family(size_t family, const char *scratch)
{
    const char *model = scratch_path(scratch, random_families[family].name);
    const char *cut_dir = scratch_path(scratch, "cut"), *plain = scratch_path(scratch, "plain");
    sfq_source *s, *back;
    sfq_student *student;
    sfq_net *net;
    sfq_pool *pool;
    sfq_export_result r;
    uint64_t size;
    random_model(model, random_families[family].config, SFQ_F16, family);
    assert_ok(sfq_pool_open(&pool, 2, &err));
    assert_ok(sfq_source_open_dir(&s, model, pool, &no_hooks, &err));
    assert_ok(sfq_student_open(&student, s, SFQ_F16, &no_hooks, &err));
    cut(student);
    write_student(student, s, cut_dir);
    sfq_export_options o = options(cut_dir, plain);
    assert_ok(sfq_export_dense(&o, &r, &err));
    assert_ok(sfq_source_open_dir(&back, plain, pool, &no_hooks, &err));
    assert_null(back->config->quantization);
    assert_int_equal(back->parameters, r.parameters);
    assert_int_equal(back->original_parameters, r.parameters);
    assert_ok(sfq_file_size(&size, scratch_path(scratch, "plain/model.safetensors"), &err));
    assert_int_equal(size, r.bytes);
    assert_true(r.padded);
    assert_int_equal(r.ffn, 30);
    for (int i = 0; i < back->arch->layers; i++) {
        assert_int_equal(back->arch->layer[i].heads, r.heads);
        assert_int_equal(back->arch->layer[i].kv_heads, r.kv_heads);
        assert_int_equal(back->arch->layer[i].ffn, r.ffn);
    }
    for (size_t i = 0; i < sfq_checkpoint_count(back->ck); i++)
        assert_int_equal(sfq_checkpoint_at(back->ck, i)->dtype, SFQ_F16);
    assert_ok(sfq_net_open(&net, back->arch, back->modules, back->ck, NULL, &no_hooks, &err));
    float *want = hidden_of(student->net), *found = hidden_of(net);
    for (int i = 0; i < TOKENS * student->arch->hidden; i++)
        assert_near((double)want[i], (double)found[i], 2e-4);
    free(want);
    free(found);
    sfq_net_close(&net);
    sfq_student_close(&student);
    sfq_source_close(&back);
    sfq_source_close(&s);
    sfq_pool_close(&pool);
}

static void test_families(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    for (size_t i = 0; i < RANDOM_FAMILIES; i++)
        check_family(i, dir);
    scratch_close(dir);
}

/* Heads that a stock config can name: where the class wants them to divide the hidden size, and
 * where it has no word for fewer. */
static void test_stock_widths(void **state)
{
    (void)state;
    static const struct {
        const char *family;
        int64_t kv, want_kv; /* of 5 groups with 2 heads each, or 5 heads; hidden 40 */
    } cases[] = {{"llama", 1, 1}, {"llama", 3, 4}, {"qwen3", 3, 3},     {"qwen2", 0, 1},
                 {"gpt2", 2, 5},  {"bert", 0, 5},  {"distilbert", 4, 5}};
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t f = 0;
        while (strcmp(random_families[f].name, cases[i].family) != 0)
            f++;
        sfq_hf_config *c;
        scratch_put(dir, "config.json", random_families[f].config);
        assert_ok(sfq_hf_config_open(&c, dir, &err));
        sfq_layer_dims dims = {.kv_heads = cases[i].kv};
        sfq_artifact_stock_dims(&dims, c);
        assert_int_equal(dims.kv_heads, cases[i].want_kv);
        assert_int_equal(dims.heads, cases[i].want_kv * (c->heads / c->kv_heads));
        assert_int_equal(dims.ffn, 1);
        sfq_hf_config_close(&c);
    }
    scratch_close(dir);
}

static bool stop(void *ud)
{
    return --*(int *)ud < 0;
}

/* Stopped at any moment, nothing is left. */
static void test_interrupted(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    const char *out = scratch_path(dir, "out");
    int after = 0;
    for (;; after += 7) {
        int left = after;
        sfq_export_options o = options("models/sst2-tiny", out);
        sfq_export_result r;
        o.hooks = (sfq_hooks){.ud = &left, .cancelled = stop};
        sfq_status status = sfq_export_dense(&o, &r, &err);
        if (status == SFQ_OK)
            break;
        assert_int_equal(status, SFQ_E_INTERRUPTED);
        assert_int_equal(r.bytes, 0);
        assert_false(sfq_file_exists(out));
    }
    assert_true(after > 50);
    scratch_close(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_stock_widths),
        cmocka_unit_test(test_interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The student: a copy that computes what its source does, bit by bit, in every family; a cut equals
 * the zeros that it takes away; what is written reads back as the same floats. */
#include "unit/random_model.h"
#include "unit/unit.h"

#include "base/file.h"
#include "compress/copy.h"
#include "compress/pipeline.h"
#include "compress/student.h"
#include "runtime/engine.h"

#include <math.h>

enum { SEQUENCES = 3, TOKENS = 21 };

static sfq_error err;
static const sfq_hooks no_hooks;

static sfq_source *open_source(const char *dir)
{
    sfq_source *s;
    sfq_compress_options o = {.struct_size = sizeof o, .model = dir, .threads = 2};
    assert_ok(sfq_source_open(&s, &o, &err));
    return s;
}

/* ---- what a net computes ---- */

typedef struct outputs {
    float *values; /* final hidden states, then what the head makes of them */
    size_t count;
} outputs;

static outputs compute(const sfq_net *net)
{
    const size_t offset[SEQUENCES + 1] = {0, 9, 10, TOKENS};
    const sfq_arch *a = net->arch;
    int32_t ids[TOKENS], types[TOKENS];
    size_t rows[TOKENS], c = (size_t)a->hidden;
    sfq_exec *exec;
    const float *hidden;
    for (int t = 0; t < TOKENS; t++) {
        ids[t] = (t * 37 + 5) % (a->vocab < 90 ? a->vocab : 90);
        types[t] = a->type_vocab > 0 ? t / 5 % a->type_vocab : 0;
        rows[t] = (size_t)t;
    }
    sfq_batch batch = {.sequences = SEQUENCES, .offset = offset, .ids = ids, .types = types};
    assert_ok(sfq_exec_open(&exec, net, sfq_kernels_get(SFQ_ISA_REF), NULL, &err));
    assert_ok(sfq_forward(exec, &batch, &hidden, NULL, NULL, &err));
    size_t head = a->head == SFQ_MODEL_HEAD_LM ? (size_t)TOKENS * (size_t)a->vocab
                  : a->labels > 0              ? (size_t)SEQUENCES * (size_t)a->labels
                                               : SEQUENCES * c;
    outputs out = {malloc((TOKENS * c + head) * sizeof(float)), TOKENS * c + head};
    assert_non_null(out.values);
    memcpy(out.values, hidden, TOKENS * c * sizeof(float));
    float *to = out.values + TOKENS * c;
    if (a->head == SFQ_MODEL_HEAD_LM)
        assert_ok(sfq_forward_logits(exec, out.values, rows, TOKENS, to, &err));
    else if (a->labels > 0)
        assert_ok(sfq_forward_labels(exec, &batch, out.values, to, &err));
    else
        assert_ok(sfq_forward_embedding(exec, &batch, out.values, to, &err));
    sfq_exec_close(&exec);
    return out;
}

static outputs compute_source(const sfq_source *s)
{
    sfq_net *net;
    assert_ok(sfq_net_open(&net, s->arch, s->modules, s->ck, NULL, &no_hooks, &err));
    outputs out = compute(net);
    sfq_net_close(&net);
    return out;
}

static void assert_same(outputs a, outputs b)
{
    assert_int_equal(a.count, b.count);
    assert_memory_equal(a.values, b.values, a.count * sizeof(float));
    free(a.values);
    free(b.values);
}

/* Relative to the root mean square. */
static void assert_close(outputs a, outputs b, double eps)
{
    double square = 0, worst = 0;
    assert_int_equal(a.count, b.count);
    for (size_t i = 0; i < a.count; i++) {
        square += (double)a.values[i] * (double)a.values[i];
        double e = fabs((double)a.values[i] - (double)b.values[i]);
        worst = e > worst || isnan(e) ? e : worst;
    }
    assert_true(square > 0);
    if (!(worst <= eps * sqrt(square / (double)a.count)))
        fail_msg("outputs differ by %g of %g", worst, sqrt(square / (double)a.count));
    free(a.values);
    free(b.values);
}

/* ---- every model of the tests ---- */

typedef void (*check)(const char *model, const char *scratch);

static void for_all_models(check fn)
{
    char dir[SCRATCH_ROOM];
    static const char *const real[] = {"models/sst2-tiny", "models/novels-5m",
                                       "tests/model/vectors/llama", "tests/model/vectors/bert"};
    scratch_open(dir);
    for (size_t i = 0; i < sizeof real / sizeof *real; i++)
        fn(real[i], dir);
    for (size_t i = 0; i < RANDOM_FAMILIES; i++) {
        static const sfq_dtype dtypes[] = {SFQ_F32, SFQ_F16, SFQ_BF16};
        const char *model = scratch_path(dir, random_families[i].name);
        random_model(model, random_families[i].config, dtypes[i % 3], i);
        fn(model, dir);
    }
    scratch_close(dir);
}

/* ---- copies ---- */

static void copy_is_exact(const char *model, const char *scratch)
{
    (void)scratch;
    sfq_source *s = open_source(model);
    sfq_student *student;
    outputs want = compute_source(s);
    assert_ok(sfq_student_open(&student, s, SFQ_F32, &no_hooks, &err));
    assert_string_equal(student->arch->architecture, s->arch->architecture);
    assert_ptr_not_equal(student->arch->layer, s->arch->layer);
    sfq_source_close(&s); /* a student needs no source */
    assert_same(compute(student->net), want);
    sfq_student_close(&student);
    assert_null(student);
}

static void test_copy_is_exact(void **state)
{
    (void)state;
    for_all_models(copy_is_exact);
}

/* In the source's own 16 bits nothing is lost either. */
static void test_half_copy_is_exact(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    for (size_t i = 0; i < RANDOM_FAMILIES; i++) {
        sfq_dtype dtype = i % 2 ? SFQ_F16 : SFQ_BF16;
        const char *model = scratch_path(dir, random_families[i].name);
        random_model(model, random_families[i].config, dtype, 77 + i);
        sfq_source *s = open_source(model);
        sfq_student *student;
        assert_ok(sfq_student_open(&student, s, dtype, &no_hooks, &err));
        assert_true(sfq_student_bytes(s, dtype) < sfq_student_bytes(s, SFQ_F32));
        assert_same(compute(student->net), compute_source(s));
        sfq_student_close(&student);
        sfq_source_close(&s);
    }
    scratch_close(dir);
}

static void test_refused_values(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    sfq_student *student;
    scratch_open(dir);
    const char *model = scratch_path(dir, "big");
    random_model(model, random_families[0].config, SFQ_F32, 3);
    sfq_source *s = open_source(model);
    assert_fails(SFQ_E_ARGUMENT, "F16", sfq_student_open(&student, s, SFQ_I8, &no_hooks, &err));
    const sfq_module *m = sfq_modules_find(s->modules, SFQ_ROLE_UP, 1);
    const sfq_tensor *t = sfq_module_weight(m, s->ck);
    sfq_map map;
    const char *weights = scratch_path(dir, "big/model.safetensors");
    assert_ok(sfq_map_open(&map, weights, &err));
    const unsigned char *needle = t->data;
    size_t place = 0;
    while (place + 64 <= map.size && memcmp(map.data + place, needle, 64) != 0)
        place++;
    sfq_map_close(&map);
    static const float values[] = {1e6F, NAN};
    for (size_t i = 0; i < 2; i++) {
        FILE *f = fopen(weights, "r+b");
        assert_non_null(f);
        assert_int_equal(fseek(f, (long)place + 4 * 777, SEEK_SET), 0);
        assert_int_equal(fwrite(&values[i], sizeof(float), 1, f), 1);
        assert_int_equal(fclose(f), 0);
        sfq_source_close(&s);
        s = open_source(model);
        assert_fails(SFQ_E_NUMERIC, i == 0 ? "too large for F16" : "element 777 is NaN",
                     sfq_student_open(&student, s, SFQ_F16, &no_hooks, &err));
        assert_string_equal(err.tensor, "model.layers.1.mlp.up_proj.weight");
        assert_null(student);
        if (i == 0) {
            assert_ok(sfq_student_open(&student, s, SFQ_BF16, &no_hooks, &err));
            sfq_student_close(&student);
        }
    }
    sfq_source_close(&s);
    scratch_close(dir);
}

static bool stop(void *ud)
{
    (void)ud;
    return true;
}

static void test_interrupted(void **state)
{
    (void)state;
    const sfq_hooks hooks = {.cancelled = stop};
    sfq_source *s = open_source("models/sst2-tiny");
    sfq_student *student;
    assert_status(SFQ_E_INTERRUPTED, sfq_student_open(&student, s, SFQ_F32, &hooks, &err));
    assert_null(student);
    sfq_source_close(&s);
}

/* ---- cuts ---- */

/* Zeroes the columns of the units that are not kept. */
static void mask_columns(sfq_matrix *m, const uint32_t *units, size_t count, size_t span)
{
    if (m == NULL || m->k == 0)
        return;
    float *row = malloc(m->k * sizeof *row);
    assert_non_null(row);
    for (size_t n = 0; n < m->n; n++) {
        sfq_student_get_rows(m, n, 1, row);
        for (size_t unit = 0, next = 0; unit < m->k / span; unit++) {
            bool kept = next < count && units[next] == unit;
            next += kept;
            for (size_t i = 0; i < span && !kept; i++)
                row[unit * span + i] = 0;
        }
        sfq_student_set_rows(m, n, 1, row);
    }
    free(row);
}

/* Which units a layer keeps: by a pattern that differs from layer to layer. */
static sfq_layer_keep pattern(const sfq_arch *a, int layer, int kind)
{
    const sfq_layer_arch *l = &a->layer[layer];
    sfq_layer_keep keep = {calloc((size_t)l->kv_heads + 1, sizeof(uint32_t)), 0,
                           calloc((size_t)l->ffn + 1, sizeof(uint32_t)), 0};
    assert_true(keep.groups != NULL && keep.neurons != NULL);
    bool no_attention = kind == 1 && layer == 1, no_ffn = kind == 1 && layer != 1;
    for (int g = 0; g < l->kv_heads && !no_attention; g++)
        if ((g + layer) % 3 != 1)
            keep.groups[keep.kv_heads++] = (uint32_t)g;
    for (int f = 0; f < l->ffn && !no_ffn; f++)
        if ((f * 7 + layer) % 5 < 3)
            keep.neurons[keep.ffn++] = (uint32_t)f;
    return keep;
}

/* Cuts one student and masks another alike. */
static void cut_and_mask(sfq_student *cut, sfq_student *masked, int kind)
{
    for (int layer = 0; layer < cut->arch->layers; layer++) {
        const sfq_layer_arch before = cut->arch->layer[layer];
        sfq_layer_keep keep = pattern(cut->arch, layer, kind);
        size_t share = before.kv_heads > 0 ? (size_t)(before.heads / before.kv_heads) : 1;
        sfq_student_cut(cut, layer, &keep);
        mask_columns(sfq_student_matrix(masked, SFQ_ROLE_O, layer), keep.groups,
                     (size_t)keep.kv_heads, share * (size_t)cut->arch->head_dim);
        mask_columns(sfq_student_matrix(masked, SFQ_ROLE_DOWN, layer), keep.neurons,
                     (size_t)keep.ffn, 1);
        assert_int_equal(cut->arch->layer[layer].kv_heads, keep.kv_heads);
        assert_int_equal(cut->arch->layer[layer].heads, keep.kv_heads * (int)share);
        assert_int_equal(cut->arch->layer[layer].ffn, keep.ffn);
        free(keep.groups);
        free(keep.neurons);
    }
}

static void cut_is_mask(const char *model, const char *scratch)
{
    (void)scratch;
    sfq_source *s = open_source(model);
    for (int kind = 0; kind < 2; kind++) {
        sfq_student *cut, *masked;
        assert_ok(sfq_student_open(&cut, s, SFQ_F32, &no_hooks, &err));
        assert_ok(sfq_student_open(&masked, s, SFQ_F32, &no_hooks, &err));
        uint64_t whole = cut->net->weight_bytes;
        cut_and_mask(cut, masked, kind);
        assert_true(cut->net->weight_bytes < whole);
        assert_close(compute(masked->net), compute(cut->net), 2e-5);
        sfq_student_close(&cut);
        sfq_student_close(&masked);
    }
    sfq_source_close(&s);
}

static void test_cut_is_mask(void **state)
{
    (void)state;
    for_all_models(cut_is_mask);
}

/* A second cut goes on from the first; keeping everything changes nothing. */
static void test_cut_again(void **state)
{
    (void)state;
    sfq_source *s = open_source("models/novels-5m");
    sfq_student *twice, *masked;
    assert_ok(sfq_student_open(&twice, s, SFQ_F16, &no_hooks, &err));
    assert_ok(sfq_student_open(&masked, s, SFQ_F16, &no_hooks, &err));
    cut_and_mask(twice, masked, 0);
    outputs once = compute(twice->net);
    for (int layer = 0; layer < twice->arch->layers; layer++) {
        uint32_t all[4096];
        for (uint32_t i = 0; i < 4096; i++)
            all[i] = i;
        const sfq_layer_arch *l = &twice->arch->layer[layer];
        sfq_layer_keep keep = {all, l->kv_heads, all, l->ffn};
        sfq_student_cut(twice, layer, &keep);
    }
    assert_same(compute(twice->net), once);
    sfq_student_close(&masked);
    /* the first half of what is left, cut and masked */
    assert_ok(sfq_student_open(&masked, s, SFQ_F16, &no_hooks, &err));
    sfq_student *other;
    assert_ok(sfq_student_open(&other, s, SFQ_F16, &no_hooks, &err));
    cut_and_mask(masked, other, 0);
    cut_and_mask(twice, masked, 0);
    assert_close(compute(masked->net), compute(twice->net), 2e-5);
    sfq_student_close(&other);
    sfq_student_close(&masked);
    sfq_student_close(&twice);
    sfq_source_close(&s);
}

/* ---- access ---- */

static void test_access(void **state)
{
    (void)state;
    sfq_source *s = open_source("models/sst2-tiny");
    sfq_student *student;
    assert_ok(sfq_student_open(&student, s, SFQ_F32, &no_hooks, &err));
    int last = student->arch->layers - 1;
    assert_ptr_equal(sfq_student_matrix(student, SFQ_ROLE_UP, last), &student->net->layer[last].up);
    assert_ptr_equal(sfq_student_matrix(student, SFQ_ROLE_POOLER, -1), &student->net->pooler);
    assert_ptr_equal(sfq_student_norm(student, SFQ_ROLE_FFN_NORM, 0),
                     &student->net->layer[0].ffn_norm);
    assert_null(sfq_student_matrix(student, SFQ_ROLE_GATE, 0));
    assert_null(sfq_student_matrix(student, SFQ_ROLE_QKV, 0));
    assert_null(sfq_student_matrix(student, SFQ_ROLE_UP, -1));
    assert_null(sfq_student_matrix(student, SFQ_ROLE_UP, last + 1));
    assert_null(sfq_student_matrix(student, SFQ_ROLE_WORD_EMBEDDING, 0));
    assert_null(sfq_student_matrix(student, SFQ_ROLE_FFN_NORM, 0));
    assert_null(sfq_student_norm(student, SFQ_ROLE_UP, 0));
    assert_null(sfq_student_norm(student, SFQ_ROLE_Q_NORM, 0));
    assert_null(sfq_student_norm(student, SFQ_ROLE_FINAL_NORM, -1));
    sfq_student_bias(&student->net->layer[0].o)[3] += 1.0F;
    sfq_student_gain(&student->net->layer[1].attn_norm)[0] *= 2.0F;
    outputs changed = compute(student->net), before = compute_source(s);
    assert_memory_not_equal(changed.values, before.values, changed.count * sizeof(float));
    free(changed.values);
    free(before.values);
    sfq_student_close(&student);
    sfq_source_close(&s);
    s = open_source("models/novels-5m");
    assert_ok(sfq_student_open(&student, s, SFQ_F32, &no_hooks, &err));
    assert_true(student->arch->tied_head);
    assert_null(sfq_student_matrix(student, SFQ_ROLE_LM_HEAD, -1));
    assert_ptr_equal(student->net->lm_head.w, student->net->word.w);
    sfq_student_close(&student);
    sfq_source_close(&s);
}

/* Every float of the model is in the list once, and gradients have a place of their own. */
static void params_are_whole(const char *model, const char *scratch)
{
    (void)scratch;
    sfq_source *s = open_source(model);
    sfq_student *student;
    sfq_params *all, *trained;
    assert_ok(sfq_student_open(&student, s, SFQ_F32, &no_hooks, &err));
    assert_ok(sfq_params_open(&all, student, true, &err));
    assert_ok(sfq_params_open(&trained, student, false, &err));
    assert_int_equal(all->total, s->parameters);
    size_t total = 0, tables = 0;
    for (size_t i = 0; i < all->count; i++) {
        const sfq_param *p = &all->items[i];
        total += p->count;
        tables += strstr(p->name, "embedding.") != NULL ? p->count : 0;
        assert_int_equal(p->decay, strstr(p->name, ".weight") != NULL);
        assert_null(*p->gradient);
        *p->gradient = p->value; /* any mark */
        for (size_t j = 0; j < i; j++) {
            const sfq_param *q = &all->items[j];
            assert_string_not_equal(p->name, q->name);
            assert_true(p->value + p->count <= q->value || q->value + q->count <= p->value);
        }
    }
    assert_int_equal(total, all->total);
    assert_true(tables > 0);
    assert_int_equal(trained->total, all->total - tables);
    assert_ptr_equal(all->grads.word.w, student->net->word.w);
    assert_ptr_equal(all->grads.layer[1].down.w, student->net->layer[1].down.w);
    assert_ptr_equal(all->grads.layer[1].ffn_norm.gain, student->net->layer[1].ffn_norm.gain);
    if (student->arch->tied_head)
        assert_null(all->grads.lm_head.w);
    sfq_params_close(&all);
    sfq_params_close(&trained);
    sfq_student_close(&student);
    sfq_source_close(&s);
}

static void test_params_are_whole(void **state)
{
    (void)state;
    for_all_models(params_are_whole);
    sfq_source *s = open_source("models/sst2-tiny");
    sfq_student *student;
    sfq_params *params;
    assert_ok(sfq_student_open(&student, s, SFQ_F16, &no_hooks, &err));
    assert_fails(SFQ_E_ARGUMENT, "F32", sfq_params_open(&params, student, false, &err));
    assert_null(params);
    sfq_student_close(&student);
    sfq_source_close(&s);
}

/* ---- writing ---- */

static const char *write_student(const sfq_student *student, const sfq_source *s, const char *dir,
                                 const char *name)
{
    sfq_outdir *out;
    const char *path = scratch_path(dir, name);
    assert_ok(sfq_outdir_open(&out, path, true, &err));
    assert_ok(sfq_student_write(student, s, out, &no_hooks, &err));
    assert_ok(sfq_copy_files(s->dir, out, &err));
    assert_ok(sfq_outdir_commit(&out, NULL, &err));
    return path;
}

static void assert_same_files(const char *a, const char *b)
{
    sfq_map x, y;
    assert_ok(sfq_map_open(&x, a, &err));
    assert_ok(sfq_map_open(&y, b, &err));
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    sfq_map_close(&x);
    sfq_map_close(&y);
}

/* The runtime opens it as it opens any model, and computes the same. */
static void assert_runs(const char *dir, outputs want)
{
    sfq_model_options o = {.struct_size = sizeof o, .threads = 1};
    sfq_engine *engine;
    sfq_model_info info;
    assert_ok(sfq_engine_open(&engine, dir, &o, &err));
    assert_ok(sfq_engine_info(engine, &info, &err));
    assert_true(info.original_parameters > info.parameters);
    assert_same(compute(engine->net), want);
    sfq_engine_close(&engine);
}

static void written_reads_back(const char *model, const char *scratch)
{
    sfq_source *s = open_source(model), *again;
    for (int kind = 0; kind < 2; kind++) {
        sfq_student *cut, *masked, *back;
        assert_ok(sfq_student_open(&cut, s, SFQ_F32, &no_hooks, &err));
        assert_ok(sfq_student_open(&masked, s, SFQ_F32, &no_hooks, &err));
        cut_and_mask(cut, masked, kind);
        const char *dir = write_student(cut, s, scratch, "cut");
        assert_ok(sfq_source_open_dir(&again, dir, s->pool, &no_hooks, &err));
        assert_int_equal(again->original_parameters, s->parameters);
        assert_true(again->parameters < s->parameters);
        assert_ptr_equal(again->pool, s->pool);
        assert_ok(sfq_student_open(&back, again, SFQ_F32, &no_hooks, &err));
        assert_int_equal(sfq_student_bytes(again, SFQ_F32) < sfq_student_bytes(s, SFQ_F32), 1);
        assert_same(compute(back->net), compute(cut->net));
        assert_runs(dir, compute(cut->net));
        write_student(back, again, scratch, "again");
        assert_same_files(scratch_path(scratch, "cut/model.safetensors"),
                          scratch_path(scratch, "again/model.safetensors"));
        assert_same_files(scratch_path(scratch, "cut/config.json"),
                          scratch_path(scratch, "again/config.json"));
        sfq_compress_options o = {.struct_size = sizeof o, .model = dir, .threads = 1};
        sfq_source *refused;
        assert_fails(SFQ_E_UNSUPPORTED, "compressed already", sfq_source_open(&refused, &o, &err));
        sfq_student_close(&back);
        sfq_student_close(&masked);
        sfq_student_close(&cut);
        sfq_source_close(&again);
    }
    sfq_source_close(&s);
}

static void test_written_reads_back(void **state)
{
    (void)state;
    for_all_models(written_reads_back);
}

/* Matrices of 16 bits, vectors as floats: nothing of a trained bias is lost. */
static void test_written_half(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    const char *model = scratch_path(dir, "gpt2");
    random_model(model, random_families[4].config, SFQ_F16, 5);
    sfq_source *s = open_source(model), *again;
    sfq_student *student, *back;
    assert_ok(sfq_student_open(&student, s, SFQ_F16, &no_hooks, &err));
    sfq_student_bias(sfq_student_matrix(student, SFQ_ROLE_QKV, 2))[1] = 0.1F; /* no F16 */
    const char *out = write_student(student, s, dir, "out");
    assert_ok(sfq_source_open_dir(&again, out, s->pool, &no_hooks, &err));
    const sfq_module *m = sfq_modules_find(again->modules, SFQ_ROLE_QKV, 2);
    assert_true(m->transposed);
    assert_int_equal(sfq_module_weight(m, again->ck)->dtype, SFQ_F16);
    assert_int_equal(sfq_module_bias(m, again->ck)->dtype, SFQ_F32);
    assert_ok(sfq_student_open(&back, again, SFQ_F16, &no_hooks, &err));
    assert_same(compute(back->net), compute(student->net));
    sfq_student_close(&back);
    sfq_student_close(&student);
    sfq_source_close(&again);
    sfq_source_close(&s);
    scratch_close(dir);
}

static void test_open_dir(void **state)
{
    (void)state;
    sfq_source *s;
    sfq_pool *pool;
    assert_ok(sfq_pool_open(&pool, 1, &err));
    assert_ok(sfq_source_open_dir(&s, "models/sst2-tiny", pool, &no_hooks, &err)); /* plain */
    assert_int_equal(s->original_parameters, s->parameters);
    sfq_source_close(&s);
    assert_int_equal(sfq_pool_threads(pool), 1); /* still there */
    assert_status(SFQ_E_NOT_FOUND, sfq_source_open_dir(&s, "models/none", pool, &no_hooks, &err));
    assert_null(s);
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    sfq_compress_result done;
    sfq_compress_options o = {.struct_size = sizeof o,
                              .model = "models/sst2-tiny",
                              .output = scratch_path(dir, "packed"),
                              .recipe = "sfq",
                              .bits = 8,
                              .embedding_bits = 8,
                              .max_drop = -1,
                              .threads = 1};
    assert_ok(sfq_pipeline_run(&o, NULL, &done, &err));
    assert_fails(SFQ_E_UNSUPPORTED, "packed",
                 sfq_source_open_dir(&s, o.output, pool, &no_hooks, &err));
    assert_null(s);
    sfq_pool_close(&pool);
    scratch_close(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_is_exact),
        cmocka_unit_test(test_half_copy_is_exact),
        cmocka_unit_test(test_refused_values),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_cut_is_mask),
        cmocka_unit_test(test_cut_again),
        cmocka_unit_test(test_access),
        cmocka_unit_test(test_params_are_whole),
        cmocka_unit_test(test_written_reads_back),
        cmocka_unit_test(test_written_half),
        cmocka_unit_test(test_open_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

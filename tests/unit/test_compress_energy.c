/* Energies against sums over sequences that ran one by one; the held-out part never counts, threads
 * neither. */
#include "unit/random_model.h"
#include "unit/unit.h"

#include "compress/energy.h"

#include <math.h>

enum { COUNT = 60, TUNE = 47, LONGEST = 60 };

static sfq_error err;
static const sfq_hooks no_hooks;

typedef struct fixture {
    sfq_compress_options options;
    sfq_source *source;
    sfq_net *net;
    size_t offset[COUNT + 1];
    int32_t ids[COUNT * LONGEST], types[COUNT * LONGEST];
    sfq_calibration calibration;
    sfq_work work;
} fixture;

static void fixture_open(fixture *f, const char *model, int threads)
{
    *f = (fixture){
        .options = {.struct_size = sizeof f->options, .model = model, .threads = threads}};
    assert_ok(sfq_source_open(&f->source, &f->options, &err));
    const sfq_arch *a = f->source->arch;
    assert_ok(sfq_net_open(&f->net, a, f->source->modules, f->source->ck, NULL, &no_hooks, &err));
    for (size_t s = 0; s < COUNT; s++)
        f->offset[s + 1] = f->offset[s] + 1 + sfq_rng_u64(1, 1, s) % (LONGEST - 1);
    for (size_t t = 0; t < f->offset[COUNT]; t++) {
        f->ids[t] = (int32_t)(sfq_rng_u64(1, 2, t) % (uint64_t)a->vocab);
        f->types[t] = a->type_vocab > 0 ? (int32_t)(t % 2) : 0;
    }
    f->calibration = (sfq_calibration){
        .count = COUNT, .tune = TUNE, .offset = f->offset, .ids = f->ids, .types = f->types};
    f->work = (sfq_work){.options = &f->options,
                         .source = f->source,
                         .teacher = f->net,
                         .kernels = sfq_kernels_get(SFQ_ISA_COUNT),
                         .pool = f->source->pool,
                         .calibration = &f->calibration,
                         .stage = "fold",
                         .index = 1,
                         .stages = 1,
                         .deadline = INFINITY};
}

static void fixture_close(fixture *f)
{
    sfq_net_close(&f->net);
    sfq_source_close(&f->source);
}

/* One vector of the reference. */
typedef struct sums {
    double v[1024];
} sums;

static void add(sums *to, const float *x, size_t width, size_t rows)
{
    for (size_t t = 0; t < rows; t++)
        for (size_t j = 0; j < width; j++)
            to->v[j] += (double)x[t * width + j] * (double)x[t * width + j];
}

static void assert_vector(const sums *want, const float *found, size_t width, size_t rows)
{
    for (size_t j = 0; j < width; j++)
        assert_near((double)found[j] / (want->v[j] / (double)rows), 1.0, 1e-6);
}

static void check_model(const char *model)
{
    static fixture f;
    static sums in[4][2]; /* [layer][input] */
    static float inside[2][LONGEST * 1024], x[LONGEST * 1024];
    sfq_energy *e;
    sfq_exec *exec;
    memset(in, 0, sizeof in);
    fixture_open(&f, model, 1);
    const sfq_arch *a = f.net->arch;
    assert_true(a->layers <= 4);
    assert_ok(sfq_energy_run(&e, &f.work, f.net, &err));
    assert_ok(sfq_exec_open(&exec, f.net, f.work.kernels, NULL, &err));
    size_t width[2] = {0};
    for (size_t s = 0; s < TUNE; s++) {
        const size_t offset[2] = {0, f.offset[s + 1] - f.offset[s]};
        sfq_batch batch = {.sequences = 1,
                           .offset = offset,
                           .ids = f.ids + f.offset[s],
                           .types = f.types + f.offset[s]};
        assert_ok(sfq_forward_embed(exec, &batch, x, &err));
        for (int l = 0; l < a->layers; l++) {
            const size_t widths[2] = {(size_t)a->layer[l].heads * (size_t)a->head_dim,
                                      (size_t)a->layer[l].ffn};
            memcpy(width, widths, sizeof width);
            const sfq_block_save save = {.att = inside[0], .ffn_act = inside[1]};
            assert_ok(sfq_forward_layer(exec, &batch, l, x, &save, &err));
            for (int i = 0; i < 2; i++)
                add(&in[l][i], inside[i], widths[i], offset[1]);
        }
    }
    for (int l = 0; l < a->layers; l++) {
        assert_vector(&in[l][0], e->att[l], width[0], f.offset[TUNE]);
        assert_vector(&in[l][1], e->ffn_act[l], width[1], f.offset[TUNE]);
    }
    sfq_energy_close(&e);
    sfq_exec_close(&exec);
    fixture_close(&f);
}

static void test_against_single_sequences(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    for (size_t i = 0; i < RANDOM_FAMILIES; i++) {
        const char *model = scratch_path(dir, random_families[i].name);
        random_model(model, random_families[i].config, SFQ_F32, i);
        check_model(model);
    }
    check_model("models/sst2-tiny");
    scratch_close(dir);
}

static void assert_same(const sfq_energy *a, const sfq_energy *b, const sfq_arch *arch)
{
    for (int l = 0; l < arch->layers; l++) {
        size_t heads = (size_t)arch->layer[l].heads * (size_t)arch->head_dim;
        assert_memory_equal(a->att[l], b->att[l], heads * sizeof(float));
        assert_memory_equal(a->ffn_act[l], b->ffn_act[l],
                            (size_t)arch->layer[l].ffn * sizeof(float));
    }
}

static void test_threads_and_held_out(void **state)
{
    (void)state;
    static fixture f, g;
    sfq_energy *one, *three;
    fixture_open(&f, "models/sst2-tiny", 1);
    fixture_open(&g, "models/sst2-tiny", 3);
    for (size_t t = g.offset[TUNE]; t < g.offset[COUNT]; t++)
        g.ids[t] = 1;
    assert_ok(sfq_energy_run(&one, &f.work, f.net, &err));
    assert_ok(sfq_energy_run(&three, &g.work, g.net, &err));
    assert_same(one, three, f.net->arch);
    assert_true(sfq_energy_bytes(&f.work, f.net) > sizeof(float) * 1024);
    sfq_energy_close(&one);
    sfq_energy_close(&three);
    fixture_close(&f);
    fixture_close(&g);
}

/* Dropped sublayers have no inputs; what is left has. */
static void test_cut(void **state)
{
    (void)state;
    static fixture f;
    sfq_student *student;
    sfq_energy *e;
    fixture_open(&f, "models/novels-5m", 2);
    assert_ok(sfq_student_open(&student, f.source, SFQ_F32, &no_hooks, &err));
    uint32_t first[64];
    for (uint32_t i = 0; i < 64; i++)
        first[i] = i;
    sfq_layer_keep nothing = {0}, some = {first, 1, first, 64};
    sfq_student_cut(student, 0, &nothing);
    sfq_student_cut(student, 1, &some);
    assert_ok(sfq_energy_run(&e, &f.work, student->net, &err));
    sfq_module up = {.role = SFQ_ROLE_DOWN, .layer = 1};
    const float *v = sfq_energy_of(e, &up);
    for (size_t i = 0; i < 64; i++)
        assert_true(v[i] > 0 && isfinite(v[i]));
    sfq_energy_close(&e);
    sfq_student_close(&student);
    fixture_close(&f);
}

static void test_not_finite(void **state)
{
    (void)state;
    static fixture f;
    sfq_student *student;
    sfq_energy *e;
    fixture_open(&f, "models/sst2-tiny", 1);
    assert_ok(sfq_student_open(&student, f.source, SFQ_F32, &no_hooks, &err));
    sfq_student_bias(&student->net->layer[1].up)[5] = INFINITY;
    assert_fails(SFQ_E_NUMERIC, "not finite", sfq_energy_run(&e, &f.work, student->net, &err));
    assert_null(e);
    sfq_student_close(&student);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_single_sequences),
        cmocka_unit_test(test_threads_and_held_out),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

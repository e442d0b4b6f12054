/* Rounding with feedback: the factors are those of the matrix, the error under it is what the
 * definition says and never above that of rounding to nearest, threads change nothing, and where
 * there is no moment or no gain the codes stay as they were. */
#include "unit/unit.h"

#include "base/mem.h"
#include "base/rng.h"
#include "compress/emit.h"
#include "compress/scale.h"

#include <math.h>

static sfq_error err;

/* A moment with a few strong directions, as word tables have. */
static double *make_matrix(size_t k, size_t directions, uint64_t seed)
{
    const size_t stride = sfq_moment_stride(k);
    double *c = calloc(k * stride, sizeof *c);
    assert_non_null(c);
    double *x = calloc(k, sizeof *x);
    assert_non_null(x);
    for (size_t d = 0; d < directions; d++) {
        for (size_t i = 0; i < k; i++)
            x[i] = sfq_rng_normal(seed, d, i);
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j < k; j++)
                c[i * stride + j] += x[i] * x[j] / (double)(d + 1);
    }
    free(x);
    return c;
}

/* The factors of a copy, and the damped matrix itself. */
static sfq_moment *make_moment(double *c, size_t k, int threads)
{
    const size_t stride = sfq_moment_stride(k);
    sfq_moment *m;
    sfq_pool *pool;
    double mean = 0;
    double *copy = malloc(k * stride * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, c, k * stride * sizeof *copy);
    assert_ok(sfq_pool_open(&pool, threads, &err));
    assert_ok(sfq_moment_factor(&m, copy, k, pool, NULL, &err));
    sfq_pool_close(&pool);
    free(copy);
    for (size_t i = 0; i < k; i++)
        mean += c[i * stride + i] / (double)k;
    for (size_t i = 0; i < k; i++)
        c[i * stride + i] += 0.3 * mean;
    return m;
}

static double ratio(const sfq_moment *m, size_t i, size_t j)
{
    return i == j ? 1 : (double)m->ratio[j * (j - 1) / 2 + i];
}

static void test_factors(void **state)
{
    (void)state;
    static const size_t widths[] = {1, 2, 5, 32, 33, 70, 130};
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
        const size_t k = widths[w];
        double *c = make_matrix(k, 40, 7 + w);
        sfq_moment *m = make_moment(c, k, 1);
        assert_non_null(m);
        for (size_t i = 0; i < k; i++)
            for (size_t j = i; j < k; j++) {
                double sum = 0;
                for (size_t l = j; l < k; l++)
                    sum += ratio(m, i, l) * m->pivot[l] * ratio(m, j, l);
                assert_true(fabs(sum - c[i * sfq_moment_stride(k) + j]) < 1e-4);
            }
        sfq_moment_close(&m);
        free(c);
    }
}

static void test_factors_at_any_thread_count(void **state)
{
    (void)state;
    enum { K = 202 };
    sfq_moment *m[3];
    for (int t = 0; t < 3; t++) {
        double *c = make_matrix(K, 50, 3);
        m[t] = make_moment(c, K, t + 1);
        assert_non_null(m[t]);
        assert_memory_equal(m[t]->ratio, m[0]->ratio, sizeof(float) * K * (K - 1) / 2);
        assert_memory_equal(m[t]->pivot, m[0]->pivot, sizeof(double) * K);
        free(c);
    }
    for (int t = 0; t < 3; t++)
        sfq_moment_close(&m[t]);
}

static void test_singular(void **state)
{
    (void)state;
    enum { K = 70 };
    double *zero = make_matrix(K, 0, 1);
    double *line = make_matrix(K, 1, 1); /* rank one: damping makes it positive */
    sfq_moment *m = make_moment(zero, K, 1);
    assert_null(m);
    m = make_moment(line, K, 2);
    assert_non_null(m);
    sfq_moment_close(&m);
    line[0] = NAN;
    assert_null(make_moment(line, K, 2));
    free(zero);
    free(line);
}

/* ---- one panel ---- */

typedef struct panel_case {
    size_t rows, k;
    int bits;
} panel_case;

typedef struct panel_data {
    sfq_cluster cluster;
    float *w, *gain, *scales, *scratch;
    uint8_t *nearest, *codes;
} panel_data;

static void round_nearest(panel_data *d, int bits)
{
    const sfq_cluster *c = &d->cluster;
    for (size_t r = 0; r < c->n; r += c->share)
        for (size_t s = 0; s < c->segments; s++) {
            size_t shared = c->n - r < c->share ? c->n - r : c->share;
            size_t at = r * c->k + sfq_segment_begin(c, s);
            size_t count = (shared - 1) * c->k + sfq_segment_end(c, s) - sfq_segment_begin(c, s);
            sfq_scale_input in = {.w = d->w + at, .count = count, .bits = bits, .dtype = SFQ_F16};
            float scale = sfq_scale_search(&in, d->scratch, NULL);
            d->scales[sfq_scale_index(c, r, s)] = scale;
            sfq_scale_codes(d->nearest + at, d->w + at, count, scale, bits);
        }
    memcpy(d->codes, d->nearest, c->n * c->k);
}

static panel_data open_panel(const panel_case *p)
{
    panel_data d;
    const size_t count = p->rows * p->k;
    size_t room = sfq_feedback_scratch(p->k) + sfq_scale_scratch(count);
    assert_true(sfq_cluster_make(&d.cluster, p->rows, p->k));
    d.w = calloc(count, sizeof *d.w);
    d.gain = calloc(p->k, sizeof *d.gain);
    d.scales = calloc(sfq_cluster_scales(&d.cluster), sizeof *d.scales);
    d.scratch = calloc(room, sizeof *d.scratch);
    d.nearest = calloc(count, 1);
    d.codes = calloc(count, 1);
    assert_true(d.w && d.gain && d.scales && d.scratch && d.nearest && d.codes);
    for (size_t i = 0; i < count; i++)
        d.w[i] = (float)(0.05 * sfq_rng_normal(p->k, 100, i));
    for (size_t i = 0; i < p->k; i++) /* of both signs */
        d.gain[i] = (float)((0.5 + sfq_rng_uniform(p->k, 101, i)) * (i % 5 == 0 ? -1 : 1));
    return d;
}

static void close_panel(panel_data *d)
{
    free(d->w);
    free(d->gain);
    free(d->scales);
    free(d->scratch);
    free(d->nearest);
    free(d->codes);
}

/* e^t G C G e of one row, from the definition */
static double row_error(const panel_data *d, const uint8_t *codes, const double *c, size_t row,
                        int bits)
{
    const size_t k = d->cluster.k;
    double sum = 0;
    double *e = calloc(k, sizeof *e);
    assert_non_null(e);
    for (size_t i = 0; i < k; i++) {
        float scale = d->scales[sfq_scale_index(&d->cluster, row, i / d->cluster.segment_k)];
        float decoded = scale * (float)(codes[row * k + i] - (1 << (bits - 1)));
        e[i] = (double)d->gain[i] * ((double)d->w[row * k + i] - (double)decoded);
    }
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < k; j++)
            sum += e[i] * c[i * sfq_moment_stride(k) + j] * e[j];
    free(e);
    return sum;
}

static void feed(panel_data *d, const sfq_moment *m, int bits, double *nearest, double *chosen)
{
    sfq_feedback_panel panel = {.moment = m,
                                .gain = d->gain,
                                .cluster = &d->cluster,
                                .bits = bits,
                                .rows = d->cluster.n,
                                .w = d->w,
                                .scales = d->scales};
    sfq_feedback_round(d->codes, &panel, d->scratch, nearest, chosen);
}

/* Rows that share scales, K that is no multiple of 64, several segments, a short panel. */
static void test_error(void **state)
{
    (void)state;
    static const panel_case cases[] = {{16, 100, 8}, {7, 70, 3},   {1, 5, 4},
                                       {16, 336, 4}, {3, 1100, 2}, {16, 1100, 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int bits = cases[i].bits;
        panel_data d = open_panel(&cases[i]);
        double *c = make_matrix(cases[i].k, 30, i);
        sfq_moment *m = make_moment(c, cases[i].k, 1);
        double sums[2] = {0};
        double told[2];
        assert_int_equal(d.cluster.segments, cases[i].k == 1100 ? 2 : 1);
        round_nearest(&d, bits);
        feed(&d, m, bits, &told[0], &told[1]);
        for (size_t r = 0; r < cases[i].rows; r++) {
            double before = row_error(&d, d.nearest, c, r, bits);
            double after = row_error(&d, d.codes, c, r, bits);
            assert_true(after <= before * (1 + 1e-5));
            sums[0] += before;
            sums[1] += after;
        }
        assert_true(fabs(told[0] / sums[0] - 1) < 1e-3);
        assert_true(fabs(told[1] / sums[1] - 1) < 1e-3);
        if (cases[i].k > 5)
            assert_true(sums[1] < 0.8 * sums[0]);
        sfq_moment_close(&m);
        close_panel(&d);
        free(c);
    }
}

/* A cluster of zeros stays zeros; weights beside the range of floats do not spoil their row. */
static void test_zeros_and_giants(void **state)
{
    (void)state;
    const panel_case p = {5, 1100, 8};
    panel_data d = open_panel(&p);
    double *c = make_matrix(p.k, 30, 9);
    sfq_moment *m = make_moment(c, p.k, 1);
    const size_t begin = sfq_segment_begin(&d.cluster, 1);
    for (size_t i = 0; i < p.k; i++) {
        d.w[4 * p.k + i] *= 1e38F;
        if (i >= begin)
            d.w[2 * p.k + i] = 0;
    }
    for (size_t i = 0; i < 20; i++)
        d.gain[i] = 1e3F;
    round_nearest(&d, p.bits);
    feed(&d, m, p.bits, NULL, NULL);
    for (size_t i = begin; i < p.k; i++)
        assert_int_equal(d.codes[2 * p.k + i], 128);
    assert_memory_equal(d.codes + 4 * p.k, d.nearest + 4 * p.k, p.k);
    assert_memory_not_equal(d.codes, d.nearest, p.k);
    sfq_moment_close(&m);
    close_panel(&d);
    free(c);
}

/* ---- models ---- */

/* models/novels-5m with some elements (F16) of one tensor set to 0. */
static void write_model(const char *dir, const char *tensor, size_t zeros)
{
    static const char *const files[] = {"config.json", "tokenizer.json"};
    char cwd[SCRATCH_ROOM];
    char path[4 * SCRATCH_ROOM];
    char link[4 * SCRATCH_ROOM];
    sfq_buf file = SFQ_BUF_INIT(1 << 26);
    uint64_t header;
    assert_ok(sfq_file_read(&file, "models/novels-5m/model.safetensors", 1 << 26, &err));
    memcpy(&header, file.data, 8);
    const char *entry = strstr(file.data + 8, tensor);
    assert_non_null(entry);
    entry = strstr(entry, "\"data_offsets\":[");
    assert_non_null(entry);
    size_t begin = strtoull(entry + 16, NULL, 10);
    memset(file.data + 8 + header + begin, 0, 2 * zeros);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_int_equal(mkdir(dir, 0777), 0);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(file.data, 1, file.len, out), file.len);
    assert_int_equal(fclose(out), 0);
    assert_non_null(getcwd(cwd, sizeof cwd));
    for (size_t i = 0; i < 2; i++) {
        snprintf(link, sizeof link, "%s/models/novels-5m/%s", cwd, files[i]);
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        assert_int_equal(symlink(link, path), 0);
    }
    sfq_buf_free(&file);
}

/* Compresses; per role, whether feedback was used. */
static void compress(bool used[SFQ_ROLE_COUNT], const char *model, const char *dir)
{
    sfq_compress_options o = {.struct_size = sizeof o,
                              .model = model,
                              .bits = 6,
                              .embedding_bits = 6,
                              .max_drop = -1,
                              .threads = 2};
    sfq_source *source;
    sfq_plan *plan;
    sfq_outdir *outdir;
    assert_ok(sfq_source_open(&source, &o, &err));
    assert_ok(sfq_plan_make(&plan, source, &o, 1, &err));
    assert_ok(sfq_outdir_open(&outdir, dir, false, &err));
    sfq_emit_loss *losses = calloc(plan->count, sizeof *losses);
    assert_non_null(losses);
    assert_ok(sfq_emit_weights(plan, source, outdir, NULL, 1, 1, losses, &err));
    for (size_t i = 0; i < plan->count; i++)
        used[plan->tensors[i].module->role] |= losses[i].feedback;
    free(losses);
    sfq_outdir_abort(&outdir);
    sfq_plan_free(&plan);
    sfq_source_close(&source);
}

static void test_models(void **state)
{
    (void)state;
    static const struct {
        const char *tensor;
        size_t zeros;
        bool table, q; /* feedback is used */
    } cases[] = {{"\"model.norm.weight\"", 0, true, true},
                 {"\"model.norm.weight\"", 3, true, true},
                 {"\"model.norm.weight\"", 256, false, true},
                 {"\"model.embed_tokens.weight\"", 4096 * 256, false, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char dir[SCRATCH_ROOM];
        bool used[SFQ_ROLE_COUNT] = {false};
        scratch_open(dir);
        char model[2 * SCRATCH_ROOM];
        snprintf(model, sizeof model, "%s/model", dir);
        write_model(model, cases[i].tensor, cases[i].zeros);
        compress(used, model, scratch_path(dir, "out"));
        assert_int_equal(used[SFQ_ROLE_WORD_EMBEDDING], cases[i].table);
        assert_int_equal(used[SFQ_ROLE_Q], cases[i].q);
        assert_int_equal(used[SFQ_ROLE_UP], cases[i].q);
        assert_false(used[SFQ_ROLE_O] || used[SFQ_ROLE_DOWN]);
        scratch_close(dir);
    }
    bool used[SFQ_ROLE_COUNT] = {false};
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    compress(used, "models/sst2-tiny", scratch_path(dir, "out")); /* an encoder */
    for (int role = 0; role < SFQ_ROLE_COUNT; role++)
        assert_false(used[role]);
    scratch_close(dir);
}

/* Which modules have a moment, and that a small table has none. */
static void test_who_is_fed(void **state)
{
    (void)state;
    sfq_compress_options o = {.struct_size = sizeof o, .model = "models/novels-5m", .threads = 1};
    sfq_source *s;
    assert_ok(sfq_source_open(&s, &o, &err));
    const sfq_module *table = sfq_modules_find(s->modules, SFQ_ROLE_WORD_EMBEDDING, -1);
    const sfq_module *q = sfq_modules_find(s->modules, SFQ_ROLE_Q, 2);
    const sfq_module *up = sfq_modules_find(s->modules, SFQ_ROLE_UP, 5);
    const sfq_module *o2 = sfq_modules_find(s->modules, SFQ_ROLE_O, 2);
    assert_int_equal(sfq_feedback_norm(s, table)->role, SFQ_ROLE_FINAL_NORM);
    assert_int_equal(sfq_feedback_norm(s, q)->role, SFQ_ROLE_ATTN_NORM);
    assert_int_equal(sfq_feedback_norm(s, q)->layer, 2);
    assert_int_equal(sfq_feedback_norm(s, up)->role, SFQ_ROLE_FFN_NORM);
    assert_null(sfq_feedback_norm(s, o2));
    s->arch->tied_head = false; /* a table that is an input only */
    assert_null(sfq_feedback_norm(s, table));
    assert_non_null(sfq_feedback_norm(s, q));
    s->arch->vocab = 2 * s->arch->hidden - 1;
    assert_null(sfq_feedback_norm(s, q));
    s->arch->vocab = 2 * s->arch->hidden;
    assert_non_null(sfq_feedback_norm(s, q));
    s->arch->pre_norm = false;
    assert_null(sfq_feedback_norm(s, q));
    sfq_source_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_factors),          cmocka_unit_test(test_factors_at_any_thread_count),
        cmocka_unit_test(test_singular),         cmocka_unit_test(test_error),
        cmocka_unit_test(test_zeros_and_giants), cmocka_unit_test(test_models),
        cmocka_unit_test(test_who_is_fed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

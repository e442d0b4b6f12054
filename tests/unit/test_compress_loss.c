/* The held-out loss and its gradient against plain code: every head, one sequence at a time, in
 * double; finite differences; equal bits at any thread count. */
#include "unit/work_fixture.h"

#include "compress/loss.h"

static sfq_error err;
static const sfq_hooks no_hooks;

#define BERT_LIKE(class, more)                                                                    \
    "{\"model_type\": \"bert\", \"architectures\": [\"" class "\"], \"hidden_size\": 40, "        \
                                                              "\"intermediate_size\": 72, "       \
                                                              "\"num_hidden_layers\": 2, "        \
                                                              "\"num_attention_heads\": 5, "      \
                                                              "\"vocab_size\": 96, "              \
                                                              "\"max_position_embeddings\": 64, " \
                                                              "\"type_vocab_size\": 2, "          \
                                                              "\"layer_norm_eps\": 1e-12, "       \
                                                              "\"hidden_act\": \"gelu\"" more "}"

static const struct {
    const char *name, *config;
} heads[] = {
    {"lm", RANDOM_LLAMA_LIKE("llama", "LlamaForCausalLM", ", \"tie_word_embeddings\": false")},
    {"tied", RANDOM_LLAMA_LIKE("qwen2", "Qwen2ForCausalLM", ", \"tie_word_embeddings\": true")},
    {"classifier", BERT_LIKE("BertForSequenceClassification",
                             ", \"id2label\": {\"0\": \"a\", \"1\": \"b\", \"2\": \"c\"}")},
    {"regression", BERT_LIKE("BertForSequenceClassification",
                             ", \"id2label\": {\"0\": \"a\"}, \"problem_type\": \"regression\"")},
    {"embedding", BERT_LIKE("BertModel", "")},
};
enum { HEADS = sizeof heads / sizeof *heads };

/* ---- a student that differs ---- */

static sfq_student *disturbed(const work_fixture *w, float by)
{
    sfq_student *s;
    sfq_params *p;
    assert_ok(sfq_student_open(&s, w->source, SFQ_F32, &no_hooks, &err));
    assert_ok(sfq_params_open(&p, s, false, &err));
    for (size_t i = 0; i < p->count; i++)
        for (size_t j = 0; j < p->items[i].count; j++)
            p->items[i].value[j] += by * (float)sfq_rng_normal(5, i, j);
    sfq_params_close(&p);
    return s;
}

/* ---- the plain loss ---- */

static void softmax(double *p, const float *z, size_t n, double temperature)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += p[i] = exp((double)z[i] / temperature);
    for (size_t i = 0; i < n; i++)
        p[i] /= sum;
}

static double plain_kl(const float *t, const float *s, size_t n, double temperature)
{
    double p[128], q[128], sum = 0;
    assert_true(n <= 128);
    softmax(p, t, n, temperature);
    softmax(q, s, n, temperature);
    for (size_t i = 0; i < n; i++)
        sum += p[i] * log(p[i] / q[i]);
    return temperature * temperature * sum;
}

static double plain_row(const sfq_arch *a, const float *t, const float *s, double temperature)
{
    size_t n = a->head == SFQ_MODEL_HEAD_LM          ? (size_t)a->vocab
               : a->head == SFQ_MODEL_HEAD_EMBEDDING ? (size_t)a->hidden
                                                     : (size_t)a->labels;
    double sum = 0, length = 0;
    if (a->head == SFQ_MODEL_HEAD_LM || a->head == SFQ_MODEL_HEAD_CLASSIFIER)
        return plain_kl(t, s, n, temperature);
    for (size_t i = 0; i < n; i++) {
        sum += pow((double)s[i] - (double)t[i], 2);
        length += pow((double)t[i], 2);
    }
    return sum / (a->head == SFQ_MODEL_HEAD_REGRESSION ? (double)n : length);
}

typedef struct answers {
    float *values;
    size_t rows, width;
} answers;

/* What the head says of hidden states [T, C]. */
static answers head_of(sfq_exec *exec, const sfq_net *net, const sfq_batch *b, const float *hidden)
{
    const sfq_arch *a = net->arch;
    size_t t = b->offset[b->sequences], rows[64];
    bool lm = a->head == SFQ_MODEL_HEAD_LM, mean = a->head == SFQ_MODEL_HEAD_EMBEDDING;
    answers out = {.rows = lm ? t : b->sequences,
                   .width = (size_t)(lm     ? a->vocab
                                     : mean ? a->hidden
                                            : a->labels)};
    out.values = malloc(out.rows * out.width * sizeof(float));
    assert_true(out.values != NULL && t <= 64);
    for (size_t i = 0; i < t; i++)
        rows[i] = i;
    if (lm)
        assert_ok(sfq_forward_logits(exec, hidden, rows, t, out.values, &err));
    else if (mean)
        assert_ok(sfq_forward_embedding(exec, b, hidden, out.values, &err));
    else
        assert_ok(sfq_forward_labels(exec, b, hidden, out.values, &err));
    return out;
}

static answers answers_of(const work_fixture *w, const sfq_net *net, const sfq_batch *b)
{
    sfq_exec *exec;
    const float *hidden;
    size_t c = (size_t)net->arch->hidden, t = b->offset[b->sequences];
    assert_ok(sfq_exec_open(&exec, net, w->work.kernels, NULL, &err));
    assert_ok(sfq_forward(exec, b, &hidden, NULL, NULL, &err));
    float *copy = malloc(t * c * sizeof(float));
    assert_non_null(copy);
    memcpy(copy, hidden, t * c * sizeof(float));
    answers out = head_of(exec, net, b, copy);
    free(copy);
    sfq_exec_close(&exec);
    return out;
}

/* Sum over all answers, and how many there are. */
static double plain_sum(const work_fixture *w, const sfq_net *net, size_t first, size_t end,
                        size_t *rows)
{
    const sfq_calibration *c = w->calibration;
    double sum = 0;
    *rows = 0;
    for (size_t i = first; i < end; i++) {
        sfq_token_batch b = {0};
        assert_ok(sfq_token_batch_take(&b, c, i, &err));
        answers t = answers_of(w, w->teacher, &b.batch), s = answers_of(w, net, &b.batch);
        for (size_t r = 0; r < t.rows; r++)
            sum += plain_row(net->arch, t.values + r * t.width, s.values + r * t.width, 1);
        *rows += t.rows;
        free(t.values);
        free(s.values);
        sfq_token_batch_free(&b);
    }
    return sum;
}

/* ---- measuring ---- */

static double measure(const work_fixture *w, const sfq_net *net, size_t first, size_t end)
{
    sfq_loss *loss;
    double value;
    assert_ok(sfq_loss_open(&loss, &w->work, first, end, &err));
    assert_ok(sfq_loss_measure(loss, net, &value, &err));
    sfq_loss_close(&loss);
    assert_null(loss);
    return value;
}

static void test_loss_is_the_plain_one(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    for (size_t h = 0; h < HEADS; h++) {
        const char *model = scratch_path(dir, heads[h].name);
        work_fixture w;
        size_t rows;
        random_model(model, heads[h].config, SFQ_F32, h);
        work_open(&w, model, 2);
        sfq_student *s = disturbed(&w, 0.03F);
        double sum = plain_sum(&w, s->net, WORK_TUNE, WORK_SEQUENCES, &rows);
        double value = measure(&w, s->net, WORK_TUNE, WORK_SEQUENCES);
        assert_true(value > 1e-5);
        assert_near(value / (sum / (double)rows), 1, 1e-7);
        /* the original is itself, exactly */
        assert_true(measure(&w, w.teacher, WORK_TUNE, WORK_SEQUENCES) == 0);
        /* other sequences, other figures */
        assert_true(measure(&w, s->net, 0, WORK_TUNE) != value);
        sfq_student_close(&s);
        work_close(&w);
    }
    scratch_close(dir);
}

/* Many batches and blocks of rows: more tokens than one of either holds. */
static void test_threads_do_not_matter(void **state)
{
    (void)state;
    static const char *const models[] = {"models/novels-5m", "models/sst2-tiny"};
    for (size_t m = 0; m < 2; m++) {
        double first = 0;
        for (int threads = 1; threads <= 3; threads++) {
            work_fixture w;
            work_open(&w, models[m], threads);
            sfq_calibration_close(&w.calibration);
            work_calibrate(&w, 60, 20, 40);
            w.work.calibration = w.calibration;
            assert_true(w.calibration->offset[60] - w.calibration->offset[20] > 600);
            sfq_student *s = disturbed(&w, 0.02F);
            double value = measure(&w, s->net, 20, 60);
            if (threads == 1)
                first = value;
            assert_true(value > 0 && memcmp(&value, &first, sizeof value) == 0);
            sfq_student_close(&s);
            work_close(&w);
        }
    }
}

static void test_not_finite_is_said(void **state)
{
    (void)state;
    work_fixture w;
    sfq_loss *loss;
    double value;
    work_open(&w, "models/sst2-tiny", 1);
    sfq_student *s = disturbed(&w, 0.01F);
    assert_ok(sfq_loss_open(&loss, &w.work, WORK_TUNE, WORK_SEQUENCES, &err));
    sfq_student_bias(sfq_student_matrix(s, SFQ_ROLE_CLASSIFIER, -1))[0] = NAN;
    assert_fails(SFQ_E_NUMERIC, "not a finite", sfq_loss_measure(loss, s->net, &value, &err));
    sfq_loss_close(&loss);
    assert_fails(SFQ_E_DATA, "held out", sfq_loss_open(&loss, &w.work, 15, 15, &err));
    assert_null(loss);
    sfq_student_close(&s);
    work_close(&w);
}

/* ---- the gradient ---- */

typedef struct lesson {
    work_fixture *w;
    sfq_student *student;
    sfq_token_batch batch;
    sfq_exec *teacher;
    sfq_grad *grad;
    const float *teacher_hidden, *student_hidden;
    size_t floats; /* of hidden states */
} lesson;

static void lesson_open(lesson *l, work_fixture *w)
{
    *l = (lesson){.w = w, .student = disturbed(w, 0.05F)};
    for (size_t i = 0; i < 4; i++)
        assert_ok(sfq_token_batch_take(&l->batch, w->calibration, i, &err));
    const sfq_net *net = l->student->net;
    assert_ok(sfq_exec_open(&l->teacher, w->teacher, w->work.kernels, w->work.pool, &err));
    assert_ok(sfq_forward(l->teacher, &l->batch.batch, &l->teacher_hidden, NULL, NULL, &err));
    assert_ok(sfq_grad_open(&l->grad, net, w->work.kernels, w->work.pool, &err));
    assert_ok(sfq_grad_forward(l->grad, &l->batch.batch, &l->student_hidden, &err));
    l->floats = l->batch.offset[4] * (size_t)net->arch->hidden;
}

static void lesson_close(lesson *l)
{
    sfq_token_batch_free(&l->batch);
    sfq_exec_close(&l->teacher);
    sfq_grad_close(&l->grad);
    sfq_student_close(&l->student);
}

static double gradient(const lesson *l, double temperature, float *d_hidden)
{
    double value;
    const sfq_loss_step step = {.grad = l->grad,
                                .student = l->student->net,
                                .teacher_exec = l->teacher,
                                .pool = l->w->work.pool,
                                .batch = &l->batch.batch,
                                .teacher_hidden = l->teacher_hidden,
                                .student_hidden = l->student_hidden,
                                .temperature = (float)temperature,
                                .d_hidden = d_hidden,
                                .value = &value};
    assert_ok(sfq_loss_gradient(&step, &err));
    return value;
}

/* The plain loss of hidden states moved by `by` times a random direction. */
static double plain_at(const lesson *l, double temperature, double by)
{
    const sfq_net *net = l->student->net;
    const sfq_batch *b = &l->batch.batch;
    float *moved = malloc(l->floats * sizeof(float));
    sfq_exec *exec;
    double sum = 0;
    assert_non_null(moved);
    for (size_t i = 0; i < l->floats; i++)
        moved[i] = l->student_hidden[i] + (float)(by * sfq_rng_normal(8, 8, i));
    assert_ok(sfq_exec_open(&exec, net, l->w->work.kernels, NULL, &err));
    answers t = head_of(l->teacher, l->w->teacher, b, l->teacher_hidden);
    answers s = head_of(exec, net, b, moved);
    for (size_t r = 0; r < t.rows; r++)
        sum += plain_row(net->arch, t.values + r * t.width, s.values + r * t.width, temperature);
    sum /= (double)t.rows;
    sfq_exec_close(&exec);
    free(t.values);
    free(s.values);
    free(moved);
    return sum;
}

static void check_gradient(work_fixture *w)
{
    static const double temperatures[] = {1, 2, 0.5};
    lesson l;
    lesson_open(&l, w);
    float *d = malloc(l.floats * sizeof(float));
    assert_non_null(d);
    for (size_t i = 0; i < sizeof temperatures / sizeof *temperatures; i++) {
        const double t = temperatures[i], eps = 3e-3;
        for (size_t j = 0; j < l.floats; j++)
            d[j] = 1e9F; /* what was there does not count */
        double value = gradient(&l, t, d);
        assert_near(value / plain_at(&l, t, 0), 1, 1e-6);
        double slope = (plain_at(&l, t, eps) - plain_at(&l, t, -eps)) / (2 * eps), along = 0;
        for (size_t j = 0; j < l.floats; j++)
            along += (double)d[j] * sfq_rng_normal(8, 8, j);
        assert_true(fabs(slope) > 1e-4);
        assert_near(along / slope, 1, 5e-3);
    }
    free(d);
    lesson_close(&l);
}

static void test_gradient(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    for (size_t h = 0; h < HEADS; h++) {
        const char *model = scratch_path(dir, heads[h].name);
        work_fixture w;
        random_model(model, heads[h].config, SFQ_F32, h);
        work_open(&w, model, 2);
        check_gradient(&w);
        work_close(&w);
    }
    scratch_close(dir);
}

/* Gradients of an untied head, summed over blocks of rows: more rows than one block has. */
static void test_head_gradient_and_threads(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    const char *model = scratch_path(dir, "lm");
    float first[2][96 * 40];
    random_model(model, heads[0].config, SFQ_F32, 1);
    for (int threads = 1; threads <= 3; threads++) {
        work_fixture w;
        lesson l;
        work_open(&w, model, threads);
        sfq_calibration_close(&w.calibration);
        work_calibrate(&w, 60, 50, 60);
        w.work.calibration = w.calibration;
        l = (lesson){0};
        lesson_open(&l, &w);
        for (size_t i = 4; i < 40; i++)
            assert_ok(sfq_token_batch_take(&l.batch, w.calibration, i, &err));
        assert_true(l.batch.offset[l.batch.sequences] > 700);
        assert_ok(sfq_forward(l.teacher, &l.batch.batch, &l.teacher_hidden, NULL, NULL, &err));
        assert_ok(sfq_grad_forward(l.grad, &l.batch.batch, &l.student_hidden, &err));
        float *d = malloc(l.batch.offset[40] * 40 * sizeof(float)), head[96 * 40] = {0};
        assert_non_null(d);
        sfq_layer_grad layers[3] = {0};
        const sfq_net_grad into = {.layer = layers, .lm_head = {.w = head}};
        double value;
        const sfq_loss_step step = {.grad = l.grad,
                                    .student = l.student->net,
                                    .teacher_exec = l.teacher,
                                    .pool = w.work.pool,
                                    .batch = &l.batch.batch,
                                    .teacher_hidden = l.teacher_hidden,
                                    .student_hidden = l.student_hidden,
                                    .temperature = 1,
                                    .d_hidden = d,
                                    .into = &into,
                                    .value = &value};
        assert_ok(sfq_loss_gradient(&step, &err));
        if (threads == 1) {
            memcpy(first[0], head, sizeof head);
            memcpy(first[1], d, sizeof head);
        }
        assert_memory_equal(first[0], head, sizeof head);
        assert_memory_equal(first[1], d, sizeof head);
        double norm = 0;
        for (size_t i = 0; i < 96 * 40; i++)
            norm += fabs((double)head[i]);
        assert_true(norm > 1e-3);
        free(d);
        lesson_close(&l);
        work_close(&w);
    }
    scratch_close(dir);
}

static bool always(void *ud)
{
    (void)ud;
    return true;
}

static void test_stops_on_request(void **state)
{
    (void)state;
    work_fixture w;
    sfq_loss *loss;
    double value;
    work_open(&w, "models/sst2-tiny", 1);
    assert_ok(sfq_loss_open(&loss, &w.work, WORK_TUNE, WORK_SEQUENCES, &err));
    w.options.hooks.cancelled = always;
    assert_status(SFQ_E_INTERRUPTED, sfq_loss_measure(loss, w.teacher, &value, &err));
    sfq_loss_close(&loss);
    assert_status(SFQ_E_INTERRUPTED,
                  sfq_loss_open(&loss, &w.work, WORK_TUNE, WORK_SEQUENCES, &err));
    work_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_is_the_plain_one),
        cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_head_gradient_and_threads),
        cmocka_unit_test(test_not_finite_is_said),
        cmocka_unit_test(test_stops_on_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

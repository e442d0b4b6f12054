/* The pieces of the backward pass, each against central differences of a loss in double that is
 * written here in plain C: the sum of d_y times the piece's output. Then the same bits at any
 * thread count, and what must not be written. */
#include "model/grad_parts.h"

#include "base/rng.h"

#include "unit/unit.h"

#include <math.h>

static sfq_error err;

enum { EXECS = 3 };
static const int exec_threads[EXECS] = {1, 2, 5};
static sfq_exec execs[EXECS];

/* The pieces use kernels and pool alone. */
static int open_execs(void **state)
{
    (void)state;
    for (int i = 0; i < EXECS; i++) {
        execs[i].kernels = sfq_kernels_get(SFQ_ISA_COUNT);
        execs[i].threads = (size_t)exec_threads[i];
        assert_ok(sfq_pool_open(&execs[i].pool, exec_threads[i], &err));
    }
    return 0;
}

static int close_execs(void **state)
{
    (void)state;
    for (int i = 0; i < EXECS; i++)
        sfq_pool_close(&execs[i].pool);
    return 0;
}

static void *room(size_t bytes)
{
    void *p = calloc(bytes ? bytes : 1, 1);
    assert_non_null(p);
    return p;
}

static float *random_floats(size_t count, uint64_t stream)
{
    float *x = room(count * sizeof *x);
    for (size_t i = 0; i < count; i++)
        x[i] = (float)sfq_rng_normal(3, stream, i);
    return x;
}

static void assert_close(double got, double want, double size, double tolerance)
{
    assert_near(got, want, tolerance * (size + fabs(want)));
}

/* ---- linear ---- */

typedef struct linear_case {
    size_t t, n, k;
    sfq_dtype dtype; /* dense */
    int bits;        /* packed; 0: dense */
    bool odd;        /* dense: at an odd address */
    bool add;
} linear_case;

/* A matrix and everything that its gradient reads and writes. */
typedef struct linear_data {
    sfq_matrix w;
    uint8_t *codes, *panels, *dense;
    float *scales;
    float *value; /* [N, K] what W stands for */
    float *x, *d_y, *d_x0;
    size_t ldx, ld_dy, ld_dx;
} linear_data;

static void make_dense(linear_data *d, const linear_case *c)
{
    size_t bytes = sfq_dtype_info(c->dtype)->bytes, count = c->n * c->k;
    d->dense = room(count * bytes + 8);
    uint8_t *at = d->dense + (c->odd ? 2 : 0);
    float *random = random_floats(count, 1);
    for (size_t i = 0; i < count; i++) {
        uint16_t half =
            c->dtype == SFQ_F16 ? sfq_f32_to_f16(random[i]) : sfq_f32_to_bf16(random[i]);
        memcpy(at + i * bytes, bytes == 2 ? (void *)&half : (void *)&random[i], bytes);
        sfq_to_f32(&d->value[i], at + i * bytes, c->dtype, 1);
    }
    free(random);
    d->w.w = at;
    d->w.dtype = c->dtype;
}

static void make_packed(linear_data *d, const linear_case *c)
{
    sfq_matrix *w = &d->w;
    assert_true(sfq_cluster_make(&w->cluster, c->n, c->k));
    const sfq_cluster *g = &w->cluster;
    d->codes = room(c->n * c->k);
    d->panels = room(sfq_cluster_code_bytes(g, c->bits));
    d->scales = random_floats(sfq_cluster_scales(g), 2);
    for (size_t i = 0; i < c->n * c->k; i++)
        d->codes[i] = (uint8_t)(sfq_rng_u64(3, 4, i) % (1U << c->bits));
    sfq_panels_pack(d->panels, d->codes, g, c->bits, 0, g->panels);
    for (size_t n = 0; n < c->n; n++)
        for (size_t k = 0; k < c->k; k++)
            d->value[n * c->k + k] = d->scales[sfq_scale_index(g, n, k / g->segment_k)] *
                                     (float)((int)d->codes[n * c->k + k] - (1 << (c->bits - 1)));
    w->packed = true;
    w->codes = d->panels;
    w->panel_bytes = sfq_cluster_panel_bytes(g, c->bits);
    w->bits = c->bits;
    w->scales = d->scales;
}

static void linear_make(linear_data *d, const linear_case *c)
{
    memset(d, 0, sizeof *d);
    d->w.n = c->n;
    d->w.k = c->k;
    d->value = room(c->n * c->k * sizeof(float));
    if (c->bits > 0)
        make_packed(d, c);
    else
        make_dense(d, c);
    d->ldx = c->k + 3;
    d->ld_dy = c->n + 1;
    d->ld_dx = c->k + 2;
    d->x = random_floats(c->t * d->ldx, 5);
    d->d_y = random_floats(c->t * d->ld_dy, 6);
    d->d_x0 = random_floats(c->t * d->ld_dx, 7);
}

static void linear_free(linear_data *d)
{
    free(d->codes);
    free(d->panels);
    free(d->dense);
    free(d->scales);
    free(d->value);
    free(d->x);
    free(d->d_y);
    free(d->d_x0);
}

/* Results of one run; what is added to starts from random numbers. */
typedef struct linear_result {
    float *d_x, *w, *scales, *bias;
    size_t d_x_count, scale_count;
} linear_result;

static void linear_run(sfq_exec *e, const linear_data *d, const linear_case *c, linear_result *r)
{
    r->d_x_count = c->t * d->ld_dx;
    r->scale_count = c->bits > 0 ? sfq_cluster_scales(&d->w.cluster) : 1;
    r->d_x = random_floats(r->d_x_count, 7);
    r->w = random_floats(c->n * c->k, 8);
    r->scales = random_floats(r->scale_count, 9);
    r->bias = random_floats(c->n, 10);
    sfq_matrix_grad into = {.w = r->w, .scales = r->scales, .bias = r->bias};
    float *scratch = room(sfq_linear_grad_floats(&d->w) * sizeof(float));
    sfq_linear_grad_args a = {.w = &d->w,
                              .x = d->x,
                              .ldx = d->ldx,
                              .d_y = d->d_y,
                              .ld_dy = d->ld_dy,
                              .d_x = r->d_x,
                              .ld_dx = d->ld_dx,
                              .add = c->add,
                              .t = c->t,
                              .into = &into,
                              .scratch = scratch};
    sfq_linear_grad(e, &a);
    free(scratch);
}

static void result_free(linear_result *r)
{
    free(r->d_x);
    free(r->w);
    free(r->scales);
    free(r->bias);
}

/* The loss as a function of one number that replaces `at`: sum d_y (x W^T + bias). Its terms that
 * do not depend on the number cancel in the difference. */
static double loss_of_x(const linear_data *d, size_t t, size_t k, double x)
{
    double loss = 0;
    for (size_t n = 0; n < d->w.n; n++)
        loss += (double)d->d_y[t * d->ld_dy + n] * (double)d->value[n * d->w.k + k] * x;
    return loss;
}

static double loss_of_weight(const linear_data *d, size_t t, size_t n, size_t k, double w)
{
    double loss = 0;
    for (size_t i = 0; i < t; i++)
        loss += (double)d->d_y[i * d->ld_dy + n] * (double)d->x[i * d->ldx + k] * w;
    return loss;
}

static double slope(double upper, double lower)
{
    return upper - lower; /* at +1/2 and -1/2: exact for a linear function */
}

static void check_inputs(const linear_data *d, const linear_case *c, const linear_result *r)
{
    for (size_t t = 0; t < c->t; t++) {
        const float *got = r->d_x + t * d->ld_dx, *start = d->d_x0 + t * d->ld_dx;
        for (size_t k = 0; k < c->k; k++) {
            double want = slope(loss_of_x(d, t, k, 0.5), loss_of_x(d, t, k, -0.5));
            double before = c->add ? (double)start[k] : 0.0;
            assert_close((double)got[k], before + want, 10.0 * sqrt((double)c->n), 2e-5);
        }
        for (size_t k = c->k; k < d->ld_dx; k++)
            assert_true(got[k] == start[k]);
    }
}

static void check_weights(const linear_data *d, const linear_case *c, const linear_result *r)
{
    float *start = random_floats(c->n * c->k, 8), *bias = random_floats(c->n, 10);
    for (size_t n = 0; n < c->n; n++) {
        double sum = 0;
        for (size_t k = 0; k < c->k; k++) {
            double want =
                slope(loss_of_weight(d, c->t, n, k, 0.5), loss_of_weight(d, c->t, n, k, -0.5));
            assert_close((double)r->w[n * c->k + k], (double)start[n * c->k + k] + want,
                         10.0 * sqrt((double)c->t), 2e-6);
        }
        for (size_t t = 0; t < c->t; t++)
            sum += (double)d->d_y[t * d->ld_dy + n];
        assert_close((double)r->bias[n], (double)bias[n] + sum, 1.0, 1e-6);
    }
    free(start);
    free(bias);
}

/* Every scale, those of padding outputs too: they have no gradient. */
static void check_scales(const linear_data *d, const linear_case *c, const linear_result *r)
{
    const sfq_cluster *g = &d->w.cluster;
    float *start = random_floats(r->scale_count, 9);
    double *want = room(r->scale_count * sizeof *want), *size = room(r->scale_count * sizeof *want);
    for (size_t n = 0; n < c->n && c->bits > 0; n++)
        for (size_t k = 0; k < c->k; k++) {
            double code = (double)d->codes[n * c->k + k] - (double)(1 << (c->bits - 1));
            size_t i = sfq_scale_index(g, n, k / g->segment_k);
            want[i] += slope(loss_of_weight(d, c->t, n, k, 0.5 * code),
                             loss_of_weight(d, c->t, n, k, -0.5 * code));
            size[i] += fabs(code) * sqrt((double)c->t);
        }
    for (size_t i = 0; i < r->scale_count; i++)
        if (size[i] > 0)
            assert_close((double)r->scales[i], (double)start[i] + want[i], size[i], 1e-6);
        else
            assert_true(r->scales[i] == start[i]);
    free(start);
    free(want);
    free(size);
}

static void run_linear(linear_case c)
{
    linear_data d;
    linear_result first, other;
    linear_make(&d, &c);
    linear_run(&execs[0], &d, &c, &first);
    check_inputs(&d, &c, &first);
    check_weights(&d, &c, &first);
    check_scales(&d, &c, &first);
    for (int i = 1; i < EXECS; i++) {
        linear_run(&execs[i], &d, &c, &other);
        assert_memory_equal(first.d_x, other.d_x, first.d_x_count * sizeof(float));
        assert_memory_equal(first.w, other.w, c.n * c.k * sizeof(float));
        assert_memory_equal(first.scales, other.scales, first.scale_count * sizeof(float));
        assert_memory_equal(first.bias, other.bias, c.n * sizeof(float));
        result_free(&other);
    }
    result_free(&first);
    linear_free(&d);
}

static void dense_linear(void **state)
{
    (void)state;
    static const sfq_dtype dtypes[] = {SFQ_F32, SFQ_F16, SFQ_BF16};
    for (size_t i = 0; i < 3; i++)
        for (int odd = 0; odd < 2; odd++) {
            linear_case c = {.dtype = dtypes[i], .odd = odd != 0};
            c.t = 1, c.n = 1, c.k = 1;
            run_linear(c);
            c.t = 19, c.n = 70, c.k = 45, c.add = true;
            run_linear(c);
            c.t = 33, c.n = 530, c.k = 37, c.add = odd != 0; /* three blocks of rows */
            run_linear(c);
        }
}

/* Every width, with scales shared by 16, 8 and 2 outputs, one a row, and two segments or three; N
 * never a multiple of 16. */
static void packed_linear(void **state)
{
    (void)state;
    static const size_t inputs[] = {20, 64, 200, 340, 1030, 2100};
    for (int bits = 2; bits <= 8; bits++)
        for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
            run_linear(
                (linear_case){.t = 9, .n = 39, .k = inputs[i], .bits = bits, .add = bits % 2 == 0});
    run_linear((linear_case){.t = 40, .n = 300, .k = 100, .bits = 8});
    run_linear((linear_case){.t = 7, .n = 523, .k = 130, .bits = 5, .add = true});
}

/* Without inputs only the bias has a gradient; without tokens nothing has. */
static void linear_edges(void **state)
{
    (void)state;
    float bias[3] = {1, 2, 3}, d_y[6] = {1, 2, 3, 4, 5, 6}, d_x[2] = {7, 8};
    sfq_matrix w = {.n = 3, .dtype = SFQ_F32};
    sfq_matrix_grad into = {.bias = bias};
    sfq_linear_grad_args a = {
        .w = &w, .d_y = d_y, .ld_dy = 3, .d_x = d_x, .ld_dx = 1, .t = 2, .into = &into};
    sfq_linear_grad(&execs[1], &a);
    assert_true(bias[0] == 6 && bias[1] == 9 && bias[2] == 12);
    assert_true(d_x[0] == 7 && d_x[1] == 8);
    static const float weight[3] = {1, 10, 100};
    w.k = 1;
    w.w = weight;
    a.t = 0;
    sfq_linear_grad(&execs[1], &a);
    assert_true(bias[0] == 6 && d_x[0] == 7);
    a.t = 2;
    a.into = NULL;
    sfq_linear_grad(&execs[1], &a);
    assert_true(d_x[0] == 321 && d_x[1] == 654 && bias[0] == 6);
}

/* ---- norms ---- */

typedef struct norm_case {
    size_t t, c;
    bool rms, bias, add, in_place;
} norm_case;

/* sum_i d_y_i norm(x)_i of one row */
static double norm_loss(const norm_case *n, const double *x, const double *gain, const float *bias,
                        const float *d_y, double eps)
{
    double mean = 0, square = 0, loss = 0;
    for (size_t i = 0; i < n->c && !n->rms; i++)
        mean += x[i] / (double)n->c;
    for (size_t i = 0; i < n->c; i++)
        square += (x[i] - mean) * (x[i] - mean) / (double)n->c;
    for (size_t i = 0; i < n->c; i++) {
        double y = (x[i] - mean) / sqrt(square + eps) * gain[i];
        loss += (double)d_y[i] * (n->bias ? y + (double)bias[i] : y);
    }
    return loss;
}

typedef struct norm_data {
    float *x, *d_y, *gain, *bias;
    float *d_x, *d_gain, *d_bias;
    size_t ldx, ld_dy, ld_dx;
} norm_data;

static const float NORM_EPS = 1e-5F;

static void norm_run(sfq_exec *e, const norm_case *n, norm_data *d)
{
    d->ldx = n->c + 2;
    d->ld_dy = n->c + 1;
    d->ld_dx = n->in_place ? d->ld_dy : n->c + 3;
    d->x = random_floats(n->t * d->ldx, 20);
    for (size_t i = 0; i < n->t * d->ldx; i++)
        d->x[i] += 0.5F;
    d->d_y = random_floats(n->t * d->ld_dy, 21);
    d->d_x = n->in_place ? d->d_y : random_floats(n->t * d->ld_dx, 22);
    d->gain = random_floats(n->c, 23);
    d->bias = random_floats(n->c, 24);
    d->d_gain = random_floats(n->c, 25);
    d->d_bias = random_floats(n->c, 26);
    sfq_norm norm = {.gain = d->gain, .bias = n->bias ? d->bias : NULL};
    sfq_norm_grad into = {.gain = d->d_gain, .bias = n->bias ? d->d_bias : NULL};
    float *scratch = room(sfq_norm_grad_floats(n->t, n->c) * sizeof(float));
    sfq_norm_grad_args a = {.norm = &norm,
                            .rms = n->rms,
                            .eps = NORM_EPS,
                            .x = d->x,
                            .d_y = d->d_y,
                            .d_x = d->d_x,
                            .ldx = d->ldx,
                            .ld_dy = d->ld_dy,
                            .ld_dx = d->ld_dx,
                            .add = n->add,
                            .t = n->t,
                            .c = n->c,
                            .into = &into,
                            .scratch = scratch};
    sfq_norm_grad_run(e, &a);
    free(scratch);
}

static void norm_free(norm_data *d, bool in_place)
{
    free(d->x);
    free(d->d_y);
    if (!in_place)
        free(d->d_x);
    free(d->gain);
    free(d->bias);
    free(d->d_gain);
    free(d->d_bias);
}

/* The slope at one of `values`. */
static double norm_slope(const norm_case *n, double *values, size_t i, const double *x,
                         const double *gain, const float *bias, const float *d_y)
{
    const double h = 1e-4, old = values[i];
    values[i] = old + h;
    double upper = norm_loss(n, x, gain, bias, d_y, (double)NORM_EPS);
    values[i] = old - h;
    double lower = norm_loss(n, x, gain, bias, d_y, (double)NORM_EPS);
    values[i] = old;
    return (upper - lower) / (2 * h);
}

static void check_norm(const norm_case *n, const norm_data *d)
{
    float *d_y = random_floats(n->t * d->ld_dy, 21);
    float *d_x0 = random_floats(n->t * d->ld_dx, n->in_place ? 21 : 22);
    float *gain0 = random_floats(n->c, 25), *bias0 = random_floats(n->c, 26);
    double *x = room(n->c * sizeof *x), *gain = room(n->c * sizeof *gain);
    double *d_gain = room(n->c * sizeof *gain), *d_bias = room(n->c * sizeof *gain);
    for (size_t i = 0; i < n->c; i++)
        gain[i] = (double)d->gain[i];
    for (size_t t = 0; t < n->t; t++) {
        const float *row = d_y + t * d->ld_dy;
        for (size_t i = 0; i < n->c; i++)
            x[i] = (double)d->x[t * d->ldx + i];
        for (size_t i = 0; i < n->c; i++) {
            double before = n->add ? (double)d_x0[t * d->ld_dx + i] : 0.0;
            double want = before + norm_slope(n, x, i, x, gain, d->bias, row);
            assert_close((double)d->d_x[t * d->ld_dx + i], want, 1.0, 5e-6);
            d_gain[i] += norm_slope(n, gain, i, x, gain, d->bias, row);
            d_bias[i] += (double)row[i];
        }
        for (size_t i = n->c; i < d->ld_dx; i++)
            assert_true(d->d_x[t * d->ld_dx + i] == d_x0[t * d->ld_dx + i]);
    }
    for (size_t i = 0; i < n->c; i++) {
        assert_close((double)d->d_gain[i], (double)gain0[i] + d_gain[i], sqrt((double)n->t), 5e-6);
        assert_close((double)d->d_bias[i], (double)bias0[i] + (n->bias ? d_bias[i] : 0.0),
                     sqrt((double)n->t), 5e-6);
    }
    free(d_y);
    free(d_x0);
    free(gain0);
    free(bias0);
    free(x);
    free(gain);
    free(d_gain);
    free(d_bias);
}

static void norms(void **state)
{
    (void)state;
    static const size_t shapes[][2] = {{1, 1}, {1, 7}, {3, 16}, {65, 33}, {300, 24}, {2, 200}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int variant = 0; variant < 16; variant++) {
            norm_case n = {.t = shapes[s][0],
                           .c = shapes[s][1],
                           .rms = (variant & 1) != 0,
                           .bias = (variant & 2) != 0,
                           .add = (variant & 4) != 0,
                           .in_place = (variant & 8) != 0};
            norm_data first, other;
            norm_run(&execs[0], &n, &first);
            check_norm(&n, &first);
            for (int i = 1; i < EXECS; i++) {
                norm_run(&execs[i], &n, &other);
                assert_memory_equal(first.d_x, other.d_x, n.t * first.ld_dx * sizeof(float));
                assert_memory_equal(first.d_gain, other.d_gain, n.c * sizeof(float));
                assert_memory_equal(first.d_bias, other.d_bias, n.c * sizeof(float));
                norm_free(&other, n.in_place);
            }
            norm_free(&first, n.in_place);
        }
}

/* ---- activations ---- */

static double activate(sfq_activation kind, double x)
{
    switch (kind) {
    case SFQ_ACT_SILU:
        return x / (1.0 + exp(-x));
    case SFQ_ACT_GELU:
        return 0.5 * x * erfc(-x / sqrt(2.0));
    case SFQ_ACT_GELU_TANH:
        return 0.5 * x * (1.0 + tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    case SFQ_ACT_RELU:
        return fmax(x, 0.0);
    case SFQ_ACT_TANH:
        return tanh(x);
    default:
        return x / (1.0 + exp(-1.702 * x));
    }
}

static double act_slope(sfq_activation kind, double x)
{
    const double h = 1e-4;
    return (activate(kind, x + h) - activate(kind, x - h)) / (2 * h);
}

enum { ACTS = 4001 };

/* -20 .. 20, none of them the kink of ReLU */
static void act_inputs(float x[ACTS])
{
    for (int i = 0; i < ACTS; i++)
        x[i] = (float)(i - ACTS / 2) * 0.01F + 0.003F;
    x[1] = -88.0F;
    x[2] = -1000.0F;
    x[3] = 1000.0F;
    x[4] = 88.0F;
    x[5] = 2e-4F;
}

static void activations(void **state)
{
    (void)state;
    static float x[ACTS], up[ACTS], d[ACTS], got[ACTS], d_gate[ACTS], d_up[ACTS];
    act_inputs(x);
    for (int i = 0; i < ACTS; i++) {
        d[i] = (float)sfq_rng_normal(3, 30, (uint64_t)i);
        up[i] = (float)sfq_rng_normal(3, 31, (uint64_t)i);
    }
    for (sfq_activation kind = SFQ_ACT_SILU; kind < SFQ_ACT_COUNT; kind++) {
        memcpy(got, d, sizeof got);
        sfq_act_grad(kind, got, x, ACTS);
        sfq_act_mul_grad(kind, x, up, d, d_gate, d_up, ACTS);
        for (int i = 0; i < ACTS; i++) {
            double v = (double)x[i], want = (double)d[i] * act_slope(kind, v);
            double size = fabs((double)d[i]) * (fabs(v) > 1.0 ? fabs(v) : 1.0);
            assert_near((double)got[i], want, 1e-6 * size);
            assert_near((double)d_gate[i], want * (double)up[i], 1e-6 * size * fabs((double)up[i]));
            assert_near((double)d_up[i], (double)d[i] * activate(kind, v), 1e-6 * size);
        }
    }
}

/* Any length, any place: the same bits; nothing behind the end; the result in place of an input. */
static void activations_in_pieces(void **state)
{
    (void)state;
    static float x[ACTS], whole[ACTS], pieces[ACTS + 1], gate[ACTS], up[ACTS], gate2[ACTS];
    act_inputs(x);
    for (sfq_activation kind = SFQ_ACT_SILU; kind < SFQ_ACT_COUNT; kind++) {
        for (int i = 0; i < ACTS; i++)
            whole[i] = pieces[i] = 1.0F;
        pieces[ACTS] = 5.0F;
        sfq_act_grad(kind, whole, x, ACTS);
        for (size_t at = 0, n = 0; at < ACTS; at += n, n = (n + 1) % 40)
            sfq_act_grad(kind, pieces + at, x + at, n < ACTS - at ? n : ACTS - at);
        assert_memory_equal(whole, pieces, sizeof whole);
        assert_true(pieces[ACTS] == 5.0F);
        sfq_act_mul_grad(kind, x, x, whole, gate, up, ACTS);
        memcpy(gate2, whole, sizeof gate2);
        sfq_act_mul_grad(kind, x, x, gate2, gate2, pieces, ACTS);
        assert_memory_equal(gate, gate2, sizeof gate);
        assert_memory_equal(up, pieces, sizeof up);
    }
}

static void activation_of_nan(void **state)
{
    (void)state;
    for (sfq_activation kind = SFQ_ACT_SILU; kind < SFQ_ACT_COUNT; kind++) {
        float d[3] = {1, 1, 1}, x[3] = {0.5F, NAN, 0.5F};
        sfq_act_grad(kind, d, x, 3);
        assert_true(isnan(d[1]) && !isnan(d[0]) && d[0] == d[2]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_linear),      cmocka_unit_test(packed_linear),
        cmocka_unit_test(linear_edges),      cmocka_unit_test(norms),
        cmocka_unit_test(activations),       cmocka_unit_test(activations_in_pieces),
        cmocka_unit_test(activation_of_nan),
    };
    return cmocka_run_group_tests(tests, open_execs, close_execs);
}

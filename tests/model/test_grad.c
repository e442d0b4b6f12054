/* tests/model/test_grad.c - the backward pass against finite differences on one small network of
 * each kind of block; scales of packed matrices against finite differences through the floats that
 * they stand for; and what backward promises about threads, memory, hooks and stopping early. */
#include "fixture.h"
#include "packing.h"
#include "random_net.h"

#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The loss is linear in what the model is asked for, with random weights, and in the hidden states
 * below the last: all that a caller can put in. */
typedef struct probe {
    sfq_grad *grad;
    sfq_pool *pool;
    const sfq_arch *arch;
    const sfq_batch *batch;
    float *weight; /* [NET_TOKENS + 1, V], [S, labels] or [S, C] of the outputs */
    float *state;  /* [layers, T, C] of the hidden states */
    float *out, *d_hidden;
    size_t outputs, rows[NET_TOKENS + 1], row_count;
    double masks[NET_LAYERS][2][NET_F + NET_D]; /* layer, MLP: sum of activation * gradient */
} probe;

static void probe_open(probe *p, const sfq_net *net, const sfq_batch *batch, int threads)
{
    size_t t = batch->offset[batch->sequences], c = (size_t)net->arch->hidden;
    size_t states = (size_t)net->arch->layers * t * c;
    memset(p, 0, sizeof(*p));
    p->arch = net->arch;
    p->batch = batch;
    assert_int_equal(sfq_pool_open(&p->pool, threads, NULL), SFQ_OK);
    assert_int_equal(sfq_grad_open(&p->grad, net, sfq_kernels_get(SFQ_ISA_COUNT), p->pool, NULL),
                     SFQ_OK);
    for (size_t i = 0; i < t && i < NET_TOKENS; i++)
        p->rows[p->row_count++] = t - 1 - i;
    p->rows[p->row_count++] = 2; /* a row twice */
    p->outputs = batch->sequences * (size_t)net->arch->labels;
    if (net->arch->head == SFQ_MODEL_HEAD_LM)
        p->outputs = p->row_count * (size_t)net->arch->vocab;
    else if (net->arch->head == SFQ_MODEL_HEAD_EMBEDDING)
        p->outputs = batch->sequences * c;
    p->weight = SFQ_NEW_ARRAY(float, p->outputs);
    p->state = SFQ_NEW_ARRAY(float, states);
    p->out = SFQ_NEW_ARRAY(float, p->outputs);
    p->d_hidden = SFQ_NEW_ARRAY(float, t *c);
    for (size_t i = 0; i < p->outputs; i++)
        p->weight[i] = (float)sfq_rng_normal(7, 0, i);
    for (size_t i = 0; i < states; i++)
        p->state[i] = 0.2F * (float)sfq_rng_normal(7, 1, i);
}

static void probe_close(probe *p)
{
    sfq_grad_close(&p->grad);
    sfq_pool_close(&p->pool);
    sfq_mem_free(p->weight);
    sfq_mem_free(p->state);
    sfq_mem_free(p->out);
    sfq_mem_free(p->d_hidden);
}

static sfq_status outputs(probe *p, const float *hidden, sfq_error *err)
{
    sfq_exec *exec = sfq_grad_exec(p->grad);
    if (p->arch->head == SFQ_MODEL_HEAD_LM)
        return sfq_forward_logits(exec, hidden, p->rows, p->row_count, p->out, err);
    if (p->arch->head == SFQ_MODEL_HEAD_EMBEDDING)
        return sfq_forward_embedding(exec, p->batch, hidden, p->out, err);
    return sfq_forward_labels(exec, p->batch, hidden, p->out, err);
}

static double loss(probe *p)
{
    const float *hidden;
    double sum = 0;
    size_t n = p->batch->offset[p->batch->sequences] * (size_t)p->arch->hidden;
    assert_int_equal(sfq_grad_forward(p->grad, p->batch, &hidden, NULL), SFQ_OK);
    assert_int_equal(outputs(p, hidden, NULL), SFQ_OK);
    for (size_t i = 0; i < p->outputs; i++)
        sum += (double)p->weight[i] * (double)p->out[i];
    for (int layer = 0; layer < p->arch->layers; layer++) {
        const float *x = sfq_grad_hidden(p->grad, layer), *w = p->state + (size_t)layer * n;
        for (size_t i = 0; i < n; i++)
            sum += (double)w[i] * (double)x[i];
    }
    return sum;
}

static void inject(void *ud, int layer, float *d_hidden, size_t t, size_t c)
{
    const probe *p = (const probe *)ud;
    for (size_t i = 0; i < t * c; i++)
        d_hidden[i] += p->state[(size_t)layer * t * c + i];
}

static void take_masks(void *ud, const sfq_grad_view *v)
{
    probe *p = (probe *)ud;
    for (size_t t = 0; t < v->t; t++)
        for (size_t i = 0; i < v->width; i++) {
            double product = (double)v->act[t * v->width + i] * (double)v->d_act[t * v->width + i];
            p->masks[v->layer][v->ffn][i % (NET_F + NET_D)] += product;
        }
}

/* Forward and backward; gradients are added to `into`. */
static sfq_status passes(probe *p, const sfq_net_grad *into, const sfq_grad_hooks *hooks,
                         sfq_error *err)
{
    const float *hidden;
    size_t t = p->batch->offset[p->batch->sequences];
    SFQ_TRY(sfq_grad_forward(p->grad, p->batch, &hidden, err));
    memset(p->d_hidden, 0, t * (size_t)p->arch->hidden * sizeof(float));
    if (p->arch->head == SFQ_MODEL_HEAD_LM)
        SFQ_TRY(sfq_grad_logits(p->grad, p->rows, p->row_count, p->weight, p->d_hidden, into, err));
    else if (p->arch->head == SFQ_MODEL_HEAD_EMBEDDING)
        SFQ_TRY(sfq_grad_embedding(p->grad, p->weight, p->d_hidden, err));
    else
        SFQ_TRY(sfq_grad_labels(p->grad, p->weight, p->d_hidden, into, err));
    return sfq_grad_backward(p->grad, p->d_hidden, into, hooks, err);
}

static double length(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

/* ---- finite differences ---- */

/* Brings what follows from a changed tensor up to date. */
typedef void (*renew_fn)(void *ud);

/* The central difference of the loss along a direction of a tensor. */
static double slope(probe *p, float *w, const float *direction, size_t n, double step,
                    renew_fn renew, void *ud)
{
    double value[2];
    float *kept = SFQ_NEW_ARRAY(float, n);
    memcpy(kept, w, n * sizeof(float));
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++)
            w[i] = (float)((double)kept[i] + (side ? step : -step) * (double)direction[i]);
        if (renew)
            renew(ud);
        value[side] = loss(p);
    }
    memcpy(w, kept, n * sizeof(float));
    if (renew)
        renew(ud);
    sfq_mem_free(kept);
    return (value[1] - value[0]) / (2 * step);
}

/* A tensor's gradient against the loss along itself (its length) and along random directions (what
 * is missing). `noise`: slopes below it are rounding. */
static void assert_gradient(probe *p, const char *what, float *w, const float *grad, size_t n,
                            double tolerance, double noise, renew_fn renew, void *ud)
{
    double size = length(grad, n);
    float *direction = SFQ_NEW_ARRAY(float, n);
    for (uint64_t d = 0; d < 3; d++) {
        double want = 0;
        for (size_t i = 0; i < n; i++) {
            direction[i] = (float)sfq_rng_normal(8, d, i);
            if (d == 0)
                direction[i] = size > 0 ? (float)((double)grad[i] / size) : 0;
            want += (double)direction[i] * (double)grad[i];
        }
        double step = 0.02 * fmin(1, length(w, n)) / length(direction, n);
        step = isfinite(step) ? step : 1;
        double got = slope(p, w, direction, n, step, renew, ud);
        if (fabs(got - want) > tolerance * size + noise * length(direction, n))
            fail_msg("%s, direction %d: %.6g instead of %.6g (gradient %.3g)", what, (int)d, want,
                     got, size);
    }
    sfq_mem_free(direction);
}

static void check_kind(net_kind kind)
{
    random_net r;
    probe p;
    char what[64];
    random_net_open(&r, kind);
    probe_open(&p, &r.net, &r.batch, 1);
    const sfq_grad_hooks hooks = {.ud = &p, .inject = inject};
    assert_int_equal(passes(&p, &r.into, &hooks, NULL), SFQ_OK);
    double all = 0;
    for (size_t i = 0; i < r.slots; i++)
        all += length(r.slot[i].grad, r.slot[i].n);
    for (size_t i = 0; i < r.slots; i++) {
        const net_slot *s = &r.slot[i];
        snprintf(what, sizeof(what), "kind %d, layer %d, %s", kind, s->layer, s->name);
        assert_gradient(&p, what, s->w, s->grad, s->n, 5e-3, 2e-5 * all, NULL, NULL);
    }
    probe_close(&p);
    random_net_close(&r);
}

static void test_finite_differences(void **state)
{
    (void)state;
    for (net_kind kind = 0; kind < NET_KINDS; kind++)
        check_kind(kind);
}

/* ---- packed ---- */

static sfq_matrix_grad *grad_of(sfq_net_grad *into, const sfq_net *net, const sfq_matrix *m)
{
    if (net->word.scales == m->scales)
        return &into->word;
    if (net->position.scales == m->scales)
        return &into->position;
    if (net->type.scales == m->scales)
        return &into->type;
    if (net->pooler.scales == m->scales)
        return &into->pooler;
    if (net->lm_head.scales == m->scales)
        return &into->lm_head;
    for (int i = 0; i < net->arch->layers; i++) {
        const sfq_layer_weights *w = &net->layer[i];
        sfq_layer_grad *g = &into->layer[i];
        const sfq_matrix *all[] = {&w->q, &w->k, &w->v, &w->qkv, &w->o, &w->gate, &w->up, &w->down};
        sfq_matrix_grad *grads[] = {&g->q, &g->k,    &g->v,  &g->qkv,
                                    &g->o, &g->gate, &g->up, &g->down};
        for (size_t j = 0; j < 8; j++)
            if (all[j]->scales == m->scales)
                return grads[j];
    }
    return NULL;
}

static void renew_matrix(void *ud)
{
    packed_decode((const packed_matrix *)ud);
}

/* The packed network's own gradients of scales and of (decoded) weights, and the loss of the dense
 * network that the scales stand for. */
static void check_packed(net_kind kind)
{
    random_net r;
    packed_net net;
    probe packed, dense;
    char what[64];
    random_net_open(&r, kind);
    packed_open(&net, &r.net);
    assert_true(net.count > 8);
    probe_open(&packed, &net.packed, &r.batch, 1);
    probe_open(&dense, &net.dense, &r.batch, 1);
    for (size_t i = 0; i < net.count; i++) {
        sfq_matrix_grad *g = grad_of(&r.into, &net.packed, &net.matrix[i].m);
        g->scales = SFQ_ARENA_ARRAY(r.arena, float, sfq_cluster_scales(&net.matrix[i].m.cluster));
    }
    if (r.arch.tied_head)
        r.into.lm_head = r.into.word;
    const sfq_grad_hooks hooks = {.ud = &packed, .inject = inject};
    assert_int_equal(passes(&packed, &r.into, &hooks, NULL), SFQ_OK);
    for (size_t i = 0; i < net.count; i++) {
        packed_matrix *m = &net.matrix[i];
        sfq_matrix_grad *g = grad_of(&r.into, &net.packed, &m->m);
        size_t scales = sfq_cluster_scales(&m->m.cluster), n = m->m.n * m->m.k;
        snprintf(what, sizeof(what), "kind %d, packed matrix %zu", kind, i);
        /* activations of 12 and 14 bits against float ones; behind a norm of their own, outputs
         * do not change with a common scale, so that what is left of its gradient is small */
        double usual = length(g->w, n) * length(m->w, n) / length(m->scales, scales);
        assert_gradient(&dense, what, m->scales, g->scales, scales, 1e-2, 2e-5 * usual,
                        renew_matrix, m);
        assert_gradient(&dense, what, m->w, g->w, n, 1e-2, 1e-3 * length(g->w, n), NULL, NULL);
    }
    probe_close(&packed);
    probe_close(&dense);
    packed_close(&net);
    random_net_close(&r);
}

static void test_packed_scales(void **state)
{
    (void)state;
    check_packed(NET_LLAMA);
    check_packed(NET_QWEN3);
    check_packed(NET_GPT2);
    check_packed(NET_BERT);
}

/* ---- promises ---- */

static void test_threads_change_no_bit(void **state)
{
    (void)state;
    for (net_kind kind = 0; kind < NET_KINDS; kind++) {
        random_net r;
        float *first[NET_SLOTS];
        random_net_open(&r, kind);
        for (int threads = 1; threads <= 3; threads++) {
            probe p;
            probe_open(&p, &r.net, &r.batch, threads);
            const sfq_grad_hooks hooks = {.ud = &p, .inject = inject};
            random_net_zero(&r);
            assert_int_equal(passes(&p, &r.into, &hooks, NULL), SFQ_OK);
            for (size_t i = 0; i < r.slots; i++) {
                size_t bytes = r.slot[i].n * sizeof(float);
                if (threads == 1)
                    first[i] = (float *)memcpy(SFQ_ARENA_ARRAY(r.arena, float, r.slot[i].n),
                                               r.slot[i].grad, bytes);
                assert_memory_equal(first[i], r.slot[i].grad, bytes);
            }
            probe_close(&p);
        }
        random_net_close(&r);
    }
}

typedef struct seen {
    const sfq_grad *grad;
    int count;
} seen;

static void same_hidden(void *ud, int layer, const float *hidden, size_t t, size_t c)
{
    seen *s = (seen *)ud;
    s->count++;
    assert_memory_equal(hidden, sfq_grad_hidden(s->grad, layer), t * c * sizeof(float));
}

/* grad_forward is sfq_forward, bit by bit, hidden states too. */
static void test_forward_is_the_forward_pass(void **state)
{
    (void)state;
    for (net_kind kind = 0; kind < NET_KINDS; kind++) {
        random_net r;
        probe p;
        sfq_exec *exec = NULL;
        const float *hidden, *again;
        random_net_open(&r, kind);
        probe_open(&p, &r.net, &r.batch, 2);
        assert_int_equal(sfq_exec_open(&exec, &r.net, sfq_kernels_get(SFQ_ISA_COUNT), NULL, NULL),
                         SFQ_OK);
        assert_int_equal(sfq_grad_forward(p.grad, &r.batch, &again, NULL), SFQ_OK);
        seen s = {p.grad, 0};
        assert_int_equal(sfq_forward(exec, &r.batch, &hidden, same_hidden, &s, NULL), SFQ_OK);
        assert_int_equal(s.count, NET_LAYERS + 1);
        assert_memory_equal(hidden, again, NET_TOKENS * NET_C * sizeof(float));
        sfq_exec_close(&exec);
        probe_close(&p);
        random_net_close(&r);
    }
}

/* sum_t act d_act of a channel is sum_n W dW of its column: the gradient of a mask on it. */
static void check_masks(const probe *p, const random_net *r)
{
    for (int layer = 0; layer < NET_LAYERS; layer++)
        for (int ffn = 0; ffn < 2; ffn++) {
            const sfq_matrix *w = ffn ? &r->layer[layer].down : &r->layer[layer].o;
            const float *d_w = ffn ? r->into_layer[layer].down.w : r->into_layer[layer].o.w;
            double diff = 0, size = 0, sum[NET_F + NET_D] = {0};
            for (size_t i = 0; i < w->n * w->k; i++)
                sum[i % w->k % (NET_F + NET_D)] +=
                    (double)((const float *)w->w)[i] * (double)d_w[i];
            for (size_t i = 0; i < NET_F + NET_D; i++) {
                double d = sum[i] - p->masks[layer][ffn][i];
                diff += d * d;
                size += sum[i] * sum[i];
            }
            assert_true(sqrt(diff) <= 1e-5 * sqrt(size));
            assert_true(w->k == 0 || size > 0);
        }
}

static void test_views_hold_what_a_mask_needs(void **state)
{
    (void)state;
    for (net_kind kind = 0; kind < NET_KINDS; kind++) {
        random_net r;
        probe p;
        random_net_open(&r, kind);
        probe_open(&p, &r.net, &r.batch, 1);
        const sfq_grad_hooks hooks = {.ud = &p, .sublayer = take_masks};
        assert_int_equal(passes(&p, &r.into, &hooks, NULL), SFQ_OK);
        check_masks(&p, &r);
        probe_close(&p);
        random_net_close(&r);
    }
}

/* Wanting less gives the same bits of what is wanted, and touches nothing else. */
static void test_only_what_is_wanted(void **state)
{
    random_net r;
    probe p;
    float up[NET_F * NET_C];
    sfq_layer_grad layers[NET_LAYERS] = {0};
    sfq_net_grad into = {.layer = layers};
    (void)state;
    random_net_open(&r, NET_LLAMA);
    probe_open(&p, &r.net, &r.batch, 1);
    assert_int_equal(passes(&p, &r.into, NULL, NULL), SFQ_OK);
    memset(up, 0, sizeof(up));
    layers[1].up.w = up;
    assert_int_equal(passes(&p, &into, NULL, NULL), SFQ_OK);
    assert_memory_equal(up, r.into_layer[1].up.w, sizeof(up));
    /* a second time: added, not set */
    assert_int_equal(passes(&p, &into, NULL, NULL), SFQ_OK);
    for (size_t i = 0; i < NET_F * NET_C; i++)
        up[i] -= 2 * r.into_layer[1].up.w[i];
    assert_true(length(up, NET_F * NET_C) < 1e-6 * length(r.into_layer[1].up.w, NET_F * NET_C));
    probe_close(&p);
    random_net_close(&r);
}

static void test_memory_is_what_was_announced(void **state)
{
    (void)state;
    for (net_kind kind = 0; kind < NET_KINDS; kind++)
        for (int packed = 0; packed < 2; packed++) {
            random_net r;
            packed_net net;
            probe p;
            sfq_grad *grad = NULL;
            random_net_open(&r, kind);
            packed_open(&net, &r.net);
            const sfq_net *which = packed ? &net.packed : &r.net;
            probe_open(&p, which, &r.batch, 3);
            sfq_grad_close(&p.grad);
            heap_reset();
            assert_int_equal(
                sfq_grad_open(&grad, which, sfq_kernels_get(SFQ_ISA_COUNT), p.pool, NULL), SFQ_OK);
            p.grad = grad;
            assert_int_equal(passes(&p, &r.into, NULL, NULL), SFQ_OK);
            assert_int_equal(heap_bytes, sfq_grad_bytes(which, 3, NET_TOKENS, 70));
            heap_reset();
            assert_int_equal(passes(&p, &r.into, NULL, NULL), SFQ_OK);
            r.batch.sequences = 2; /* a smaller batch */
            p.row_count = 0;
            assert_int_equal(passes(&p, &r.into, NULL, NULL), SFQ_OK);
            assert_int_equal(heap_calls, 0);
            probe_close(&p);
            packed_close(&net);
            random_net_close(&r);
        }
}

static sfq_status one_life(const random_net *r, float *d_hidden, sfq_error *err)
{
    sfq_grad *grad = NULL;
    const float *hidden;
    sfq_status status;
    SFQ_DO(sfq_grad_open(&grad, &r->net, sfq_kernels_get(SFQ_ISA_COUNT), NULL, err));
    SFQ_DO(sfq_grad_forward(grad, &r->batch, &hidden, err));
    status = sfq_grad_backward(grad, d_hidden, &r->into, NULL, err);
done:
    sfq_grad_close(&grad);
    assert_null(grad);
    return status;
}

static void test_each_allocation_may_fail(void **state)
{
    static float d_hidden[NET_TOKENS * NET_C];
    random_net r;
    sfq_status status = SFQ_E_MEMORY;
    size_t n;
    (void)state;
    random_net_open(&r, NET_BERT);
    for (n = 1; status != SFQ_OK; n++) {
        sfq_error err = {0};
        heap_reset();
        heap_fail_at = n;
        status = one_life(&r, d_hidden, &err);
        if (status != SFQ_OK) {
            assert_int_equal(status, SFQ_E_MEMORY);
            assert_int_equal(err.code, SFQ_E_MEMORY);
        }
    }
    assert_int_equal(n, 7); /* grad, exec, worker scratch, exec's and grad's arrays; then none */
    heap_reset();
    random_net_close(&r);
}

/* A batch that does not fit the heap leaves a handle that works for one that does. */
static void test_a_refused_batch_changes_nothing(void **state)
{
    random_net r;
    probe p;
    const float *hidden;
    (void)state;
    random_net_open(&r, NET_LLAMA);
    probe_open(&p, &r.net, &r.batch, 1);
    heap_reset();
    heap_fail_at = 2; /* the exec's arrays come first */
    assert_int_equal(sfq_grad_forward(p.grad, &r.batch, &hidden, NULL), SFQ_E_MEMORY);
    heap_reset();
    assert_int_equal(sfq_grad_backward(p.grad, p.d_hidden, &r.into, NULL, NULL), SFQ_E_ARGUMENT);
    assert_int_equal(sfq_grad_logits(p.grad, p.rows, 1, p.weight, p.d_hidden, NULL, NULL),
                     SFQ_E_ARGUMENT);
    r.ids[4] = NET_V;
    assert_int_equal(sfq_grad_forward(p.grad, &r.batch, &hidden, NULL), SFQ_E_DATA);
    r.ids[4] = 0;
    assert_int_equal(passes(&p, &r.into, NULL, NULL), SFQ_OK);
    assert_int_equal(sfq_grad_labels(p.grad, p.weight, p.d_hidden, NULL, NULL), SFQ_E_UNSUPPORTED);
    assert_int_equal(sfq_grad_embedding(p.grad, p.weight, p.d_hidden, NULL), SFQ_E_UNSUPPORTED);
    assert_true(sfq_grad_bytes(&r.net, 1, (size_t)1 << 40, 5) == UINT64_MAX);
    assert_true(sfq_grad_bytes(&r.net, 1, SIZE_MAX - 3, 5) == UINT64_MAX);
    probe_close(&p);
    random_net_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finite_differences),
        cmocka_unit_test(test_packed_scales),
        cmocka_unit_test(test_threads_change_no_bit),
        cmocka_unit_test(test_forward_is_the_forward_pass),
        cmocka_unit_test(test_views_hold_what_a_mask_needs),
        cmocka_unit_test(test_only_what_is_wanted),
        cmocka_unit_test(test_memory_is_what_was_announced),
        cmocka_unit_test(test_each_allocation_may_fail),
        cmocka_unit_test(test_a_refused_batch_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/model/test_pieces.c - the pass in pieces is the pass: bit by bit at every hidden state,
 * pre-norm and post-norm, dense and packed, with widths of 0; and what a layer saves is what it
 * computed with. */
#include "packing.h"

#include <math.h>
#include <string.h>

enum { C = 32, MOST = FIXTURE_TOKENS * 128 };

typedef struct seen {
    float hidden[5][FIXTURE_TOKENS * C];
} seen;

static sfq_batch whole_batch(const fixture *f)
{
    return (sfq_batch){
        .sequences = FIXTURE_SEQUENCES, .offset = f->offset, .ids = f->ids, .types = f->types};
}

static void keep(void *ud, int layer, const float *hidden, size_t t, size_t c)
{
    memcpy(((seen *)ud)->hidden[layer], hidden, t * c * sizeof(float));
}

typedef struct inside {
    float attn_in[MOST], qkv_raw[MOST], qkv[MOST], att[MOST], attn_sum[MOST];
    float ffn_in[MOST], ffn_pre[MOST], ffn_act[MOST], ffn_sum[MOST];
} inside;

static sfq_block_save save_into(inside *i)
{
    return (sfq_block_save){i->attn_in, i->qkv_raw, i->qkv,     i->att,    i->attn_sum,
                            i->ffn_in,  i->ffn_pre, i->ffn_act, i->ffn_sum};
}

/* out += W in, summed in double. Gives the sum's distance to `want` over its norm. */
static double residual_error(const sfq_matrix *w, const float *before, const float *in, size_t ld,
                             const float *want, size_t t)
{
    double diff = 0, norm = 0;
    float row[256];
    for (size_t i = 0; i < t; i++)
        for (size_t n = 0; n < C; n++) {
            double sum = (double)before[i * C + n];
            if (w->n > 0 && w->bias)
                sum += (double)w->bias[n];
            if (w->n > 0 && w->k > 0)
                sfq_to_f32(row, (const char *)w->w + n * w->k * sfq_dtype_info(w->dtype)->bytes,
                           w->dtype, w->k);
            for (size_t k = 0; w->n > 0 && k < w->k; k++)
                sum += (double)row[k] * (double)in[i * ld + k];
            diff += (sum - (double)want[i * C + n]) * (sum - (double)want[i * C + n]);
            norm += sum * sum;
        }
    return sqrt(diff / norm);
}

static void assert_saved(const sfq_net *net, int layer, const inside *i, const float *x_in,
                         const float *x_out, size_t t)
{
    const sfq_layer_arch *l = &net->arch->layer[layer];
    const sfq_layer_weights *w = &net->layer[layer];
    size_t att = (size_t)(l->heads * net->arch->head_dim), f = (size_t)l->ffn;
    bool pre = net->arch->pre_norm;
    if (!pre && w->o.n > 0)
        assert_memory_equal(i->attn_in, x_in, t * C * sizeof(float));
    if (pre)
        assert_memory_equal(i->ffn_sum, x_out, t * C * sizeof(float));
    if (w->o.packed || w->down.packed)
        return;
    assert_true(residual_error(&w->o, x_in, i->att, att, i->attn_sum, t) < 1e-6);
    const float *middle = pre ? i->attn_sum : i->ffn_in; /* post-norm: the MLP reads the sum */
    if (pre || w->down.n > 0)
        assert_true(residual_error(&w->down, middle, i->ffn_act, f, i->ffn_sum, t) < 1e-6);
    if (f > 0 && net->arch->gated)
        for (size_t j = 0; j < t * f; j++) {
            const float *gate = i->ffn_pre + j / f * 2 * f + j % f;
            float h = gate[0] / (1 + expf(-gate[0])) * gate[f];
            assert_true(fabsf(h - i->ffn_act[j]) <= 1e-5f * (1 + fabsf(h)));
        }
}

static void check_pieces(const sfq_net *net, const fixture *f, int threads)
{
    static inside in;
    static seen want;
    static float x[FIXTURE_TOKENS * C], before[FIXTURE_TOKENS * C];
    sfq_pool *pool = NULL;
    sfq_exec *exec = NULL;
    const float *hidden;
    sfq_batch b = whole_batch(f);
    assert_int_equal(sfq_pool_open(&pool, threads, NULL), SFQ_OK);
    assert_int_equal(sfq_exec_open(&exec, net, sfq_kernels_get(SFQ_ISA_COUNT), pool, NULL), 0);
    assert_int_equal(sfq_forward(exec, &b, &hidden, keep, &want, NULL), SFQ_OK);
    assert_int_equal(sfq_forward(exec, &b, &hidden, NULL, NULL, NULL), SFQ_OK);
    int layers = net->arch->layers;
    assert_memory_equal(hidden, want.hidden[layers], sizeof(x));
    for (int saved = 0; saved < 2; saved++) {
        assert_int_equal(sfq_forward_embed(exec, &b, x, NULL), SFQ_OK);
        for (int layer = 0; layer < layers; layer++) {
            sfq_block_save save = save_into(&in);
            memset(&in, 0, sizeof(in));
            assert_memory_equal(x, want.hidden[layer], sizeof(x));
            memcpy(before, x, sizeof(x));
            assert_int_equal(sfq_forward_layer(exec, &b, layer, x, saved ? &save : NULL, NULL), 0);
            if (saved)
                assert_saved(net, layer, &in, before, x, FIXTURE_TOKENS);
        }
        sfq_forward_final(exec, x, FIXTURE_TOKENS);
        assert_memory_equal(x, want.hidden[layers], sizeof(x));
    }
    sfq_exec_close(&exec);
    sfq_pool_close(&pool);
}

static void check_family(const char *name)
{
    static float bias[C];
    fixture f;
    packed_net p;
    ragged_net r;
    assert_int_equal(fixture_open(&f, name, NULL), SFQ_OK);
    assert_int_equal(f.arch->hidden, C);
    packed_open(&p, f.net);
    for (size_t i = 0; i < C; i++)
        bias[i] = 0.1f * (float)i - 1;
    for (int threads = 1; threads <= 3; threads += 2) {
        const sfq_net *const nets[] = {f.net, &p.packed};
        for (size_t i = 0; i < 2; i++) {
            check_pieces(nets[i], &f, threads);
            ragged_make(&r, nets[i], NULL);
            check_pieces(&r.net, &f, threads);
            ragged_make(&r, nets[i], bias);
            check_pieces(&r.net, &f, threads);
        }
    }
    packed_close(&p);
    fixture_close(&f);
}

static void test_pieces_are_the_pass(void **state)
{
    (void)state;
    check_family("llama"); /* pre-norm */
    check_family("bert");  /* post-norm */
}

static void test_pieces_refuse(void **state)
{
    static float x[FIXTURE_TOKENS * C];
    fixture f;
    sfq_exec *exec = NULL;
    sfq_kv *kv = NULL;
    (void)state;
    assert_int_equal(fixture_open(&f, "llama", NULL), SFQ_OK);
    assert_int_equal(sfq_exec_open(&exec, f.net, sfq_kernels_get(SFQ_ISA_COUNT), NULL, NULL), 0);
    assert_int_equal(sfq_kv_open(&kv, f.arch, SFQ_F32, 64, NULL), SFQ_OK);
    sfq_kv *all[FIXTURE_SEQUENCES] = {kv, kv, kv};
    sfq_batch b = whole_batch(&f);
    b.kv = all;
    assert_int_equal(sfq_forward_embed(exec, &b, x, NULL), SFQ_E_ARGUMENT);
    assert_int_equal(sfq_forward_layer(exec, &b, 0, x, NULL, NULL), SFQ_E_ARGUMENT);
    b.kv = NULL;
    f.ids[3] = f.arch->vocab;
    assert_int_equal(sfq_forward_layer(exec, &b, 0, x, NULL, NULL), SFQ_E_DATA);
    sfq_kv_close(&kv);
    sfq_exec_close(&exec);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_are_the_pass),
        cmocka_unit_test(test_pieces_refuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

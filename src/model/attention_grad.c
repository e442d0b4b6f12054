/* model/attention_grad.c - backward of attention, rotation and head norms. Probabilities are
 * computed again, a block of query rows at a time, so that scratch grows with the length of a
 * sequence and not with its square (Dao et al. 2022, "FlashAttention", Algorithm 4, without tiles
 * of keys). With P = softmax(S), S = scale Q K^T, O = P V:
 *   dV = P^T dO,  dS = P o (dO V^T - sum_d dO o O),  dQ = scale dS K,  dK = scale dS^T Q
 * A KV head of a sequence is one item of work: all that adds to its dK and dV is added by one
 * thread, in order. The products are the BLAS's, called inline. */
#include "model/grad_parts.h"

#include "base/ck.h"
#include "kernels/linalg.h"

#include <math.h>

enum {
    BLOCK = 64, /* query rows whose probabilities are held at once */
    LANES = 8
};

typedef struct attention_job {
    const sfq_exec *e;
    const sfq_attention_grad_args *a;
    const sfq_layer_arch *arch;
    size_t d, heads, kv_heads;
    size_t ld;    /* (heads + 2 kv_heads) * d */
    size_t panel; /* floats of one worker's matrix */
} attention_job;

/* A block of rows of one query head. Pointers are to the first key that a row of it sees. */
typedef struct attention_block {
    size_t row, rows; /* query rows, positions in the sequence */
    size_t key, keys; /* keys that any of them sees */
    const float *q, *k, *v, *out, *d_out;
    float *d_q, *d_k, *d_v;
    float *p, *d_p; /* [rows, keys] */
} attention_block;

static double dot(const float *a, const float *b, size_t n)
{
    double lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lane[j] += (double)a[i + j] * (double)b[i + j];
    for (; i < n; i++)
        lane[0] += (double)a[i] * (double)b[i];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* Keys [*begin, *end) that position p of a sequence of n tokens sees: the forward pass's mask. */
static void seen_keys(const attention_job *job, size_t p, size_t n, size_t *begin, size_t *end)
{
    size_t window = (size_t)job->arch->window;
    *begin = window > 0 && p + 1 > window ? p + 1 - window : 0;
    *end = job->e->net->arch->causal ? p + 1 : n;
}

/* p: scores to probabilities; 0 outside the mask. */
static void softmax_row(float *p, size_t keys, size_t begin, size_t end, float scale)
{
    float most = p[begin];
    double sum = 0;
    for (size_t j = begin; j < end; j++)
        most = p[j] > most ? p[j] : most;
    for (size_t j = 0; j < begin; j++)
        p[j] = 0;
    for (size_t j = begin; j < end; j++) {
        p[j] = expf(scale * (p[j] - most));
        sum += (double)p[j];
    }
    float inverse = (float)(1 / sum);
    for (size_t j = begin; j < end; j++)
        p[j] *= inverse;
    for (size_t j = end; j < keys; j++)
        p[j] = 0;
}

static void inline_gemm(sfq_linalg_product p)
{
    sfq_linalg_gemm(NULL, &p);
}

/* d_p: gradients of probabilities to gradients of the products q k. */
static void scores_grad(const attention_job *job, const attention_block *b)
{
    float scale = job->e->net->arch->attn_scale;
    size_t ld = job->heads * job->d;
    for (size_t i = 0; i < b->rows; i++) {
        const float *p = b->p + i * b->keys;
        float *d_p = b->d_p + i * b->keys;
        float mean = (float)dot(b->d_out + i * ld, b->out + i * ld, job->d);
        for (size_t j = 0; j < b->keys; j++)
            d_p[j] = scale * p[j] * (d_p[j] - mean);
    }
}

static void block_run(const attention_job *job, const attention_block *b, size_t n)
{
    size_t d = job->d, ld = job->ld, ld_out = job->heads * d;
    inline_gemm((sfq_linalg_product){.a = b->q,
                                     .lda = ld,
                                     .b = b->k,
                                     .ldb = ld,
                                     .transpose_b = true,
                                     .m = b->rows,
                                     .n = b->keys,
                                     .k = d,
                                     .c = b->p,
                                     .ldc = b->keys});
    for (size_t i = 0; i < b->rows; i++) {
        size_t begin, end;
        seen_keys(job, b->row + i, n, &begin, &end);
        softmax_row(b->p + i * b->keys, b->keys, begin - b->key, end - b->key,
                    job->e->net->arch->attn_scale);
    }
    inline_gemm((sfq_linalg_product){.a = b->p,
                                     .lda = b->keys,
                                     .transpose_a = true,
                                     .b = b->d_out,
                                     .ldb = ld_out,
                                     .m = b->keys,
                                     .n = d,
                                     .k = b->rows,
                                     .c = b->d_v,
                                     .ldc = ld,
                                     .add = true});
    inline_gemm((sfq_linalg_product){.a = b->d_out,
                                     .lda = ld_out,
                                     .b = b->v,
                                     .ldb = ld,
                                     .transpose_b = true,
                                     .m = b->rows,
                                     .n = b->keys,
                                     .k = d,
                                     .c = b->d_p,
                                     .ldc = b->keys});
    scores_grad(job, b);
    inline_gemm((sfq_linalg_product){.a = b->d_p,
                                     .lda = b->keys,
                                     .b = b->k,
                                     .ldb = ld,
                                     .m = b->rows,
                                     .n = d,
                                     .k = b->keys,
                                     .c = b->d_q,
                                     .ldc = ld});
    inline_gemm((sfq_linalg_product){.a = b->d_p,
                                     .lda = b->keys,
                                     .transpose_a = true,
                                     .b = b->q,
                                     .ldb = ld,
                                     .m = b->keys,
                                     .n = d,
                                     .k = b->rows,
                                     .c = b->d_k,
                                     .ldc = ld,
                                     .add = true});
}

/* One KV head of one sequence: its query heads one after the other, in blocks of rows. */
static void head_run(const attention_job *job, size_t s, size_t g, float *scratch)
{
    const sfq_attention_grad_args *a = job->a;
    size_t first = a->batch->offset[s], n = a->batch->offset[s + 1] - first, d = job->d;
    size_t group = job->heads / job->kv_heads, k_at = (job->heads + g) * d;
    size_t v_at = k_at + job->kv_heads * d;
    for (size_t t = first; t < first + n; t++)
        for (size_t i = 0; i < d; i++)
            a->d_qkv[t * job->ld + k_at + i] = a->d_qkv[t * job->ld + v_at + i] = 0;
    for (size_t h = g * group; h < (g + 1) * group; h++)
        for (size_t row = 0; row < n; row += BLOCK) {
            attention_block b = {.row = row, .rows = sfq_min_size(BLOCK, n - row)};
            size_t unused, end;
            seen_keys(job, row, n, &b.key, &unused);
            seen_keys(job, row + b.rows - 1, n, &unused, &end);
            b.keys = end - b.key;
            size_t q_at = (first + row) * job->ld + h * d, key_row = (first + b.key) * job->ld;
            b.q = a->qkv + q_at;
            b.d_q = a->d_qkv + q_at;
            b.k = a->qkv + key_row + k_at;
            b.d_k = a->d_qkv + key_row + k_at;
            b.v = a->qkv + key_row + v_at;
            b.d_v = a->d_qkv + key_row + v_at;
            b.out = a->att + ((first + row) * job->heads + h) * d;
            b.d_out = a->d_att + ((first + row) * job->heads + h) * d;
            b.p = scratch;
            b.d_p = scratch + job->panel;
            block_run(job, &b, n);
        }
}

static void heads_task(void *ctx, size_t begin, size_t end, int worker)
{
    const attention_job *job = (const attention_job *)ctx;
    float *scratch = job->a->scratch + (size_t)worker * 2 * job->panel;
    for (size_t item = begin; item < end; item++)
        head_run(job, item / job->kv_heads, item % job->kv_heads, scratch);
}

/* ---- rotation and head norms ---- */

/* y = R x is undone by the transpose of R: pairs are turned back; its factor stays. */
static void rotate_back(float *d, const float *cos, const float *sin, size_t half)
{
    for (size_t i = 0; i < half; i++) {
        float a = d[i], b = d[i + half];
        d[i] = a * cos[i] + b * sin[i];
        d[i + half] = b * cos[i] - a * sin[i];
    }
}

static void rotate_task(void *ctx, size_t begin, size_t end, int worker)
{
    const attention_job *job = (const attention_job *)ctx;
    const sfq_exec *e = job->e;
    size_t half = e->widths.half;
    (void)worker;
    for (size_t t = begin; t < end; t++)
        for (size_t h = 0; h < job->heads + job->kv_heads; h++)
            rotate_back(job->a->d_qkv + t * job->ld + h * job->d, e->cos + t * half,
                        e->sin + t * half, half);
}

/* Heads [first, first + count) of d_qkv, in place. */
static void norm_heads(sfq_exec *e, const attention_job *job, const sfq_norm *norm, size_t first,
                       size_t count, const sfq_norm_grad *into)
{
    const sfq_attention_grad_args *a = job->a;
    for (size_t h = first; norm->gain && h < first + count; h++) {
        float *d = a->d_qkv + h * job->d;
        const sfq_norm_grad_args args = {.norm = norm,
                                         .rms = true,
                                         .eps = e->net->arch->norm_eps,
                                         .x = a->qkv_raw + h * job->d,
                                         .d_y = d,
                                         .d_x = d,
                                         .ldx = job->ld,
                                         .ld_dy = job->ld,
                                         .ld_dx = job->ld,
                                         .t = a->batch->offset[a->batch->sequences],
                                         .c = job->d,
                                         .into = into,
                                         .scratch = a->scratch};
        sfq_norm_grad_run(e, &args);
    }
}

static size_t panel_floats(size_t longest)
{
    return BLOCK * sfq_round_up(longest, 16);
}

size_t sfq_attention_grad_floats(const sfq_net *net, int threads, size_t tokens, size_t longest)
{
    size_t norms =
        net->arch->qk_norm ? sfq_norm_grad_floats(tokens, (size_t)net->arch->head_dim) : 0;
    return sfq_max_size((size_t)threads * 2 * panel_floats(longest), norms);
}

void sfq_attention_grad(sfq_exec *e, const sfq_attention_grad_args *a)
{
    const sfq_layer_weights *w = &e->net->layer[a->layer];
    const sfq_layer_arch *arch = &e->net->arch->layer[a->layer];
    attention_job job = {.e = e,
                         .a = a,
                         .arch = arch,
                         .d = (size_t)e->net->arch->head_dim,
                         .heads = (size_t)arch->heads,
                         .kv_heads = (size_t)arch->kv_heads};
    size_t t = a->batch->offset[a->batch->sequences], longest = 0;
    job.ld = (job.heads + 2 * job.kv_heads) * job.d;
    for (size_t s = 0; s < a->batch->sequences; s++)
        longest = sfq_max_size(longest, a->batch->offset[s + 1] - a->batch->offset[s]);
    job.panel = panel_floats(longest);
    size_t group = job.heads / job.kv_heads;
    sfq_exec_uneven(e, a->batch->sequences * job.kv_heads, 5 * group * longest * longest * job.d, 1,
                    heads_task, &job);
    if (arch->rope)
        sfq_exec_rows(e, t, 4 * job.ld, rotate_task, &job);
    norm_heads(e, &job, &w->q_norm, 0, job.heads, a->into ? &a->into->q_norm : NULL);
    norm_heads(e, &job, &w->k_norm, job.heads, job.kv_heads, a->into ? &a->into->k_norm : NULL);
}

/* model/exec.h - the inside of sfq_exec and what the files of the forward pass share. Inside
 * src/model only. */
#ifndef SFQ_MODEL_EXEC_H
#define SFQ_MODEL_EXEC_H

#include "model/forward.h"

/* What a kernel of one worker may use. */
#define SFQ_WORKER_SCRATCH \
    (SFQ_QGEMM_SCRATCH > SFQ_ATTN_SCRATCH ? SFQ_QGEMM_SCRATCH : SFQ_ATTN_SCRATCH)

/* The widest of each per-layer dimension: what scratch for one token takes. */
typedef struct sfq_exec_widths {
    size_t qkv;      /* (heads + 2 kv_heads) * D */
    size_t att;      /* heads * D, at least C */
    size_t ffn;      /* F, twice when gated */
    size_t half;     /* rope_dims / 2 */
    size_t k_padded; /* inputs of packed matrices */
    size_t segments;
} sfq_exec_widths;

struct sfq_exec {
    const sfq_net *net;
    const sfq_kernels *kernels;
    sfq_pool *pool;
    size_t threads;
    sfq_exec_widths widths;
    float inv_freq[SFQ_MAX_HEAD_DIM / 2];
    float rope_factor;
    sfq_dtype kv;            /* how keys and values are kept */
    bool free_order;         /* sums may depend on how many rows there are */
    bool cached;             /* the last pass was one with KV caches */
    size_t pass_tokens;      /* of the pass at hand, whose products may have fewer rows; else 0 */
    uint8_t *worker_scratch; /* [threads, SFQ_WORKER_SCRATCH] */
    size_t capacity;         /* tokens that `memory` holds */
    void *memory;            /* everything below */
    float *x;                /* [T, C] residual stream, at last the hidden states */
    float *h;                /* [T, C] normed input, output of a sublayer */
    float *qkv;              /* [T, (H + 2 KV) D] of the layer at hand */
    float *att;              /* [T, H D] */
    float *ffn;              /* [T, F or 2F] gate | up */
    float *cos, *sin;        /* [T, rope_dims/2] */
    int16_t *codes;          /* [T, k_padded] quantized activations */
    float *a_scales;         /* [T, segments] */
    int32_t *a_sums;         /* [T, segments] */
    uint32_t *position;      /* [T] in its sequence */
    uint32_t *sequence;      /* [T] */
};

sfq_exec_widths sfq_exec_measure(const sfq_net *net);
/* Takes count * width * size bytes, rounded to 64, from a block of memory that is filled up to *at:
 * its place in *offset. False on overflow. */
bool sfq_exec_carve(size_t *at, size_t count, size_t width, size_t size, size_t *offset);
/* Scratch for `tokens` tokens. MEMORY, LIMIT; exec stays usable. */
sfq_status sfq_exec_reserve(sfq_exec *e, size_t tokens, sfq_error *err);

/* fn on rows 0..n-1; on the pool where the work pays for waking it. work: about the multiply-adds
 * of one row. */
void sfq_exec_rows(sfq_exec *e, size_t n, size_t work, sfq_task_fn fn, void *ctx);
/* The same for rows of uneven work, handed out `grain` at a time. */
void sfq_exec_uneven(sfq_exec *e, size_t n, size_t work, size_t grain, sfq_task_fn fn, void *ctx);

/* ---- linear.c ---- */

typedef struct sfq_linear {
    const sfq_matrix *w; /* [N, K] */
    float *y;            /* [M, ldy] */
    size_t ldy;
    bool activated; /* y = act(y); packed matrices only */
    sfq_activation act;
} sfq_linear;

enum { SFQ_LINEAR_MAX = 3 };

/* What makes rows [begin, end) of an input; work: about the multiply-adds of a row. */
typedef struct sfq_row_step {
    sfq_task_fn fn;
    void *ctx;
    size_t work;
} sfq_row_step;

/* y = x W^T + bias for up to three matrices that read the same x [m, ldx]: quantized once, one pass
 * over the pool. A matrix with k = 0 gives its bias. */
void sfq_linear_run(sfq_exec *e, const sfq_linear *parts, size_t count, const float *x, size_t ldx,
                    size_t m);
/* The same for an x that `before` (NULL: nothing) makes: in the pass that quantizes it, where there
 * is one. */
void sfq_linear_run_after(sfq_exec *e, const sfq_linear *parts, size_t count, const float *x,
                          size_t ldx, size_t m, const sfq_row_step *before);

/* ---- attention.c ---- */

/* From the normed input x [T, C], which `before` makes, to the output before the residual sum, both
 * in h's place. */
void sfq_attention_run(sfq_exec *e, const sfq_batch *batch, int layer, const float *x, float *out,
                       const sfq_row_step *before, const sfq_block_save *save);

/* ---- block.c ---- */

/* Rows that go on behind the attention of a layer: all tokens, or the last of each sequence. */
size_t sfq_block_rows(const sfq_exec *e, const sfq_batch *batch, int layer);
/* x [T, n]: where fewer go on, their rows to the front. */
void sfq_block_keep(const sfq_exec *e, const sfq_batch *batch, int layer, float *x, size_t n);

/* x += h where add; copied to sum where that is not NULL; then dst = norm(x) where norm is there
 * and has a gain (dst may be x). Rows [0, t) of C. */
typedef struct sfq_residual {
    float *x; /* [T, C] */
    bool add;
    float *sum; /* [T, C] or NULL */
    const sfq_norm *norm;
    float *dst; /* [T, C] */
} sfq_residual;

/* One layer on x [T, C]. *rest is what is still due to x before it, and then behind it: the caller
 * does the last one (pre-norm: the sum alone; ffn_sum of save, which is x behind it, is the
 * caller's to fill). */
void sfq_block_run(sfq_exec *e, const sfq_batch *batch, int layer, float *x, sfq_residual *rest,
                   const sfq_block_save *save);

void sfq_residual_norm(sfq_exec *e, size_t t, const sfq_residual *r);

/* dst [T, n] = the first n of each row of src [T, ld]; dst NULL: nothing. */
void sfq_save_rows(float *dst, const float *src, size_t t, size_t n, size_t ld);

/* ---- kv.c ---- */

/* Where one KV head's keys and values are, as sfq_attn_args has them (blocked). */
typedef struct sfq_kv_head {
    uint8_t *k, *v;
    float *k_scale, *v_scale; /* I8 */
} sfq_kv_head;

sfq_kv_head sfq_kv_at(const sfq_kv *kv, int layer, size_t head);
/* Keeps k and v [D] of position `at`; they become what is read back. */
void sfq_kv_put(const sfq_kv *kv, const sfq_kernels *kernels, int layer, size_t head, size_t at,
                float *k, float *v);
/* Room for the partial results [spans, D+2] of one query of head `head`; capacity beyond a span. */
float *sfq_kv_parts(const sfq_kv *kv, int layers, size_t head);
void sfq_kv_advance(sfq_kv *kv, size_t count);

/* ---- forward.c ---- */

/* A batch without caches: checks it, makes room, sets position, sequence, cos and sin. */
sfq_status sfq_forward_open(sfq_exec *exec, const sfq_batch *batch, sfq_error *err);
/* Sums of the tables' rows into x [T, C], normed or not. */
void sfq_embed_batch(sfq_exec *e, const sfq_batch *batch, float *x, bool normed);

#endif

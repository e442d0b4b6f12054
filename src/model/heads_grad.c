/* model/heads_grad.c - backward of heads.c: from the gradient of logits, labels or embeddings to
 * that of the hidden states. Rows are gathered as the forward pass gathers them; their number at a
 * time is the batch's, so that sums do not depend on what was computed before. */
#include "model/grad_parts.h"

#include "base/ck.h"

#include <math.h>
#include <string.h>

static sfq_status check_head(const sfq_grad *g, bool there, const char *what, sfq_error *err)
{
    if (!g->batch)
        return sfq_fail(err, SFQ_E_ARGUMENT, "backward without a forward pass before it");
    if (!there)
        return sfq_fail(err, SFQ_E_UNSUPPORTED, "%s has no %s", g->net->arch->architecture, what);
    return SFQ_OK;
}

static const float *final_hidden(const sfq_grad *g)
{
    return sfq_grad_hidden(g, g->net->arch->layers);
}

/* d_x [m, C] = d_y W and what `into` wants of w; rows of both without gaps. */
static void head_matrix(sfq_grad *g, const sfq_matrix *w, const float *x, const float *d_y,
                        float *d_x, size_t m, const sfq_matrix_grad *into)
{
    const sfq_linear_grad_args args = {.w = w,
                                       .x = x,
                                       .ldx = w->k,
                                       .d_y = d_y,
                                       .ld_dy = w->n,
                                       .d_x = d_x,
                                       .ld_dx = w->k,
                                       .t = m,
                                       .into = into,
                                       .scratch = g->scratch};
    sfq_linear_grad(g->exec, &args);
}

sfq_status sfq_grad_logits(sfq_grad *grad, const size_t *rows, size_t count, const float *d_logits,
                           float *d_hidden, const sfq_net_grad *into, sfq_error *err)
{
    const sfq_arch *arch = grad->net->arch;
    size_t c = (size_t)arch->hidden, v = (size_t)arch->vocab, m;
    SFQ_TRY(check_head(grad, arch->head == SFQ_MODEL_HEAD_LM, "language model head", err));
    const float *hidden = final_hidden(grad);
    for (size_t done = 0; done < count; done += m) {
        m = sfq_min_size(count - done, grad->t);
        for (size_t i = 0; i < m; i++)
            memcpy(grad->in + i * c, hidden + rows[done + i] * c, c * sizeof(float));
        head_matrix(grad, &grad->net->lm_head, grad->in, d_logits + done * v, grad->work, m,
                    into ? &into->lm_head : NULL);
        for (size_t i = 0; i < m; i++)
            grad->exec->kernels->add(d_hidden + rows[done + i] * c, grad->work + i * c, c);
    }
    return SFQ_OK;
}

sfq_status sfq_grad_labels(sfq_grad *grad, const float *d_labels, float *d_hidden,
                           const sfq_net_grad *into, sfq_error *err)
{
    const sfq_net *net = grad->net;
    size_t c = (size_t)net->arch->hidden;
    sfq_activation act = net->arch->pooler_tanh ? SFQ_ACT_TANH : SFQ_ACT_RELU;
    SFQ_TRY(check_head(grad, net->classifier.n > 0, "classifier", err));
    const sfq_batch *b = grad->batch;
    size_t m = b->sequences; /* at most the tokens: no sequence is empty */
    float *pre = grad->attn_sum, *pooled = grad->ffn_in, *d_pooled = grad->d_act;
    for (size_t i = 0; i < m; i++)
        memcpy(grad->in + i * c, final_hidden(grad) + b->offset[i] * c, c * sizeof(float));
    const sfq_linear pooler = {.w = &net->pooler, .y = pre, .ldy = c};
    sfq_linear_run(grad->exec, &pooler, 1, grad->in, c, m);
    memcpy(pooled, pre, m * c * sizeof(float));
    grad->exec->kernels->act(act, pooled, m * c);
    head_matrix(grad, &net->classifier, pooled, d_labels, d_pooled, m,
                into ? &into->classifier : NULL);
    sfq_act_grad(act, d_pooled, pre, m * c);
    head_matrix(grad, &net->pooler, grad->in, d_pooled, grad->work, m, into ? &into->pooler : NULL);
    for (size_t i = 0; i < m; i++)
        grad->exec->kernels->add(d_hidden + b->offset[i] * c, grad->work + i * c, c);
    return SFQ_OK;
}

/* y = m / |m| of a mean m: d_m = (d_y - y (y . d_y)) / |m|, in place. */
static void unit_grad(float *d, const float *mean, size_t c)
{
    double squares = 0, product = 0;
    for (size_t i = 0; i < c; i++) {
        squares += (double)mean[i] * (double)mean[i];
        product += (double)mean[i] * (double)d[i];
    }
    double norm = sqrt(squares), bounded = norm > 1e-12 ? norm : 1e-12; /* as the forward pass */
    double along = norm > 1e-12 ? product / squares : 0;
    for (size_t i = 0; i < c; i++)
        d[i] = (float)(((double)d[i] - (double)mean[i] * along) / bounded);
}

sfq_status sfq_grad_embedding(sfq_grad *grad, const float *d_out, float *d_hidden, sfq_error *err)
{
    const sfq_arch *arch = grad->net->arch;
    size_t c = (size_t)arch->hidden;
    SFQ_TRY(check_head(grad, arch->head == SFQ_MODEL_HEAD_EMBEDDING,
                       "embedding (it has a head of another kind)", err));
    const sfq_batch *b = grad->batch;
    float *mean = grad->in, *d = grad->work; /* [C] */
    for (size_t s = 0; s < b->sequences; s++) {
        float n = (float)(b->offset[s + 1] - b->offset[s]);
        memcpy(d, d_out + s * c, c * sizeof(float));
        memset(mean, 0, c * sizeof(float));
        for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++)
            grad->exec->kernels->add(mean, final_hidden(grad) + t * c, c);
        for (size_t i = 0; i < c; i++)
            mean[i] /= n;
        if (arch->normalize_embedding)
            unit_grad(d, mean, c);
        for (size_t i = 0; i < c; i++)
            d[i] /= n;
        for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++)
            grad->exec->kernels->add(d_hidden + t * c, d, c);
    }
    return SFQ_OK;
}

/* model/heads.c - from hidden states to what a model is asked for: logits, labels, an embedding.
 * Rows are gathered into the scratch of the pass, as many at a time as it holds. */
#include "model/exec.h"

#include "base/ck.h"

#include <math.h>
#include <string.h>

static sfq_status sfq_head_missing(const sfq_exec *e, const char *what, sfq_error *err)
{
    return sfq_fail(err, SFQ_E_UNSUPPORTED, "%s has no %s", e->net->arch->architecture, what);
}

sfq_status sfq_forward_logits(sfq_exec *exec, const float *hidden, const size_t *rows, size_t count,
                              float *logits, sfq_error *err)
{
    const sfq_net *net = exec->net;
    size_t c = (size_t)net->arch->hidden, v = (size_t)net->arch->vocab;
    if (net->arch->head != SFQ_MODEL_HEAD_LM)
        return sfq_head_missing(exec, "language model head", err);
    SFQ_TRY(sfq_exec_reserve(exec, 1, err));
    for (size_t done = 0; done < count;) {
        size_t m = sfq_min_size(count - done, exec->capacity);
        for (size_t i = 0; i < m; i++)
            memcpy(exec->h + i * c, hidden + rows[done + i] * c, c * sizeof(float));
        const sfq_linear head = {.w = &net->lm_head, .y = logits + done * v, .ldy = v};
        sfq_linear_run(exec, &head, 1, exec->h, c, m);
        done += m;
    }
    return SFQ_OK;
}

sfq_status sfq_forward_labels(sfq_exec *exec, const sfq_batch *batch, const float *hidden,
                              float *out, sfq_error *err)
{
    const sfq_net *net = exec->net;
    size_t c = (size_t)net->arch->hidden, labels = (size_t)net->arch->labels;
    sfq_activation act = net->arch->pooler_tanh ? SFQ_ACT_TANH : SFQ_ACT_RELU;
    if (net->classifier.n == 0)
        return sfq_head_missing(exec, "classifier", err);
    SFQ_TRY(sfq_exec_reserve(exec, 1, err));
    for (size_t done = 0; done < batch->sequences;) {
        size_t m = sfq_min_size(batch->sequences - done, exec->capacity);
        for (size_t i = 0; i < m; i++)
            memcpy(exec->h + i * c, hidden + batch->offset[done + i] * c, c * sizeof(float));
        const sfq_linear pooler = {.w = &net->pooler, .y = exec->att, .ldy = c};
        const sfq_linear classifier = {
            .w = &net->classifier, .y = out + done * labels, .ldy = labels};
        sfq_linear_run(exec, &pooler, 1, exec->h, c, m);
        for (size_t i = 0; i < m; i++)
            exec->kernels->act(act, exec->att + i * c, c);
        sfq_linear_run(exec, &classifier, 1, exec->att, c, m);
        done += m;
    }
    return SFQ_OK;
}

sfq_status sfq_forward_embedding(sfq_exec *exec, const sfq_batch *batch, const float *hidden,
                                 float *out, sfq_error *err)
{
    const sfq_arch *arch = exec->net->arch;
    size_t c = (size_t)arch->hidden;
    if (arch->head != SFQ_MODEL_HEAD_EMBEDDING)
        return sfq_head_missing(exec, "embedding (it has a head of another kind)", err);
    for (size_t s = 0; s < batch->sequences; s++) {
        float *y = out + s * c;
        size_t begin = batch->offset[s], end = batch->offset[s + 1];
        memset(y, 0, c * sizeof(float));
        for (size_t t = begin; t < end; t++)
            exec->kernels->add(y, hidden + t * c, c);
        double squares = 0;
        for (size_t i = 0; i < c; i++) {
            y[i] /= (float)(end - begin);
            squares += (double)y[i] * (double)y[i];
        }
        double norm = sqrt(squares);
        for (size_t i = 0; arch->normalize_embedding && i < c; i++)
            y[i] = (float)((double)y[i] / (norm > 1e-12 ? norm : 1e-12));
    }
    return SFQ_OK;
}

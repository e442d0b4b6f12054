/* runtime/classify.c - a head's outputs for any number of texts, batch by batch. */
#include "runtime/classify.h"

#include "base/hooks.h"
#include "base/mem.h"
#include "runtime/batch.h"

#include <math.h>

typedef struct sfq_head_pass {
    sfq_engine *engine;
    const sfq_hooks *hooks;
    float *out; /* [count, width] */
    size_t width, count;
    bool labels; /* else embeddings */
} sfq_head_pass;

/* Weights with a NaN give answers that are none. */
static sfq_status check_finite(const sfq_head_pass *p, const float *x, size_t first, size_t n,
                               sfq_error *err)
{
    for (size_t i = 0; i < n * p->width; i++)
        if (!isfinite(x[i]))
            return sfq_fail_at(err, SFQ_E_NUMERIC, p->engine->path, NULL,
                               "%s: the answer to input %zu is not a finite number; `sfq inspect "
                               "--verify` looks for the tensor",
                               p->engine->path, first + i / p->width + 1);
    return SFQ_OK;
}

static sfq_status run_batch(void *ud, const sfq_batch *batch, size_t first, sfq_error *err)
{
    const sfq_head_pass *p = ud;
    const float *hidden = NULL;
    float *out = p->out + first * p->width;
    SFQ_TRY(sfq_forward(p->engine->exec, batch, &hidden, NULL, NULL, err));
    if (p->labels)
        SFQ_TRY(sfq_forward_labels(p->engine->exec, batch, hidden, out, err));
    else
        SFQ_TRY(sfq_forward_embedding(p->engine->exec, batch, hidden, out, err));
    SFQ_TRY(check_finite(p, out, first, batch->sequences, err));
    sfq_hooks_progress(p->hooks, "eval", 1, 1, first + batch->sequences, p->count, "examples");
    return SFQ_OK;
}

static sfq_status run_head(sfq_engine *engine, const sfq_text_pair *inputs, size_t count,
                           size_t max_sequences, bool labels, const sfq_hooks *hooks, float *out,
                           sfq_error *err)
{
    const sfq_arch *arch = engine->arch;
    sfq_head_pass pass = {.engine = engine,
                          .hooks = hooks,
                          .out = out,
                          .width = (size_t)(labels ? arch->labels : arch->hidden),
                          .count = count,
                          .labels = labels};
    return sfq_inputs_each(engine, inputs, count, max_sequences, hooks, run_batch, &pass, err);
}

sfq_status sfq_engine_label_logits(sfq_engine *engine, const sfq_text_pair *inputs, size_t count,
                                   size_t max_sequences, const sfq_hooks *hooks, float *out,
                                   sfq_error *err)
{
    sfq_model_head head = engine->arch->head;
    SFQ_TRY(sfq_engine_need(engine, SFQ_NEED_TOKENIZER, err));
    if (head != SFQ_MODEL_HEAD_CLASSIFIER && head != SFQ_MODEL_HEAD_REGRESSION)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, engine->path, NULL,
                           "%s has no classification or regression head (%s)", engine->path,
                           engine->arch->architecture);
    return run_head(engine, inputs, count, max_sequences, true, hooks, out, err);
}

/* In double, around the largest logit. */
static void softmax(float *x, size_t n)
{
    double largest = (double)x[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        largest = (double)x[i] > largest ? (double)x[i] : largest;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - largest);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(exp((double)x[i] - largest) / sum);
}

sfq_status sfq_engine_classify(sfq_engine *engine, const sfq_text_pair *inputs, size_t count,
                               float *scores, sfq_error *err)
{
    SFQ_TRY(sfq_engine_label_logits(engine, inputs, count, 0, NULL, scores, err));
    size_t labels = (size_t)engine->arch->labels;
    if (engine->arch->head == SFQ_MODEL_HEAD_CLASSIFIER)
        for (size_t i = 0; i < count; i++)
            softmax(scores + i * labels, labels);
    return SFQ_OK;
}

sfq_status sfq_engine_embed(sfq_engine *engine, const sfq_text_pair *inputs, size_t count,
                            size_t max_sequences, const sfq_hooks *hooks, float *out,
                            sfq_error *err)
{
    SFQ_TRY(sfq_engine_need(engine, SFQ_NEED_TOKENIZER, err));
    if (engine->arch->head != SFQ_MODEL_HEAD_EMBEDDING)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, engine->path, NULL,
                           "%s is no embedding model (%s)", engine->path,
                           engine->arch->architecture);
    return run_head(engine, inputs, count, max_sequences, false, hooks, out, err);
}

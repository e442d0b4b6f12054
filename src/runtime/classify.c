/* runtime/classify.c - a head's outputs for any number of texts, batch by batch. */
#include "runtime/classify.h"

#include "runtime/compute.h"

static sfq_status run_head(sfq_engine *engine, const sfq_text_pair *inputs, size_t count,
                           size_t max_sequences, sfq_output output, const sfq_hooks *hooks,
                           float *out, sfq_error *err)
{
    bool by_token = false;
    sfq_compute_pass pass = {.engine = engine,
                             .output = output,
                             .stage = "eval",
                             .hooks = hooks,
                             .out = out,
                             .sequences = count};
    SFQ_TRY(sfq_output_columns(engine, output, &pass.columns, &by_token, err));
    return sfq_inputs_each(engine, inputs, count, max_sequences, hooks, sfq_compute_batch, &pass,
                           err);
}

static sfq_status need_labels(const sfq_engine *engine, sfq_error *err)
{
    sfq_model_head head = engine->arch->head;
    SFQ_TRY(sfq_engine_need(engine, SFQ_NEED_TOKENIZER, err));
    if (head != SFQ_MODEL_HEAD_CLASSIFIER && head != SFQ_MODEL_HEAD_REGRESSION)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, engine->path, NULL,
                           "%s has no classification or regression head (%s)", engine->path,
                           engine->arch->architecture);
    return SFQ_OK;
}

sfq_status sfq_engine_label_logits(sfq_engine *engine, const sfq_text_pair *inputs, size_t count,
                                   size_t max_sequences, const sfq_hooks *hooks, float *out,
                                   sfq_error *err)
{
    SFQ_TRY(need_labels(engine, err));
    return run_head(engine, inputs, count, max_sequences, SFQ_OUTPUT_LOGITS, hooks, out, err);
}

sfq_status sfq_engine_classify(sfq_engine *engine, const sfq_text_pair *inputs, size_t count,
                               float *scores, sfq_error *err)
{
    SFQ_TRY(need_labels(engine, err));
    return run_head(engine, inputs, count, 0, SFQ_OUTPUT_SCORES, NULL, scores, err);
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
    return run_head(engine, inputs, count, max_sequences, SFQ_OUTPUT_EMBEDDING, hooks, out, err);
}

/* api/api_session.c - <sfq/session.h>, computing: timelines, generation,
 * classification, vectors. */
#include "api/api.h"
#include "base/mem.h"
#include "runtime/classify.h"
#include "runtime/compute.h"
#include "runtime/generate.h"
#include "runtime/session.h"

/* ---- timelines
 * -------------------------------------------------------------------------------
 */

sfq_status sfq_session_open(sfq_session **out, sfq_model *model, int capacity, sfq_error *err)
{
    SFQ_API_NEED(out);
    *out = NULL;
    SFQ_API_NEED(model);
    return sfq_timeline_open(out, model->engine, capacity, err);
}

void sfq_session_close(sfq_session **session)
{
    sfq_timeline_close(session);
}

uint64_t sfq_session_memory(const sfq_model *model, int capacity)
{
    if (model == NULL || model->engine->arch->head != SFQ_MODEL_HEAD_LM || capacity < 0 ||
        capacity > model->engine->arch->max_positions)
        return 0;
    return sfq_timeline_bytes(model->engine, capacity);
}

sfq_status sfq_session_feed(sfq_session *session, const int32_t *ids, size_t count, sfq_error *err)
{
    SFQ_API_NEED(session);
    if (count > 0)
        SFQ_API_NEED(ids);
    return sfq_timeline_feed(session, ids, count, err);
}

int sfq_session_position(const sfq_session *session)
{
    return session != NULL ? sfq_kv_length(session->kv) : 0;
}

sfq_status sfq_session_rewind(sfq_session *session, int position, sfq_error *err)
{
    SFQ_API_NEED(session);
    return sfq_timeline_rewind(session, position, err);
}

const float *sfq_session_logits(const sfq_session *session)
{
    return session != NULL && session->computed ? session->logits : NULL;
}

void sfq_sampling_default(sfq_sampling *sampling)
{
    if (sampling != NULL)
        *sampling = (sfq_sampling){.struct_size = sizeof(*sampling), .top_p = 1.0f};
}

sfq_status sfq_session_sample(const sfq_session *session, const sfq_sampling *sampling,
                              int32_t *token, sfq_error *err)
{
    SFQ_API_NEED(session);
    SFQ_API_NEED(token);
    sfq_sampling s;
    sfq_sampling_default(&s);
    SFQ_TRY(sfq_api_options(&s, sizeof(s), sampling, sampling != NULL ? sampling->struct_size : 0,
                            "sfq_sampling", err));
    return sfq_timeline_sample(session, &s, token, err);
}

/* ---- text in, text out
 * ----------------------------------------------------------------------- */

void sfq_generate_options_default(sfq_generate_options *options)
{
    if (options == NULL)
        return;
    *options = (sfq_generate_options){.struct_size = sizeof(*options), .max_tokens = 128};
    sfq_sampling_default(&options->sampling);
}

sfq_status sfq_generate(sfq_model *model, const char *prompt, size_t bytes,
                        const sfq_generate_options *options, sfq_generation *out, sfq_error *err)
{
    SFQ_API_NEED(out);
    *out = (sfq_generation){0};
    SFQ_API_NEED(model);
    if (bytes > 0)
        SFQ_API_NEED(prompt);
    sfq_generate_options o;
    sfq_generate_options_default(&o);
    SFQ_TRY(sfq_api_options(&o, sizeof(o), options, options != NULL ? options->struct_size : 0,
                            "sfq_generate_options", err));
    return sfq_engine_generate(model->engine, prompt != NULL ? prompt : "", bytes, &o, out, err);
}

void sfq_generation_clear(sfq_generation *generation)
{
    if (generation == NULL)
        return;
    sfq_mem_free(generation->text);
    sfq_mem_free(generation->tokens);
    *generation = (sfq_generation){0};
}

sfq_status sfq_generator_open(sfq_generator **out, sfq_model *model, const char *prompt,
                              size_t bytes, const sfq_generate_options *options, sfq_error *err)
{
    SFQ_API_NEED(out);
    *out = NULL;
    SFQ_API_NEED(model);
    if (bytes > 0)
        SFQ_API_NEED(prompt);
    sfq_generate_options o;
    sfq_generate_options_default(&o);
    SFQ_TRY(sfq_api_options(&o, sizeof(o), options, options != NULL ? options->struct_size : 0,
                            "sfq_generate_options", err));
    return sfq_engine_generator(out, model->engine, prompt != NULL ? prompt : "", bytes, &o, err);
}

sfq_status sfq_generator_next(sfq_generator *generator, const char **text, size_t *bytes,
                              sfq_error *err)
{
    SFQ_API_NEED(text);
    SFQ_API_NEED(bytes);
    *text = "";
    *bytes = 0;
    SFQ_API_NEED(generator);
    return sfq_generator_step(generator, text, bytes, err);
}

sfq_status sfq_generator_result(const sfq_generator *generator, sfq_generation *out, sfq_error *err)
{
    SFQ_API_NEED(out);
    *out = (sfq_generation){0};
    SFQ_API_NEED(generator);
    sfq_status status = sfq_generator_copy(generator, out, err);
    if (status != SFQ_OK)
        sfq_generation_clear(out);
    return status;
}

void sfq_generator_close(sfq_generator **generator)
{
    sfq_generator_free(generator);
}

/* ---- labels and vectors
 * ---------------------------------------------------------------------- */

static sfq_status check_inputs(const sfq_text_pair *inputs, size_t count, sfq_error *err)
{
    if (count > 0)
        SFQ_API_NEED(inputs);
    for (size_t i = 0; i < count; i++)
        if ((inputs[i].text == NULL && inputs[i].text_bytes > 0) ||
            (inputs[i].pair == NULL && inputs[i].pair_bytes > 0))
            return sfq_fail(err, SFQ_E_ARGUMENT, "input %zu has a length but no text", i + 1);
    return SFQ_OK;
}

sfq_status sfq_classify(sfq_model *model, const sfq_text_pair *inputs, size_t count, float *scores,
                        sfq_error *err)
{
    SFQ_API_NEED(model);
    SFQ_API_NEED(scores);
    SFQ_TRY(check_inputs(inputs, count, err));
    return sfq_engine_classify(model->engine, inputs, count, scores, err);
}

sfq_status sfq_embed(sfq_model *model, const sfq_text_pair *inputs, size_t count, float *vectors,
                     sfq_error *err)
{
    SFQ_API_NEED(model);
    SFQ_API_NEED(vectors);
    SFQ_TRY(check_inputs(inputs, count, err));
    return sfq_engine_embed(model->engine, inputs, count, 0, NULL, vectors, err);
}

/* ---- tokens ---- */

sfq_status sfq_encode(const sfq_model *model, const sfq_text_pair *inputs, size_t count,
                      sfq_tokens *out, sfq_error *err)
{
    sfq_sequences made = {0};
    SFQ_API_NEED(out);
    *out = (sfq_tokens){0};
    SFQ_API_NEED(model);
    SFQ_TRY(check_inputs(inputs, count, err));
    SFQ_TRY(sfq_engine_need(model->engine, SFQ_NEED_TOKENIZER, err));
    sfq_status status = sfq_inputs_encode(model->engine, inputs, count, &made, err);
    if (status == SFQ_OK)
        *out = (sfq_tokens){made.count, made.offset, made.ids, made.types};
    else
        sfq_sequences_free(&made);
    return status;
}

void sfq_tokens_clear(sfq_tokens *tokens)
{
    if (tokens == NULL)
        return;
    sfq_mem_free((void *)(uintptr_t)tokens->offset);
    sfq_mem_free((void *)(uintptr_t)tokens->ids);
    sfq_mem_free((void *)(uintptr_t)tokens->types);
    *tokens = (sfq_tokens){0};
}

sfq_status sfq_compute_shape(const sfq_model *model, const sfq_tokens *tokens, sfq_output output,
                             size_t *rows, size_t *columns, sfq_error *err)
{
    SFQ_API_NEED(model);
    SFQ_API_NEED(tokens);
    SFQ_API_NEED(rows);
    SFQ_API_NEED(columns);
    return sfq_engine_compute_shape(model->engine, tokens, output, rows, columns, err);
}

sfq_status sfq_compute(sfq_model *model, const sfq_tokens *tokens, sfq_output output,
                       const sfq_hooks *hooks, float *out, sfq_error *err)
{
    SFQ_API_NEED(model);
    SFQ_API_NEED(tokens);
    if (tokens->count > 0)
        SFQ_API_NEED(out);
    return sfq_engine_compute(model->engine, tokens, output, hooks, out, err);
}

/* runtime/generate.c - the loop of prompt, sample, show, feed, turned inside out: a generator gives
 * the next piece of text when it is asked. It ends at an end token of the model, at a stop text, at
 * the length asked for, at the end of the timeline, or when the caller's on_text says so. */
#include "runtime/generate.h"

#include "base/clock.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "runtime/session.h"
#include "runtime/stream.h"

#include <string.h>

struct sfq_generator {
    sfq_engine *engine;
    sfq_generate_options o;
    sfq_encoding prompt;
    sfq_session *session;
    sfq_stream stream;
    int32_t *tokens; /* [limit] */
    size_t count, limit;
    bool due;           /* the last token is still to be fed */
    bool drained;       /* the stream has given its rest */
    const char *finish; /* NULL: goes on */
    double prefill_seconds, decode_seconds;
};

static sfq_status check_options(const sfq_generate_options *o, sfq_error *err)
{
    if (o->max_tokens < 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "max_tokens %d is negative", o->max_tokens);
    if (o->capacity < 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "capacity %d is negative", o->capacity);
    if (o->stop_count > 0 && o->stop == NULL)
        return sfq_fail(err, SFQ_E_ARGUMENT, "stop_count is set, stop is NULL");
    if (o->prompt_count > 0 && o->prompt_ids == NULL)
        return sfq_fail(err, SFQ_E_ARGUMENT, "prompt_count is set, prompt_ids is NULL");
    return sfq_sampling_check(&o->sampling, err);
}

/* count tokens as the prompt. */
static sfq_status take_prompt(sfq_generator *g, const int32_t *ids, size_t count, sfq_error *err)
{
    sfq_encoding_clear(&g->prompt);
    g->prompt.ids = SFQ_NEW_ARRAY(int32_t, count);
    if (g->prompt.ids == NULL)
        return sfq_fail_memory(err, count * sizeof(int32_t), "prompt");
    memcpy(g->prompt.ids, ids, count * sizeof(*ids));
    g->prompt.count = count;
    return SFQ_OK;
}

static sfq_status encode_prompt(sfq_generator *g, const char *prompt, size_t bytes, sfq_error *err)
{
    const sfq_arch *arch = g->engine->arch;
    if (g->o.prompt_count > 0)
        return take_prompt(g, g->o.prompt_ids, g->o.prompt_count, err);
    SFQ_TRY(sfq_tokenizer_encode(g->engine->tokenizer, prompt, bytes, NULL, 0, true, 0, &g->prompt,
                                 err));
    if (g->prompt.count > 0)
        return SFQ_OK;
    if (arch->bos < 0)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "the prompt is empty and the model has no "
                        "begin-of-text token to start from");
    const int32_t bos = arch->bos;
    return take_prompt(g, &bos, 1, err);
}

/* The timeline holds the prompt and all answers but the last token, which is never fed. */
static sfq_status open_timeline(sfq_generator *g, sfq_error *err)
{
    size_t positions = (size_t)g->engine->arch->max_positions;
    size_t capacity = (size_t)g->o.capacity;
    if (capacity == 0) {
        capacity = g->prompt.count + (size_t)g->o.max_tokens;
        capacity = capacity < positions ? capacity : positions;
    }
    if (g->prompt.count > capacity)
        return sfq_fail(err, SFQ_E_LIMIT,
                        "the prompt has %zu tokens, room is for %zu; give a shorter one",
                        g->prompt.count, capacity);
    size_t room = capacity - g->prompt.count + 1;
    g->limit = (size_t)g->o.max_tokens < room ? (size_t)g->o.max_tokens : room;
    SFQ_TRY(sfq_timeline_open(&g->session, g->engine, (int)capacity, err));
    g->tokens = SFQ_NEW_ARRAY(int32_t, g->limit);
    if (g->tokens == NULL)
        return sfq_fail_memory(err, g->limit * sizeof(*g->tokens), "generated tokens");
    return sfq_stream_open(&g->stream, g->engine->tokenizer, g->prompt.ids, g->prompt.count,
                           g->limit, g->o.stop, g->o.stop_count, err);
}

static bool is_end(const sfq_generator *g, int32_t token)
{
    const sfq_arch *arch = g->engine->arch;
    for (int i = 0; i < arch->eos_count; i++)
        if (arch->eos[i] == token)
            return !g->o.ignore_eos;
    return false;
}

/* Samples one token; *piece is what it makes certain. g->finish is set when it is the last. */
static sfq_status step(sfq_generator *g, const char **piece, size_t *bytes, sfq_error *err)
{
    int32_t token = 0;
    if (g->due)
        SFQ_TRY(sfq_timeline_feed(g->session, &g->tokens[g->count - 1], 1, err));
    g->due = false;
    SFQ_TRY(sfq_timeline_sample(g->session, &g->o.sampling, &token, err));
    if (is_end(g, token)) {
        g->finish = "stop";
        return SFQ_OK;
    }
    g->tokens[g->count++] = token;
    SFQ_TRY(sfq_stream_add(&g->stream, token, piece, bytes, err));
    if (g->stream.stopped)
        g->finish = "text";
    else if (g->count == g->limit)
        g->finish = "length";
    else
        g->due = true;
    return SFQ_OK;
}

static sfq_status next_piece(sfq_generator *g, const char **piece, size_t *bytes, sfq_error *err)
{
    while (g->finish == NULL && *bytes == 0) {
        SFQ_TRY(sfq_hooks_check(&g->o.hooks, err));
        SFQ_TRY(step(g, piece, bytes, err));
        sfq_hooks_progress(&g->o.hooks, "generate", 1, 1, g->count, g->limit, "tokens");
    }
    if (*bytes > 0 || g->drained)
        return SFQ_OK;
    SFQ_TRY(sfq_stream_finish(&g->stream, piece, bytes, err));
    g->drained = true;
    if (g->stream.stopped)
        g->finish = "text";
    return SFQ_OK;
}

sfq_status sfq_generator_step(sfq_generator *g, const char **piece, size_t *bytes, sfq_error *err)
{
    double begin = sfq_clock_seconds();
    *bytes = 0;
    sfq_status status = next_piece(g, piece, bytes, err);
    g->decode_seconds += sfq_clock_seconds() - begin;
    return status;
}

static sfq_status read_prompt(sfq_generator *g, sfq_error *err)
{
    double begin = sfq_clock_seconds();
    SFQ_TRY(sfq_timeline_feed_hooks(g->session, g->prompt.ids, g->prompt.count, &g->o.hooks, err));
    g->prefill_seconds = sfq_clock_seconds() - begin;
    g->finish = g->limit == 0 ? "length" : NULL;
    return SFQ_OK;
}

sfq_status sfq_engine_generator(sfq_generator **out, sfq_engine *engine, const char *prompt,
                                size_t bytes, const sfq_generate_options *options, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    *out = NULL;
    SFQ_TRY(sfq_engine_need(engine, SFQ_NEED_TOKENIZER | SFQ_NEED_LM, err));
    SFQ_TRY(check_options(options, err));
    sfq_generator *g = SFQ_NEW(sfq_generator);
    if (g == NULL)
        return sfq_fail_memory(err, sizeof(*g), "generator");
    g->engine = engine;
    g->o = *options;
    SFQ_DO(encode_prompt(g, prompt, bytes, err));
    SFQ_DO(open_timeline(g, err));
    SFQ_DO(read_prompt(g, err));
    *out = g;
    g = NULL;
done:
    sfq_generator_free(&g);
    return status;
}

void sfq_generator_free(sfq_generator **generator)
{
    if (generator == NULL || *generator == NULL)
        return;
    sfq_generator *g = *generator;
    sfq_stream_close(&g->stream);
    sfq_timeline_close(&g->session);
    sfq_encoding_clear(&g->prompt);
    sfq_mem_free(g->tokens);
    sfq_mem_free(g);
    *generator = NULL;
}

/* The answer is what was shown: nothing less, and after a cancellation nothing more. */
sfq_status sfq_generator_copy(const sfq_generator *g, sfq_generation *out, sfq_error *err)
{
    size_t shown = g->stream.shown;
    *out = (sfq_generation){.prompt_tokens = g->prompt.count,
                            .finish = g->finish != NULL && g->drained ? g->finish : "cancelled",
                            .prefill_seconds = g->prefill_seconds,
                            .decode_seconds = g->decode_seconds};
    out->text = sfq_mem_strndup(g->stream.text.data != NULL ? g->stream.text.data : "", shown);
    if (out->text == NULL)
        return sfq_fail_memory(err, shown, "generated text");
    out->text_bytes = shown;
    out->tokens = SFQ_NEW_ARRAY(int32_t, g->count);
    if (out->tokens == NULL)
        return sfq_fail_memory(err, g->count * sizeof(*out->tokens), "generated tokens");
    if (g->count > 0)
        memcpy(out->tokens, g->tokens, g->count * sizeof(*out->tokens));
    out->token_count = g->count;
    return SFQ_OK;
}

sfq_status sfq_engine_generate(sfq_engine *engine, const char *prompt, size_t bytes,
                               const sfq_generate_options *options, sfq_generation *out,
                               sfq_error *err)
{
    sfq_generator *g = NULL;
    sfq_status status = SFQ_OK;
    const char *piece = NULL;
    size_t shown = 0;
    bool more = true;
    *out = (sfq_generation){0};
    SFQ_DO(sfq_engine_generator(&g, engine, prompt, bytes, options, err));
    while (more) {
        SFQ_DO(sfq_generator_step(g, &piece, &shown, err));
        more = shown > 0;
        if (more && options->on_text != NULL &&
            !options->on_text(options->on_text_ud, piece, shown))
            break;
    }
    SFQ_DO(sfq_generator_copy(g, out, err));
    if (more)
        out->finish = "cancelled";
done:
    sfq_generator_free(&g);
    if (status != SFQ_OK) {
        sfq_mem_free(out->text);
        sfq_mem_free(out->tokens);
        *out = (sfq_generation){0};
    }
    return status;
}

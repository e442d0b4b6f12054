/* runtime/generate.c - the loop of prompt, sample, feed, show. It ends at an end token of the
 * model, at a stop text, at the length asked for, at the end of the timeline, or when the caller's
 * on_text says so. */
#include "runtime/generate.h"

#include "base/clock.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "runtime/session.h"
#include "runtime/stream.h"

#include <string.h>

typedef struct sfq_generating {
    sfq_engine *engine;
    const sfq_generate_options *o;
    sfq_encoding prompt;
    sfq_session *session;
    sfq_stream stream;
    int32_t *tokens; /* [limit] */
    size_t count, limit;
    const char *finish;
    double prefill_seconds, decode_seconds;
} sfq_generating;

static sfq_status check_options(const sfq_generate_options *o, sfq_error *err)
{
    if (o->max_tokens < 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "max_tokens %d is negative", o->max_tokens);
    if (o->capacity < 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "capacity %d is negative", o->capacity);
    if (o->stop_count > 0 && o->stop == NULL)
        return sfq_fail(err, SFQ_E_ARGUMENT, "stop_count is set, stop is NULL");
    return sfq_sampling_check(&o->sampling, err);
}

static sfq_status encode_prompt(sfq_generating *g, const char *prompt, size_t bytes, sfq_error *err)
{
    const sfq_arch *arch = g->engine->arch;
    SFQ_TRY(sfq_tokenizer_encode(g->engine->tokenizer, prompt, bytes, NULL, 0, true, 0, &g->prompt,
                                 err));
    if (g->prompt.count > 0)
        return SFQ_OK;
    if (arch->bos < 0)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "the prompt is empty and the model has no "
                        "begin-of-text token to start from");
    sfq_encoding_clear(&g->prompt);
    g->prompt.ids = SFQ_NEW(int32_t);
    if (g->prompt.ids == NULL)
        return sfq_fail_memory(err, sizeof(int32_t), "prompt");
    g->prompt.ids[0] = arch->bos;
    g->prompt.count = 1;
    return SFQ_OK;
}

/* The timeline holds the prompt and all answers but the last token, which is never fed. */
static sfq_status open_timeline(sfq_generating *g, sfq_error *err)
{
    size_t positions = (size_t)g->engine->arch->max_positions;
    size_t capacity = (size_t)g->o->capacity;
    if (capacity == 0) {
        capacity = g->prompt.count + (size_t)g->o->max_tokens;
        capacity = capacity < positions ? capacity : positions;
    }
    if (g->prompt.count > capacity)
        return sfq_fail(err, SFQ_E_LIMIT,
                        "the prompt has %zu tokens, room is for %zu; give a shorter one",
                        g->prompt.count, capacity);
    size_t room = capacity - g->prompt.count + 1;
    g->limit = (size_t)g->o->max_tokens < room ? (size_t)g->o->max_tokens : room;
    SFQ_TRY(sfq_timeline_open(&g->session, g->engine, (int)capacity, err));
    g->tokens = SFQ_NEW_ARRAY(int32_t, g->limit);
    if (g->tokens == NULL)
        return sfq_fail_memory(err, g->limit * sizeof(*g->tokens), "generated tokens");
    return sfq_stream_open(&g->stream, g->engine->tokenizer, g->prompt.ids, g->prompt.count,
                           g->limit, g->o->stop, g->o->stop_count, err);
}

static bool is_end(const sfq_generating *g, int32_t token)
{
    const sfq_arch *arch = g->engine->arch;
    for (int i = 0; i < arch->eos_count; i++)
        if (arch->eos[i] == token)
            return !g->o->ignore_eos;
    return false;
}

static bool deliver(const sfq_generating *g, const char *piece, size_t bytes)
{
    return bytes == 0 || g->o->on_text == NULL || g->o->on_text(g->o->on_text_ud, piece, bytes);
}

/* Samples one token and shows what it makes certain; g->finish is set when it is the last. */
static sfq_status step(sfq_generating *g, sfq_error *err)
{
    int32_t token = 0;
    const char *piece = NULL;
    size_t bytes = 0;
    SFQ_TRY(sfq_timeline_sample(g->session, &g->o->sampling, &token, err));
    if (is_end(g, token)) {
        g->finish = "stop";
        return SFQ_OK;
    }
    g->tokens[g->count++] = token;
    SFQ_TRY(sfq_stream_add(&g->stream, token, &piece, &bytes, err));
    if (!deliver(g, piece, bytes))
        g->finish = "cancelled";
    else if (g->stream.stopped)
        g->finish = "text";
    else if (g->count == g->limit)
        g->finish = "length";
    else
        SFQ_TRY(sfq_timeline_feed(g->session, &token, 1, err));
    return SFQ_OK;
}

static sfq_status run(sfq_generating *g, sfq_error *err)
{
    const char *piece = NULL;
    size_t bytes = 0;
    double begin = sfq_clock_seconds();
    SFQ_TRY(sfq_timeline_feed_hooks(g->session, g->prompt.ids, g->prompt.count, &g->o->hooks, err));
    double middle = sfq_clock_seconds();
    g->prefill_seconds = middle - begin;
    g->finish = g->limit == 0 ? "length" : NULL;
    while (g->finish == NULL) {
        SFQ_TRY(sfq_hooks_check(&g->o->hooks, err));
        SFQ_TRY(step(g, err));
        sfq_hooks_progress(&g->o->hooks, "generate", 1, 1, g->count, g->limit, "tokens");
    }
    g->decode_seconds = sfq_clock_seconds() - middle;
    if (strcmp(g->finish, "cancelled") == 0)
        return SFQ_OK;
    SFQ_TRY(sfq_stream_finish(&g->stream, &piece, &bytes, err));
    if (!deliver(g, piece, bytes))
        g->finish = "cancelled";
    else if (g->stream.stopped)
        g->finish = "text";
    return SFQ_OK;
}

/* The answer is what was shown: nothing less, and after a cancellation nothing more. */
static sfq_status hand_over(sfq_generating *g, sfq_generation *out, sfq_error *err)
{
    out->text =
        sfq_mem_strndup(g->stream.text.data != NULL ? g->stream.text.data : "", g->stream.shown);
    if (out->text == NULL)
        return sfq_fail_memory(err, g->stream.shown, "generated text");
    out->text_bytes = g->stream.shown;
    out->tokens = g->tokens;
    out->token_count = g->count;
    out->prompt_tokens = g->prompt.count;
    out->finish = g->finish;
    out->prefill_seconds = g->prefill_seconds;
    out->decode_seconds = g->decode_seconds;
    g->tokens = NULL;
    return SFQ_OK;
}

sfq_status sfq_engine_generate(sfq_engine *engine, const char *prompt, size_t bytes,
                               const sfq_generate_options *options, sfq_generation *out,
                               sfq_error *err)
{
    sfq_generating g = {.engine = engine, .o = options};
    sfq_status status = SFQ_OK;
    *out = (sfq_generation){0};
    SFQ_DO(sfq_engine_need(engine, SFQ_NEED_TOKENIZER | SFQ_NEED_LM, err));
    SFQ_DO(check_options(options, err));
    SFQ_DO(encode_prompt(&g, prompt, bytes, err));
    SFQ_DO(open_timeline(&g, err));
    SFQ_DO(run(&g, err));
    SFQ_DO(hand_over(&g, out, err));
done:
    sfq_stream_close(&g.stream);
    sfq_timeline_close(&g.session);
    sfq_encoding_clear(&g.prompt);
    sfq_mem_free(g.tokens);
    return status;
}

/* runtime/session.c - feeding a timeline. A prompt goes through in pieces of bounded size; the pass
 * guarantees that the cut does not show in the result. A call that fails leaves the timeline where
 * it was. */
#include "runtime/session.h"

#include "base/ck.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "runtime/batch.h"

static const int DEFAULT_CAPACITY = 2048;

static int resolve_capacity(const sfq_engine *engine, int capacity)
{
    int positions = engine->arch->max_positions;
    if (capacity == 0)
        capacity = positions < DEFAULT_CAPACITY ? positions : DEFAULT_CAPACITY;
    return capacity;
}

uint64_t sfq_timeline_bytes(const sfq_engine *engine, int capacity)
{
    capacity = resolve_capacity(engine, capacity);
    uint64_t piece = SFQ_PREFILL_TOKENS;
    uint64_t tokens = (uint64_t)capacity < piece ? (uint64_t)capacity : piece;
    uint64_t logits = (uint64_t)engine->arch->vocab * (sizeof(float) + sizeof(sfq_candidate));
    uint64_t bytes = sfq_cap_add(sfq_kv_bytes(engine->arch, engine->kv, capacity), logits);
    if (engine->net == NULL)
        return bytes;
    int threads = sfq_pool_threads(engine->pool);
    return sfq_cap_add(bytes, sfq_exec_bytes(engine->net, threads, (size_t)tokens));
}

sfq_status sfq_timeline_open(sfq_session **out, sfq_engine *engine, int capacity, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    *out = NULL;
    SFQ_TRY(sfq_engine_need(engine, SFQ_NEED_LM, err));
    if (capacity < 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "capacity %d is negative", capacity);
    capacity = resolve_capacity(engine, capacity);
    if (capacity > engine->arch->max_positions)
        return sfq_fail(err, SFQ_E_LIMIT, "capacity %d is beyond the model's %d positions",
                        capacity, engine->arch->max_positions);
    SFQ_TRY(
        sfq_engine_need_memory(engine, sfq_timeline_bytes(engine, capacity), "the session", err));
    size_t vocab = (size_t)engine->arch->vocab;
    sfq_session *s = SFQ_NEW(sfq_session);
    if (s == NULL)
        return sfq_fail_memory(err, sizeof(*s), "session");
    s->engine = engine;
    s->logits = SFQ_NEW_ARRAY(float, vocab);
    s->scratch = SFQ_NEW_ARRAY(sfq_candidate, vocab);
    if (s->logits == NULL || s->scratch == NULL) {
        status = sfq_fail_memory(err, vocab * (sizeof(float) + sizeof(sfq_candidate)), "logits");
        goto done;
    }
    SFQ_DO(sfq_kv_open(&s->kv, engine->arch, engine->kv, capacity, err));
    *out = s;
    s = NULL;
done:
    sfq_timeline_close(&s);
    return status;
}

void sfq_timeline_close(sfq_session **session)
{
    if (session == NULL || *session == NULL)
        return;
    sfq_kv_close(&(*session)->kv);
    sfq_mem_free((*session)->logits);
    sfq_mem_free((*session)->scratch);
    sfq_mem_free(*session);
    *session = NULL;
}

/* One piece; logits of its last token where asked. */
static sfq_status feed_piece(sfq_session *s, const int32_t *ids, size_t count, bool logits,
                             sfq_error *err)
{
    const size_t offset[2] = {0, count}, row = 0;
    const float *hidden = NULL;
    sfq_batch batch = {
        .sequences = 1, .offset = offset, .ids = ids, .kv = &s->kv, .last_only = true};
    SFQ_TRY(sfq_forward(s->engine->exec, &batch, &hidden, NULL, NULL, err));
    if (!logits)
        return SFQ_OK;
    return sfq_forward_logits(s->engine->exec, hidden, &row, 1, s->logits, err);
}

sfq_status sfq_timeline_feed_hooks(sfq_session *s, const int32_t *ids, size_t count,
                                   const sfq_hooks *hooks, sfq_error *err)
{
    int before = sfq_kv_length(s->kv);
    size_t room = (size_t)(sfq_kv_capacity(s->kv) - before);
    sfq_status status = SFQ_OK;
    if (count == 0)
        return SFQ_OK;
    if (count > room)
        return sfq_fail(err, SFQ_E_LIMIT, "%zu tokens do not fit: %zu of %d positions are free",
                        count, room, sfq_kv_capacity(s->kv));
    for (size_t at = 0; at < count && status == SFQ_OK; at += SFQ_PREFILL_TOKENS) {
        size_t rest = count - at;
        size_t piece = rest < SFQ_PREFILL_TOKENS ? rest : SFQ_PREFILL_TOKENS;
        status = sfq_hooks_check(hooks, err);
        if (status == SFQ_OK)
            status = feed_piece(s, ids + at, piece, piece == rest, err);
    }
    if (status == SFQ_OK)
        s->computed = true;
    else
        sfq_kv_truncate(s->kv, before); /* the last step writes the logits: they are as before */
    return status;
}

sfq_status sfq_timeline_feed(sfq_session *s, const int32_t *ids, size_t count, sfq_error *err)
{
    return sfq_timeline_feed_hooks(s, ids, count, NULL, err);
}

sfq_status sfq_timeline_rewind(sfq_session *s, int position, sfq_error *err)
{
    if (position < 0 || position > sfq_kv_length(s->kv))
        return sfq_fail(err, SFQ_E_ARGUMENT, "position %d is outside 0..%d", position,
                        sfq_kv_length(s->kv));
    if (position < sfq_kv_length(s->kv))
        s->computed = false;
    sfq_kv_truncate(s->kv, position);
    return SFQ_OK;
}

sfq_status sfq_timeline_sample(const sfq_session *s, const sfq_sampling *sampling, int32_t *token,
                               sfq_error *err)
{
    if (!s->computed)
        return sfq_fail(err, SFQ_E_ARGUMENT, "no logits: feed a token before sampling");
    SFQ_TRY(sfq_sampling_check(sampling, err));
    return sfq_sample(s->logits, (size_t)s->engine->arch->vocab, sampling, sfq_kv_length(s->kv),
                      s->scratch, token, err);
}

/* runtime/session.h - one timeline of a language model: the KV cache, the logits after the last
 * token, and the sampler's scratch. All memory is taken at open; a step takes none. */
#ifndef SFQ_RUNTIME_SESSION_H
#define SFQ_RUNTIME_SESSION_H

#include "runtime/engine.h"
#include "runtime/sampler.h"

struct sfq_session {
    sfq_engine *engine;
    sfq_kv *kv;
    float *logits;          /* [V] */
    sfq_candidate *scratch; /* [V] */
    bool computed;          /* logits belong to the last token */
};

/* capacity as sfq_session_open. */
sfq_status sfq_timeline_open(sfq_session **out, sfq_engine *engine, int capacity, sfq_error *err);
void sfq_timeline_close(sfq_session **session);
uint64_t sfq_timeline_bytes(const sfq_engine *engine, int capacity);
sfq_status sfq_timeline_feed(sfq_session *session, const int32_t *ids, size_t count,
                             sfq_error *err);
/* The same, asking the hooks between pieces of a long prompt. */
sfq_status sfq_timeline_feed_hooks(sfq_session *session, const int32_t *ids, size_t count,
                                   const sfq_hooks *hooks, sfq_error *err);
sfq_status sfq_timeline_rewind(sfq_session *session, int position, sfq_error *err);
sfq_status sfq_timeline_sample(const sfq_session *session, const sfq_sampling *sampling,
                               int32_t *token, sfq_error *err);

#endif

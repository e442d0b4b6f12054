/* runtime/eval_text.c - perplexity by the protocol of DESIGN.md section 7. Each file is one string,
 * tokenized once without special tokens. Chunks of C-1 tokens follow a begin-of-text token, so each
 * of them is scored; models without one take chunks of C tokens and the first is not scored. A last
 * chunk of fewer than 2 tokens is left out.
 *
 * Every scored token's figures are kept and summed in the order of the text, in double: neither
 * batch nor threads can change the result. */
#include "base/ck.h"
#include "base/file.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "runtime/batch.h"
#include "runtime/compare.h"
#include "runtime/eval_parts.h"

#include <math.h>
#include <string.h>

#define MAX_TEXT_BYTES ((size_t)1 << 32)
enum { LOGIT_BLOCK_BYTES = 16 << 20 };
static const int DEFAULT_CONTEXT = 2048;

typedef struct sfq_text_eval {
    sfq_engine *engine, *against;
    const sfq_eval_options *o;
    size_t context, batch; /* tokens per chunk, chunks per batch */
    bool bos;
    uint64_t limit; /* of scored tokens */
    sfq_sequences pending;
    size_t *rows;     /* scored positions of the batch */
    int32_t *targets; /* and the tokens that they must predict */
    size_t row_count, row_capacity;
    size_t block;              /* rows per block of logits */
    float *logits, *reference; /* [block, V] */
    double *nll, *kl;          /* [scored] */
    unsigned char *same;
    size_t scored, queued, capacity;
    uint64_t total; /* tokens that will be scored, for progress */
} sfq_text_eval;

/* ---- memory ---------------------------------------------------------------------------------- */

static sfq_status grow_rows(sfq_text_eval *e, size_t need, sfq_error *err)
{
    if (need <= e->row_capacity)
        return SFQ_OK;
    size_t *rows = sfq_mem_resize(e->rows, need, sizeof(*rows));
    if (rows == NULL)
        return sfq_fail_memory(err, need * sizeof(*rows), "scored positions");
    e->rows = rows;
    int32_t *targets = sfq_mem_resize(e->targets, need, sizeof(*targets));
    if (targets == NULL)
        return sfq_fail_memory(err, need * sizeof(*targets), "scored positions");
    e->targets = targets;
    e->row_capacity = need;
    return SFQ_OK;
}

static sfq_status grow_scores(sfq_text_eval *e, size_t more, sfq_error *err)
{
    size_t need = 0;
    if (!sfq_ck_add(e->scored, more, &need))
        return sfq_fail(err, SFQ_E_LIMIT, "too many tokens");
    if (need <= e->capacity)
        return SFQ_OK;
    need = sfq_max_size(need, 2 * e->capacity);
    double *nll = sfq_mem_resize(e->nll, need, sizeof(*nll));
    if (nll == NULL)
        return sfq_fail_memory(err, need * sizeof(*nll), "scores");
    e->nll = nll;
    double *kl = sfq_mem_resize(e->kl, need, sizeof(*kl));
    if (kl == NULL)
        return sfq_fail_memory(err, need * sizeof(*kl), "scores");
    e->kl = kl;
    unsigned char *same = sfq_mem_resize(e->same, need, 1);
    if (same == NULL)
        return sfq_fail_memory(err, need, "scores");
    e->same = same;
    e->capacity = need;
    return SFQ_OK;
}

static void close_eval(sfq_text_eval *e)
{
    sfq_sequences_free(&e->pending);
    sfq_mem_free(e->rows);
    sfq_mem_free(e->targets);
    sfq_mem_free(e->logits);
    sfq_mem_free(e->reference);
    sfq_mem_free(e->nll);
    sfq_mem_free(e->kl);
    sfq_mem_free(e->same);
}

/* ---- one batch ------------------------------------------------------------------------------- */

typedef struct sfq_score_block {
    sfq_text_eval *e;
    size_t first; /* row of the batch that the block begins with */
} sfq_score_block;

static void score_rows(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_score_block *b = ctx;
    const sfq_text_eval *e = b->e;
    size_t vocab = (size_t)e->engine->arch->vocab;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        const float *row = e->logits + i * vocab;
        size_t at = e->scored + b->first + i;
        e->nll[at] = sfq_log_sum_exp(row, vocab) - (double)row[e->targets[b->first + i]];
        e->kl[at] = 0;
        e->same[at] = 1;
        if (e->against == NULL)
            continue;
        const float *reference = e->reference + i * vocab;
        e->kl[at] = sfq_kl_divergence(reference, row, vocab);
        e->same[at] = sfq_argmax(reference, vocab) == sfq_argmax(row, vocab);
    }
}

static sfq_status score_batch(sfq_text_eval *e, const float *hidden, const float *reference,
                              sfq_error *err)
{
    for (size_t at = 0; at < e->row_count; at += e->block) {
        size_t n = sfq_min_size(e->block, e->row_count - at);
        SFQ_TRY(sfq_forward_logits(e->engine->exec, hidden, e->rows + at, n, e->logits, err));
        if (e->against != NULL)
            SFQ_TRY(sfq_forward_logits(e->against->exec, reference, e->rows + at, n, e->reference,
                                       err));
        sfq_score_block block = {.e = e, .first = at};
        sfq_pool_run(e->engine->pool, n, 1, score_rows, &block);
    }
    return SFQ_OK;
}

static sfq_status flush(sfq_text_eval *e, sfq_error *err)
{
    const float *hidden = NULL, *reference = NULL;
    if (e->row_count == 0)
        return SFQ_OK;
    SFQ_TRY(sfq_hooks_check(&e->o->hooks, err));
    sfq_batch batch = sfq_sequences_batch(&e->pending);
    SFQ_TRY(grow_scores(e, e->row_count, err));
    SFQ_TRY(sfq_forward(e->engine->exec, &batch, &hidden, NULL, NULL, err));
    if (e->against != NULL)
        SFQ_TRY(sfq_forward(e->against->exec, &batch, &reference, NULL, NULL, err));
    SFQ_TRY(score_batch(e, hidden, reference, err));
    e->scored += e->row_count;
    e->row_count = 0;
    sfq_sequences_clear(&e->pending);
    sfq_hooks_progress(&e->o->hooks, "eval", 1, 1, e->scored, e->total, "tokens");
    return SFQ_OK;
}

/* ---- chunks ---------------------------------------------------------------------------------- */

/* n tokens of the text as one sequence: `first` and up scored tokens ahead of it. */
static sfq_status add_chunk(sfq_text_eval *e, const int32_t *ids, size_t n, sfq_error *err)
{
    size_t base = sfq_sequences_tokens(&e->pending), lead = e->bos ? 1 : 0;
    size_t scored = n + lead - 1;
    SFQ_TRY(grow_rows(e, e->row_count + scored, err));
    int32_t *joined = SFQ_NEW_ARRAY(int32_t, n + lead);
    if (joined == NULL)
        return sfq_fail_memory(err, (n + lead) * sizeof(*joined), "chunk");
    if (e->bos)
        joined[0] = e->engine->arch->bos;
    memcpy(joined + lead, ids, n * sizeof(*ids));
    sfq_status status = sfq_sequences_add(&e->pending, joined, NULL, n + lead, err);
    for (size_t i = 0; status == SFQ_OK && i < scored; i++) {
        e->rows[e->row_count] = base + i;
        e->targets[e->row_count++] = joined[i + 1];
    }
    sfq_mem_free(joined);
    e->queued += status == SFQ_OK ? scored : 0;
    return status;
}

static sfq_status add_text(sfq_text_eval *e, const int32_t *ids, size_t count, sfq_error *err)
{
    size_t step = e->context - (e->bos ? 1 : 0);
    size_t unscored = e->bos ? 0 : 1;
    for (size_t at = 0; at < count && e->queued < e->limit; at += step) {
        size_t n = sfq_min_size(step, count - at);
        if (n < 2 && n < step)
            break;
        uint64_t left = e->limit - e->queued;
        if (n - unscored > left)
            n = (size_t)left + unscored;
        if (e->pending.count >= e->batch)
            SFQ_TRY(flush(e, err));
        SFQ_TRY(add_chunk(e, ids + at, n, err));
    }
    return SFQ_OK;
}

/* ---- files ----------------------------------------------------------------------------------- */

static sfq_status check_same_tokens(const sfq_text_eval *e, const sfq_buf *text,
                                    const sfq_encoding *mine, sfq_error *err)
{
    sfq_encoding other = {0};
    SFQ_TRY(sfq_tokenizer_encode(e->against->tokenizer, text->data, text->len, NULL, 0, false, 0,
                                 &other, err));
    bool same = other.count == mine->count &&
                memcmp(other.ids, mine->ids, mine->count * sizeof(*mine->ids)) == 0;
    sfq_encoding_clear(&other);
    if (same)
        return SFQ_OK;
    return sfq_fail(err, SFQ_E_ARGUMENT, "%s and %s tokenize the text differently", e->engine->path,
                    e->against->path);
}

static sfq_status encode_file(const sfq_text_eval *e, const char *path, sfq_encoding *out,
                              sfq_error *err)
{
    sfq_buf text = SFQ_BUF_INIT(MAX_TEXT_BYTES);
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_file_read(&text, path, MAX_TEXT_BYTES, err));
    size_t good = text.len > 0 ? sfq_utf8_valid_prefix(text.data, text.len) : 0;
    if (good < text.len) {
        status =
            sfq_fail_at(err, SFQ_E_DATA, path, NULL, "%s: invalid UTF-8 at byte %zu", path, good);
        goto done;
    }
    SFQ_DO(sfq_tokenizer_encode(e->engine->tokenizer, text.len > 0 ? text.data : "", text.len, NULL,
                                0, false, 0, out, err));
    if (out->count < 2) {
        status = sfq_fail_at(err, SFQ_E_DATA, path, NULL, "%s: %zu tokens, at least 2 are needed",
                             path, out->count);
        goto done;
    }
    if (e->against != NULL)
        SFQ_DO(check_same_tokens(e, &text, out, err));
done:
    sfq_buf_free(&text);
    return status;
}

/* ---- the evaluation -------------------------------------------------------------------------- */

static sfq_status open_eval(sfq_text_eval *e, sfq_error *err)
{
    const sfq_arch *arch = e->engine->arch;
    int positions = arch->max_positions;
    if (e->against != NULL && e->against->arch->max_positions < positions)
        positions = e->against->arch->max_positions;
    int context = e->o->context;
    if (context == 0)
        context = positions < DEFAULT_CONTEXT ? positions : DEFAULT_CONTEXT;
    if (context < 2 || context > positions)
        return sfq_fail(err, SFQ_E_LIMIT, "a context of %d tokens is outside 2..%d", context,
                        positions);
    e->context = (size_t)context;
    e->bos = arch->bos >= 0 && arch->bos < arch->vocab;
    e->limit = e->o->max_tokens > 0 ? e->o->max_tokens : UINT64_MAX;
    e->batch = (size_t)e->o->batch;
    if (e->batch == 0)
        e->batch = sfq_max_size(1, SFQ_BATCH_TOKENS / e->context);
    size_t vocab = (size_t)arch->vocab;
    e->block = sfq_max_size(1, LOGIT_BLOCK_BYTES / (vocab * sizeof(float)));
    e->logits = SFQ_NEW_ARRAY(float, e->block *vocab);
    e->reference = SFQ_NEW_ARRAY(float, e->against != NULL ? e->block * vocab : 1);
    if (e->logits == NULL || e->reference == NULL)
        return sfq_fail_memory(err, e->block * vocab * sizeof(float), "logits");
    uint64_t scratch =
        sfq_exec_bytes(e->engine->net, sfq_pool_threads(e->engine->pool), e->batch * e->context);
    return sfq_engine_need_memory(e->engine, sfq_cap_mul(scratch, e->against != NULL ? 2 : 1),
                                  "a batch of this size", err);
}

static sfq_status summarize(sfq_text_eval *e, sfq_eval_result *out, sfq_error *err)
{
    double sum = 0;
    for (size_t i = 0; i < e->scored; i++)
        sum += e->nll[i];
    double nll = sum / (double)e->scored;
    if (!isfinite(nll))
        return sfq_fail_at(
            err, SFQ_E_NUMERIC, e->engine->path, NULL,
            "%s: the loss is not a finite number; `sfq inspect --verify` looks for the "
            "tensor",
            e->engine->path);
    out->metric = "perplexity";
    out->nll = nll;
    out->perplexity = exp(nll);
    out->value = out->perplexity;
    out->tokens = e->scored;
    if (e->against != NULL)
        return sfq_compare_finish(e->kl, e->same, e->scored, out, err);
    return SFQ_OK;
}

sfq_status sfq_eval_texts(sfq_engine *engine, sfq_engine *against, const sfq_eval_options *options,
                          sfq_eval_result *out, sfq_error *err)
{
    sfq_text_eval e = {.engine = engine, .against = against, .o = options};
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_engine_need(engine, SFQ_NEED_TOKENIZER | SFQ_NEED_LM, err));
    SFQ_DO(open_eval(&e, err));
    for (size_t i = 0; i < options->text_count && e.queued < e.limit; i++) {
        sfq_encoding encoding = {0};
        status = encode_file(&e, options->text_files[i], &encoding, err);
        e.total += encoding.count;
        if (e.total > e.limit)
            e.total = e.limit;
        if (status == SFQ_OK)
            status = add_text(&e, encoding.ids, encoding.count, err);
        sfq_encoding_clear(&encoding);
        if (status != SFQ_OK)
            goto done;
    }
    SFQ_DO(flush(&e, err));
    SFQ_DO(summarize(&e, out, err));
done:
    close_eval(&e);
    return status;
}

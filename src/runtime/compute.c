/* runtime/compute.c - see compute.h. A batch is a view of the caller's tokens with offsets of its
 * own; nothing is copied but those. */
#include "runtime/compute.h"

#include "base/ck.h"
#include "base/hooks.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

/* ---- outputs --------------------------------------------------------------------------------- */

static bool has_output(const sfq_engine *e, sfq_output output)
{
    sfq_model_head head = e->arch->head;
    switch (output) {
    case SFQ_OUTPUT_HIDDEN:
        return true;
    case SFQ_OUTPUT_LOGITS:
        return head != SFQ_MODEL_HEAD_EMBEDDING;
    case SFQ_OUTPUT_LAST:
        return head == SFQ_MODEL_HEAD_LM;
    case SFQ_OUTPUT_SCORES:
        return head == SFQ_MODEL_HEAD_CLASSIFIER || head == SFQ_MODEL_HEAD_REGRESSION;
    case SFQ_OUTPUT_EMBEDDING:
        return head == SFQ_MODEL_HEAD_EMBEDDING;
    }
    return false;
}

sfq_status sfq_output_columns(const sfq_engine *e, sfq_output output, size_t *columns,
                              bool *by_token, sfq_error *err)
{
    static const char *const names[] = {"hidden states", "logits", "next-token logits",
                                        "label scores", "text embeddings"};
    bool lm = e->arch->head == SFQ_MODEL_HEAD_LM;
    if ((unsigned)output >= sizeof names / sizeof *names)
        return sfq_fail(err, SFQ_E_ARGUMENT, "output %d is none of sfq_output", (int)output);
    if (!has_output(e, output))
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, e->path, NULL, "%s gives no %s (%s)", e->path,
                           names[output], e->arch->architecture);
    *by_token = output == SFQ_OUTPUT_HIDDEN || (output == SFQ_OUTPUT_LOGITS && lm);
    if (output == SFQ_OUTPUT_HIDDEN || output == SFQ_OUTPUT_EMBEDDING)
        *columns = (size_t)e->arch->hidden;
    else
        *columns = (size_t)(lm ? e->arch->vocab : e->arch->labels);
    return SFQ_OK;
}

/* ---- one batch ------------------------------------------------------------------------------- */

/* Weights with a NaN give answers that are none. */
static sfq_status check_finite(const sfq_compute_pass *p, const float *x, size_t rows, size_t first,
                               sfq_error *err)
{
    for (size_t i = 0; i < rows * p->columns; i++)
        if (!isfinite(x[i]))
            return sfq_fail_at(err, SFQ_E_NUMERIC, p->engine->path, NULL,
                               "%s: the answer to input %zu is not a finite number; `sfq inspect "
                               "--verify` looks for the tensor",
                               p->engine->path, first + i / p->columns + 1);
    return SFQ_OK;
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

/* The sequence of the batch that token t belongs to. */
static size_t sequence_of(const sfq_batch *batch, size_t t)
{
    size_t s = 0;
    while (batch->offset[s + 1] <= t)
        s++;
    return s;
}

/* Logits of every token, or of the last one of each sequence. */
static sfq_status lm_rows(sfq_compute_pass *p, const sfq_batch *batch, const float *hidden,
                          size_t first, sfq_error *err)
{
    enum { BLOCK = 256 };
    const size_t tokens = batch->offset[batch->sequences];
    size_t rows[BLOCK], total = batch->last_only ? batch->sequences : tokens;
    for (size_t at = 0; at < total; at += BLOCK) {
        size_t n = sfq_min_size(BLOCK, total - at);
        float *out = p->out + p->row * p->columns;
        for (size_t i = 0; i < n; i++)
            rows[i] = at + i;
        SFQ_TRY(sfq_hooks_check(p->hooks, err));
        SFQ_TRY(sfq_forward_logits(p->engine->exec, hidden, rows, n, out, err));
        for (size_t i = 0; i < n; i++) {
            const size_t s = batch->last_only ? rows[i] : sequence_of(batch, rows[i]);
            SFQ_TRY(check_finite(p, out + i * p->columns, 1, first + s, err));
        }
        p->row += n;
    }
    return SFQ_OK;
}

static sfq_status hidden_rows(sfq_compute_pass *p, const sfq_batch *batch, const float *hidden,
                              size_t first, sfq_error *err)
{
    size_t c = p->columns, tokens = batch->offset[batch->sequences];
    for (size_t t = 0; t < tokens; t++)
        SFQ_TRY(check_finite(p, hidden + t * c, 1, first + sequence_of(batch, t), err));
    memcpy(p->out + p->row * c, hidden, tokens * c * sizeof(*hidden));
    p->row += tokens;
    return SFQ_OK;
}

static sfq_status sequence_rows(sfq_compute_pass *p, const sfq_batch *batch, const float *hidden,
                                size_t first, sfq_error *err)
{
    sfq_exec *exec = p->engine->exec;
    float *out = p->out + p->row * p->columns;
    if (p->output == SFQ_OUTPUT_EMBEDDING)
        SFQ_TRY(sfq_forward_embedding(exec, batch, hidden, out, err));
    else
        SFQ_TRY(sfq_forward_labels(exec, batch, hidden, out, err));
    SFQ_TRY(check_finite(p, out, batch->sequences, first, err));
    if (p->output == SFQ_OUTPUT_SCORES && p->engine->arch->head == SFQ_MODEL_HEAD_CLASSIFIER)
        for (size_t i = 0; i < batch->sequences; i++)
            softmax(out + i * p->columns, p->columns);
    p->row += batch->sequences;
    return SFQ_OK;
}

sfq_status sfq_compute_batch(void *ud, const sfq_batch *given, size_t first, sfq_error *err)
{
    sfq_compute_pass *p = ud;
    const float *hidden = NULL;
    sfq_batch batch = *given;
    batch.last_only = p->output == SFQ_OUTPUT_LAST;
    SFQ_TRY(sfq_forward(p->engine->exec, &batch, &hidden, NULL, NULL, err));
    if (p->output == SFQ_OUTPUT_HIDDEN)
        SFQ_TRY(hidden_rows(p, &batch, hidden, first, err));
    else if (p->engine->arch->head == SFQ_MODEL_HEAD_LM)
        SFQ_TRY(lm_rows(p, &batch, hidden, first, err));
    else
        SFQ_TRY(sequence_rows(p, &batch, hidden, first, err));
    sfq_hooks_progress(p->hooks, p->stage, 1, 1, first + batch.sequences, p->sequences, "examples");
    return SFQ_OK;
}

/* ---- token ids ------------------------------------------------------------------------------- */

static sfq_status check_tokens(const sfq_engine *e, const sfq_tokens *t, sfq_error *err)
{
    size_t positions = (size_t)e->arch->max_positions;
    if (t->count == 0)
        return SFQ_OK;
    if (t->offset == NULL || t->ids == NULL)
        return sfq_fail(err, SFQ_E_ARGUMENT, "tokens have sequences but no offset or no ids");
    if (t->offset[0] != 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "the first offset of tokens is %zu, it must be 0",
                        t->offset[0]);
    for (size_t s = 0; s < t->count; s++) {
        if (t->offset[s + 1] <= t->offset[s])
            return sfq_fail(err, SFQ_E_DATA, "input %zu has no tokens", s + 1);
        if (t->offset[s + 1] - t->offset[s] > positions)
            return sfq_fail(err, SFQ_E_LIMIT, "input %zu has %zu tokens, the model %zu positions",
                            s + 1, t->offset[s + 1] - t->offset[s], positions);
    }
    return SFQ_OK;
}

sfq_status sfq_engine_compute_shape(const sfq_engine *e, const sfq_tokens *t, sfq_output output,
                                    size_t *rows, size_t *columns, sfq_error *err)
{
    bool by_token = false;
    size_t total = 0;
    SFQ_TRY(sfq_output_columns(e, output, columns, &by_token, err));
    SFQ_TRY(check_tokens(e, t, err));
    *rows = by_token && t->count > 0 ? t->offset[t->count] : t->count;
    if (!sfq_ck_mul(*rows, *columns, &total) || !sfq_ck_mul(total, sizeof(float), &total))
        return sfq_fail(err, SFQ_E_LIMIT, "%zu x %zu numbers are too many", *rows, *columns);
    return SFQ_OK;
}

/* Sequences [first, end) as a batch; offset is scratch for all of them. */
static sfq_status run_range(sfq_compute_pass *p, const sfq_tokens *t, size_t first, size_t end,
                            size_t *offset, sfq_error *err)
{
    sfq_engine *e = p->engine;
    size_t begin = t->offset[first];
    sfq_batch batch = {.sequences = end - first,
                       .offset = offset,
                       .ids = t->ids + begin,
                       .types = t->types != NULL ? t->types + begin : NULL};
    for (size_t s = first; s <= end; s++)
        offset[s - first] = t->offset[s] - begin;
    uint64_t scratch = sfq_exec_bytes(e->net, sfq_pool_threads(e->pool), offset[batch.sequences]);
    SFQ_TRY(sfq_hooks_check(p->hooks, err));
    SFQ_TRY(sfq_engine_need_memory(e, scratch, "a batch of this size", err));
    return sfq_compute_batch(p, &batch, first, err);
}

sfq_status sfq_engine_compute(sfq_engine *e, const sfq_tokens *t, sfq_output output,
                              const sfq_hooks *hooks, float *out, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    size_t rows = 0;
    sfq_compute_pass pass = {.engine = e,
                             .output = output,
                             .stage = "compute",
                             .hooks = hooks,
                             .out = out,
                             .sequences = t->count};
    SFQ_TRY(sfq_engine_need(e, SFQ_NEED_WEIGHTS, err));
    SFQ_TRY(sfq_engine_compute_shape(e, t, output, &rows, &pass.columns, err));
    size_t *offset = SFQ_NEW_ARRAY(size_t, t->count + 1);
    if (offset == NULL)
        return sfq_fail_memory(err, (t->count + 1) * sizeof(*offset), "offsets of a batch");
    for (size_t first = 0; first < t->count && status == SFQ_OK;) {
        size_t end = first + 1;
        while (end < t->count && t->offset[end + 1] - t->offset[first] <= SFQ_BATCH_TOKENS)
            end++;
        status = run_range(&pass, t, first, end, offset, err);
        first = end;
    }
    sfq_mem_free(offset);
    return status;
}

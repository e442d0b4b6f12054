/* compress/difficulty.c - how sure the original model is of each candidate: what strata are made
 * of. No label is needed. Of a language model's sequence the first quarter stands for the whole:
 * this is a sorting key, and four times as much is looked at as is chosen. */
#include "base/ck.h"
#include "base/mem.h"
#include "compress/calibration_parts.h"

#include <math.h>

enum { BATCH_TOKENS = 2048, BATCH_SEQUENCES = 256, MIN_SCORED = 32, LOGIT_BYTES = 16 << 20 };

typedef struct sfq_difficulty {
    sfq_calib_run *run;
    sfq_exec *exec;
    sfq_token_batch batch;
    size_t width;  /* of a row of logits */
    size_t block;  /* rows at a time */
    float *logits; /* [block, width] */
    size_t *rows;  /* [block] positions in the batch */
    size_t *owner; /* [block] their sequences in the batch */
    double *nll;   /* [block] */
} sfq_difficulty;

/* ---- one row ---- */

static double largest_of(const float *x, size_t n)
{
    float largest = x[0];
    for (size_t i = 1; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    return (double)largest;
}

/* Of softmax(x); sums run in index order. */
static double entropy(const float *x, size_t n)
{
    double largest = largest_of(x, n), sum = 0, weighted = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)x[i] - largest, e = exp(d);
        sum += e;
        weighted += e * d;
    }
    return log(sum) - weighted / sum;
}

static double cross_entropy(const float *x, size_t n, size_t target)
{
    double largest = largest_of(x, n), sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - largest);
    return largest + log(sum) - (double)x[target];
}

static void score_rows(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_difficulty *d = ctx;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        size_t target = (size_t)d->batch.ids[d->rows[i] + 1];
        d->nll[i] = cross_entropy(d->logits + i * d->width, d->width, target);
    }
}

/* ---- one batch: out [sequences of the batch] ---- */

static sfq_status score_labels(const sfq_difficulty *d, const float *hidden, double *out,
                               sfq_error *err)
{
    SFQ_TRY(sfq_forward_labels(d->exec, &d->batch.batch, hidden, d->logits, err));
    for (size_t i = 0; i < d->batch.sequences; i++)
        out[i] = entropy(d->logits + i * d->width, d->width);
    return SFQ_OK;
}

static sfq_status score_block(sfq_difficulty *d, const float *hidden, size_t count, double *out,
                              sfq_error *err)
{
    SFQ_TRY(sfq_forward_logits(d->exec, hidden, d->rows, count, d->logits, err));
    sfq_pool_run(d->run->source->pool, count, 1, score_rows, d);
    for (size_t i = 0; i < count; i++)
        out[d->owner[i]] += d->nll[i];
    return SFQ_OK;
}

/* Every token but the first of each sequence. */
static sfq_status score_tokens(sfq_difficulty *d, const float *hidden, double *out, sfq_error *err)
{
    const size_t *offset = d->batch.offset;
    size_t count = 0;
    for (size_t s = 0; s < d->batch.sequences; s++) {
        out[s] = 0;
        for (size_t t = offset[s]; t + 1 < offset[s + 1]; t++) {
            d->rows[count] = t;
            d->owner[count++] = s;
            if (count < d->block)
                continue;
            SFQ_TRY(score_block(d, hidden, count, out, err));
            count = 0;
        }
    }
    if (count > 0)
        SFQ_TRY(score_block(d, hidden, count, out, err));
    for (size_t s = 0; s < d->batch.sequences; s++) {
        size_t scored = offset[s + 1] - offset[s] - 1;
        out[s] /= (double)(scored > 0 ? scored : 1);
    }
    return SFQ_OK;
}

static sfq_status score_batch(sfq_difficulty *d, double *out, sfq_error *err)
{
    const float *hidden = NULL;
    size_t n = d->batch.sequences;
    bool labels = d->run->source->arch->head == SFQ_MODEL_HEAD_CLASSIFIER;
    if (n == 0)
        return SFQ_OK;
    SFQ_TRY(sfq_forward(d->exec, &d->batch.batch, &hidden, NULL, NULL, err));
    if (labels)
        SFQ_TRY(score_labels(d, hidden, out, err));
    else
        SFQ_TRY(score_tokens(d, hidden, out, err));
    for (size_t i = 0; i < n; i++)
        if (!isfinite(out[i]))
            return sfq_fail_at(err, SFQ_E_NUMERIC, d->run->source->dir, NULL,
                               "%s: the answer to a calibration sequence is not a finite number; "
                               "`sfq inspect --verify` looks for the tensor",
                               d->run->source->dir);
    sfq_token_batch_clear(&d->batch);
    return sfq_calib_progress(d->run, n, err);
}

/* ---- all ---- */

static sfq_status open_scoring(sfq_difficulty *d, sfq_error *err)
{
    const sfq_arch *arch = d->run->source->arch;
    bool labels = arch->head == SFQ_MODEL_HEAD_CLASSIFIER;
    d->width = (size_t)(labels ? arch->labels : arch->vocab);
    d->block = labels ? BATCH_SEQUENCES : LOGIT_BYTES / (d->width * sizeof(float));
    d->block = sfq_max_size(1, sfq_min_size(d->block, BATCH_TOKENS));
    d->logits = SFQ_NEW_ARRAY(float, d->block * d->width);
    d->rows = SFQ_NEW_ARRAY(size_t, d->block);
    d->owner = SFQ_NEW_ARRAY(size_t, d->block);
    d->nll = SFQ_NEW_ARRAY(double, d->block);
    if (d->logits == NULL || d->rows == NULL || d->owner == NULL || d->nll == NULL)
        return sfq_fail_memory(err, d->block * d->width * sizeof(float), "logits");
    return sfq_exec_open(&d->exec, d->run->net, d->run->kernels, d->run->source->pool, err);
}

uint64_t sfq_calib_difficulty_bytes(const sfq_source *source, const sfq_net *net)
{
    const sfq_arch *arch = source->arch;
    bool lm = arch->head == SFQ_MODEL_HEAD_LM;
    uint64_t width = (uint64_t)(lm ? arch->vocab : arch->labels) * sizeof(float);
    uint64_t logits = lm ? LOGIT_BYTES + width : BATCH_SEQUENCES * width;
    uint64_t rows = BATCH_TOKENS * (2 * sizeof(size_t) + sizeof(double) + 3 * sizeof(int32_t));
    size_t longest = sfq_max_size(BATCH_TOKENS, (size_t)arch->max_positions);
    int threads = sfq_pool_threads(source->pool);
    if (!lm && arch->head != SFQ_MODEL_HEAD_CLASSIFIER)
        return 0;
    return sfq_cap_add(rows + logits, sfq_exec_bytes(net, threads, longest));
}

bool sfq_calib_scores(const sfq_calib_run *run)
{
    sfq_model_head head = run->source->arch->head;
    return run->curated && (head == SFQ_MODEL_HEAD_CLASSIFIER || head == SFQ_MODEL_HEAD_LM);
}

sfq_status sfq_calib_difficulty(sfq_calib_run *run, double *out, sfq_error *err)
{
    const sfq_token_batch *all = &run->from.tokens;
    bool lm = run->source->arch->head == SFQ_MODEL_HEAD_LM;
    sfq_difficulty d = {.run = run};
    size_t first = 0;
    sfq_status status = SFQ_OK;
    SFQ_DO(open_scoring(&d, err));
    for (size_t i = 0; i < all->sequences; i++) {
        size_t begin = all->offset[i], n = all->offset[i + 1] - begin;
        if (lm)
            n = sfq_min_size(n, sfq_max_size(MIN_SCORED, n / 4));
        size_t before = d.batch.sequences > 0 ? d.batch.offset[d.batch.sequences] : 0;
        if (d.batch.sequences == BATCH_SEQUENCES || before + n > BATCH_TOKENS) {
            SFQ_DO(score_batch(&d, out + first, err));
            first = i;
            if (sfq_calib_late(run))
                goto done;
        }
        SFQ_DO(sfq_token_batch_add(&d.batch, all->ids + begin,
                                   all->typed ? all->types + begin : NULL, n, err));
    }
    SFQ_DO(score_batch(&d, out + first, err));
done:
    sfq_exec_close(&d.exec);
    sfq_token_batch_free(&d.batch);
    sfq_mem_free(d.logits);
    sfq_mem_free(d.rows);
    sfq_mem_free(d.owner);
    sfq_mem_free(d.nll);
    return status;
}

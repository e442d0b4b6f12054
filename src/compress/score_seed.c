/* compress/score_seed.c - the gradient at the end of the model, at labels of its own. Which label
 * is drawn depends on the seed, the round, and the place in the calibration set alone. */
#include "compress/score_parts.h"

#include "base/ck.h"
#include "base/mem.h"
#include "base/rng.h"

#include <math.h>

enum { LOGIT_FLOATS = 1 << 22, MOST_ROWS = 256 };

#define SEED_STREAM UINT64_C(0x73636f7265000000) /* "score"; + round */

static size_t logit_rows(const sfq_arch *arch)
{
    const size_t rows = LOGIT_FLOATS / (size_t)arch->vocab;
    return sfq_min_size(sfq_max_size(rows, 1), MOST_ROWS);
}

static size_t out_floats(const sfq_arch *arch, size_t sequences)
{
    switch (arch->head) {
    case SFQ_MODEL_HEAD_LM:
        return logit_rows(arch) * (size_t)arch->vocab;
    case SFQ_MODEL_HEAD_EMBEDDING:
        return sequences * (size_t)arch->hidden;
    default:
        return sequences * (size_t)arch->labels;
    }
}

uint64_t sfq_seed_bytes(const sfq_arch *arch, size_t sequences)
{
    return out_floats(arch, sequences) * sizeof(float) + MOST_ROWS * sizeof(size_t) * 2;
}

sfq_status sfq_seed_open(sfq_seed *s, const sfq_work *work, const sfq_net *net, sfq_grad *grad,
                         size_t sequences, int round, sfq_error *err)
{
    const size_t floats = out_floats(net->arch, sequences);
    *s = (sfq_seed){.grad = grad,
                    .net = net,
                    .pool = work->pool,
                    .seed = work->options->seed,
                    .stream = SEED_STREAM + (uint64_t)round,
                    .chunk = net->arch->head == SFQ_MODEL_HEAD_LM ? logit_rows(net->arch) : 0};
    s->out = SFQ_NEW_ARRAY(float, floats);
    s->rows = SFQ_NEW_ARRAY(size_t, s->chunk);
    s->sums = SFQ_NEW_ARRAY(double, s->chunk);
    if (s->out == NULL || s->rows == NULL || s->sums == NULL)
        return sfq_fail_memory(err, floats * sizeof(float), "the gradient of the model's outputs");
    return SFQ_OK;
}

void sfq_seed_close(sfq_seed *s)
{
    sfq_mem_free(s->out);
    sfq_mem_free(s->rows);
    sfq_mem_free(s->sums);
    *s = (sfq_seed){0};
}

/* z [n] becomes its exponentials against the largest; their sum, not finite where z is not. */
static double exponentials(float *z, size_t n)
{
    float top = z[0];
    double sum = 0;
    for (size_t i = 1; i < n; i++)
        top = z[i] > top ? z[i] : top;
    for (size_t i = 0; i < n; i++) {
        z[i] = expf(z[i] - top);
        sum += (double)z[i];
    }
    return sum;
}

/* From exponentials to softmax - onehot of a label drawn with `u` of [0, 1). */
static void draw(float *z, size_t n, double sum, double u)
{
    const double target = u * sum;
    double run = 0;
    size_t pick = 0;
    for (size_t i = 0; i < n; i++) {
        run += (double)z[i];
        if (run > target) {
            pick = i;
            break;
        }
    }
    for (size_t i = 0; i < n; i++)
        z[i] = (float)((double)z[i] / sum);
    z[pick] -= 1;
}

static sfq_status not_finite(const char *what, size_t sequence, sfq_error *err)
{
    return sfq_fail(err, SFQ_E_NUMERIC,
                    "prune: the model's %s are no finite numbers (calibration sequence %zu); the "
                    "weights are damaged, or overflow on this text",
                    what, sequence);
}

/* ---- language models ---- */

typedef struct row_job {
    const sfq_seed *s;
    size_t token; /* of rows[0] in the calibration set */
} row_job;

static void row_task(void *ctx, size_t begin, size_t end, int worker)
{
    const row_job *job = ctx;
    const sfq_seed *s = job->s;
    const size_t v = (size_t)s->net->arch->vocab;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        float *z = s->out + i * v;
        s->sums[i] = exponentials(z, v);
        draw(z, v, s->sums[i], sfq_rng_uniform(s->seed, s->stream, job->token + i));
    }
}

static size_t sequence_of(const sfq_batch *b, size_t token)
{
    size_t s = 0;
    while (b->offset[s + 1] <= token)
        s++;
    return s;
}

static sfq_status seed_tokens(sfq_seed *s, const sfq_seed_batch *b, sfq_error *err)
{
    const size_t t = b->batch->offset[b->batch->sequences];
    for (size_t done = 0; done < t;) {
        const size_t n = sfq_min_size(s->chunk, t - done);
        row_job job = {s, b->token + done};
        for (size_t i = 0; i < n; i++)
            s->rows[i] = done + i;
        SFQ_TRY(sfq_forward_logits(sfq_grad_exec(s->grad), b->hidden, s->rows, n, s->out, err));
        sfq_pool_run(s->pool, n, 1, row_task, &job);
        for (size_t i = 0; i < n; i++)
            if (!isfinite(s->sums[i]))
                return not_finite("logits", b->sequence + sequence_of(b->batch, done + i), err);
        SFQ_TRY(sfq_grad_logits(s->grad, s->rows, n, s->out, b->d_hidden, NULL, err));
        done += n;
    }
    return SFQ_OK;
}

/* ---- encoders ---- */

static bool label_gradient(const sfq_seed *s, float *z, size_t labels, size_t sequence)
{
    const uint64_t at = (uint64_t)sequence;
    if (s->net->arch->head == SFQ_MODEL_HEAD_REGRESSION) {
        bool finite = true;
        for (size_t i = 0; i < labels; i++) {
            finite = finite && isfinite(z[i]);
            z[i] = labels == 1 ? 1.0F : (float)sfq_rng_normal(s->seed, s->stream, at * labels + i);
        }
        return finite;
    }
    const double sum = exponentials(z, labels);
    if (labels == 2) {
        const float both = (float)(sqrt((double)z[0] * (double)z[1]) / sum);
        z[0] = both;
        z[1] = -both;
    } else {
        draw(z, labels, sum, sfq_rng_uniform(s->seed, s->stream, at));
    }
    return isfinite(sum);
}

static sfq_status seed_labels(sfq_seed *s, const sfq_seed_batch *b, sfq_error *err)
{
    const size_t labels = (size_t)s->net->arch->labels;
    SFQ_TRY(sfq_forward_labels(sfq_grad_exec(s->grad), b->batch, b->hidden, s->out, err));
    for (size_t i = 0; i < b->batch->sequences; i++)
        if (!label_gradient(s, s->out + i * labels, labels, b->sequence + i))
            return not_finite("outputs", b->sequence + i, err);
    return sfq_grad_labels(s->grad, s->out, b->d_hidden, NULL, err);
}

static sfq_status seed_embedding(sfq_seed *s, const sfq_seed_batch *b, sfq_error *err)
{
    const size_t c = (size_t)s->net->arch->hidden;
    for (size_t i = 0; i < b->batch->sequences * c; i++)
        s->out[i] =
            (float)sfq_rng_normal(s->seed, s->stream, (uint64_t)b->sequence * c + (uint64_t)i);
    return sfq_grad_embedding(s->grad, s->out, b->d_hidden, err);
}

sfq_status sfq_seed_run(sfq_seed *s, const sfq_seed_batch *b, sfq_error *err)
{
    switch (s->net->arch->head) {
    case SFQ_MODEL_HEAD_LM:
        return seed_tokens(s, b, err);
    case SFQ_MODEL_HEAD_EMBEDDING:
        return seed_embedding(s, b, err);
    default:
        return seed_labels(s, b, err);
    }
}

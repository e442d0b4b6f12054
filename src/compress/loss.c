/* compress/loss.c - the loss on held-out sequences. The teacher answers once; every measurement
 * runs only the student. One sequence's answer does not depend on its neighbours in a batch, so the
 * batches, which depend on lengths alone, decide speed and memory and no figure. */
#include "compress/loss.h"

#include "base/ck.h"
#include "base/mem.h"
#include "compress/divergence.h"
#include "compress/loss_rows.h"

#include <math.h>
#include <string.h>

enum { BATCH_TOKENS = 1024 };

struct sfq_loss {
    const sfq_work *work;
    size_t first, end;    /* sequences of the calibration set */
    bool lm;              /* language model: answers are hidden states */
    size_t width;         /* of an answer: labels, or C */
    size_t answers_count; /* sequences, or tokens */
    float *answers;       /* [answers_count, width] the teacher's */
    float *outputs;       /* [answers_count, width] a student's; encoders only */
    sfq_exec *teacher;    /* language models only: its head */
    sfq_loss_rows rows;   /* language models only */
    sfq_token_batch batch;
};

static bool is_lm(const sfq_arch *arch)
{
    return arch->head == SFQ_MODEL_HEAD_LM;
}

/* ---- passes ---- */

static sfq_status take_batch(sfq_loss *l, size_t from, size_t *to, sfq_error *err)
{
    const sfq_calibration *c = l->work->calibration;
    *to = sfq_work_batch_end(c, from, l->end, BATCH_TOKENS);
    sfq_token_batch_clear(&l->batch);
    for (size_t i = from; i < *to; i++)
        SFQ_TRY(sfq_token_batch_take(&l->batch, c, i, err));
    return SFQ_OK;
}

/* The answers of an encoder for the batch at hand. */
static sfq_status answer(const sfq_loss *l, sfq_exec *exec, const float *hidden, float *out,
                         sfq_error *err)
{
    if (l->work->teacher->arch->head == SFQ_MODEL_HEAD_EMBEDDING)
        return sfq_forward_embedding(exec, &l->batch.batch, hidden, out, err);
    return sfq_forward_labels(exec, &l->batch.batch, hidden, out, err);
}

static sfq_status ask_teacher(sfq_loss *l, sfq_error *err)
{
    const sfq_calibration *c = l->work->calibration;
    size_t done = 0;
    for (size_t from = l->first, to; from < l->end; from = to) {
        const float *hidden;
        SFQ_TRY(take_batch(l, from, &to, err));
        SFQ_TRY(sfq_forward(l->teacher, &l->batch.batch, &hidden, NULL, NULL, err));
        size_t count = l->lm ? c->offset[to] - c->offset[from] : to - from;
        float *out = l->answers + done * l->width;
        if (l->lm)
            memcpy(out, hidden, count * l->width * sizeof(float));
        else
            SFQ_TRY(answer(l, l->teacher, hidden, out, err));
        for (size_t i = 0; i < count * l->width; i++)
            if (!isfinite(out[i]))
                return sfq_fail(err, SFQ_E_NUMERIC,
                                "the original model's answer to a held-out sequence is not a "
                                "finite number; is the checkpoint intact?");
        done += count;
        SFQ_TRY(sfq_work_check(l->work, err));
    }
    return SFQ_OK;
}

/* ---- open ---- */

static size_t answers_of(const sfq_calibration *c, bool lm, size_t first, size_t end)
{
    return lm ? c->offset[end] - c->offset[first] : end - first;
}

static sfq_status make_memory(sfq_loss *l, sfq_error *err)
{
    const sfq_arch *arch = l->work->teacher->arch;
    size_t floats;
    l->width = l->lm ? (size_t)arch->hidden : sfq_divergence_width(arch);
    l->answers_count = answers_of(l->work->calibration, l->lm, l->first, l->end);
    if (sfq_ck_mul(l->answers_count, l->width, &floats)) {
        l->answers = SFQ_NEW_ARRAY(float, floats);
        l->outputs = l->lm ? NULL : SFQ_NEW_ARRAY(float, floats);
    }
    if (l->answers == NULL || (!l->lm && l->outputs == NULL))
        return sfq_fail_memory(err, l->answers_count * l->width * sizeof(float),
                               "the original model's answers");
    return l->lm ? sfq_loss_rows_open(&l->rows, arch, sfq_loss_rows_most(arch), err) : SFQ_OK;
}

sfq_status sfq_loss_open(sfq_loss **out, const sfq_work *work, size_t first, size_t end,
                         sfq_error *err)
{
    sfq_status status = SFQ_OK;
    *out = NULL;
    if (first >= end || end > work->calibration->count)
        return sfq_fail(err, SFQ_E_DATA, "no sequences are held out to judge by; give more data");
    sfq_loss *l = SFQ_NEW(sfq_loss);
    if (l == NULL)
        return sfq_fail_memory(err, sizeof(*l), "the held-out loss");
    l->work = work;
    l->first = first;
    l->end = end;
    l->lm = is_lm(work->teacher->arch);
    SFQ_DO(make_memory(l, err));
    SFQ_DO(sfq_exec_open(&l->teacher, work->teacher, work->kernels, work->pool, err));
    SFQ_DO(ask_teacher(l, err));
    if (!l->lm)
        sfq_exec_close(&l->teacher);
    *out = l;
    l = NULL;
done:
    sfq_loss_close(&l);
    return status;
}

void sfq_loss_close(sfq_loss **loss)
{
    sfq_loss *l = *loss;
    if (l == NULL)
        return;
    sfq_mem_free(l->answers);
    sfq_mem_free(l->outputs);
    sfq_exec_close(&l->teacher);
    sfq_loss_rows_close(&l->rows);
    sfq_token_batch_free(&l->batch);
    sfq_mem_free(l);
    *loss = NULL;
}

/* Scratch of a pass over the measured net, which may be packed: then activations are quantized. */
static uint64_t pass_bytes(const sfq_work *work, size_t tokens)
{
    const sfq_arch *a = work->teacher->arch;
    size_t k = (size_t)a->hidden;
    for (int i = 0; i < a->layers; i++) {
        const sfq_layer_arch *l = &a->layer[i];
        k = sfq_max_size(k, sfq_max_size((size_t)l->ffn, (size_t)(l->heads * a->head_dim)));
    }
    k = sfq_round_up(k, SFQ_BLOCK_K);
    uint64_t codes = sizeof(int16_t) * k + (sizeof(float) + sizeof(int32_t)) * (k / SFQ_BLOCK_K);
    return sfq_cap_add(sfq_exec_bytes(work->teacher, sfq_pool_threads(work->pool), tokens),
                       sfq_cap_mul(codes, sfq_round_up(tokens, SFQ_BLOCK_K)));
}

uint64_t sfq_loss_bytes(const sfq_work *work, size_t first, size_t end)
{
    const sfq_calibration *c = work->calibration;
    const sfq_arch *arch = work->teacher->arch;
    const bool lm = is_lm(arch);
    size_t tokens = 0, sequences = 0;
    for (size_t from = first, to; from < end; from = to) {
        to = sfq_work_batch_end(c, from, end, BATCH_TOKENS);
        tokens = sfq_max_size(tokens, c->offset[to] - c->offset[from]);
        sequences = sfq_max_size(sequences, to - from);
    }
    uint64_t width = lm ? (uint64_t)arch->hidden : sfq_divergence_width(arch);
    uint64_t answers = sizeof(float) * sfq_cap_mul(width, answers_of(c, lm, first, end));
    uint64_t pass = pass_bytes(work, tokens);
    uint64_t bytes = sfq_cap_add(sizeof(sfq_loss), lm ? answers : 2 * answers);
    bytes = sfq_cap_add(bytes, lm ? 2 * pass : pass); /* the teacher's head stays */
    bytes = sfq_cap_add(bytes, sfq_token_batch_bytes(sequences, tokens));
    return lm ? sfq_cap_add(bytes, sfq_loss_rows_bytes(arch, sfq_loss_rows_most(arch))) : bytes;
}

/* ---- measure ---- */

static sfq_status add_rows(sfq_loss *l, sfq_exec *student, const float *hidden, size_t at,
                           size_t count, double *sum, sfq_error *err)
{
    const size_t c = l->width;
    for (size_t row = 0; row < count; row += l->rows.most) {
        sfq_loss_rows_job job = {.teacher = l->teacher,
                                 .student = student,
                                 .teacher_hidden = l->answers + (at + row) * c,
                                 .student_hidden = hidden + row * c,
                                 .count = sfq_min_size(l->rows.most, count - row),
                                 .temperature = 1,
                                 .pool = l->work->pool};
        SFQ_TRY(sfq_loss_rows_run(&l->rows, &job, err));
        for (size_t i = 0; i < job.count; i++)
            *sum += l->rows.divergence[i];
        SFQ_TRY(sfq_work_check(l->work, err));
    }
    return SFQ_OK;
}

static sfq_status pass(sfq_loss *l, sfq_exec *student, double *value, sfq_error *err)
{
    size_t done = 0;
    double sum = 0;
    for (size_t from = l->first, to; from < l->end; from = to) {
        const float *hidden;
        SFQ_TRY(take_batch(l, from, &to, err));
        SFQ_TRY(sfq_forward(student, &l->batch.batch, &hidden, NULL, NULL, err));
        size_t count = answers_of(l->work->calibration, l->lm, from, to);
        if (l->lm)
            SFQ_TRY(add_rows(l, student, hidden, done, count, &sum, err));
        else
            SFQ_TRY(answer(l, student, hidden, l->outputs + done * l->width, err));
        done += count;
        SFQ_TRY(sfq_work_check(l->work, err));
    }
    *value = l->lm ? sum / (double)done
                   : sfq_divergence_answers(l->work->teacher->arch, l->answers, l->outputs, done, 1,
                                            NULL);
    if (isfinite(*value))
        return SFQ_OK;
    return sfq_fail(err, SFQ_E_NUMERIC,
                    "the loss on the %zu held-out sequences is not a finite number",
                    l->end - l->first);
}

sfq_status sfq_loss_measure(sfq_loss *loss, const sfq_net *net, double *value, sfq_error *err)
{
    sfq_exec *student = NULL;
    *value = NAN;
    SFQ_TRY(sfq_exec_open(&student, net, loss->work->kernels, loss->work->pool, err));
    sfq_status status = pass(loss, student, value, err);
    sfq_exec_close(&student);
    return status;
}

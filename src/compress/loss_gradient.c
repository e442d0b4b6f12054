/* compress/loss_gradient.c - the gradient of one batch's loss with respect to the final hidden
 * states, through the head. For a language model the logits of a block of rows exist at a time, the
 * teacher's, and the student's whose place the gradient takes. */
#include "base/ck.h"
#include "base/mem.h"
#include "compress/divergence.h"
#include "compress/loss_rows.h"

#include <math.h>
#include <string.h>

static sfq_status lm_block(const sfq_loss_step *s, sfq_loss_rows *rows, size_t row, size_t count,
                           size_t tokens, double *sum, sfq_error *err)
{
    const size_t c = (size_t)s->student->arch->hidden;
    const double t = (double)s->temperature;
    sfq_loss_rows_job job = {.teacher = s->teacher_exec,
                             .student = sfq_grad_exec(s->grad),
                             .teacher_hidden = s->teacher_hidden + row * c,
                             .student_hidden = s->student_hidden + row * c,
                             .count = count,
                             .temperature = t,
                             .weight = t / (double)tokens,
                             .pool = s->pool};
    SFQ_TRY(sfq_loss_rows_run(rows, &job, err));
    for (size_t i = 0; i < count; i++)
        *sum += t * t * rows->divergence[i];
    size_t *at = rows->identity; /* the rows are counted from the batch's beginning here */
    for (size_t i = 0; i < count; i++)
        at[i] += row;
    sfq_status status =
        sfq_grad_logits(s->grad, at, count, rows->student, s->d_hidden, s->into, err);
    for (size_t i = 0; i < count; i++)
        at[i] -= row;
    return status;
}

static sfq_status lm_gradient(const sfq_loss_step *s, sfq_error *err)
{
    const size_t tokens = s->batch->offset[s->batch->sequences];
    const size_t most = sfq_min_size(tokens, sfq_loss_rows_most(s->student->arch));
    sfq_status status = SFQ_OK;
    sfq_loss_rows rows;
    double sum = 0;
    SFQ_TRY(sfq_loss_rows_open(&rows, s->student->arch, most, err));
    for (size_t row = 0; row < tokens && status == SFQ_OK; row += most)
        status = lm_block(s, &rows, row, sfq_min_size(most, tokens - row), tokens, &sum, err);
    sfq_loss_rows_close(&rows);
    *s->value = sum / (double)tokens;
    return status;
}

static sfq_status answers(const sfq_loss_step *s, float *teacher, float *student, sfq_error *err)
{
    sfq_exec *exec = sfq_grad_exec(s->grad);
    if (s->student->arch->head == SFQ_MODEL_HEAD_EMBEDDING) {
        SFQ_TRY(sfq_forward_embedding(s->teacher_exec, s->batch, s->teacher_hidden, teacher, err));
        return sfq_forward_embedding(exec, s->batch, s->student_hidden, student, err);
    }
    SFQ_TRY(sfq_forward_labels(s->teacher_exec, s->batch, s->teacher_hidden, teacher, err));
    return sfq_forward_labels(exec, s->batch, s->student_hidden, student, err);
}

static sfq_status encoder_gradient(const sfq_loss_step *s, sfq_error *err)
{
    const sfq_arch *arch = s->student->arch;
    const size_t count = s->batch->sequences, width = sfq_divergence_width(arch);
    sfq_status status = SFQ_OK;
    float *teacher = SFQ_NEW_ARRAY(float, count *width);
    float *student = SFQ_NEW_ARRAY(float, count *width);
    if (teacher == NULL || student == NULL) {
        status = sfq_fail_memory(err, count * width * sizeof(float), "answers of a batch");
        goto done;
    }
    SFQ_DO(answers(s, teacher, student, err));
    *s->value =
        sfq_divergence_answers(arch, teacher, student, count, (double)s->temperature, student);
    if (arch->head == SFQ_MODEL_HEAD_EMBEDDING)
        SFQ_DO(sfq_grad_embedding(s->grad, student, s->d_hidden, err));
    else
        SFQ_DO(sfq_grad_labels(s->grad, student, s->d_hidden, s->into, err));
done:
    sfq_mem_free(teacher);
    sfq_mem_free(student);
    return status;
}

sfq_status sfq_loss_gradient(const sfq_loss_step *step, sfq_error *err)
{
    const sfq_arch *arch = step->student->arch;
    const size_t tokens = step->batch->offset[step->batch->sequences];
    *step->value = NAN;
    memset(step->d_hidden, 0, tokens * (size_t)arch->hidden * sizeof(float));
    return arch->head == SFQ_MODEL_HEAD_LM ? lm_gradient(step, err) : encoder_gradient(step, err);
}

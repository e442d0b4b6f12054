/* compress/loss.h - how far a student is from the original: what every stage is judged by, and what
 * distillation descends. By head: language model and classifier KL(teacher || student) in nats, per
 * token or sequence; regression mean squared error of the outputs; embeddings the squared distance
 * over the squared length of the original's (2 - 2 cos where they are normalised). */
#ifndef SFQ_COMPRESS_LOSS_H
#define SFQ_COMPRESS_LOSS_H

#include "compress/work.h"

/* Held-out sequences with the teacher's answers (outputs of encoders, final hidden states of
 * language models: logits are made from them block by block). */
typedef struct sfq_loss sfq_loss;

/* Runs the teacher over sequences [first, end) of the calibration set. */
sfq_status sfq_loss_open(sfq_loss **out, const sfq_work *work, size_t first, size_t end,
                         sfq_error *err);
void sfq_loss_close(sfq_loss **loss);
uint64_t sfq_loss_bytes(const sfq_work *work, size_t first, size_t end);
/* Mean loss of a net. NUMERIC where it is not finite. Sums in double, in index order. */
sfq_status sfq_loss_measure(sfq_loss *loss, const sfq_net *net, double *value, sfq_error *err);

/* The gradient of one batch: d_hidden [T, C] = d(loss)/d(final hidden), through the head; loss is
 * the mean over the batch, for logits T^2 KL(p_t^T || p_s^T) with temperature T (Hinton et al.
 * 2015, "Distilling the knowledge in a neural network"). teacher_hidden [T, C] and the student's
 * hidden of the same batch, which was the last of `grad`. into may be NULL. */
typedef struct sfq_loss_step {
    sfq_grad *grad;
    const sfq_net *student;
    sfq_exec *teacher_exec;
    sfq_pool *pool;
    const sfq_batch *batch;
    const float *teacher_hidden, *student_hidden;
    float temperature;
    float *d_hidden;
    const sfq_net_grad *into;
    double *value;
} sfq_loss_step;

sfq_status sfq_loss_gradient(const sfq_loss_step *step, sfq_error *err);

#endif

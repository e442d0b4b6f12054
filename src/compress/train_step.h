/* compress/train_step.h - one step of training up to the gradients: the batch, the teacher's
 * answers, the student's passes. Step number n does the same whatever came before it. */
#ifndef SFQ_COMPRESS_TRAIN_STEP_H
#define SFQ_COMPRESS_TRAIN_STEP_H

#include "compress/train.h"
#include "compress/train_order.h"

typedef struct sfq_train_step sfq_train_step;

sfq_status sfq_train_step_open(sfq_train_step **out, const sfq_train *train, sfq_error *err);
void sfq_train_step_close(sfq_train_step **step);
uint64_t sfq_train_step_bytes(const sfq_work *work, const sfq_net *student,
                              const sfq_train_recipe *recipe);

/* Adds the gradients of step `number` (from 0) to the arrays of train->grads. *loss may not be
 * finite, which is no failure here. */
sfq_status sfq_train_step_run(sfq_train_step *step, uint64_t number, double *loss, sfq_error *err);

#endif

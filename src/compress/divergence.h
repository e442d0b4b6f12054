/* compress/divergence.h - how far a student's answer is from the teacher's, and the gradient of
 * that. Sums in double, in index order. */
#ifndef SFQ_COMPRESS_DIVERGENCE_H
#define SFQ_COMPRESS_DIVERGENCE_H

#include "model/arch.h"

/* KL(softmax(teacher / T) || softmax(student / T)) in nats over n logits. Where gradient [n] is not
 * NULL (it may be `student`) it becomes weight * (softmax(student / T) - softmax(teacher / T)): the
 * gradient with respect to the student's logits, times weight * T. */
double sfq_divergence_logits(const float *teacher, const float *student, size_t n,
                             double temperature, double weight, float *gradient);

/* Width of an encoder's answer: labels, or C of an embedding. */
size_t sfq_divergence_width(const sfq_arch *arch);

/* Mean over `count` answers of encoders, [count, width]. Classifier: T^2 KL. Regression: mean
 * squared error. Embedding: the squared distance over the squared length of the teacher's, which
 * does not change with the unit of length. gradient [count, width] may be NULL, or `student`. */
double sfq_divergence_answers(const sfq_arch *arch, const float *teacher, const float *student,
                              size_t count, double temperature, float *gradient);

#endif

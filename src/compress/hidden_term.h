/* compress/hidden_term.h - the second part of the training loss: the student's hidden states should
 * be the teacher's (Sun et al. 2019, "Patient knowledge distillation"; Jiao et al. 2020,
 * "TinyBERT", eq. 8). Mean over the layers' outputs of the mean over tokens of
 * |h_s - h_t|^2 / |h_t|^2: each token counts the same, whatever the length of its state, which in
 * language models differs by orders of magnitude. */
#ifndef SFQ_COMPRESS_HIDDEN_TERM_H
#define SFQ_COMPRESS_HIDDEN_TERM_H

#include "model/grad.h"

typedef struct sfq_hidden_term {
    /* set by the caller */
    const sfq_arch *arch;
    const sfq_batch *batch;
    const sfq_grad *student; /* after its forward pass */
    const float *teacher; /* [layers, T, C] outputs of the layers, the last after the final norm */
    double weight;
    sfq_pool *pool;
    double *rows; /* [T] scratch */
    /* adds up: weight times the term */
    double value;
} sfq_hidden_term;

/* Adds the term of hidden state `layer` (1..layers, as Transformers counts) to `value`, and its
 * gradient to d_hidden [T, C]. Of the last one a classifier reads the first tokens only, so only
 * they count. */
void sfq_hidden_term_add(sfq_hidden_term *term, int layer, float *d_hidden);

#endif

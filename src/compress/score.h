/* compress/score.h - what each unit is worth: a KV group with its query heads, an FFN neuron. The
 * default is the diagonal Fisher information of a mask on the unit's output (Michel et al. 2019,
 * "Are sixteen heads really better than one?"; Kwon et al. 2022, "A fast post-training pruning
 * framework for transformers"; M1), from one backward pass of activation gradients per sequence
 * with labels sampled from the model itself. */
#ifndef SFQ_COMPRESS_SCORE_H
#define SFQ_COMPRESS_SCORE_H

#include "compress/work.h"

typedef enum sfq_saliency_kind {
    SFQ_SALIENCY_FISHER = 0,
    SFQ_SALIENCY_TAYLOR,    /* sum over the unit's weights of |w * dL/dw| */
    SFQ_SALIENCY_MAGNITUDE, /* squared norm of its row of the output projection; needs no data */
    SFQ_SALIENCY_ERROR, /* reconstruction error of the output when it is removed, in loss units */
    SFQ_SALIENCY_COUNT
} sfq_saliency_kind;

const char *sfq_saliency_name(sfq_saliency_kind kind);
bool sfq_saliency_find(const char *name, sfq_saliency_kind *out);

typedef struct sfq_layer_saliency {
    float *group;  /* [KV] Fisher: half the sum over sequences of the squared mask gradient */
    float *neuron; /* [F] */
    /* what the loss sees of each token: squared norm of the gradient of the sublayer's output, over
     * all tokens of the tune part in order; mean 1 (all 1 for kinds without gradients) */
    float *attn_weight; /* [T] */
    float *ffn_weight;  /* [T] */
} sfq_layer_saliency;

typedef struct sfq_saliency {
    int layers;
    size_t sequences, tokens; /* S, T */
    sfq_layer_saliency *layer;
} sfq_saliency;

/* Over the tune part of the calibration set. `round` is a stream of the random labels. NUMERIC for
 * gradients that are not finite. */
sfq_status sfq_score_run(sfq_saliency **out, const sfq_work *work, const sfq_student *student,
                         sfq_saliency_kind kind, int round, sfq_error *err);
void sfq_saliency_close(sfq_saliency **saliency);
/* Memory of the result, and of the result with all that making it takes, by options->saliency. */
uint64_t sfq_saliency_bytes(const sfq_work *work);
uint64_t sfq_score_bytes(const sfq_work *work);

#endif

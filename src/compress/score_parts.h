/* compress/score_parts.h - the pieces of the saliency pass that one file each owns: the gradient at
 * the model's end, |w * dL/dw| of units, and the reconstruction error. */
#ifndef SFQ_COMPRESS_SCORE_PARTS_H
#define SFQ_COMPRESS_SCORE_PARTS_H

#include "compress/score.h"
#include "compress/walk.h"

/* ---- score_seed.c: where a backward pass begins ---- */

/* Gradients of the loss at labels that the model itself would give, so that their outer products
 * average to the Fisher information (Kunstner et al. 2019, "Limitations of the empirical Fisher
 * approximation"):
 *   language model: one next token drawn at every position, softmax - onehot; the sequence's loss
 *     is the sum over its tokens;
 *   two classes: the mean over both labels is of rank one, sqrt(p0 p1) (1, -1), so nothing is
 *     drawn; more classes: a drawn one;
 *   one value: 1 (unit variance); several, and embeddings: a draw of N(0, 1) each. */
typedef struct sfq_seed {
    sfq_grad *grad;
    const sfq_net *net;
    sfq_pool *pool;
    uint64_t seed, stream;
    size_t chunk; /* rows of logits at a time */
    float *out;   /* [chunk, V], [sequences, labels] or [sequences, C] */
    size_t *rows; /* [chunk] */
    double *sums; /* [chunk] of a row's exponentials */
} sfq_seed;

typedef struct sfq_seed_batch {
    const sfq_batch *batch;
    const float *hidden; /* [T, C] */
    size_t sequence;     /* of the calibration set, that the batch begins with */
    size_t token;        /* the same, for tokens */
    float *d_hidden;     /* [T, C] is added to */
} sfq_seed_batch;

/* For batches of at most `sequences` sequences. */
sfq_status sfq_seed_open(sfq_seed *s, const sfq_work *work, const sfq_net *net, sfq_grad *grad,
                         size_t sequences, int round, sfq_error *err);
void sfq_seed_close(sfq_seed *s);
uint64_t sfq_seed_bytes(const sfq_arch *arch, size_t sequences);
/* NUMERIC for outputs that are not finite. */
sfq_status sfq_seed_run(sfq_seed *s, const sfq_seed_batch *b, sfq_error *err);

/* ---- score_taylor.c ---- */

typedef struct sfq_taylor sfq_taylor;

sfq_status sfq_taylor_open(sfq_taylor **out, const sfq_student *student, sfq_pool *pool,
                           sfq_error *err);
void sfq_taylor_close(sfq_taylor **taylor);
uint64_t sfq_taylor_bytes(const sfq_arch *arch);
/* What the backward pass shall fill; one layer's room serves all layers, one after the other. */
const sfq_net_grad *sfq_taylor_into(const sfq_taylor *taylor);
/* Adds |w * dw| of the layer whose gradients are complete, and forgets them. */
void sfq_taylor_harvest(sfq_taylor *taylor, int layer);
void sfq_taylor_result(const sfq_taylor *taylor, sfq_saliency *out);

/* ---- score_error.c ---- */

/* M5 (Frantar et al. 2022, "Optimal brain compression"): half the squared error that remains at the
 * sublayer's output when a unit goes and the rest is refitted, tokens weighted by what the loss
 * sees of them, times kappa [layers][SFQ_PARTS], the mean squared gradient of that output. Needs
 * the weights of `out`; fills its saliencies. */
sfq_status sfq_error_saliency(sfq_saliency *out, const sfq_work *work, const sfq_student *student,
                              const double *kappa, sfq_error *err);
uint64_t sfq_error_bytes(const sfq_arch *arch, size_t tokens);

#endif

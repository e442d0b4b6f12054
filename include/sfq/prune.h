/* sfq/prune.h - the two decisions of structured pruning for modules outside any model: which units
 * go, and what the weights behind them become. For frameworks that know what a unit of theirs is
 * (a head, a neuron), measure it, and cut it out themselves.
 *
 * What comes out depends neither on the thread count nor on the instruction set. */
#ifndef SFQ_PRUNE_H
#define SFQ_PRUNE_H

#include <sfq/linear.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Units in groups: the heads, or the neurons, of a layer. */
typedef struct sfq_prune_units {
    size_t n, groups;
    const double *saliency; /* [n] what the loss grows by when it goes; finite, not negative */
    const uint64_t *cost;   /* [n] parameters that go with it, > 0 */
    const uint32_t *group;  /* [n] < groups */
    const size_t *floor;    /* [groups] so many units stay, or what there is */
    /* [groups] the units that stay are a multiple of it, or all: 1 for heads; 0 for neurons: 64, or
     * 16 where no group of neurons has 256 */
    const size_t *multiple;
} sfq_prune_units;

/* keep [n] = false for the units that cost least in saliency among those whose parameters are
 * `share` (0 <= share < 1) of all units' or more: reached within one unit (one multiple) above it.
 * Ties go to the lower group, then to the lower unit. INFEASIBLE where the floors do not allow so
 * much. */
SFQ_API sfq_status sfq_prune_choose_units(const sfq_prune_units *units, double share, bool *keep,
                                          sfq_error *err);

/* A matrix some of whose inputs were cut. */
typedef struct sfq_prune_matrix {
    size_t n, k;        /* outputs, inputs before the cut */
    const float *w;     /* [n, k] finite */
    const double *gram; /* [k, k] sum of x x^T over the inputs x, each token times its weight if
                           they count differently; symmetric: the lower triangle is read */
    const bool *keep;   /* [k] inputs that stay */
    size_t constants;   /* the last so many inputs are constants, and stay: the bias, as a weight */
    double ridge;       /* >= 0: pull towards w, as a share of the mean square of the inputs that
                           stay. 0.01 where tokens outnumber inputs by far, 1 where they are few */
} sfq_prune_matrix;

/* out [n, kept] = the weights with which the outputs differ least in mean square from those of w
 * with all inputs. A change is no larger than w in norm. NUMERIC for values that are not finite and
 * moments that no data have. */
SFQ_API sfq_status sfq_prune_refit_matrix(sfq_workers *workers, const sfq_prune_matrix *matrix,
                                          float *out, sfq_error *err);

#ifdef __cplusplus
}
#endif
#endif

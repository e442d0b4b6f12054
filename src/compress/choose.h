/* compress/choose.h - which units go: a knapsack on saliency per parameter over the whole model,
 * with floors (M2). Needs no model: saliencies and costs in, lists out. */
#ifndef SFQ_COMPRESS_CHOOSE_H
#define SFQ_COMPRESS_CHOOSE_H

#include "compress/score.h"

typedef struct sfq_choice {
    int layers;
    sfq_layer_keep *layer;      /* [layers] */
    uint64_t removed;           /* parameters of block matrices, against `arch` */
    int groups, heads, neurons; /* removed, against `arch` */
} sfq_choice;

typedef struct sfq_choose_options {
    uint64_t remove; /* block parameters to remove from the current model: reached within one unit
                        above it */
    bool uniform;    /* the same widths in every layer */
    const bool *attn_fixed, *ffn_fixed; /* [layers] sublayers that --keep protects; or NULL */
} sfq_choose_options;

/* FFN widths stay multiples of 64 (16 below a width of 256; a source width that is none may stay as
 * it is), at least one KV group and 64 neurons (or what there is) in every layer. INFEASIBLE where
 * the floors do not allow `remove`: says how much they do. Deterministic: ties go to the lower
 * layer, then the lower index. */
sfq_status sfq_choose_units(sfq_choice **out, const sfq_arch *arch, const sfq_saliency *saliency,
                            const sfq_choose_options *options, sfq_error *err);
void sfq_choice_close(sfq_choice **choice);

/* Parameters (matrix elements) of one KV group and of one neuron of a layer, and of all prunable
 * block matrices. */
uint64_t sfq_choose_group_cost(const sfq_arch *arch, int layer);
uint64_t sfq_choose_neuron_cost(const sfq_arch *arch);
uint64_t sfq_choose_block_parameters(const sfq_arch *arch);

#endif

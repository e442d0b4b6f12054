/* compress/walk.h - the residual stream of a net over the tune part of the calibration set, a
 * sublayer at a time: what least squares reads. The states of all tokens lie in memory, the inside
 * of a sublayer only for one batch. */
#ifndef SFQ_COMPRESS_WALK_H
#define SFQ_COMPRESS_WALK_H

#include "compress/work.h"

typedef enum sfq_part { SFQ_PART_ATTN = 0, SFQ_PART_FFN, SFQ_PARTS } sfq_part;

typedef struct sfq_walk {
    const sfq_work *work;
    sfq_net view;             /* the net, with one sublayer of one layer at a time */
    sfq_layer_weights *layer; /* [layers] of the net, by value */
    sfq_exec *exec;
    sfq_token_batch batch;
    float *x;       /* [T, C] input of the sublayer that comes next */
    float *copy;    /* [largest batch, C] */
    size_t t;       /* tokens of all */
    size_t batch_t; /* of the largest batch */
} sfq_walk;

/* Holds the embeddings of all sequences. The net's matrices may change their values while the walk
 * is open, not their place. */
sfq_status sfq_walk_open(sfq_walk *w, const sfq_work *work, const sfq_net *net, sfq_error *err);
void sfq_walk_close(sfq_walk *w);
uint64_t sfq_walk_bytes(const sfq_work *work, const sfq_net *net);

/* Batches are runs of whole sequences: the one that begins with sequence `first` ends before
 * this. */
size_t sfq_walk_end(const sfq_calibration *calibration, size_t first);
size_t sfq_walk_batch_tokens(const sfq_calibration *calibration); /* of the largest batch */

/* Runs a sublayer on sequences [first, end): a part of the layer as it is, norms in their places.
 * advance: their states become its output; else they stay. save: attn_sum, att or ffn_sum, ffn_act;
 * may be NULL. */
sfq_status sfq_walk_run(sfq_walk *w, int layer, sfq_part part, size_t first, size_t end,
                        const sfq_block_save *save, bool advance, sfq_error *err);

#endif

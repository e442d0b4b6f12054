/* compress/small.h - the small tensors of a network: norms, biases, and the scales of packed
 * matrices, in one order. What a student learns whose matrices do not. */
#ifndef SFQ_COMPRESS_SMALL_H
#define SFQ_COMPRESS_SMALL_H

#include "model/grad.h"

typedef enum sfq_small_part {
    SFQ_SMALL_GAIN = 0, /* of a norm */
    SFQ_SMALL_BIAS,     /* of a norm or matrix */
    SFQ_SMALL_SCALES
} sfq_small_part;

typedef struct sfq_small {
    sfq_role role;
    int layer; /* -1 outside the layers */
    sfq_small_part part;
    const float **place; /* the net's pointer to its values */
    size_t count;
    float **gradient; /* the place in `grads` */
} sfq_small;

typedef struct sfq_smalls {
    sfq_small *items;
    size_t count;
    size_t total;       /* floats */
    sfq_net_grad grads; /* all NULL */
} sfq_smalls;

/* A tied head is the word table, and is not listed beside it. */
sfq_status sfq_smalls_open(sfq_smalls **out, sfq_net *net, sfq_error *err);
void sfq_smalls_close(sfq_smalls **smalls);
/* How many arrays there are, and how many floats in them. */
size_t sfq_smalls_count(const sfq_net *net, uint64_t *floats);

#endif

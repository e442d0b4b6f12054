/* compress/arrange.h - the order of a layer's FFN neurons in the artifact. Any order computes the
 * same function; one that puts neurons of like range side by side lets clusters lose less. */
#ifndef SFQ_COMPRESS_ARRANGE_H
#define SFQ_COMPRESS_ARRANGE_H

#include "compress/source.h"

typedef struct sfq_arrangement {
    uint32_t **order; /* [layers]: order[l][i] = the source's neuron at place i; NULL: as it is */
    int layers;
} sfq_arrangement;

/* Whether clusters of this layer can gain from an order at all: rows that share a scale in up, or a
 * down with several segments. */
bool sfq_arrange_helps(const sfq_module *up, const sfq_module *down);

/* One layer's order into arrangement->order[layer]; gate may be NULL. Reads the matrices once. */
sfq_status sfq_arrange_layer(sfq_arrangement *arrangement, const sfq_source *source, int layer,
                             sfq_error *err);

sfq_status sfq_arrange_open(sfq_arrangement *arrangement, int layers, sfq_error *err);
void sfq_arrange_close(sfq_arrangement *arrangement);

#endif

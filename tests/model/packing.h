/* tests/model/packing.h - a fixture's network over packed matrices, and over the floats that the
 * codes stand for. The matrices are packed by rounding, with activation bits that differ between
 * matrices of one input. */
#ifndef SFQ_TESTS_MODEL_PACKING_H
#define SFQ_TESTS_MODEL_PACKING_H

#include "fixture.h"

#include "base/mem.h"

typedef struct packed_net {
    sfq_net packed; /* codes */
    sfq_net dense;  /* the floats that the codes stand for */
    sfq_arena *arena;
} packed_net;

/* Both nets share norms and biases with the fixture; free with packed_close. */
void packed_open(packed_net *p, const fixture *f);
void packed_close(packed_net *p);

/* Widths of 0 in both nets: the first layer has no heads left, the last no MLP; what is left of o
 * is its bias, [C], or nothing at all for NULL. arch and layers are the copies to be changed. */
typedef struct ragged_net {
    sfq_arch arch;
    sfq_layer_arch layer_arch[4];
    sfq_layer_weights layer[4];
    sfq_net net;
} ragged_net;

void ragged_make(ragged_net *r, const sfq_net *net, const float *bias);

#endif

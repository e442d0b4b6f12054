/* tests/model/packing.h - a network over packed matrices, and over the floats that the codes stand
 * for. The matrices are packed by rounding, with activation bits that differ between
 * matrices of one input. */
#ifndef SFQ_TESTS_MODEL_PACKING_H
#define SFQ_TESTS_MODEL_PACKING_H

#include "fixture.h"

#include "base/mem.h"

typedef struct packed_matrix {
    sfq_matrix m;         /* as it is in the packed net */
    float *scales, *w;    /* the packed net's scales, the dense net's weights [N, K] */
    const uint8_t *codes; /* [N, K] */
} packed_matrix;

enum { PACKED_MOST = 64 };

typedef struct packed_net {
    sfq_net packed; /* codes */
    sfq_net dense;  /* the floats that the codes stand for */
    packed_matrix matrix[PACKED_MOST];
    size_t count;
    sfq_arena *arena;
} packed_net;

/* Both nets share norms and biases with `net`; free with packed_close. */
void packed_open(packed_net *p, const sfq_net *net);
/* The dense net's weights of a matrix from its scales, which a test may have changed. */
void packed_decode(const packed_matrix *m);
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

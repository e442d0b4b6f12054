/* compress/energy.h - the mean square of the inputs of every output projection over the tune part:
 * what an error of a weight there costs, for the scales of o and down (M9's omega). The other
 * matrices read normed states, where weighting made things worse (docs/METHOD.md). */
#ifndef SFQ_COMPRESS_ENERGY_H
#define SFQ_COMPRESS_ENERGY_H

#include "compress/work.h"

typedef struct sfq_energy {
    int layers;
    /* [layers][width]; means over tokens, summed in double in their order */
    float **att;     /* [H D] o */
    float **ffn_act; /* [F] down */
} sfq_energy;

/* Runs the net over the tune part; MEMORY beyond the net: sfq_energy_bytes. */
sfq_status sfq_energy_run(sfq_energy **out, const sfq_work *work, const sfq_net *net,
                          sfq_error *err);
void sfq_energy_close(sfq_energy **energy);
uint64_t sfq_energy_bytes(const sfq_work *work, const sfq_net *net);
/* The input channels of an output projection of this net, [K]; NULL for every other module. */
const float *sfq_energy_of(const sfq_energy *energy, const sfq_module *module);

#endif

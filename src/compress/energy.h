/* compress/energy.h - the mean square of every matrix's input channels over the tune part: what a
 * weight's error costs, for scales (M9's omega). */
#ifndef SFQ_COMPRESS_ENERGY_H
#define SFQ_COMPRESS_ENERGY_H

#include "compress/work.h"

typedef struct sfq_energy {
    int layers;
    bool tied_head; /* then the word table's inputs are those of the head */
    /* [layers][width]; means over tokens, in double order of rows, stored as float */
    float **attn_in; /* [C] q, k, v */
    float **att;     /* [H D] o */
    float **ffn_in;  /* [C] gate, up */
    float **ffn_act; /* [F] down */
    float *final;    /* [C] language-model head; pooler: its first tokens */
} sfq_energy;

/* Runs the net over the tune part; MEMORY beyond the net: sfq_energy_bytes. */
sfq_status sfq_energy_run(sfq_energy **out, const sfq_work *work, const sfq_net *net,
                          sfq_error *err);
void sfq_energy_close(sfq_energy **energy);
uint64_t sfq_energy_bytes(const sfq_work *work, const sfq_net *net);
/* The input channels of a module of this net, [K]; NULL: none known (tables). */
const float *sfq_energy_of(const sfq_energy *energy, const sfq_module *module);

#endif

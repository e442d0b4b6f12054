/* model/pack_rule.h - how a matrix is packed at a given number of bits: what compress writes, and
 * what a model of random weights is given so that its speed is that of a compressed one. */
#ifndef SFQ_MODEL_PACK_RULE_H
#define SFQ_MODEL_PACK_RULE_H

#include "model/names.h"

/* Integer width of the activations that a matrix reads, by its role and bits. */
int sfq_pack_activation_bits(sfq_role role, int bits);
/* Whether `bits` (2..8) make of the module a packed matrix, and which; *packed false: it stays
 * dense. spec->name is the module's own. LIMIT where a size overflows. */
sfq_status sfq_pack_choose(sfq_packed_spec *spec, bool *packed, const sfq_module *module, int bits,
                           sfq_error *err);

#endif

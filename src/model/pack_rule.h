/* model/pack_rule.h - how a matrix is packed at a given number of bits: what compress writes, and
 * what a model of random weights is given so that its speed is that of a compressed one. */
#ifndef SFQ_MODEL_PACK_RULE_H
#define SFQ_MODEL_PACK_RULE_H

#include "model/names.h"

/* ARGUMENT where the activation bits that were asked for are neither 0 (the rule) nor 8..14. */
sfq_status sfq_pack_check(int activation_bits, sfq_error *err);
/* Whether `bits` (2..8) make of the module a packed matrix, and which; *packed false: it stays
 * dense. causal: of a language model. activation_bits 0: by that, role and bits. spec->name is the
 * module's own. LIMIT where a size overflows. */
sfq_status sfq_pack_choose(sfq_packed_spec *spec, bool *packed, const sfq_module *module,
                           bool causal, int bits, int activation_bits, sfq_error *err);

#endif

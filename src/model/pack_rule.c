/* model/pack_rule.c - see pack_rule.h. */
#include "model/pack_rule.h"

/* Activations are rounded per token and segment at run time. 8 bits are one byte product, 12 bits
 * are two: these are for those whom 8 bits would cost more than a tenth of what their own weights'
 * bits do (measured: docs/METHOD.md). */
static bool reads_12_bits(sfq_role role, bool causal, int bits)
{
    switch (role) {
    case SFQ_ROLE_V: /* its error goes to the output as it is; norms of encoders leave outliers */
        return !causal && bits >= 6;
    case SFQ_ROLE_DOWN: /* reads products (gates), whose tails are long */
        return causal && bits >= 5;
    case SFQ_ROLE_LM_HEAD:
    case SFQ_ROLE_WORD_EMBEDDING: /* tied: one row a sequence, which takes no time */
        return causal && bits >= 7;
    default:
        return false;
    }
}

/* A matrix whose padded codes and scales would be no smaller than 16 bits a weight stays dense: a
 * token-type table of two rows would grow eightfold. */
static bool worth_packing(const sfq_cluster *c, int bits)
{
    uint64_t packed = (uint64_t)sfq_cluster_code_bytes(c, bits) + 2 * sfq_cluster_scales(c);
    return packed < 2 * (uint64_t)c->n * c->k;
}

sfq_status sfq_pack_check(int activation_bits, sfq_error *err)
{
    if (activation_bits == 0 ||
        (activation_bits >= SFQ_ACTIVATION_BITS_MIN && activation_bits <= SFQ_ACTIVATION_BITS_MAX))
        return SFQ_OK;
    return sfq_fail(err, SFQ_E_ARGUMENT, "activation bits %d: expected %d to %d, or 0 for the rule",
                    activation_bits, SFQ_ACTIVATION_BITS_MIN, SFQ_ACTIVATION_BITS_MAX);
}

sfq_status sfq_pack_choose(sfq_packed_spec *spec, bool *packed, const sfq_module *m, bool causal,
                           int bits, int activation_bits, sfq_error *err)
{
    *packed = false;
    if (!sfq_role_is_matrix(m->role) || m->role == SFQ_ROLE_CLASSIFIER || m->k == 0)
        return SFQ_OK;
    if (!sfq_cluster_make(&spec->cluster, m->n, m->k))
        return sfq_fail_at(err, SFQ_E_LIMIT, NULL, m->name,
                           "matrix %s: %zu x %zu weights are too many", m->name, m->n, m->k);
    *packed = worth_packing(&spec->cluster, bits);
    spec->name = m->name;
    spec->bits = bits;
    spec->activation_bits = reads_12_bits(m->role, causal, bits) ? 12 : 8;
    if (activation_bits > 0)
        spec->activation_bits = activation_bits;
    return SFQ_OK;
}

/* model/pack_rule.c - see pack_rule.h. */
#include "model/pack_rule.h"

/* Activations are rounded per token and segment at run time. 8 bits are one byte product, wider
 * ones are two: these are for those whom 8 bits cost most (measured: docs/METHOD.md). Down of a
 * language model, whose inputs have long tails (products, behind gates); and its head where the
 * weights are fine, which reads one row a sequence and so takes no time. */
static int activation_rule(sfq_role role, bool causal, int bits)
{
    bool head = role == SFQ_ROLE_LM_HEAD || role == SFQ_ROLE_WORD_EMBEDDING; /* tied */
    return causal && (role == SFQ_ROLE_DOWN || (head && bits >= 7)) ? 12 : 8;
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
    spec->activation_bits =
        activation_bits > 0 ? activation_bits : activation_rule(m->role, causal, bits);
    return SFQ_OK;
}

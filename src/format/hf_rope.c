/* format/hf_rope.c - rotary position parameters. Transformers 5 writes one object rope_parameters;
 * version 4 wrote rope_theta beside a rope_scaling that may be null and spelled its kind "type". As
 * in Transformers, a rope_scaling that is there wins. */
#include "format/hf_parts.h"

#include <float.h>
#include <string.h>

static const double THETA_MAX = 1e30, FACTOR_MAX = 1e6, POSITIONS_MAX = 16777216;

/* key of the rope object, else of the root, else def (NULL: an error). */
static sfq_status real_of(const sfq_hf_config *c, const json_t *rope, const char *key, double min,
                          double max, const double *def, double *out, sfq_error *err)
{
    return sfq_json_real(sfq_json_get(rope, key) ? rope : c->root, c->path, key, min, max, def, out,
                         err);
}

static sfq_status find_kind(const sfq_hf_config *c, const json_t *rope, sfq_rope_kind *out,
                            sfq_error *err)
{
    static const char *const kinds[] = {"default", "linear", "llama3", "yarn"};
    const char *name = "default";
    SFQ_TRY(sfq_hf_string(c, rope, "type", &name, err));
    SFQ_TRY(sfq_hf_string(c, rope, "rope_type", &name, err));
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i], name) == 0) {
            *out = (sfq_rope_kind)i;
            return SFQ_OK;
        }
    return sfq_fail_at(err, SFQ_E_UNSUPPORTED, c->path, NULL,
                       "%s: rope type \"%s\" is not supported (default, linear, llama3 and yarn "
                       "are)",
                       c->path, name);
}

/* original_max_position_embeddings: beside rope_parameters first, as Transformers has it. */
static sfq_status original_positions(sfq_hf_config *c, const json_t *rope, sfq_error *err)
{
    static const char key[] = "original_max_position_embeddings";
    const double def = (double)c->max_positions;
    return sfq_json_real(sfq_json_get(c->root, key) ? c->root : rope, c->path, key, 1,
                         POSITIONS_MAX, &def, &c->rope.original_max_positions, err);
}

static sfq_status read_llama3(sfq_hf_config *c, const json_t *rope, sfq_error *err)
{
    sfq_rope_config *r = &c->rope;
    SFQ_TRY(sfq_json_real(rope, c->path, "factor", DBL_MIN, FACTOR_MAX, NULL, &r->factor, err));
    SFQ_TRY(sfq_json_real(rope, c->path, "low_freq_factor", DBL_MIN, FACTOR_MAX, NULL,
                          &r->low_freq_factor, err));
    SFQ_TRY(sfq_json_real(rope, c->path, "high_freq_factor", DBL_MIN, FACTOR_MAX, NULL,
                          &r->high_freq_factor, err));
    if (r->high_freq_factor <= r->low_freq_factor)
        return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                           "%s: high_freq_factor %g is not above low_freq_factor %g", c->path,
                           r->high_freq_factor, r->low_freq_factor);
    return original_positions(c, rope, err);
}

static sfq_status read_yarn(sfq_hf_config *c, const json_t *rope, sfq_error *err)
{
    static const double zero = 0, fast = 32, slow = 1;
    static const bool yes = true;
    sfq_rope_config *r = &c->rope;
    double ratio;
    if (r->theta <= 1)
        return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                           "%s: rope_theta %g: yarn needs more than 1", c->path, r->theta);
    SFQ_TRY(original_positions(c, rope, err));
    ratio = (double)c->max_positions / r->original_max_positions;
    SFQ_TRY(sfq_json_real(rope, c->path, "factor", DBL_MIN, FACTOR_MAX,
                          json_object_get(rope, "factor") ? &ratio : NULL, &r->factor, err));
    SFQ_TRY(sfq_json_real(rope, c->path, "beta_fast", 0, FACTOR_MAX, &fast, &r->beta_fast, err));
    SFQ_TRY(sfq_json_real(rope, c->path, "beta_slow", 0, FACTOR_MAX, &slow, &r->beta_slow, err));
    r->beta_fast = r->beta_fast > 0 ? r->beta_fast : fast; /* 0 means absent there */
    r->beta_slow = r->beta_slow > 0 ? r->beta_slow : slow;
    SFQ_TRY(sfq_json_real(rope, c->path, "attention_factor", 0, FACTOR_MAX, &zero,
                          &r->attention_factor, err));
    SFQ_TRY(sfq_json_real(rope, c->path, "mscale", 0, FACTOR_MAX, &zero, &r->mscale, err));
    SFQ_TRY(sfq_json_real(rope, c->path, "mscale_all_dim", 0, FACTOR_MAX, &zero, &r->mscale_all_dim,
                          err));
    return sfq_json_bool(rope, c->path, "truncate", &yes, &r->truncate, err);
}

/* The object that holds the parameters; *out stays NULL where there is none. */
static sfq_status find_object(const sfq_hf_config *c, const json_t **out, sfq_error *err)
{
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    const char *inner;
    json_t *value;
    *out = NULL;
    for (size_t i = 0; i < 2 && !*out; i++) {
        const json_t *rope = sfq_json_get(c->root, keys[i]);
        if (rope && !json_is_object(rope))
            return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL, "%s: %s is no object", c->path,
                               keys[i]);
        if (rope && json_object_size(rope) > 0)
            *out = rope;
    }
    if (*out)
        json_object_foreach(
            (json_t *)(uintptr_t)*out, inner,
            value) if (json_is_object(value)) return sfq_fail_at(err, SFQ_E_UNSUPPORTED, c->path,
                                                                 NULL,
                                                                 "%s: rope_parameters per layer "
                                                                 "type (\"%s\") are not supported",
                                                                 c->path, inner);
    return SFQ_OK;
}

sfq_status sfq_hf_read_rope(sfq_hf_config *c, const sfq_hf_family *f, sfq_error *err)
{
    static const double one = 1;
    sfq_rope_config *r = &c->rope;
    const json_t *rope;
    int64_t rotated;
    *r = (sfq_rope_config){.factor = 1, .beta_fast = 32, .beta_slow = 1, .truncate = true};
    r->original_max_positions = (double)c->max_positions;
    r->partial_rotary_factor = 1;
    if (f->theta_default <= 0)
        return SFQ_OK;
    SFQ_TRY(find_object(c, &rope, err));
    SFQ_TRY(find_kind(c, rope, &r->kind, err));
    SFQ_TRY(real_of(c, rope, "rope_theta", 1, THETA_MAX, &f->theta_default, &r->theta, err));
    SFQ_TRY(real_of(c, rope, "partial_rotary_factor", DBL_MIN, 1, &one, &r->partial_rotary_factor,
                    err));
    rotated = (int64_t)((double)c->head_dim * r->partial_rotary_factor);
    if (rotated < 2 || rotated % 2 != 0)
        return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                           "%s: head_dim %" JSON_INTEGER_FORMAT
                           ": RoPE turns pairs, %" JSON_INTEGER_FORMAT " dims are none",
                           c->path, (json_int_t)c->head_dim, (json_int_t)rotated);
    if (r->kind == SFQ_ROPE_LINEAR)
        return sfq_json_real(rope, c->path, "factor", DBL_MIN, FACTOR_MAX, NULL, &r->factor, err);
    if (r->kind == SFQ_ROPE_LLAMA3)
        return read_llama3(c, rope, err);
    return r->kind == SFQ_ROPE_YARN ? read_yarn(c, rope, err) : SFQ_OK;
}

/* text/postprocessor.c - reads a post-processor. BertProcessing, RobertaProcessing and ByteLevel
 * are templates too, so a pair of templates (one sequence, two sequences) is all that is kept. */
#include "text/postprocessor.h"

#include "base/json.h"
#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

#define PIECES_MAX 64
#define TYPE_MAX 65535

typedef struct loader {
    sfq_known_id_fn known;
    const void *ctx;
    const char *file;
    sfq_error *err;
} loader;

static sfq_status bad(loader *l, const char *what)
{
    return sfq_fail_at(l->err, SFQ_E_FORMAT, l->file, "post_processor", "%s: post_processor: %s",
                       l->file, what);
}

static sfq_status check_id(loader *l, int64_t id, const char *name)
{
    if (id < 0 || id >= INT32_MAX || !l->known(l->ctx, (int32_t)id))
        return sfq_fail_at(l->err, SFQ_E_FORMAT, l->file, "post_processor",
                           "%s: post_processor: \"%.60s\" has id %" PRId64
                           ", which no token of this tokenizer has",
                           l->file, name, id);
    return SFQ_OK;
}

static sfq_status new_piece(loader *l, sfq_post_template *t, sfq_post_piece **out)
{
    if (!t->pieces)
        t->pieces = SFQ_NEW_ARRAY(sfq_post_piece, PIECES_MAX);
    if (!t->pieces)
        return sfq_fail_memory(l->err, PIECES_MAX * sizeof(sfq_post_piece), "post_processor");
    if (t->count == PIECES_MAX)
        return sfq_fail_at(l->err, SFQ_E_LIMIT, l->file, "post_processor",
                           "%s: post_processor: more than %d pieces in a template", l->file,
                           PIECES_MAX);
    *out = &t->pieces[t->count++];
    return SFQ_OK;
}

static sfq_status add_sequence(loader *l, sfq_post_template *t, int sequence, int32_t type)
{
    sfq_post_piece *piece = NULL;
    SFQ_TRY(new_piece(l, t, &piece));
    *piece = (sfq_post_piece){.sequence = sequence, .type = type};
    return SFQ_OK;
}

static sfq_status add_special(loader *l, sfq_post_template *t, size_t count, int32_t type,
                              int32_t **ids)
{
    sfq_post_piece *piece = NULL;
    SFQ_TRY(new_piece(l, t, &piece));
    *piece = (sfq_post_piece){
        .sequence = -1, .type = type, .count = count, .ids = SFQ_NEW_ARRAY(int32_t, count)};
    *ids = piece->ids;
    t->special += count;
    return piece->ids ? SFQ_OK : sfq_fail_memory(l->err, count * sizeof(int32_t), "post_processor");
}

static sfq_status add_one(loader *l, sfq_post_template *t, int32_t id, int32_t type)
{
    int32_t *ids;
    SFQ_TRY(add_special(l, t, 1, type, &ids));
    ids[0] = id;
    return SFQ_OK;
}

/* ---- TemplateProcessing ---- */

/* {"SpecialToken": {"id": NAME, "type_id": N}}: the ids come from special_tokens[NAME]. */
static sfq_status load_special(loader *l, sfq_post_template *t, const json_t *piece,
                               const json_t *tokens, int32_t type)
{
    const char *name;
    SFQ_TRY(sfq_json_string(piece, l->file, "id", true, &name, l->err));
    const json_t *token = sfq_json_get(tokens, name);
    const json_t *list = sfq_json_get(token, "ids");
    if (!json_is_array(list))
        return sfq_fail_at(l->err, SFQ_E_FORMAT, l->file, "post_processor.special_tokens",
                           "%s: post_processor: the template names \"%.60s\", which is not in "
                           "special_tokens",
                           l->file, name);
    int32_t *ids;
    SFQ_TRY(add_special(l, t, json_array_size(list), type, &ids));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id))
            return bad(l, "an id in special_tokens is not an integer");
        SFQ_TRY(check_id(l, json_integer_value(id), name));
        ids[i] = (int32_t)json_integer_value(id);
    }
    return SFQ_OK;
}

static sfq_status load_template(loader *l, sfq_post_template *t, const json_t *list,
                                const json_t *tokens, bool pair)
{
    if (!json_is_array(list))
        return bad(l, pair ? "pair is not an array" : "single is not an array");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const json_t *sequence = sfq_json_get(item, "Sequence");
        const json_t *special = sfq_json_get(item, "SpecialToken");
        const json_t *piece = sequence ? sequence : special;
        int64_t type;
        if (!json_is_object(piece))
            return bad(l, "a piece of a template is neither Sequence nor SpecialToken");
        SFQ_TRY(sfq_json_int(piece, l->file, "type_id", 0, TYPE_MAX, NULL, &type, l->err));
        if (special && !sequence) {
            SFQ_TRY(load_special(l, t, special, tokens, (int32_t)type));
            continue;
        }
        const char *which;
        SFQ_TRY(sfq_json_string(sequence, l->file, "id", true, &which, l->err));
        bool b = strcmp(which, "B") == 0;
        if ((!b && strcmp(which, "A") != 0) || (b && !pair))
            return bad(l, pair ? "a Sequence that is neither A nor B"
                               : "a Sequence other than A in the template of one sequence");
        SFQ_TRY(add_sequence(l, t, b ? 1 : 0, (int32_t)type));
    }
    return SFQ_OK;
}

/* ---- BertProcessing, RobertaProcessing ---- */

static sfq_status load_pair(loader *l, const json_t *json, const char *key, int32_t *id)
{
    const json_t *pair = sfq_json_get(json, key);
    const json_t *name = json_array_get(pair, 0), *number = json_array_get(pair, 1);
    if (json_array_size(pair) != 2 || !json_is_string(name) || !json_is_integer(number))
        return bad(l, "sep or cls is not [text, id]");
    SFQ_TRY(check_id(l, json_integer_value(number), json_string_value(name)));
    *id = (int32_t)json_integer_value(number);
    return SFQ_OK;
}

static sfq_status load_bert(loader *l, sfq_postprocessor *post, const json_t *json, bool roberta)
{
    int32_t sep, cls, second = roberta ? 0 : 1;
    SFQ_TRY(load_pair(l, json, "sep", &sep));
    SFQ_TRY(load_pair(l, json, "cls", &cls));
    sfq_post_template *both[] = {&post->single, &post->pair};
    for (size_t i = 0; i < 2; i++) {
        SFQ_TRY(add_one(l, both[i], cls, 0));
        SFQ_TRY(add_sequence(l, both[i], 0, 0));
        SFQ_TRY(add_one(l, both[i], sep, 0));
    }
    if (roberta)
        SFQ_TRY(add_one(l, &post->pair, sep, 0));
    SFQ_TRY(add_sequence(l, &post->pair, 1, second));
    return add_one(l, &post->pair, sep, second);
}

static sfq_status load_any(loader *l, sfq_postprocessor *post, const json_t *json)
{
    const char *type;
    SFQ_TRY(sfq_json_string(json, l->file, "type", true, &type, l->err));
    bool taken = post->single.count > 0 || post->pair.count > 0;
    if (strcmp(type, "ByteLevel") == 0) /* concerns offsets only */
        return SFQ_OK;
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = sfq_json_get(json, "processors");
        if (!json_is_array(list))
            return bad(l, "a Sequence without the array processors");
        for (size_t i = 0; i < json_array_size(list); i++)
            SFQ_TRY(load_any(l, post, json_array_get(list, i)));
        return SFQ_OK;
    }
    if (taken)
        return sfq_fail_at(l->err, SFQ_E_UNSUPPORTED, l->file, "post_processor.processors",
                           "%s: post_processor: \"%.60s\" behind another processor that adds "
                           "tokens is not supported",
                           l->file, type);
    if (strcmp(type, "TemplateProcessing") == 0) {
        const json_t *tokens = sfq_json_get(json, "special_tokens");
        SFQ_TRY(load_template(l, &post->single, sfq_json_get(json, "single"), tokens, false));
        return load_template(l, &post->pair, sfq_json_get(json, "pair"), tokens, true);
    }
    if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0)
        return load_bert(l, post, json, type[0] == 'R');
    return sfq_fail_at(l->err, SFQ_E_UNSUPPORTED, l->file, "post_processor.type",
                       "%s: post_processor \"%.60s\" is not supported", l->file, type);
}

sfq_status sfq_postprocessor_load(sfq_postprocessor *post, const json_t *json,
                                  sfq_known_id_fn known, const void *ctx, const char *file,
                                  sfq_error *err)
{
    loader l = {known, ctx, file, err};
    *post = (sfq_postprocessor){0};
    if (json && !json_is_null(json))
        SFQ_TRY(load_any(&l, post, json));
    if (post->single.count > 0 || post->pair.count > 0)
        return SFQ_OK;
    SFQ_TRY(add_sequence(&l, &post->single, 0, 0));
    SFQ_TRY(add_sequence(&l, &post->pair, 0, 0));
    return add_sequence(&l, &post->pair, 1, 1);
}

void sfq_postprocessor_close(sfq_postprocessor *post)
{
    sfq_post_template *both[] = {&post->single, &post->pair};
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < both[k]->count; i++)
            sfq_mem_free(both[k]->pieces[i].ids);
        sfq_mem_free(both[k]->pieces);
    }
    *post = (sfq_postprocessor){0};
}

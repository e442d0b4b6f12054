/* text/load_steps.c - walks the steps of a normalizer, pre-tokenizer or decoder; what a step holds
 * is the business of load_normalizer.c, load_pretokenizer.c and load_decoder.c. */
#include "text/load_steps.h"

#include <stdio.h>
#include <string.h>

static sfq_status load_sequence(sfq_step_list *list, const json_t *json, sfq_error *err)
{
    const json_t *items = sfq_json_get(json, list->items);
    if (!json_is_array(items)) {
        char key[64];
        snprintf(key, sizeof key, "%s.%s", list->part, list->items);
        return sfq_fail_at(err, SFQ_E_FORMAT, list->file, key,
                           "%s: %s: a Sequence without the array %s", list->file, list->part,
                           list->items);
    }
    for (size_t i = 0; i < json_array_size(items); i++)
        SFQ_TRY(sfq_steps_load(list, json_array_get(items, i), err));
    return SFQ_OK;
}

/* Recursion is bounded by the nesting limit of JSON. */
sfq_status sfq_steps_load(sfq_step_list *list, const json_t *json, sfq_error *err)
{
    const char *type;
    SFQ_TRY(sfq_json_string(json, list->file, "type", true, &type, err));
    if (strcmp(type, "Sequence") == 0)
        return load_sequence(list, json, err);
    if (list->count == SFQ_TEXT_STEPS_MAX)
        return sfq_fail_at(err, SFQ_E_LIMIT, list->file, list->part, "%s: more than %d %s in a row",
                           list->file, SFQ_TEXT_STEPS_MAX, list->plural);
    bool known = true;
    SFQ_TRY(list->load(list->ctx, json, type, &known));
    if (!known) {
        char key[64];
        snprintf(key, sizeof key, "%s.type", list->part);
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, list->file, key,
                           "%s: %s \"%.60s\" is not supported", list->file, list->part, type);
    }
    list->count++;
    return SFQ_OK;
}

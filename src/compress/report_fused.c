/* compress/report_fused.c - what fusing did, as a part of sfq_report.json that does not need the
 * plan any more: an interrupted run goes on without making it again. */
#include "compress/report.h"

#include <string.h>

/* jansson returns NULL and -1 when memory is short; one flag collects them. */
typedef struct maker {
    bool failed;
} maker;

static void put(maker *m, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0)
        m->failed = true;
}

static void add(maker *m, json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) != 0)
        m->failed = true;
}

static json_t *make_tensor(maker *m, const sfq_plan_tensor *t, const sfq_emit_loss *loss)
{
    json_t *tensor = json_object();
    put(m, tensor, "name", json_string(t->source->name));
    put(m, tensor, "role", json_string(sfq_role_name(t->module->role)));
    if (t->packed) {
        put(m, tensor, "bits", json_integer(t->spec.bits));
        put(m, tensor, "activation_bits", json_integer(t->spec.activation_bits));
        put(m, tensor, "scales", json_string(sfq_dtype_info(t->scale_dtype)->name));
        put(m, tensor, "relative_error",
            json_real(loss->energy > 0 ? loss->error / loss->energy : 0));
    } else {
        put(m, tensor, "dtype", json_string(sfq_dtype_info(t->dtype)->name));
    }
    return tensor;
}

static json_t *make_layers(maker *m, const sfq_arch *arch)
{
    json_t *out = json_array();
    for (int i = 0; i < arch->layers; i++) {
        json_t *layer = json_object();
        put(m, layer, "heads", json_integer(arch->layer[i].heads));
        put(m, layer, "kv_heads", json_integer(arch->layer[i].kv_heads));
        put(m, layer, "ffn", json_integer(arch->layer[i].ffn));
        add(m, out, layer);
    }
    return out;
}

sfq_status sfq_report_fused(json_t **out, const sfq_plan *plan, const sfq_source *source,
                            const sfq_emit_loss *losses, sfq_error *err)
{
    maker m = {false};
    bool feedback = false;
    json_t *object = json_object();
    json_t *tensors = json_array();
    *out = NULL;
    for (size_t i = 0; i < plan->count; i++) {
        add(&m, tensors, make_tensor(&m, &plan->tensors[i], &losses[i]));
        feedback = feedback || losses[i].feedback;
    }
    put(&m, object, "parameters", json_integer((json_int_t)source->parameters));
    put(&m, object, "quantized_weights", json_integer((json_int_t)plan->weights));
    put(&m, object, "scales", json_integer((json_int_t)plan->scales));
    put(&m, object, "arranged_layers", json_integer(plan->arranged_layers));
    put(&m, object, "rounding", json_string(feedback ? "feedback" : "nearest"));
    put(&m, object, "layers", make_layers(&m, source->arch));
    put(&m, object, "tensors", tensors);
    if (!m.failed && object != NULL) {
        *out = object;
        return SFQ_OK;
    }
    json_decref(object);
    return sfq_fail_memory(err, 0, "the report");
}

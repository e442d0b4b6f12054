/* compress/report.c - sfq_report.json. Paths of this machine stay out of it: data is named by its
 * task or by the last part of its path. */
#include "compress/report.h"

#include "base/mem.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>
#include <time.h>

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

static json_t *real(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *whole(uint64_t v)
{
    return json_integer((json_int_t)v);
}

/* What is no UTF-8, or does not print, is written as \xHH: an option may hold any bytes. */
static json_t *text(const char *s)
{
    char line[4096];
    if (s == NULL)
        return json_null();
    (void)sfq_text_printable(line, sizeof line, s, strlen(s));
    return json_string(line);
}

static const char *last_part(const char *path)
{
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;
    return slash != NULL && slash[1] != 0 ? slash + 1 : path;
}

static json_t *make_options(maker *m, const sfq_compress_options *o)
{
    json_t *out = json_object();
    json_t *keep = json_array();
    json_t *bits_for = json_array();
    json_t *texts = json_array();
    for (size_t i = 0; i < o->keep_count; i++)
        add(m, keep, text(o->keep[i]));
    for (size_t i = 0; i < o->bits_for_count; i++) {
        json_t *rule = json_object();
        put(m, rule, "regex", text(o->bits_for[i].regex));
        put(m, rule, "bits", json_integer(o->bits_for[i].bits));
        add(m, bits_for, rule);
    }
    for (size_t i = 0; i < o->text_count; i++)
        add(m, texts, text(last_part(o->text_files[i])));
    put(m, out, "prune", json_real(o->prune));
    put(m, out, "bits", json_integer(o->bits));
    put(m, out, "embedding_bits", json_integer(o->embedding_bits));
    put(m, out, "activation_bits", json_integer(o->activation_bits));
    put(m, out, "steps", json_integer(o->steps));
    put(m, out, "keep", keep);
    put(m, out, "bits_for", bits_for);
    put(m, out, "task", text(o->task));
    put(m, out, "text", texts);
    put(m, out, "calib_fraction", json_real(o->calib_fraction));
    put(m, out, "calib_tokens", whole(o->calib_tokens));
    put(m, out, "calib_length", json_integer(o->calib_length));
    put(m, out, "pick", text(o->pick));
    put(m, out, "saliency", text(o->saliency));
    put(m, out, "rounds", json_integer(o->rounds));
    put(m, out, "uniform", json_boolean(o->uniform));
    put(m, out, "minutes", real(o->minutes));
    put(m, out, "max_drop", o->max_drop >= 0 ? real(o->max_drop) : json_null());
    put(m, out, "seed", whole(o->seed));
    return out;
}

static json_t *make_stages(maker *m, const sfq_compress_result *r)
{
    json_t *out = json_array();
    for (int i = 0; i < r->stage_count; i++) {
        json_t *stage = json_object();
        put(m, stage, "name", json_string(r->stages[i].name));
        put(m, stage, "seconds", json_real(r->stages[i].seconds));
        put(m, stage, "loss", real(r->stages[i].loss));
        put(m, stage, "steps", json_integer(r->stages[i].steps));
        add(m, out, stage);
    }
    return out;
}

static json_t *make_value(maker *m, const char *metric, double value)
{
    json_t *out = json_object();
    put(m, out, "metric", json_string(metric));
    put(m, out, "value", real(value));
    return out;
}

static json_t *make_calibration(maker *m, const sfq_report *report)
{
    const sfq_calibration *c = report->calibration;
    if (c == NULL)
        return json_null();
    json_t *out = json_object();
    put(m, out, "origin", json_string(c->origin));
    put(m, out, "sequences", whole(c->count));
    put(m, out, "tokens", whole(sfq_calibration_tokens(c)));
    put(m, out, "held_out", whole(c->count - c->tune));
    put(m, out, "fraction", real(c->fraction));
    put(m, out, "available", whole(c->available));
    put(m, out, "scanned", whole(c->scanned));
    put(m, out, "duplicates", whole(c->duplicates));
    put(m, out, "pick", text(report->options->pick));
    return out;
}

static json_t *make_pruned(maker *m, const sfq_report *report)
{
    const sfq_prune_report *p = report->pruned;
    if (p == NULL)
        return json_null();
    json_t *out = json_object();
    put(m, out, "heads", json_integer(p->heads));
    put(m, out, "neurons", json_integer(p->neurons));
    put(m, out, "fraction", real(p->fraction));
    put(m, out, "saliency", text(report->options->saliency));
    put(m, out, "rounds", json_integer(sfq_prune_rounds(report->options)));
    put(m, out, "refitted", json_integer(p->solved));
    put(m, out, "refits_kept", json_integer(p->kept));
    return out;
}

static json_t *make_date(void)
{
    char date[32] = "";
    struct tm tm;
    time_t now = time(NULL);
    if (gmtime_r(&now, &tm) == NULL || strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        return json_null();
    return json_string(date);
}

static json_t *make_report(maker *m, const sfq_report *report, const char *title, const char *isa)
{
    const sfq_compress_result *r = report->result;
    json_t *out = json_object();
    put(m, out, "schema", json_integer(1));
    put(m, out, "sfq_version", json_string(SFQ_VERSION_STRING));
    put(m, out, "base_model", json_string(title));
    put(m, out, "architecture", text(report->source->arch->architecture));
    put(m, out, "recipe", json_string(r->recipe));
    put(m, out, "options", make_options(m, report->options));
    put(m, out, "isa", json_string(isa));
    put(m, out, "threads", json_integer(sfq_pool_threads(report->source->pool)));
    put(m, out, "original_parameters", whole(report->source->original_parameters));
    put(m, out, "original_bytes", whole(r->original_bytes));
    put(m, out, "bytes", whole(r->bytes));
    put(m, out, "bits_per_parameter",
        json_real(8.0 * (double)r->bytes / (double)report->source->original_parameters));
    put(m, out, "reduction", json_real(r->reduction));
    put(m, out, "scale_overhead", json_real(r->scale_overhead));
    if (json_object_update_missing(out, (json_t *)(uintptr_t)report->fused) != 0)
        m->failed = true;
    put(m, out, "calibration", make_calibration(m, report));
    put(m, out, "pruned", make_pruned(m, report));
    put(m, out, "stages", make_stages(m, r));
    put(m, out, "baseline", r->measured ? make_value(m, r->metric, r->baseline) : json_null());
    put(m, out, "compressed", r->measured ? make_value(m, r->metric, r->compressed) : json_null());
    put(m, out, "drop", r->measured ? real(r->drop) : json_null());
    put(m, out, "seconds", json_real(r->seconds));
    put(m, out, "stopped_by", json_string(r->stopped_by));
    put(m, out, "date", make_date());
    return out;
}

sfq_status sfq_report_write(const sfq_report *report, sfq_outdir *dir, sfq_error *err)
{
    maker m = {false};
    sfq_isa cap;
    SFQ_TRY(sfq_isa_from_env(&cap, err));
    char *title = sfq_source_title(report->source, report->options->model);
    if (title == NULL)
        return sfq_fail_memory(err, 0, "sfq_report.json");
    json_t *json = make_report(&m, report, title, sfq_kernels_get(cap)->isa_name);
    sfq_status status = SFQ_OK;
    if (m.failed || json == NULL)
        status = sfq_fail_memory(err, 0, "sfq_report.json");
    else
        status = sfq_emit_json(dir, "sfq_report.json", json, err);
    json_decref(json);
    sfq_mem_free(title);
    return status;
}

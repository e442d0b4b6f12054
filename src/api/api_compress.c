/* api/api_compress.c - <sfq/compress.h>. The pipeline does not know how a model is evaluated (the
 * folders lie on one level); it is handed a function that does, built on the runtime. */
#include "api/api.h"
#include "compress/pipeline.h"
#include "model/pack_rule.h"
#include "runtime/eval.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void sfq_compress_options_default(sfq_compress_options *options)
{
    if (options != NULL)
        *options = (sfq_compress_options){.struct_size = sizeof(*options),
                                          .recipe = "sfq",
                                          .prune = 0.40,
                                          .steps = -1,
                                          .bits = 8,
                                          .embedding_bits = 8,
                                          .calib_length = 256,
                                          .pick = "curated",
                                          .saliency = "fisher",
                                          .minutes = 30.0,
                                          .max_drop = -1.0};
}

/* ---- measuring ---- */

/* Opens a directory as any user would and evaluates it: on the task's dev split, the text, or the
 * texts of the request. */
static sfq_status measure_run(void *ud, const char *dir, const char *text, const sfq_hooks *hooks,
                              char metric[24], double *value, sfq_error *err)
{
    const sfq_compress_options *o = ud;
    const char *const texts[] = {text};
    sfq_model_options open = {.struct_size = sizeof(open), .threads = o->threads};
    sfq_eval_options eval = {.struct_size = sizeof(eval),
                             .task = o->task,
                             .data = o->data,
                             .split = "dev",
                             .text_files = text != NULL ? texts : o->text_files,
                             .text_count = text != NULL ? 1 : o->text_count};
    sfq_eval_result result;
    sfq_engine *engine = NULL;
    if (hooks != NULL)
        open.hooks = eval.hooks = *hooks;
    sfq_status status = sfq_engine_open(&engine, dir, &open, err);
    if (status == SFQ_OK)
        status = sfq_engine_evaluate(engine, NULL, &eval, &result, err);
    if (status == SFQ_OK) {
        (void)snprintf(metric, 24, "%s", result.metric);
        *value = result.value;
    }
    sfq_engine_close(&engine);
    return status;
}

/* ---- checks ---- */

static sfq_status check_lists(const sfq_compress_options *o, sfq_error *err)
{
    if ((o->keep_count > 0 && o->keep == NULL) || (o->bits_for_count > 0 && o->bits_for == NULL) ||
        (o->text_count > 0 && o->text_files == NULL))
        return sfq_fail(err, SFQ_E_ARGUMENT, "a list has a count but is NULL");
    for (size_t i = 0; i < o->keep_count; i++)
        SFQ_API_NEED(o->keep[i]);
    for (size_t i = 0; i < o->bits_for_count; i++)
        SFQ_API_NEED(o->bits_for[i].regex);
    for (size_t i = 0; i < o->text_count; i++)
        SFQ_API_NEED(o->text_files[i]);
    return SFQ_OK;
}

static bool is_one_of(const char *word, const char *const *words)
{
    while (*words != NULL && strcmp(*words, word) != 0)
        words++;
    return *words != NULL;
}

static sfq_status check_calibration(const sfq_compress_options *o, sfq_error *err)
{
    static const char *const picks[] = {"curated", "random", NULL};
    SFQ_API_NEED(o->pick);
    SFQ_API_NEED(o->saliency);
    if (!(o->calib_fraction >= 0 && o->calib_fraction <= 1))
        return sfq_fail(err, SFQ_E_ARGUMENT, "calib_fraction is a share from 0 (the default) to 1");
    if (o->calib_fraction > 0 && o->calib_tokens > 0)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "give a share of the calibration data or its tokens, not both");
    if (o->calib_tokens > 0 && o->data != NULL)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "calib_tokens is for text; a task has examples, give calib_fraction");
    if (o->calib_length < 16 || o->calib_length > 4096)
        return sfq_fail(err, SFQ_E_ARGUMENT, "calib_length must be in 16..4096");
    if (!is_one_of(o->pick, picks))
        return sfq_fail(err, SFQ_E_ARGUMENT, "pick is \"%s\"; expected curated or random", o->pick);
    if (!(o->minutes >= 0 && isfinite(o->minutes)))
        return sfq_fail(err, SFQ_E_ARGUMENT, "minutes is a number from 0 (no ceiling)");
    return SFQ_OK;
}

static sfq_status check_pruning(const sfq_compress_options *o, sfq_error *err)
{
    static const char *const kinds[] = {"fisher", "taylor", "magnitude", "error", NULL};
    if (!is_one_of(o->saliency, kinds))
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "saliency is \"%s\"; expected fisher, taylor, magnitude or error",
                        o->saliency);
    if (!(o->prune >= 0 && o->prune < 1))
        return sfq_fail(err, SFQ_E_ARGUMENT, "prune is a share from 0 to below 1");
    if (o->rounds < 0 || o->rounds > 16)
        return sfq_fail(err, SFQ_E_ARGUMENT, "rounds must be in 1..16, or 0 for the recipe's");
    return SFQ_OK;
}

static sfq_status check_options(const sfq_compress_options *o, bool plan, sfq_error *err)
{
    SFQ_API_NEED(o->model);
    if (!plan)
        SFQ_API_NEED(o->output);
    SFQ_API_NEED(o->recipe);
    if (o->bits < 2 || o->bits > 8 || o->embedding_bits < 2 || o->embedding_bits > 8)
        return sfq_fail(err, SFQ_E_ARGUMENT, "bits and embedding_bits must be in 2..8");
    SFQ_TRY(sfq_pack_check(o->activation_bits, err));
    if (o->steps < -1 || isnan(o->max_drop))
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "steps is -1 (from the calibration size) or more, max_drop is a number");
    if (o->threads < 0 || o->threads > SFQ_MAX_THREADS)
        return sfq_fail(err, SFQ_E_ARGUMENT, "threads must be in 1..%d, or 0 for the default",
                        SFQ_MAX_THREADS);
    if (o->data != NULL && o->text_count > 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "give a task with its data or text files, not both");
    if (o->task != NULL && o->data == NULL)
        return sfq_fail(err, SFQ_E_ARGUMENT, "task %s needs the directory of its data", o->task);
    SFQ_TRY(check_calibration(o, err));
    SFQ_TRY(check_pruning(o, err));
    return check_lists(o, err);
}

static sfq_status take_options(sfq_compress_options *o, const sfq_compress_options *given,
                               bool plan, sfq_error *err)
{
    sfq_compress_options_default(o);
    SFQ_TRY(sfq_api_options(o, sizeof(*o), given, given->struct_size, "sfq_compress_options", err));
    return check_options(o, plan, err);
}

/* ---- public ---- */

sfq_status sfq_compress_plan(const sfq_compress_options *options, sfq_compress_result *out,
                             sfq_error *err)
{
    sfq_compress_options o;
    SFQ_API_NEED(out);
    *out = (sfq_compress_result){0};
    SFQ_API_NEED(options);
    SFQ_TRY(take_options(&o, options, true, err));
    return sfq_pipeline_plan(&o, out, err);
}

sfq_status sfq_compress(const sfq_compress_options *options, sfq_compress_result *out,
                        sfq_error *err)
{
    sfq_compress_options o;
    SFQ_API_NEED(out);
    *out = (sfq_compress_result){0};
    SFQ_API_NEED(options);
    SFQ_TRY(take_options(&o, options, false, err));
    sfq_measure measure = {.ud = &o, .run = measure_run};
    bool measured = o.data != NULL || o.text_count > 0;
    return sfq_pipeline_run(&o, measured ? &measure : NULL, out, err);
}

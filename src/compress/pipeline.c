/* compress/pipeline.c - the order of the stages. Without pruning and recalibration: check,
 * baseline, fuse, evaluate, write. With them: check, baseline, calibrate, prune (rounds of cut and
 * reconstruct), distill, fuse, tune, evaluate, write. The artifact is made in a directory that
 * nobody sees, the last step shows it; stages before it leave what they did in the journal. */
#include "compress/pipeline.h"

#include "base/clock.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "compress/pipeline_parts.h"
#include "compress/report.h"
#include "data/task.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- result ---- */

static void fill_plan(sfq_run *r)
{
    sfq_compress_result *out = r->out;
    const sfq_plan *plan = r->plan;
    snprintf(out->recipe, sizeof out->recipe, "sfq");
    snprintf(out->stopped_by, sizeof out->stopped_by, "done");
    out->original_bytes = plan->original_bytes;
    out->bytes = r->estimate.bytes;
    if (plan->original_bytes > 0)
        out->reduction = 1.0 - (double)out->bytes / (double)plan->original_bytes;
    if (plan->weights > 0)
        out->scale_overhead = (double)plan->scales / (double)plan->weights;
    out->plan_memory_bytes = r->estimate.memory;
    out->plan_disk_bytes = r->estimate.disk;
    out->plan_seconds = r->estimate.seconds;
}

/* Points, or the relative increase of a perplexity in %. */
static double drop_of(const sfq_compress_result *r)
{
    if (strcmp(r->metric, "perplexity") == 0)
        return 100.0 * (r->compressed / r->baseline - 1.0);
    return 100.0 * (r->baseline - r->compressed);
}

/* The path where the artifact will be, without slashes at the end. */
static sfq_status name_output(sfq_compress_result *out, const char *output, bool rejected,
                              sfq_error *err)
{
    size_t end = strlen(output);
    while (end > 1 && output[end - 1] == '/')
        end--;
    const char *tail = rejected ? ".rejected" : "";
    if (end + strlen(tail) >= sizeof out->output)
        return sfq_fail_at(err, SFQ_E_LIMIT, output, NULL, "the output's path is too long");
    memcpy(out->output, output, end);
    strcpy(out->output + end, tail);
    return SFQ_OK;
}

/* Neither name that the result may get touches the model; before any work. */
static sfq_status guard_output(sfq_run *r, sfq_error *err)
{
    sfq_compress_result *out = r->out;
    if (r->options->max_drop >= 0) {
        SFQ_TRY(name_output(out, r->options->output, true, err));
        SFQ_TRY(sfq_source_guard(r->source, out->output, err));
    }
    SFQ_TRY(name_output(out, r->options->output, false, err));
    return sfq_source_guard(r->source, out->output, err);
}

/* ---- stages ---- */

int sfq_run_stage_index(const sfq_run *r, const char *name)
{
    int i = 0;
    while (i < r->name_count && strcmp(r->names[i], name) != 0)
        i++;
    return i + 1;
}

bool sfq_run_has_stage(const sfq_run *r, const char *name)
{
    return sfq_run_stage_index(r, name) <= r->name_count;
}

sfq_status sfq_run_begin_stage(sfq_run *r, const char *name, sfq_error *err)
{
    r->work.stage = name;
    r->work.index = sfq_run_stage_index(r, name);
    return sfq_hooks_check(&r->options->hooks, err);
}

void sfq_run_add_stage(sfq_run *r, const char *name, double seconds, double loss, int steps)
{
    r->out->stages[r->out->stage_count++] =
        (sfq_stage_report){.name = name, .seconds = seconds, .loss = loss, .steps = steps};
}

double sfq_run_lap(sfq_run *r)
{
    double now = sfq_clock_seconds();
    double seconds = now - r->stage_begin;
    r->stage_begin = now;
    return seconds;
}

static void add_name(sfq_run *r, bool has, const char *name)
{
    if (has)
        r->names[r->name_count++] = name;
}

static void name_stages(sfq_run *r)
{
    const sfq_compress_options *o = r->options;
    r->name_count = 0;
    add_name(r, true, "check");
    add_name(r, r->measure != NULL, "baseline");
    add_name(r, r->recovers, "calibrate");
    add_name(r, o->prune > 0, "prune");
    add_name(r, o->prune > 0 && o->steps != 0, "distill");
    add_name(r, true, "fuse");
    add_name(r, o->steps != 0, "tune");
    add_name(r, r->measure != NULL, "evaluate");
    add_name(r, true, "write");
    r->work.stages = r->name_count;
}

static sfq_status check_request(const sfq_run *r, sfq_error *err)
{
    const sfq_compress_options *o = r->options;
    if (o->model == NULL || *o->model == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "no model was named");
    if (o->output == NULL || *o->output == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "no output was named; pass -o DIR");
    sfq_isa cap;
    /* the report names it: an unknown one must not stop the run at its end */
    SFQ_TRY(sfq_isa_from_env(&cap, err));
    if (o->max_drop >= 0 && r->measure == NULL)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "--max-drop needs something to measure: --task and --data, or --text");
    return SFQ_OK;
}

/* Own data calibrates without labels; a dev split without any gives nothing to measure by. */
static sfq_status check_labels(sfq_run *r, sfq_error *err)
{
    const sfq_compress_options *o = r->options;
    int count;
    bool has;
    const char *const *names = sfq_source_labels(r->source, &count);
    SFQ_TRY(sfq_dataset_has_labels(&has, o->task, o->data, "dev", names, count, err));
    if (has)
        return SFQ_OK;
    if (o->max_drop >= 0)
        return sfq_fail_at(err, SFQ_E_ARGUMENT, o->data, NULL,
                           "--max-drop: %s has no dev.jsonl or dev.csv with labels to measure by",
                           o->data);
    sfq_hooks_log(&o->hooks, SFQ_LOG_NOTE,
                  "%s has no dev.jsonl or dev.csv with labels: nothing is measured", o->data);
    r->measure = NULL;
    return SFQ_OK;
}

/* Text has a perplexity for language models alone; an encoder may still be calibrated on it. */
static sfq_status check_measure(sfq_run *r, sfq_error *err)
{
    const sfq_compress_options *o = r->options;
    bool lm = r->source->arch->head == SFQ_MODEL_HEAD_LM;
    if (r->measure != NULL && r->recovers && o->data != NULL && !lm)
        return check_labels(r, err);
    if (r->measure == NULL || !r->recovers || o->text_count == 0 || lm)
        return SFQ_OK;
    if (o->max_drop >= 0)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "--max-drop: %s has no perplexity on --text; measure it with --task and "
                        "--data",
                        r->source->arch->architecture);
    sfq_hooks_log(&o->hooks, SFQ_LOG_NOTE, "%s has no perplexity on --text: nothing is measured",
                  r->source->arch->architecture);
    r->measure = NULL;
    return SFQ_OK;
}

static sfq_status stage_check(sfq_run *r, sfq_error *err)
{
    const sfq_compress_options *o = r->options;
    r->recovers = o->prune > 0 || o->steps != 0;
    SFQ_TRY(sfq_source_open(&r->source, o, err));
    SFQ_TRY(sfq_plan_check(o, r->source->arch->causal, err));
    SFQ_TRY(check_measure(r, err));
    SFQ_TRY(guard_output(r, err));
    SFQ_TRY(sfq_outdir_open(&r->dir, o->output, o->force, err));
    if (r->recovers)
        SFQ_TRY(sfq_run_open_work(r, err));
    SFQ_TRY(sfq_run_keep_check(r, err));
    name_stages(r);
    SFQ_TRY(sfq_plan_make(&r->plan, r->source, o, r->name_count, err));
    const uint64_t available = sfq_memory_available();
    SFQ_TRY(sfq_estimate_make(&r->estimate, &r->choice, r->plan, r->source, o, available, err));
    SFQ_TRY(sfq_estimate_check(&r->estimate, available, o->output, err));
    name_stages(r);
    fill_plan(r);
    sfq_run_add_stage(r, "check", sfq_run_lap(r), NAN, 0);
    return SFQ_OK;
}

/* An evaluation counts its own stages; to the caller it is one of ours. */
typedef struct stage_view {
    const sfq_hooks *inner;
    const char *name;
    int index, count;
} stage_view;

static void view_progress(void *ud, const sfq_progress *p)
{
    const stage_view *v = ud;
    sfq_hooks_progress(v->inner, v->name, v->index, v->count, p->done, p->total, p->unit);
}

static void view_log(void *ud, sfq_log_level level, const char *message)
{
    const stage_view *v = ud;
    sfq_hooks_log(v->inner, level, "%s", message);
}

static bool view_cancelled(void *ud)
{
    const stage_view *v = ud;
    return v->inner->cancelled != NULL && v->inner->cancelled(v->inner->ud);
}

sfq_status sfq_run_measure(sfq_run *r, const char *dir, const char *texts, const char *name,
                           double *value, sfq_error *err)
{
    stage_view view = {&r->options->hooks, name, sfq_run_stage_index(r, name), r->name_count};
    sfq_hooks hooks = {&view, view_progress, view_log, view_cancelled};
    char *text = NULL;
    SFQ_TRY(sfq_run_begin_stage(r, name, err));
    if (texts != NULL && r->options->text_count > 0) {
        text = sfq_path_join(texts, SFQ_RUN_TEST_TEXT);
        if (text == NULL)
            return sfq_fail_memory(err, 0, "a path");
    }
    sfq_status status =
        r->measure->run(r->measure->ud, dir, text, &hooks, r->out->metric, value, err);
    sfq_mem_free(text);
    return status;
}

static sfq_status stage_baseline(sfq_run *r, sfq_error *err)
{
    if (r->measure == NULL)
        return SFQ_OK;
    SFQ_TRY(sfq_run_measure(r, r->source->dir, NULL, "baseline", &r->out->baseline, err));
    sfq_run_add_stage(r, "baseline", sfq_run_lap(r), NAN, 0);
    return SFQ_OK;
}

static sfq_status stage_evaluate(sfq_run *r, sfq_error *err)
{
    sfq_compress_result *out = r->out;
    if (r->measure == NULL)
        return SFQ_OK;
    const char *texts = r->recovers ? sfq_journal_find(r->journal, "calibrate") : NULL;
    SFQ_TRY(sfq_run_measure(r, sfq_outdir_path(r->dir), texts, "evaluate", &out->compressed, err));
    sfq_run_add_stage(r, "evaluate", sfq_run_lap(r), NAN, 0);
    out->measured = true;
    out->drop = drop_of(out);
    return SFQ_OK;
}

/* Of the whole run, earlier processes included. */
static double seconds_of(const sfq_run *r)
{
    double earlier = r->journal != NULL ? sfq_journal_seconds(r->journal) : 0;
    return earlier + sfq_clock_seconds() - r->begin;
}

/* The report and the card say how it ended, so they are written last; then all of it appears. */
static sfq_status stage_write(sfq_run *r, bool rejected, sfq_error *err)
{
    const char *output = r->out->output;
    sfq_report report = {.options = r->options,
                         .source = r->source,
                         .result = r->out,
                         .fused = r->fused,
                         .calibration = r->calibration,
                         .pruned = r->has_pruned ? &r->pruned : NULL};
    r->out->seconds = seconds_of(r);
    SFQ_TRY(name_output(r->out, r->options->output, rejected, err));
    SFQ_TRY(sfq_report_write(&report, r->dir, err));
    SFQ_TRY(sfq_card_write(&report, r->dir, err));
    SFQ_TRY(sfq_hooks_check(&r->options->hooks, err));
    const char *slash = strrchr(output, '/');
    const char *last = slash != NULL ? slash + 1 : output;
    SFQ_TRY(sfq_outdir_commit(&r->dir, rejected ? last : NULL, err));
    sfq_hooks_progress(&r->options->hooks, "write", r->name_count, r->name_count, r->out->bytes,
                       r->out->bytes, "bytes");
    sfq_run_add_stage(r, "write", sfq_run_lap(r), NAN, 0);
    r->out->seconds = seconds_of(r);
    return SFQ_OK;
}

static sfq_status make_artifact(sfq_run *r, sfq_error *err)
{
    if (!r->recovers) {
        SFQ_TRY(stage_baseline(r, err));
        return sfq_run_fuse_original(r, err);
    }
    SFQ_TRY(sfq_run_calibrate(r, err));
    SFQ_TRY(sfq_run_prune(r, err));
    SFQ_TRY(sfq_run_distill(r, err));
    SFQ_TRY(sfq_run_fuse(r, err));
    SFQ_TRY(sfq_run_tune(r, err));
    return sfq_run_install(r, err);
}

static sfq_status run_stages(sfq_run *r, sfq_error *err)
{
    sfq_compress_result *out = r->out;
    SFQ_TRY(check_request(r, err));
    SFQ_TRY(stage_check(r, err));
    SFQ_TRY(make_artifact(r, err));
    SFQ_TRY(stage_evaluate(r, err));
    /* written so that a drop that is not a number trips the guard */
    bool rejected =
        out->measured && r->options->max_drop >= 0 && !(out->drop <= r->options->max_drop);
    SFQ_TRY(stage_write(r, rejected, err));
    if (!rejected)
        return SFQ_OK;
    return sfq_fail_at(err, SFQ_E_GUARD, out->output, NULL,
                       "%s went from %.6g to %.6g, a drop of %.4g where %.4g is allowed; the "
                       "result is kept as %s; use %s, or allow more with --max-drop",
                       out->metric, out->baseline, out->compressed, out->drop, r->options->max_drop,
                       out->output, r->options->prune > 0 ? "a smaller --prune" : "more --bits");
}

/* ---- end ---- */

/* A run that is complete needs its journal no more; one that is not says that it can go on. */
static sfq_status leave_journal(sfq_run *r, sfq_status status, sfq_error *err)
{
    const sfq_hooks *hooks = &r->options->hooks;
    if (r->journal == NULL)
        return status;
    if (status == SFQ_OK || status == SFQ_E_GUARD) {
        sfq_error why;
        if (sfq_journal_remove(&r->journal, &why) != SFQ_OK)
            sfq_hooks_log(hooks, SFQ_LOG_WARNING, "%s", why.message);
        return status;
    }
    if (sfq_journal_last(r->journal) != NULL) {
        const char *work = sfq_journal_path(r->journal);
        if (status == SFQ_E_INTERRUPTED)
            status = sfq_fail_at(err, status, work, NULL,
                                 "stopped on request; %s has what was done: the same command goes "
                                 "on from there",
                                 work);
        else
            sfq_hooks_log(hooks, SFQ_LOG_NOTE,
                          "%s has what was done: the same command goes on from there", work);
    }
    sfq_journal_close(&r->journal);
    return status;
}

static void close_run(sfq_run *r)
{
    sfq_run_close_work(r);
    sfq_outdir_abort(&r->dir);
    sfq_plan_free(&r->plan);
    sfq_source_close(&r->source);
    json_decref(r->fused);
}

sfq_status sfq_pipeline_run(const sfq_compress_options *options, const sfq_measure *measure,
                            sfq_compress_result *out, sfq_error *err)
{
    *out = (sfq_compress_result){0};
    sfq_run r = {.options = options, .measure = measure, .out = out};
    r.begin = r.stage_begin = sfq_clock_seconds();
    sfq_status status = run_stages(&r, err);
    status = leave_journal(&r, status, err);
    if (status != SFQ_OK && status != SFQ_E_GUARD)
        out->output[0] = 0; /* nothing is there */
    close_run(&r);
    return status;
}

sfq_status sfq_pipeline_plan(const sfq_compress_options *options, sfq_compress_result *out,
                             sfq_error *err)
{
    sfq_status status = SFQ_OK;
    *out = (sfq_compress_result){0};
    sfq_run r = {.options = options, .out = out};
    if (options->model == NULL || *options->model == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "no model was named");
    SFQ_DO(sfq_source_open(&r.source, options, err));
    SFQ_DO(sfq_plan_check(options, r.source->arch->causal, err));
    if (options->output != NULL) {
        SFQ_DO(sfq_source_guard(r.source, options->output, err));
        SFQ_DO(name_output(out, options->output, false, err));
    }
    SFQ_DO(sfq_plan_make(&r.plan, r.source, options, 1, err));
    SFQ_DO(sfq_estimate_make(&r.estimate, &r.choice, r.plan, r.source, options,
                             sfq_memory_available(), err));
    fill_plan(&r);
done:
    close_run(&r);
    return status;
}

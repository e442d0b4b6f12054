/* compress/pipeline.c - the order of the stages: check, baseline, fuse, evaluate, write. All work
 * happens in a directory that nobody sees; the last step shows it. */
#include "compress/pipeline.h"

#include "base/clock.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "compress/copy.h"
#include "compress/emit.h"
#include "compress/plan.h"
#include "compress/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct run {
    const sfq_compress_options *options;
    const sfq_measure *measure;
    sfq_compress_result *out;
    sfq_source *source;
    sfq_plan *plan;
    sfq_outdir *dir;
    sfq_emit_loss *losses;
    double begin, stage_begin;
} run;

/* ---- result ---- */

static void fill_plan(sfq_compress_result *out, const sfq_plan *plan)
{
    snprintf(out->recipe, sizeof out->recipe, "sfq");
    snprintf(out->stopped_by, sizeof out->stopped_by, "done");
    out->original_bytes = plan->original_bytes;
    out->bytes = plan->file_bytes;
    if (plan->original_bytes > 0)
        out->reduction = 1.0 - (double)plan->file_bytes / (double)plan->original_bytes;
    if (plan->weights > 0)
        out->scale_overhead = (double)plan->scales / (double)plan->weights;
    out->plan_memory_bytes = plan->memory_bytes;
    out->plan_disk_bytes = plan->disk_bytes;
    out->plan_seconds = plan->seconds;
}

static void end_stage(run *r, const char *name)
{
    double now = sfq_clock_seconds();
    r->out->stages[r->out->stage_count++] =
        (sfq_stage_report){.name = name, .seconds = now - r->stage_begin, .loss = NAN};
    r->stage_begin = now;
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
static sfq_status guard_output(run *r, sfq_error *err)
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

static sfq_status check_request(const run *r, sfq_error *err)
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

static int stage_count(const run *r)
{
    return r->measure != NULL ? 5 : 3;
}

static sfq_status stage_check(run *r, sfq_error *err)
{
    const sfq_compress_options *o = r->options;
    SFQ_TRY(sfq_source_open(&r->source, o, err));
    SFQ_TRY(sfq_plan_check(o, r->source->arch->causal, err));
    SFQ_TRY(guard_output(r, err));
    SFQ_TRY(sfq_outdir_open(&r->dir, o->output, o->force, err));
    SFQ_TRY(sfq_plan_make(&r->plan, r->source, o, stage_count(r), err));
    SFQ_TRY(sfq_plan_preflight(r->plan, o->output, err));
    fill_plan(r->out, r->plan);
    end_stage(r, "check");
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

static sfq_status stage_measure(run *r, const char *dir, const char *name, int index, double *value,
                                sfq_error *err)
{
    if (r->measure == NULL)
        return SFQ_OK;
    stage_view view = {&r->options->hooks, name, index, stage_count(r)};
    sfq_hooks hooks = {&view, view_progress, view_log, view_cancelled};
    SFQ_TRY(sfq_hooks_check(&hooks, err));
    SFQ_TRY(r->measure->run(r->measure->ud, dir, &hooks, r->out->metric, value, err));
    end_stage(r, name);
    return SFQ_OK;
}

static sfq_status stage_fuse(run *r, sfq_error *err)
{
    r->losses = SFQ_NEW_ARRAY(sfq_emit_loss, r->plan->count);
    if (r->losses == NULL)
        return sfq_fail_memory(err, r->plan->count * sizeof *r->losses, "the report");
    int index = r->measure != NULL ? 3 : 2;
    SFQ_TRY(sfq_emit_weights(r->plan, r->source, r->dir, &r->options->hooks, index, stage_count(r),
                             r->losses, err));
    SFQ_TRY(sfq_emit_config(r->plan, r->source, r->dir, err));
    SFQ_TRY(sfq_copy_files(r->source->dir, r->dir, err));
    end_stage(r, "fuse");
    return SFQ_OK;
}

/* The report and the card say how it ended, so they are written last; then all of it appears. */
static sfq_status stage_write(run *r, bool rejected, sfq_error *err)
{
    const char *output = r->out->output;
    sfq_report report = {r->options, r->source, r->plan, r->losses, r->out};
    r->out->seconds = sfq_clock_seconds() - r->begin;
    SFQ_TRY(name_output(r->out, r->options->output, rejected, err));
    SFQ_TRY(sfq_report_write(&report, r->dir, err));
    SFQ_TRY(sfq_card_write(&report, r->dir, err));
    SFQ_TRY(sfq_hooks_check(&r->options->hooks, err));
    const char *slash = strrchr(output, '/');
    const char *last = slash != NULL ? slash + 1 : output;
    SFQ_TRY(sfq_outdir_commit(&r->dir, rejected ? last : NULL, err));
    sfq_hooks_progress(&r->options->hooks, "write", stage_count(r), stage_count(r), r->out->bytes,
                       r->out->bytes, "bytes");
    end_stage(r, "write");
    r->out->seconds = sfq_clock_seconds() - r->begin;
    return SFQ_OK;
}

static sfq_status run_stages(run *r, sfq_error *err)
{
    sfq_compress_result *out = r->out;
    SFQ_TRY(check_request(r, err));
    SFQ_TRY(stage_check(r, err));
    SFQ_TRY(stage_measure(r, r->source->dir, "baseline", 2, &out->baseline, err));
    SFQ_TRY(stage_fuse(r, err));
    SFQ_TRY(stage_measure(r, sfq_outdir_path(r->dir), "evaluate", 4, &out->compressed, err));
    out->measured = r->measure != NULL;
    if (out->measured)
        out->drop = drop_of(out);
    /* written so that a drop that is not a number trips the guard */
    bool rejected =
        out->measured && r->options->max_drop >= 0 && !(out->drop <= r->options->max_drop);
    SFQ_TRY(stage_write(r, rejected, err));
    if (!rejected)
        return SFQ_OK;
    return sfq_fail_at(
        err, SFQ_E_GUARD, out->output, NULL,
        "%s went from %.6g to %.6g, a drop of %.4g where %.4g is allowed; the result "
        "is kept as %s; use more --bits, or allow more with --max-drop",
        out->metric, out->baseline, out->compressed, out->drop, r->options->max_drop, out->output);
}

sfq_status sfq_pipeline_run(const sfq_compress_options *options, const sfq_measure *measure,
                            sfq_compress_result *out, sfq_error *err)
{
    *out = (sfq_compress_result){0};
    run r = {.options = options, .measure = measure, .out = out};
    r.begin = r.stage_begin = sfq_clock_seconds();
    sfq_status status = run_stages(&r, err);
    if (status != SFQ_OK && status != SFQ_E_GUARD)
        out->output[0] = 0; /* nothing is there */
    sfq_outdir_abort(&r.dir);
    sfq_plan_free(&r.plan);
    sfq_source_close(&r.source);
    sfq_mem_free(r.losses);
    return status;
}

sfq_status sfq_pipeline_plan(const sfq_compress_options *options, sfq_compress_result *out,
                             sfq_error *err)
{
    sfq_source *source = NULL;
    sfq_plan *plan = NULL;
    sfq_status status = SFQ_OK;
    *out = (sfq_compress_result){0};
    if (options->model == NULL || *options->model == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "no model was named");
    SFQ_DO(sfq_source_open(&source, options, err));
    SFQ_DO(sfq_plan_check(options, source->arch->causal, err));
    if (options->output != NULL) {
        SFQ_DO(sfq_source_guard(source, options->output, err));
        SFQ_DO(name_output(out, options->output, false, err));
    }
    SFQ_DO(sfq_plan_make(&plan, source, options, 1, err));
    fill_plan(out, plan);
done:
    sfq_plan_free(&plan);
    sfq_source_close(&source);
    return status;
}

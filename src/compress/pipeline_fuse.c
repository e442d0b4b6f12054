/* compress/pipeline_fuse.c - from weights to codes and scales. Fusing reads a directory, so that
 * the original and a student, which lies in the journal, are one case. */
#include "base/hooks.h"
#include "base/mem.h"
#include "compress/copy.h"
#include "compress/packed.h"
#include "compress/pipeline_parts.h"
#include "compress/report.h"
#include "compress/tune.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static sfq_status emit(sfq_run *r, const sfq_plan *plan, const sfq_source *source, sfq_outdir *dir,
                       sfq_error *err)
{
    sfq_status status = SFQ_OK;
    sfq_emit_loss *losses = SFQ_NEW_ARRAY(sfq_emit_loss, plan->count);
    if (losses == NULL)
        return sfq_fail_memory(err, plan->count * sizeof *losses, "the report");
    SFQ_DO(sfq_emit_weights(plan, source, dir, &r->options->hooks, sfq_run_stage_index(r, "fuse"),
                            r->name_count, losses, err));
    SFQ_DO(sfq_emit_config(plan, source, dir, err));
    SFQ_DO(sfq_copy_files(r->source->dir, dir, err));
    SFQ_DO(sfq_report_fused(&r->fused, plan, source, losses, err));
done:
    sfq_mem_free(losses);
    return status;
}

sfq_status sfq_run_fuse_original(sfq_run *r, sfq_error *err)
{
    SFQ_TRY(sfq_run_begin_stage(r, "fuse", err));
    SFQ_TRY(emit(r, r->plan, r->source, r->dir, err));
    sfq_run_add_stage(r, "fuse", sfq_run_lap(r), NAN, 0);
    return SFQ_OK;
}

/* ---- fuse ---- */

static sfq_status measure_packed(sfq_run *r, const char *dir, double *loss, sfq_error *err)
{
    sfq_packed *packed = NULL;
    SFQ_TRY(sfq_run_need_held_out(r, err));
    SFQ_TRY(sfq_packed_open(&packed, dir, &r->options->hooks, err));
    sfq_status status = sfq_loss_measure(r->held_out, packed->bound, loss, err);
    sfq_packed_close(&packed);
    return status;
}

static bool inner_cancelled(void *ud)
{
    const sfq_hooks *hooks = ud;
    return hooks->cancelled != NULL && hooks->cancelled(hooks->ud);
}

/* The second plan of a run tells nothing that the first has not told. */
static sfq_status plan_quietly(sfq_plan **out, const sfq_run *r, const sfq_source *source,
                               sfq_error *err)
{
    sfq_compress_options quiet = *r->options;
    sfq_hooks inner = r->options->hooks;
    quiet.hooks = (sfq_hooks){.ud = &inner, .cancelled = inner_cancelled};
    return sfq_plan_make(out, source, &quiet, r->name_count, err);
}

/* A model's directory (the original, or what pruning and distillation left) fused into dir. */
static sfq_status fuse_source(sfq_run *r, const sfq_source *source, sfq_outdir *dir, sfq_error *err)
{
    sfq_net *net = NULL;
    sfq_energy *energy = NULL;
    sfq_plan *plan = NULL;
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_net_open(&net, source->arch, source->modules, source->ck, NULL, &r->options->hooks,
                        err));
    SFQ_DO(sfq_energy_run(&energy, &r->work, net, err));
    sfq_net_close(&net);
    SFQ_DO(plan_quietly(&plan, r, source, err));
    sfq_plan_weigh(plan, energy);
    SFQ_DO(emit(r, plan, source, dir, err));
done:
    sfq_plan_free(&plan);
    sfq_energy_close(&energy);
    sfq_net_close(&net);
    return status;
}

static sfq_status fuse_student(sfq_run *r, sfq_outdir *dir, sfq_error *err)
{
    const char *student;
    sfq_source *cut = NULL;
    SFQ_TRY(sfq_run_student_dir(r, &student, err));
    sfq_student_close(&r->student); /* what it is lies in the directory */
    if (student == NULL)
        return fuse_source(r, r->source, dir, err);
    SFQ_TRY(sfq_source_open_dir(&cut, student, r->source->pool, &r->options->hooks, err));
    sfq_status status = fuse_source(r, cut, dir, err);
    sfq_source_close(&cut);
    return status;
}

static sfq_status record_fused(sfq_run *r, sfq_outdir **dir, double seconds, double loss,
                               sfq_error *err)
{
    char pruned[SFQ_RUN_ROUND_NAME];
    (void)snprintf(pruned, sizeof pruned, "prune-%d", sfq_prune_rounds(r->options));
    const char *const old[] = {"distill", pruned, NULL};
    json_t *report = sfq_run_stage_json(seconds, loss, 0);
    if (report == NULL || !sfq_run_put(report, "fused", json_incref(r->fused))) {
        json_decref(report);
        return sfq_fail_memory(err, 0, "the journal");
    }
    sfq_status status = sfq_journal_end(r->journal, "fuse", dir, report, old, err);
    json_decref(report);
    return status;
}

static sfq_status fuse(sfq_run *r, double *seconds, double *loss, sfq_error *err)
{
    sfq_outdir *dir = NULL;
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_journal_begin(r->journal, "fuse", &dir, err));
    SFQ_DO(fuse_student(r, dir, err));
    SFQ_DO(measure_packed(r, sfq_outdir_path(dir), loss, err));
    *seconds = sfq_run_lap(r);
    SFQ_DO(record_fused(r, &dir, *seconds, *loss, err));
done:
    sfq_outdir_abort(&dir);
    return status;
}

static sfq_status restore_fused(sfq_run *r, const json_t *report, double *seconds, double *loss,
                                sfq_error *err)
{
    const json_t *fused = json_object_get(report, "fused");
    SFQ_TRY(sfq_run_get_real(r, report, "seconds", seconds, err));
    SFQ_TRY(sfq_run_get_real(r, report, "loss", loss, err));
    if (!json_is_object(fused))
        return sfq_run_fail_journal(r, "the report of the fuse stage", err);
    r->fused = json_incref((json_t *)(uintptr_t)fused);
    return SFQ_OK;
}

sfq_status sfq_run_fuse(sfq_run *r, sfq_error *err)
{
    const json_t *report;
    double seconds = 0;
    double loss = NAN;
    SFQ_TRY(sfq_run_begin_stage(r, "fuse", err));
    if (sfq_journal_done(r->journal, "fuse", &report))
        SFQ_TRY(restore_fused(r, report, &seconds, &loss, err));
    else
        SFQ_TRY(fuse(r, &seconds, &loss, err));
    sfq_run_add_stage(r, "fuse", seconds, loss, 0);
    return sfq_run_keep_stage(r, "fuse", "fused", err);
}

/* ---- tune ---- */

static sfq_status tune(sfq_run *r, sfq_tune_report *out, double *seconds, sfq_error *err)
{
    static const char *const old[] = {"fuse", NULL};
    const char *packed = sfq_journal_find(r->journal, "fuse");
    const char *state;
    sfq_outdir *dir = NULL;
    json_t *report = NULL;
    sfq_status status = SFQ_OK;
    if (packed == NULL)
        return sfq_run_fail_journal(r, "the fused model is gone", err);
    SFQ_DO(sfq_run_need_held_out(r, err));
    SFQ_DO(sfq_journal_state(r->journal, "tune", &state, err));
    SFQ_DO(sfq_journal_begin(r->journal, "tune", &dir, err));
    SFQ_DO(sfq_tune_run(&r->work, packed, r->held_out, state, dir, out, err));
    *seconds = sfq_run_lap(r);
    report = sfq_run_training_json(out, *seconds);
    if (report == NULL) {
        status = sfq_fail_memory(err, 0, "the journal");
        goto done;
    }
    SFQ_DO(sfq_journal_end(r->journal, "tune", &dir, report, old, err));
done:
    sfq_outdir_abort(&dir);
    json_decref(report);
    return status;
}

sfq_status sfq_run_tune(sfq_run *r, sfq_error *err)
{
    const json_t *report;
    sfq_tune_report t = {0};
    double seconds = 0;
    if (!sfq_run_has_stage(r, "tune"))
        return SFQ_OK;
    SFQ_TRY(sfq_run_begin_stage(r, "tune", err));
    if (sfq_journal_done(r->journal, "tune", &report))
        SFQ_TRY(sfq_run_read_training(r, report, &t, &seconds, err));
    else
        SFQ_TRY(tune(r, &t, &seconds, err));
    if (t.late)
        sfq_run_tell_late(r, "tuning ended early");
    sfq_run_add_stage(r, "tune", seconds, t.after, t.steps);
    return SFQ_OK;
}

/* ---- install ---- */

sfq_status sfq_run_install(sfq_run *r, sfq_error *err)
{
    sfq_compress_result *out = r->out;
    double scales = NAN;
    double weights = NAN;
    const char *from = sfq_journal_find(r->journal, sfq_run_has_stage(r, "tune") ? "tune" : "fuse");
    if (from == NULL)
        return sfq_run_fail_journal(r, "the fused model is gone", err);
    SFQ_TRY(sfq_run_take_model(r, from, r->dir, &out->bytes, err));
    SFQ_TRY(sfq_run_get_real(r, r->fused, "scales", &scales, err));
    SFQ_TRY(sfq_run_get_real(r, r->fused, "quantized_weights", &weights, err));
    out->scale_overhead = weights > 0 ? scales / weights : 0;
    if (out->original_bytes > 0)
        out->reduction = 1.0 - (double)out->bytes / (double)out->original_bytes;
    if (r->late)
        (void)snprintf(out->stopped_by, sizeof out->stopped_by, "time");
    return SFQ_OK;
}

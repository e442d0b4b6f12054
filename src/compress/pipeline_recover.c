/* compress/pipeline_recover.c - calibrate, prune, distill: each either done by an earlier run, then
 * its report is read from the journal, or done now and recorded there. What a stage changes of the
 * model goes to a directory before the next begins, in the dtype in which it is held, so a run that
 * goes on has the bytes that an uninterrupted one has. */
#include "base/clock.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "compress/copy.h"
#include "compress/pipeline_parts.h"
#include "compress/request.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char calibration_name[] = "calibration.bin";

/* ---- reports in the journal ---- */

json_t *sfq_run_stage_json(double seconds, double loss, int steps)
{
    return json_pack("{s:f, s:o, s:i}", "seconds", seconds, "loss",
                     isfinite(loss) ? json_real(loss) : json_null(), "steps", steps);
}

bool sfq_run_put(json_t *report, const char *key, json_t *value)
{
    return json_object_set_new(report, key, value) == 0;
}

/* A journal comes from a disk: ranges are proved. Missing numbers are NaN. */
sfq_status sfq_run_get_real(const sfq_run *r, const json_t *report, const char *key, double *out,
                            sfq_error *err)
{
    const double none = NAN;
    return sfq_json_real(report, sfq_journal_path(r->journal), key, -1e300, 1e300, &none, out, err);
}

sfq_status sfq_run_get_int(const sfq_run *r, const json_t *report, const char *key, int *out,
                           sfq_error *err)
{
    int64_t value = 0;
    const int64_t none = 0;
    SFQ_TRY(
        sfq_json_int(report, sfq_journal_path(r->journal), key, 0, INT32_MAX, &none, &value, err));
    *out = (int)value;
    return SFQ_OK;
}

/* ---- what the stages share ---- */

static sfq_status read_choice(sfq_run *r, sfq_error *err)
{
    const json_t *report;
    const char *name = NULL;
    const char *file = sfq_journal_path(r->journal);
    if (!sfq_journal_done(r->journal, "calibrate", &report))
        return SFQ_OK;
    SFQ_TRY(sfq_json_string(report, file, "student", true, &name, err));
    if (!sfq_dtype_from_name(name, strlen(name), &r->choice.dtype) ||
        !sfq_dtype_info(r->choice.dtype)->is_float)
        return sfq_fail_at(err, SFQ_E_FORMAT, file, NULL, "%s: \"%s\" is no dtype of a student",
                           file, name);
    r->choice.made = true;
    return SFQ_OK;
}

static double deadline(const sfq_run *r)
{
    const double minutes = r->options->minutes;
    return minutes > 0 ? r->begin + 60 * minutes - sfq_journal_seconds(r->journal)
                       : (double)INFINITY;
}

sfq_status sfq_run_open_work(sfq_run *r, sfq_error *err)
{
    const sfq_compress_options *o = r->options;
    const sfq_source *s = r->source;
    sfq_isa cap;
    SFQ_TRY(sfq_isa_from_env(&cap, err));
    SFQ_TRY(sfq_journal_open(&r->journal, s, o, err));
    SFQ_TRY(read_choice(r, err));
    SFQ_TRY(sfq_net_open(&r->teacher, s->arch, s->modules, s->ck, NULL, &o->hooks, err));
    r->work = (sfq_work){.options = o,
                         .source = s,
                         .teacher = r->teacher,
                         .kernels = sfq_kernels_get(cap),
                         .pool = s->pool,
                         .stage = "check",
                         .index = 1,
                         .deadline = deadline(r)};
    if (sfq_journal_last(r->journal) != NULL)
        sfq_hooks_log(&o->hooks, SFQ_LOG_NOTE, "going on after stage %s of an earlier run (%.0f s)",
                      sfq_journal_last(r->journal), sfq_journal_seconds(r->journal));
    return SFQ_OK;
}

void sfq_run_close_work(sfq_run *r)
{
    sfq_student_close(&r->student);
    sfq_loss_close(&r->held_out);
    sfq_calibration_close(&r->calibration);
    sfq_net_close(&r->teacher);
    sfq_journal_close(&r->journal);
}

void sfq_run_tell_late(sfq_run *r, const char *what)
{
    r->late = true;
    sfq_hooks_log(&r->options->hooks, SFQ_LOG_NOTE,
                  "--minutes %g is over: %s; the bytes of this result are not reproducible",
                  r->options->minutes, what);
}

/* ---- calibrate ---- */

/* What decides whether a baseline of an earlier run still counts, without opening the dev split; ""
 * for texts, whose set-aside part lies in the journal. */
static sfq_status digest_dev(const sfq_run *r, char hex[33], sfq_error *err)
{
    hex[0] = 0;
    if (r->options->data == NULL)
        return SFQ_OK;
    return sfq_request_split(hex, r->options->data, "dev", false, err);
}

static sfq_status measure_baseline(sfq_run *r, const char *dir, double *seconds, sfq_error *err)
{
    if (r->measure == NULL)
        return SFQ_OK;
    SFQ_TRY(sfq_run_measure(r, r->source->dir, dir, "baseline", &r->out->baseline, err));
    *seconds = sfq_run_lap(r);
    return SFQ_OK;
}

static void add_stages(sfq_run *r, double baseline_seconds, double seconds)
{
    if (r->measure != NULL)
        sfq_run_add_stage(r, "baseline", baseline_seconds, NAN, 0);
    sfq_run_add_stage(r, "calibrate", seconds, NAN, 0);
    r->work.calibration = r->calibration;
    r->out->calibration_sequences = r->calibration->count;
    r->out->calibration_tokens = sfq_calibration_tokens(r->calibration);
    r->out->calibration_fraction = r->calibration->fraction;
    if (r->calibration->late)
        sfq_run_tell_late(r, "calibration took what it had");
}

static sfq_status restore_calibration(sfq_run *r, const json_t *report, sfq_error *err)
{
    const char *dir = sfq_journal_find(r->journal, "calibrate");
    const char *dev = NULL;
    const char *metric = NULL;
    char now[33];
    double seconds = 0;
    double baseline_seconds = 0;
    if (dir == NULL)
        return sfq_run_fail_journal(r, "the calibration set is gone", err);
    char *path = sfq_path_join(dir, calibration_name);
    if (path == NULL)
        return sfq_fail_memory(err, 0, "a path");
    sfq_status status = sfq_calibration_load(&r->calibration, path, r->source->arch, err);
    sfq_mem_free(path);
    SFQ_TRY(status);
    r->calibration->late = json_is_true(json_object_get(report, "late"));
    SFQ_TRY(sfq_run_get_real(r, report, "seconds", &seconds, err));
    SFQ_TRY(sfq_run_get_real(r, report, "baseline_seconds", &baseline_seconds, err));
    SFQ_TRY(sfq_run_get_real(r, report, "baseline", &r->out->baseline, err));
    SFQ_TRY(sfq_json_string(report, sfq_journal_path(r->journal), "dev", false, &dev, err));
    SFQ_TRY(sfq_json_string(report, sfq_journal_path(r->journal), "metric", false, &metric, err));
    SFQ_TRY(digest_dev(r, now, err));
    if (dev == NULL || strcmp(dev, now) != 0 || metric == NULL)
        SFQ_TRY(measure_baseline(r, dir, &baseline_seconds, err));
    else
        (void)snprintf(r->out->metric, sizeof r->out->metric, "%s", metric);
    add_stages(r, baseline_seconds, seconds);
    return SFQ_OK;
}

static sfq_status record_calibration(sfq_run *r, sfq_outdir **dir, double baseline_seconds,
                                     double seconds, sfq_error *err)
{
    char dev[33];
    SFQ_TRY(digest_dev(r, dev, err));
    bool measured = r->measure != NULL;
    json_t *report = json_pack(
        "{s:f, s:f, s:o, s:o, s:s, s:s, s:b}", "seconds", seconds, "baseline_seconds",
        baseline_seconds, "metric", measured ? json_string(r->out->metric) : json_null(),
        "baseline",
        measured && isfinite(r->out->baseline) ? json_real(r->out->baseline) : json_null(), "dev",
        dev, "student", sfq_dtype_info(r->choice.dtype)->name, "late", (int)r->calibration->late);
    if (report == NULL)
        return sfq_fail_memory(err, 0, "the journal");
    sfq_status status = sfq_journal_end(r->journal, "calibrate", dir, report, NULL, err);
    json_decref(report);
    return status;
}

/* Half of what is left: what it serves needs the other half. */
static double calibration_deadline(const sfq_run *r)
{
    const double now = sfq_clock_seconds();
    return now + (r->work.deadline - now) / 2;
}

sfq_status sfq_run_calibrate(sfq_run *r, sfq_error *err)
{
    const json_t *report;
    double seconds = 0;
    double baseline_seconds = 0;
    sfq_status status = SFQ_OK;
    sfq_outdir *dir = NULL;
    if (sfq_journal_done(r->journal, "calibrate", &report))
        return restore_calibration(r, report, err);
    SFQ_DO(sfq_journal_begin(r->journal, "calibrate", &dir, err));
    if (r->options->text_count > 0)
        SFQ_DO(sfq_calibration_put_test(r->options, dir, SFQ_RUN_TEST_TEXT, err));
    SFQ_DO(measure_baseline(r, sfq_outdir_path(dir), &baseline_seconds, err));
    SFQ_DO(sfq_run_begin_stage(r, "calibrate", err));
    SFQ_DO(sfq_calibration_make(&r->calibration, r->source, r->teacher, r->work.kernels, r->options,
                                r->work.index, r->work.stages, calibration_deadline(r), err));
    SFQ_DO(sfq_calibration_save(r->calibration, dir, calibration_name, err));
    seconds = sfq_run_lap(r);
    SFQ_DO(record_calibration(r, &dir, baseline_seconds, seconds, err));
    add_stages(r, baseline_seconds, seconds);
done:
    sfq_outdir_abort(&dir);
    return status;
}

/* ---- the student ---- */

static void round_name(char name[SFQ_RUN_ROUND_NAME], int round)
{
    (void)snprintf(name, SFQ_RUN_ROUND_NAME, "prune-%d", round);
}

/* Rounds of pruning that are done; name: of the last one. */
static int rounds_done(const sfq_run *r, char name[SFQ_RUN_ROUND_NAME])
{
    int round = sfq_prune_rounds(r->options);
    for (; round > 0; round--) {
        round_name(name, round);
        if (sfq_journal_done(r->journal, name, NULL))
            break;
    }
    return round;
}

sfq_status sfq_run_fail_journal(const sfq_run *r, const char *what, sfq_error *err)
{
    const char *path = sfq_journal_path(r->journal);
    return sfq_fail_at(err, SFQ_E_FORMAT, path, NULL, "%s: damaged (%s); start anew with --force",
                       path, what);
}

sfq_status sfq_run_student_dir(const sfq_run *r, const char **dir, sfq_error *err)
{
    char name[SFQ_RUN_ROUND_NAME];
    *dir = sfq_journal_find(r->journal, "distill");
    if (*dir != NULL || r->options->prune == 0 || rounds_done(r, name) == 0)
        return SFQ_OK;
    *dir = sfq_journal_find(r->journal, name);
    return *dir != NULL ? SFQ_OK : sfq_run_fail_journal(r, "the pruned model is gone", err);
}

sfq_status sfq_run_need_student(sfq_run *r, sfq_error *err)
{
    const char *dir;
    sfq_source *cut = NULL;
    sfq_status status = SFQ_OK;
    const sfq_hooks *hooks = &r->options->hooks;
    if (r->student != NULL)
        return SFQ_OK;
    SFQ_TRY(sfq_run_student_dir(r, &dir, err));
    if (dir == NULL)
        return sfq_student_open(&r->student, r->source, r->choice.dtype, hooks, err);
    SFQ_DO(sfq_source_open_dir(&cut, dir, r->source->pool, hooks, err));
    SFQ_DO(sfq_student_open(&r->student, cut, r->choice.dtype, hooks, err));
done:
    sfq_source_close(&cut);
    return status;
}

sfq_status sfq_run_need_held_out(sfq_run *r, sfq_error *err)
{
    if (r->held_out != NULL)
        return SFQ_OK;
    return sfq_loss_open(&r->held_out, &r->work, r->calibration->tune, r->calibration->count, err);
}

/* The student as it is, as the result of a stage: with the files that opening it again takes. */
static sfq_status record_student(sfq_run *r, const char *stage, const json_t *report,
                                 const char *obsolete, sfq_error *err)
{
    const char *const old[] = {obsolete, NULL};
    sfq_outdir *dir = NULL;
    sfq_status status = SFQ_OK;
    if (report == NULL)
        return sfq_fail_memory(err, 0, "the journal");
    SFQ_DO(sfq_journal_begin(r->journal, stage, &dir, err));
    SFQ_DO(sfq_student_write(r->student, r->source, dir, &r->options->hooks, err));
    SFQ_DO(sfq_copy_files(r->source->dir, dir, err));
    SFQ_DO(sfq_journal_end(r->journal, stage, &dir, report, old, err));
done:
    sfq_outdir_abort(&dir);
    return status;
}

/* ---- prune ---- */

static json_t *prune_json(const sfq_prune_report *p, bool late)
{
    return json_pack(
        "{s:f, s:f, s:o, s:o, s:i, s:i, s:f, s:i, s:i, s:b}", "cut_seconds", p->cut_seconds,
        "reconstruct_seconds", p->reconstruct_seconds, "cut_loss",
        isfinite(p->cut_loss) ? json_real(p->cut_loss) : json_null(), "reconstructed_loss",
        isfinite(p->reconstructed_loss) ? json_real(p->reconstructed_loss) : json_null(), "heads",
        p->heads, "neurons", p->neurons, "fraction", p->fraction, "solved", p->solved, "kept",
        p->kept, "late", (int)late);
}

static sfq_status read_prune(sfq_run *r, const json_t *report, sfq_error *err)
{
    sfq_prune_report *p = &r->pruned;
    SFQ_TRY(sfq_run_get_real(r, report, "cut_seconds", &p->cut_seconds, err));
    SFQ_TRY(sfq_run_get_real(r, report, "reconstruct_seconds", &p->reconstruct_seconds, err));
    SFQ_TRY(sfq_run_get_real(r, report, "cut_loss", &p->cut_loss, err));
    SFQ_TRY(sfq_run_get_real(r, report, "reconstructed_loss", &p->reconstructed_loss, err));
    SFQ_TRY(sfq_run_get_real(r, report, "fraction", &p->fraction, err));
    SFQ_TRY(sfq_run_get_int(r, report, "heads", &p->heads, err));
    SFQ_TRY(sfq_run_get_int(r, report, "neurons", &p->neurons, err));
    SFQ_TRY(sfq_run_get_int(r, report, "solved", &p->solved, err));
    SFQ_TRY(sfq_run_get_int(r, report, "kept", &p->kept, err));
    if (json_is_true(json_object_get(report, "late")))
        sfq_run_tell_late(r, "rounds of pruning were left out");
    return SFQ_OK;
}

static sfq_status prune_round(sfq_run *r, int round, const char *before, sfq_error *err)
{
    char name[SFQ_RUN_ROUND_NAME];
    sfq_saliency *saliency = NULL;
    json_t *report = NULL;
    sfq_status status = SFQ_OK;
    round_name(name, round + 1);
    SFQ_DO(sfq_work_check(&r->work, err));
    SFQ_DO(sfq_prune_cut(&saliency, &r->work, r->student, round, &r->pruned, err));
    if (round + 1 == sfq_prune_rounds(r->options))
        SFQ_DO(sfq_run_keep_student(r, "pruned", err));
    SFQ_DO(sfq_prune_refit(&r->work, r->student, saliency, r->held_out, round, &r->pruned, err));
    report = prune_json(&r->pruned, r->late);
    SFQ_DO(record_student(r, name, report, before, err));
done:
    json_decref(report);
    sfq_saliency_close(&saliency);
    return status;
}

/* The rounds that are not done. Once --minutes is over the last one takes what is left to remove:
 * the share is a promise, the number of rounds is not. */
static sfq_status prune_rounds(sfq_run *r, int first, const char *last, sfq_error *err)
{
    char before[SFQ_RUN_ROUND_NAME];
    const int rounds = sfq_prune_rounds(r->options);
    (void)snprintf(before, sizeof before, "%s", last);
    if (first == rounds)
        return SFQ_OK;
    SFQ_TRY(sfq_run_need_held_out(r, err));
    SFQ_TRY(sfq_run_need_student(r, err));
    for (int round = first; round < rounds; round++) {
        if (round + 1 < rounds && sfq_work_late(&r->work)) {
            sfq_run_tell_late(r, "what is left to prune goes in one round");
            round = rounds - 1;
        }
        SFQ_TRY(prune_round(r, round, before[0] != 0 ? before : NULL, err));
        round_name(before, round + 1);
    }
    return SFQ_OK;
}

sfq_status sfq_run_prune(sfq_run *r, sfq_error *err)
{
    char last[SFQ_RUN_ROUND_NAME] = "";
    const json_t *report;
    if (r->options->prune == 0)
        return SFQ_OK;
    SFQ_TRY(sfq_run_begin_stage(r, "prune", err));
    const int done = rounds_done(r, last);
    if (done > 0) {
        (void)sfq_journal_done(r->journal, last, &report);
        SFQ_TRY(read_prune(r, report, err));
    } else {
        last[0] = 0;
    }
    SFQ_TRY(prune_rounds(r, done, last, err));
    r->has_pruned = true;
    r->out->pruned_heads = r->pruned.heads;
    r->out->pruned_neurons = r->pruned.neurons;
    r->out->pruned_fraction = r->pruned.fraction;
    (void)sfq_run_lap(r);
    sfq_run_add_stage(r, "prune", r->pruned.cut_seconds, r->pruned.cut_loss, 0);
    sfq_run_add_stage(r, "reconstruct", r->pruned.reconstruct_seconds, r->pruned.reconstructed_loss,
                      0);
    round_name(last, sfq_prune_rounds(r->options));
    return sfq_run_keep_stage(r, last, "reconstructed", err);
}

/* ---- distill ---- */

json_t *sfq_run_training_json(const sfq_distill_report *d, double seconds)
{
    json_t *report = sfq_run_stage_json(seconds, d->after, d->steps);
    bool ok =
        report != NULL &&
        sfq_run_put(report, "before", isfinite(d->before) ? json_real(d->before) : json_null()) &&
        sfq_run_put(report, "best", json_integer(d->best)) &&
        sfq_run_put(report, "late", json_boolean(d->late));
    if (ok)
        return report;
    json_decref(report);
    return NULL;
}

sfq_status sfq_run_read_training(sfq_run *r, const json_t *report, sfq_distill_report *out,
                                 double *seconds, sfq_error *err)
{
    SFQ_TRY(sfq_run_get_real(r, report, "seconds", seconds, err));
    SFQ_TRY(sfq_run_get_real(r, report, "before", &out->before, err));
    SFQ_TRY(sfq_run_get_real(r, report, "loss", &out->after, err));
    SFQ_TRY(sfq_run_get_int(r, report, "steps", &out->steps, err));
    SFQ_TRY(sfq_run_get_int(r, report, "best", &out->best, err));
    out->late = json_is_true(json_object_get(report, "late"));
    return SFQ_OK;
}

static sfq_status distill(sfq_run *r, sfq_distill_report *out, double *seconds, sfq_error *err)
{
    char before[SFQ_RUN_ROUND_NAME];
    const char *state;
    SFQ_TRY(sfq_run_need_held_out(r, err));
    SFQ_TRY(sfq_run_need_student(r, err));
    SFQ_TRY(sfq_journal_state(r->journal, "distill", &state, err));
    SFQ_TRY(sfq_distill_run(&r->work, r->student, r->held_out, state, out, err));
    *seconds = sfq_run_lap(r);
    (void)rounds_done(r, before);
    json_t *report = sfq_run_training_json(out, *seconds);
    sfq_status status = record_student(r, "distill", report, before, err);
    json_decref(report);
    return status;
}

sfq_status sfq_run_distill(sfq_run *r, sfq_error *err)
{
    const json_t *report;
    sfq_distill_report d = {0};
    double seconds = 0;
    if (!sfq_run_has_stage(r, "distill"))
        return SFQ_OK;
    SFQ_TRY(sfq_run_begin_stage(r, "distill", err));
    if (sfq_journal_done(r->journal, "distill", &report))
        SFQ_TRY(sfq_run_read_training(r, report, &d, &seconds, err));
    else
        SFQ_TRY(distill(r, &d, &seconds, err));
    if (d.late)
        sfq_run_tell_late(r, "distillation ended early");
    sfq_run_add_stage(r, "distill", seconds, d.after, d.steps);
    return sfq_run_keep_stage(r, "distill", "distilled", err);
}

/* compress/pipeline_parts.h - one run of the pipeline, as the files pipeline*.c share it. For this
 * folder only. */
#ifndef SFQ_COMPRESS_PIPELINE_PARTS_H
#define SFQ_COMPRESS_PIPELINE_PARTS_H

#include "compress/distill.h"
#include "compress/emit.h"
#include "compress/estimate.h"
#include "compress/journal.h"
#include "compress/pipeline.h"
#include "compress/prune.h"

enum { SFQ_RUN_STAGES = 12, SFQ_RUN_ROUND_NAME = 24 };
#define SFQ_RUN_TEST_TEXT "test.txt" /* the part of the texts that is set aside */

typedef struct sfq_run {
    const sfq_compress_options *options;
    const sfq_measure *measure; /* NULL: nothing is measured */
    sfq_compress_result *out;
    sfq_source *source;
    sfq_plan *plan; /* of the original */
    sfq_estimate estimate;
    sfq_outdir *dir; /* of the artifact */
    json_t *fused;   /* what fusing did (report.h) */
    double begin, stage_begin;
    const char *names[SFQ_RUN_STAGES]; /* of the stages that this run has, for progress */
    int name_count;

    /* what only a run that prunes or recalibrates has */
    bool recovers;
    bool late; /* --minutes cut something short */
    sfq_journal *journal;
    sfq_net *teacher; /* the original, over its file's map */
    sfq_calibration *calibration;
    sfq_loss *held_out;   /* opened by the first stage that asks */
    sfq_student *student; /* the same; NULL between stages that do not need it */
    sfq_student_choice choice;
    sfq_work work;
    sfq_prune_report pruned;
    bool has_pruned;
} sfq_run;

/* ---- pipeline.c ---- */

/* The stage begins: progress and stages that report through run->work say its name. */
sfq_status sfq_run_begin_stage(sfq_run *run, const char *name, sfq_error *err);
bool sfq_run_has_stage(const sfq_run *run, const char *name);
int sfq_run_stage_index(const sfq_run *run, const char *name);
void sfq_run_add_stage(sfq_run *run, const char *name, double seconds, double loss, int steps);
/* Seconds since the last call, or since the run began. */
double sfq_run_lap(sfq_run *run);
/* Measures a model's directory under the name of a stage; on texts, on the part of them that is set
 * aside in the directory `texts`. */
sfq_status sfq_run_measure(sfq_run *run, const char *dir, const char *texts, const char *name,
                           double *value, sfq_error *err);

/* ---- pipeline_recover.c: what is done to the model before it is fused ---- */

/* Opens the journal, the original's net and the rest of run->work. */
sfq_status sfq_run_open_work(sfq_run *run, sfq_error *err);
/* The set, and the baseline, which for texts needs the part that is set aside. */
sfq_status sfq_run_calibrate(sfq_run *run, sfq_error *err);
sfq_status sfq_run_prune(sfq_run *run, sfq_error *err);
sfq_status sfq_run_distill(sfq_run *run, sfq_error *err);
/* The directory of the student as the stages that are done left it; NULL: it is the original. */
sfq_status sfq_run_student_dir(const sfq_run *run, const char **dir, sfq_error *err);
/* run->student as there; run->held_out. */
sfq_status sfq_run_need_student(sfq_run *run, sfq_error *err);
sfq_status sfq_run_need_held_out(sfq_run *run, sfq_error *err);
void sfq_run_close_work(sfq_run *run);
/* --minutes is over: `what` was cut short. */
void sfq_run_tell_late(sfq_run *run, const char *what);

/* Stages' reports in the journal; numbers that are not finite are null there and NaN here. NULL:
 * out of memory. FORMAT for values that no run writes. */
json_t *sfq_run_stage_json(double seconds, double loss, int steps);
json_t *sfq_run_training_json(const sfq_distill_report *report, double seconds);
bool sfq_run_put(json_t *report, const char *key, json_t *value); /* steals value */
sfq_status sfq_run_get_real(const sfq_run *run, const json_t *report, const char *key, double *out,
                            sfq_error *err);
sfq_status sfq_run_get_int(const sfq_run *run, const json_t *report, const char *key, int *out,
                           sfq_error *err);
sfq_status sfq_run_read_training(sfq_run *run, const json_t *report, sfq_distill_report *out,
                                 double *seconds, sfq_error *err);
sfq_status sfq_run_fail_journal(const sfq_run *run, const char *what, sfq_error *err);

/* ---- pipeline_fuse.c: codes and scales, and what is done to them ---- */

/* Straight from the original into run->dir. */
sfq_status sfq_run_fuse_original(sfq_run *run, sfq_error *err);
/* From the student into the journal; then tuned there; then into run->dir. */
sfq_status sfq_run_fuse(sfq_run *run, sfq_error *err);
sfq_status sfq_run_tune(sfq_run *run, sfq_error *err);
sfq_status sfq_run_install(sfq_run *run, sfq_error *err);

/* ---- pipeline_keep.c: what stages leave for a user to look at ---- */

/* EXISTS where --keep-stages would write over what no run of this request has left. */
sfq_status sfq_run_keep_check(const sfq_run *run, sfq_error *err);
/* With --keep-stages OUTPUT.NAME becomes a model that opens: run->student as it is, or what a stage
 * left in the journal (nothing, where that is gone: then an earlier process has kept it). */
sfq_status sfq_run_keep_student(const sfq_run *run, const char *name, sfq_error *err);
sfq_status sfq_run_keep_stage(const sfq_run *run, const char *stage, const char *name,
                              sfq_error *err);
/* The model in the directory `from` as dir's, with the source's other files; bytes: of its weights,
 * may be NULL. */
sfq_status sfq_run_take_model(const sfq_run *run, const char *from, sfq_outdir *dir,
                              uint64_t *bytes, sfq_error *err);

#endif

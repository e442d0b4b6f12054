/* unit/work_fixture.h - what a stage of recalibration gets, made for tests: a model directory as
 * the original, its weights as teacher, and sequences of random tokens as calibration set. */
#ifndef SFQ_TESTS_WORK_FIXTURE_H
#define SFQ_TESTS_WORK_FIXTURE_H

#include "unit/random_model.h"

#include "compress/prune.h"
#include "compress/work.h"

#include <math.h>

typedef struct work_fixture {
    sfq_compress_options options;
    sfq_source *source;
    sfq_net *teacher;
    sfq_calibration *calibration;
    sfq_work work;
} work_fixture;

enum { WORK_SEQUENCES = 15, WORK_TUNE = 12, WORK_LONGEST = 13 };

static inline void work_calibrate(work_fixture *w, size_t sequences, size_t tune, size_t longest)
{
    const sfq_arch *a = w->source->arch;
    sfq_calibration *c = SFQ_NEW(sfq_calibration);
    assert_non_null(c);
    w->calibration = c;
    c->count = sequences;
    c->tune = tune;
    c->offset = SFQ_NEW_ARRAY(size_t, sequences + 1);
    c->ids = SFQ_NEW_ARRAY(int32_t, sequences * longest);
    c->types = a->type_vocab > 0 ? SFQ_NEW_ARRAY(int32_t, sequences * longest) : NULL;
    assert_true(c->offset != NULL && c->ids != NULL);
    for (size_t i = 0; i < sequences; i++) {
        size_t length = 3 + (size_t)(sfq_rng_u64(1, 2, i) % (longest - 2));
        size_t at = c->offset[i];
        for (size_t j = 0; j < length; j++) {
            c->ids[at + j] = (int32_t)(sfq_rng_u64(1, 3 + i, j) % (uint64_t)a->vocab);
            if (c->types != NULL)
                c->types[at + j] = a->type_vocab > 1 && 2 * j > length;
        }
        c->offset[i + 1] = at + length;
    }
    memcpy(c->origin, a->head == SFQ_MODEL_HEAD_LM ? "text" : "task", 5);
}

static inline void work_open(work_fixture *w, const char *model, int threads)
{
    sfq_error err = {0};
    *w = (work_fixture){.options = {.struct_size = sizeof(sfq_compress_options),
                                    .model = model,
                                    .threads = threads,
                                    .steps = -1}};
    assert_ok(sfq_source_open(&w->source, &w->options, &err));
    assert_ok(sfq_net_open(&w->teacher, w->source->arch, w->source->modules, w->source->ck, NULL,
                           NULL, &err));
    w->work = (sfq_work){.options = &w->options,
                         .source = w->source,
                         .teacher = w->teacher,
                         .kernels = sfq_kernels_get(SFQ_ISA_COUNT),
                         .pool = w->source->pool,
                         .stage = "test",
                         .index = 1,
                         .stages = 1,
                         .deadline = (double)INFINITY};
    work_calibrate(w, WORK_SEQUENCES, WORK_TUNE, WORK_LONGEST);
    w->work.calibration = w->calibration;
}

static inline void work_close(work_fixture *w)
{
    sfq_calibration_close(&w->calibration);
    sfq_net_close(&w->teacher);
    sfq_source_close(&w->source);
}

/* A round of pruning, both halves, as the pipeline runs it. */
static inline sfq_status work_prune_round(const sfq_work *work, sfq_student *student,
                                          sfq_loss *loss, int round, sfq_prune_report *report,
                                          sfq_error *error)
{
    sfq_saliency *saliency = NULL;
    SFQ_TRY(sfq_prune_cut(&saliency, work, student, round, report, error));
    sfq_status status = sfq_prune_refit(work, student, saliency, loss, round, report, error);
    sfq_saliency_close(&saliency);
    return status;
}

#endif

/* A round of pruning under the seam, with every saliency: each allocation fails once. Then: out of
 * memory, said so, and nothing kept. */
#include "fault/seam.h"

#include "compress/prune.h"
#include "unit/work_fixture.h"

static const sfq_hooks no_hooks;

typedef struct room {
    work_fixture w;
    sfq_student *student;
    sfq_loss *loss;
} room;

static void room_open(room *r, const char *model, const char *saliency)
{
    sfq_error err = {0};
    work_open(&r->w, model, 1);
    r->w.options.prune = 0.1;
    r->w.options.rounds = 1;
    r->w.options.saliency = saliency;
    assert_ok(sfq_student_open(&r->student, r->w.source, SFQ_F32, &no_hooks, &err));
    assert_ok(sfq_loss_open(&r->loss, &r->w.work, WORK_TUNE, WORK_SEQUENCES, &err));
}

static void room_close(room *r)
{
    sfq_loss_close(&r->loss);
    sfq_student_close(&r->student);
    work_close(&r->w);
}

/* Whether the n-th allocation of a round was there to fail; 0: none shall. */
static bool fail_one(const char *model, const char *saliency, unsigned long n)
{
    sfq_prune_report report = {0};
    sfq_error err = {0};
    double loss;
    char spec[64];
    room r;
    room_open(&r, model, saliency);
    assert_ok(sfq_loss_measure(r.loss, r.student->net, &loss, &err)); /* it keeps its room */
    snprintf(spec, sizeof spec, "alloc:%lu", n);
    assert_true(seam_arm(n > 0 ? spec : NULL));
    const sfq_status status = work_prune_round(&r.w.work, r.student, r.loss, 0, &report, &err);
    const bool fired = seam_fired();
    const long live = seam_live();
    seam_disarm();
    if (fired && status != SFQ_E_MEMORY)
        fail_msg("%s, allocation %lu failed: status %d, %s", saliency, n, status, err.message);
    if (!fired)
        assert_ok(status);
    if (n > 0 && live != 0)
        fail_msg("%s, allocation %lu failed: %ld pieces left behind", saliency, n, live);
    room_close(&r);
    return fired;
}

static void every_allocation(void **state)
{
    char dir[SCRATCH_ROOM];
    (void)state;
    scratch_open(dir);
    for (int i = 0; i < 2; i++) { /* llama, and a BERT-like one */
        const struct random_family *family = &random_families[i == 0 ? 0 : RANDOM_FAMILIES - 1];
        const char *model = scratch_path(dir, family->name);
        random_model(model, family->config, SFQ_F32, 5);
        for (int kind = 0; kind < SFQ_SALIENCY_COUNT; kind++) {
            unsigned long n = 1;
            while (fail_one(model, sfq_saliency_name((sfq_saliency_kind)kind), n))
                n++;
            assert_true(n > 30);
        }
    }
    scratch_close(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

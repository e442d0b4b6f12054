/* A round of pruning under the seam, with every saliency, and the public calls that prune outside
 * any model: each allocation fails once. Then: out of memory, said so, and nothing kept. */
#include "fault/seam.h"

#include "compress/prune.h"
#include "unit/work_fixture.h"

#include <sfq/prune.h>

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

typedef sfq_status (*public_call)(sfq_workers *workers, sfq_error *err);

static sfq_status choose(sfq_workers *workers, sfq_error *err)
{
    const double saliency[4] = {3, 1, 2, 4};
    const uint64_t cost[4] = {1, 1, 1, 1};
    const uint32_t group[4] = {0, 0, 1, 1};
    const size_t floor[2] = {1, 0}, multiple[2] = {1, 2};
    const sfq_prune_units units = {4, 2, saliency, cost, group, floor, multiple};
    bool keep[4] = {false};
    (void)workers;
    const sfq_status status = sfq_prune_choose_units(&units, 0.25, keep, err);
    if (status == SFQ_OK)
        assert_true(keep[0] && !keep[1] && keep[2] && keep[3]);
    return status;
}

static sfq_status refit(sfq_workers *workers, sfq_error *err)
{
    const double gram[4] = {1, 0, 0.5, 1};
    const float w[2] = {1, 1};
    const bool keep[2] = {true, false};
    float out[1] = {0};
    const sfq_prune_matrix m = {.n = 1, .k = 2, .w = w, .gram = gram, .keep = keep};
    const sfq_status status = sfq_prune_refit_matrix(workers, &m, out, err);
    if (status == SFQ_OK)
        assert_near((double)out[0], 1.5, 1e-6);
    return status;
}

static void public_calls(void **state)
{
    const public_call calls[] = {choose, refit};
    sfq_error err = {0};
    sfq_workers *workers = NULL;
    (void)state;
    assert_ok(sfq_workers_open(&workers, 1, &err));
    for (int i = 0; i < 2; i++) {
        bool fired = true;
        unsigned long n = 1;
        for (; fired; n++) {
            char spec[64];
            snprintf(spec, sizeof spec, "alloc:%lu", n);
            assert_true(seam_arm(spec));
            const sfq_status status = calls[i](workers, &err);
            fired = seam_fired();
            const long live = seam_live();
            seam_disarm();
            assert_int_equal(status, fired ? SFQ_E_MEMORY : SFQ_OK);
            assert_int_equal(live, 0);
        }
        assert_true(n > 6);
    }
    sfq_workers_close(&workers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation),
                                       cmocka_unit_test(public_calls)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

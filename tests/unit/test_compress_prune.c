/* Pruning as a stage: what Fisher calls worthless costs less than what it calls worthy, refitting
 * lowers the held-out loss and never raises it, shares and protected sublayers are obeyed, the same
 * bits at any thread count, damaged weights are named. */
#include "unit/work_fixture.h"

#include "compress/prune.h"
#include "compress/ridge.h"

static sfq_error err;
static const sfq_hooks no_hooks;

/* ---- a model with a student and a held-out loss ---- */

typedef struct trial {
    work_fixture w;
    sfq_student *student;
    sfq_loss *loss;
} trial;

static void trial_open(trial *t, const char *model, int threads, size_t sequences)
{
    work_open(&t->w, model, threads);
    sfq_calibration_close(&t->w.calibration);
    work_calibrate(&t->w, sequences, sequences * 4 / 5, 24);
    t->w.work.calibration = t->w.calibration;
    t->w.options.seed = 7;
    assert_ok(sfq_student_open(&t->student, t->w.source, SFQ_F32, &no_hooks, &err));
    assert_ok(
        sfq_loss_open(&t->loss, &t->w.work, t->w.calibration->tune, t->w.calibration->count, &err));
}

static void trial_close(trial *t)
{
    sfq_loss_close(&t->loss);
    sfq_student_close(&t->student);
    work_close(&t->w);
}

static double measure(const trial *t)
{
    double loss = 0;
    assert_ok(sfq_loss_measure(t->loss, t->student->net, &loss, &err));
    return loss;
}

/* A number that depends on every bit of every block matrix and its bias. */
static uint64_t fingerprint(const sfq_student *s)
{
    static const sfq_role roles[] = {SFQ_ROLE_Q, SFQ_ROLE_K,    SFQ_ROLE_V,  SFQ_ROLE_QKV,
                                     SFQ_ROLE_O, SFQ_ROLE_GATE, SFQ_ROLE_UP, SFQ_ROLE_DOWN};
    uint64_t h = 1;
    for (int l = 0; l < s->arch->layers; l++)
        for (size_t r = 0; r < sizeof roles / sizeof *roles; r++) {
            sfq_matrix *m = sfq_student_matrix((sfq_student *)s, roles[r], l);
            const float *bias = m != NULL ? sfq_student_bias(m) : NULL;
            float row[640];
            for (size_t n = 0; m != NULL && n < m->n; n++) {
                assert_true(m->k < sizeof row / sizeof *row);
                row[m->k] = bias != NULL ? bias[n] : 0;
                sfq_student_get_rows(m, n, 1, row);
                for (size_t k = 0; k <= m->k; k++) {
                    uint32_t bits;
                    memcpy(&bits, &row[k], sizeof bits);
                    h = sfq_rng_u64(h, bits, k);
                }
            }
        }
    return h;
}

/* ---- scores and cuts ---- */

typedef enum order { BY_WORTH, AT_RANDOM, UPSIDE_DOWN } order;

/* The loss after a cut of a share by Fisher scores, or by those scores in another order. */
static double loss_of_cut(const char *model, order how)
{
    trial t;
    sfq_saliency *s;
    sfq_choice *c;
    trial_open(&t, model, 2, 80);
    assert_ok(sfq_score_run(&s, &t.w.work, t.student, SFQ_SALIENCY_FISHER, 0, &err));
    for (int l = 0; l < s->layers; l++) {
        const sfq_layer_arch *a = &t.student->arch->layer[l];
        for (int u = 0; u < a->kv_heads + a->ffn; u++) {
            float *worth = u < a->ffn ? &s->layer[l].neuron[u] : &s->layer[l].group[u - a->ffn];
            if (how == AT_RANDOM)
                *worth = (float)sfq_rng_uniform(3, (uint64_t)l, (uint64_t)u);
            if (how == UPSIDE_DOWN)
                *worth = 1 / (*worth + 1e-20F);
        }
    }
    const uint64_t all = sfq_choose_block_parameters(t.student->arch);
    assert_ok(sfq_choose_units(&c, t.student->arch, s,
                               &(sfq_choose_options){.remove = all * 3 / 10}, &err));
    for (int l = 0; l < c->layers; l++)
        sfq_student_cut(t.student, l, &c->layer[l]);
    const double loss = measure(&t);
    sfq_choice_close(&c);
    sfq_saliency_close(&s);
    trial_close(&t);
    return loss;
}

static void fisher_knows_what_is_worth_little(void **state)
{
    (void)state;
    const double best = loss_of_cut("models/sst2-tiny", BY_WORTH);
    const double middle = loss_of_cut("models/sst2-tiny", AT_RANDOM);
    const double worst = loss_of_cut("models/sst2-tiny", UPSIDE_DOWN);
    if (!(best < middle / 2 && middle < worst))
        fail_msg("loss by worth %g, at random %g, upside down %g", best, middle, worst);
}

static void saliency_names(void **state)
{
    (void)state;
    for (int i = 0; i < SFQ_SALIENCY_COUNT; i++) {
        sfq_saliency_kind kind = SFQ_SALIENCY_COUNT;
        assert_true(sfq_saliency_find(sfq_saliency_name((sfq_saliency_kind)i), &kind));
        assert_int_equal(kind, i);
    }
    sfq_saliency_kind kind = SFQ_SALIENCY_ERROR;
    assert_false(sfq_saliency_find("fishy", &kind));
    assert_int_equal(kind, SFQ_SALIENCY_ERROR);
}

/* ---- rounds ---- */

static sfq_prune_report prune(trial *t, double share, int rounds, const char *saliency)
{
    sfq_prune_report report = {0};
    t->w.options.prune = share;
    t->w.options.rounds = rounds;
    t->w.options.saliency = saliency;
    for (int i = 0; i < rounds; i++) {
        const double before = report.fraction;
        assert_ok(work_prune_round(&t->w.work, t->student, t->loss, i, &report, &err));
        assert_true(report.reconstructed_loss <= report.cut_loss);
        assert_true(report.fraction >= share * (i + 1) / rounds || rounds == 1);
        assert_true(report.fraction >= before);
        assert_near(measure(t), report.reconstructed_loss, 0);
    }
    return report;
}

static void refitting_lowers_the_loss(void **state)
{
    trial t;
    (void)state;
    trial_open(&t, "models/sst2-tiny", 2, 80);
    const sfq_prune_report r = prune(&t, 0.4, 2, "fisher");
    const uint64_t all = sfq_choose_block_parameters(t.w.source->arch);
    const uint64_t left = sfq_choose_block_parameters(t.student->arch);
    const uint64_t unit = 64 * sfq_choose_neuron_cost(t.student->arch);
    const uint64_t group = sfq_choose_group_cost(t.student->arch, 0);
    assert_near(r.fraction, 1 - (double)left / (double)all, 1e-12);
    assert_true(all - left >= all * 4 / 10);
    assert_true(all - left - all * 4 / 10 <= (unit > group ? unit : group));
    if (!(r.reconstructed_loss < r.cut_loss / 2))
        fail_msg("loss %g after the last cut, %g after refitting", r.cut_loss,
                 r.reconstructed_loss);
    assert_true(r.kept > 0 && r.kept <= r.solved && r.solved <= 16);
    assert_int_equal(r.neurons % 64, 0);
    assert_true(r.heads > 0 || r.neurons > 0);
    trial_close(&t);
}

/* Where nothing was cut nothing can be gained: the student stays as it is, bit by bit. */
static void refitting_keeps_nothing_that_does_not_help(void **state)
{
    trial t;
    sfq_saliency *s;
    sfq_reconstruct_report r;
    (void)state;
    trial_open(&t, "models/sst2-tiny", 2, 20);
    const uint64_t before = fingerprint(t.student);
    assert_ok(sfq_score_run(&s, &t.w.work, t.student, SFQ_SALIENCY_MAGNITUDE, 0, &err));
    assert_ok(sfq_reconstruct_run(&t.w.work, t.student, s, t.loss, 0, &r, &err));
    assert_near(r.after, r.before, 0);
    assert_int_equal(r.kept, 0);
    assert_true(fingerprint(t.student) == before);
    sfq_saliency_close(&s);
    trial_close(&t);
}

/* Refits a student whose layer 1 is a little off. Tokens of layer `layer` have one weight, but for
 * a token that has its own. */
static uint64_t refit_spoilt(int layer, float weight, float one, sfq_reconstruct_report *r)
{
    trial t;
    sfq_saliency *s;
    float row[512];
    trial_open(&t, "models/sst2-tiny", 2, 40);
    assert_ok(sfq_score_run(&s, &t.w.work, t.student, SFQ_SALIENCY_FISHER, 0, &err));
    for (size_t i = 0; i < s->tokens; i++)
        s->layer[layer].ffn_weight[i] = s->layer[layer].attn_weight[i] = i == 5 ? one : weight;
    sfq_matrix *m = sfq_student_matrix(t.student, SFQ_ROLE_DOWN, 1);
    assert_true(m->k <= sizeof row / sizeof *row);
    for (size_t n = 0; n < m->n; n++) {
        sfq_student_get_rows(m, n, 1, row);
        for (size_t k = 0; k < m->k; k++)
            row[k] *= 0.9F;
        sfq_student_set_rows(m, n, 1, row);
    }
    const double before = measure(&t);
    assert_ok(sfq_reconstruct_run(&t.w.work, t.student, s, t.loss, 0, r, &err));
    assert_near(r->before, before, 0);
    assert_near(measure(&t), r->after, 0);
    const uint64_t h = fingerprint(t.student);
    sfq_saliency_close(&s);
    trial_close(&t);
    return h;
}

/* A layer refitted to a single token is taken back, and the layers above it see the states of the
 * old weights: as if it had never been solved. */
static void refitting_takes_back_what_harms(void **state)
{
    sfq_reconstruct_report harmed, unsolved, plain;
    (void)state;
    const uint64_t a = refit_spoilt(1, 0, 1e6F, &harmed);
    const uint64_t b = refit_spoilt(1, 0, 0, &unsolved);
    (void)refit_spoilt(1, 1, 1, &plain);
    assert_true(a == b);
    assert_true(harmed.kept < plain.kept);
    assert_near(harmed.after, unsolved.after, 0);
    assert_true(plain.after < harmed.after && harmed.after < harmed.before);
}

static void every_family_and_saliency(void **state)
{
    char dir[SCRATCH_ROOM];
    (void)state;
    scratch_open(dir);
    for (size_t f = 0; f < RANDOM_FAMILIES; f++) {
        uint64_t first = 0;
        const char *model = scratch_path(dir, random_families[f].name);
        random_model(model, random_families[f].config, SFQ_F32, 5);
        for (int threads = 1; threads <= 3; threads++) {
            trial t;
            trial_open(&t, model, threads, 15);
            const char *saliency = sfq_saliency_name((sfq_saliency_kind)(f % SFQ_SALIENCY_COUNT));
            const sfq_prune_report r = prune(&t, 0.2, 2, saliency);
            assert_true(isfinite(r.cut_loss));
            const uint64_t now = fingerprint(t.student);
            first = threads == 1 ? now : first;
            if (now != first)
                fail_msg("%s, %s: other bits from %d threads", random_families[f].name, saliency,
                         threads);
            trial_close(&t);
        }
    }
    scratch_close(dir);
}

static uint64_t pruned_fingerprint(int threads, uint64_t seed, const char *saliency)
{
    trial t;
    trial_open(&t, "models/sst2-tiny", threads, 40);
    t.w.options.seed = seed;
    (void)prune(&t, 0.3, 2, saliency);
    const uint64_t h = fingerprint(t.student);
    trial_close(&t);
    return h;
}

static void same_bits_at_any_thread_count(void **state)
{
    (void)state;
    const uint64_t one = pruned_fingerprint(1, 7, "fisher");
    assert_true(pruned_fingerprint(2, 7, "fisher") == one);
    assert_true(pruned_fingerprint(3, 7, "fisher") == one);
    assert_true(pruned_fingerprint(2, 7, "magnitude") != one);
}

/* ---- options ---- */

static void protected_sublayers(void **state)
{
    static const char *const keep[] = {"layer\\.1\\.attention\\.self\\.query",
                                       "layer\\.[23]\\.output\\.dense\\.weight"};
    bool attn[4], ffn[4];
    trial t;
    (void)state;
    trial_open(&t, "models/sst2-tiny", 2, 20);
    t.w.options.keep = keep;
    t.w.options.keep_count = 2;
    assert_ok(sfq_prune_fixed(&t.w.work, attn, ffn, &err));
    for (int l = 0; l < 4; l++) {
        assert_int_equal(attn[l], l == 1);
        assert_int_equal(ffn[l], l >= 2);
    }
    (void)prune(&t, 0.4, 1, "fisher");
    assert_int_equal(t.student->arch->layer[1].heads, 4);
    assert_int_equal(t.student->arch->layer[2].ffn, 512);
    assert_int_equal(t.student->arch->layer[3].ffn, 512);
    assert_true(t.student->arch->layer[0].ffn < 512);
    trial_close(&t);
}

static void uniform_widths(void **state)
{
    trial t;
    (void)state;
    trial_open(&t, "models/sst2-tiny", 2, 20);
    t.w.options.uniform = true;
    (void)prune(&t, 0.3, 2, "fisher");
    for (int l = 1; l < 4; l++) {
        assert_int_equal(t.student->arch->layer[l].heads, t.student->arch->layer[0].heads);
        assert_int_equal(t.student->arch->layer[l].ffn, t.student->arch->layer[0].ffn);
    }
    trial_close(&t);
}

static void too_much_is_infeasible(void **state)
{
    sfq_prune_report r = {0};
    trial t;
    (void)state;
    trial_open(&t, "models/sst2-tiny", 2, 10);
    t.w.options.prune = 0.95;
    t.w.options.rounds = 1;
    assert_fails(SFQ_E_INFEASIBLE, "prune less",
                 work_prune_round(&t.w.work, t.student, t.loss, 0, &r, &err));
    trial_close(&t);
}

/* ---- damage ---- */

static void damaged_weights_are_named(void **state)
{
    (void)state;
    for (int i = 0; i < SFQ_SALIENCY_COUNT; i++) {
        trial t;
        sfq_saliency *s = NULL;
        trial_open(&t, "models/sst2-tiny", 1, 10);
        sfq_matrix *m = sfq_student_matrix(t.student, SFQ_ROLE_DOWN, 2);
        float row[512];
        sfq_student_get_rows(m, 3, 1, row);
        row[7] = NAN;
        sfq_student_set_rows(m, 3, 1, row);
        assert_fails(SFQ_E_NUMERIC, "prune: ",
                     sfq_score_run(&s, &t.w.work, t.student, (sfq_saliency_kind)i, 0, &err));
        assert_null(s);
        trial_close(&t);
    }
}

static bool yes(void *ud)
{
    int *left = ud;
    return (*left)-- <= 0;
}

static void interrupted(void **state)
{
    (void)state;
    for (int at = 0; at < 40; at += 7) {
        sfq_prune_report r = {0};
        int left = at;
        trial t;
        trial_open(&t, "models/sst2-tiny", 1, 10);
        t.w.options.prune = 0.2;
        t.w.options.rounds = 1;
        t.w.options.hooks = (sfq_hooks){.ud = &left, .cancelled = yes};
        sfq_status status = work_prune_round(&t.w.work, t.student, t.loss, 0, &r, &err);
        assert_true(status == SFQ_E_INTERRUPTED || (status == SFQ_OK && left >= 0));
        t.w.options.hooks = no_hooks;
        trial_close(&t);
    }
}

typedef struct seen {
    uint64_t done, total;
    int calls;
} seen;

static void see(void *ud, const sfq_progress *p)
{
    seen *s = ud;
    assert_true(p->done >= s->done && p->done <= p->total);
    assert_true(s->calls == 0 || p->total == s->total);
    *s = (seen){p->done, p->total, s->calls + 1};
}

static void progress_goes_forward(void **state)
{
    seen s = {0};
    trial t;
    (void)state;
    trial_open(&t, "models/sst2-tiny", 1, 10);
    t.w.options.hooks = (sfq_hooks){.ud = &s, .progress = see};
    (void)prune(&t, 0.2, 3, "fisher");
    assert_true(s.calls > 20);
    assert_true(s.done * 10 > s.total * 9);
    t.w.options.hooks = no_hooks;
    trial_close(&t);
}

/* ---- damped sums ---- */

static void ridge_factors_what_is_singular(void **state)
{
    double h[9] = {4, 0, 0, 4, 4, 0, 2, 2, 1}; /* of rank one */
    double diagonal[3];
    double x[3] = {1, 2, 3};
    sfq_ridge r = {.h = h, .diagonal = diagonal, .k = 3, .features = 2, .damping = 0.5};
    (void)state;
    r.constant_damping = 0.25;
    assert_true(sfq_ridge_factor(NULL, &r));
    sfq_linalg_solve(NULL, h, 3, x, 1);
    /* (4+2, 4, 2; 4, 4+2, 2; 2, 2, 1+.25) x = (1, 2, 3) */
    assert_near(6 * x[0] + 4 * x[1] + 2 * x[2], 1, 1e-9);
    assert_near(4 * x[0] + 6 * x[1] + 2 * x[2], 2, 1e-9);
    assert_near(2 * x[0] + 2 * x[1] + 1.25 * x[2], 3, 1e-9);
}

static void ridge_climbs_and_gives_up(void **state)
{
    double indefinite[4] = {1, 0, 3, 1}; /* eigenvalues 4 and -2 */
    double hopeless[4] = {1, 0, NAN, 1};
    double zeros[4] = {0};
    double diagonal[2];
    (void)state;
    sfq_ridge r = {.diagonal = diagonal, .k = 2, .features = 2, .damping = 0.01};
    r.h = indefinite;
    assert_true(sfq_ridge_factor(NULL, &r)); /* 0.01, 0.1, 1, 10 */
    assert_near(indefinite[0], sqrt(11), 1e-9);
    r.h = zeros;
    assert_true(sfq_ridge_factor(NULL, &r));
    r.h = hopeless;
    assert_false(sfq_ridge_factor(NULL, &r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fisher_knows_what_is_worth_little),
        cmocka_unit_test(saliency_names),
        cmocka_unit_test(refitting_lowers_the_loss),
        cmocka_unit_test(refitting_keeps_nothing_that_does_not_help),
        cmocka_unit_test(refitting_takes_back_what_harms),
        cmocka_unit_test(every_family_and_saliency),
        cmocka_unit_test(same_bits_at_any_thread_count),
        cmocka_unit_test(protected_sublayers),
        cmocka_unit_test(uniform_widths),
        cmocka_unit_test(too_much_is_infeasible),
        cmocka_unit_test(damaged_weights_are_named),
        cmocka_unit_test(interrupted),
        cmocka_unit_test(progress_goes_forward),
        cmocka_unit_test(ridge_factors_what_is_singular),
        cmocka_unit_test(ridge_climbs_and_gives_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

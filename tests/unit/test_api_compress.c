/* <sfq/compress.h>: defaults, and every option out of its range refused before a file is looked at,
 * with a word that says which. */
#include "unit/unit.h"

#include "base/pool.h"

#include <sfq/compress.h>

#include <math.h>

static sfq_error err;

static sfq_compress_options defaults(void)
{
    sfq_compress_options o;
    sfq_compress_options_default(&o);
    o.model = "no/such/model";
    o.output = "no/such/output";
    return o;
}

static void refuse(const sfq_compress_options *o, const char *part)
{
    sfq_compress_result r;
    assert_fails(SFQ_E_ARGUMENT, part, sfq_compress(o, &r, &err));
    assert_fails(SFQ_E_ARGUMENT, part, sfq_compress_plan(o, &r, &err));
}

/* Behind the checks: the model is not there. */
static void accept(const sfq_compress_options *o)
{
    sfq_compress_result r;
    assert_fails(SFQ_E_NOT_FOUND, "no/such/model", sfq_compress(o, &r, &err));
    assert_int_equal(r.stage_count, 0);
}

static void test_defaults(void **state)
{
    (void)state;
    sfq_compress_options o = defaults();
    assert_string_equal(o.recipe, "sfq");
    assert_true(o.prune == 0.40);
    assert_int_equal(o.steps, -1);
    assert_true(o.minutes == 30);
    assert_int_equal(o.calib_length, 256);
    assert_string_equal(o.pick, "curated");
    assert_string_equal(o.saliency, "fisher");
    assert_int_equal(o.rounds, 0);
    assert_true(o.max_drop < 0);
    accept(&o);
}

#define REFUSE(member, value, part)       \
    do {                                  \
        sfq_compress_options o = options; \
        o.member = (value);               \
        refuse(&o, part);                 \
    } while (0)
#define ACCEPT(member, value)             \
    do {                                  \
        sfq_compress_options o = options; \
        o.member = (value);               \
        accept(&o);                       \
    } while (0)

static void test_ranges(void **state)
{
    (void)state;
    const sfq_compress_options options = defaults();
    REFUSE(prune, 1, "prune");
    REFUSE(prune, -0.1, "prune");
    REFUSE(prune, NAN, "prune");
    REFUSE(bits, 9, "bits");
    REFUSE(embedding_bits, 1, "embedding_bits");
    REFUSE(activation_bits, 7, "activation bits");
    REFUSE(steps, -2, "steps");
    REFUSE(calib_fraction, 1.01, "calib_fraction");
    REFUSE(calib_fraction, -0.5, "calib_fraction");
    REFUSE(calib_fraction, NAN, "calib_fraction");
    REFUSE(calib_length, 15, "calib_length");
    REFUSE(calib_length, 4097, "calib_length");
    REFUSE(pick, "best", "curated or random");
    REFUSE(pick, NULL, "pick is NULL");
    REFUSE(saliency, "luck", "fisher");
    REFUSE(saliency, NULL, "saliency is NULL");
    REFUSE(rounds, 17, "rounds");
    REFUSE(rounds, -1, "rounds");
    REFUSE(minutes, -1, "minutes");
    REFUSE(minutes, INFINITY, "minutes");
    REFUSE(max_drop, NAN, "max_drop");
    REFUSE(threads, SFQ_MAX_THREADS + 1, "threads");
    ACCEPT(calib_fraction, 1);
    ACCEPT(calib_length, 16);
    ACCEPT(calib_length, 4096);
    ACCEPT(calib_tokens, 1);
    ACCEPT(pick, "random");
    ACCEPT(saliency, "error");
    ACCEPT(rounds, 16);
    ACCEPT(minutes, 0);
}

static void test_pairs(void **state)
{
    (void)state;
    static const char *const texts[] = {"text"};
    sfq_compress_options o = defaults();
    o.calib_fraction = 0.1;
    o.calib_tokens = 100;
    refuse(&o, "not both");
    o = defaults();
    o.task = "sst2";
    refuse(&o, "needs the directory");
    o.data = "data";
    o.calib_tokens = 100;
    refuse(&o, "calib_fraction");
    o.calib_tokens = 0;
    accept(&o);
    o.text_files = texts;
    o.text_count = 1;
    refuse(&o, "not both");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* unit/test_kernels_peak.c - the loops that probe multiply peaks run on whatever of them the host
 * has, count what they do, and are capped like the kernels. How fast they are is no test. */
#include "unit.h"

#include "kernels/peak.h"

static void counts(void **state)
{
    (void)state;
    size_t usable = 0;
    for (size_t i = 0; i < sfq_peak_count; i++) {
        const sfq_peak *p = &sfq_peaks[i];
        if (!sfq_peak_usable(p, SFQ_ISA_COUNT)) {
            print_message("SKIP %s %s: not on this host\n", sfq_isa_name(p->isa), p->type);
            continue;
        }
        uint64_t one = p->run(1);
        assert_true(one > 0);
        assert_int_equal(p->run(10), 10 * one);
        assert_int_equal(p->run(0), 0);
        usable++;
    }
    assert_true(usable >= 1);
}

static void capped(void **state)
{
    (void)state;
    for (size_t i = 0; i < sfq_peak_count; i++)
        for (int cap = 0; cap < SFQ_ISA_COUNT; cap++)
            if ((int)sfq_peaks[i].isa > cap)
                assert_false(sfq_peak_usable(&sfq_peaks[i], (sfq_isa)cap));
    assert_true(sfq_peak_usable(&sfq_peaks[0], SFQ_ISA_REF));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(counts), cmocka_unit_test(capped)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

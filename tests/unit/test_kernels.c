/* tests/unit/test_kernels.c - the ladder: names, the cap from the environment, and tables that obey
 * a cap. The kernels themselves are checked by tests/kernels/. */
#include "kernels/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void env_names_a_level(void **state)
{
    (void)state;
    sfq_isa isa = SFQ_ISA_REF;
    sfq_error err = {0};
    unsetenv("SFQ_MAX_ISA");
    assert_int_equal(sfq_isa_from_env(&isa, &err), SFQ_OK);
    assert_int_equal(isa, SFQ_ISA_COUNT);
    for (int i = 0; i < SFQ_ISA_COUNT; i++) {
        setenv("SFQ_MAX_ISA", sfq_isa_name((sfq_isa)i), 1);
        assert_int_equal(sfq_isa_from_env(&isa, &err), SFQ_OK);
        assert_int_equal(isa, i);
    }
}

static void env_unknown_is_an_error(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "AVX2", "avx", "avx512f", "sse"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        sfq_isa isa = SFQ_ISA_REF;
        sfq_error err = {0};
        setenv("SFQ_MAX_ISA", wrong[i], 1);
        assert_int_equal(sfq_isa_from_env(&isa, &err), SFQ_E_ARGUMENT);
        assert_non_null(strstr(err.message, "SFQ_MAX_ISA"));
    }
    unsetenv("SFQ_MAX_ISA");
}

static void tables_obey_the_cap(void **state)
{
    (void)state;
    assert_int_equal(sfq_kernels_get(SFQ_ISA_REF)->isa, SFQ_ISA_REF);
    for (int cap = 0; cap <= SFQ_ISA_COUNT; cap++) {
        const sfq_kernels *k = sfq_kernels_get((sfq_isa)cap);
        assert_true(k->isa <= (sfq_isa)cap && k->isa <= sfq_isa_detect());
        assert_string_equal(k->isa_name, sfq_isa_name(k->isa));
        assert_ptr_equal(k, sfq_kernels_get((sfq_isa)cap)); /* one constant table */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(env_names_a_level),
        cmocka_unit_test(env_unknown_is_an_error),
        cmocka_unit_test(tables_obey_the_cap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What a student takes is what sfq_student_bytes says, in one piece; every allocation may fail. */
#include "fixture.h"

#include "compress/student.h"

#include <string.h>

static sfq_error err;
static const sfq_hooks no_hooks;

/* The student's share of a source; the fixture's parts are borrowed. */
static sfq_source source_of(const fixture *f)
{
    return (sfq_source){.config = f->config, .ck = f->ck, .arch = f->arch, .modules = f->modules};
}

static void check_bytes(const char *name)
{
    fixture f;
    assert_int_equal(fixture_open(&f, name, &err), SFQ_OK);
    sfq_source s = source_of(&f);
    sfq_student *student;
    heap_reset();
    assert_int_equal(sfq_student_open(&student, &s, SFQ_F32, &no_hooks, &err), SFQ_OK);
    assert_int_equal(heap_calls, 1);
    assert_int_equal(heap_bytes, sfq_student_bytes(&s, SFQ_F32));
    uint64_t parameters = 0;
    for (size_t i = 0; i < f.modules->count; i++) {
        const sfq_module *m = &f.modules->items[i];
        parameters += m->n * m->k + (m->bias ? (m->n > 1 ? m->n : m->k) : 0);
    }
    /* little more than the parameters: padding of 63 bytes at most for each piece */
    assert_true(heap_bytes >= 4 * parameters);
    assert_true(heap_bytes <
                4 * parameters + 64 * 2 * f.modules->count + (size_t)f.arch->layers * 4096 + 65536);
    heap_reset();
    sfq_layer_keep nothing = {0};
    sfq_student_cut(student, 0, &nothing);
    assert_int_equal(heap_calls, 0);
    sfq_student_close(&student);
    fixture_close(&f);
}

static void test_bytes(void **state)
{
    (void)state;
    check_bytes("llama");
    check_bytes("bert");
}

static void test_each_allocation_fails(void **state)
{
    (void)state;
    fixture f;
    assert_int_equal(fixture_open(&f, "bert", &err), SFQ_OK);
    sfq_source s = source_of(&f);
    static const sfq_dtype dtypes[] = {SFQ_F32, SFQ_BF16};
    for (size_t i = 0; i < 2; i++)
        for (size_t n = 1;; n++) {
            sfq_student *student;
            sfq_params *params = NULL;
            heap_reset();
            heap_fail_at = n;
            sfq_status status = sfq_student_open(&student, &s, dtypes[i], &no_hooks, &err);
            if (status == SFQ_OK && i == 0)
                status = sfq_params_open(&params, student, true, &err);
            bool came = heap_calls >= n;
            sfq_params_close(&params);
            sfq_student_close(&student);
            assert_int_equal(status, came ? SFQ_E_MEMORY : SFQ_OK);
            if (!came) {
                assert_int_equal(n, i == 0 ? 5 : 3); /* one more than there are */
                break;
            }
        }
    heap_reset();
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_each_allocation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

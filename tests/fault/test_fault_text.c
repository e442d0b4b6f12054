/* The tokenizer under the seam: every n-th allocation fails once, and from there on, while a model
 * is opened, a text encoded and decoded. After each failure: a code with its message, and no memory
 * kept. */
#include "fault/seam.h"

#include "base/mem.h"
#include "text/tokenizer.h"
#include "unit/unit.h"

static const char text[] = "It's a t\xC3\xA9st, isn't it? 123 <|end_of_text|> [SEP] ok";

static sfq_status whole_way(const char *dir, sfq_error *err)
{
    sfq_tokenizer *t = NULL;
    sfq_encoding e = {0};
    char *back = NULL;
    size_t n;
    sfq_status status = sfq_tokenizer_open(&t, dir, err);
    if (status == SFQ_OK)
        status = sfq_tokenizer_encode(t, text, strlen(text), text, strlen(text), true, 30, &e, err);
    if (status == SFQ_OK)
        status = sfq_tokenizer_decode(t, e.ids, e.count, true, &back, &n, err);
    sfq_mem_free(back);
    sfq_encoding_clear(&e);
    sfq_tokenizer_close(&t);
    return status;
}

static void fail_each(const char *op, const char *dir)
{
    sfq_status status = SFQ_E_MEMORY;
    char spec[64];
    for (int n = 1; status != SFQ_OK; n += n < 400 ? 1 : 97) {
        sfq_error err = {0};
        snprintf(spec, sizeof spec, "%s:%d", op, n);
        assert_true(seam_arm(spec));
        status = whole_way(dir, &err);
        bool fired = seam_fired();
        long live = seam_live();
        seam_disarm();
        assert_int_equal(live, 0);
        if (!fired)
            assert_int_equal(status, SFQ_OK);
        else if (status != SFQ_OK)
            assert_true(err.message[0] != 0);
        assert_true(n < 100000);
        if (fired && status == SFQ_OK)
            status = SFQ_E_MEMORY; /* survived; go on until nothing fires */
    }
}

static void test_byte_level(void **state)
{
    (void)state;
    fail_each("alloc", "models/novels-5m");
    fail_each("alloc+", "models/novels-5m");
}

static void test_wordpiece(void **state)
{
    (void)state;
    fail_each("alloc", "models/sst2-tiny");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_byte_level),
        cmocka_unit_test(test_wordpiece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What cut-off training leaves: read back to the same bits; any damage and any other run's file is
 * seen, and changes nothing. And the order of sequences. */
#include "unit/unit.h"

#include "base/file.h"
#include "compress/train_order.h"
#include "compress/train_state.h"

static sfq_error err;

enum { FLOATS = 700 };

typedef struct content {
    sfq_train_state state;
    float a[FLOATS], b[3];
} content;

static content some(float by)
{
    content c = {.state = {.at = 7, .judged = 6, .best_at = 5, .since = 1, .before = 2, .best = 1}};
    for (int i = 0; i < FLOATS; i++)
        c.a[i] = by * (float)i;
    c.b[1] = by;
    return c;
}

static void save(content *c, const char *path)
{
    const sfq_train_block blocks[] = {{c->a, sizeof c->a}, {c->b, sizeof c->b}};
    assert_ok(sfq_train_state_save(path, 42, &c->state, blocks, 2, &err));
}

static const char *load(content *c, const char *path, uint64_t request)
{
    const sfq_train_block blocks[] = {{c->a, sizeof c->a}, {c->b, sizeof c->b}};
    const char *why = "not said";
    assert_ok(sfq_train_state_load(path, request, &c->state, blocks, 2, &why, &err));
    return why;
}

static void test_back_again(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    const char *path = scratch_path(dir, "s");
    content a = some(1), b = some(2), c = some(3);
    assert_string_equal(load(&c, path, 42), "");
    save(&a, path);
    save(&b, path); /* over the first */
    assert_null(load(&c, path, 42));
    assert_memory_equal(&b, &c, sizeof b);
    scratch_close(dir);
}

static void assert_refused(const char *path, uint64_t request, const char *part)
{
    content c = some(3), before = c;
    const char *why = load(&c, path, request);
    assert_non_null(why);
    if (strstr(why, part) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", part, why);
    assert_memory_equal(&c, &before, sizeof c);
}

static void put(const char *dir, const char *data, size_t n)
{
    FILE *f = fopen(scratch_path(dir, "s"), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void test_damage_is_seen(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    const char *path = scratch_path(dir, "s");
    content a = some(1);
    save(&a, path);
    assert_refused(path, 43, "another run");
    sfq_buf b = {0};
    assert_ok(sfq_file_read(&b, path, 1 << 20, &err));
    for (size_t i = 0; i < b.len; i += i < 80 ? 1 : 97) {
        b.data[i] ^= 4;
        put(dir, b.data, b.len);
        assert_refused(path, 42, i < 8 ? "another kind" : i < 24 ? "another run" : "damaged");
        b.data[i] ^= 4;
    }
    for (size_t n = 0; n < b.len; n += n < 100 ? 7 : 501) {
        put(dir, b.data, n);
        assert_refused(path, 42, "cut off");
    }
    put(dir, b.data, b.len);
    content c = some(3);
    assert_null(load(&c, path, 42));
    sfq_buf_free(&b);
    scratch_close(dir);
}

static void test_order(void **state)
{
    (void)state;
    enum { COUNT = 101 };
    sfq_train_order o, other;
    assert_ok(sfq_train_order_open(&o, COUNT, 3, &err));
    assert_ok(sfq_train_order_open(&other, COUNT, 4, &err));
    size_t first[2 * COUNT], moved = 0, differs = 0;
    uint64_t epoch;
    for (uint64_t e = 0; e < 2; e++) {
        int seen[COUNT] = {0};
        for (size_t i = 0; i < COUNT; i++) {
            size_t at = first[e * COUNT + i] = sfq_train_order_at(&o, e * COUNT + i, &epoch);
            assert_int_equal(epoch, e);
            assert_true(at < COUNT && seen[at]++ == 0);
            moved += e == 1 && at != first[i];
            differs += at != sfq_train_order_at(&other, e * COUNT + i, &epoch);
        }
    }
    assert_true(moved > COUNT / 2 && differs > COUNT);
    for (size_t i = 2 * COUNT; i-- > 0;) /* whoever asks first, and from which end */
        assert_int_equal(sfq_train_order_at(&o, i, &epoch), first[i]);
    sfq_train_order_close(&o);
    sfq_train_order_close(&other);
    assert_fails(SFQ_E_DATA, "to train on", sfq_train_order_open(&o, 0, 1, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_back_again),
        cmocka_unit_test(test_damage_is_seen),
        cmocka_unit_test(test_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Checked arithmetic, allocation, arena, buffer. */
#include "base/buf.h"
#include "base/ck.h"
#include "base/mem.h"
#include "unit/unit.h"

static void checked_arithmetic(void **state)
{
    (void)state;
    size_t r = 0;
    assert_true(sfq_ck_add(SIZE_MAX - 1, 1, &r) && r == SIZE_MAX);
    assert_false(sfq_ck_add(SIZE_MAX, 1, &r));
    assert_true(sfq_ck_sub(5, 5, &r) && r == 0);
    assert_false(sfq_ck_sub(4, 5, &r));
    assert_true(sfq_ck_mul(SIZE_MAX / 2, 2, &r) && r == SIZE_MAX - 1);
    assert_false(sfq_ck_mul((size_t)1 << 32, (size_t)1 << 32, &r));
    assert_true(sfq_ck_mul_add(3, 4, 5, &r) && r == 17);
    assert_false(sfq_ck_mul_add(SIZE_MAX, 1, 1, &r));
    assert_false(sfq_ck_mul_add(SIZE_MAX, 2, 0, &r));
    assert_true(sfq_ck_round_up(0, 64, &r) && r == 0);
    assert_true(sfq_ck_round_up(1, 64, &r) && r == 64);
    assert_true(sfq_ck_round_up(64, 64, &r) && r == 64);
    assert_true(sfq_ck_round_up(SIZE_MAX - 63, 64, &r) && r == SIZE_MAX - 63);
    assert_false(sfq_ck_round_up(SIZE_MAX - 62, 64, &r));
    assert_int_equal(sfq_round_up(65, 64), 128);
    assert_int_equal(sfq_min_size(2, 3), 2);
    assert_int_equal(sfq_max_size(2, 3), 3);
}

static bool all_zero(const void *p, size_t n)
{
    const unsigned char *bytes = p;
    for (size_t i = 0; i < n; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

static void allocation(void **state)
{
    (void)state;
    assert_null(sfq_mem_zero(SIZE_MAX, 2));
    assert_null(sfq_mem_zero((size_t)1 << 40, (size_t)1 << 40));
    assert_null(sfq_mem_raw(SIZE_MAX));
    assert_null(sfq_mem_aligned(SIZE_MAX));
    assert_null(sfq_mem_resize(NULL, SIZE_MAX / 2, 4));
    assert_null(sfq_mem_strndup("x", SIZE_MAX));
    void *none = sfq_mem_zero(0, 8);
    assert_non_null(none);
    none = sfq_mem_resize(none, 0, 8);
    assert_non_null(none);
    sfq_mem_free(none);
    sfq_mem_free(NULL);
    for (size_t n = 0; n < 300; n += 37) {
        void *p = sfq_mem_aligned(n);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        assert_true(all_zero(p, n));
        memset(p, 1, n);
        sfq_mem_free(p);
    }
    uint64_t *numbers = SFQ_NEW_ARRAY(uint64_t, 1000);
    assert_true(all_zero(numbers, 8000));
    numbers[999] = 7;
    numbers = sfq_mem_resize(numbers, 5000, sizeof *numbers);
    assert_int_equal(numbers[999], 7);
    sfq_mem_free(numbers);
    char *copy = sfq_mem_strndup("a\0bc", 4);
    assert_memory_equal(copy, "a\0bc\0", 5);
    sfq_mem_free(copy);
    copy = sfq_mem_strdup("");
    assert_string_equal(copy, "");
    sfq_mem_free(copy);
}

static void huge_memory_is_aligned(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, (size_t)3 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = sfq_mem_huge(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % ((size_t)2 << 20), 0);
        memset(p, 1, sizes[i]);
        sfq_mem_free(p);
    }
    assert_null(sfq_mem_huge(SIZE_MAX));
    assert_null(sfq_mem_huge(PTRDIFF_MAX - 64));
}

static void arena_pieces(void **state)
{
    (void)state;
    sfq_arena *arena = sfq_arena_open();
    assert_non_null(arena);
    enum { PIECES = 3000 };
    unsigned char *piece[PIECES];
    size_t size[PIECES];
    for (int life = 0; life < 3; life++) {
        for (size_t i = 0; i < PIECES; i++) {
            size[i] = i % 500 == 0 ? 100000 + i : i % 97;
            bool lined = i % 3 == 0;
            piece[i] =
                lined ? sfq_arena_aligned(arena, size[i]) : sfq_arena_zero(arena, size[i], 1);
            assert_non_null(piece[i]);
            assert_int_equal((uintptr_t)piece[i] % (lined ? 64 : 16), 0);
            assert_true(all_zero(piece[i], size[i]));
            memset(piece[i], (int)(i % 255 + 1), size[i]);
        }
        for (size_t i = 0; i < PIECES; i++) /* nobody wrote into somebody else's piece */
            for (size_t k = 0; k < size[i]; k++)
                assert_int_equal(piece[i][k], i % 255 + 1);
        sfq_arena_reset(arena);
    }
    assert_null(sfq_arena_zero(arena, SIZE_MAX, 2));
    assert_null(sfq_arena_zero(arena, SIZE_MAX, 1));
    assert_null(sfq_arena_aligned(arena, SIZE_MAX - 3));
    assert_null(sfq_arena_strndup(arena, "x", SIZE_MAX));
    assert_string_equal(sfq_arena_strndup(arena, "word!", 4), "word");
    sfq_arena_close(&arena);
    assert_null(arena);
    sfq_arena_close(&arena);
}

static void arena_reuses_a_block(void **state)
{
    (void)state;
    sfq_arena *arena = sfq_arena_open();
    sfq_arena_reset(arena);
    (void)sfq_arena_zero(arena, 10, 1);
    void *big = sfq_arena_zero(arena, 1 << 21, 1);
    (void)sfq_arena_zero(arena, 1 << 16, 1);
    sfq_arena_reset(arena);
    assert_ptr_equal(sfq_arena_aligned(arena, 1 << 21), big); /* the largest one was kept */
    sfq_arena_close(&arena);
}

static void buffer_grows_to_its_maximum(void **state)
{
    (void)state;
    sfq_error err;
    for (size_t max = 0; max < 1200; max += 113) {
        sfq_buf b = SFQ_BUF_INIT(max);
        for (size_t i = 0; i < max; i++) {
            char c = (char)('a' + i % 26);
            assert_ok(sfq_buf_add(&b, &c, 1, &err));
            assert_int_equal(b.len, i + 1);
            assert_int_equal(b.data[b.len], 0);
        }
        assert_fails(SFQ_E_LIMIT, "limit", sfq_buf_add(&b, "z", 1, &err));
        assert_fails(SFQ_E_LIMIT, "limit", sfq_buf_addf(&b, &err, "%d", 1));
        assert_int_equal(b.len, max);
        for (size_t i = 0; i < max; i++)
            assert_int_equal(b.data[i], 'a' + i % 26);
        assert_ok(sfq_buf_add(&b, "", 0, &err)); /* nothing always fits */
        assert_true(b.cap >= b.len + 1 && b.cap <= 2 * max + 257);
        sfq_buf_free(&b);
        assert_null(b.data);
        assert_int_equal(b.max, max);
    }
    sfq_buf b = SFQ_BUF_INIT(SIZE_MAX);
    assert_ok(sfq_buf_add(&b, "x", 1, &err));
    assert_fails(SFQ_E_LIMIT, "limit", sfq_buf_reserve(&b, SIZE_MAX, &err));
    assert_fails(SFQ_E_MEMORY, "memory", sfq_buf_reserve(&b, SIZE_MAX - 1, &err));
    assert_string_equal(b.data, "x");
    sfq_buf_free(&b);
}

static void buffer_text_and_take(void **state)
{
    (void)state;
    sfq_error err;
    sfq_buf b = SFQ_BUF_INIT(10000);
    assert_null(sfq_buf_take(&b));
    assert_ok(sfq_buf_add(&b, NULL, 0, &err));
    char *taken = sfq_buf_take(&b);
    assert_string_equal(taken, "");
    sfq_mem_free(taken);
    assert_ok(sfq_buf_addf(&b, &err, "%s-%05d", "n", 42));
    assert_ok(sfq_buf_addf(&b, &err, "%0700d", 0));
    assert_int_equal(b.len, 707);
    assert_memory_equal(b.data, "n-000420", 8);
    sfq_buf_clear(&b);
    assert_string_equal(b.data, "");
    assert_ok(sfq_buf_reserve(&b, 5, &err));
    memcpy(b.data + b.len, "hello", 5);
    b.len += 5;
    assert_ok(sfq_buf_add(&b, "!", 1, &err));
    taken = sfq_buf_take(&b);
    assert_string_equal(taken, "hello!");
    assert_null(b.data);
    assert_int_equal(b.max, 10000);
    sfq_mem_free(taken);
    sfq_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checked_arithmetic),     cmocka_unit_test(allocation),
        cmocka_unit_test(huge_memory_is_aligned), cmocka_unit_test(arena_pieces),
        cmocka_unit_test(arena_reuses_a_block),   cmocka_unit_test(buffer_grows_to_its_maximum),
        cmocka_unit_test(buffer_text_and_take),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* unit/unit.h - cmocka with the headers that it wants before it, checks of statuses that print the
 * message, and a scratch directory for tests that need files. */
#ifndef SFQ_TESTS_UNIT_H
#define SFQ_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SCRATCH_ROOM 512

#define assert_status(expected, call)                    \
    do {                                                 \
        sfq_status unit_status_ = (call);                \
        if (unit_status_ != (expected))                  \
            print_error("%s: %s\n", #call, err.message); \
        assert_int_equal(unit_status_, (expected));      \
    } while (0)
#define assert_ok(call) assert_status(SFQ_OK, call)
/* fails with this code, and the message has this part */
#define assert_fails(expected, part, call)                            \
    do {                                                              \
        assert_status(expected, call);                                \
        if (strstr(err.message, (part)) == NULL)                      \
            fail_msg("\"%s\" is not in \"%s\"", (part), err.message); \
    } while (0)

/* two doubles at most eps apart */
#define assert_near(a, b, eps)                                           \
    do {                                                                 \
        double unit_a_ = (a), unit_b_ = (b);                             \
        if (!(unit_a_ - unit_b_ <= (eps) && unit_b_ - unit_a_ <= (eps))) \
            fail_msg("%s: %.17g is not %.17g", #a, unit_a_, unit_b_);    \
    } while (0)

/* The most by which two results of the same sums in another order differ, over the largest. */
static inline void assert_close_floats(const float *got, const float *want, size_t n)
{
    float difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        float d = got[i] < want[i] ? want[i] - got[i] : got[i] - want[i];
        float s = want[i] < 0 ? -want[i] : want[i];
        difference = d <= difference ? difference : d; /* NaN stays */
        size = s > size ? s : size;
    }
    if (!(difference <= 1e-5f * size))
        fail_msg("results differ by %g of %g", (double)difference, (double)size);
}

static inline int scratch_remove_one(const char *path, const struct stat *st, int type,
                                     struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

/* A new directory; removed with all it holds by scratch_close. */
static inline void scratch_open(char dir[SCRATCH_ROOM])
{
    const char *base = getenv("TMPDIR");
    snprintf(dir, SCRATCH_ROOM, "%s/sfq-unit-XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
}

static inline void scratch_close(const char *dir)
{
    assert_int_equal(nftw(dir, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* dir/name in a buffer of its own for each of the last 8 calls */
static inline const char *scratch_path(const char *dir, const char *name)
{
    static char paths[8][2 * SCRATCH_ROOM];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

/* Writes a file, making the directories on its way. */
static inline void scratch_put(const char *dir, const char *name, const char *text)
{
    char path[2 * SCRATCH_ROOM];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    for (char *at = path + strlen(dir) + 1; (at = strchr(at, '/')) != NULL; at++) {
        *at = 0;
        mkdir(path, 0777);
        *at = '/';
    }
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

#endif

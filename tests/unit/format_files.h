/* unit/format_files.h - small files for the format tests: a scratch directory, and safetensors files
 * from a header text and a number of data bytes. Fixed places and no allocation: it must not be what
 * fails. */
#ifndef SFQ_TEST_FORMAT_FILES_H
#define SFQ_TEST_FORMAT_FILES_H

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char scratch[64];

static inline int scratch_open(void **state)
{
    (void)state;
    snprintf(scratch, sizeof scratch, "/tmp/sfq-format-XXXXXX");
    return mkdtemp(scratch) ? 0 : -1;
}

static inline int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st, (void)kind, (void)where;
    return remove(path);
}

static inline int scratch_close(void **state)
{
    (void)state;
    return nftw(scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* scratch/name; four of them may be in use at once. */
static inline const char *in_scratch(const char *name)
{
    static char paths[4][512];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    return path;
}

static inline const char *put_file(const char *name, const void *data, size_t n)
{
    const char *path = in_scratch(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

static inline const char *put_text(const char *name, const char *text)
{
    return put_file(name, text, strlen(text));
}

/* 8 bytes of length, the header, data_bytes bytes 0, 1, 2, ... */
static inline const char *put_safetensors(const char *name, const char *header, size_t data_bytes)
{
    const char *path = in_scratch(name);
    size_t n = strlen(header);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (int i = 0; i < 8; i++)
        fputc((int)(n >> (8 * i) & 0xff), f);
    fputs(header, f);
    for (size_t i = 0; i < data_bytes; i++)
        fputc((int)(i & 0xff), f);
    assert_int_equal(fclose(f), 0);
    return path;
}

#endif

/* unit/format_files.h - small files for the format tests: a scratch directory, and safetensors
 * files from a header text and a number of data bytes. Fixed places and no allocation: it must
 * not be what fails. */
#ifndef SFQ_TEST_FORMAT_FILES_H
#define SFQ_TEST_FORMAT_FILES_H

#include "unit/unit.h"

static char scratch[SCRATCH_ROOM];

static inline int files_open(void **state)
{
    (void)state;
    scratch_open(scratch);
    return 0;
}

static inline int files_close(void **state)
{
    (void)state;
    scratch_close(scratch);
    return 0;
}

static inline const char *in_scratch(const char *name)
{
    return scratch_path(scratch, name);
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

typedef struct st_entry {
    const char *name;
    int rows, cols; /* cols 0: rank 1 */
} st_entry;

/* One more F16 tensor in a header that began as "{"; data goes on at byte `at`, the new end is
 * returned. */
static inline size_t add_f16(char *header, size_t room, st_entry e, size_t at)
{
    size_t bytes = (size_t)e.rows * (size_t)(e.cols > 0 ? e.cols : 1) * 2, n = strlen(header);
    char cols[16] = "";
    if (e.cols > 0)
        snprintf(cols, sizeof cols, ", %d", e.cols);
    snprintf(header + n, room - n,
             "%s\"%s\": {\"dtype\": \"F16\", \"shape\": [%d%s], \"data_offsets\": [%zu, %zu]}",
             n > 1 ? ", " : "", e.name, e.rows, cols, at, at + bytes);
    return at + bytes;
}

#endif

/* base/file.c - reading regular files. A path is looked at before it is opened, and again after, so
 * a FIFO, socket or device is refused without being opened; O_NONBLOCK covers the moment
 * between. */
#include "base/file.h"

#include "base/ck.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

enum { READ_STEP = 64 << 10, COPY_STEP = 256 << 20, COPY_GRAIN = 2 << 20 };

static sfq_status check_regular(const struct stat *st, const char *path, sfq_error *err)
{
    if (S_ISREG(st->st_mode))
        return SFQ_OK;
    return sfq_fail_at(err, SFQ_E_ARGUMENT, path, NULL, "%s: expected a regular file, found %s",
                       path, S_ISDIR(st->st_mode) ? "a directory" : "a device, pipe or socket");
}

static sfq_status stat_regular(struct stat *st, const char *path, sfq_error *err)
{
    if (sfq_sys_fstatat(AT_FDCWD, path, st, 0) != 0)
        return sfq_fail_errno(err, errno, path, "cannot open");
    return check_regular(st, path, err);
}

static sfq_status open_regular(int *fd, struct stat *st, const char *path, sfq_error *err)
{
    SFQ_TRY(stat_regular(st, path, err));
    *fd = sfq_sys_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0);
    if (*fd < 0)
        return sfq_fail_errno(err, errno, path, "cannot open");
    sfq_status status = SFQ_OK;
    if (sfq_sys_fstat(*fd, st) != 0)
        status = sfq_fail_errno(err, errno, path, "cannot read its size");
    else
        status = check_regular(st, path, err);
    if (status != SFQ_OK)
        sfq_sys_close(*fd);
    return status;
}

sfq_status sfq_map_open(sfq_map *out, const char *path, sfq_error *err)
{
    *out = (sfq_map){0};
    int fd;
    struct stat st;
    SFQ_TRY(open_regular(&fd, &st, path, err));
    sfq_status status = SFQ_OK;
    size_t size = (size_t)st.st_size;
    if (size > 0) {
        void *p = sfq_sys_mmap(size, fd);
        if (p == MAP_FAILED)
            status = sfq_fail_errno(err, errno, path, "cannot map into memory");
        else
            *out = (sfq_map){.data = p, .size = size};
    }
    sfq_sys_close(fd);
    return status;
}

void sfq_map_close(sfq_map *map)
{
    void *data = (void *)(uintptr_t)map->data;
    if (map->copied)
        sfq_mem_free(data);
    else if (data != NULL)
        sfq_sys_munmap(data, map->size);
    *map = (sfq_map){0};
}

typedef struct copy_job {
    unsigned char *to;
    const unsigned char *from;
} copy_job;

static void copy_range(void *ctx, size_t begin, size_t end, int worker)
{
    const copy_job *job = ctx;
    (void)worker;
    memcpy(job->to + begin, job->from + begin, end - begin);
}

sfq_status sfq_map_copy(sfq_map *map, sfq_pool *pool, const sfq_hooks *hooks, const char *what,
                        sfq_error *err)
{
    sfq_status status = SFQ_OK;
    unsigned char *data = NULL;
    if (map->copied || map->size == 0)
        return SFQ_OK;
    data = sfq_mem_huge(map->size);
    if (data == NULL)
        return sfq_fail_memory(err, map->size, what);
    for (size_t at = 0, n; at < map->size; at += n) {
        copy_job job = {data + at, map->data + at};
        n = sfq_min_size(COPY_STEP, map->size - at);
        SFQ_DO(sfq_hooks_check(hooks, err));
        sfq_pool_run(pool, n, COPY_GRAIN, copy_range, &job);
    }
    sfq_sys_munmap((void *)(uintptr_t)map->data, map->size);
    *map = (sfq_map){.data = data, .size = map->size, .copied = true};
    data = NULL;
done:
    sfq_mem_free(data);
    return status;
}

static sfq_status too_big(const char *path, size_t max, sfq_error *err)
{
    return sfq_fail_at(err, SFQ_E_LIMIT, path, NULL, "%s: larger than the limit of %zu bytes", path,
                       max);
}

/* Reads to the end and not to the size that fstat gave: that may be 0 (/proc) or old. */
static sfq_status read_all(sfq_buf *out, int fd, size_t expected, const char *path, size_t max,
                           sfq_error *err)
{
    for (;;) {
        size_t left = expected > out->len ? expected - out->len : READ_STEP;
        size_t room = sfq_min_size(left, max - out->len);
        SFQ_TRY(sfq_buf_reserve(out, room, err));
        char beyond; /* with no room left, one byte more tells whether the file ends here */
        ssize_t got = sfq_sys_pread(fd, room > 0 ? out->data + out->len : &beyond,
                                    room > 0 ? room : 1, (off_t)out->len);
        if (got < 0)
            return sfq_fail_errno(err, errno, path, "read failed");
        if (got == 0)
            break;
        if (room == 0)
            return too_big(path, max, err);
        out->len += (size_t)got;
    }
    out->data[out->len] = 0;
    return SFQ_OK;
}

sfq_status sfq_file_read(sfq_buf *out, const char *path, size_t max, sfq_error *err)
{
    sfq_buf_clear(out);
    out->max = sfq_max_size(out->max, max);
    int fd;
    struct stat st;
    SFQ_TRY(open_regular(&fd, &st, path, err));
    sfq_status status = SFQ_OK;
    if ((uint64_t)st.st_size > max)
        status = too_big(path, max, err);
    else
        status = read_all(out, fd, (size_t)st.st_size, path, max, err);
    sfq_sys_close(fd);
    if (status != SFQ_OK) {
        sfq_buf_clear(out);
        sfq_error_locate(err, path, NULL);
    }
    return status;
}

/* After a failed look: only these say that nothing is there. Anything else counts as "there", so
 * that whoever opens it next reports what is wrong, and nobody goes on without it. */
static bool is_absent(int errnum)
{
    return errnum == ENOENT || errnum == ENOTDIR;
}

bool sfq_file_exists(const char *path)
{
    struct stat st;
    return sfq_sys_fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) == 0 || !is_absent(errno);
}

bool sfq_dir_exists(const char *path)
{
    struct stat st;
    if (sfq_sys_fstatat(AT_FDCWD, path, &st, 0) != 0)
        return !is_absent(errno);
    return S_ISDIR(st.st_mode);
}

sfq_status sfq_file_size(uint64_t *size, const char *path, sfq_error *err)
{
    struct stat st;
    SFQ_TRY(stat_regular(&st, path, err));
    *size = (uint64_t)st.st_size;
    return SFQ_OK;
}

char *sfq_path_join(const char *dir, const char *name)
{
    size_t a = strlen(dir);
    size_t b = strlen(name);
    size_t slash = a > 0 && dir[a - 1] != '/';
    char *path = sfq_mem_raw(a + slash + b + 1);
    if (path == NULL)
        return NULL;
    memcpy(path, dir, a);
    if (slash)
        path[a] = '/';
    memcpy(path + a + slash, name, b + 1);
    return path;
}

bool sfq_name_is_plain(const char *name)
{
    return name[0] != 0 && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

bool sfq_path_same(const char *a, const char *b)
{
    struct stat x;
    struct stat y;
    return sfq_sys_fstatat(AT_FDCWD, a, &x, 0) == 0 && sfq_sys_fstatat(AT_FDCWD, b, &y, 0) == 0 &&
           x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

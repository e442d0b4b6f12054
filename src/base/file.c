/* base/file.c - reading regular files. A path is looked at before it is opened, and again after, so
 * a FIFO, socket or device is refused without being opened; O_NONBLOCK covers the moment
 * between. */
#include "base/file.h"

#include "base/ck.h"
#include "base/mem.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

enum { READ_STEP = 64 << 10 };

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
    if (map->data != NULL)
        sfq_sys_munmap((void *)(uintptr_t)map->data, map->size);
    *map = (sfq_map){0};
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

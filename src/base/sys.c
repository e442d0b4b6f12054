/* base/sys.c - the seam: each function is one call of the C library, and nothing in this folder or
 * above calls around it. tests/fault/seam.c defines the same symbols and is linked in its place, so
 * this file must stay free of anything else. */
#include "base/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#define RETRY(result, call) \
    do {                    \
        (result) = (call);  \
    } while ((result) == -1 && errno == EINTR)

void *sfq_sys_malloc(size_t n)
{
    return malloc(n);
}

void *sfq_sys_calloc(size_t n, size_t size)
{
    return calloc(n, size);
}

void *sfq_sys_realloc(void *p, size_t n)
{
    return realloc(p, n);
}

void *sfq_sys_memalign(size_t align, size_t n)
{
    return aligned_alloc(align, n);
}

void sfq_sys_free(void *p)
{
    free(p);
}

int sfq_sys_open(const char *path, int flags, unsigned mode)
{
    int fd;
    RETRY(fd, open(path, flags, (mode_t)mode));
    return fd;
}

int sfq_sys_openat(int dirfd, const char *name, int flags, unsigned mode)
{
    int fd;
    RETRY(fd, openat(dirfd, name, flags, (mode_t)mode));
    return fd;
}

/* Not repeated: Linux has closed the descriptor even when it reports EINTR. */
int sfq_sys_close(int fd)
{
    return close(fd);
}

int sfq_sys_fstat(int fd, struct stat *st)
{
    return fstat(fd, st);
}

int sfq_sys_fstatat(int dirfd, const char *name, struct stat *st, int flags)
{
    return fstatat(dirfd, name, st, flags);
}

ssize_t sfq_sys_getdents(int fd, void *data, size_t n)
{
    return getdents64(fd, data, n);
}

ssize_t sfq_sys_pread(int fd, void *data, size_t n, off_t at)
{
    ssize_t got;
    RETRY(got, pread(fd, data, n, at));
    return got;
}

ssize_t sfq_sys_read(int fd, void *data, size_t n)
{
    ssize_t got;
    RETRY(got, read(fd, data, n));
    return got;
}

ssize_t sfq_sys_pwrite(int fd, const void *data, size_t n, off_t at)
{
    ssize_t put;
    RETRY(put, pwrite(fd, data, n, at));
    return put;
}

int sfq_sys_fallocate(int fd, off_t size)
{
    int errnum;
    do {
        errnum = posix_fallocate(fd, 0, size);
    } while (errnum == EINTR);
    return errnum;
}

int sfq_sys_fsync(int fd)
{
    int result;
    RETRY(result, fsync(fd));
    return result;
}

int sfq_sys_mkdir(const char *path, unsigned mode)
{
    return mkdir(path, (mode_t)mode);
}

int sfq_sys_rename(const char *from, const char *to)
{
    return rename(from, to);
}

int sfq_sys_exchange(const char *a, const char *b)
{
    return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}

int sfq_sys_linkat(const char *path, int dirfd, const char *name)
{
    return linkat(AT_FDCWD, path, dirfd, name, 0);
}

int sfq_sys_unlinkat(int dirfd, const char *name, int flags)
{
    return unlinkat(dirfd, name, flags);
}

int sfq_sys_flock(int fd)
{
    int result;
    RETRY(result, flock(fd, LOCK_EX | LOCK_NB));
    return result;
}

void *sfq_sys_mmap(size_t n, int fd)
{
    return mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
}

int sfq_sys_munmap(void *p, size_t n)
{
    return munmap(p, n);
}

/* base/sys.h - the seam to everything outside that can fail: raw heap and file system calls. The
 * functions do nothing but the call (and retry EINTR where POSIX lets them). The fault tests link
 * their own versions of this one object file in place of sys.c. */
#ifndef SFQ_BASE_SYS_H
#define SFQ_BASE_SYS_H

#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

void *sfq_sys_malloc(size_t n);
void *sfq_sys_calloc(size_t n, size_t size);
void *sfq_sys_realloc(void *p, size_t n);
void *sfq_sys_memalign(size_t align, size_t n);
void sfq_sys_free(void *p);

/* as the system calls: -1 and errno on failure */
int sfq_sys_open(const char *path, int flags, unsigned mode);
int sfq_sys_openat(int dirfd, const char *name, int flags, unsigned mode);
int sfq_sys_close(int fd);
int sfq_sys_fstat(int fd, struct stat *st);
int sfq_sys_fstatat(int dirfd, const char *name, struct stat *st, int flags);
ssize_t sfq_sys_getdents(int fd, void *data, size_t n); /* struct dirent64 records; 0 at the end */
ssize_t sfq_sys_pread(int fd, void *data, size_t n, off_t at);
ssize_t sfq_sys_read(int fd, void *data, size_t n);
ssize_t sfq_sys_pwrite(int fd, const void *data, size_t n, off_t at);
int sfq_sys_fallocate(int fd, off_t size); /* posix_fallocate: 0 or the error number */
int sfq_sys_fsync(int fd);
int sfq_sys_mkdir(const char *path, unsigned mode);
int sfq_sys_rename(const char *from, const char *to);
int sfq_sys_exchange(const char *a, const char *b);                /* renameat2 RENAME_EXCHANGE */
int sfq_sys_linkat(const char *path, int dirfd, const char *name); /* another name for a file */
int sfq_sys_unlinkat(int dirfd, const char *name, int flags);
int sfq_sys_flock(int fd);            /* exclusive, does not wait; ends with the last descriptor */
void *sfq_sys_mmap(size_t n, int fd); /* read-only, shared; MAP_FAILED on failure */
int sfq_sys_munmap(void *p, size_t n);

#endif

/* fault/seam.c - stands in for src/base/sys.c at link time and makes chosen calls fail. Linked
 * before the archive it defines every symbol of sys.c, so the archive's object is never pulled in.
 *
 * SFQ_FAULT holds rules, separated by commas: OP:N[:ERRNO] the N-th call of OP fails, once
 * ("alloc:17", "fallocate:1:ENOSPC") OP+:N[:ERRNO] that one and all later ones kill:OP:N SIGKILL in
 * place of the N-th call of OP short-write each write takes at most half of what it is given
 * short-read each read gives at most half of what is asked for OP: alloc open close stat getdents
 * read write fallocate fsync mkdir rename exchange link unlink flock mmap. SFQ_FAULT_COUNT=FILE: at
 * exit the number of calls of each OP goes there, "OP N" on a line, and "fired N", the number of
 * faults.
 *
 * Without a sanitizer malloc itself is replaced too, so that "alloc" also meets jansson, PCRE2,
 * popt and the C library. Everything here works without the heap. */
#include "fault/seam.h"

#include "base/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

enum op {
    OP_ALLOC,
    OP_OPEN,
    OP_CLOSE,
    OP_STAT,
    OP_GETDENTS,
    OP_READ,
    OP_WRITE,
    OP_FALLOCATE,
    OP_FSYNC,
    OP_MKDIR,
    OP_RENAME,
    OP_EXCHANGE,
    OP_LINK,
    OP_UNLINK,
    OP_FLOCK,
    OP_MMAP,
    OP_COUNT
};

static const struct {
    const char *name;
    int errnum; /* unless the rule names another */
} ops[OP_COUNT] = {[OP_ALLOC] = {"alloc", ENOMEM},      [OP_OPEN] = {"open", EIO},
                   [OP_CLOSE] = {"close", EIO},         [OP_STAT] = {"stat", EIO},
                   [OP_GETDENTS] = {"getdents", EIO},   [OP_READ] = {"read", EIO},
                   [OP_WRITE] = {"write", EIO},         [OP_FALLOCATE] = {"fallocate", ENOSPC},
                   [OP_FSYNC] = {"fsync", EIO},         [OP_MKDIR] = {"mkdir", EACCES},
                   [OP_RENAME] = {"rename", EIO},       [OP_EXCHANGE] = {"exchange", EIO},
                   [OP_LINK] = {"link", EPERM},         [OP_UNLINK] = {"unlink", EIO},
                   [OP_FLOCK] = {"flock", EWOULDBLOCK}, [OP_MMAP] = {"mmap", ENOMEM}};

static const struct {
    const char *name;
    int errnum;
} errnos[] = {{"ENOSPC", ENOSPC},           {"EDQUOT", EDQUOT},         {"EIO", EIO},
              {"EACCES", EACCES},           {"ENOMEM", ENOMEM},         {"EINVAL", EINVAL},
              {"ENOSYS", ENOSYS},           {"EOPNOTSUPP", EOPNOTSUPP}, {"EMFILE", EMFILE},
              {"EWOULDBLOCK", EWOULDBLOCK}, {"ENOENT", ENOENT},         {"EROFS", EROFS}};

enum { RULES_MAX = 8 };

typedef struct rule {
    enum op op;
    unsigned long n;
    int errnum;
    bool later; /* and all later ones */
    bool kill;
} rule;

static rule rules[RULES_MAX];
static int rule_count;
static bool armed;
static bool short_write;
static bool short_read;
static _Atomic unsigned long counts[OP_COUNT];
static _Atomic unsigned long fired;
static _Atomic long live;

/* ---- rules ---- */

static bool read_op(const char *text, size_t n, enum op *op)
{
    for (int i = 0; i < OP_COUNT; i++)
        if (strlen(ops[i].name) == n && memcmp(ops[i].name, text, n) == 0) {
            *op = (enum op)i;
            return true;
        }
    return false;
}

static bool read_errno(const char *text, size_t n, int *errnum)
{
    for (size_t i = 0; i < sizeof errnos / sizeof *errnos; i++)
        if (strlen(errnos[i].name) == n && memcmp(errnos[i].name, text, n) == 0) {
            *errnum = errnos[i].errnum;
            return true;
        }
    return false;
}

/* One rule, text[0..n). */
static bool read_rule(const char *text, size_t n)
{
    if (n == 11 && memcmp(text, "short-write", n) == 0)
        return short_write = true;
    if (n == 10 && memcmp(text, "short-read", n) == 0)
        return short_read = true;
    rule r = {.kill = n > 5 && memcmp(text, "kill:", 5) == 0};
    const char *end = text + n;
    text += r.kill ? 5 : 0;
    const char *colon = memchr(text, ':', (size_t)(end - text));
    if (colon == NULL || colon == text || rule_count == RULES_MAX)
        return false;
    r.later = colon[-1] == '+';
    if (!read_op(text, (size_t)(colon - text) - r.later, &r.op))
        return false;
    r.errnum = ops[r.op].errnum;
    char *rest;
    r.n = strtoul(colon + 1, &rest, 10);
    if (rest == colon + 1 || r.n == 0)
        return false;
    if (rest < end && (*rest != ':' || !read_errno(rest + 1, (size_t)(end - rest) - 1, &r.errnum)))
        return false;
    rules[rule_count++] = r;
    return true;
}

bool seam_arm(const char *spec)
{
    armed = short_write = short_read = false;
    rule_count = 0;
    fired = 0;
    live = 0;
    for (int i = 0; i < OP_COUNT; i++)
        counts[i] = 0;
    bool ok = true;
    for (const char *at = spec != NULL ? spec : ""; *at != 0 && ok;) {
        size_t n = strcspn(at, ",");
        ok = read_rule(at, n);
        at += n + (at[n] == ',');
    }
    armed = ok;
    return ok;
}

void seam_disarm(void)
{
    armed = false;
}

bool seam_fired(void)
{
    return fired != 0;
}

unsigned long seam_count(const char *name)
{
    enum op op;
    return read_op(name, strlen(name), &op) ? counts[op] : 0;
}

long seam_live(void)
{
    return live;
}

/* Counts a call; the error number that it is to fail with, or 0. */
static int fault(enum op op)
{
    if (!armed)
        return 0;
    unsigned long n = ++counts[op];
    for (int i = 0; i < rule_count; i++) {
        const rule *r = &rules[i];
        if (r->op != op || (n != r->n && !(r->later && n > r->n)))
            continue;
        if (r->kill)
            raise(SIGKILL);
        fired++;
        errno = r->errnum;
        return r->errnum;
    }
    return 0;
}

static size_t half(size_t n, bool cut)
{
    return cut && n > 1 ? n / 2 : n;
}

/* ---- a library whose allocations do not fail: it ends the process then ---- */

static const char *const exempt_names[] = {"libpopt.so"};

enum { EXEMPT = sizeof exempt_names / sizeof *exempt_names };

static struct {
    uintptr_t begin, end;
} exempt[EXEMPT];

static int find_exempt(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)size, (void)data;
    for (int name = 0; name < EXEMPT; name++)
        for (int i = 0; strstr(info->dlpi_name, exempt_names[name]) && i < info->dlpi_phnum; i++) {
            const ElfW(Phdr) *part = &info->dlpi_phdr[i];
            if (part->p_type != PT_LOAD || (part->p_flags & PF_X) == 0)
                continue;
            exempt[name].begin = (uintptr_t)(info->dlpi_addr + part->p_vaddr);
            exempt[name].end = exempt[name].begin + part->p_memsz;
        }
    return 0;
}

/* ---- start and end of a program that the environment drives ---- */

static void say(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) < 0)
        _exit(97);
}

__attribute__((constructor)) static void start(void)
{
    const char *spec = getenv("SFQ_FAULT");
    dl_iterate_phdr(find_exempt, NULL);
    if (!seam_arm(spec)) {
        say(2, "SFQ_FAULT: cannot be read\n");
        _exit(98);
    }
}

__attribute__((destructor)) static void report(void)
{
    armed = false;
    const char *path = getenv("SFQ_FAULT_COUNT");
    int fd = path != NULL ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
    if (fd < 0)
        return;
    char line[64];
    for (int i = 0; i < OP_COUNT; i++) {
        snprintf(line, sizeof line, "%s %lu\n", ops[i].name, (unsigned long)counts[i]);
        say(fd, line);
    }
    snprintf(line, sizeof line, "fired %lu\n", (unsigned long)fired);
    say(fd, line);
    close(fd);
}

/* ---- the heap ---- */

static void *counted(void *p)
{
    if (p != NULL && armed)
        live++;
    return p;
}

static void *resized(void *old, void *p)
{
    return old == NULL ? counted(p) : p;
}

static void released(const void *p)
{
    if (p != NULL && armed)
        live--;
}

#ifdef SEAM_MALLOC
/* The C library's own, under the names that it keeps for such replacements. */
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);
extern void __libc_free(void *p);

static bool denied(const void *caller)
{
    uintptr_t at = (uintptr_t)caller;
    for (int i = 0; i < EXEMPT; i++)
        if (at >= exempt[i].begin && at < exempt[i].end)
            return false;
    return fault(OP_ALLOC) != 0;
}

void *malloc(size_t n)
{
    return denied(__builtin_return_address(0)) ? NULL : counted(__libc_malloc(n));
}

void *calloc(size_t n, size_t size)
{
    return denied(__builtin_return_address(0)) ? NULL : counted(__libc_calloc(n, size));
}

void *realloc(void *p, size_t n)
{
    return denied(__builtin_return_address(0)) ? NULL : resized(p, __libc_realloc(p, n));
}

void *aligned_alloc(size_t align, size_t n)
{
    return denied(__builtin_return_address(0)) ? NULL : counted(__libc_memalign(align, n));
}

void *memalign(size_t align, size_t n)
{
    return aligned_alloc(align, n);
}

int posix_memalign(void **p, size_t align, size_t n)
{
    *p = aligned_alloc(align, n);
    return *p != NULL ? 0 : ENOMEM;
}

void free(void *p)
{
    int errnum = errno;
    released(p);
    __libc_free(p);
    errno = errnum;
}

#define HEAP(call) (call)
#define HEAP_RESIZE(p, call) (call)
#define HEAP_FREE(p) ((void)0)
#else
#define HEAP(call) (fault(OP_ALLOC) ? NULL : counted(call))
#define HEAP_RESIZE(p, call) (fault(OP_ALLOC) ? NULL : resized(p, call))
#define HEAP_FREE(p) released(p)
#endif

void *sfq_sys_malloc(size_t n)
{
    return HEAP(malloc(n));
}

void *sfq_sys_calloc(size_t n, size_t size)
{
    return HEAP(calloc(n, size));
}

void *sfq_sys_realloc(void *p, size_t n)
{
    return HEAP_RESIZE(p, realloc(p, n));
}

void *sfq_sys_memalign(size_t align, size_t n)
{
    return HEAP(aligned_alloc(align, n));
}

void sfq_sys_free(void *p)
{
    HEAP_FREE(p);
    free(p);
}

/* ---- the file system ---- */

int sfq_sys_open(const char *path, int flags, unsigned mode)
{
    return fault(OP_OPEN) ? -1 : open(path, flags, (mode_t)mode);
}

int sfq_sys_openat(int dirfd, const char *name, int flags, unsigned mode)
{
    return fault(OP_OPEN) ? -1 : openat(dirfd, name, flags, (mode_t)mode);
}

/* The descriptor is gone in any case, as with a real failure of close. */
int sfq_sys_close(int fd)
{
    int result = close(fd);
    return fault(OP_CLOSE) ? -1 : result;
}

int sfq_sys_fstat(int fd, struct stat *st)
{
    return fault(OP_STAT) ? -1 : fstat(fd, st);
}

int sfq_sys_fstatat(int dirfd, const char *name, struct stat *st, int flags)
{
    return fault(OP_STAT) ? -1 : fstatat(dirfd, name, st, flags);
}

ssize_t sfq_sys_getdents(int fd, void *data, size_t n)
{
    return fault(OP_GETDENTS) ? -1 : getdents64(fd, data, n);
}

ssize_t sfq_sys_pread(int fd, void *data, size_t n, off_t at)
{
    return fault(OP_READ) ? -1 : pread(fd, data, half(n, short_read), at);
}

ssize_t sfq_sys_read(int fd, void *data, size_t n)
{
    return fault(OP_READ) ? -1 : read(fd, data, half(n, short_read));
}

ssize_t sfq_sys_pwrite(int fd, const void *data, size_t n, off_t at)
{
    return fault(OP_WRITE) ? -1 : pwrite(fd, data, half(n, short_write), at);
}

int sfq_sys_fallocate(int fd, off_t size)
{
    int errnum = fault(OP_FALLOCATE);
    return errnum != 0 ? errnum : posix_fallocate(fd, 0, size);
}

int sfq_sys_fsync(int fd)
{
    return fault(OP_FSYNC) ? -1 : fsync(fd);
}

int sfq_sys_mkdir(const char *path, unsigned mode)
{
    return fault(OP_MKDIR) ? -1 : mkdir(path, (mode_t)mode);
}

int sfq_sys_rename(const char *from, const char *to)
{
    return fault(OP_RENAME) ? -1 : rename(from, to);
}

int sfq_sys_exchange(const char *a, const char *b)
{
    return fault(OP_EXCHANGE) ? -1 : renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}

int sfq_sys_linkat(const char *path, int dirfd, const char *name)
{
    return fault(OP_LINK) ? -1 : linkat(AT_FDCWD, path, dirfd, name, 0);
}

int sfq_sys_unlinkat(int dirfd, const char *name, int flags)
{
    return fault(OP_UNLINK) ? -1 : unlinkat(dirfd, name, flags);
}

int sfq_sys_flock(int fd)
{
    return fault(OP_FLOCK) ? -1 : flock(fd, LOCK_EX | LOCK_NB);
}

void *sfq_sys_mmap(size_t n, int fd)
{
    return fault(OP_MMAP) ? MAP_FAILED : mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
}

int sfq_sys_munmap(void *p, size_t n)
{
    return munmap(p, n);
}

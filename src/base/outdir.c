/* base/outdir.c - a directory that appears whole or not at all. Everything is written to a
 * temporary beside the target; one rename (or exchange) publishes it. Paths are made when the
 * outdir is opened and entries are removed through descriptors, so abort needs no memory. The
 * temporary is locked (flock) as long as its process lives, also across PID namespaces. */
#include "base/file.h"

#include "base/ck.h"
#include "base/dirscan.h"
#include "base/mem.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OUTDIR_FILES = 64, OUTDIR_ATTEMPTS = 100 };

struct sfq_outdir {
    char *target; /* as given, without slashes at the end */
    char *parent;
    char *path;       /* of the temporary */
    const char *name; /* last part of path */
    size_t mark;      /* where ".sfq-tmp.PID" stands in path */
    int parent_fd;
    int fd; /* of the temporary, locked */
    bool force;
    int open_count;
    int open_fds[OUTDIR_FILES];
};

/* ---- the target ---- */

static bool find_config(void *ctx, int dirfd, const char *name)
{
    (void)dirfd;
    bool *state = ctx; /* [0]: any entry, [1]: config.json */
    state[0] = true;
    state[1] = strcmp(name, "config.json") == 0;
    return !state[1];
}

typedef enum target_kind { TARGET_ABSENT, TARGET_EMPTY, TARGET_MODEL } target_kind;

static sfq_status not_replaced(const char *path, const char *why, sfq_error *err)
{
    return sfq_fail_at(err, SFQ_E_EXISTS, path, NULL,
                       "%s: %s; it is not replaced: choose another output", path, why);
}

/* What lies at path; EXISTS when it is nothing that may be replaced. */
static sfq_status classify(target_kind *kind, const char *path, sfq_error *err)
{
    struct stat st;
    *kind = TARGET_ABSENT;
    if (sfq_sys_fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? SFQ_OK : sfq_fail_errno(err, errno, path, "cannot look at it");
    if (S_ISLNK(st.st_mode))
        return not_replaced(path, "is a symbolic link", err);
    if (!S_ISDIR(st.st_mode))
        return not_replaced(path, "exists and is no directory", err);
    bool state[2] = {false, false};
    int fd = sfq_dirscan_open(AT_FDCWD, path);
    if (fd < 0)
        return sfq_fail_errno(err, errno, path, "cannot open");
    bool whole = sfq_dirscan_each(fd, find_config, state);
    int errnum = errno;
    sfq_sys_close(fd);
    if (!whole && !state[1])
        return sfq_fail_errno(err, errnum, path, "cannot list");
    if (state[0] && !state[1])
        return not_replaced(path, "holds files but no config.json", err);
    *kind = state[1] ? TARGET_MODEL : TARGET_EMPTY;
    return SFQ_OK;
}

static sfq_status check_target(const sfq_outdir *dir, sfq_error *err)
{
    target_kind kind;
    SFQ_TRY(classify(&kind, dir->target, err));
    if (dir->force || kind == TARGET_ABSENT)
        return SFQ_OK;
    return sfq_fail_at(err, SFQ_E_EXISTS, dir->target, NULL,
                       "%s: exists; choose another output, or replace it with --force",
                       dir->target);
}

/* ---- open ---- */

static sfq_status split_target(sfq_outdir *dir, const char *target, const char **name,
                               sfq_error *err)
{
    size_t len = strlen(target);
    while (len > 1 && target[len - 1] == '/')
        len--;
    dir->target = sfq_mem_strndup(target, len);
    if (dir->target == NULL)
        return sfq_fail_memory(err, len, "a path");
    const char *slash = strrchr(dir->target, '/');
    *name = slash != NULL ? slash + 1 : dir->target;
    if (!sfq_name_is_plain(*name))
        return sfq_fail_at(err, SFQ_E_ARGUMENT, target, NULL,
                           "\"%s\" does not end in the name of a directory to write", target);
    size_t parent = slash == NULL ? 1 : slash == dir->target ? 1 : (size_t)(slash - dir->target);
    dir->parent = slash == NULL ? sfq_mem_strdup(".") : sfq_mem_strndup(dir->target, parent);
    return dir->parent != NULL ? SFQ_OK : sfq_fail_memory(err, parent, "a path");
}

/* ".NAME.sfq-tmp.PID" and whatever follows. The process is gone when the kernel does not know it
 * and its lock is free; both, because another PID namespace may share the file system. */
typedef struct stale_ctx {
    const char *name;
    size_t name_len;
} stale_ctx;

static bool remove_stale(void *ctx, int parent_fd, const char *entry)
{
    static const char mark[] = ".sfq-tmp.";
    const stale_ctx *stale = ctx;
    const char *at = entry + 1 + stale->name_len;
    if (entry[0] != '.' || strncmp(entry + 1, stale->name, stale->name_len) != 0 ||
        strncmp(at, mark, sizeof mark - 1) != 0)
        return true;
    char *end;
    long pid = strtol(at + sizeof mark - 1, &end, 10);
    if (pid <= 0 || pid > INT32_MAX || (*end != 0 && *end != '.'))
        return true;
    if (getpgid((pid_t)pid) >= 0 || errno != ESRCH)
        return true;
    int fd = sfq_dirscan_open(parent_fd, entry);
    if (fd < 0)
        return true;
    if (sfq_sys_flock(fd) == 0)
        (void)sfq_dirscan_remove(parent_fd, entry); /* what stays does no harm */
    sfq_sys_close(fd);
    return true;
}

static sfq_status make_temporary(sfq_outdir *dir, const char *name, sfq_error *err)
{
    size_t size = strlen(dir->parent) + strlen(name) + 64;
    dir->path = sfq_mem_raw(size);
    if (dir->path == NULL)
        return sfq_fail_memory(err, size, "a path");
    const char *slash = dir->parent[strlen(dir->parent) - 1] == '/' ? "" : "/";
    int made = -1;
    for (int attempt = 0; attempt < OUTDIR_ATTEMPTS && made != 0; attempt++) {
        int n = snprintf(dir->path, size, "%s%s.%s.sfq-tmp.%ld", dir->parent, slash, name,
                         (long)getpid());
        if (attempt > 0) /* a thread of ours writes there too, or our number was used before */
            snprintf(dir->path + n, size - (size_t)n, ".%d", attempt);
        made = sfq_sys_mkdir(dir->path, 0777);
        if (made != 0 && errno != EEXIST)
            break;
    }
    if (made != 0)
        return sfq_fail_errno(err, errno, dir->path, "cannot make the directory");
    dir->name = strrchr(dir->path, '/') + 1;
    dir->mark = (size_t)(dir->name - dir->path) + 1 + strlen(name);
    dir->fd = sfq_dirscan_open(dir->parent_fd, dir->name);
    if (dir->fd < 0)
        return sfq_fail_errno(err, errno, dir->path, "cannot open");
    (void)sfq_sys_flock(
        dir->fd); /* a file system without locks loses only the clean-up of others */
    return SFQ_OK;
}

sfq_status sfq_outdir_open(sfq_outdir **out, const char *target, bool force, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    *out = NULL;
    sfq_outdir *dir = SFQ_NEW(sfq_outdir);
    if (dir == NULL)
        return sfq_fail_memory(err, sizeof *dir, "an output directory");
    dir->parent_fd = dir->fd = -1;
    dir->force = force;
    const char *name = NULL;
    SFQ_DO(split_target(dir, target, &name, err));
    dir->parent_fd = sfq_sys_open(dir->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (dir->parent_fd < 0) {
        status = sfq_fail_errno(err, errno, dir->parent,
                                "cannot open the parent directory, which must exist");
        goto done;
    }
    SFQ_DO(check_target(dir, err));
    stale_ctx stale = {.name = name, .name_len = strlen(name)};
    (void)sfq_dirscan_each(dir->parent_fd, remove_stale, &stale);
    SFQ_DO(make_temporary(dir, name, err));
done:
    if (status != SFQ_OK)
        sfq_outdir_abort(&dir);
    *out = dir;
    return status;
}

const char *sfq_outdir_path(const sfq_outdir *dir)
{
    return dir->path;
}

/* ---- files ---- */

sfq_status sfq_outdir_write(int fd, const char *name, const void *data, size_t n, uint64_t at,
                            sfq_error *err)
{
    const char *bytes = data;
    while (n > 0) {
        ssize_t put = sfq_sys_pwrite(fd, bytes, n, (off_t)at);
        if (put <= 0)
            return sfq_fail_errno(err, put < 0 ? errno : EIO, name, "write failed");
        bytes += put;
        at += (uint64_t)put;
        n -= (size_t)put;
    }
    return SFQ_OK;
}

sfq_status sfq_outdir_create(sfq_outdir *dir, const char *name, uint64_t size, int *fd,
                             sfq_error *err)
{
    *fd = -1;
    if (!sfq_name_is_plain(name) || size > INT64_MAX)
        return sfq_fail_at(err, SFQ_E_ARGUMENT, name, NULL,
                           "\"%s\" of %llu bytes is no file for a model directory", name,
                           (unsigned long long)size);
    if (dir->open_count == OUTDIR_FILES)
        return sfq_fail(err, SFQ_E_LIMIT, "more than %d files open for writing", OUTDIR_FILES);
    int file =
        sfq_sys_openat(dir->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (file < 0)
        return sfq_fail_errno(err, errno, name, "cannot create");
    int errnum = size > 0 ? sfq_sys_fallocate(file, (off_t)size) : 0;
    if (errnum != 0 && errnum != EOPNOTSUPP && errnum != EINVAL) {
        sfq_sys_close(file);
        return sfq_fail_errno(err, errnum, name, "cannot reserve disk space");
    }
    dir->open_fds[dir->open_count++] = file;
    *fd = file;
    return SFQ_OK;
}

sfq_status sfq_outdir_finish(sfq_outdir *dir, const char *name, int fd, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    if (sfq_sys_fsync(fd) != 0)
        status = sfq_fail_errno(err, errno, name, "cannot be written through to the disk");
    for (int i = 0; i < dir->open_count; i++)
        if (dir->open_fds[i] == fd)
            dir->open_fds[i] = dir->open_fds[--dir->open_count];
    if (sfq_sys_close(fd) != 0 && status == SFQ_OK)
        status = sfq_fail_errno(err, errno, name, "close failed");
    return status;
}

sfq_status sfq_outdir_put(sfq_outdir *dir, const char *name, const void *data, size_t n,
                          sfq_error *err)
{
    int fd;
    SFQ_TRY(sfq_outdir_create(dir, name, n, &fd, err));
    sfq_status status = sfq_outdir_write(fd, name, data, n, 0, err);
    if (status == SFQ_OK)
        return sfq_outdir_finish(dir, name, fd, err);
    (void)sfq_outdir_finish(dir, name, fd, NULL);
    return status;
}

sfq_status sfq_outdir_take(sfq_outdir *dir, const char *name, const char *path, sfq_error *err)
{
    sfq_map map;
    if (!sfq_name_is_plain(name))
        return sfq_fail(err, SFQ_E_ARGUMENT, "\"%s\" is no plain name", name);
    if (sfq_sys_linkat(path, dir->fd, name) == 0)
        return SFQ_OK;
    SFQ_TRY(sfq_map_open(&map, path, err));
    sfq_status status = sfq_outdir_put(dir, name, map.data, map.size, err);
    sfq_map_close(&map);
    return status;
}

/* ---- end ---- */

void sfq_outdir_abort(sfq_outdir **out)
{
    sfq_outdir *dir = *out;
    if (dir == NULL)
        return;
    for (int i = 0; i < dir->open_count; i++)
        sfq_sys_close(dir->open_fds[i]);
    if (dir->name != NULL)
        (void)sfq_dirscan_remove(dir->parent_fd, dir->name);
    if (dir->fd >= 0)
        sfq_sys_close(dir->fd);
    if (dir->parent_fd >= 0)
        sfq_sys_close(dir->parent_fd);
    sfq_mem_free(dir->target);
    sfq_mem_free(dir->parent);
    sfq_mem_free(dir->path);
    sfq_mem_free(dir);
    *out = NULL;
}

/* The temporary's path with "old" for "tmp", a name that no clean-up touches. */
static char *aside_path(const sfq_outdir *dir)
{
    char *aside = sfq_mem_strdup(dir->path);
    if (aside != NULL)
        memcpy(aside + dir->mark + 5, "old", 3);
    return aside;
}

/* For file systems without RENAME_EXCHANGE: the old directory steps aside to the path `aside`
 * and comes back when the second rename fails. */
static int exchange_in_steps(const char *path, const char *final, const char *aside)
{
    if (sfq_sys_rename(final, aside) != 0)
        return -1;
    if (sfq_sys_rename(path, final) == 0)
        return sfq_sys_rename(aside, path);
    int errnum = errno;
    (void)sfq_sys_rename(aside, final);
    errno = errnum;
    return -1;
}

static int swap(const char *path, const char *final, const char *aside)
{
    if (sfq_sys_exchange(path, final) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP && errno != EXDEV)
        return -1;
    return exchange_in_steps(path, final, aside);
}

/* The temporary becomes `final`; what was there lies at the temporary's path afterwards. When the
 * parent cannot be synced, both go back. */
static sfq_status publish(const sfq_outdir *dir, const char *final, const char *aside,
                          sfq_error *err)
{
    target_kind kind;
    SFQ_TRY(classify(&kind, final, err));
    bool model = kind == TARGET_MODEL;
    if ((model ? swap(dir->path, final, aside) : sfq_sys_rename(dir->path, final)) != 0)
        return sfq_fail_errno(err, errno, final, "cannot put the new directory in place");
    if (sfq_sys_fsync(dir->parent_fd) == 0)
        return SFQ_OK;
    int errnum = errno;
    if (model)
        (void)swap(dir->path, final, aside);
    else
        (void)sfq_sys_rename(final, dir->path);
    return sfq_fail_errno(err, errnum, dir->parent, "cannot be written through to the disk");
}

sfq_status sfq_outdir_commit(sfq_outdir **out, const char *rename_to, sfq_error *err)
{
    sfq_outdir *dir = *out;
    sfq_status status = SFQ_OK;
    char *renamed = NULL;
    char *aside = NULL;
    if (rename_to != NULL && !sfq_name_is_plain(rename_to)) {
        status = sfq_fail(err, SFQ_E_ARGUMENT, "\"%s\" is no plain name", rename_to);
        goto done;
    }
    if (rename_to != NULL)
        renamed = sfq_path_join(dir->parent, rename_to);
    aside = aside_path(dir);
    if (aside == NULL || (rename_to != NULL && renamed == NULL)) {
        status = sfq_fail_memory(err, strlen(dir->path), "a path");
        goto done;
    }
    if (dir->open_count > 0) {
        status = sfq_fail(err, SFQ_E_INTERNAL, "%s: %d files were not finished", dir->path,
                          dir->open_count);
        goto done;
    }
    if (sfq_sys_fsync(dir->fd) != 0) {
        status = sfq_fail_errno(err, errno, dir->path, "cannot be written through to the disk");
        goto done;
    }
    if (renamed == NULL)
        SFQ_DO(check_target(dir, err));
    status = publish(dir, renamed != NULL ? renamed : dir->target, aside, err);
done:
    sfq_mem_free(renamed);
    sfq_mem_free(aside);
    sfq_outdir_abort(out);
    return status;
}

/* base/replace.c - one file, replaced at once: whoever reads it sees the old bytes or the new ones,
 * also after a crash. The temporary has one fixed name, so that a writer that was killed leaves one
 * file at most, which the next one overwrites. */
#include "base/file.h"

#include "base/mem.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

static sfq_status write_parts(int fd, const char *path, const sfq_file_part *parts, size_t count,
                              sfq_error *err)
{
    uint64_t at = 0, size = 0;
    for (size_t i = 0; i < count; i++)
        size += parts[i].bytes;
    int errnum = size > 0 ? sfq_sys_fallocate(fd, (off_t)size) : 0;
    if (errnum != 0 && errnum != EOPNOTSUPP && errnum != EINVAL)
        return sfq_fail_errno(err, errnum, path, "cannot reserve disk space");
    for (size_t i = 0; i < count; at += parts[i++].bytes)
        SFQ_TRY(sfq_outdir_write(fd, path, parts[i].data, parts[i].bytes, at, err));
    if (sfq_sys_fsync(fd) != 0)
        return sfq_fail_errno(err, errno, path, "cannot be written through to the disk");
    return SFQ_OK;
}

static sfq_status write_file(const char *path, const sfq_file_part *parts, size_t count,
                             sfq_error *err)
{
    int fd = sfq_sys_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0)
        return sfq_fail_errno(err, errno, path, "cannot create");
    sfq_status status = write_parts(fd, path, parts, count, err);
    if (sfq_sys_close(fd) != 0 && status == SFQ_OK)
        status = sfq_fail_errno(err, errno, path, "close failed");
    return status;
}

static sfq_status sync_parent(const char *path, sfq_error *err)
{
    const char *slash = strrchr(path, '/');
    char *parent = slash == NULL   ? sfq_mem_strdup(".")
                   : slash == path ? sfq_mem_strdup("/")
                                   : sfq_mem_strndup(path, (size_t)(slash - path));
    if (parent == NULL)
        return sfq_fail_memory(err, strlen(path), "a path");
    sfq_status status = SFQ_OK;
    int fd = sfq_sys_open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0 || sfq_sys_fsync(fd) != 0)
        status = sfq_fail_errno(err, errno, parent, "cannot be written through to the disk");
    if (fd >= 0)
        sfq_sys_close(fd);
    sfq_mem_free(parent);
    return status;
}

sfq_status sfq_file_replace(const char *path, const sfq_file_part *parts, size_t count,
                            sfq_error *err)
{
    static const char tail[] = ".tmp";
    size_t n = strlen(path);
    char *temporary = sfq_mem_raw(n + sizeof tail);
    if (temporary == NULL)
        return sfq_fail_memory(err, n + sizeof tail, "a path");
    memcpy(temporary, path, n);
    memcpy(temporary + n, tail, sizeof tail);
    sfq_status status = write_file(temporary, parts, count, err);
    if (status == SFQ_OK && sfq_sys_rename(temporary, path) != 0)
        status = sfq_fail_errno(err, errno, path, "cannot put the new file in place");
    if (status == SFQ_OK)
        status = sync_parent(path, err);
    else
        (void)sfq_sys_unlinkat(AT_FDCWD, temporary, 0); /* what stays does no harm */
    sfq_mem_free(temporary);
    return status;
}

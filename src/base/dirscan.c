/* base/dirscan.c - directory entries by getdents64 into a buffer on the stack. */
#include "base/dirscan.h"

#include "base/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { SCAN_BYTES = 4096, REMOVE_DEPTH = 32 };

int sfq_dirscan_open(int dirfd, const char *name)
{
    return sfq_sys_openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
}

bool sfq_dirscan_each(int dirfd, sfq_dirscan_fn fn, void *ctx)
{
    _Alignas(struct dirent64) char data[SCAN_BYTES];
    if (lseek(dirfd, 0, SEEK_SET) < 0)
        return false;
    for (;;) {
        ssize_t got = sfq_sys_getdents(dirfd, data, sizeof data);
        if (got <= 0)
            return got == 0;
        for (ssize_t at = 0; at < got;) {
            const struct dirent64 *entry = (const struct dirent64 *)(const void *)(data + at);
            at += entry->d_reclen;
            if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                continue;
            if (!fn(ctx, dirfd, entry->d_name))
                return false;
        }
    }
}

typedef struct remove_ctx {
    dev_t device; /* 0, which no directory lies on, where it could not be read */
    int depth;
    bool removed; /* something, in this pass */
    bool failed;
} remove_ctx;

static bool remove_tree(int dirfd, const char *name, dev_t device, int depth);

static bool remove_entry(void *ctx, int dirfd, const char *name)
{
    remove_ctx *remove = ctx;
    bool gone = sfq_sys_unlinkat(dirfd, name, 0) == 0 ||
                ((errno == EISDIR || errno == EPERM) &&
                 remove_tree(dirfd, name, remove->device, remove->depth + 1));
    remove->removed |= gone;
    remove->failed |= !gone;
    return true;
}

static bool remove_tree(int dirfd, const char *name, dev_t device, int depth)
{
    struct stat st;
    int fd = depth < REMOVE_DEPTH ? sfq_dirscan_open(dirfd, name) : -1;
    if (fd < 0)
        return false;
    bool known = sfq_sys_fstat(fd, &st) == 0;
    bool ok = depth == 0 || (known && st.st_dev == device);
    remove_ctx ctx = {.device = known ? st.st_dev : 0, .depth = depth, .removed = ok};
    while (ok && ctx.removed) { /* again until a pass finds nothing: entries move as others go */
        ctx.removed = ctx.failed = false;
        ok = sfq_dirscan_each(fd, remove_entry, &ctx);
    }
    sfq_sys_close(fd);
    return ok && !ctx.failed && sfq_sys_unlinkat(dirfd, name, AT_REMOVEDIR) == 0;
}

bool sfq_dirscan_remove(int dirfd, const char *name)
{
    return remove_tree(dirfd, name, 0, 0);
}

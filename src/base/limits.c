/* base/limits.c - reads /proc and /sys into buffers on the stack: this runs before anything else
 * and whatever is unreadable only means "no limit known". A process's cgroup path is relative to a
 * root that mountinfo names (containers mount a part of the hierarchy), and a quota may sit at any
 * ancestor, so every level up to the mount point is asked. */
#include "base/limits.h"

#include "base/sys.h"

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 64 << 10, PATH_ROOM = 4096 };

/* At most cap - 1 bytes, NUL behind; false when it cannot be read. */
static bool read_text(const char *root, const char *path, char *text, size_t cap)
{
    char full[PATH_ROOM];
    int n = snprintf(full, sizeof full, "%s%s", root, path);
    if (n < 0 || (size_t)n >= sizeof full)
        return false;
    int fd = sfq_sys_open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    if (fd < 0)
        return false;
    size_t len = 0;
    ssize_t got = 1;
    while (got > 0 && len < cap - 1) {
        got = sfq_sys_read(fd, text + len, cap - 1 - len);
        len += got > 0 ? (size_t)got : 0;
    }
    sfq_sys_close(fd);
    text[len] = 0;
    return got >= 0;
}

uint64_t sfq_limits_field(const char *root, const char *path, const char *key)
{
    char text[16 << 10];
    size_t len = strlen(key);
    if (!read_text(root, path, text, sizeof text))
        return UINT64_MAX;
    for (const char *line = text; line != NULL && *line != 0;) {
        if (strncmp(line, key, len) == 0 && (line[len] == ' ' || line[len] == '\t'))
            return strtoull(line + len, NULL, 10);
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return UINT64_MAX;
}

/* ---- processors ---- */

int sfq_limits_affinity(sfq_cpu_mask *mask)
{
    memset(mask, 0, sizeof *mask);
    int count = 0;
    if (sched_getaffinity(0, sizeof *mask, (cpu_set_t *)(void *)mask) == 0)
        for (size_t i = 0; i < SFQ_LIMITS_WORDS; i++)
            count += __builtin_popcountll(mask->word[i]);
    return count > 0 ? count : 1;
}

/* Siblings of one core name the same first processor in their list. */
int sfq_limits_cores(const char *root, const sfq_cpu_mask *mask)
{
    sfq_cpu_mask firsts = {{0}};
    int count = 0;
    for (unsigned long cpu = 0; cpu < SFQ_LIMITS_CPUS; cpu++) {
        if ((mask->word[cpu / 64] >> cpu % 64 & 1) == 0)
            continue;
        char path[128];
        char text[256];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%lu/topology/thread_siblings_list",
                 cpu);
        unsigned long first = cpu;
        if (read_text(root, path, text, sizeof text) && text[0] >= '0' && text[0] <= '9')
            first = strtoul(text, NULL, 10);
        if (first >= SFQ_LIMITS_CPUS)
            first = cpu;
        uint64_t bit = (uint64_t)1 << first % 64;
        count += (firsts.word[first / 64] & bit) == 0;
        firsts.word[first / 64] |= bit;
    }
    return count > 0 ? count : 1;
}

/* ---- cgroups ---- */

typedef struct cgroup_dir {
    int version;
    size_t mount_len;     /* levels above this are not ours to read */
    char path[PATH_ROOM]; /* mount point + the process's group */
} cgroup_dir;

/* Is `word` one of the comma-separated words of list[0..n)? */
static bool has_word(const char *list, size_t n, const char *word)
{
    size_t len = strlen(word);
    for (size_t at = 0; at + len <= n; at++) {
        bool starts = at == 0 || list[at - 1] == ',';
        bool ends = at + len == n || list[at + len] == ',';
        if (starts && ends && strncmp(list + at, word, len) == 0)
            return true;
    }
    return false;
}

/* The process's path in the hierarchy of `controller` (version 1) or the unified one (2), from
 * /proc/self/cgroup: "ID:controllers:/path". */
static bool own_group(const char *root, const char *controller, int version, char *group,
                      size_t cap)
{
    char text[16 << 10];
    if (!read_text(root, "/proc/self/cgroup", text, sizeof text))
        return false;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        char *list = strchr(line, ':');
        char *path = list != NULL ? strchr(list + 1, ':') : NULL;
        if (path == NULL)
            continue;
        size_t n = (size_t)(path - list - 1);
        bool match =
            version == 2 ? strncmp(line, "0::", 3) == 0 : has_word(list + 1, n, controller);
        if (match && strlen(path + 1) < cap) {
            strcpy(group, path + 1);
            return true;
        }
    }
    return false;
}

/* One line of mountinfo: "id parent dev ROOT POINT options ... - TYPE source SUPER". */
static bool mount_matches(char *line, const char *controller, int version, char **mount_root,
                          char **point)
{
    char *dash = strstr(line, " - ");
    if (dash == NULL)
        return false;
    char *rest = NULL;
    *dash = 0;
    char *type = strtok_r(dash + 3, " ", &rest);
    char *source = type != NULL ? strtok_r(NULL, " ", &rest) : NULL;
    char *super = source != NULL ? strtok_r(NULL, " ", &rest) : NULL;
    if (super == NULL || strcmp(type, version == 2 ? "cgroup2" : "cgroup") != 0 ||
        (version == 1 && !has_word(super, strlen(super), controller)))
        return false;
    char *field[5];
    char *at = line;
    for (int i = 0; i < 5; i++, at = NULL) {
        field[i] = strtok_r(at, " ", &rest);
        if (field[i] == NULL)
            return false;
    }
    *mount_root = field[3];
    *point = field[4];
    return true;
}

/* The part of group below the mount's root; "" when the group lies outside it. */
static const char *below_mount(const char *group, const char *mount_root)
{
    size_t n = strcmp(mount_root, "/") == 0 ? 0 : strlen(mount_root);
    bool inside = strncmp(group, mount_root, n) == 0 && (group[n] == '/' || group[n] == 0);
    const char *rest = inside ? group + n : "";
    return strcmp(rest, "/") == 0 || strstr(rest, "/..") != NULL ? "" : rest;
}

static bool find_cgroup(cgroup_dir *dir, const char *root, const char *controller, int version)
{
    char group[1024];
    char text[TEXT_MAX];
    if (!own_group(root, controller, version, group, sizeof group) ||
        !read_text(root, "/proc/self/mountinfo", text, sizeof text))
        return false;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        char *mount_root;
        char *point;
        if (!mount_matches(line, controller, version, &mount_root, &point))
            continue;
        int n =
            snprintf(dir->path, sizeof dir->path, "%s%s", point, below_mount(group, mount_root));
        dir->mount_len = strlen(point);
        dir->version = version;
        return n > 0 && (size_t)n < sizeof dir->path - 64;
    }
    return false;
}

/* The next ancestor; false above the mount point. */
static bool go_up(cgroup_dir *dir)
{
    char *slash = strrchr(dir->path, '/');
    if (slash == NULL || (size_t)(slash - dir->path) < dir->mount_len)
        return false;
    *slash = 0;
    return true;
}

static bool read_entry(const char *root, const cgroup_dir *dir, const char *name, char *text,
                       size_t cap)
{
    char path[PATH_ROOM + 64];
    snprintf(path, sizeof path, "%s/%s", dir->path, name);
    return read_text(root, path, text, cap);
}

/* A number; UINT64_MAX for "max", "-1" and whatever else is none. */
static uint64_t read_number(const char *root, const cgroup_dir *dir, const char *name)
{
    char text[64];
    if (!read_entry(root, dir, name, text, sizeof text) || text[0] < '0' || text[0] > '9')
        return UINT64_MAX;
    return strtoull(text, NULL, 10);
}

static double level_quota(const char *root, const cgroup_dir *dir)
{
    uint64_t quota = UINT64_MAX;
    uint64_t period = UINT64_MAX;
    if (dir->version == 2) {
        char text[64];
        char *end;
        if (read_entry(root, dir, "cpu.max", text, sizeof text) && text[0] >= '0' &&
            text[0] <= '9') {
            quota = strtoull(text, &end, 10);
            period = strtoull(end, NULL, 10);
        }
    } else {
        quota = read_number(root, dir, "cpu.cfs_quota_us");
        period = read_number(root, dir, "cpu.cfs_period_us");
    }
    if (quota == UINT64_MAX || quota == 0 || period == UINT64_MAX || period == 0)
        return 0;
    return (double)quota / (double)period;
}

double sfq_limits_cpu_quota(const char *root)
{
    double least = 0;
    for (int version = 1; version <= 2; version++) {
        cgroup_dir dir;
        if (!find_cgroup(&dir, root, "cpu", version))
            continue;
        do {
            double quota = level_quota(root, &dir);
            if (quota > 0 && (least <= 0 || quota < least))
                least = quota;
        } while (go_up(&dir));
    }
    return least;
}

/* limit - (usage - inactive file pages): pages that the kernel gives back on demand are free. */
static uint64_t level_memory(const char *root, const cgroup_dir *dir)
{
    bool v2 = dir->version == 2;
    uint64_t limit = read_number(root, dir, v2 ? "memory.max" : "memory.limit_in_bytes");
    uint64_t usage = read_number(root, dir, v2 ? "memory.current" : "memory.usage_in_bytes");
    if (limit == UINT64_MAX || limit >= INT64_MAX / 2 || usage == UINT64_MAX)
        return UINT64_MAX;
    char path[PATH_ROOM + 64];
    snprintf(path, sizeof path, "%s/memory.stat", dir->path);
    uint64_t cache = sfq_limits_field(root, path, v2 ? "inactive_file" : "total_inactive_file");
    if (cache != UINT64_MAX)
        usage = usage > cache ? usage - cache : 0;
    return limit > usage ? limit - usage : 0;
}

uint64_t sfq_limits_memory_rest(const char *root)
{
    uint64_t least = UINT64_MAX;
    for (int version = 1; version <= 2; version++) {
        cgroup_dir dir;
        if (!find_cgroup(&dir, root, "memory", version))
            continue;
        do {
            uint64_t rest = level_memory(root, &dir);
            least = rest < least ? rest : least;
        } while (go_up(&dir));
    }
    return least;
}

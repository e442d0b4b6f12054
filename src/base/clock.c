/* base/clock.c - see clock.h. */
#include "base/clock.h"

#include "base/limits.h"

#include <sys/resource.h>
#include <sys/statvfs.h>
#include <time.h>

double sfq_clock_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

uint64_t sfq_memory_available(void)
{
    uint64_t kib = sfq_limits_field("", "/proc/meminfo", "MemAvailable:");
    uint64_t machine = kib < UINT64_MAX / 1024 ? kib * 1024 : UINT64_MAX;
    uint64_t group = sfq_limits_memory_rest("");
    return machine < group ? machine : group;
}

/* VmHWM, because ru_maxrss survives exec: it would report the peak of whoever started us. */
uint64_t sfq_memory_peak(void)
{
    uint64_t kib = sfq_limits_field("", "/proc/self/status", "VmHWM:");
    if (kib < UINT64_MAX / 1024)
        return kib * 1024;
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

uint64_t sfq_disk_available(const char *dir)
{
    struct statvfs st;
    if (statvfs(dir, &st) != 0)
        return UINT64_MAX;
    return (uint64_t)st.f_bavail * (uint64_t)st.f_frsize;
}

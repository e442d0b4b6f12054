/* base/limits.h - what the kernel grants this process: processors, physical cores, cgroup quotas
 * (versions 1 and 2, ancestors included). Private to base. `root` is put before every path read, so
 * that a test can give a tree of its own; "" is the machine. */
#ifndef SFQ_BASE_LIMITS_H
#define SFQ_BASE_LIMITS_H

#include <stddef.h>
#include <stdint.h>

enum { SFQ_LIMITS_CPUS = 8192, SFQ_LIMITS_WORDS = SFQ_LIMITS_CPUS / 64 };

typedef struct sfq_cpu_mask {
    uint64_t word[SFQ_LIMITS_WORDS];
} sfq_cpu_mask;

int sfq_limits_affinity(sfq_cpu_mask *mask);                      /* processors, >= 1 */
int sfq_limits_cores(const char *root, const sfq_cpu_mask *mask); /* physical cores among them */
double sfq_limits_cpu_quota(const char *root);                    /* processors; 0: no quota */
uint64_t sfq_limits_memory_rest(const char *root);                /* UINT64_MAX: no limit */
/* The number behind "KEY" in a file of "KEY value" lines; UINT64_MAX when it is not there. */
uint64_t sfq_limits_field(const char *root, const char *path, const char *key);

#endif

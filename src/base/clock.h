/* base/clock.h - monotonic time and facts about this machine's memory and disk. */
#ifndef SFQ_BASE_CLOCK_H
#define SFQ_BASE_CLOCK_H

#include <stdint.h>

double sfq_clock_seconds(void);
uint64_t sfq_memory_available(void); /* min(MemAvailable, cgroup rest); UINT64_MAX if unknown */
uint64_t sfq_memory_peak(void);      /* peak RSS of this process */
uint64_t sfq_disk_available(const char *dir); /* UINT64_MAX if unknown */

#endif

/* base/hooks.h - calling the caller's hooks, which may be absent. */
#ifndef SFQ_BASE_HOOKS_H
#define SFQ_BASE_HOOKS_H

#include "base/status.h"

void sfq_hooks_progress(const sfq_hooks *hooks, const char *stage, int index, int count,
                        uint64_t done, uint64_t total, const char *unit);
void sfq_hooks_log(const sfq_hooks *hooks, sfq_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* INTERRUPTED once the caller asks to stop. */
sfq_status sfq_hooks_check(const sfq_hooks *hooks, sfq_error *err);

#endif

/* base/hooks.c - the only callers of sfq_hooks' members. */
#include "base/hooks.h"

#include <stdio.h>
#include <string.h>

void sfq_hooks_progress(const sfq_hooks *hooks, const char *stage, int index, int count,
                        uint64_t done, uint64_t total, const char *unit)
{
    if (hooks == NULL || hooks->progress == NULL)
        return;
    sfq_progress progress = {.stage = stage,
                             .stage_index = index,
                             .stage_count = count,
                             .done = done,
                             .total = total,
                             .unit = unit};
    hooks->progress(hooks->ud, &progress);
}

void sfq_hooks_log(const sfq_hooks *hooks, sfq_log_level level, const char *fmt, ...)
{
    if (hooks == NULL || hooks->log == NULL)
        return;
    char text[1024];
    char line[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    sfq_text_printable(line, sizeof line, text, n < 0 ? 0 : strnlen(text, sizeof text));
    hooks->log(hooks->ud, level, line);
}

sfq_status sfq_hooks_check(const sfq_hooks *hooks, sfq_error *err)
{
    if (hooks == NULL || hooks->cancelled == NULL || !hooks->cancelled(hooks->ud))
        return SFQ_OK;
    return sfq_fail(err, SFQ_E_INTERRUPTED, "stopped on request; nothing was written");
}

/* compress/work.c - reporting on behalf of the stage that runs, and the one rule by which sequences
 * are put together into batches. */
#include "compress/work.h"

#include "base/clock.h"
#include "base/hooks.h"

#include <stdio.h>

void sfq_work_progress(const sfq_work *work, uint64_t done, uint64_t total, const char *unit)
{
    sfq_hooks_progress(&work->options->hooks, work->stage, work->index, work->stages, done, total,
                       unit);
}

void sfq_work_log(const sfq_work *work, sfq_log_level level, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    sfq_hooks_log(&work->options->hooks, level, "%s", text);
}

sfq_status sfq_work_check(const sfq_work *work, sfq_error *err)
{
    return sfq_hooks_check(&work->options->hooks, err);
}

bool sfq_work_late(const sfq_work *work)
{
    return sfq_clock_seconds() >= work->deadline;
}

size_t sfq_work_batch_end(const sfq_calibration *c, size_t first, size_t end, size_t tokens)
{
    size_t last = first < end ? first + 1 : end;
    while (last < end && c->offset[last + 1] - c->offset[first] <= tokens)
        last++;
    return last;
}

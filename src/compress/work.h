/* compress/work.h - what the stages between the checks and the artifact share: the original, the
 * calibration set, and how to report. */
#ifndef SFQ_COMPRESS_WORK_H
#define SFQ_COMPRESS_WORK_H

#include "compress/calibration.h"
#include "compress/student.h"

typedef struct sfq_work {
    const sfq_compress_options *options;
    const sfq_source *source; /* the original */
    const sfq_net *teacher;   /* its weights, where the file's map has them */
    const sfq_kernels *kernels;
    sfq_pool *pool;
    const sfq_calibration *calibration;
    const char *stage; /* name, place and number of stages, for progress */
    int index, stages;
    double deadline; /* sfq_clock_seconds() at which --minutes is over; INFINITY: never */
} sfq_work;

void sfq_work_progress(const sfq_work *work, uint64_t done, uint64_t total, const char *unit);
void sfq_work_log(const sfq_work *work, sfq_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* INTERRUPTED once the caller asks to stop. */
sfq_status sfq_work_check(const sfq_work *work, sfq_error *err);
/* Whether --minutes is over: looked at between steps. */
bool sfq_work_late(const sfq_work *work);

/* Sequences of a batch such that it has about `tokens` tokens (at least one sequence): from
 * `first`, before `end`. Depends on the lengths alone. */
size_t sfq_work_batch_end(const sfq_calibration *c, size_t first, size_t end, size_t tokens);

#endif

/* runtime/bench.h - how fast models are on this machine, and how fast the machine is. */
#ifndef SFQ_RUNTIME_BENCH_H
#define SFQ_RUNTIME_BENCH_H

#include "runtime/engine.h"

/* A directory or a shape. */
typedef struct sfq_bench_subject {
    const char *path;
    const sfq_bench_shape *shape; /* NULL: path */
} sfq_bench_subject;

/* As sfq_bench and sfq_bench_shapes; options must not be NULL. */
sfq_status sfq_bench_subjects(const sfq_bench_subject *subjects, size_t count,
                              const sfq_bench_options *options, sfq_bench_result *results,
                              const char **isa, int *threads, sfq_error *err);
/* The roofs of the moment, to be sampled beside what is measured under them: on machines that are
 * shared both move. A sample takes up to 512 MB to read and gives them back; MEMORY. */
typedef struct sfq_meter sfq_meter;
sfq_status sfq_meter_open(sfq_meter **out, sfq_pool *pool, sfq_isa max, sfq_error *err);
/* All but one thread's reading. */
sfq_status sfq_meter_sample(sfq_meter *m, sfq_probe_result *out, sfq_error *err);
void sfq_meter_close(sfq_meter **m);
/* Once and for longer: every level that the host has, up to `max`. */
sfq_status sfq_probe_machine(sfq_pool *pool, sfq_isa max, sfq_probe_result *out, sfq_error *err);

#endif

/* runtime/bench.h - how fast models are on this machine, and how fast the machine is. */
#ifndef SFQ_RUNTIME_BENCH_H
#define SFQ_RUNTIME_BENCH_H

#include "runtime/engine.h"

/* As sfq_bench and sfq_probe; options must not be NULL. */
sfq_status sfq_bench_models(const char *const *paths, size_t count,
                            const sfq_bench_options *options, sfq_bench_result *results,
                            const char **isa, int *threads, sfq_error *err);
sfq_status sfq_probe_machine(sfq_pool *pool, const sfq_kernels *kernels,
                             double *read_bytes_per_second, double *macs_per_second,
                             sfq_error *err);

#endif

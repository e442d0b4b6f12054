/* runtime/bench_parts.h - what the files of the benchmark share. Inside src/runtime only. */
#ifndef SFQ_RUNTIME_BENCH_PARTS_H
#define SFQ_RUNTIME_BENCH_PARTS_H

#include "runtime/bench.h"

typedef struct sfq_bench_model {
    sfq_engine *engine;
    size_t prompt, generate, batch; /* tokens of each sequence; generate 0: encoder */
    sfq_kv **kv;                    /* [batch] of language models */
    int32_t *ids;                   /* [batch * prompt] */
    int32_t *next;                  /* [batch] */
    size_t *offset;                 /* [batch + 1] */
    size_t *rows;                   /* [batch] */
    float *logits;                  /* [batch, V] */
    double *prefill, *decode;       /* [rounds] tokens per second */
} sfq_bench_model;

/* The roofs from time to time: a sample before the first round and one behind the last at least. */
typedef struct sfq_bench_roofs {
    sfq_probe_result *sample; /* [rounds + 2] */
    size_t *before;           /* [rounds]: the sample last taken; the next one came behind */
} sfq_bench_roofs;

/* The figures of a model whose rounds are done. */
sfq_status sfq_bench_summarize(sfq_bench_model *m, size_t rounds, const sfq_bench_roofs *roofs,
                               sfq_bench_result *result, sfq_error *err);

#endif

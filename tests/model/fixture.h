/* tests/model/fixture.h - a model of tests/model/vectors, opened, with what Transformers
 * computed on it; and the heap seam, counted and made to fail. */
#ifndef SFQ_TESTS_MODEL_FIXTURE_H
#define SFQ_TESTS_MODEL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/forward.h"

enum { FIXTURE_SEQUENCES = 3, FIXTURE_TOKENS = 50, FIXTURE_WIDTH = 64 };

typedef struct fixture {
    sfq_hf_config *config;
    sfq_checkpoint *ck;
    sfq_arch *arch;
    sfq_modules *modules;
    sfq_net *net;
    sfq_safetensors *expected;
    size_t offset[FIXTURE_SEQUENCES + 1];
    int32_t ids[FIXTURE_TOKENS], types[FIXTURE_TOKENS];
    const float *hidden; /* [layers+1, T, C] */
    const float *result; /* [T, V] or [S, labels] */
    uint64_t result_count;
} fixture;

/* "llama" or "bert". */
sfq_status fixture_open(fixture *f, const char *name, sfq_error *err);
void fixture_close(fixture *f);

/* A pass for the last tokens alone gives the bits that a pass for all gives them; cached (causal
 * models): on KV caches, too, at the start of the sequences and in their middle. */
void fixture_check_last(const fixture *f, sfq_exec *exec, bool cached);

/* Bytes and calls since the last reset. */
extern size_t heap_bytes, heap_calls;
/* The allocation that fails, counted from the last reset; 0: none. */
extern size_t heap_fail_at;
void heap_reset(void);

#endif

/* runtime/shape.h - models that exist only as a shape: a known name or a config.json, widths scaled
 * down evenly as a pruned model's are, packed as compress would pack it, with random weights made
 * in memory. For timing: what is computed has no meaning, what it costs is that of a real model. */
#ifndef SFQ_RUNTIME_SHAPE_H
#define SFQ_RUNTIME_SHAPE_H

#include "base/mem.h"
#include "base/pool.h"
#include "model/names.h"

#include <sfq/session.h>

enum { SFQ_SHAPE_DENSE = 16 };

/* What a tensor's bytes are made of. */
typedef enum sfq_random_kind {
    SFQ_RANDOM_CODES = 0, /* every byte is valid at every number of bits */
    SFQ_RANDOM_SCALES,    /* F16, such that weights have a deviation of about 0.025; either sign */
    SFQ_RANDOM_WEIGHTS,   /* F16, the same deviation */
    SFQ_RANDOM_ONES       /* F16: gains of norms */
} sfq_random_kind;

typedef struct sfq_random_tensor {
    sfq_random_kind kind;
    int bits;    /* of the codes that scales belong to */
    bool copied; /* transposed: opening makes another one */
    size_t at;   /* offset of the data; a multiple of 64 */
} sfq_random_tensor;

/* Everything but the numbers themselves. */
typedef struct sfq_shape_model {
    sfq_hf_config *config;
    sfq_arch *arch;
    sfq_artifact_info *artifact; /* NULL: dense */
    sfq_arena *arena;            /* of the names */
    sfq_tensor *tensors;         /* [count]; data NULL until made */
    sfq_random_tensor *random;   /* [count] */
    size_t count;
    size_t bytes; /* of all tensors, as they lie in memory */
    unsigned char *data;
    uint64_t seed;
} sfq_shape_model;

/* The description; nothing large is allocated. ARGUMENT for what makes no sense, else as reading a
 * config.json. */
sfq_status sfq_shape_open(sfq_shape_model **out, const sfq_bench_shape *shape, sfq_error *err);
void sfq_shape_close(sfq_shape_model **shape);
/* Memory that the weights take, and what opening turns into float or copies. */
uint64_t sfq_shape_bytes(const sfq_shape_model *shape);
/* The weights: the same bytes for the same seed, whatever the threads. *ck borrows from the
 * shape. */
sfq_status sfq_shape_fill(sfq_shape_model *shape, sfq_pool *pool, const sfq_hooks *hooks,
                          sfq_checkpoint **ck, const char *name, sfq_error *err);

/* Cuts heads (whole KV groups) and neurons (multiples of 64; 16 below 256) of every layer alike, so
 * that at least `share` of its attention and MLP weights is gone, at most one unit more. What a
 * layer cannot give stays: one KV group and one unit of neurons. */
void sfq_shape_prune(sfq_arch *arch, double share);

#endif

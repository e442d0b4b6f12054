/* compress/source.h - the model that is being compressed: opened, proved to be a dense checkpoint
 * that this library knows, and never written to. */
#ifndef SFQ_COMPRESS_SOURCE_H
#define SFQ_COMPRESS_SOURCE_H

#include "base/pool.h"
#include "model/names.h"

#include <sfq/compress.h>

typedef struct sfq_source {
    char *dir;
    sfq_hf_config *config;
    sfq_checkpoint *ck;
    sfq_arch *arch;
    sfq_modules *modules;
    sfq_pool *pool;
    bool own_pool;
    uint64_t parameters;          /* of all modules; tied ones once */
    uint64_t original_parameters; /* of the model that this was cut from; else the same */
} sfq_source;

/* UNSUPPORTED for a model that is compressed already. */
sfq_status sfq_source_open(sfq_source **out, const sfq_compress_options *options, sfq_error *err);
/* A dense model, or a dense artifact with uneven widths as a student is written; on the pool of
 * another source (borrowed). */
sfq_status sfq_source_open_dir(sfq_source **out, const char *dir, sfq_pool *pool,
                               const sfq_hooks *hooks, sfq_error *err);
void sfq_source_close(sfq_source **source);

/* ARGUMENT when writing (or replacing) `output` would touch the source: the same directory under
 * any name, or a directory that holds it. */
sfq_status sfq_source_guard(const sfq_source *source, const char *output, sfq_error *err);

/* What to call the model where paths have no place: the Hub id, or the directory's own name; one
 * line of UTF-8.
 * Freed with sfq_mem_free; NULL: out of memory. */
char *sfq_source_title(const sfq_source *source, const char *model);

/* The spellings of a classifier's labels, NULL: none; *count is 1 for other heads. */
const char *const *sfq_source_labels(const sfq_source *source, int *count);

/* Rows [row, row + rows) of a matrix, as [N, K] has them, into dst [rows, K]. With an order, place
 * n holds the file's row order[n]. */
void sfq_source_rows(float *dst, const sfq_module *module, const sfq_tensor *weight,
                     const uint32_t *order, size_t row, size_t rows);

#endif

/* format/st_header.h - the text of a safetensors header, read in one pass (inside format/ only).
 *
 * The header may be 100 MB of JSON whose only shape is {name: {dtype, shape, data_offsets}}. A
 * tree of it would take ten times its size, so a hostile file could ask for a gigabyte; this
 * reader keeps one fixed record per tensor, and stops at the bounds below. */
#ifndef SFQ_FORMAT_ST_HEADER_H
#define SFQ_FORMAT_ST_HEADER_H

#include "base/mem.h"
#include "tensor/tensor.h"

#define SFQ_ST_MAX_HEADER 100000000u /* bytes, a rule of the format */
#define SFQ_ST_MAX_TENSORS 131072u   /* in one file */
#define SFQ_ST_MAX_METADATA 262144u  /* entries */
#define SFQ_ST_MAX_NAME 4096u        /* bytes of a tensor's name */
#define SFQ_ST_MAX_TEXT (32u << 20)  /* bytes of all names and metadata */

typedef struct sfq_st_item {
    sfq_tensor t;   /* data is set by the caller */
    uint64_t begin; /* offset into the data section; the end is begin + t.bytes */
} sfq_st_item;

typedef struct sfq_st_pair {
    const char *key, *value;
} sfq_st_pair;

typedef struct sfq_st_header {
    sfq_arena *arena; /* strings */
    sfq_st_item *items;
    size_t count, capacity;
    sfq_st_pair *pairs; /* __metadata__ */
    size_t pair_count, pair_capacity;
    bool metadata_seen;
    size_t text_bytes;
} sfq_st_header;

/* Fills *h from text[0..n): syntax, types, dtypes, and that shape and extent of each tensor agree.
 * How the extents lie to one another, and duplicate names, are the caller's checks. *h is to be
 * cleared in any case. */
sfq_status sfq_st_header_parse(sfq_st_header *h, const char *file, const char *text, size_t n,
                               sfq_error *err);
void sfq_st_header_clear(sfq_st_header *h);

#endif

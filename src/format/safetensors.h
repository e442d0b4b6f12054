/* format/safetensors.h - reading and writing one safetensors file. The reader enforces every
 * rule of the format (header at most 100 MB, a JSON object of unique names, known dtypes, shapes
 * that match their extents, extents that neither overlap nor leave holes, nothing behind the
 * last) before it hands out a pointer. */
#ifndef SFQ_FORMAT_SAFETENSORS_H
#define SFQ_FORMAT_SAFETENSORS_H

#include "base/file.h"
#include "base/json.h"
#include "tensor/tensor.h"

typedef struct sfq_safetensors sfq_safetensors;

sfq_status sfq_safetensors_open(sfq_safetensors **out, const char *path, sfq_error *err);
/* The tensors move into memory of huge pages (sfq_map_copy); pointers to their data end. */
sfq_status sfq_safetensors_copy(sfq_safetensors *st, sfq_pool *pool, const sfq_hooks *hooks,
                                sfq_error *err);
void sfq_safetensors_close(sfq_safetensors **st);
size_t sfq_safetensors_count(const sfq_safetensors *st);
/* In file order (ascending offsets). Data points into the map. */
const sfq_tensor *sfq_safetensors_at(const sfq_safetensors *st, size_t i);
const sfq_tensor *sfq_safetensors_find(const sfq_safetensors *st, const char *name);
/* A value of __metadata__; NULL when absent. */
const char *sfq_safetensors_metadata(const sfq_safetensors *st, const char *key);
uint64_t sfq_safetensors_bytes(const sfq_safetensors *st); /* of the file */
const char *sfq_safetensors_path(const sfq_safetensors *st);

/* ---- writing: declare every tensor in file order, then write each one's bytes ---- */

typedef struct sfq_st_writer sfq_st_writer;

sfq_status sfq_st_writer_open(sfq_st_writer **out, sfq_outdir *dir, const char *name,
                              sfq_error *err);
/* Fixed metadata, before begin(); "format": "pt" is there from the start. After any failure the
 * writer is only good for abort(). */
sfq_status sfq_st_writer_metadata(sfq_st_writer *w, const char *key, const char *value,
                                  sfq_error *err);
/* Declares the next tensor; name, dtype, shape are copied. */
sfq_status sfq_st_writer_declare(sfq_st_writer *w, const char *name, sfq_dtype dtype, int rank,
                                 const uint64_t *shape, sfq_error *err);
uint64_t sfq_st_writer_size(const sfq_st_writer *w); /* of the file as declared */
/* Creates the file (it stays the outdir's until finish); the header is padded with spaces so
 * that data starts on a multiple of 64, and leaves room for one "xxh3:NAME" entry (16 hex
 * digits) per tensor. */
sfq_status sfq_st_writer_begin(sfq_st_writer *w, sfq_error *err);
/* All bytes of tensor number i; any order, from one thread. */
sfq_status sfq_st_writer_put(sfq_st_writer *w, size_t i, const void *data, size_t bytes,
                             sfq_error *err);
/* Writes the header with the checksums, fsyncs, frees. */
sfq_status sfq_st_writer_finish(sfq_st_writer **w, sfq_error *err);
void sfq_st_writer_abort(sfq_st_writer **w);

#endif

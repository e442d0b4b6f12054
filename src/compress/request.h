/* compress/request.h - what decides the bytes of a result, as one JSON object of plain values: the
 * model, the data, the options, this library and the instructions it uses. A run that was
 * interrupted goes on only for an equal request. Threads, paths and --minutes are not in it. */
#ifndef SFQ_COMPRESS_REQUEST_H
#define SFQ_COMPRESS_REQUEST_H

#include "base/json.h"
#include "compress/source.h"

/* Looks at sizes, times and the first bytes of files; only config.json, tokenizer.json and the
 * headers of the weights are read whole. *out is freed with json_decref. */
sfq_status sfq_request_make(json_t **out, const sfq_source *source,
                            const sfq_compress_options *options, sfq_error *err);

/* Whether they differ; what differs as "prune, seed" into text (cut to its room). */
bool sfq_request_differs(const json_t *a, const json_t *b, char *text, size_t room);

/* The size and time of the files DIR/SPLIT.tsv, .jsonl and .csv that are there, with `open` their
 * first bytes too, as 32 hex digits. */
sfq_status sfq_request_split(char hex[33], const char *dir, const char *split, bool open,
                             sfq_error *err);

#endif

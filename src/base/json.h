/* base/json.h - jansson with our rules: duplicate keys refused, depth bounded, typed getters whose
 * errors name file and key. */
#ifndef SFQ_BASE_JSON_H
#define SFQ_BASE_JSON_H

#include "base/status.h"

#include <jansson.h>

/* *out is freed with json_decref. FORMAT names the file, line and reason; LIMIT a text whose
 * nesting passes 64 or whose objects pass max_objects (0: 4 million values). */
sfq_status sfq_json_parse(json_t **out, const char *file, const char *text, size_t bytes,
                          size_t max_objects, sfq_error *err);
sfq_status sfq_json_read(json_t **out, const char *path, size_t max_bytes, sfq_error *err);

/* Getters: `file` only names. A missing or null key gives the default where there is one. */
sfq_status sfq_json_int(const json_t *obj, const char *file, const char *key, int64_t min,
                        int64_t max, const int64_t *def, int64_t *out, sfq_error *err);
sfq_status sfq_json_real(const json_t *obj, const char *file, const char *key, double min,
                         double max, const double *def, double *out, sfq_error *err);
sfq_status sfq_json_bool(const json_t *obj, const char *file, const char *key, const bool *def,
                         bool *out, sfq_error *err);
/* Points into obj; NULL for a missing key that is not required. */
sfq_status sfq_json_string(const json_t *obj, const char *file, const char *key, bool required,
                           const char **out, sfq_error *err);
const json_t *sfq_json_get(const json_t *obj, const char *key); /* NULL for missing and null */

#endif

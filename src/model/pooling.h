/* model/pooling.h - what sentence-transformers' files beside a model say about its embedding. */
#ifndef SFQ_MODEL_POOLING_H
#define SFQ_MODEL_POOLING_H

#include "base/status.h"

/* Reads DIR/modules.json (Transformer, Pooling, Normalize in this order) and the pooling module's
 * config.json, each where it exists. Mean pooling is built; other poolings and modules are
 * UNSUPPORTED by name. */
sfq_status sfq_pooling_read(const char *dir, bool *normalize, sfq_error *err);
/* The folder of the pooling module that DIR/modules.json names, a plain name; NULL: none. Freed
 * with sfq_mem_free. */
sfq_status sfq_pooling_folder(const char *dir, char **folder, sfq_error *err);

#endif

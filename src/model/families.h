/* model/families.h - the tables of tensor names, one per family. Inside src/model only. */
#ifndef SFQ_MODEL_FAMILIES_H
#define SFQ_MODEL_FAMILIES_H

#include "model/names.h"

typedef struct sfq_name_row {
    sfq_role role;
    const char *name; /* '#' stands for the layer number */
    bool outside;     /* without the family's prefix ("lm_head", "classifier") */
} sfq_name_row;

typedef struct sfq_name_table {
    const char *prefix; /* tried first, then none */
    bool transposed;    /* block matrices are stored [inputs, outputs] (Conv1D) */
    const sfq_name_row *rows;
    size_t count;
    /* Tensors that are skipped: buffers and heads that this library does not run. '#' matches
     * digits, a '*' at the end anything. With the prefix or without. */
    const char *const *skipped;
    size_t skipped_count;
} sfq_name_table;

const sfq_name_table *sfq_name_table_of(sfq_family family);

#endif

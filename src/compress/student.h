/* compress/student.h - the model that is being pruned and trained: its own copy of the weights, in
 * memory, every matrix as [N, K], with widths of its own per layer. A student is written as a dense
 * artifact (format/artifact.h with nothing packed), which sfq_source_open_dir reads back: so each
 * stage can end in a directory, and fusing starts from one. */
#ifndef SFQ_COMPRESS_STUDENT_H
#define SFQ_COMPRESS_STUDENT_H

#include "compress/source.h"
#include "model/grad.h"

typedef struct sfq_student {
    sfq_arch *arch;  /* own copy: layer[] changes with every cut */
    sfq_net *net;    /* over the student's memory; norms and biases are float */
    sfq_dtype dtype; /* of matrices: SFQ_F32, or the source's 16-bit one where memory is short */
    struct sfq_student_memory *memory;
} sfq_student;

/* Reads all weights of the source (dense or dense artifact), which may be closed then. dtype
 * SFQ_F32, or SFQ_F16/SFQ_BF16. NUMERIC for what is not finite, or not in dtype. */
sfq_status sfq_student_open(sfq_student **out, const sfq_source *source, sfq_dtype dtype,
                            const sfq_hooks *hooks, sfq_error *err);
void sfq_student_close(sfq_student **student);
/* All memory of a student, to the byte. */
uint64_t sfq_student_bytes(const sfq_source *source, sfq_dtype dtype);

/* ---- cutting ---- */

/* What stays of a layer, ascending: KV groups (each with all its query heads) and neurons. */
typedef struct sfq_layer_keep {
    uint32_t *groups; /* [kv_heads] */
    int kv_heads;
    uint32_t *neurons; /* [ffn] */
    int ffn;
} sfq_layer_keep;

/* Removes rows of q, k, v (or qkv), gate, up with their biases, columns of o and down. In place:
 * memory shrinks in use, not in size; no allocation can fail half way. Widths may become 0. */
void sfq_student_cut(sfq_student *student, int layer, const sfq_layer_keep *keep);

/* ---- access ---- */

/* The matrix and bias of a role, writable: w [N, K] of student->dtype; NULL where absent. For
 * SFQ_ROLE_QKV: rows q | k | v. A dropped sublayer may have an output matrix of no columns: its
 * bias. A tied head is the word table, and no matrix of its own. layer -1: outside the layers. */
sfq_matrix *sfq_student_matrix(sfq_student *student, sfq_role role, int layer);
sfq_norm *sfq_student_norm(sfq_student *student, sfq_role role, int layer); /* NULL: absent */
/* Rows [row, row + rows) of a matrix as float, and back (rounded to dtype). */
void sfq_student_get_rows(const sfq_matrix *m, size_t row, size_t rows, float *dst);
void sfq_student_set_rows(sfq_matrix *m, size_t row, size_t rows, const float *src);
float *sfq_student_bias(sfq_matrix *m);  /* [N] writable, or NULL */
float *sfq_student_gain(sfq_norm *norm); /* [C] writable */

/* Everything that can be trained, as flat arrays in a fixed order (F32 students only). Tables of
 * words, positions and types are not among them unless asked for; a tied head is the word table and
 * has one gradient with it (set grads.lm_head.w = grads.word.w beside the items). */
typedef struct sfq_param {
    char name[96];    /* for messages */
    float *value;     /* [count] */
    float **gradient; /* the place in the net_grad where its gradient's pointer goes */
    size_t count;
    bool decay; /* matrices: weight decay applies; norms and biases: not */
} sfq_param;

typedef struct sfq_params {
    sfq_param *items;
    size_t count;
    size_t total;       /* floats */
    sfq_net_grad grads; /* pointers are set by whoever allocates the gradients */
} sfq_params;

sfq_status sfq_params_open(sfq_params **out, sfq_student *student, bool tables, sfq_error *err);
void sfq_params_close(sfq_params **params);

/* ---- writing ---- */

/* model.safetensors and config.json of the student, dense, matrices in student->dtype and in the
 * family's own layout (Conv1D transposed), norms and biases F32; original_parameters as the source
 * counts them. The same bytes for the same student. The caller adds the source's other files
 * (sfq_copy_files) where the directory is to be opened again: pooling, stop tokens and tokenizer
 * lie in them. */
sfq_status sfq_student_write(const sfq_student *student, const sfq_source *source, sfq_outdir *dir,
                             const sfq_hooks *hooks, sfq_error *err);

#endif

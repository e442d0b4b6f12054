/* compress/loss_rows.h - the logits of two language models over the same tokens, a block of rows at
 * a time: what measuring and the gradient share. Inside compress/loss*.c only. */
#ifndef SFQ_COMPRESS_LOSS_ROWS_H
#define SFQ_COMPRESS_LOSS_ROWS_H

#include "compress/loss.h"

typedef struct sfq_loss_rows {
    size_t most;              /* rows of a block */
    size_t vocab;             /* V */
    size_t *identity;         /* [most] 0, 1, 2, ... */
    float *teacher, *student; /* [most, V] logits */
    double *divergence;       /* [most] */
} sfq_loss_rows;

/* Rows of a block at most: as many as make its products efficient and its memory bearable. */
size_t sfq_loss_rows_most(const sfq_arch *arch);
uint64_t sfq_loss_rows_bytes(const sfq_arch *arch, size_t most);
sfq_status sfq_loss_rows_open(sfq_loss_rows *r, const sfq_arch *arch, size_t most, sfq_error *err);
void sfq_loss_rows_close(sfq_loss_rows *r);

/* Logits of `count` rows that begin at the two pointers, by each model's exec; r->divergence of
 * each. weight other than 0: r->student becomes the gradient, as sfq_divergence_logits says. */
typedef struct sfq_loss_rows_job {
    sfq_exec *teacher, *student;
    const float *teacher_hidden, *student_hidden; /* [count, C] */
    size_t count;                                 /* at most r->most */
    double temperature, weight;
    sfq_pool *pool;
} sfq_loss_rows_job;

sfq_status sfq_loss_rows_run(sfq_loss_rows *r, const sfq_loss_rows_job *job, sfq_error *err);

#endif

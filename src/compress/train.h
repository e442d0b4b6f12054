/* compress/train.h - the one training loop, for the pruned model's weights (distill.h) and for the
 * small tensors of the quantized one (tune.h): batches in a seeded order, the teacher's answers to
 * them, AdamW on a cosine schedule (Loshchilov and Hutter 2017, "SGDR"), the held-out loss every
 * few steps, the best values kept. What comes out is never worse on the held-out part than what
 * came in. Labels are not looked at. */
#ifndef SFQ_COMPRESS_TRAIN_H
#define SFQ_COMPRESS_TRAIN_H

#include "compress/distill.h"

/* An array that learns. */
typedef struct sfq_trainable {
    float *value;      /* [count] where the student's net has it */
    float **gradient;  /* the place in `grads` where its gradient's pointer goes */
    const float *unit; /* [count] sfq_adamw_array's; or NULL */
    size_t count;
    bool decay;
    sfq_dtype dtype; /* what it is kept and judged as: rounded to F16 or BF16, or F32 */
} sfq_trainable;

typedef struct sfq_train_recipe {
    double lr;
    double warm_up; /* share of the steps on which lr rises */
    double decay;   /* of matrices */
    double clip;    /* norm of the gradients at most */
    double temperature;
    double hidden;    /* weight of the hidden states' term; 0: not computed */
    double augmented; /* share of the sequences that are varied, from the second epoch on */
    sfq_augment augment;
    size_t sequences, tokens; /* of a batch: at most so many sequences, on average so many tokens */
} sfq_train_recipe;

typedef struct sfq_train {
    const sfq_work *work;
    const sfq_net *student;
    sfq_net_grad *grads;
    const sfq_trainable *items;
    size_t count;
    const sfq_train_recipe *recipe;
    int steps;
    sfq_loss *held_out;
    const char *dir;  /* for the state file; NULL: none */
    const char *name; /* of the state file */
} sfq_train;

/* NUMERIC where no finite loss was ever seen; INTERRUPTED leaves a state file, from which the same
 * call goes on to the same bits. Values are then as they were at the interruption, in any other
 * failure undefined. */
sfq_status sfq_train_run(const sfq_train *train, sfq_distill_report *out, sfq_error *err);

/* Memory of the loop: `floats` learn in `arrays`; whether some are kept as F16 or BF16. */
uint64_t sfq_train_bytes(const sfq_work *work, const sfq_net *student,
                         const sfq_train_recipe *recipe, uint64_t floats, size_t arrays,
                         bool rounded);
/* Sequences of a batch: the same in every step. */
size_t sfq_train_batch(const sfq_work *work, const sfq_train_recipe *recipe);

#endif

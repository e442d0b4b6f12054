/* compress/estimate.h - what a run will take, before it starts: size of the result, memory, disk,
 * time; and what follows from the memory that there is. */
#ifndef SFQ_COMPRESS_ESTIMATE_H
#define SFQ_COMPRESS_ESTIMATE_H

#include "compress/plan.h"

/* In which dtype a student is held: float where memory allows it; else the 16 bits of the source,
 * of which distillation trains norms and biases alone. */
typedef struct sfq_student_choice {
    bool made; /* by an earlier run that this one continues */
    sfq_dtype dtype;
} sfq_student_choice;

typedef struct sfq_estimate {
    uint64_t bytes;  /* of model.safetensors; which units go is not known yet, how many are */
    uint64_t memory; /* peak beyond the mapped source */
    uint64_t disk;   /* output and OUTPUT.work together */
    double seconds;  /* about */
} sfq_estimate;

/* plan: of the original, as if nothing was pruned. available: bytes of memory that may be used.
 * Makes *choice unless it is made. */
sfq_status sfq_estimate_make(sfq_estimate *out, sfq_student_choice *choice, const sfq_plan *plan,
                             const sfq_source *source, const sfq_compress_options *options,
                             uint64_t available, sfq_error *err);

/* MEMORY or NO_SPACE when there is less. output NULL: memory only. */
sfq_status sfq_estimate_check(const sfq_estimate *estimate, uint64_t available, const char *output,
                              sfq_error *err);

#endif

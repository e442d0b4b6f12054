/* compress/fold.h - exact foldings before fusing (DESIGN.md section 4, M7): per-channel factors
 * move between neighbours where the function stays the same, so that clusters hold weights of like
 * range: SwiGLU up rows and down columns, V rows and O columns, norm gains into the next linears
 * (pre-norm), value biases into the output bias. */
#ifndef SFQ_COMPRESS_FOLD_H
#define SFQ_COMPRESS_FOLD_H

#include "compress/energy.h"

/* In place. energy is of the student's net and is corrected for what moved. Only what the
 * measurements in docs/METHOD.md keep. */
void sfq_fold_run(sfq_student *student, sfq_energy *energy);

#endif

/* compress/feedback.h - rounding with error feedback: what one weight's rounding changes in the
 * output, the weights after it take back as far as their inputs move together. */
#ifndef SFQ_COMPRESS_FEEDBACK_H
#define SFQ_COMPRESS_FEEDBACK_H

#include "compress/moment.h"

/* The norm of whose output the module is a linear; NULL: it has none, or the moment says nothing
 * about it. */
const sfq_module *sfq_feedback_norm(const sfq_source *source, const sfq_module *module);

/* The norm's gain [K], magnitudes raised to a thousandth of the largest; NULL where all are 0. The
 * caller frees it. */
sfq_status sfq_feedback_gain(float **out, const sfq_source *source, const sfq_module *module,
                             sfq_error *err);

typedef struct sfq_feedback_panel {
    const sfq_moment *moment;
    const float *gain;          /* [K] */
    const sfq_cluster *cluster; /* of the matrix */
    int bits;
    size_t rows;         /* of the panel, 1..16 */
    const float *w;      /* [rows, K] */
    const float *scales; /* of the panel */
} sfq_feedback_panel;

/* codes [rows, K]: rounded to nearest before; after, each row has the codes of less error
 * e^t H e, e = w - decoded and H = gain C gain. Errors may be NULL: the sums over rows before and
 * after. */
void sfq_feedback_round(uint8_t *codes, const sfq_feedback_panel *panel, float *scratch,
                        double *nearest, double *chosen);
/* Floats of scratch. */
size_t sfq_feedback_scratch(size_t k);

#endif

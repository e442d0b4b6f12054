/* compress/hidden_term.c - rows on the pool, their sums added in order. */
#include "compress/hidden_term.h"

typedef struct term_job {
    const sfq_hidden_term *term;
    const float *teacher, *student; /* [T, C] */
    float *d_hidden;                /* [T, C] */
    bool first_only;                /* items are sequences, of which the first token counts */
    double weight;                  /* of one row */
} term_job;

static void term_task(void *ctx, size_t begin, size_t end, int worker)
{
    const term_job *job = ctx;
    const size_t c = (size_t)job->term->arch->hidden;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        size_t row = job->first_only ? job->term->batch->offset[i] : i;
        const float *t = job->teacher + row * c, *s = job->student + row * c;
        float *d = job->d_hidden + row * c;
        double length = 0, distance = 0;
        for (size_t j = 0; j < c; j++) {
            double gap = (double)s[j] - (double)t[j];
            length += (double)t[j] * (double)t[j];
            distance += gap * gap;
        }
        double scale = length > 0 ? job->weight / length : 0;
        for (size_t j = 0; j < c; j++)
            d[j] += (float)(2 * scale) * (s[j] - t[j]);
        job->term->rows[i] = scale * distance;
    }
}

void sfq_hidden_term_add(sfq_hidden_term *term, int layer, float *d_hidden)
{
    const sfq_arch *arch = term->arch;
    const size_t c = (size_t)arch->hidden, tokens = term->batch->offset[term->batch->sequences];
    const bool labels =
        arch->head == SFQ_MODEL_HEAD_CLASSIFIER || arch->head == SFQ_MODEL_HEAD_REGRESSION;
    term_job job = {.term = term,
                    .teacher = term->teacher + (size_t)(layer - 1) * tokens * c,
                    .student = sfq_grad_hidden(term->student, layer),
                    .d_hidden = d_hidden,
                    .first_only = labels && layer == arch->layers};
    const size_t rows = job.first_only ? term->batch->sequences : tokens;
    job.weight = term->weight / ((double)rows * arch->layers);
    sfq_pool_run(term->pool, rows, 1, term_task, &job);
    for (size_t i = 0; i < rows; i++)
        term->value += term->rows[i];
}

/* compress/loss_rows.c - one block of logits. All logits at once would take V floats a token, tens
 * of gigabytes where hidden states take some megabytes. */
#include "compress/loss_rows.h"

#include "base/ck.h"
#include "base/mem.h"
#include "compress/divergence.h"

enum { ROWS_MIN = 16, ROWS_MAX = 512, BLOCK_FLOATS = 1 << 23 };

size_t sfq_loss_rows_most(const sfq_arch *arch)
{
    size_t fit = BLOCK_FLOATS / (size_t)arch->vocab;
    return sfq_max_size(ROWS_MIN, sfq_min_size(ROWS_MAX, fit));
}

uint64_t sfq_loss_rows_bytes(const sfq_arch *arch, size_t most)
{
    uint64_t row = 2 * (uint64_t)arch->vocab * sizeof(float) + sizeof(size_t) + sizeof(double);
    return row * most;
}

sfq_status sfq_loss_rows_open(sfq_loss_rows *r, const sfq_arch *arch, size_t most, sfq_error *err)
{
    const size_t v = (size_t)arch->vocab;
    size_t floats;
    *r = (sfq_loss_rows){.most = most, .vocab = v};
    if (sfq_ck_mul(most, v, &floats)) {
        r->identity = SFQ_NEW_ARRAY(size_t, most);
        r->divergence = SFQ_NEW_ARRAY(double, most);
        r->teacher = SFQ_NEW_ARRAY(float, floats);
        r->student = SFQ_NEW_ARRAY(float, floats);
    }
    if (r->identity == NULL || r->divergence == NULL || r->teacher == NULL || r->student == NULL) {
        sfq_loss_rows_close(r);
        return sfq_fail_memory(err, (size_t)sfq_loss_rows_bytes(arch, most), "a block of logits");
    }
    for (size_t i = 0; i < most; i++)
        r->identity[i] = i;
    return SFQ_OK;
}

void sfq_loss_rows_close(sfq_loss_rows *r)
{
    sfq_mem_free(r->identity);
    sfq_mem_free(r->divergence);
    sfq_mem_free(r->teacher);
    sfq_mem_free(r->student);
    *r = (sfq_loss_rows){0};
}

typedef struct row_job {
    const sfq_loss_rows *rows;
    double temperature, weight;
} row_job;

static void row_task(void *ctx, size_t begin, size_t end, int worker)
{
    const row_job *job = ctx;
    const size_t v = job->rows->vocab;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        float *student = job->rows->student + i * v;
        job->rows->divergence[i] =
            sfq_divergence_logits(job->rows->teacher + i * v, student, v, job->temperature,
                                  job->weight, job->weight != 0 ? student : NULL);
    }
}

sfq_status sfq_loss_rows_run(sfq_loss_rows *r, const sfq_loss_rows_job *job, sfq_error *err)
{
    SFQ_TRY(sfq_forward_logits(job->teacher, job->teacher_hidden, r->identity, job->count,
                               r->teacher, err));
    SFQ_TRY(sfq_forward_logits(job->student, job->student_hidden, r->identity, job->count,
                               r->student, err));
    row_job rows = {r, job->temperature, job->weight};
    sfq_pool_run_dynamic(job->pool, job->count, 1, row_task, &rows);
    return SFQ_OK;
}

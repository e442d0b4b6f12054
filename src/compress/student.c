/* compress/student.c - one block of memory holds the whole student: its arch, its net, every matrix
 * and every vector. One function lays it out, for the size that sfq_student_bytes promises and for
 * the pointers, so that both agree; one allocation either works or leaves nothing behind. Weights
 * are converted straight from the source's map into their place: a second copy never exists. */
#include "compress/student.h"

#include "base/ck.h"
#include "base/hooks.h"
#include "base/mem.h"

#include <string.h>

/* Weights between two looks at the hooks: a fraction of a second of work. */
#define RUN_WEIGHTS ((size_t)4 << 20)

struct sfq_student_memory {
    sfq_student student;
    sfq_arch arch;
    sfq_net net;
};

static sfq_matrix *matrix_of(sfq_net *net, sfq_role role, int layer)
{
    return (sfq_matrix *)sfq_net_matrix(net, role, layer); /* of our own memory */
}

static sfq_norm *norm_of(sfq_net *net, sfq_role role, int layer)
{
    return (sfq_norm *)sfq_net_norm(net, role, layer);
}

/* ---- layout ---- */

typedef struct carver {
    char *base; /* NULL: only count */
    size_t at;
    bool fits;
} carver;

static void *carve(carver *c, size_t count, size_t size)
{
    void *p = c->base != NULL ? c->base + c->at : NULL;
    size_t bytes;
    c->fits = c->fits && sfq_ck_mul(count, size, &bytes) && sfq_ck_round_up(bytes, 64, &bytes) &&
              sfq_ck_add(c->at, bytes, &c->at);
    return p;
}

static void carve_module(carver *c, const sfq_module *m, sfq_dtype dtype, sfq_net *net)
{
    size_t count;
    bool matrix = sfq_role_is_matrix(m->role);
    c->fits = c->fits && sfq_ck_mul(m->n, m->k, &count);
    if (!c->fits)
        return;
    const void *weight =
        m->k > 0 ? carve(c, count, matrix ? sfq_dtype_info(dtype)->bytes : sizeof(float)) : NULL;
    const float *bias = m->bias ? carve(c, matrix ? m->n : m->k, sizeof(float)) : NULL;
    if (net == NULL)
        return;
    if (matrix)
        *matrix_of(net, m->role, m->layer) =
            (sfq_matrix){.n = m->n, .k = m->k, .w = weight, .dtype = dtype, .bias = bias};
    else
        *norm_of(net, m->role, m->layer) = (sfq_norm){weight, bias};
}

/* The whole block; fills the pointers where it has a base. */
static void lay_out(carver *c, const sfq_source *s, sfq_dtype dtype)
{
    const size_t layers = (size_t)s->arch->layers;
    const size_t name = strlen(s->arch->architecture) + 1;
    sfq_net *net = NULL;
    struct sfq_student_memory *memory = carve(c, 1, sizeof *memory);
    sfq_layer_arch *arch_layer = carve(c, layers, sizeof *arch_layer);
    sfq_layer_weights *net_layer = carve(c, layers, sizeof *net_layer);
    char *architecture = carve(c, name, 1);
    if (memory != NULL) {
        memcpy(arch_layer, s->arch->layer, layers * sizeof *arch_layer);
        memcpy(architecture, s->arch->architecture, name);
        memory->arch = *s->arch;
        memory->arch.layer = arch_layer;
        memory->arch.architecture = architecture;
        net = &memory->net;
        *net = (sfq_net){.arch = &memory->arch, .layer = net_layer};
        memory->student = (sfq_student){&memory->arch, net, dtype, memory};
    }
    for (size_t i = 0; i < s->modules->count; i++)
        carve_module(c, &s->modules->items[i], dtype, net);
    if (net != NULL && s->arch->head == SFQ_MODEL_HEAD_LM && s->arch->tied_head)
        net->lm_head = net->word;
}

uint64_t sfq_student_bytes(const sfq_source *source, sfq_dtype dtype)
{
    carver c = {.fits = true};
    lay_out(&c, source, dtype);
    return c.fits ? c.at : UINT64_MAX;
}

/* ---- reading ---- */

typedef struct fill_job {
    const sfq_module *module;
    const sfq_tensor *from;
    sfq_matrix *to;
    size_t first;              /* panel of item 0 */
    float *rows;               /* [threads][16, K]; NULL: straight to its place */
    size_t room;               /* floats of one worker */
    bool bad[SFQ_MAX_THREADS]; /* a worker met what is not finite, or does not fit */
} fill_job;

static bool all_finite(const float *w, size_t count)
{
    float zero = 0; /* x * 0 is NaN for what is not finite */
    for (size_t i = 0; i < count; i++)
        zero += w[i] * 0.0F;
    return zero == 0.0F;
}

static void fill_task(void *ctx, size_t begin, size_t end, int worker)
{
    fill_job *job = ctx;
    const size_t k = job->module->k;
    for (size_t i = begin; i < end; i++) {
        size_t row = (job->first + i) * SFQ_PANEL_N;
        size_t n = sfq_min_size(job->module->n - row, SFQ_PANEL_N);
        float *rows = job->rows != NULL ? job->rows + (size_t)worker * job->room
                                        : (float *)job->to->w + row * k;
        sfq_source_rows(rows, job->module, job->from, NULL, row, n);
        if (job->rows != NULL) {
            sfq_student_set_rows(job->to, row, n, rows);
            sfq_student_get_rows(job->to, row, n, rows);
        }
        job->bad[worker] = job->bad[worker] || !all_finite(rows, n * k);
    }
}

static sfq_status fail_value(const sfq_source *s, const sfq_tensor *t, sfq_dtype dtype,
                             sfq_error *err)
{
    uint64_t at = sfq_tensor_first_nonfinite(t);
    if (at < t->count)
        return sfq_fail_at(err, SFQ_E_NUMERIC, sfq_checkpoint_file(s->ck, t->name), t->name,
                           "tensor %s: element %llu is NaN or infinite", t->name,
                           (unsigned long long)at);
    return sfq_fail_at(err, SFQ_E_NUMERIC, sfq_checkpoint_file(s->ck, t->name), t->name,
                       "tensor %s: a weight is too large for %s", t->name,
                       sfq_dtype_info(dtype)->name);
}

static sfq_status fill_matrix(fill_job *job, const sfq_source *s, const sfq_hooks *hooks,
                              sfq_error *err)
{
    const sfq_module *m = job->module;
    size_t panels = (m->n + SFQ_PANEL_N - 1) / SFQ_PANEL_N;
    size_t step = sfq_max_size(1, RUN_WEIGHTS / (SFQ_PANEL_N * m->k));
    memset(job->bad, 0, sizeof job->bad);
    for (job->first = 0; job->first < panels; job->first += step) {
        SFQ_TRY(sfq_hooks_check(hooks, err));
        sfq_pool_run(s->pool, sfq_min_size(step, panels - job->first), 1, fill_task, job);
    }
    for (int i = 0; i < sfq_pool_threads(s->pool); i++)
        if (job->bad[i])
            return fail_value(s, job->from, job->to->dtype, err);
    return SFQ_OK;
}

static sfq_status fill_floats(const sfq_source *s, const sfq_tensor *t, const float *to,
                              sfq_error *err)
{
    if (sfq_tensor_first_nonfinite(t) < t->count)
        return fail_value(s, t, SFQ_F32, err);
    sfq_to_f32((float *)to, t->data, t->dtype, (size_t)t->count);
    return SFQ_OK;
}

static sfq_status fill_module(fill_job *job, sfq_net *net, const sfq_source *s,
                              const sfq_hooks *hooks, sfq_error *err)
{
    const sfq_module *m = job->module;
    const sfq_tensor *bias = m->bias ? sfq_module_bias(m, s->ck) : NULL;
    sfq_norm *norm = norm_of(net, m->role, m->layer);
    job->from = sfq_module_weight(m, s->ck);
    job->to = matrix_of(net, m->role, m->layer);
    if (job->to != NULL && job->from != NULL)
        SFQ_TRY(fill_matrix(job, s, hooks, err));
    if (norm != NULL)
        SFQ_TRY(fill_floats(s, job->from, norm->gain, err));
    return bias != NULL ? fill_floats(s, bias, norm != NULL ? norm->bias : job->to->bias, err)
                        : SFQ_OK;
}

static sfq_status fill_all(sfq_student *student, const sfq_source *s, const sfq_hooks *hooks,
                           sfq_error *err)
{
    sfq_status status = SFQ_OK;
    fill_job job = {0};
    for (size_t i = 0; i < s->modules->count; i++)
        job.room = sfq_max_size(job.room, SFQ_PANEL_N * s->modules->items[i].k);
    size_t bytes = (size_t)sfq_pool_threads(s->pool) * job.room * sizeof(float);
    if (student->dtype != SFQ_F32 && (job.rows = sfq_mem_raw(bytes)) == NULL)
        return sfq_fail_memory(err, bytes, "the student's weights");
    for (size_t i = 0; i < s->modules->count; i++) {
        job.module = &s->modules->items[i];
        SFQ_DO(fill_module(&job, student->net, s, hooks, err));
    }
done:
    sfq_mem_free(job.rows);
    return status;
}

/* Bytes of the matrices that one token's pass reads, as sfq_net counts them. */
static uint64_t weight_bytes(const sfq_student *student)
{
    const sfq_net *net = student->net;
    uint64_t weights = (uint64_t)net->pooler.n * net->pooler.k +
                       (uint64_t)net->classifier.n * net->classifier.k +
                       (uint64_t)net->lm_head.n * net->lm_head.k;
    for (int i = 0; i < student->arch->layers; i++) {
        const sfq_layer_weights *w = &net->layer[i];
        const sfq_matrix *all[] = {&w->q, &w->k, &w->v, &w->qkv, &w->o, &w->gate, &w->up, &w->down};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            weights += (uint64_t)all[j]->n * all[j]->k;
    }
    return weights * sfq_dtype_info(student->dtype)->bytes;
}

sfq_status sfq_student_open(sfq_student **out, const sfq_source *source, sfq_dtype dtype,
                            const sfq_hooks *hooks, sfq_error *err)
{
    carver c = {.fits = true};
    sfq_status status = SFQ_OK;
    *out = NULL;
    if (!sfq_dtype_info(dtype)->is_float)
        return sfq_fail(err, SFQ_E_ARGUMENT, "a student's weights are F32, F16 or BF16");
    uint64_t bytes = sfq_student_bytes(source, dtype);
    c.base = bytes <= SIZE_MAX ? sfq_mem_aligned((size_t)bytes) : NULL;
    if (c.base == NULL)
        return sfq_fail_memory(err, (size_t)bytes, "the student's weights");
    lay_out(&c, source, dtype);
    sfq_student *student = &((struct sfq_student_memory *)(void *)c.base)->student;
    SFQ_DO(fill_all(student, source, hooks, err));
    student->net->weight_bytes = weight_bytes(student);
    *out = student;
    student = NULL;
done:
    sfq_student_close(&student);
    return status;
}

void sfq_student_close(sfq_student **student)
{
    if (*student == NULL)
        return;
    sfq_mem_free((*student)->memory); /* the student lies in it */
    *student = NULL;
}

/* ---- access ---- */

sfq_matrix *sfq_student_matrix(sfq_student *student, sfq_role role, int layer)
{
    if (role == SFQ_ROLE_LM_HEAD && student->arch->tied_head)
        return NULL; /* the word table has that role, too */
    sfq_matrix *m = matrix_of(student->net, role, layer);
    return m != NULL && m->n > 0 ? m : NULL;
}

sfq_norm *sfq_student_norm(sfq_student *student, sfq_role role, int layer)
{
    sfq_norm *norm = norm_of(student->net, role, layer);
    return norm != NULL && norm->gain != NULL ? norm : NULL;
}

void sfq_student_get_rows(const sfq_matrix *m, size_t row, size_t rows, float *dst)
{
    const size_t size = sfq_dtype_info(m->dtype)->bytes;
    sfq_to_f32(dst, (const unsigned char *)m->w + row * m->k * size, m->dtype, rows * m->k);
}

void sfq_student_set_rows(sfq_matrix *m, size_t row, size_t rows, const float *src)
{
    const size_t count = rows * m->k;
    if (m->dtype == SFQ_F32) {
        memmove((float *)m->w + row * m->k, src, count * sizeof *src);
        return;
    }
    uint16_t *to = (uint16_t *)m->w + row * m->k;
    for (size_t i = 0; i < count; i++)
        to[i] = m->dtype == SFQ_F16 ? sfq_f32_to_f16(src[i]) : sfq_f32_to_bf16(src[i]);
}

float *sfq_student_bias(sfq_matrix *m)
{
    return (float *)m->bias;
}

float *sfq_student_gain(sfq_norm *norm)
{
    return (float *)norm->gain;
}

/* ---- cutting ---- */

/* Rows of the kept units, `span` each, from the part that begins at row `from`, to row *to on. Only
 * towards the front: memory that is still to be read is never written. */
static void keep_rows(sfq_matrix *m, size_t from, size_t span, const uint32_t *units, size_t count,
                      size_t *to)
{
    const size_t row_bytes = m->k * sfq_dtype_info(m->dtype)->bytes;
    unsigned char *w = (unsigned char *)m->w;
    float *bias = (float *)m->bias;
    for (size_t i = 0; i < count; i++, *to += span) {
        size_t row = from + units[i] * span;
        memmove(w + *to * row_bytes, w + row * row_bytes, span * row_bytes);
        if (bias != NULL)
            memmove(bias + *to, bias + row, span * sizeof *bias);
    }
}

static void keep_all_rows(sfq_matrix *m, size_t span, const uint32_t *units, size_t count)
{
    size_t to = 0;
    if (m->n == 0)
        return;
    keep_rows(m, 0, span, units, count, &to);
    m->n = to;
    if (to == 0)
        *m = (sfq_matrix){0};
}

/* Columns of the kept units, `span` each. Runs of neighbours move together. A matrix without
 * columns is its bias, or nothing. */
static void keep_columns(sfq_matrix *m, size_t span, const uint32_t *units, size_t count)
{
    const size_t size = sfq_dtype_info(m->dtype)->bytes;
    const size_t old_k = m->k;
    unsigned char *to = (unsigned char *)m->w;
    if (m->n == 0 || old_k == 0)
        return;
    for (size_t row = 0; row < m->n; row++) {
        const unsigned char *from = (const unsigned char *)m->w + row * old_k * size;
        for (size_t i = 0, run; i < count; i += run) {
            for (run = 1; i + run < count && units[i + run] == units[i] + run;)
                run++;
            memmove(to, from + units[i] * span * size, run * span * size);
            to += run * span * size;
        }
    }
    m->k = count * span;
    if (m->k > 0)
        return;
    m->w = NULL;
    if (m->bias == NULL)
        *m = (sfq_matrix){0};
}

static void cut_attention(sfq_student *student, int layer, const sfq_layer_keep *keep)
{
    sfq_layer_arch *l = &student->arch->layer[layer];
    sfq_layer_weights *w = &student->net->layer[layer];
    const size_t d = (size_t)student->arch->head_dim;
    const size_t share = (size_t)(l->heads / l->kv_heads); /* query heads of a group */
    const size_t heads = (size_t)l->heads, kv = (size_t)l->kv_heads;
    const size_t kept = (size_t)keep->kv_heads;
    keep_all_rows(&w->q, share * d, keep->groups, kept);
    keep_all_rows(&w->k, d, keep->groups, kept);
    keep_all_rows(&w->v, d, keep->groups, kept);
    if (w->qkv.n > 0) {
        size_t to = 0;
        keep_rows(&w->qkv, 0, share * d, keep->groups, kept, &to);
        keep_rows(&w->qkv, heads * d, d, keep->groups, kept, &to);
        keep_rows(&w->qkv, (heads + kv) * d, d, keep->groups, kept, &to);
        w->qkv.n = to;
        if (to == 0)
            w->qkv = (sfq_matrix){0};
    }
    keep_columns(&w->o, share * d, keep->groups, kept);
    l->kv_heads = keep->kv_heads;
    l->heads = keep->kv_heads * (int)share;
    if (l->heads > 0)
        return;
    w->q_norm = w->k_norm = (sfq_norm){0};
    if (student->arch->pre_norm)
        w->attn_norm = (sfq_norm){0};
}

static void cut_ffn(sfq_student *student, int layer, const sfq_layer_keep *keep)
{
    sfq_layer_weights *w = &student->net->layer[layer];
    const size_t kept = (size_t)keep->ffn;
    keep_all_rows(&w->gate, 1, keep->neurons, kept);
    keep_all_rows(&w->up, 1, keep->neurons, kept);
    keep_columns(&w->down, 1, keep->neurons, kept);
    student->arch->layer[layer].ffn = keep->ffn;
    if (kept == 0 && student->arch->pre_norm)
        w->ffn_norm = (sfq_norm){0};
}

void sfq_student_cut(sfq_student *student, int layer, const sfq_layer_keep *keep)
{
    const sfq_layer_arch *l = &student->arch->layer[layer];
    if (keep->kv_heads < l->kv_heads)
        cut_attention(student, layer, keep);
    if (keep->ffn < l->ffn)
        cut_ffn(student, layer, keep);
    student->net->weight_bytes = weight_bytes(student);
}

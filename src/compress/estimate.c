/* compress/estimate.c - memory is summed from what each stage says about itself, for a calibration
 * set of the size that the options ask for. Time is multiply-adds over the rate of this machine,
 * which a short product measures: caches, disks and neighbours are not in it, so it is "about". */
#include "compress/estimate.h"

#include "base/ck.h"
#include "base/clock.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "compress/choose.h"
#include "compress/copy.h"
#include "compress/prune.h"
#include "compress/tune.h"
#include "kernels/linalg.h"

#include <math.h>
#include <string.h>

/* Passes over the weights, in multiply-adds of a forward pass. A backward pass runs forward twice
 * (gradient checkpointing) and costs one pass for activations, one for weights. */
enum {
    PASSES_SCORE = 3,       /* forward twice, gradients of activations */
    PASSES_RECONSTRUCT = 2, /* original and student */
    PASSES_TRAIN = 5,       /* the original's answers, forward twice, both gradients */
    PASSES_SAMPLE = 8,      /* a token at a time reads the weights anew */
    PASSES_SCAN = 4,        /* candidates for each sequence that is taken */
    TRAIN_SEQUENCES = 32    /* of a step, about */
};

/* ---- what is not known yet, as far as it is ---- */

/* As many sequences and tokens as the options ask for at most, all of one length. */
static sfq_status plan_calibration(sfq_calibration *c, const sfq_source *source,
                                   const sfq_compress_options *o, sfq_error *err)
{
    uint64_t sequences = 0;
    uint64_t tokens = 0;
    SFQ_TRY(sfq_calibration_estimate(source, o, &sequences, &tokens, err));
    if (sequences < 2)
        sequences = 2;
    c->count = (size_t)sequences;
    c->tune = c->count - sfq_max_size(c->count / 5, 1);
    c->offset = SFQ_NEW_ARRAY(size_t, c->count + 1);
    if (c->offset == NULL)
        return sfq_fail_memory(err, (c->count + 1) * sizeof *c->offset, "an estimate");
    for (size_t i = 0; i <= c->count; i++)
        c->offset[i] = (size_t)((double)tokens * (double)i / (double)c->count);
    return SFQ_OK;
}

static uint64_t file_bytes(const sfq_plan_tensor *t)
{
    if (!t->packed)
        return t->source->count * sfq_dtype_info(t->dtype)->bytes;
    return sfq_cluster_code_bytes(&t->spec.cluster, t->spec.bits) +
           sfq_cluster_scales(&t->spec.cluster) * sfq_dtype_info(t->scale_dtype)->bytes;
}

/* The share comes off every block matrix. */
static uint64_t pruned_bytes(const sfq_plan *plan, double prune)
{
    double blocks = 0;
    for (size_t i = 0; i < plan->count; i++)
        if (sfq_role_is_block(plan->tensors[i].module->role))
            blocks += (double)file_bytes(&plan->tensors[i]);
    return plan->file_bytes - (uint64_t)(prune * blocks);
}

/* Of the first matrix of a block: what a student has if it cannot have float. */
static sfq_dtype source_dtype(const sfq_source *s)
{
    for (size_t i = 0; i < s->modules->count; i++) {
        const sfq_module *m = &s->modules->items[i];
        const sfq_tensor *t = sfq_role_is_block(m->role) ? sfq_module_weight(m, s->ck) : NULL;
        if (t != NULL)
            return t->dtype;
    }
    return SFQ_F32;
}

/* ---- memory ---- */

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* What a net over a mapped file copies: matrices that the file holds transposed (GPT-2). */
static uint64_t copied_bytes(const sfq_source *s)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < s->modules->count; i++) {
        const sfq_module *m = &s->modules->items[i];
        const sfq_tensor *t = m->transposed ? sfq_module_weight(m, s->ck) : NULL;
        bytes = sfq_cap_add(bytes, t != NULL ? t->bytes : 0);
    }
    return bytes;
}

static uint64_t peak_memory(const sfq_work *w, const sfq_plan *plan, const sfq_student_choice *c)
{
    const sfq_compress_options *o = w->options;
    const sfq_calibration *set = w->calibration;
    const uint64_t student = sfq_student_bytes(w->source, c->dtype);
    const uint64_t held = sfq_loss_bytes(w, set->tune, set->count);
    const uint64_t data = sfq_cap_mul(set->offset[set->count], 3 * sizeof(int32_t));
    sfq_net like = *w->teacher; /* as wide as a student is at most, held as it is */
    like.word.dtype = c->dtype;
    const uint64_t copied = copied_bytes(w->source);
    uint64_t stage = sfq_cap_add(copied, sfq_energy_bytes(w, w->teacher));
    stage = most(stage, plan->memory_bytes);
    stage = most(stage, sfq_calibration_bytes(w->source, w->teacher, o, set->count,
                                              set->offset[set->count]));
    if (o->prune > 0)
        stage = most(stage, sfq_cap_add(student, sfq_prune_bytes(w)));
    if (o->prune > 0 && o->steps != 0)
        stage = most(stage, sfq_cap_add(student, sfq_distill_bytes(w, &like)));
    if (o->steps != 0)
        stage = most(stage, sfq_tune_bytes(w));
    return sfq_cap_add(sfq_cap_add(stage, copied), sfq_cap_add(held, data));
}

/* Float if it fits; the source's 16 bits save most of it, as no gradients of matrices come with
 * them. */
static uint64_t choose_student(sfq_student_choice *c, const sfq_work *w, const sfq_plan *plan,
                               uint64_t available)
{
    const sfq_dtype half = source_dtype(w->source);
    if (c->made)
        return peak_memory(w, plan, c);
    *c = (sfq_student_choice){.dtype = SFQ_F32};
    const uint64_t whole = peak_memory(w, plan, c);
    if (whole <= available || half == SFQ_F32)
        return whole;
    *c = (sfq_student_choice){.dtype = half};
    sfq_work_log(w, SFQ_LOG_NOTE,
                 "%llu MiB of memory would be needed for float weights, %llu MiB are available: "
                 "they stay %s",
                 (unsigned long long)(whole >> 20) + 1, (unsigned long long)(available >> 20),
                 sfq_dtype_info(half)->name);
    return peak_memory(w, plan, c);
}

/* ---- disk ---- */

/* Two students at a time while a stage hands over to the next, beside them the state of training;
 * or a student and the artifact; or the artifact three times. */
static uint64_t peak_disk(const sfq_work *w, const sfq_plan *plan, const sfq_student_choice *c,
                          uint64_t artifact)
{
    const uint64_t others = sfq_cap_mul(3, plan->disk_bytes - plan->file_bytes);
    const uint64_t student = sfq_cap_mul(w->source->parameters, sfq_dtype_info(c->dtype)->bytes);
    const bool trains = w->options->prune > 0 && w->options->steps != 0 && c->dtype == SFQ_F32;
    /* moments, weights and the best weights so far, twice while they are replaced */
    const uint64_t state = trains ? sfq_cap_mul(8, student) : 0;
    uint64_t peak = sfq_cap_add(sfq_cap_mul(2, student), state);
    peak = most(peak, sfq_cap_add(student, artifact));
    peak = most(peak, sfq_cap_mul(3, artifact));
    return sfq_cap_add(peak, others);
}

/* ---- time ---- */

/* Multiply-adds a second of the product that training consists of: the best of a few, as what else
 * runs on the machine comes and goes. */
static sfq_status probe_rate(double *rate, sfq_pool *pool, sfq_error *err)
{
    enum { M = 256, N = 512, K = 512, ROUNDS = 12 };
    const double least = 1e-6;
    float *data = SFQ_NEW_ARRAY(float, M *K + N * K + M * N);
    *rate = 1;
    if (data == NULL)
        return sfq_fail_memory(err, (M * K + N * K + M * N) * sizeof *data, "an estimate");
    for (size_t i = 0; i < M * K + N * K; i++)
        data[i] = 1.0f / (float)(1 + i % 7);
    const sfq_linalg_product p = {.a = data,
                                  .b = data + M * K,
                                  .lda = K,
                                  .ldb = K,
                                  .transpose_b = true,
                                  .m = M,
                                  .n = N,
                                  .k = K,
                                  .c = data + M * K + N * K,
                                  .ldc = N};
    for (int i = 0; i < ROUNDS; i++) {
        const double begin = sfq_clock_seconds();
        sfq_linalg_gemm(pool, &p);
        *rate = fmax(*rate, (double)M * N * K / fmax(sfq_clock_seconds() - begin, least));
    }
    sfq_mem_free(data);
    return SFQ_OK;
}

/* Multiply-adds of one token's forward pass, and of its logits where every token has some. */
static double macs_of(const sfq_arch *a, double *logits)
{
    *logits = a->head == SFQ_MODEL_HEAD_LM ? (double)a->vocab * (double)a->hidden : 0;
    return (double)sfq_choose_block_parameters(a);
}

/* Sums of outer products and a factorisation per refitted matrix, in double. */
static double refit_macs(const sfq_arch *a, double tokens)
{
    double macs = 0;
    for (int i = 0; i < a->layers; i++) {
        const double att = (double)a->layer[i].heads * (double)a->head_dim;
        const double ffn = (double)a->layer[i].ffn;
        const double c = (double)a->hidden;
        macs += tokens * (att * att / 2 + att * c + ffn * ffn / 2 + ffn * c);
        macs += 2 * (att * att * att + ffn * ffn * ffn) / 3;
    }
    return macs;
}

static double recovery_macs(const sfq_work *w)
{
    const sfq_compress_options *o = w->options;
    const sfq_calibration *set = w->calibration;
    const sfq_arch *a = w->source->arch;
    double logits;
    const double macs = macs_of(a, &logits);
    const double all = (double)set->offset[set->count];
    const double tuned = (double)set->offset[set->tune];
    const double held = all - tuned;
    const bool curated = strcmp(o->pick, "curated") == 0;
    const bool samples = o->data == NULL && o->text_count == 0;
    double work = (curated ? PASSES_SCAN : 0) * all * (macs + logits);
    work += samples ? PASSES_SAMPLE * all * (macs + logits) : 0;
    work += 3 * held * (macs + 2 * logits) + tuned * macs;
    const double per_token = tuned / (double)set->tune;
    if (o->prune > 0) {
        const double rounds = sfq_prune_rounds(o);
        const double half = 1 - o->prune / 2;
        work += rounds * tuned * half * (PASSES_SCORE + PASSES_RECONSTRUCT) * macs;
        work += rounds * (tuned * 2 * logits + refit_macs(a, tuned));
        /* every refitted matrix is judged on the held-out part, by the layers above it */
        work += rounds * held * (double)a->layers * (macs + 2 * logits);
    }
    if (o->prune > 0 && o->steps != 0)
        work += (double)sfq_distill_steps(w) * TRAIN_SEQUENCES * per_token *
                (PASSES_TRAIN * macs + 4 * logits);
    if (o->steps != 0)
        work += (double)sfq_tune_steps(w) * TRAIN_SEQUENCES * per_token *
                (PASSES_TRAIN * macs + 4 * logits);
    return work;
}

/* ---- public ---- */

static sfq_status estimate_recovery(sfq_estimate *out, sfq_student_choice *choice,
                                    const sfq_work *w, const sfq_plan *plan, uint64_t available,
                                    sfq_error *err)
{
    double rate;
    const double minutes = w->options->minutes;
    out->bytes = pruned_bytes(plan, w->options->prune);
    out->memory = choose_student(choice, w, plan, available);
    out->disk = sfq_cap_add(out->bytes, peak_disk(w, plan, choice, out->bytes));
    SFQ_TRY(probe_rate(&rate, w->pool, err));
    out->seconds += recovery_macs(w) / rate;
    if (minutes > 0 && out->seconds > 60 * minutes)
        out->seconds = 60 * minutes;
    return SFQ_OK;
}

sfq_status sfq_estimate_make(sfq_estimate *out, sfq_student_choice *choice, const sfq_plan *plan,
                             const sfq_source *source, const sfq_compress_options *options,
                             uint64_t available, sfq_error *err)
{
    sfq_net *net = NULL;
    sfq_calibration planned = {0};
    sfq_status status = SFQ_OK;
    *out = (sfq_estimate){.bytes = plan->file_bytes,
                          .memory = plan->memory_bytes,
                          .disk = plan->disk_bytes,
                          .seconds = plan->seconds};
    if (options->prune == 0 && options->steps == 0)
        return SFQ_OK;
    SFQ_DO(sfq_net_open(&net, source->arch, source->modules, source->ck, NULL, NULL, err));
    SFQ_DO(plan_calibration(&planned, source, options, err));
    sfq_work work = {.options = options,
                     .source = source,
                     .teacher = net,
                     .pool = source->pool,
                     .calibration = &planned,
                     .stage = "check",
                     .index = 1,
                     .deadline = (double)INFINITY};
    SFQ_DO(estimate_recovery(out, choice, &work, plan, available, err));
done:
    sfq_mem_free(planned.offset);
    sfq_net_close(&net);
    return status;
}

sfq_status sfq_estimate_check(const sfq_estimate *estimate, uint64_t available, const char *output,
                              sfq_error *err)
{
    if (estimate->memory > available)
        return sfq_fail(err, SFQ_E_MEMORY,
                        "%llu MiB of memory are needed and %llu MiB are available; fewer --threads "
                        "or less calibration data need less",
                        (unsigned long long)(estimate->memory >> 20) + 1,
                        (unsigned long long)(available >> 20));
    return output != NULL ? sfq_copy_room(output, estimate->disk, err) : SFQ_OK;
}

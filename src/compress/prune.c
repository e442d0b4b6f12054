/* compress/prune.c - a cut costs less when it is made in steps: what a unit is worth depends on
 * which others are left, and refitting the output projections in between lets them take over
 * (Kurtic et al. 2022, "The optimal BERT surgeon", section 3.4: one-shot pruning with several
 * recomputations). So a round scores the student as it is, removes an even part of the share, and
 * refits against the original. */
#include "compress/prune.h"

#include "base/clock.h"
#include "base/mem.h"
#include "compress/rules.h"

#include <math.h>

enum { DEFAULT_ROUNDS = 3 };

int sfq_prune_rounds(const sfq_compress_options *options)
{
    return options->rounds > 0 ? options->rounds : DEFAULT_ROUNDS;
}

sfq_saliency_kind sfq_prune_saliency(const sfq_compress_options *options)
{
    sfq_saliency_kind kind = SFQ_SALIENCY_FISHER;
    if (options->saliency != NULL)
        (void)sfq_saliency_find(options->saliency, &kind);
    return kind;
}

void sfq_prune_progress(const sfq_work *work, int round, size_t scored, double refitted)
{
    const uint64_t pass = work->calibration->tune;
    const uint64_t rounds = (uint64_t)sfq_prune_rounds(work->options);
    const uint64_t done =
        (uint64_t)round * 3 * pass + scored + (uint64_t)(refitted * 2 * (double)pass);
    sfq_work_progress(work, done, rounds * 3 * pass, "sequences");
}

/* ---- protected sublayers ---- */

static bool in_attention(sfq_role role)
{
    return role == SFQ_ROLE_Q || role == SFQ_ROLE_K || role == SFQ_ROLE_V || role == SFQ_ROLE_QKV ||
           role == SFQ_ROLE_O;
}

sfq_status sfq_prune_fixed(const sfq_work *work, bool *attn_fixed, bool *ffn_fixed, sfq_error *err)
{
    const sfq_modules *modules = work->source->modules;
    sfq_compress_options keep = *work->options;
    sfq_rules *rules = NULL;
    sfq_status status = SFQ_OK;
    for (int i = 0; i < work->source->arch->layers; i++)
        attn_fixed[i] = ffn_fixed[i] = false;
    keep.bits_for_count = 0; /* matrices of 16 bits by another rule may still be cut */
    SFQ_DO(sfq_rules_open(&rules, &keep, err));
    for (size_t i = 0; i < modules->count; i++) {
        const sfq_module *m = &modules->items[i];
        const sfq_tensor *t =
            sfq_role_is_block(m->role) ? sfq_module_weight(m, work->source->ck) : NULL;
        int bits = 8;
        if (t == NULL || m->layer < 0)
            continue;
        SFQ_DO(sfq_rules_bits(rules, t->name, bits, &bits, err));
        bool *fixed = in_attention(m->role) ? attn_fixed : ffn_fixed;
        fixed[m->layer] = fixed[m->layer] || bits == 16;
    }
done:
    sfq_rules_close(&rules);
    return status;
}

/* ---- a round ---- */

/* Parameters that this round removes from the student. */
static uint64_t to_remove(const sfq_work *work, const sfq_student *student, int round)
{
    const uint64_t all = sfq_choose_block_parameters(work->source->arch);
    const uint64_t left = sfq_choose_block_parameters(student->arch);
    const double share =
        work->options->prune * (double)(round + 1) / (double)sfq_prune_rounds(work->options);
    const uint64_t goal = (uint64_t)ceil(share * (double)all);
    return goal > all - left ? goal - (all - left) : 0;
}

static sfq_status cut_units(const sfq_work *work, sfq_student *student,
                            const sfq_saliency *saliency, int round, sfq_error *err)
{
    const size_t layers = (size_t)student->arch->layers;
    bool *fixed = SFQ_NEW_ARRAY(bool, 2 * layers);
    sfq_choice *choice = NULL;
    sfq_status status = SFQ_OK;
    if (fixed == NULL)
        return sfq_fail_memory(err, 2 * layers * sizeof *fixed, "the choice of units");
    SFQ_DO(sfq_prune_fixed(work, fixed, fixed + layers, err));
    const sfq_choose_options options = {.remove = to_remove(work, student, round),
                                        .uniform = work->options->uniform,
                                        .attn_fixed = fixed,
                                        .ffn_fixed = fixed + layers};
    SFQ_DO(sfq_choose_units(&choice, student->arch, saliency, &options, err));
    for (int i = 0; i < choice->layers; i++)
        sfq_student_cut(student, i, &choice->layer[i]);
done:
    sfq_choice_close(&choice);
    sfq_mem_free(fixed);
    return status;
}

/* What is gone by now. */
static void count(sfq_prune_report *report, const sfq_arch *original, const sfq_arch *now)
{
    const double all = (double)sfq_choose_block_parameters(original);
    report->heads = report->neurons = 0;
    for (int i = 0; i < original->layers; i++) {
        report->heads += original->layer[i].heads - now->layer[i].heads;
        report->neurons += original->layer[i].ffn - now->layer[i].ffn;
    }
    report->fraction = all > 0 ? 1 - (double)sfq_choose_block_parameters(now) / all : 0;
}

static void tell(const sfq_work *work, int round, const sfq_prune_report *report,
                 const sfq_reconstruct_report *refit)
{
    sfq_work_log(work, SFQ_LOG_NOTE,
                 "prune %d/%d: %.1f %% of the blocks gone (%d heads, %d neurons), held-out loss "
                 "%.4g, after refitting %d of %d output matrices %.4g",
                 round + 1, sfq_prune_rounds(work->options), 100 * report->fraction, report->heads,
                 report->neurons, refit->before, refit->kept, refit->solved, refit->after);
}

sfq_status sfq_prune_cut(sfq_saliency **out, const sfq_work *work, sfq_student *student, int round,
                         sfq_prune_report *report, sfq_error *err)
{
    const double start = sfq_clock_seconds();
    SFQ_TRY(sfq_score_run(out, work, student, sfq_prune_saliency(work->options), round, err));
    sfq_status status = cut_units(work, student, *out, round, err);
    if (status != SFQ_OK) {
        sfq_saliency_close(out);
        return status;
    }
    count(report, work->source->arch, student->arch);
    report->cut_seconds += sfq_clock_seconds() - start;
    return SFQ_OK;
}

sfq_status sfq_prune_refit(const sfq_work *work, sfq_student *student, const sfq_saliency *saliency,
                           sfq_loss *held_out, int round, sfq_prune_report *report, sfq_error *err)
{
    const double start = sfq_clock_seconds();
    sfq_reconstruct_report refit = {0};
    SFQ_TRY(sfq_reconstruct_run(work, student, saliency, held_out, round, &refit, err));
    report->reconstruct_seconds += sfq_clock_seconds() - start;
    report->cut_loss = refit.before;
    report->reconstructed_loss = refit.after;
    report->solved += refit.solved;
    report->kept += refit.kept;
    tell(work, round, report, &refit);
    return SFQ_OK;
}

uint64_t sfq_prune_bytes(const sfq_work *work)
{
    const uint64_t score = sfq_score_bytes(work);
    const uint64_t refit = sfq_saliency_bytes(work) + sfq_reconstruct_bytes(work);
    return score > refit ? score : refit;
}

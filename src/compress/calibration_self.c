/* compress/calibration_self.c - a language model without text writes its own (Liu et al. 2023,
 * "LLM-QAT: data-free quantization aware training for large language models", section 3.1):
 * ancestral sampling at temperature 1. Every other sequence begins with a random token of the
 * vocabulary and four more of the likeliest few, which spreads them wider than the model's own
 * first tokens would; models without a begin-of-text token begin so always. An end token ends a
 * sequence, but not in its first quarter.
 *
 * Sequences go through the model side by side, one token of each at a time. Their tokens come from
 * random numbers of (seed, sequence, position), and how many go together from the architecture
 * alone: neither threads nor memory can change them. */
#include "base/ck.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "base/rng.h"
#include "compress/calibration_parts.h"

#include <math.h>

enum { MAX_LANES = 64, CHOSEN_FROM = 5, CHOSEN_TOKENS = 4 };
#define LANE_MEMORY ((uint64_t)256 << 20) /* or a quarter of the weights */

typedef struct sfq_lane {
    sfq_kv *kv;
    bool active, wide; /* wide: begins with a random token */
    uint64_t number;   /* of the sequence */
    size_t count, fed; /* tokens that there are, that the cache holds */
    int32_t *ids;      /* [length] */
    bool failed;       /* a logit is not a number */
} sfq_lane;

typedef struct sfq_self {
    sfq_calib_run *run;
    sfq_exec *exec;
    size_t vocab, lanes, quarter;
    sfq_lane lane[MAX_LANES];
    unsigned char *barred; /* [V] tokens that are never written */
    int32_t *plain;        /* [plain_count] those that a sequence may begin with */
    size_t plain_count;
    float *logits; /* [lanes, V] of the active ones, in order */
    size_t active[MAX_LANES], active_count;
    uint64_t next;        /* number of the next sequence */
    uint64_t done, begun; /* tokens of finished ones; most that those at work can have */
    bool enough;          /* the deadline is past, and what is there serves */
} sfq_self;

/* ---- choosing a token ---- */

static bool is_end(const sfq_arch *arch, int32_t id)
{
    for (int i = 0; i < arch->eos_count; i++)
        if (arch->eos[i] == id)
            return true;
    return false;
}

static double random_of(const sfq_self *s, const sfq_lane *lane)
{
    uint64_t stream = (uint64_t)SFQ_CALIB_STREAM_SELF << 32 | lane->number;
    return sfq_rng_uniform(s->run->options->seed, stream, lane->count);
}

static bool allowed(const sfq_self *s, const sfq_lane *lane, size_t id)
{
    if (!s->barred[id])
        return true;
    return lane->count >= s->quarter && is_end(s->run->source->arch, (int32_t)id);
}

/* Bars all but the likeliest few: their ids go to kept. */
static size_t likeliest(const sfq_self *s, const sfq_lane *lane, const float *x,
                        size_t kept[CHOSEN_FROM])
{
    size_t count = 0;
    for (size_t id = 0; id < s->vocab; id++) {
        if (!allowed(s, lane, id) || (count == CHOSEN_FROM && !(x[id] > x[kept[count - 1]])))
            continue;
        size_t at = count < CHOSEN_FROM ? count++ : count - 1;
        for (; at > 0 && x[id] > x[kept[at - 1]]; at--)
            kept[at] = kept[at - 1];
        kept[at] = id;
    }
    return count;
}

/* The first of the n ids (all where ids is NULL) at which the running sum of softmax passes u. */
static int32_t draw(const sfq_self *s, const sfq_lane *lane, const float *x, const size_t *ids,
                    size_t n)
{
    double largest = -INFINITY, total = 0, sum = 0;
    int32_t last = -1;
    for (size_t i = 0; i < n; i++) {
        size_t id = ids != NULL ? ids[i] : i;
        if (allowed(s, lane, id) && (double)x[id] > largest)
            largest = (double)x[id];
    }
    for (size_t i = 0; i < n; i++) {
        size_t id = ids != NULL ? ids[i] : i;
        if (allowed(s, lane, id))
            total += exp((double)x[id] - largest);
    }
    double u = random_of(s, lane) * total;
    for (size_t i = 0; i < n; i++) {
        size_t id = ids != NULL ? ids[i] : i;
        if (!allowed(s, lane, id))
            continue;
        sum += exp((double)x[id] - largest);
        last = (int32_t)id;
        if (sum > u)
            break;
    }
    return isfinite(total) ? last : -1;
}

static void sample_lanes(void *ctx, size_t begin, size_t end, int worker)
{
    sfq_self *s = ctx;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        sfq_lane *lane = &s->lane[s->active[i]];
        const float *x = s->logits + i * s->vocab;
        size_t kept[CHOSEN_FROM], first = s->run->source->arch->bos >= 0;
        bool chosen = lane->wide && lane->count < first + 1 + CHOSEN_TOKENS;
        size_t n = chosen ? likeliest(s, lane, x, kept) : s->vocab;
        int32_t id = draw(s, lane, x, chosen ? kept : NULL, n);
        lane->failed = id < 0;
        lane->ids[lane->count++] = id;
    }
}

/* ---- lanes ---- */

/* Begin of text, a random token, or both. */
static void begin_sequence(sfq_self *s, sfq_lane *lane)
{
    const sfq_arch *arch = s->run->source->arch;
    bool bos = arch->bos >= 0 && arch->bos < arch->vocab;
    lane->active = true;
    lane->number = s->next++;
    lane->wide = !bos || lane->number % 2 == 1;
    lane->count = lane->fed = 0;
    sfq_kv_truncate(lane->kv, 0);
    if (bos)
        lane->ids[lane->count++] = arch->bos;
    if (lane->wide) {
        size_t at = (size_t)(random_of(s, lane) * (double)s->plain_count);
        lane->ids[lane->count++] = s->plain[at];
    }
    s->begun += s->run->length;
}

static sfq_status end_sequence(sfq_self *s, sfq_lane *lane, sfq_error *err)
{
    lane->active = false;
    s->begun -= s->run->length;
    s->done += lane->count;
    return sfq_candidates_add(&s->run->from, lane->ids, NULL, lane->count, lane->number, err);
}

/* As many sequences are begun as the budget can still need. */
static void fill_lanes(sfq_self *s)
{
    s->active_count = 0;
    for (size_t i = 0; i < s->lanes; i++) {
        if (!s->lane[i].active && !s->enough && s->done + s->begun < s->run->budget)
            begin_sequence(s, &s->lane[i]);
        if (s->lane[i].active)
            s->active[s->active_count++] = i;
    }
}

/* What the caches lack of every active lane as one batch, and one more token for each. */
static sfq_status step_lanes(sfq_self *s, sfq_error *err)
{
    size_t offset[MAX_LANES + 1] = {0}, rows[MAX_LANES], tokens = 0;
    int32_t ids[2 * MAX_LANES];
    sfq_kv *kv[MAX_LANES];
    const float *hidden = NULL;
    for (size_t i = 0; i < s->active_count; i++) {
        sfq_lane *lane = &s->lane[s->active[i]];
        for (; lane->fed < lane->count; lane->fed++)
            ids[tokens++] = lane->ids[lane->fed];
        offset[i + 1] = tokens;
        rows[i] = tokens - 1;
        kv[i] = lane->kv;
    }
    sfq_batch batch = {.sequences = s->active_count, .offset = offset, .ids = ids, .kv = kv};
    SFQ_TRY(sfq_forward(s->exec, &batch, &hidden, NULL, NULL, err));
    SFQ_TRY(sfq_forward_logits(s->exec, hidden, rows, s->active_count, s->logits, err));
    sfq_pool_run(s->run->source->pool, s->active_count, 1, sample_lanes, s);
    return SFQ_OK;
}

static sfq_status check_lanes(sfq_self *s, sfq_error *err)
{
    const sfq_arch *arch = s->run->source->arch;
    for (size_t i = 0; i < s->active_count; i++) {
        sfq_lane *lane = &s->lane[s->active[i]];
        if (lane->failed)
            return sfq_fail_at(err, SFQ_E_NUMERIC, s->run->source->dir, NULL,
                               "%s: the model's logits are not finite numbers; `sfq inspect "
                               "--verify` looks for the tensor",
                               s->run->source->dir);
        bool whole = lane->count == s->run->length || is_end(arch, lane->ids[lane->count - 1]);
        if (whole || (s->enough && lane->count >= SFQ_CALIB_MIN_LENGTH))
            SFQ_TRY(end_sequence(s, lane, err));
    }
    return SFQ_OK;
}

/* ---- the run ---- */

/* Special tokens are not written, but an end token ends; neither are rows without a token. */
static sfq_status bar_tokens(sfq_self *s, sfq_error *err)
{
    const sfq_arch *arch = s->run->source->arch;
    const sfq_tokenizer *tokenizer = s->run->tokenizer;
    int32_t known = tokenizer != NULL ? sfq_tokenizer_vocab_end(tokenizer) : arch->vocab;
    for (int32_t id = 0; id < arch->vocab; id++) {
        bool special = tokenizer != NULL && sfq_tokenizer_is_special(tokenizer, id);
        s->barred[id] = special || id >= known || id == arch->bos || is_end(arch, id);
        if (!s->barred[id])
            s->plain[s->plain_count++] = id;
    }
    if (s->plain_count > 0)
        return SFQ_OK;
    return sfq_fail_at(err, SFQ_E_DATA, s->run->source->dir, NULL,
                       "%s: the vocabulary has nothing but special tokens; pass --text",
                       s->run->source->dir);
}

static size_t lanes_of(const sfq_net *net, size_t length)
{
    uint64_t bytes = sfq_kv_bytes(net->arch, sfq_net_kv(net), (int)length),
             room = net->weight_bytes / 4;
    uint64_t lanes = (room > LANE_MEMORY ? room : LANE_MEMORY) / bytes;
    return lanes < 1 ? 1 : lanes > MAX_LANES ? MAX_LANES : (size_t)lanes;
}

uint64_t sfq_calib_self_bytes(const sfq_source *source, const sfq_net *net, size_t length)
{
    uint64_t lanes = lanes_of(net, length), vocab = (uint64_t)source->arch->vocab;
    uint64_t bytes = sfq_cap_mul(lanes, sfq_kv_bytes(net->arch, sfq_net_kv(net), (int)length));
    bytes = sfq_cap_add(bytes, (lanes + 2) * vocab * sizeof(float));
    int threads = sfq_pool_threads(source->pool);
    return sfq_cap_add(bytes, sfq_exec_bytes(net, threads, 2 * (size_t)lanes));
}

static sfq_status open_self(sfq_self *s, sfq_error *err)
{
    const sfq_arch *arch = s->run->source->arch;
    size_t length = s->run->length;
    s->lanes = lanes_of(s->run->net, length);
    s->vocab = (size_t)arch->vocab;
    s->quarter = length / 4;
    s->barred = SFQ_NEW_ARRAY(unsigned char, s->vocab);
    s->plain = SFQ_NEW_ARRAY(int32_t, s->vocab);
    s->logits = SFQ_NEW_ARRAY(float, s->lanes * s->vocab);
    if (s->barred == NULL || s->plain == NULL || s->logits == NULL)
        return sfq_fail_memory(err, s->lanes * s->vocab * sizeof(float), "logits");
    for (size_t i = 0; i < s->lanes; i++) {
        s->lane[i].ids = SFQ_NEW_ARRAY(int32_t, length);
        if (s->lane[i].ids == NULL)
            return sfq_fail_memory(err, length * sizeof(int32_t), "a sequence");
        SFQ_TRY(sfq_kv_open(&s->lane[i].kv, arch, sfq_net_kv(s->run->net), (int)length, err));
    }
    SFQ_TRY(bar_tokens(s, err));
    return sfq_exec_open(&s->exec, s->run->net, s->run->kernels, s->run->source->pool, err);
}

static void close_self(sfq_self *s)
{
    for (size_t i = 0; i < MAX_LANES; i++) {
        sfq_kv_close(&s->lane[i].kv);
        sfq_mem_free(s->lane[i].ids);
    }
    sfq_exec_close(&s->exec);
    sfq_mem_free(s->barred);
    sfq_mem_free(s->plain);
    sfq_mem_free(s->logits);
    sfq_mem_free(s);
}

static uint64_t self_budget(const sfq_compress_options *options)
{
    return options->calib_tokens > 0 ? options->calib_tokens : SFQ_CALIB_FLOOR_TOKENS;
}

sfq_status sfq_calib_self_estimate(const sfq_source *source, const sfq_compress_options *options,
                                   uint64_t *sequences, uint64_t *tokens, sfq_error *err)
{
    sfq_compress_options quiet = *options;
    quiet.hooks = (sfq_hooks){0};
    sfq_calib_run run = {.source = source, .options = &quiet};
    *tokens = self_budget(options);
    SFQ_TRY(sfq_calib_length(&run, *tokens, &run.length, err));
    *sequences = *tokens / (run.length / 4) + 1;
    return SFQ_OK;
}

sfq_status sfq_calib_self(sfq_calib_run *run, sfq_error *err)
{
    run->budget = self_budget(run->options);
    run->by_tokens = true;
    run->curated = false;
    run->unit = "tokens";
    run->total = run->budget;
    SFQ_TRY(sfq_calib_length(run, run->budget, &run->length, err));
    sfq_self *s = SFQ_NEW(sfq_self);
    if (s == NULL)
        return sfq_fail_memory(err, sizeof(*s), "sampling");
    s->run = run;
    sfq_status status = SFQ_OK;
    SFQ_DO(open_self(s, err));
    for (fill_lanes(s); s->active_count > 0; fill_lanes(s)) {
        SFQ_DO(step_lanes(s, err));
        s->enough = sfq_calib_late(run) &&
                    sfq_candidates_count(&run->from) + s->active_count >= SFQ_CALIB_MIN;
        SFQ_DO(check_lanes(s, err));
        SFQ_DO(sfq_calib_progress(run, s->active_count, err));
    }
done:
    close_self(s);
    return status;
}

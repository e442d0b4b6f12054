/* compress/calibration.c - the set as a whole: where its sequences come from, how many there are,
 * and the order in which it keeps them. Which of the candidates are taken is curate.c's; what a
 * candidate is, calibration_task.c's, calibration_text.c's and calibration_self.c's. */
#include "base/ck.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "compress/calibration_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- candidates ---- */

sfq_status sfq_candidates_add(sfq_candidates *c, const int32_t *ids, const int32_t *types, size_t n,
                              uint64_t key, sfq_error *err)
{
    if (c->tokens.sequences == c->key_capacity) {
        size_t capacity = sfq_max_size(256, 2 * c->key_capacity);
        uint64_t *grown = sfq_mem_resize(c->key, capacity, sizeof(*grown));
        if (grown == NULL)
            return sfq_fail_memory(err, capacity * sizeof(*grown), "candidates");
        c->key = grown;
        c->key_capacity = capacity;
    }
    SFQ_TRY(sfq_token_batch_add(&c->tokens, ids, types, n, err));
    c->key[c->tokens.sequences - 1] = key;
    return SFQ_OK;
}

void sfq_candidates_free(sfq_candidates *c)
{
    sfq_token_batch_free(&c->tokens);
    sfq_mem_free(c->key);
    *c = (sfq_candidates){0};
}

sfq_status sfq_calib_progress(sfq_calib_run *run, uint64_t more, sfq_error *err)
{
    const sfq_hooks *hooks = &run->options->hooks;
    run->done += more;
    if (run->done > run->total) /* the last sequences may pass a budget of tokens */
        run->done = run->total;
    sfq_hooks_progress(hooks, "calibrate", run->index, run->stages, run->done, run->total,
                       run->unit);
    return sfq_hooks_check(hooks, err);
}

bool sfq_calib_late(sfq_calib_run *run)
{
    run->late = run->late || sfq_clock_seconds() >= run->deadline;
    return run->late;
}

sfq_status sfq_calib_tokenizer(sfq_tokenizer **out, const sfq_source *source, sfq_error *err)
{
    SFQ_TRY(sfq_tokenizer_open(out, source->dir, err));
    char *path = sfq_path_join(source->dir, "tokenizer.json");
    sfq_status status = path != NULL
                            ? sfq_tokenizer_fits(*out, path, source->arch->vocab, err)
                            : sfq_fail_memory(err, strlen(source->dir), "path of the tokenizer");
    sfq_mem_free(path);
    if (status != SFQ_OK)
        sfq_tokenizer_close(out);
    return status;
}

/* ---- how many ---- */

typedef enum sfq_calib_origin { ORIGIN_TASK = 0, ORIGIN_TEXT, ORIGIN_SELF } sfq_calib_origin;

static const char *const origin_names[] = {"task", "text", "self"};

static sfq_status find_origin(sfq_calib_origin *out, const sfq_source *source,
                              const sfq_compress_options *o, sfq_error *err)
{
    bool lm = source->arch->head == SFQ_MODEL_HEAD_LM;
    *out = o->data != NULL ? ORIGIN_TASK : o->text_count > 0 ? ORIGIN_TEXT : ORIGIN_SELF;
    if (*out == ORIGIN_SELF && !lm)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "%s is no language model, which could write its own calibration text; "
                        "pass --task and --data, or --text",
                        source->arch->architecture);
    if (*out == ORIGIN_TASK && lm)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, source->dir, NULL,
                           "%s is a language model; it is calibrated on --text, not on task %s",
                           source->dir, o->task != NULL ? o->task : "own");
    return SFQ_OK;
}

static sfq_status check_options(const sfq_compress_options *o, sfq_calib_origin origin,
                                sfq_error *err)
{
    if (!(o->calib_fraction >= 0 && o->calib_fraction <= 1))
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "--calib-fraction %g: expected a share above 0 and at most 1",
                        o->calib_fraction);
    if (o->calib_length != 0 && (o->calib_length < SFQ_CALIB_MIN_LENGTH || o->calib_length > 4096))
        return sfq_fail(err, SFQ_E_ARGUMENT, "--calib-length %d: expected 16 to 4096",
                        o->calib_length);
    if (o->pick != NULL && strcmp(o->pick, "curated") != 0 && strcmp(o->pick, "random") != 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "--pick %s: expected curated or random", o->pick);
    if (o->calib_fraction > 0 && o->calib_tokens > 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "give --calib-fraction or --calib-tokens, not both");
    if (origin == ORIGIN_TASK && o->calib_tokens > 0)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "--calib-tokens counts tokens of text; with --task use --calib-fraction");
    if (origin == ORIGIN_SELF && o->calib_fraction > 0)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "--calib-fraction is a share of --task or --text; without them use "
                        "--calib-tokens");
    return SFQ_OK;
}

uint64_t sfq_calib_share(double share, uint64_t available)
{
    double n = floor(share * (double)available * (1 + 1e-12));
    return n >= (double)available ? available : (uint64_t)n;
}

sfq_status sfq_calib_quota(const sfq_compress_options *options, uint64_t available,
                           uint64_t *sequences, sfq_error *err)
{
    double share = options->calib_fraction;
    uint64_t n = sfq_calib_share(share > 0 ? share : SFQ_CALIB_SHARE, available);
    if (share <= 0 && n < SFQ_CALIB_FLOOR)
        n = available < SFQ_CALIB_FLOOR ? available : SFQ_CALIB_FLOOR;
    *sequences = n;
    if (available < SFQ_CALIB_MIN)
        return sfq_fail(err, SFQ_E_DATA, "the data has %llu sequences; calibration needs %d",
                        (unsigned long long)available, (int)SFQ_CALIB_MIN);
    if (n < SFQ_CALIB_MIN)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "--calib-fraction %g of %llu sequences is %llu; calibration needs %d",
                        share, (unsigned long long)available, (unsigned long long)n,
                        (int)SFQ_CALIB_MIN);
    return SFQ_OK;
}

sfq_status sfq_calibration_estimate(const sfq_source *source, const sfq_compress_options *options,
                                    uint64_t *sequences, uint64_t *tokens, sfq_error *err)
{
    sfq_calib_origin origin;
    SFQ_TRY(find_origin(&origin, source, options, err));
    SFQ_TRY(check_options(options, origin, err));
    if (origin == ORIGIN_TASK)
        return sfq_calib_task_estimate(source, options, sequences, tokens, err);
    if (origin == ORIGIN_TEXT)
        return sfq_calib_text_estimate(source, options, sequences, tokens, err);
    return sfq_calib_self_estimate(source, options, sequences, tokens, err);
}

/* A tokenizer.json takes about so much more when it is read, and a piece of text beside it. */
static uint64_t tokenizer_bytes(const sfq_source *source)
{
    enum { TIMES = 16, PIECE = 4 << 20 };
    uint64_t size = 0;
    char *path = sfq_path_join(source->dir, "tokenizer.json");
    if (path != NULL && sfq_file_size(&size, path, NULL) != SFQ_OK)
        size = 0;
    sfq_mem_free(path);
    return sfq_cap_add(sfq_cap_mul(TIMES, size), PIECE);
}

/* Ids, types and keys of all that is looked at, with room to grow, and the work on it. */
uint64_t sfq_calibration_bytes(const sfq_source *source, const sfq_net *net,
                               const sfq_compress_options *options, uint64_t sequences,
                               uint64_t tokens)
{
    enum { PER_TOKEN = 24, PER_SEQUENCE = 256 };
    bool self = options->data == NULL && options->text_count == 0;
    size_t length = options->calib_length > 0 ? (size_t)options->calib_length : SFQ_CALIB_LENGTH;
    length = sfq_min_size(length, (size_t)source->arch->max_positions);
    uint64_t seen = self ? 1 : SFQ_CALIB_SCAN;
    uint64_t bytes = sfq_cap_mul(sfq_cap_mul(seen, tokens), PER_TOKEN);
    bytes = sfq_cap_add(bytes, sfq_cap_mul(sfq_cap_mul(seen, sequences), PER_SEQUENCE));
    bytes = sfq_cap_add(bytes, self ? sfq_calib_self_bytes(source, net, length)
                                    : sfq_calib_difficulty_bytes(source, net));
    return sfq_cap_add(bytes, tokenizer_bytes(source));
}

/* ---- the set ---- */

void sfq_calibration_close(sfq_calibration **calibration)
{
    if (calibration == NULL || *calibration == NULL)
        return;
    sfq_mem_free((*calibration)->offset);
    sfq_mem_free((*calibration)->ids);
    sfq_mem_free((*calibration)->types);
    sfq_mem_free(*calibration);
    *calibration = NULL;
}

uint64_t sfq_calibration_tokens(const sfq_calibration *calibration)
{
    return calibration->offset[calibration->count];
}

sfq_status sfq_calibration_alloc(sfq_calibration **out, size_t count, size_t tokens, bool typed,
                                 sfq_error *err)
{
    sfq_calibration *c = *out = SFQ_NEW(sfq_calibration);
    if (c != NULL) {
        c->count = count;
        c->offset = SFQ_NEW_ARRAY(size_t, count + 1);
        c->ids = SFQ_NEW_ARRAY(int32_t, tokens);
        c->types = typed ? SFQ_NEW_ARRAY(int32_t, tokens) : NULL;
    }
    if (c != NULL && c->offset != NULL && c->ids != NULL && (c->types != NULL || !typed))
        return SFQ_OK;
    sfq_calibration_close(out);
    return sfq_fail_memory(err, tokens * sizeof(int32_t), "calibration set");
}

/* Tokens of the picked candidate number i. */
static size_t picked_length(const sfq_candidates *from, const sfq_pick *pick, size_t i)
{
    return i == 0 && pick->cut > 0 ? pick->cut : sfq_candidates_length(from, pick->index[i]);
}

static sfq_status copy_picked(sfq_calibration **out, const sfq_candidates *from,
                              const sfq_pick *pick, sfq_error *err)
{
    const sfq_token_batch *b = &from->tokens;
    size_t tokens = 0;
    bool typed = false;
    for (size_t i = 0; i < pick->count; i++) {
        size_t begin = b->offset[pick->index[i]], n = picked_length(from, pick, i);
        tokens += n;
        for (size_t t = 0; b->typed && t < n; t++)
            typed = typed || b->types[begin + t] != 0;
    }
    SFQ_TRY(sfq_calibration_alloc(out, pick->count, tokens, typed, err));
    sfq_calibration *c = *out;
    for (size_t i = 0; i < pick->count; i++) {
        size_t begin = b->offset[pick->index[i]], n = picked_length(from, pick, i);
        memcpy(c->ids + c->offset[i], b->ids + begin, n * sizeof(*c->ids));
        if (typed)
            memcpy(c->types + c->offset[i], b->types + begin, n * sizeof(*c->types));
        c->offset[i + 1] = c->offset[i] + n;
    }
    c->tune = pick->tune;
    c->duplicates = pick->duplicates;
    return SFQ_OK;
}

/* ---- making it ---- */

/* A language model can write without its tokenizer. */
static sfq_status open_tokenizer(sfq_calib_run *run, sfq_calib_origin origin, sfq_error *err)
{
    sfq_error missing;
    if (origin != ORIGIN_SELF)
        return sfq_calib_tokenizer(&run->tokenizer, run->source, err);
    sfq_status status = sfq_calib_tokenizer(&run->tokenizer, run->source, &missing);
    if (status == SFQ_E_NOT_FOUND)
        return SFQ_OK;
    if (status != SFQ_OK && err != NULL)
        *err = missing;
    return status;
}

static sfq_status gather(sfq_calib_run *run, sfq_calib_origin origin, sfq_error *err)
{
    SFQ_TRY(open_tokenizer(run, origin, err));
    if (origin == ORIGIN_TASK)
        return sfq_calib_task(run, err);
    if (origin == ORIGIN_TEXT)
        return sfq_calib_text(run, err);
    return sfq_calib_self(run, err);
}

/* Where all candidates are taken there is nothing to weigh. */
static bool all_fit(const sfq_calib_run *run)
{
    const sfq_token_batch *b = &run->from.tokens;
    return b->sequences == 0 ||
           (run->by_tokens ? b->offset[b->sequences] : b->sequences) <= run->budget;
}

static sfq_status choose(sfq_calibration **out, sfq_calib_run *run, sfq_error *err)
{
    double *difficulty = NULL;
    sfq_pick pick = {0};
    sfq_status status = SFQ_OK;
    if (sfq_calib_scores(run) && !all_fit(run)) {
        size_t n = sfq_candidates_count(&run->from);
        difficulty = SFQ_NEW_ARRAY(double, n);
        if (difficulty == NULL) {
            status = sfq_fail_memory(err, n * sizeof(*difficulty), "candidates");
            goto done;
        }
        SFQ_DO(sfq_calib_difficulty(run, difficulty, err));
    }
    SFQ_DO(sfq_pick_make(&pick, run, run->late ? NULL : difficulty, err));
    SFQ_DO(copy_picked(out, &run->from, &pick, err));
    SFQ_DO(sfq_calib_progress(run, run->total, err));
done:
    if (status != SFQ_OK)
        sfq_calibration_close(out);
    sfq_mem_free(difficulty);
    sfq_pick_free(&pick);
    return status;
}

/* Of what there is; a begin-of-text token ahead of each sequence may make it more than all. */
static double fraction_of(const sfq_calibration *c, const sfq_calib_run *run)
{
    if (run->available == 0)
        return 0;
    uint64_t used = run->by_tokens ? sfq_calibration_tokens(c) : c->count;
    return used >= run->available ? 1.0 : (double)used / (double)run->available;
}

sfq_status sfq_calibration_make(sfq_calibration **out, const sfq_source *source, const sfq_net *net,
                                const sfq_kernels *kernels, const sfq_compress_options *options,
                                int index, int stages, double deadline, sfq_error *err)
{
    sfq_calib_run run = {.source = source,
                         .net = net,
                         .kernels = kernels,
                         .options = options,
                         .index = index,
                         .stages = stages,
                         .unit = "sequences",
                         .deadline = deadline,
                         .curated = options->pick == NULL || strcmp(options->pick, "curated") == 0};
    sfq_calib_origin origin;
    sfq_status status = SFQ_OK;
    *out = NULL;
    SFQ_DO(find_origin(&origin, source, options, err));
    SFQ_DO(check_options(options, origin, err));
    SFQ_DO(gather(&run, origin, err));
    SFQ_DO(choose(out, &run, err));
    sfq_calibration *c = *out;
    (void)snprintf(c->origin, sizeof(c->origin), "%s", origin_names[origin]);
    c->available = run.available;
    c->scanned = sfq_candidates_count(&run.from);
    c->fraction = fraction_of(c, &run);
    c->late = run.late;
done:
    sfq_tokenizer_close(&run.tokenizer);
    sfq_candidates_free(&run.from);
    return status;
}

/* compress/calibration_text.c - candidates from text files: sequences of one length, each between
 * the model's own special tokens (language models: a begin-of-text token where there is one, as
 * evaluation has it). Of a large corpus only random passages are tokenized, one in each of as many
 * equal parts as sequences are looked at, so a set is spread over the whole of it; how many tokens
 * there are is estimated from a sample then. A small one is tokenized from end to end. */
#include "base/ck.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "base/rng.h"
#include "compress/calibration_parts.h"
#include "data/corpus.h"

#include <math.h>
#include <string.h>

enum {
    MAX_FRAME = 16,
    PIECE_BYTES = 1 << 20, /* tokenized at a time, from end to end */
    SAMPLES = 64,          /* passages of SAMPLE_BYTES that the estimate is from */
    SAMPLE_BYTES = 4096,
    BEGIN_REACH = 512
};

/* What stands around the text of every sequence. */
typedef struct sfq_frame {
    int32_t before[MAX_FRAME], after[MAX_FRAME];
    size_t lead, tail;
} sfq_frame;

typedef struct sfq_text_run {
    sfq_calib_run *run;
    sfq_corpus *corpus;
    sfq_frame frame;
    size_t step;      /* tokens of text in a sequence */
    double rate;      /* tokens per byte */
    sfq_encoding all; /* a small corpus, tokenized */
    uint64_t parts;   /* of a large one; 0: it is not */
    int32_t *joined;  /* [run->length] */
} sfq_text_run;

/* ---- special tokens ---- */

/* Finds the tokens of a plain text among those with special ones around it. */
static sfq_status read_frame(sfq_frame *frame, const sfq_tokenizer *tokenizer, sfq_error *err)
{
    sfq_encoding plain = {0}, whole = {0};
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_tokenizer_encode(tokenizer, "a", 1, NULL, 0, false, 0, &plain, err));
    SFQ_DO(sfq_tokenizer_encode(tokenizer, "a", 1, NULL, 0, true, 0, &whole, err));
    size_t added = whole.count - plain.count;
    for (size_t lead = 0; lead <= added && added <= MAX_FRAME; lead++) {
        if (memcmp(whole.ids + lead, plain.ids, plain.count * sizeof(*plain.ids)) != 0)
            continue;
        frame->lead = lead;
        frame->tail = added - lead;
        memcpy(frame->before, whole.ids, frame->lead * sizeof(*whole.ids));
        memcpy(frame->after, whole.ids + lead + plain.count, frame->tail * sizeof(*whole.ids));
        break;
    }
done:
    sfq_encoding_clear(&plain);
    sfq_encoding_clear(&whole);
    return status;
}

static sfq_status make_frame(sfq_text_run *t, sfq_error *err)
{
    const sfq_arch *arch = t->run->source->arch;
    if (arch->head != SFQ_MODEL_HEAD_LM)
        return read_frame(&t->frame, t->run->tokenizer, err);
    t->frame.lead = arch->bos >= 0 && arch->bos < arch->vocab;
    t->frame.before[0] = arch->bos;
    return SFQ_OK;
}

/* ---- how much there is ---- */

/* Tokens of SAMPLES passages at equal distances over all texts. */
static sfq_status estimate_rate(sfq_text_run *t, sfq_error *err)
{
    const sfq_corpus *c = t->corpus;
    uint64_t tokens = 0, bytes = 0, before = 0;
    size_t sample = 0;
    for (size_t i = 0; i < c->count; i++) {
        const sfq_corpus_text *text = &c->texts[i];
        for (; sample < SAMPLES && c->bytes / SAMPLES * sample < before + text->bytes; sample++) {
            uint64_t place = c->bytes / SAMPLES * sample;
            size_t from = place > before ? (size_t)(place - before) : 0;
            size_t at = sfq_corpus_begin(text->text, text->bytes, from, 0);
            size_t end = sfq_corpus_begin(text->text, text->bytes, at + SAMPLE_BYTES, 0);
            sfq_encoding e = {0};
            if (end == at)
                continue;
            SFQ_TRY(sfq_tokenizer_encode(t->run->tokenizer, text->text + at, end - at, NULL, 0,
                                         false, 0, &e, err));
            tokens += e.count;
            bytes += end - at;
            sfq_encoding_clear(&e);
        }
        before += text->bytes;
    }
    t->rate = bytes > 0 && tokens > 0 ? (double)tokens / (double)bytes : 1.0;
    t->run->available = (uint64_t)llround(t->rate * (double)c->bytes);
    return SFQ_OK;
}

static uint64_t token_quota(const sfq_compress_options *o, uint64_t available)
{
    if (o->calib_tokens > 0)
        return o->calib_tokens;
    if (o->calib_fraction > 0)
        return sfq_calib_share(o->calib_fraction, available);
    uint64_t quota = sfq_calib_share(SFQ_CALIB_SHARE, available);
    return quota > SFQ_CALIB_FLOOR_TOKENS ? quota : SFQ_CALIB_FLOOR_TOKENS;
}

sfq_status sfq_calib_length(const sfq_calib_run *run, uint64_t tokens, size_t *length,
                            sfq_error *err)
{
    const sfq_compress_options *o = run->options;
    size_t most = o->calib_length > 0 ? (size_t)o->calib_length : SFQ_CALIB_LENGTH;
    most = sfq_min_size(most, (size_t)run->source->arch->max_positions);
    *length = most;
    if (tokens >= SFQ_CALIB_MIN * (uint64_t)most)
        return SFQ_OK;
    *length = (size_t)(tokens / SFQ_CALIB_MIN);
    if (*length < SFQ_CALIB_MIN_LENGTH)
        return sfq_fail(err, tokens == o->calib_tokens ? SFQ_E_ARGUMENT : SFQ_E_DATA,
                        "%llu tokens are too few to calibrate on; %d sequences of %d are needed",
                        (unsigned long long)tokens, (int)SFQ_CALIB_MIN, (int)SFQ_CALIB_MIN_LENGTH);
    sfq_hooks_log(&o->hooks, SFQ_LOG_WARNING,
                  "only %llu tokens to calibrate on: sequences of %zu in place of %zu",
                  (unsigned long long)tokens, *length, most);
    return SFQ_OK;
}

/* Who asks for all of it gets all of it, special tokens not counted. */
static void set_budget(sfq_calib_run *run)
{
    uint64_t quota = token_quota(run->options, run->available);
    run->budget = quota < run->available ? quota : UINT64_MAX;
}

/* Budget, length and step from the tokens that there are. */
static sfq_status set_quota(sfq_text_run *t, sfq_error *err)
{
    sfq_calib_run *run = t->run;
    set_budget(run);
    uint64_t tokens = run->budget < run->available ? run->budget : run->available;
    SFQ_TRY(sfq_calib_length(run, tokens, &run->length, err));
    if (t->frame.lead + t->frame.tail + SFQ_CALIB_MIN_LENGTH / 2 > run->length)
        return sfq_fail(err, SFQ_E_DATA, "sequences of %zu tokens have no room for text",
                        run->length);
    t->step = run->length - t->frame.lead - t->frame.tail;
    return SFQ_OK;
}

/* ---- sequences ---- */

static uint64_t ids_key(const int32_t *ids, size_t n)
{
    uint64_t hash = n;
    for (size_t i = 0; i < n; i++)
        hash = sfq_rng_u64(hash, 0, (uint64_t)ids[i]);
    return hash;
}

static sfq_status add_sequence(sfq_text_run *t, const int32_t *ids, size_t n, sfq_error *err)
{
    const sfq_frame *f = &t->frame;
    memcpy(t->joined, f->before, f->lead * sizeof(*ids));
    memcpy(t->joined + f->lead, ids, n * sizeof(*ids));
    memcpy(t->joined + f->lead + n, f->after, f->tail * sizeof(*ids));
    SFQ_TRY(sfq_candidates_add(&t->run->from, t->joined, NULL, f->lead + n + f->tail,
                               ids_key(ids, n), err));
    return sfq_calib_progress(t->run, 1, err);
}

/* Whether n tokens are worth a sequence of their own. */
static bool worth(const sfq_text_run *t, size_t n)
{
    return n >= 2 && n >= t->step / 4;
}

/* ---- from end to end ---- */

/* All tokens in order, of which there are `available` then. */
static sfq_status encode_all(sfq_text_run *t, sfq_error *err)
{
    sfq_encoding *all = &t->all;
    size_t capacity = 0;
    for (size_t i = 0; i < t->corpus->count; i++) {
        const sfq_corpus_text *text = &t->corpus->texts[i];
        for (size_t at = 0, end; at < text->bytes; at = end) {
            sfq_encoding e = {0};
            size_t target = sfq_min_size(text->bytes, at + PIECE_BYTES);
            end = sfq_corpus_begin(text->text, text->bytes, target, PIECE_BYTES / 2);
            SFQ_TRY(sfq_hooks_check(&t->run->options->hooks, err));
            SFQ_TRY(sfq_tokenizer_encode(t->run->tokenizer, text->text + at, end - at, NULL, 0,
                                         false, 0, &e, err));
            if (all->count + e.count > capacity) {
                capacity = sfq_max_size(2 * capacity, all->count + e.count);
                int32_t *grown = sfq_mem_resize(all->ids, capacity, sizeof(*grown));
                if (grown == NULL) {
                    sfq_encoding_clear(&e);
                    return sfq_fail_memory(err, capacity * sizeof(*grown), "tokens of the text");
                }
                all->ids = grown;
            }
            memcpy(all->ids + all->count, e.ids, e.count * sizeof(*e.ids));
            all->count += e.count;
            sfq_encoding_clear(&e);
        }
    }
    t->run->available = all->count;
    return SFQ_OK;
}

static sfq_status open_joined(sfq_text_run *t, sfq_error *err)
{
    t->joined = SFQ_NEW_ARRAY(int32_t, t->run->length);
    return t->joined != NULL ? SFQ_OK
                             : sfq_fail_memory(err, t->run->length * sizeof(int32_t), "sequence");
}

static sfq_status read_all(sfq_text_run *t, sfq_error *err)
{
    size_t count = t->all.count;
    t->run->total = (count + t->step - 1) / t->step * (sfq_calib_scores(t->run) ? 2 : 1);
    for (size_t at = 0; at < count; at += t->step) {
        size_t n = sfq_min_size(t->step, count - at);
        if (worth(t, n))
            SFQ_TRY(add_sequence(t, t->all.ids + at, n, err));
    }
    return SFQ_OK;
}

/* ---- passages ---- */

/* One passage at random in [begin, begin + room) of a text; what is too short is left out. */
static sfq_status read_passage(sfq_text_run *t, const sfq_corpus_text *text, size_t begin,
                               size_t room, uint64_t number, sfq_error *err)
{
    size_t bytes = (size_t)(1.3 * (double)t->step / t->rate) + 64;
    size_t slack = room > bytes ? room - bytes : 0;
    double u = sfq_rng_uniform(t->run->options->seed, SFQ_CALIB_STREAM_SCAN, number);
    size_t from = begin + (size_t)(u * (double)slack);
    size_t at =
        sfq_corpus_begin(text->text, text->bytes, from, sfq_min_size(room / 4, BEGIN_REACH));
    size_t limit = begin + room;
    size_t end = sfq_corpus_begin(text->text, text->bytes, sfq_min_size(at + bytes, limit), 0);
    sfq_encoding e = {0};
    sfq_status status = SFQ_OK;
    if (at >= end)
        return SFQ_OK;
    SFQ_TRY(sfq_tokenizer_encode(t->run->tokenizer, text->text + at, end - at, NULL, 0, false, 0,
                                 &e, err));
    /* the last token may be half of one */
    size_t n = e.count > t->step ? t->step : e.count > 0 ? e.count - 1 : 0;
    if (worth(t, n))
        status = add_sequence(t, e.ids, n, err);
    sfq_encoding_clear(&e);
    return status;
}

/* Parts of equal size over each text, in proportion to its bytes. */
static sfq_status read_passages(sfq_text_run *t, sfq_error *err)
{
    const sfq_corpus *c = t->corpus;
    uint64_t before = 0, number = 0, parts = t->parts;
    t->run->total = parts * (sfq_calib_scores(t->run) ? 2 : 1);
    for (size_t i = 0; i < c->count; i++) {
        const sfq_corpus_text *text = &c->texts[i];
        before += text->bytes;
        uint64_t until = (uint64_t)((double)parts * ((double)before / (double)c->bytes));
        uint64_t here = until > number ? until - number : 0;
        for (uint64_t k = 0; k < here; k++, number++) {
            size_t begin = (size_t)((double)text->bytes * (double)k / (double)here);
            size_t end = (size_t)((double)text->bytes * (double)(k + 1) / (double)here);
            SFQ_TRY(read_passage(t, text, begin, end - begin, number, err));
        }
    }
    return SFQ_OK;
}

/* Parts are at least twice as long as a sequence, so that passages do not meet. 0: there is not
 * much more text than is looked at; take it all. */
static uint64_t count_parts(const sfq_text_run *t)
{
    const sfq_calib_run *run = t->run;
    if (run->budget == UINT64_MAX || run->available <= SFQ_CALIB_SCAN * run->budget)
        return 0;
    uint64_t wanted = (run->budget + run->length - 1) / run->length * SFQ_CALIB_SCAN;
    uint64_t room = run->available / (2 * run->length);
    return wanted < room ? wanted : room;
}

/* ---- the whole ---- */

/* Everything that is decided before sequences are made. */
static sfq_status open_run(sfq_text_run *t, sfq_error *err)
{
    const sfq_compress_options *o = t->run->options;
    t->run->by_tokens = true;
    SFQ_TRY(sfq_corpus_open(&t->corpus, o->text_files, o->text_count, err));
    SFQ_TRY(make_frame(t, err));
    if (t->corpus->bytes <= PIECE_BYTES) {
        SFQ_TRY(encode_all(t, err));
        return set_quota(t, err);
    }
    SFQ_TRY(estimate_rate(t, err));
    SFQ_TRY(set_quota(t, err));
    t->parts = count_parts(t);
    return SFQ_OK;
}

static sfq_status read_sequences(sfq_text_run *t, sfq_error *err)
{
    SFQ_TRY(open_joined(t, err));
    if (t->parts > 0)
        return read_passages(t, err);
    if (t->all.count == 0) {
        SFQ_TRY(encode_all(t, err));
        set_budget(t->run);
    }
    return read_all(t, err);
}

static void close_run(sfq_text_run *t)
{
    sfq_mem_free(t->joined);
    sfq_encoding_clear(&t->all);
    sfq_corpus_close(&t->corpus);
}

sfq_status sfq_calib_text(sfq_calib_run *run, sfq_error *err)
{
    sfq_text_run t = {.run = run};
    sfq_status status = open_run(&t, err);
    if (status == SFQ_OK)
        status = read_sequences(&t, err);
    close_run(&t);
    return status;
}

/* The same decisions; what was not counted gets room for an estimate that was too low. */
sfq_status sfq_calib_text_estimate(const sfq_source *source, const sfq_compress_options *options,
                                   uint64_t *sequences, uint64_t *tokens, sfq_error *err)
{
    sfq_compress_options quiet = *options;
    quiet.hooks = (sfq_hooks){0};
    sfq_calib_run run = {.source = source, .options = &quiet};
    sfq_text_run t = {.run = &run};
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_calib_tokenizer(&run.tokenizer, source, err));
    SFQ_DO(open_run(&t, err));
    uint64_t bound = run.budget != UINT64_MAX
                         ? run.budget
                         : run.available + (run.available / t.step + 1) * (run.length - t.step);
    if (t.parts == 0 && t.all.count == 0)
        bound += bound / 8;
    *tokens = bound;
    *sequences = bound / run.length + 1;
done:
    close_run(&t);
    sfq_tokenizer_close(&run.tokenizer);
    return status;
}

sfq_status sfq_calibration_put_test(const sfq_compress_options *options, sfq_outdir *dir,
                                    const char *name, sfq_error *err)
{
    sfq_corpus *corpus = NULL;
    sfq_status status = SFQ_OK;
    if (options->text_count == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "without --text there is no text to set aside");
    SFQ_TRY(sfq_corpus_open(&corpus, options->text_files, options->text_count, err));
    const char *path = options->text_files[options->text_count - 1];
    if (corpus->test_bytes == 0)
        status = sfq_fail_at(err, SFQ_E_DATA, path, NULL,
                             "%s: too short to set a part of it aside for measuring", path);
    else
        status = sfq_outdir_put(dir, name, corpus->test, corpus->test_bytes, err);
    sfq_corpus_close(&corpus);
    return status;
}

/* compress/calibration_task.c - candidates from the train split of a task. Labels are used for
 * nothing, because the original model answers for every sequence: own data may lack them, those
 * that are there are read (so a damaged file is found). The dev split is not opened. */
#include "base/ck.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "compress/calibration_parts.h"
#include "data/task.h"
#include "text/unicode.h"

#include <math.h>
#include <stdlib.h>

/* ---- what two texts have in common that say the same ---- */

static uint64_t mix_in(uint64_t hash, uint64_t value)
{
    return (hash ^ value) * 0x100000001b3u; /* FNV-1a, Fowler, Noll and Vo */
}

/* Words in lower case, whatever stands between them. */
static uint64_t text_key(const char *s, size_t n)
{
    uint64_t hash = 0xcbf29ce484222325u, plain = hash;
    bool words = false, gap = false;
    for (size_t at = 0, len = 1; at < n; at += len) {
        uint32_t c = sfq_utf8_next(s + at, n - at, &len), lower[2];
        plain = mix_in(plain, c);
        if (!sfq_uni_is_word(c)) {
            gap = true;
            continue;
        }
        if (gap && words)
            hash = mix_in(hash, ' ');
        gap = false;
        words = true;
        for (size_t i = 0, count = sfq_uni_lowercase(c, lower); i < count; i++)
            hash = mix_in(hash, lower[i]);
    }
    return sfq_rng_u64(words ? hash : plain, words, 0);
}

/* The same for a pair either way round. */
static uint64_t example_key(const sfq_example *x)
{
    uint64_t a = text_key(x->text, x->text_bytes);
    if (x->pair == NULL)
        return a;
    uint64_t b = text_key(x->pair, x->pair_bytes);
    return a < b ? sfq_rng_u64(a, 1, b) : sfq_rng_u64(b, 1, a);
}

/* ---- the order in which examples are looked at ---- */

typedef struct sfq_drawn {
    uint64_t key;
    size_t index;
} sfq_drawn;

static int by_key(const void *a, const void *b)
{
    const sfq_drawn *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static sfq_status draw_order(sfq_drawn **out, uint64_t seed, size_t count, sfq_error *err)
{
    sfq_drawn *drawn = *out = SFQ_NEW_ARRAY(sfq_drawn, count);
    if (drawn == NULL)
        return sfq_fail_memory(err, count * sizeof(*drawn), "order of the examples");
    for (size_t i = 0; i < count; i++)
        drawn[i] = (sfq_drawn){sfq_rng_u64(seed, SFQ_CALIB_STREAM_SCAN, i), i};
    qsort(drawn, count, sizeof(*drawn), by_key);
    return SFQ_OK;
}

/* ---- reading ---- */

/* A classifier's own data may spell labels as the model does. */
static sfq_status open_train(sfq_dataset **out, const sfq_source *source,
                             const sfq_compress_options *o, sfq_error *err)
{
    int count;
    const char *const *names = sfq_source_labels(source, &count);
    return sfq_dataset_open_texts(out, o->task, o->data, "train", names, count, err);
}

/* Number i of the sequences: an embedder reads the two texts of a pair one at a time. */
static sfq_example sequence_at(const sfq_dataset *data, size_t i, bool halves)
{
    const sfq_example *x = &data->examples[halves ? i / 2 : i];
    if (!halves)
        return *x;
    if (i % 2 == 0)
        return (sfq_example){.text = x->text, .text_bytes = x->text_bytes};
    return (sfq_example){.text = x->pair, .text_bytes = x->pair_bytes};
}

static sfq_status add_sequence(sfq_calib_run *run, const sfq_example *x, sfq_error *err)
{
    sfq_encoding e = {0};
    SFQ_TRY(sfq_tokenizer_encode(run->tokenizer, x->text, x->text_bytes, x->pair, x->pair_bytes,
                                 true, run->length, &e, err));
    sfq_status status = SFQ_OK;
    const int32_t *types = run->source->arch->type_vocab > 0 ? e.types : NULL;
    if (e.count > 0)
        status = sfq_candidates_add(&run->from, e.ids, types, e.count, example_key(x), err);
    sfq_encoding_clear(&e);
    return status;
}

static bool has_pairs(const sfq_dataset *data)
{
    for (size_t i = 0; i < data->count; i++)
        if (data->examples[i].pair == NULL)
            return false;
    return true;
}

/* The first `scan` sequences in random order. */
static sfq_status read_first(sfq_calib_run *run, const sfq_dataset *data, bool halves, size_t count,
                             uint64_t scan, sfq_error *err)
{
    sfq_drawn *order = NULL;
    sfq_status status = SFQ_OK;
    SFQ_TRY(draw_order(&order, run->options->seed, count, err));
    for (size_t i = 0; i < scan; i++) {
        sfq_example x = sequence_at(data, order[i].index, halves);
        SFQ_DO(add_sequence(run, &x, err));
        if ((i + 1) % 64 == 0 || i + 1 == scan)
            SFQ_DO(sfq_calib_progress(run, i % 64 + 1, err));
    }
done:
    sfq_mem_free(order);
    return status;
}

/* sample: so many at most, for an estimate; 0: all that are to be looked at. */
static sfq_status read_sequences(sfq_calib_run *run, const sfq_dataset *data, uint64_t sample,
                                 sfq_error *err)
{
    bool halves = run->source->arch->head == SFQ_MODEL_HEAD_EMBEDDING && has_pairs(data);
    size_t count = halves ? 2 * data->count : data->count;
    run->available = count;
    SFQ_TRY(sfq_calib_quota(run->options, count, &run->budget, err));
    uint64_t scan = run->curated ? SFQ_CALIB_SCAN * run->budget : run->budget;
    if (sample > 0 && sample < scan)
        scan = sample;
    scan = scan < count ? scan : count;
    run->total = sfq_calib_scores(run) ? 2 * scan : scan;
    return read_first(run, data, halves, count, scan, err);
}

static sfq_status read_task(sfq_calib_run *run, uint64_t sample, sfq_error *err)
{
    sfq_dataset *data = NULL;
    run->length = sfq_min_size((size_t)run->source->arch->max_positions, SFQ_CALIB_CAP);
    SFQ_TRY(open_train(&data, run->source, run->options, err));
    sfq_status status = read_sequences(run, data, sample, err);
    sfq_dataset_close(&data);
    return status;
}

sfq_status sfq_calib_task(sfq_calib_run *run, sfq_error *err)
{
    return read_task(run, 0, err);
}

/* Half as much again as a sample says: coverage prefers the longer ones. */
sfq_status sfq_calib_task_estimate(const sfq_source *source, const sfq_compress_options *options,
                                   uint64_t *sequences, uint64_t *tokens, sfq_error *err)
{
    enum { SAMPLE = 256 };
    sfq_compress_options quiet = *options;
    quiet.hooks = (sfq_hooks){0};
    sfq_calib_run run = {.source = source, .options = &quiet, .unit = "sequences"};
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_calib_tokenizer(&run.tokenizer, source, err));
    SFQ_DO(read_task(&run, SAMPLE, err));
    size_t sampled = sfq_max_size(1, sfq_candidates_count(&run.from));
    double mean = 0;
    if (run.from.tokens.sequences > 0)
        mean = (double)run.from.tokens.offset[sampled] / (double)sampled;
    mean = fmin(ceil(1.5 * mean), (double)run.length);
    *sequences = run.budget;
    *tokens = sfq_cap_mul(run.budget, (uint64_t)mean);
done:
    sfq_candidates_free(&run.from);
    sfq_tokenizer_close(&run.tokenizer);
    return status;
}

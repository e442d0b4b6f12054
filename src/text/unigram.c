/* text/unigram.c - Viterbi search over the tokens that start at each character, along a trie. A
 * character that no one-character token covers is an unknown of score (least score - 10); runs of
 * unknowns become one token, or their bytes. Ties keep the segmentation found first, as tokenizers
 * does. */
#include "text/unigram.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNK_PENALTY 10.0
#define NONE UINT32_MAX
#define WORD_MAX ((size_t)1 << 28) /* bytes; 16 bytes of work space for each */

typedef struct step {
    double score;   /* of the best way to here */
    uint32_t start; /* of its last token; NONE: not reached */
    int32_t id;
} step;

static size_t edge_slot(const sfq_unigram *model, uint32_t node, unsigned char byte)
{
    uint64_t x = ((uint64_t)node << 8 | byte) * 0x9E3779B97F4A7C15u;
    size_t slot = (size_t)(x >> 20) & model->mask;
    while (model->edges[slot].node != NONE &&
           !(model->edges[slot].node == node && model->edges[slot].byte == byte))
        slot = (slot + 1) & model->mask;
    return slot;
}

static void add_path(sfq_unigram *model, const char *text, size_t len, int32_t id)
{
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++) {
        size_t slot = edge_slot(model, node, (unsigned char)text[i]);
        if (model->edges[slot].node == NONE) {
            model->leaves[model->nodes] = -1;
            model->edges[slot] = (sfq_unigram_edge){node, model->nodes++, (unsigned char)text[i]};
        }
        node = model->edges[slot].child;
    }
    model->leaves[node] = id; /* the later of two equal tokens wins */
}

static sfq_status build_trie(sfq_unigram *model, sfq_error *err)
{
    const sfq_vocab *vocab = model->vocab;
    size_t bytes = 1, slots = 16;
    for (size_t i = 0; i < vocab->count; i++)
        bytes += vocab->tokens[i].len;
    while (slots < 2 * bytes)
        slots *= 2;
    model->leaves = SFQ_NEW_ARRAY(int32_t, bytes);
    model->edges = SFQ_NEW_ARRAY(sfq_unigram_edge, slots);
    if (!model->leaves || !model->edges)
        return sfq_fail_memory(err, slots * sizeof(sfq_unigram_edge), "Unigram trie");
    model->mask = slots - 1;
    for (size_t i = 0; i < slots; i++)
        model->edges[i].node = NONE;
    model->leaves[0] = -1;
    model->nodes = 1;
    for (size_t i = 0; i < vocab->count; i++)
        add_path(model, vocab->bytes.data + vocab->tokens[i].at, vocab->tokens[i].len,
                 vocab->tokens[i].id);
    return SFQ_OK;
}

/* A score as serde_json reads it (tokenizers does not ask it for exact rounding): the digits as an
 * integer, divided by a power of ten. That may miss the nearest double by one unit, which decides
 * between segmentations of equal score. The digits are the shortest that name the double, which is
 * what every writer of such files prints. */
static double rust_score(double exact)
{
    char text[40];
    char *end;
    double magnitude = fabs(exact);
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*e", digits - 1, magnitude);
        if (strtod(text, NULL) == magnitude)
            break;
    }
    uint64_t digits = 0;
    int exponent = 0;
    for (end = text; *end != 'e' && *end != '\0'; end++)
        if (*end >= '0' && *end <= '9') {
            digits = digits * 10 + (uint64_t)(*end - '0');
            exponent--;
        }
    exponent += 1 + (*end == 'e' ? (int)strtol(end + 1, NULL, 10) : 0);
    while (digits != 0 && digits % 10 == 0) {
        digits /= 10;
        exponent++;
    }
    if (digits == 0 || abs(exponent) > 22 || !isfinite(exact))
        return exact;
    double power = 1.0; /* exact up to 10^22 */
    for (int i = abs(exponent); i > 0; i--)
        power *= 10.0;
    double score = exponent < 0 ? (double)digits / power : (double)digits * power;
    return exact < 0 ? -score : score;
}

static sfq_status load_pieces(sfq_unigram *model, sfq_vocab *vocab, const json_t *list,
                              const char *file, sfq_error *err)
{
    if (!json_is_array(list))
        return sfq_fail_at(err, SFQ_E_FORMAT, file, "model.vocab",
                           "%s: model.vocab is missing or not an array", file);
    size_t count = json_array_size(list);
    SFQ_TRY(sfq_vocab_open(vocab, count, file, err));
    model->scores = SFQ_NEW_ARRAY(double, count);
    if (!model->scores)
        return sfq_fail_memory(err, count * sizeof(double), "Unigram scores");
    double least = DBL_MAX;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);
        const json_t *text = json_array_get(item, 0), *score = json_array_get(item, 1);
        if (json_array_size(item) != 2 || !json_is_string(text) || !json_is_number(score))
            return sfq_fail_at(err, SFQ_E_FORMAT, file, "model.vocab",
                               "%s: model.vocab[%zu] is not [text, score]", file, i);
        model->scores[i] = rust_score(json_number_value(score));
        if (model->scores[i] < least)
            least = model->scores[i];
        SFQ_TRY(sfq_vocab_add(vocab, json_string_value(text), json_string_length(text), (int64_t)i,
                              true, file, err));
    }
    model->unk_score = least - UNK_PENALTY;
    return SFQ_OK;
}

sfq_status sfq_unigram_load(sfq_unigram *model, sfq_vocab *vocab, const json_t *json,
                            const char *file, sfq_error *err)
{
    static const bool no = false;
    static const int64_t none = -1;
    *model = (sfq_unigram){.vocab = vocab, .unk = -1};
    SFQ_TRY(load_pieces(model, vocab, sfq_json_get(json, "vocab"), file, err));
    int64_t unk;
    SFQ_TRY(sfq_json_int(json, file, "unk_id", 0, INT32_MAX, &none, &unk, err));
    if (unk >= (int64_t)vocab->count)
        return sfq_fail_at(err, SFQ_E_FORMAT, file, "model.unk_id",
                           "%s: model.unk_id is %lld, the vocabulary has %zu tokens", file,
                           (long long)unk, vocab->count);
    model->unk = (int32_t)unk;
    SFQ_TRY(sfq_json_bool(json, file, "byte_fallback", &no, &model->byte_fallback, err));
    if (model->byte_fallback)
        SFQ_TRY(sfq_vocab_check_bytes(vocab, file, err));
    return build_trie(model, err);
}

void sfq_unigram_close(sfq_unigram *model)
{
    sfq_mem_free(model->scores);
    sfq_mem_free(model->edges);
    sfq_mem_free(model->leaves);
    *model = (sfq_unigram){.unk = -1};
}

static void relax(step *target, size_t start, double score, int32_t id)
{
    if (target->start == NONE || score > target->score)
        *target = (step){score, (uint32_t)start, id};
}

static sfq_status search(const sfq_unigram *model, step *steps, const char *word, size_t n,
                         sfq_error *err)
{
    size_t len;
    for (size_t at = 0; at < n; at += len) {
        double here = steps[at].score;
        bool covered = false;
        uint32_t node = 0;
        sfq_utf8_next(word + at, n - at, &len);
        for (size_t i = at; i < n; i++) {
            const sfq_unigram_edge *edge =
                &model->edges[edge_slot(model, node, (unsigned char)word[i])];
            if (edge->node == NONE)
                break;
            node = edge->child;
            int32_t id = model->leaves[node];
            if (id < 0)
                continue;
            relax(&steps[i + 1], at, model->scores[id] + here, id);
            covered |= i + 1 == at + len;
        }
        if (covered)
            continue;
        if (model->unk < 0)
            return sfq_fail(err, SFQ_E_FORMAT,
                            "the text holds \"%.*s\", which is no token, and the model has no "
                            "unk_id",
                            (int)len, word + at);
        relax(&steps[at + len], at, model->unk_score + here, model->unk);
    }
    return SFQ_OK;
}

/* One piece of the best way: a token, or a run of unknown characters. */
static sfq_status add_piece(const sfq_unigram *model, const char *text, size_t n, sfq_ids *out,
                            sfq_error *err)
{
    int32_t id = sfq_vocab_find(model->vocab, text, n);
    if (id >= 0)
        return sfq_ids_add(out, id, err);
    size_t before = out->count;
    bool bytes = model->byte_fallback;
    for (size_t i = 0; i < n && bytes; i++) {
        id = sfq_vocab_find_byte(model->vocab, (unsigned char)text[i]);
        bytes = id >= 0;
        if (bytes)
            SFQ_TRY(sfq_ids_add(out, id, err));
    }
    if (bytes)
        return SFQ_OK;
    out->count = before;
    return sfq_ids_add(out, model->unk, err);
}

sfq_status sfq_unigram_encode(const sfq_unigram *model, sfq_buf *scratch, const char *word,
                              size_t n, sfq_ids *out, sfq_error *err)
{
    if (n > WORD_MAX)
        return sfq_fail(err, SFQ_E_LIMIT, "a word of %zu bytes, at most %zu are supported", n,
                        WORD_MAX);
    sfq_buf_clear(scratch);
    SFQ_TRY(sfq_buf_reserve(scratch, (n + 1) * sizeof(step), err));
    step *steps = (step *)(void *)scratch->data;
    for (size_t i = 0; i <= n; i++)
        steps[i] = (step){0.0, NONE, 0};
    SFQ_TRY(search(model, steps, word, n, err));
    /* turn the links round: steps[i].id becomes the end of the token that starts at i */
    for (size_t end = n; end > 0;) {
        size_t start = steps[end].start;
        bool unknown = steps[end].id == model->unk;
        while (unknown && start > 0 && steps[start].id == model->unk)
            start = steps[start].start;
        steps[start].score = (double)end; /* exact: end < 2^28 */
        end = start;
    }
    for (size_t at = 0; at < n;) {
        size_t end = (size_t)steps[at].score;
        SFQ_TRY(add_piece(model, word + at, end - at, out, err));
        at = end;
    }
    return SFQ_OK;
}

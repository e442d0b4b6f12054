/* tests/tools/forward.c - runs a model directory on token ids and writes what it computed as raw
 * floats, for comparison with an oracle or with another run of itself.
 *
 *   sfq-test-forward MODEL IDS OUT [--threads N] [--isa NAME] [--chunk N] [--kv] [--single]
 *                    [--kv-bits N]
 *
 * IDS: a sequence per line, ids separated by spaces, optionally "|" and as many token types.
 * OUT.hidden: float [layers+1, T, C] over all tokens in file order. OUT.result: float [T, V]
 * logits, [S, labels] raw label values or [S, C] embeddings. stdout: one line of JSON with the
 * shapes. --chunk feeds at most N tokens of each sequence per call through a KV cache; --single
 * runs the sequences one after the other. */
#include "kit/kit.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    const char *model, *ids, *out;
    int threads, kv_bits;
    sfq_isa isa;
    size_t chunk;
    bool kv, single;
} options;

typedef struct state {
    options opt;
    kit_input *in;
    kit_model model;
    sfq_exec *exec;
    float *hidden; /* [layers+1, T, C] */
    float *result;
    size_t result_rows, result_width;
    size_t *rows; /* batch row -> token of the input */
} state;

static bool parse_options(options *o, int argc, char **argv)
{
    *o = (options){.threads = 1, .isa = SFQ_ISA_COUNT};
    if (argc < 4)
        return false;
    o->model = argv[1];
    o->ids = argv[2];
    o->out = argv[3];
    for (int i = 4; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--kv") == 0) {
            o->kv = true;
        } else if (strcmp(argv[i], "--single") == 0) {
            o->single = true;
        } else if (strcmp(argv[i], "--threads") == 0) {
            o->threads = atoi(value);
            i++;
        } else if (strcmp(argv[i], "--kv-bits") == 0) {
            o->kv_bits = atoi(value);
            i++;
        } else if (strcmp(argv[i], "--chunk") == 0) {
            o->chunk = (size_t)atoi(value);
            i++;
        } else if (strcmp(argv[i], "--isa") == 0) {
            o->isa = kit_isa(value);
            i++;
        } else {
            return false;
        }
    }
    return true;
}

static void tap(void *ud, int layer, const float *hidden, size_t t, size_t c)
{
    state *s = (state *)ud;
    size_t all = s->in->offset[s->in->sequences];
    for (size_t i = 0; i < t; i++)
        memcpy(s->hidden + ((size_t)layer * all + s->rows[i]) * c, hidden + i * c,
               c * sizeof(float));
}

/* Results of a batch whose row i is token rows[i], whose sequences start at `first`. */
static sfq_status take_result(state *s, const sfq_batch *b, const float *hidden, size_t first,
                              sfq_error *err)
{
    float *out = s->result + first * s->result_width;
    if (s->model.arch->head == SFQ_MODEL_HEAD_EMBEDDING)
        return sfq_forward_embedding(s->exec, b, hidden, out, err);
    if (s->model.arch->head != SFQ_MODEL_HEAD_LM)
        return sfq_forward_labels(s->exec, b, hidden, out, err);
    size_t t = b->offset[b->sequences];
    size_t *rows = SFQ_NEW_ARRAY(size_t, t);
    float *logits = SFQ_NEW_ARRAY(float, t * s->result_width);
    sfq_status status = SFQ_OK;
    if (!rows || !logits) {
        status = sfq_fail_memory(err, t, "logits");
        goto done;
    }
    for (size_t i = 0; i < t; i++)
        rows[i] = i;
    SFQ_DO(sfq_forward_logits(s->exec, hidden, rows, t, logits, err));
    for (size_t i = 0; i < t; i++)
        memcpy(s->result + s->rows[i] * s->result_width, logits + i * s->result_width,
               s->result_width * sizeof(float));
done:
    sfq_mem_free(rows);
    sfq_mem_free(logits);
    return status;
}

/* One call for tokens [from, from + chunk) of each of the sequences [first, end). */
static sfq_status run_step(state *s, size_t first, size_t end, size_t from, size_t chunk,
                           sfq_kv **kv, bool *any, sfq_error *err)
{
    static int32_t ids[KIT_TOKENS], types[KIT_TOKENS];
    size_t offset[KIT_SEQUENCES + 1] = {0};
    sfq_kv *used[KIT_SEQUENCES];
    const float *hidden;
    sfq_batch b = {.offset = offset, .ids = ids, .types = s->in->typed ? types : NULL};
    b.kv = kv ? used : NULL;
    for (size_t q = first; q < end; q++) {
        size_t at = s->in->offset[q] + from, last = s->in->offset[q + 1];
        if (at >= last)
            continue;
        size_t n = last - at < chunk ? last - at : chunk, to = offset[b.sequences];
        for (size_t i = 0; i < n; i++) {
            ids[to + i] = s->in->ids[at + i];
            types[to + i] = s->in->types[at + i];
            s->rows[to + i] = at + i;
        }
        used[b.sequences] = kv ? kv[q - first] : NULL;
        offset[++b.sequences] = to + n;
    }
    *any = b.sequences > 0;
    if (!*any)
        return SFQ_OK;
    SFQ_TRY(sfq_forward(s->exec, &b, &hidden, tap, s, err));
    return take_result(s, &b, hidden, first, err);
}

static sfq_status run_group(state *s, size_t first, size_t end, sfq_error *err)
{
    sfq_kv *kv[KIT_SEQUENCES] = {0};
    bool cached = s->opt.kv || s->opt.chunk > 0, any = true;
    size_t chunk = s->opt.chunk > 0 ? s->opt.chunk : KIT_TOKENS;
    sfq_status status = SFQ_OK;
    for (size_t q = first; cached && q < end; q++)
        SFQ_DO(sfq_kv_open(&kv[q - first], s->model.arch, sfq_exec_kv(s->exec),
                           (int)(s->in->offset[q + 1] - s->in->offset[q]), err));
    for (size_t from = 0; any; from += chunk)
        SFQ_DO(run_step(s, first, end, from, chunk, cached ? kv : NULL, &any, err));
done:
    for (size_t q = 0; q < KIT_SEQUENCES; q++)
        sfq_kv_close(&kv[q]);
    return status;
}

static sfq_status run(state *s, sfq_error *err)
{
    SFQ_TRY(kit_open(&s->model, s->opt.model, s->opt.threads, err));
    SFQ_TRY(sfq_exec_open(&s->exec, s->model.net, sfq_kernels_get(s->opt.isa), s->model.pool, err));
    sfq_exec_free_order(s->exec);
    if (s->opt.kv_bits > 0)
        sfq_exec_set_kv(s->exec, s->opt.kv_bits == 8    ? SFQ_I8
                                 : s->opt.kv_bits == 16 ? SFQ_F16
                                                        : SFQ_F32);
    size_t t = s->in->offset[s->in->sequences], c = (size_t)s->model.arch->hidden;
    size_t layers = (size_t)s->model.arch->layers;
    bool lm = s->model.arch->head == SFQ_MODEL_HEAD_LM;
    s->result_rows = lm ? t : s->in->sequences;
    s->result_width = lm ? (size_t)s->model.arch->vocab
                      : s->model.arch->head == SFQ_MODEL_HEAD_EMBEDDING
                          ? c
                          : (size_t)s->model.arch->labels;
    s->hidden = SFQ_NEW_ARRAY(float, (layers + 1) * t * c);
    s->result = SFQ_NEW_ARRAY(float, s->result_rows * s->result_width);
    s->rows = SFQ_NEW_ARRAY(size_t, t);
    if (!s->hidden || !s->result || !s->rows)
        return sfq_fail_memory(err, t, "results");
    size_t step = s->opt.single ? 1 : s->in->sequences;
    for (size_t q = 0; q < s->in->sequences; q += step)
        SFQ_TRY(run_group(s, q, q + step, err));
    if (!kit_write_floats(s->opt.out, "hidden", s->hidden, (layers + 1) * t * c) ||
        !kit_write_floats(s->opt.out, "result", s->result, s->result_rows * s->result_width))
        return sfq_fail(err, SFQ_E_IO, "cannot write %s.*", s->opt.out);
    printf("{\"layers\": %zu, \"tokens\": %zu, \"hidden\": %zu, \"result\": [%zu, %zu], "
           "\"exec_bytes\": %llu, \"isa\": \"%s\"}\n",
           layers, t, c, s->result_rows, s->result_width,
           (unsigned long long)sfq_exec_bytes(s->model.net, s->opt.threads, t),
           sfq_kernels_get(s->opt.isa)->isa_name);
    return SFQ_OK;
}

int main(int argc, char **argv)
{
    state s = {0};
    sfq_error err = {0};
    sfq_status status = SFQ_E_ARGUMENT;
    s.in = SFQ_NEW(kit_input);
    if (!s.in || !parse_options(&s.opt, argc, argv) || !kit_read_input(s.in, s.opt.ids))
        sfq_fail(&err, status,
                 "usage: sfq-test-forward MODEL IDS OUT [--threads N] [--isa NAME] "
                 "[--chunk N] [--kv] [--single] [--kv-bits N]");
    else
        status = run(&s, &err);
    int code = kit_exit(status, &err);
    sfq_exec_close(&s.exec);
    kit_close(&s.model);
    sfq_mem_free(s.hidden);
    sfq_mem_free(s.result);
    sfq_mem_free(s.rows);
    sfq_mem_free(s.in);
    return code;
}

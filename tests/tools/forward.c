/* tests/tools/forward.c - runs a model directory on token ids and writes what it computed as raw
 * floats, for comparison with an oracle or with another run of itself.
 *
 *   sfq-test-forward MODEL IDS OUT [--threads N] [--isa NAME] [--chunk N] [--kv] [--single]
 *
 * IDS: a sequence per line, ids separated by spaces, optionally "|" and as many token types.
 * OUT.hidden: float [layers+1, T, C] over all tokens in file order. OUT.result: float [T, V]
 * logits, [S, labels] raw label values or [S, C] embeddings. stdout: one line of JSON with the
 * shapes. --chunk feeds at most N tokens of each sequence per call through a KV cache; --single
 * runs the sequences one after the other. */
#include "model/forward.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    sfq_status code;
    int exit_status;
    const char *name;
} statuses[] = {
#define STATUS_ROW(name, value, exit_status, text) {SFQ_##name, exit_status, #name},
    SFQ_STATUS_MAP(STATUS_ROW)
#undef STATUS_ROW
};

enum { MAX_SEQUENCES = 256, MAX_TOKENS = 1 << 16 };

typedef struct options {
    const char *model, *ids, *out;
    int threads;
    sfq_isa isa;
    size_t chunk;
    bool kv, single;
} options;

typedef struct input {
    size_t sequences;
    size_t offset[MAX_SEQUENCES + 1];
    int32_t ids[MAX_TOKENS], types[MAX_TOKENS];
    bool typed;
} input;

typedef struct state {
    options opt;
    input *in;
    sfq_hf_config *config;
    sfq_checkpoint *ck;
    sfq_artifact_info *artifact;
    sfq_arch *arch;
    sfq_modules *modules;
    sfq_net *net;
    sfq_pool *pool;
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
        } else if (strcmp(argv[i], "--chunk") == 0) {
            o->chunk = (size_t)atoi(value);
            i++;
        } else if (strcmp(argv[i], "--isa") == 0) {
            for (o->isa = SFQ_ISA_REF; o->isa < SFQ_ISA_COUNT; o->isa++)
                if (strcmp(sfq_isa_name(o->isa), value) == 0)
                    break;
            i++;
        } else {
            return false;
        }
    }
    return true;
}

static bool parse_line(input *in, char *line, size_t *at)
{
    char *types = strchr(line, '|'), *end;
    size_t begin = *at, typed = begin;
    if (types)
        *types++ = '\0';
    for (char *s = line; *at < MAX_TOKENS; s = end) {
        long v = strtol(s, &end, 10);
        if (end == s)
            break;
        in->ids[(*at)++] = (int32_t)v;
    }
    for (char *s = types; s && typed < *at; s = end) {
        long v = strtol(s, &end, 10);
        if (end == s)
            return false;
        in->types[typed++] = (int32_t)v;
        in->typed = true;
    }
    return *at > begin;
}

static bool read_input(input *in, const char *path)
{
    static char line[1 << 19];
    size_t at = 0;
    FILE *f = fopen(path, "r");
    bool good = f != NULL;
    while (good && in->sequences < MAX_SEQUENCES && fgets(line, sizeof(line), f)) {
        good = parse_line(in, line, &at);
        in->offset[++in->sequences] = at;
    }
    if (f)
        fclose(f);
    return good && in->sequences > 0;
}

static sfq_status open_model(state *s, sfq_error *err)
{
    const char *dir = s->opt.model;
    const sfq_hooks hooks = {0};
    SFQ_TRY(sfq_hf_config_open(&s->config, dir, err));
    SFQ_TRY(sfq_artifact_read(&s->artifact, s->config, err));
    SFQ_TRY(sfq_arch_open(&s->arch, s->config, s->artifact, dir, err));
    SFQ_TRY(sfq_checkpoint_open(&s->ck, dir, &hooks, err));
    SFQ_TRY(sfq_modules_open(&s->modules, s->arch, s->ck, s->artifact, err));
    SFQ_TRY(sfq_net_open(&s->net, s->arch, s->modules, s->ck, s->artifact, &hooks, err));
    SFQ_TRY(sfq_pool_open(&s->pool, s->opt.threads, err));
    return sfq_exec_open(&s->exec, s->net, sfq_kernels_get(s->opt.isa), s->pool, err);
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
    if (s->arch->head == SFQ_MODEL_HEAD_EMBEDDING)
        return sfq_forward_embedding(s->exec, b, hidden, out, err);
    if (s->arch->head != SFQ_MODEL_HEAD_LM)
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
    static int32_t ids[MAX_TOKENS], types[MAX_TOKENS];
    size_t offset[MAX_SEQUENCES + 1] = {0};
    sfq_kv *used[MAX_SEQUENCES];
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
    sfq_kv *kv[MAX_SEQUENCES] = {0};
    bool cached = s->opt.kv || s->opt.chunk > 0, any = true;
    size_t chunk = s->opt.chunk > 0 ? s->opt.chunk : MAX_TOKENS;
    sfq_status status = SFQ_OK;
    for (size_t q = first; cached && q < end; q++)
        SFQ_DO(sfq_kv_open(&kv[q - first], s->arch, (int)(s->in->offset[q + 1] - s->in->offset[q]),
                           err));
    for (size_t from = 0; any; from += chunk)
        SFQ_DO(run_step(s, first, end, from, chunk, cached ? kv : NULL, &any, err));
done:
    for (size_t q = 0; q < MAX_SEQUENCES; q++)
        sfq_kv_close(&kv[q]);
    return status;
}

static bool write_floats(const char *out, const char *suffix, const float *data, size_t n)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s.%s", out, suffix);
    FILE *f = fopen(path, "wb");
    if (!f)
        return false;
    bool good = fwrite(data, sizeof(float), n, f) == n;
    return fclose(f) == 0 && good;
}

static sfq_status run(state *s, sfq_error *err)
{
    SFQ_TRY(open_model(s, err));
    size_t t = s->in->offset[s->in->sequences], c = (size_t)s->arch->hidden;
    size_t layers = (size_t)s->arch->layers;
    bool lm = s->arch->head == SFQ_MODEL_HEAD_LM;
    s->result_rows = lm ? t : s->in->sequences;
    s->result_width = lm                                          ? (size_t)s->arch->vocab
                      : s->arch->head == SFQ_MODEL_HEAD_EMBEDDING ? c
                                                                  : (size_t)s->arch->labels;
    s->hidden = SFQ_NEW_ARRAY(float, (layers + 1) * t * c);
    s->result = SFQ_NEW_ARRAY(float, s->result_rows * s->result_width);
    s->rows = SFQ_NEW_ARRAY(size_t, t);
    if (!s->hidden || !s->result || !s->rows)
        return sfq_fail_memory(err, t, "results");
    size_t step = s->opt.single ? 1 : s->in->sequences;
    for (size_t q = 0; q < s->in->sequences; q += step)
        SFQ_TRY(run_group(s, q, q + step, err));
    if (!write_floats(s->opt.out, "hidden", s->hidden, (layers + 1) * t * c) ||
        !write_floats(s->opt.out, "result", s->result, s->result_rows * s->result_width))
        return sfq_fail(err, SFQ_E_IO, "cannot write %s.*", s->opt.out);
    printf("{\"layers\": %zu, \"tokens\": %zu, \"hidden\": %zu, \"result\": [%zu, %zu], "
           "\"exec_bytes\": %llu, \"isa\": \"%s\"}\n",
           layers, t, c, s->result_rows, s->result_width,
           (unsigned long long)sfq_exec_bytes(s->net, s->opt.threads, t),
           sfq_kernels_get(s->opt.isa)->isa_name);
    return SFQ_OK;
}

static size_t row_of(sfq_status status)
{
    size_t i = 0;
    while (statuses[i].code != status)
        i++;
    return i;
}

int main(int argc, char **argv)
{
    state s = {0};
    sfq_error err = {0};
    sfq_status status = SFQ_E_ARGUMENT;
    s.in = SFQ_NEW(input);
    if (!s.in || !parse_options(&s.opt, argc, argv) || !read_input(s.in, s.opt.ids)) {
        fprintf(stderr, "usage: sfq-test-forward MODEL IDS OUT [--threads N] [--isa NAME] "
                        "[--chunk N] [--kv] [--single]\n");
    } else {
        status = run(&s, &err);
        if (status)
            fprintf(stderr, "%s: %s\n", statuses[row_of(status)].name, err.message);
    }
    sfq_exec_close(&s.exec);
    sfq_pool_close(&s.pool);
    sfq_net_close(&s.net);
    sfq_modules_close(&s.modules);
    sfq_checkpoint_close(&s.ck);
    sfq_arch_close(&s.arch);
    sfq_artifact_free(&s.artifact);
    sfq_hf_config_close(&s.config);
    sfq_mem_free(s.hidden);
    sfq_mem_free(s.result);
    sfq_mem_free(s.rows);
    sfq_mem_free(s.in);
    return statuses[row_of(status)].exit_status;
}

/* bench - speed of models side by side, measured in interleaved rounds so that a machine that slows
 * down slows all of them. */
#include "program.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MODELS 16

typedef struct bench_args {
    cli_common common;
    sfq_bench_options o;
    cli_list against;
    sfq_bench_shape shape; /* bits 0: not given */
    cli_list against_bits;
    bool probe;
} bench_args;

static const cli_option options[] = {
    {"against", 0, CLI_LIST, offsetof(bench_args, against), 0, 0, "MODEL",
     "compare with this model; further words are models too", NULL},
    {"shape", 0, CLI_TEXT, offsetof(bench_args, shape.shape), 0, 0, "NAME",
     "random weights of this shape instead of a model: llama-1b, llama-3b, llama-7b, llama-13b, "
     "llama-30b, bert-base, minilm or the path of a config.json",
     NULL},
    {"bits", 0, CLI_INT, offsetof(bench_args, shape.bits), 2, 16, "B",
     "bits of the shape's matrices, 2 to 8, or 16: dense F16", NULL},
    {"embedding-bits", 0, CLI_INT, offsetof(bench_args, shape.embedding_bits), 2, 8, "B",
     "bits of its tables and language-model head (default 8, as in compress)", NULL},
    {"activation-bits", 0, CLI_INT, offsetof(bench_args, shape.activation_bits), 0, 14, "B",
     "bits of its matrices' inputs, 8 to 14; 0: as compress chooses", NULL},
    {"prune", 0, CLI_REAL, offsetof(bench_args, shape.prune), 0, 0.99, "P",
     "share of its heads and neurons that is gone, evenly over the layers", NULL},
    {"against-bits", 0, CLI_LIST, offsetof(bench_args, against_bits), 0, 0, "B",
     "compare with the unpruned shape at these bits; further words are bits too", NULL},
    {"seed", 0, CLI_U64, offsetof(bench_args, shape.seed), 0, 0, "S", "of the random weights",
     NULL},
    {"prompt-tokens", 0, CLI_INT, offsetof(bench_args, o.prompt_tokens), 1, 1 << 20, "N",
     "length of the prompt (encoders: of a sequence)", NULL},
    {"generate-tokens", 0, CLI_INT, offsetof(bench_args, o.generate_tokens), 1, 1 << 20, "N",
     "tokens to decode", NULL},
    {"batch", 0, CLI_INT, offsetof(bench_args, o.batch), 1, 4096, "B", "sequences at a time", NULL},
    {"rounds", 0, CLI_INT, offsetof(bench_args, o.rounds), 1, 1000, "N",
     "rounds over all models; the median counts", NULL},
    {"threads", 0, CLI_INT, offsetof(bench_args, o.threads), 0, 256, "N", CLI_THREADS_HELP, NULL},
    {"kv-bits", 0, CLI_INT, offsetof(bench_args, o.kv_bits), 0, 32, "B", CLI_KV_BITS_HELP, NULL},
    {"huge-pages", 0, CLI_FLAG, offsetof(bench_args, o.huge_pages), 0, 0, NULL, CLI_HUGE_PAGES_HELP,
     NULL},
    {"probe", 0, CLI_FLAG, offsetof(bench_args, probe), 0, 0, NULL,
     "also the machine's read bandwidth and multiply-add peaks", NULL},
    CLI_COMMON_OPTIONS};

typedef struct bench_outcome {
    const char *paths[MAX_MODELS]; /* of shapes their names */
    sfq_bench_shape shapes[MAX_MODELS];
    size_t count;
    sfq_bench_result results[MAX_MODELS]; /* [count] */
    const char *isa;
    int threads;
    bool shaped, probed;
    sfq_probe_result probe;
} bench_outcome;

static void defaults(void *arguments)
{
    sfq_bench_options_default(&((bench_args *)arguments)->o);
}

/* 0 stands for "does not apply". */
static double or_null(double value)
{
    return value > 0 ? value : NAN;
}

static json_t *model_json(const bench_outcome *out, size_t i)
{
    const sfq_bench_result *r = &out->results[i];
    cli_text peak;
    json_t *m = json_object();
    cli_json_text(m, "path", out->paths[i]);
    cli_json_real(m, "bits", r->bits);
    cli_json_int(m, "bytes", r->bytes);
    cli_json_real(m, "load_seconds", r->load_seconds);
    cli_json_real(m, "prefill_tokens_per_second", or_null(r->prefill_tokens_per_second));
    cli_json_real(m, "decode_tokens_per_second", or_null(r->decode_tokens_per_second));
    cli_json_real(m, "latency_seconds", or_null(r->latency_seconds));
    cli_json_int(m, "peak_rss_bytes", r->peak_rss_bytes);
    cli_json_real(m, "bytes_per_token", or_null(r->bytes_per_token));
    cli_json_real(m, "read_bandwidth_share", or_null(r->read_bandwidth_share));
    cli_json_real(m, "multiply_share", or_null(r->multiply_share));
    cli_json_real(m, "products_per_mac", or_null(r->products_per_mac));
    if (r->multiply_peak_isa != NULL)
        snprintf(peak.s, sizeof peak.s, "%s %s", r->multiply_peak_isa, r->multiply_peak_type);
    cli_json_text(m, "multiply_peak", r->multiply_peak_isa != NULL ? peak.s : NULL);
    if (out->shaped) {
        cli_json_text(m, "shape", out->shapes[i].shape);
        cli_json_int(m, "shape_bits", (uint64_t)out->shapes[i].bits);
        cli_json_real(m, "prune", out->shapes[i].prune);
    }
    return m;
}

static json_t *probe_json(const sfq_probe_result *p)
{
    json_t *o = json_object(), *peaks = json_array();
    cli_json_real(o, "read_bytes_per_second", p->read_bytes_per_second);
    cli_json_real(o, "read_bytes_per_second_one_thread", p->read_bytes_per_second_one);
    cli_json_real(o, "macs_per_second", p->macs_per_second);
    for (int i = 0; i < p->peak_count; i++) {
        json_t *peak = json_object();
        cli_json_text(peak, "isa", p->peaks[i].isa);
        cli_json_text(peak, "type", p->peaks[i].type);
        cli_json_real(peak, "macs_per_second", p->peaks[i].macs_per_second);
        cli_json_append(peaks, peak);
    }
    cli_json_put(o, "peaks", peaks);
    return o;
}

static sfq_status print_json(const bench_outcome *out, sfq_error *err)
{
    json_t *o = cli_json_open(), *models = json_array();
    cli_json_text(o, "isa", out->isa);
    cli_json_int(o, "threads", (uint64_t)out->threads);
    for (size_t i = 0; i < out->count; i++)
        cli_json_append(models, model_json(out, i));
    cli_json_put(o, "models", models);
    if (out->probed)
        cli_json_put(o, "probe", probe_json(&out->probe));
    return cli_json_print(&o, err);
}

/* "123.4" or "-"; with the ratio to the first model behind it for the others. */
static void rate_cell(cli_table *table, double rate, double first, bool ratio)
{
    cli_text count;
    if (!(rate > 0))
        cli_table_cell(table, "-");
    else if (ratio && first > 0)
        cli_table_cell(table, "%s (%.2fx)", cli_count(&count, rate), rate / first);
    else
        cli_table_cell(table, "%s", cli_count(&count, rate));
}

static void share_cell(cli_table *table, double share)
{
    if (share > 0)
        cli_table_cell(table, "%.0f %%", 100 * share);
    else
        cli_table_cell(table, "-");
}

static void print_models(cli_context *cli, const bench_outcome *out)
{
    static const char *const heads[] = {"model",    "size", "bits",        "load",      "prefill/s",
                                        "decode/s", "peak", "bytes/token", "bandwidth", "multiply"};
    cli_table table = {.columns = 10, .left = 1, .arena = cli->arena};
    const sfq_bench_result *first = out->results;
    cli_text text;
    for (size_t c = 0; c < table.columns; c++)
        cli_table_cell(&table, "%s", heads[c]);
    for (size_t i = 0; i < out->count; i++) {
        const sfq_bench_result *r = &out->results[i];
        cli_table_cell(&table, "%s", out->paths[i]);
        cli_table_cell(&table, "%s", cli_bytes(&text, r->bytes));
        cli_table_cell(&table, "%.2f", r->bits);
        cli_table_cell(&table, "%s", cli_time(&text, r->load_seconds));
        rate_cell(&table, r->prefill_tokens_per_second, first->prefill_tokens_per_second, i > 0);
        rate_cell(&table, r->decode_tokens_per_second, first->decode_tokens_per_second, i > 0);
        cli_table_cell(&table, "%s", cli_bytes(&text, r->peak_rss_bytes));
        cli_table_cell(&table, "%s", cli_bytes(&text, (uint64_t)r->bytes_per_token));
        share_cell(&table, r->read_bandwidth_share);
        share_cell(&table, r->multiply_share);
    }
    cli_outf("%s, %d thread%s; prefill and decode in tokens per second\n", out->isa, out->threads,
             out->threads == 1 ? "" : "s");
    cli_table_print(&table);
}

static void print_text(cli_context *cli, const bench_outcome *out)
{
    const sfq_probe_result *p = &out->probe;
    cli_text text;
    if (out->count > 0)
        print_models(cli, out);
    for (size_t i = 0; i < out->count; i++) {
        const sfq_bench_result *r = &out->results[i];
        if (!(r->decode_tokens_per_second > 0) && r->latency_seconds > 0)
            cli_outf("%s: %s per batch\n", out->paths[i], cli_time(&text, r->latency_seconds));
    }
    if (!out->probed)
        return;
    cli_outf("probe: %d thread%s read %s/s", out->threads, out->threads == 1 ? "" : "s",
             cli_bytes(&text, (uint64_t)p->read_bytes_per_second));
    cli_outf(", one reads %s/s\n", cli_bytes(&text, (uint64_t)p->read_bytes_per_second_one));
    for (int i = 0; i < p->peak_count; i++)
        cli_outf("probe: %-10s %-4s %s multiply-adds/s\n", p->peaks[i].isa, p->peaks[i].type,
                 cli_count(&text, p->peaks[i].macs_per_second));
}

/* ---- what to measure ------------------------------------------------------------------------- */

static sfq_status add_shape(cli_context *cli, bench_outcome *out, const sfq_bench_shape *shape,
                            sfq_error *err)
{
    size_t bytes = strlen(shape->shape) + 32;
    char *name = SFQ_ARENA_ARRAY(cli->arena, char, bytes);
    if (out->count == MAX_MODELS)
        return sfq_fail(err, SFQ_E_ARGUMENT, "bench: at most %d models at a time", MAX_MODELS);
    if (name == NULL)
        return sfq_fail_memory(err, bytes, "the command line");
    if (shape->prune > 0)
        snprintf(name, bytes, "%s@%d-%.4g%%", shape->shape, shape->bits, 100 * shape->prune);
    else
        snprintf(name, bytes, "%s@%d", shape->shape, shape->bits);
    out->shapes[out->count] = *shape;
    out->paths[out->count++] = name;
    return SFQ_OK;
}

/* "16" or "8,4": numbers with commas between them. */
static sfq_status add_bits(cli_context *cli, const bench_args *args, const char *list,
                           bench_outcome *out, sfq_error *err)
{
    sfq_bench_shape shape = args->shape;
    shape.prune = 0;
    for (const char *at = list;; at++) {
        char *end = NULL;
        long bits = *at >= '0' && *at <= '9' ? strtol(at, &end, 10) : 0;
        if (end == NULL || (*end != ',' && *end != '\0') ||
            !((bits >= 2 && bits <= 8) || bits == 16))
            return sfq_fail(err, SFQ_E_ARGUMENT,
                            "bench: --against-bits is '%s'; it must be 2 to 8 or 16", list);
        shape.bits = (int)bits;
        SFQ_TRY(add_shape(cli, out, &shape, err));
        at = end;
        if (*at == '\0')
            return SFQ_OK;
    }
}

static sfq_status take_shapes(cli_context *cli, bench_args *args, bench_outcome *out,
                              sfq_error *err)
{
    if (args->shape.bits == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "bench: --shape needs --bits B, 2 to 8 or 16");
    if (args->against.count > 0)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "bench: --against names a model; a shape is compared by --against-bits");
    if (cli->words.count > 0 && args->against_bits.count == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "bench: one word too many: '%s'; give a MODEL or a --shape, not both",
                        cli->words.items[0]);
    out->shaped = true;
    SFQ_TRY(add_shape(cli, out, &args->shape, err));
    for (size_t i = 0; i < args->against_bits.count; i++)
        SFQ_TRY(add_bits(cli, args, args->against_bits.items[i], out, err));
    for (size_t i = 0; i < cli->words.count; i++)
        SFQ_TRY(add_bits(cli, args, cli->words.items[i], out, err));
    return SFQ_OK;
}

static sfq_status take_models(cli_context *cli, bench_args *args, bench_outcome *out,
                              sfq_error *err)
{
    if (args->shape.bits != 0 || args->against_bits.count > 0 || args->shape.prune > 0 ||
        args->shape.embedding_bits != 0 || args->shape.activation_bits != 0)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "bench: --bits, --embedding-bits, --activation-bits, --prune and "
                        "--against-bits go with --shape; a MODEL has the bits that it has");
    if (cli->words.count == 0 && args->probe && args->against.count == 0)
        return SFQ_OK;
    if (cli->words.count == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "bench: MODEL is missing (--shape and --probe need none; sfq bench "
                        "--help)");
    if (cli->words.count > 1 && args->against.count == 0)
        return sfq_fail(
            err, SFQ_E_ARGUMENT,
            "bench: one word too many: '%s'; models to compare with go behind --against",
            cli->words.items[1]);
    for (size_t i = 1; i < cli->words.count; i++)
        SFQ_TRY(cli_list_add(&args->against, cli->arena, cli->words.items[i], err));
    out->paths[out->count++] = cli->words.items[0];
    if (args->against.count >= MAX_MODELS)
        return sfq_fail(err, SFQ_E_ARGUMENT, "bench: at most %d models at a time", MAX_MODELS);
    for (size_t i = 0; i < args->against.count; i++)
        out->paths[out->count++] = args->against.items[i];
    return SFQ_OK;
}

static sfq_status measure(cli_context *cli, bench_args *args, bench_outcome *out, sfq_error *err)
{
    args->o.hooks = cli_progress_hooks(&cli->progress);
    if (out->shaped)
        SFQ_TRY(sfq_bench_shapes(out->shapes, out->count, &args->o, out->results, &out->isa,
                                 &out->threads, err));
    else
        SFQ_TRY(sfq_bench(out->paths, out->count, &args->o, out->results, &out->isa, &out->threads,
                          err));
    cli_progress_close(&cli->progress);
    return SFQ_OK;
}

static sfq_status run(cli_context *cli, void *arguments, sfq_error *err)
{
    bench_args *args = arguments;
    bench_outcome out = {.probed = args->probe, .threads = args->o.threads};
    if (args->shape.shape != NULL)
        SFQ_TRY(take_shapes(cli, args, &out, err));
    else
        SFQ_TRY(take_models(cli, args, &out, err));
    if (out.count > 0) {
        SFQ_TRY(measure(cli, args, &out, err));
    } else {
        sfq_environment e;
        SFQ_TRY(sfq_environment_get(&e, err));
        out.isa = e.isa;
        out.threads = args->o.threads > 0 ? args->o.threads : e.threads;
    }
    if (args->probe)
        SFQ_TRY(sfq_probe(out.threads, &out.probe, err));
    if (args->common.json)
        return print_json(&out, err);
    print_text(cli, &out);
    return SFQ_OK;
}

static const char *const synopsis[] = {
    "MODEL [--against MODEL ...] [--prompt-tokens N] [--generate-tokens N] [--batch B]",
    "--shape NAME|CONFIG.json --bits B [--prune P] [--against-bits 16 ...]",
    "--probe",
    NULL,
};
static const cli_example examples[] = {
    {"sfq bench small --against models/novels-5m", "a compressed model and its original"},
    {"sfq bench small --threads 1 --batch 8 --json", "one thread, eight sequences at a time"},
    {"sfq bench --shape llama-1b --bits 4 --against-bits 8 16",
     "what a 1B model would do at 4, 8 and 16 bits, without having one"},
    {"sfq bench --shape llama-7b --bits 8 --prune 0.4 --against-bits 16",
     "a 7B model with 40 % of its heads and neurons gone, and its original"},
    {"sfq bench --shape bert-base --bits 8 --prompt-tokens 128 --batch 8", "an encoder"},
    {"sfq bench --probe", "what this machine can read and multiply"},
    {NULL, NULL},
};

const cli_verb cli_verb_bench = {
    .name = "bench",
    .summary = "measure load time, prefill and decode speed, memory",
    .synopsis = synopsis,
    .examples = examples,
    .description =
        "All models run in turn, round after round; each figure is the median over the rounds. "
        "The bandwidth share is weight and KV bytes read per token, times tokens per second, over "
        "the probed read bandwidth at the same threads. The multiply share is the matrices' "
        "multiply-adds in prefill over the probed peak of their number type (multiply_peak); "
        "activations of more than 8 bits take products_per_mac byte products each. Encoders have "
        "no decode speed; their latency is that of a whole batch.\n\n"
        "A shape's weights are random numbers made in memory, in the layout that compress writes; "
        "where they do not fit, nothing is made and the exit code is 6.\n\n"
        "JSON: isa, threads, models[{path, bits, bytes, load_seconds, prefill_tokens_per_second, "
        "decode_tokens_per_second, latency_seconds, peak_rss_bytes, bytes_per_token, "
        "read_bandwidth_share, multiply_share, products_per_mac, multiply_peak}], the named model "
        "first (shapes add shape, shape_bits, prune); with --probe probe{read_bytes_per_second, "
        "read_bytes_per_second_one_thread, macs_per_second, peaks[{isa, type, macs_per_second}]}.",
    .options = options,
    .words = "MODEL",
    .words_min = 0,
    .words_max = 4096,
    .args_bytes = sizeof(bench_args),
    .defaults = defaults,
    .run = run,
};

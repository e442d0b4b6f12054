/* bench - speed of models side by side, measured in interleaved rounds so that a machine that slows
 * down slows all of them. */
#include "program.h"

#include <math.h>

#define MAX_MODELS 16

typedef struct bench_args {
    cli_common common;
    sfq_bench_options o;
    cli_list against;
    bool probe;
} bench_args;

static const cli_option options[] = {
    {"against", 0, CLI_LIST, offsetof(bench_args, against), 0, 0, "MODEL",
     "compare with this model; further words are models too", NULL},
    {"prompt-tokens", 0, CLI_INT, offsetof(bench_args, o.prompt_tokens), 1, 1 << 20, "N",
     "length of the prompt (encoders: of a sequence)", NULL},
    {"generate-tokens", 0, CLI_INT, offsetof(bench_args, o.generate_tokens), 1, 1 << 20, "N",
     "tokens to decode", NULL},
    {"batch", 0, CLI_INT, offsetof(bench_args, o.batch), 1, 4096, "B", "sequences at a time", NULL},
    {"rounds", 0, CLI_INT, offsetof(bench_args, o.rounds), 1, 1000, "N",
     "rounds over all models; the median counts", NULL},
    {"threads", 0, CLI_INT, offsetof(bench_args, o.threads), 0, 256, "N", CLI_THREADS_HELP, NULL},
    {"probe", 0, CLI_FLAG, offsetof(bench_args, probe), 0, 0, NULL,
     "also the machine's read bandwidth and multiply-add peak", NULL},
    CLI_COMMON_OPTIONS};

typedef struct bench_outcome {
    const char *paths[MAX_MODELS];
    size_t count;
    sfq_bench_result results[MAX_MODELS]; /* [count] */
    const char *isa;
    int threads;
    bool probed;
    double read_bytes_per_second, macs_per_second;
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

static sfq_status print_json(const bench_outcome *out, sfq_error *err)
{
    json_t *o = cli_json_open(), *models = json_array();
    cli_json_text(o, "isa", out->isa);
    cli_json_int(o, "threads", (uint64_t)out->threads);
    for (size_t i = 0; i < out->count; i++) {
        const sfq_bench_result *r = &out->results[i];
        json_t *m = json_object();
        cli_json_text(m, "path", out->paths[i]);
        cli_json_real(m, "bits", r->bits);
        cli_json_int(m, "bytes", r->bytes);
        cli_json_real(m, "load_seconds", r->load_seconds);
        cli_json_real(m, "prefill_tokens_per_second", or_null(r->prefill_tokens_per_second));
        cli_json_real(m, "decode_tokens_per_second", or_null(r->decode_tokens_per_second));
        cli_json_int(m, "peak_rss_bytes", r->peak_rss_bytes);
        cli_json_real(m, "read_bandwidth_share", or_null(r->read_bandwidth_share));
        cli_json_append(models, m);
    }
    cli_json_put(o, "models", models);
    if (out->probed) {
        json_t *p = json_object();
        cli_json_real(p, "read_bytes_per_second", out->read_bytes_per_second);
        cli_json_real(p, "macs_per_second", out->macs_per_second);
        cli_json_put(o, "probe", p);
    }
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

static void print_text(cli_context *cli, const bench_outcome *out)
{
    static const char *const heads[] = {"model",     "size",     "bits", "load",
                                        "prefill/s", "decode/s", "peak", "bandwidth"};
    cli_table table = {.columns = 8, .left = 1, .arena = cli->arena};
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
        if (r->read_bandwidth_share > 0)
            cli_table_cell(&table, "%.0f %%", 100 * r->read_bandwidth_share);
        else
            cli_table_cell(&table, "-");
    }
    if (out->count > 0) {
        cli_outf("%s, %d thread%s; prefill and decode in tokens per second\n", out->isa,
                 out->threads, out->threads == 1 ? "" : "s");
        cli_table_print(&table);
    }
    if (out->probed)
        cli_outf("probe: reads %s/s, %s multiply-adds/s\n",
                 cli_bytes(&text, (uint64_t)out->read_bytes_per_second),
                 cli_count(&(cli_text){""}, out->macs_per_second));
}

static sfq_status measure(cli_context *cli, bench_args *args, bench_outcome *out, sfq_error *err)
{
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
    args->o.hooks = cli_progress_hooks(&cli->progress);
    SFQ_TRY(
        sfq_bench(out->paths, out->count, &args->o, out->results, &out->isa, &out->threads, err));
    cli_progress_close(&cli->progress);
    return SFQ_OK;
}

static sfq_status run(cli_context *cli, void *arguments, sfq_error *err)
{
    bench_args *args = arguments;
    bench_outcome out = {.probed = args->probe, .threads = args->o.threads};
    if (cli->words.count == 0 && (!args->probe || args->against.count > 0))
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "bench: MODEL is missing (--probe alone needs none; sfq bench --help)");
    if (cli->words.count > 0)
        SFQ_TRY(measure(cli, args, &out, err));
    if (cli->words.count == 0) {
        sfq_environment e;
        SFQ_TRY(sfq_environment_get(&e, err));
        out.isa = e.isa;
        out.threads = args->o.threads > 0 ? args->o.threads : e.threads;
    }
    if (args->probe)
        SFQ_TRY(sfq_probe(out.threads, &out.read_bytes_per_second, &out.macs_per_second, err));
    if (args->common.json)
        return print_json(&out, err);
    print_text(cli, &out);
    return SFQ_OK;
}

static const char *const synopsis[] = {
    "MODEL [--against MODEL ...] [--prompt-tokens N] [--generate-tokens N] [--batch B]",
    "--probe",
    NULL,
};
static const cli_example examples[] = {
    {"sfq bench small --against models/novels-5m", "a compressed model and its original"},
    {"sfq bench small --threads 1 --batch 8 --json", "one thread, eight sequences at a time"},
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
        "the probed read bandwidth at the same threads. Encoders have no decode speed.\n\n"
        "JSON: isa, threads, models[{path, bits, bytes, load_seconds, prefill_tokens_per_second, "
        "decode_tokens_per_second, peak_rss_bytes, read_bandwidth_share}], the named model first.",
    .options = options,
    .words = "MODEL",
    .words_min = 0,
    .words_max = 4096,
    .args_bytes = sizeof(bench_args),
    .defaults = defaults,
    .run = run,
};

/* compress - from a checkpoint to an sfq artifact, or with --plan what that would take. */
#include "program.h"

#include <math.h>
#include <string.h>

typedef struct compress_args {
    cli_common common;
    sfq_compress_options o;
    cli_list keep, bits_for, text;
    bool plan;
} compress_args;

static const cli_option options[] = {
    {"output", 'o', CLI_TEXT, offsetof(compress_args, o.output), 0, 0, "DIR",
     "where the artifact goes; must not exist", NULL},
    {"recipe", 0, CLI_TEXT, offsetof(compress_args, o.recipe), 0, 0, "NAME",
     "how to choose what is removed and stored in how many bits: sfq", NULL},
    {"prune", 0, CLI_REAL, offsetof(compress_args, o.prune), 0, 0.99, "P",
     "share of the attention and FFN parameters to remove", NULL},
    {"bits", 0, CLI_INT, offsetof(compress_args, o.bits), 2, 8, "B",
     "bits per weight of the matrices", NULL},
    {"embedding-bits", 0, CLI_INT, offsetof(compress_args, o.embedding_bits), 2, 8, "B",
     "bits per weight of embedding tables and output heads", NULL},
    {"activation-bits", 0, CLI_INT, offsetof(compress_args, o.activation_bits), 0, 14, "B",
     "bits of the matrices' inputs at run time, 8 to 14; 0: 12 for those whom 8 cost most (down "
     "of language models, v of encoders), 8 for the others; above 8 takes twice the time with "
     "VNNI and AMX",
     NULL},
    {"task", 0, CLI_TEXT, offsetof(compress_args, o.task), 0, 0, "NAME",
     "calibrate on this task's train split, measure on its dev split before and after (needs "
     "--data)",
     NULL},
    {"data", 0, CLI_TEXT, offsetof(compress_args, o.data), 0, 0, "DIR",
     "the task's data; your own is train.jsonl or .csv with text, text_pair, label; labels are not "
     "needed, but without them in dev.jsonl or .csv nothing is measured",
     NULL},
    {"text", 0, CLI_LIST, offsetof(compress_args, text), 0, 0, "FILE",
     "calibrate on these files, measure perplexity on a part of them that is set aside (on all "
     "with --prune 0 --steps 0); further words are files too",
     NULL},
    {"calib-fraction", 0, CLI_REAL, offsetof(compress_args, o.calib_fraction), 1e-9, 1, "F",
     "share of the train split or text to calibrate on; by default 0.005, but at least 512 "
     "examples or 65536 tokens",
     NULL},
    {"calib-tokens", 0, CLI_U64, offsetof(compress_args, o.calib_tokens), 0, 0, "N",
     "tokens of text to calibrate on instead; 0: by the share", NULL},
    {"calib-length", 0, CLI_INT, offsetof(compress_args, o.calib_length), 16, 4096, "N",
     "tokens of a sequence of text", NULL},
    {"pick", 0, CLI_TEXT, offsetof(compress_args, o.pick), 0, 0, "HOW",
     "how calibration examples are chosen", "curated random"},
    {"saliency", 0, CLI_TEXT, offsetof(compress_args, o.saliency), 0, 0, "KIND",
     "what a head or neuron is judged by", "fisher taylor magnitude error"},
    {"rounds", 0, CLI_INT, offsetof(compress_args, o.rounds), 1, 16, "N",
     "rounds of pruning, by default the recipe's", NULL},
    {"uniform", 0, CLI_FLAG, offsetof(compress_args, o.uniform), 0, 0, NULL,
     "the same widths in every layer, for programs that know one width per model", NULL},
    {"steps", 0, CLI_INT, offsetof(compress_args, o.steps), 0, 1 << 24, "N",
     "recalibration steps at most, 0: none; by default from the calibration size", NULL},
    {"minutes", 0, CLI_REAL, offsetof(compress_args, o.minutes), 0, 1e6, "M",
     "ceiling on the whole run, met between two steps; 0: none", NULL},
    {"keep", 0, CLI_LIST, offsetof(compress_args, keep), 0, 0, "REGEX",
     "tensors that stay whole and 16 bit", NULL},
    {"bits-for", 0, CLI_LIST, offsetof(compress_args, bits_for), 0, 0, "REGEX=B",
     "other bits (2..8, or 16) for some tensors; the last rule that matches counts", NULL},
    {"max-drop", 0, CLI_REAL, offsetof(compress_args, o.max_drop), 0, 1e6, "POINTS",
     "a larger drop ends with status 3, the output kept as NAME.rejected", NULL},
    {"seed", 0, CLI_U64, offsetof(compress_args, o.seed), 0, 0, "S", "of everything random", NULL},
    {"threads", 0, CLI_INT, offsetof(compress_args, o.threads), 0, 256, "N", CLI_THREADS_HELP,
     NULL},
    {"plan", 0, CLI_FLAG, offsetof(compress_args, plan), 0, 0, NULL,
     "print sizes, memory, disk and time; write nothing", NULL},
    {"keep-stages", 0, CLI_FLAG, offsetof(compress_args, o.keep_stages), 0, 0, NULL,
     "leave the model after each stage, too: NAME.pruned, .reconstructed, .distilled, .fused",
     NULL},
    {"force", 0, CLI_FLAG, offsetof(compress_args, o.force), 0, 0, NULL,
     "replace an output that exists, and an interrupted run of another request", NULL},
    CLI_COMMON_OPTIONS};

static void defaults(void *arguments)
{
    sfq_compress_options_default(&((compress_args *)arguments)->o);
}

/* 2..8 or 16; 0 for anything else. */
static int parse_bits(const char *text)
{
    if (strcmp(text, "16") == 0)
        return 16;
    return text[0] >= '2' && text[0] <= '8' && text[1] == '\0' ? text[0] - '0' : 0;
}

/* "REGEX=B", split at the last '=': a regex may hold one. */
static sfq_status parse_rules(compress_args *args, sfq_arena *arena, sfq_error *err)
{
    size_t count = args->bits_for.count;
    sfq_bits_rule *rules = SFQ_ARENA_ARRAY(arena, sfq_bits_rule, count + 1);
    if (rules == NULL)
        return sfq_fail_memory(err, count * sizeof *rules, "the rules");
    for (size_t i = 0; i < count; i++) {
        const char *given = args->bits_for.items[i], *equals = strrchr(given, '=');
        int bits = equals && equals > given ? parse_bits(equals + 1) : 0;
        if (bits == 0)
            return sfq_fail(err, SFQ_E_ARGUMENT,
                            "compress: --bits-for is '%s'; it must be REGEX=B with B from 2 to 8, "
                            "or 16",
                            given);
        rules[i].bits = bits;
        rules[i].regex = sfq_arena_strndup(arena, given, (size_t)(equals - given));
        if (rules[i].regex == NULL)
            return sfq_fail_memory(err, strlen(given), "the rules");
    }
    args->o.bits_for = rules;
    args->o.bits_for_count = count;
    return SFQ_OK;
}

static sfq_status complete(cli_context *cli, compress_args *args, sfq_error *err)
{
    if (cli->words.count > 1 && args->text.count == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "compress: one word too many: '%s' (sfq compress "
                        "--help)",
                        cli->words.items[1]);
    for (size_t i = 1; i < cli->words.count; i++)
        SFQ_TRY(cli_list_add(&args->text, cli->arena, cli->words.items[i], err));
    if (args->o.output == NULL && !args->plan)
        return sfq_fail(err, SFQ_E_ARGUMENT, "compress: -o DIR is missing (sfq compress --help)");
    if ((args->o.task != NULL) != (args->o.data != NULL))
        return sfq_fail(err, SFQ_E_ARGUMENT, "compress: --task NAME and --data DIR go together");
    if (args->o.task && args->text.count > 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "compress: give either --task or --text");
    SFQ_TRY(parse_rules(args, cli->arena, err));
    args->o.model = cli->words.items[0];
    args->o.keep = args->keep.items;
    args->o.keep_count = args->keep.count;
    args->o.text_files = args->text.items;
    args->o.text_count = args->text.count;
    args->o.hooks = cli_progress_hooks(&cli->progress);
    return SFQ_OK;
}

/* ---- JSON ---- */

static void put_measured(json_t *o, const char *key, const char *metric, double value)
{
    json_t *m = json_object();
    cli_json_text(m, "metric", metric);
    cli_json_real(m, "value", value);
    cli_json_put(o, key, m);
}

static void put_stages(json_t *o, const sfq_compress_result *r)
{
    json_t *stages = json_array();
    for (int i = 0; i < r->stage_count; i++) {
        json_t *stage = json_object();
        cli_json_text(stage, "name", r->stages[i].name);
        cli_json_real(stage, "seconds", r->stages[i].seconds);
        cli_json_real(stage, "loss", r->stages[i].loss);
        cli_json_int(stage, "steps", (uint64_t)r->stages[i].steps);
        cli_json_append(stages, stage);
    }
    cli_json_put(o, "stages", stages);
}

static void put_sizes(json_t *o, const sfq_compress_result *r)
{
    json_t *pruned = json_object();
    cli_json_text(o, "recipe", r->recipe);
    cli_json_int(o, "original_bytes", r->original_bytes);
    cli_json_int(o, "bytes", r->bytes);
    cli_json_real(o, "reduction", r->reduction);
    cli_json_real(o, "scale_overhead", r->scale_overhead);
    cli_json_int(pruned, "heads", (uint64_t)r->pruned_heads);
    cli_json_int(pruned, "neurons", (uint64_t)r->pruned_neurons);
    cli_json_real(pruned, "fraction", r->pruned_fraction);
    cli_json_put(o, "pruned", pruned);
}

static json_t *plan_object(const sfq_compress_result *r)
{
    json_t *o = cli_json_open(), *plan = json_object();
    put_sizes(o, r);
    cli_json_int(plan, "memory_bytes", r->plan_memory_bytes);
    cli_json_int(plan, "disk_bytes", r->plan_disk_bytes);
    cli_json_real(plan, "seconds", r->plan_seconds);
    cli_json_put(o, "plan", plan);
    return o;
}

static json_t *result_object(const sfq_compress_result *r)
{
    json_t *o = cli_json_open(), *calibration = json_object();
    cli_json_text(o, "output", r->output);
    put_sizes(o, r);
    cli_json_int(calibration, "sequences", r->calibration_sequences);
    cli_json_int(calibration, "tokens", r->calibration_tokens);
    cli_json_real(calibration, "fraction", r->calibration_fraction);
    cli_json_put(o, "calibration", calibration);
    put_stages(o, r);
    if (r->measured) {
        put_measured(o, "baseline", r->metric, r->baseline);
        put_measured(o, "compressed", r->metric, r->compressed);
        cli_json_real(o, "drop", r->drop);
    } else {
        cli_json_put(o, "baseline", json_null());
        cli_json_put(o, "compressed", json_null());
        cli_json_put(o, "drop", json_null());
    }
    cli_json_real(o, "seconds", r->seconds);
    cli_json_text(o, "stopped_by", r->stopped_by);
    return o;
}

/* ---- text ---- */

static void print_sizes(const sfq_compress_result *r)
{
    cli_text a, b, c;
    cli_outf("  size    %s -> %s (%s)\n", cli_bytes(&a, r->original_bytes), cli_bytes(&b, r->bytes),
             cli_reduction(&c, r->reduction));
    cli_outf("  scales  %.3f %% of the quantized weights\n", 100 * r->scale_overhead);
    if (r->pruned_heads > 0 || r->pruned_neurons > 0)
        cli_outf("  pruned  %d heads, %d neurons (%.1f %% of the blocks)\n", r->pruned_heads,
                 r->pruned_neurons, 100 * r->pruned_fraction);
}

static void print_plan(const sfq_compress_result *r)
{
    cli_text text;
    cli_outf("plan (nothing written)\n");
    print_sizes(r);
    cli_outf("  memory  %s\n", cli_bytes(&text, r->plan_memory_bytes));
    cli_outf("  disk    %s\n", cli_bytes(&text, r->plan_disk_bytes));
    cli_outf("  time    about %s\n", cli_time(&text, r->plan_seconds));
}

/* The stages that left a held-out loss: what each cost or gave back. */
static void print_stages(cli_context *cli, const sfq_compress_result *r)
{
    cli_table table = {.columns = 4, .left = 1, .arena = cli->arena};
    cli_text text;
    bool any = false;
    cli_table_cell(&table, "  stage");
    cli_table_cell(&table, "time");
    cli_table_cell(&table, "steps");
    cli_table_cell(&table, "held-out loss");
    for (int i = 0; i < r->stage_count; i++) {
        const sfq_stage_report *stage = &r->stages[i];
        if (!isfinite(stage->loss))
            continue;
        any = true;
        cli_table_cell(&table, "  %s", stage->name);
        cli_table_cell(&table, "%s", cli_time(&text, stage->seconds));
        if (stage->steps > 0)
            cli_table_cell(&table, "%d", stage->steps);
        else
            cli_table_cell(&table, "%s", "");
        cli_table_cell(&table, "%.4g", stage->loss);
    }
    if (any)
        cli_table_print(&table);
}

static void print_result(cli_context *cli, const sfq_compress_result *r)
{
    cli_text text;
    cli_outf("%s\n", r->output);
    print_sizes(r);
    if (r->calibration_sequences > 0) {
        cli_outf("  data    %llu sequences, %s tokens",
                 (unsigned long long)r->calibration_sequences,
                 cli_count(&text, (double)r->calibration_tokens));
        if (r->calibration_fraction > 0)
            cli_outf(" (%.2g %% of it)\n", 100 * r->calibration_fraction);
        else
            cli_outf(" (sampled)\n");
    }
    if (r->measured)
        cli_outf("  %-7s %.4f -> %.4f (drop %.3f%s)\n", r->metric, r->baseline, r->compressed,
                 r->drop, strcmp(r->metric, "perplexity") == 0 ? " %" : " points");
    cli_outf("  time    %s%s\n", cli_time(&text, r->seconds),
             strcmp(r->stopped_by, "time") == 0 ? ", stopped by the time limit" : "");
    print_stages(cli, r);
}

static sfq_status run(cli_context *cli, void *arguments, sfq_error *err)
{
    compress_args *args = arguments;
    sfq_compress_result result = {0};
    SFQ_TRY(complete(cli, args, err));
    if (args->plan) {
        SFQ_TRY(sfq_compress_plan(&args->o, &result, err));
        json_t *o = args->common.json ? plan_object(&result) : NULL;
        if (o)
            return cli_json_print(&o, err);
        print_plan(&result);
        return SFQ_OK;
    }
    sfq_status status = sfq_compress(&args->o, &result, err);
    cli_progress_close(&cli->progress);
    if (status != SFQ_OK && status != SFQ_E_GUARD)
        return status;
    if (!args->common.json) {
        print_result(cli, &result);
        return status;
    }
    json_t *o = result_object(&result);
    if (status == SFQ_E_GUARD)
        cli_json_error(o, err);
    cli->answered = true;
    SFQ_TRY(cli_json_print(&o, err));
    return status;
}

static const char *const synopsis[] = {
    "MODEL -o DIR --task NAME --data DIR [--prune P] [--bits B] [--embedding-bits B]",
    "MODEL -o DIR [--text FILE...] [--prune P] [--bits B] [--embedding-bits B]",
    "MODEL -o DIR --prune 0 --steps 0 [--bits B] [--embedding-bits B] [--bits-for REGEX=B]",
    "MODEL --plan",
    NULL,
};
static const cli_example examples[] = {
    {"sfq compress models/sst2-tiny -o small --task sst2 --data glue/SST-2 --embedding-bits 4",
     "an encoder: prune 40 %, fuse, recalibrate; with the accuracy before and after"},
    {"sfq compress models/novels-5m -o small --prune 0.2 --text novels.txt",
     "a language model on text, with the perplexity of a part set aside"},
    {"sfq compress models/novels-5m -o small --prune 0.2 --minutes 10",
     "a language model without data: it samples its own text"},
    {"sfq compress models/novels-5m -o small --prune 0 --steps 0 --bits 6 --bits-for down_proj=8",
     "no data needed: nothing pruned, 6 bits, but 8 for one kind of matrix"},
    {"sfq compress models/novels-5m --prune 0.2 --plan", "what it would take"},
    {NULL, NULL},
};

const cli_verb cli_verb_compress = {
    .name = "compress",
    .summary = "turn a checkpoint into a smaller, faster one",
    .synopsis = synopsis,
    .examples = examples,
    .description =
        "Removes whole attention heads and FFN neurons (--prune), lets groups of weights share one "
        "scale (--bits), and recalibrates what is left on a small part of the data (--steps). "
        "Encoders need data; language models without --text sample their own. With --prune 0 "
        "--steps 0 no data is used. The dev split is read for the two figures only.\n\n"
        "Writes a Hugging Face model directory with packed weights, checksums, a report "
        "(sfq_report.json) and a model card. It appears at once or not at all; memory and disk "
        "are checked before starting. The same input, options and seed give the same bytes at any "
        "thread count. An interrupted run leaves DIR.work, from which the same command goes on "
        "to the same bytes.\n\n"
        "JSON: output, recipe, original_bytes, bytes, reduction, scale_overhead, pruned, "
        "calibration, stages, baseline, compressed, drop, seconds, stopped_by. With --plan: the "
        "sizes, and plan{memory_bytes, disk_bytes, seconds}.",
    .options = options,
    .words = "MODEL",
    .words_min = 1,
    .words_max = 4096,
    .args_bytes = sizeof(compress_args),
    .defaults = defaults,
    .run = run,
};

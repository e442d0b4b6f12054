/* export - from an artifact back to a plain checkpoint that other programs load. */
#include "program.h"

typedef struct export_args {
    cli_common common;
    sfq_export_options o;
} export_args;

static const cli_option options[] = {
    {"output", 'o', CLI_TEXT, offsetof(export_args, o.output), 0, 0, "DIR",
     "where the checkpoint goes; must not exist", NULL},
    {"format", 0, CLI_TEXT, offsetof(export_args, o.format), 0, 0, "NAME",
     "what to write: dense, a 16-bit Hugging Face checkpoint", NULL},
    {"threads", 0, CLI_INT, offsetof(export_args, o.threads), 0, 256, "N", CLI_THREADS_HELP, NULL},
    {"force", 0, CLI_FLAG, offsetof(export_args, o.force), 0, 0, NULL,
     "replace an output that exists", NULL},
    CLI_COMMON_OPTIONS};

static void defaults(void *arguments)
{
    sfq_export_options_default(&((export_args *)arguments)->o);
}

static sfq_status print_json(const export_args *args, const sfq_export_result *r, sfq_error *err)
{
    json_t *o = cli_json_open();
    cli_json_text(o, "output", r->output);
    cli_json_text(o, "format", args->o.format);
    cli_json_int(o, "bytes", r->bytes);
    cli_json_int(o, "parameters", r->parameters);
    cli_json_int(o, "heads", (uint64_t)r->heads);
    cli_json_int(o, "kv_heads", (uint64_t)r->kv_heads);
    cli_json_int(o, "ffn", (uint64_t)r->ffn);
    cli_json_bool(o, "padded", r->padded);
    return cli_json_print(&o, err);
}

static void print_text(const sfq_export_result *r)
{
    cli_text a, b;
    cli_outf("%s\n", r->output);
    cli_outf("  size    %s, %s parameters\n", cli_bytes(&a, r->bytes),
             cli_count(&b, (double)r->parameters));
    cli_outf("  widths  %d heads, %d KV heads, %d neurons in every layer%s\n", r->heads,
             r->kv_heads, r->ffn, r->padded ? " (narrower ones padded with zeros)" : "");
}

static sfq_status run(cli_context *cli, void *arguments, sfq_error *err)
{
    export_args *args = arguments;
    sfq_export_result result;
    if (args->o.output == NULL)
        return sfq_fail(err, SFQ_E_ARGUMENT, "export: -o DIR is missing (sfq export --help)");
    args->o.model = cli->words.items[0];
    args->o.hooks = cli_progress_hooks(&cli->progress);
    SFQ_TRY(sfq_export(&args->o, &result, err));
    cli_progress_close(&cli->progress);
    if (args->common.json)
        return print_json(args, &result, err);
    print_text(&result);
    return SFQ_OK;
}

static const char *const synopsis[] = {"MODEL -o DIR [--format dense] [--force] [--json]", NULL};
static const cli_example examples[] = {
    {"sfq export small -o plain", "a checkpoint that Transformers loads without sfq"},
    {"sfq export small -o plain --force", "the same, over an earlier one"},
    {NULL, NULL},
};

const cli_verb cli_verb_export = {
    .name = "export",
    .summary = "write a compressed model as a plain checkpoint",
    .synopsis = synopsis,
    .examples = examples,
    .description =
        "Decodes the weights and writes them as 16-bit safetensors under the family's own names, "
        "with a plain config.json; tokenizer and settings are copied. Checksums are verified "
        "first. Layers of different widths get units of zeros up to the widest one, which changes "
        "nothing that the model computes: programs that know one width per model load it. So an "
        "exported model is as large as its widest layer; compress with --uniform to pad "
        "nothing.\n\n"
        "JSON: output, format, bytes, parameters, heads, kv_heads, ffn, padded.",
    .options = options,
    .words = "MODEL",
    .words_min = 1,
    .words_max = 1,
    .args_bytes = sizeof(export_args),
    .defaults = defaults,
    .run = run,
};

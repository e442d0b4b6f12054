/* inspect - what a model directory holds: sizes, layers, bits; with --verify also that every byte
 * is what was written. */
#include "program.h"

#include <math.h>

typedef struct inspect_args {
    cli_common common;
    bool verify;
} inspect_args;

static const cli_option options[] = {
    {"verify", 0, CLI_FLAG, offsetof(inspect_args, verify), 0, 0, NULL,
     "read everything: checksums of an artifact, no NaN or infinity", NULL},
    CLI_COMMON_OPTIONS};

static sfq_status put_layers(json_t *object, const sfq_model *model, int count, sfq_error *err)
{
    json_t *layers = json_array();
    sfq_status status = SFQ_OK;
    for (int i = 0; i < count && status == SFQ_OK; i++) {
        sfq_layer_info layer;
        status = sfq_model_layer_get(model, i, &layer, err);
        if (status != SFQ_OK)
            break;
        json_t *entry = json_object();
        cli_json_int(entry, "heads", (uint64_t)layer.heads);
        cli_json_int(entry, "kv_heads", (uint64_t)layer.kv_heads);
        cli_json_int(entry, "ffn", (uint64_t)layer.ffn);
        cli_json_real(entry, "bits", layer.bits);
        cli_json_append(layers, entry);
    }
    cli_json_put(object, "layers", layers);
    return status;
}

static sfq_status print_json(const sfq_model *model, const sfq_model_info *m, bool verified,
                             sfq_error *err)
{
    json_t *o = cli_json_open();
    cli_json_text(o, "path", m->path);
    cli_json_text(o, "architecture", m->architecture);
    cli_json_text(o, "family", m->family);
    cli_json_text(o, "head", sfq_head_kind_name(m->head));
    cli_json_bool(o, "compressed", m->compressed);
    cli_json_int(o, "parameters", m->parameters);
    cli_json_int(o, "bytes", m->bytes);
    cli_json_real(o, "bits_per_parameter", m->bits_per_parameter);
    cli_json_int(o, "original_parameters", m->original_parameters);
    cli_json_int(o, "original_bytes", m->original_bytes);
    cli_json_real(o, "reduction", m->reduction);
    cli_json_real(o, "scale_overhead", m->scale_overhead);
    cli_json_int(o, "macs_per_token", m->macs_per_token);
    cli_json_int(o, "activation_bits", (uint64_t)m->activation_bits);
    cli_json_int(o, "vocab", (uint64_t)m->vocab);
    cli_json_int(o, "max_positions", (uint64_t)m->max_positions);
    cli_json_bool(o, "verified", verified);
    sfq_status status = put_layers(o, model, m->layers, err);
    if (status != SFQ_OK) {
        json_decref(o);
        return status;
    }
    return cli_json_print(&o, err);
}

static bool same_layer(const sfq_layer_info *a, const sfq_layer_info *b)
{
    return a->heads == b->heads && a->kv_heads == b->kv_heads && a->ffn == b->ffn &&
           fabs(a->bits - b->bits) < 0.005;
}

/* One row for each run of equal layers. */
static sfq_status print_layers(cli_context *cli, const sfq_model *model, int count, sfq_error *err)
{
    cli_table table = {.columns = 5, .left = 1, .arena = cli->arena};
    sfq_layer_info first = {0}, layer;
    int begin = 0;
    cli_table_cell(&table, "layers");
    cli_table_cell(&table, "heads");
    cli_table_cell(&table, "kv heads");
    cli_table_cell(&table, "ffn");
    cli_table_cell(&table, "bits");
    for (int i = 0; i <= count; i++) {
        if (i < count)
            SFQ_TRY(sfq_model_layer_get(model, i, &layer, err));
        if (i > 0 && (i == count || !same_layer(&first, &layer))) {
            if (begin == i - 1)
                cli_table_cell(&table, "%d", begin);
            else
                cli_table_cell(&table, "%d-%d", begin, i - 1);
            cli_table_cell(&table, "%d", first.heads);
            cli_table_cell(&table, "%d", first.kv_heads);
            cli_table_cell(&table, "%d", first.ffn);
            cli_table_cell(&table, "%.2f", first.bits);
        }
        if (i == 0 || (i < count && !same_layer(&first, &layer))) {
            first = layer;
            begin = i;
        }
    }
    cli_table_print(&table);
    return SFQ_OK;
}

static sfq_status print_text(cli_context *cli, const sfq_model *model, const sfq_model_info *m,
                             bool verified, sfq_error *err)
{
    cli_text a, b, c;
    cli_outf("%s\n", m->path);
    cli_outf("  %s (%s, %s), %s\n", m->architecture, m->family, sfq_head_kind_name(m->head),
             m->compressed ? "compressed by sfq" : "not compressed");
    cli_outf("  parameters   %s", cli_count(&a, (double)m->parameters));
    if (m->parameters != m->original_parameters)
        cli_outf(" of %s", cli_count(&b, (double)m->original_parameters));
    cli_outf(", vocabulary %d, positions %d\n", m->vocab, m->max_positions);
    cli_outf("  size         %s, 16-bit original %s: %s, %.2f bits per parameter\n",
             cli_bytes(&a, m->bytes), cli_bytes(&b, m->original_bytes),
             cli_reduction(&c, m->reduction), m->bits_per_parameter);
    if (m->compressed)
        cli_outf("  scales       %.3f %% of the quantized weights; activations %d bits\n",
                 100 * m->scale_overhead, m->activation_bits);
    cli_outf("  work         %s multiply-adds per token\n\n",
             cli_count(&a, (double)m->macs_per_token));
    SFQ_TRY(print_layers(cli, model, m->layers, err));
    if (verified)
        cli_outf("\nverified: every byte read, nothing wrong\n");
    return SFQ_OK;
}

static sfq_status run(cli_context *cli, void *arguments, sfq_error *err)
{
    const inspect_args *args = arguments;
    sfq_model *model = NULL;
    sfq_model_info info;
    sfq_status status;
    SFQ_DO(cli_model_open(cli, &model, cli->words.items[0],
                          (sfq_model_options){.header_only = true}, err));
    SFQ_DO(sfq_model_info_get(model, &info, err));
    if (args->verify) {
        sfq_hooks hooks = cli_progress_hooks(&cli->progress);
        SFQ_DO(sfq_model_verify(model, &hooks, err));
        cli_progress_close(&cli->progress);
    }
    if (args->common.json)
        status = print_json(model, &info, args->verify, err);
    else
        status = print_text(cli, model, &info, args->verify, err);
done:
    sfq_model_close(&model);
    return status;
}

static const char *const synopsis[] = {"MODEL [--verify] [--json]", NULL};
static const cli_example examples[] = {
    {"sfq inspect models/novels-5m", "sizes, layers and bits of a model"},
    {"sfq inspect small --verify", "the same, after reading every byte against its checksum"},
    {NULL, NULL},
};

const cli_verb cli_verb_inspect = {
    .name = "inspect",
    .summary = "describe a model: size, layers, bits, whether it is intact",
    .synopsis = synopsis,
    .examples = examples,
    .description =
        "Reads the header, sizes and extents of a model directory, compressed or not. The size "
        "counts all weight files; the original size is 16 bits for each original parameter.\n\n"
        "JSON: architecture, parameters, bytes, bits_per_parameter, original_parameters, "
        "original_bytes, reduction, scale_overhead, macs_per_token, layers[{heads, kv_heads, ffn, "
        "bits}].",
    .options = options,
    .words = "MODEL",
    .words_min = 1,
    .words_max = 1,
    .args_bytes = sizeof(inspect_args),
    .run = run,
};

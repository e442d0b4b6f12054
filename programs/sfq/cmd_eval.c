/* eval - how good a model is: a task's metric or perplexity, and the distance to another model. */
#include "program.h"

#include <math.h>

typedef struct eval_args {
    cli_common common;
    sfq_eval_options o;
    cli_list text;
    const char *against;
    sfq_model_options model; /* of MODEL; --against takes the threads alone */
} eval_args;

static const cli_option options[] = {
    {"task", 0, CLI_TEXT, offsetof(eval_args, o.task), 0, 0, "NAME",
     "sst2 mrpc stsb cola rte wnli qnli mnli qqp, or a name for your own data", NULL},
    {"data", 0, CLI_TEXT, offsetof(eval_args, o.data), 0, 0, "DIR",
     "directory with dev.tsv (GLUE layout), dev.jsonl or dev.csv", NULL},
    {"split", 0, CLI_TEXT, offsetof(eval_args, o.split), 0, 0, "NAME", "the file to read", NULL},
    {"text", 0, CLI_LIST, offsetof(eval_args, text), 0, 0, "FILE",
     "perplexity on this file, as one string", NULL},
    {"context", 0, CLI_INT, offsetof(eval_args, o.context), 0, 1 << 24, "N",
     "tokens per chunk of text; 0: the model's positions, at most 2048", NULL},
    {"against", 0, CLI_TEXT, offsetof(eval_args, against), 0, 0, "MODEL",
     "reference for KL divergence, same top-1 and flipped answers", NULL},
    {"threads", 0, CLI_INT, offsetof(eval_args, model.threads), 0, 256, "N", CLI_THREADS_HELP,
     NULL},
    {"kv-bits", 0, CLI_INT, offsetof(eval_args, model.kv_bits), 0, 32, "B", CLI_KV_BITS_HELP, NULL},
    CLI_COMMON_OPTIONS};

static void defaults(void *arguments)
{
    sfq_eval_options_default(&((eval_args *)arguments)->o);
}

/* Values and vectors are no distributions: null. */
static void put_comparison(json_t *o, const sfq_eval_result *r)
{
    cli_json_real(o, "kl_mean", r->compared ? r->kl_mean : NAN);
    cli_json_real(o, "kl_p999", r->compared ? r->kl_p999 : NAN);
    cli_json_real(o, "same_top1", r->compared ? r->same_top1 : NAN);
    if (r->compared)
        cli_json_int(o, "flips", r->flips);
    else
        cli_json_put(o, "flips", json_null());
}

static sfq_status print_json(const sfq_eval_result *r, bool against, sfq_error *err)
{
    json_t *o = cli_json_open();
    if (r->task) {
        json_t *metrics = json_object();
        for (int i = 0; i < r->metric_count; i++)
            cli_json_real(metrics, r->metrics[i].name, r->metrics[i].value);
        cli_json_text(o, "task", r->task);
        cli_json_text(o, "metric", r->metric);
        cli_json_real(o, "value", r->value);
        cli_json_put(o, "metrics", metrics);
        cli_json_int(o, "n", r->n);
    } else {
        cli_json_real(o, "perplexity", r->perplexity);
        cli_json_real(o, "nll", r->nll);
        cli_json_int(o, "tokens", r->tokens);
    }
    if (against)
        put_comparison(o, r);
    cli_json_text(o, "isa", r->isa);
    cli_json_int(o, "activation_bits", (uint64_t)r->activation_bits);
    cli_json_real(o, "seconds", r->seconds);
    return cli_json_print(&o, err);
}

static void print_text(const sfq_eval_result *r)
{
    cli_text time;
    if (r->task) {
        for (int i = 0; i < r->metric_count; i++)
            cli_outf("%-12s %.4f\n", r->metrics[i].name, r->metrics[i].value);
        cli_outf("%-12s %llu\n", "examples", (unsigned long long)r->n);
    } else {
        cli_outf("%-12s %.4f\n%-12s %.5f\n%-12s %llu\n", "perplexity", r->perplexity, "nll", r->nll,
                 "tokens", (unsigned long long)r->tokens);
    }
    if (r->compared)
        cli_outf("%-12s %.6f\n%-12s %.6f\n%-12s %.2f %%\n%-12s %llu\n", "KL mean", r->kl_mean,
                 "KL 99.9 %", r->kl_p999, "same top-1", 100 * r->same_top1, "flips",
                 (unsigned long long)r->flips);
    cli_outf("%-12s %s, activations %d bits, %s\n", "computed", r->isa, r->activation_bits,
             cli_time(&time, r->seconds));
}

static sfq_status check(const eval_args *args, sfq_error *err)
{
    bool task = args->o.task != NULL, text = args->text.count > 0;
    if (task == text)
        return sfq_fail(
            err, SFQ_E_ARGUMENT,
            "eval: give either --task NAME --data DIR or --text FILE (sfq eval --help)");
    if (task && args->o.data == NULL)
        return sfq_fail(err, SFQ_E_ARGUMENT, "eval: --task needs --data DIR (sfq eval --help)");
    if (text && args->o.data)
        return sfq_fail(err, SFQ_E_ARGUMENT, "eval: --data goes with --task, not with --text");
    return SFQ_OK;
}

static sfq_status run(cli_context *cli, void *arguments, sfq_error *err)
{
    eval_args *args = arguments;
    sfq_model *model = NULL, *against = NULL;
    sfq_eval_result result;
    sfq_status status;
    SFQ_DO(check(args, err));
    SFQ_DO(cli_model_open(cli, &model, cli->words.items[0], args->model, err));
    if (args->against)
        SFQ_DO(cli_model_open(cli, &against, args->against,
                              (sfq_model_options){.threads = args->model.threads}, err));
    args->o.text_files = args->text.items;
    args->o.text_count = args->text.count;
    args->o.against = against;
    args->o.hooks = cli_progress_hooks(&cli->progress);
    SFQ_DO(sfq_evaluate(model, &args->o, &result, err));
    cli_progress_close(&cli->progress);
    if (args->common.json)
        status = print_json(&result, against != NULL, err);
    else
        print_text(&result);
done:
    sfq_model_close(&against);
    sfq_model_close(&model);
    return status;
}

static const char *const synopsis[] = {
    "MODEL --task NAME --data DIR [--split dev] [--against MODEL]",
    "MODEL --text FILE [--context N] [--against MODEL]",
    NULL,
};
static const cli_example examples[] = {
    {"sfq eval models/sst2-tiny --task sst2 --data glue/SST-2", "accuracy on the dev split"},
    {"sfq eval small --text book.txt --against models/novels-5m",
     "perplexity, and how far the small model is from the large one"},
    {NULL, NULL},
};

const cli_verb cli_verb_eval = {
    .name = "eval",
    .summary = "measure accuracy or perplexity, and the distance to another model",
    .synopsis = synopsis,
    .examples = examples,
    .description =
        "Tasks are read in GLUE's own layouts, or as jsonl or csv with text, text_pair and label. "
        "Metrics: accuracy; mrpc and qqp also F1; cola Matthews; stsb Pearson and Spearman. Text "
        "is tokenized once without special tokens and cut into chunks of N-1 tokens, each behind "
        "a begin-of-text token (models without one: N tokens, the first not scored). Logarithms "
        "are natural.\n\n"
        "JSON: task, metric, value, metrics, n; or perplexity, nll, tokens; with --against "
        "kl_mean, kl_p999, same_top1, flips (null where the answers are values or vectors); "
        "always isa, activation_bits.",
    .options = options,
    .words = "MODEL",
    .words_min = 1,
    .words_max = 1,
    .args_bytes = sizeof(eval_args),
    .defaults = defaults,
    .run = run,
};

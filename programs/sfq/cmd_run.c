/* run - one input through a model: text for a language model (printed as it comes), label and score
 * for a classifier, the vector for an embedder. */
#include "program.h"
#include "signals.h"

#include <string.h>

typedef struct run_args {
    cli_common common;
    cli_source source;
    const char *pair;
    sfq_generate_options o;
    cli_list stop;
    sfq_model_options model;
} run_args;

static const cli_option options[] = {
    {"prompt", 'p', CLI_TEXT, offsetof(run_args, source.text), 0, 0, "TEXT", "the input itself",
     NULL},
    {"pair", 0, CLI_TEXT, offsetof(run_args, pair), 0, 0, "TEXT",
     "second text of a pair, for classifiers", NULL},
    {"file", 0, CLI_TEXT, offsetof(run_args, source.file), 0, 0, "FILE",
     "the input is this whole file", NULL},
    {"tokens", 'n', CLI_INT, offsetof(run_args, o.max_tokens), 1, 1 << 24, "N",
     "tokens to generate at most", NULL},
    {"temperature", 0, CLI_FLOAT, offsetof(run_args, o.sampling.temperature), 0, 100, "T",
     "0: the likeliest token each time; 1: as the model has it", NULL},
    {"top-k", 0, CLI_INT, offsetof(run_args, o.sampling.top_k), 0, 1 << 24, "K",
     "sample among the K likeliest; 0: all", NULL},
    {"top-p", 0, CLI_FLOAT, offsetof(run_args, o.sampling.top_p), 0, 1, "P",
     "sample among the likeliest that reach this probability together; 1: all", NULL},
    {"seed", 0, CLI_U64, offsetof(run_args, o.sampling.seed), 0, 0, "S",
     "of sampling; the same seed gives the same text", NULL},
    {"stop", 0, CLI_LIST, offsetof(run_args, stop), 0, 0, "TEXT", "end before this text appears",
     NULL},
    {"ignore-eos", 0, CLI_FLAG, offsetof(run_args, o.ignore_eos), 0, 0, NULL,
     "go on behind the model's end tokens", NULL},
    {"threads", 0, CLI_INT, offsetof(run_args, model.threads), 0, 256, "N", CLI_THREADS_HELP, NULL},
    {"kv-bits", 0, CLI_INT, offsetof(run_args, model.kv_bits), 0, 32, "B", CLI_KV_BITS_HELP, NULL},
    {"huge-pages", 0, CLI_FLAG, offsetof(run_args, model.huge_pages), 0, 0, NULL,
     CLI_HUGE_PAGES_HELP, NULL},
    CLI_COMMON_OPTIONS};

static void defaults(void *arguments)
{
    sfq_generate_options_default(&((run_args *)arguments)->o);
}

/* ---- language models ---- */

static bool stream(void *ud, const char *text, size_t bytes)
{
    char *last = ud;
    if (bytes > 0)
        *last = text[bytes - 1];
    return cli_out_foreign(text, bytes) && cli_out_flush();
}

static json_t *numbers(const int32_t *ids, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        cli_json_append(list, json_integer(ids[i]));
    return list;
}

static sfq_status print_generation(const sfq_generation *g, sfq_error *err)
{
    json_t *o = cli_json_open();
    cli_json_put(o, "text", json_stringn(g->text ? g->text : "", g->text_bytes));
    cli_json_int(o, "tokens", g->token_count);
    cli_json_put(o, "ids", numbers(g->tokens, g->token_count));
    cli_json_int(o, "prompt_tokens", g->prompt_tokens);
    cli_json_text(o, "finish", g->finish);
    cli_json_real(o, "prefill_seconds", g->prefill_seconds);
    cli_json_real(o, "decode_seconds", g->decode_seconds);
    return cli_json_print(&o, err);
}

static sfq_status generate(run_args *args, sfq_model *model, const sfq_buf *text, sfq_error *err)
{
    sfq_generation answer = {0};
    char last = '\n';
    if (args->pair)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "run: --pair is for classifiers; this model "
                        "generates text");
    args->o.stop = args->stop.items;
    args->o.stop_count = args->stop.count;
    if (!args->common.json) {
        args->o.on_text = stream;
        args->o.on_text_ud = &last;
    }
    sfq_status status = sfq_generate(model, text->data, text->len, &args->o, &answer, err);
    if (!args->common.json && last != '\n')
        cli_out_text("\n", 1);
    if (status == SFQ_OK && args->common.json && !cli_signals_cancelled())
        status = print_generation(&answer, err);
    sfq_generation_clear(&answer);
    return status;
}

/* ---- classifiers and regression ---- */

static sfq_status print_scores(const sfq_model *model, const float *scores, int count, int best,
                               sfq_error *err)
{
    json_t *o = cli_json_open(), *list = json_array(), *labels = json_array();
    cli_json_text(o, "label", sfq_model_label(model, best));
    for (int i = 0; i < count; i++) {
        const char *label = sfq_model_label(model, i);
        cli_json_append(list, json_real((double)scores[i]));
        cli_json_append(labels, label ? json_string(label) : json_null());
    }
    cli_json_put(o, "scores", list);
    cli_json_put(o, "labels", labels);
    return cli_json_print(&o, err);
}

static sfq_status classify(const run_args *args, sfq_model *model, const sfq_model_info *info,
                           const sfq_text_pair *input, sfq_error *err)
{
    int labels = info->labels > 0 ? info->labels : 1, best = 0;
    float *scores = SFQ_NEW_ARRAY(float, (size_t)labels); /* [labels] */
    if (scores == NULL)
        return sfq_fail_memory(err, (size_t)labels * sizeof *scores, "the scores");
    sfq_status status = sfq_classify(model, input, 1, scores, err);
    for (int i = 1; i < labels; i++)
        best = scores[i] > scores[best] ? i : best;
    if (status == SFQ_OK && args->common.json) {
        status = print_scores(model, scores, labels, best, err);
    } else if (status == SFQ_OK && info->head == SFQ_HEAD_REGRESSION) {
        for (int i = 0; i < labels; i++)
            cli_outf("%.4f%s", (double)scores[i], i + 1 < labels ? " " : "\n");
    } else if (status == SFQ_OK) {
        const char *label = sfq_model_label(model, best);
        cli_out_foreign(label ? label : "?", label ? strlen(label) : 1);
        cli_outf(" %.4f\n", (double)scores[best]);
    }
    sfq_mem_free(scores);
    return status;
}

/* ---- embedders ---- */

static sfq_status embed(const run_args *args, sfq_model *model, const sfq_text_pair *input,
                        sfq_error *err)
{
    int width = sfq_model_width(model);
    float *vector = SFQ_NEW_ARRAY(float, (size_t)width); /* [D] */
    if (vector == NULL)
        return sfq_fail_memory(err, (size_t)width * sizeof *vector, "the vector");
    sfq_status status = sfq_embed(model, input, 1, vector, err);
    if (status == SFQ_OK && args->common.json) {
        json_t *o = cli_json_open(), *list = json_array();
        for (int i = 0; i < width; i++)
            cli_json_append(list, json_real((double)vector[i]));
        cli_json_put(o, "embedding", list);
        status = cli_json_print(&o, err);
    } else if (status == SFQ_OK) {
        for (int i = 0; i < width; i++)
            cli_outf("%.7g%s", (double)vector[i], i + 1 < width ? " " : "\n");
    }
    sfq_mem_free(vector);
    return status;
}

/* ---- the verb ---- */

static sfq_status run(cli_context *cli, void *arguments, sfq_error *err)
{
    run_args *args = arguments;
    sfq_model *model = NULL;
    sfq_model_info info;
    sfq_buf text = SFQ_BUF_INIT(0);
    sfq_status status;
    SFQ_TRY(cli_source_word(cli, &args->source, err));
    SFQ_DO(cli_source_read(cli, &args->source, &text, err));
    SFQ_DO(cli_model_open(cli, &model, cli->words.items[0], args->model, err));
    SFQ_DO(sfq_model_info_get(model, &info, err));
    sfq_text_pair input = {text.data, text.len, args->pair, args->pair ? strlen(args->pair) : 0};
    args->o.hooks = cli_quiet_hooks(&cli->progress);
    if (info.head == SFQ_HEAD_LM)
        status = generate(args, model, &text, err);
    else if (info.head == SFQ_HEAD_EMBEDDING)
        status = embed(args, model, &input, err);
    else
        status = classify(args, model, &info, &input, err);
    if (status == SFQ_E_DATA)
        sfq_error_locate(err, args->source.file, NULL);
done:
    sfq_model_close(&model);
    sfq_buf_free(&text);
    return status;
}

static const char *const synopsis[] = {
    "MODEL (-p TEXT | --file FILE | -) [-n N] [--temperature T] [--stop TEXT]",
    "MODEL -p TEXT [--pair TEXT]",
    NULL,
};
static const cli_example examples[] = {
    {"sfq run models/novels-5m -p \"It was a dark and\" -n 100", "continue a text"},
    {"sfq run models/novels-5m -p \"Dear Sir\" --temperature 1 --seed 7 --stop CHAPTER",
     "sample a text; it ends before the word CHAPTER"},
    {"sfq run models/sst2-tiny -p \"a moving, honest film\"", "label and score of a classifier"},
    {"echo \"a dull film\" | sfq run models/sst2-tiny - --json", "input from a pipe, JSON out"},
    {NULL, NULL},
};

const cli_verb cli_verb_run = {
    .name = "run",
    .summary = "generate text, classify or embed one input",
    .synopsis = synopsis,
    .examples = examples,
    .description =
        "Language models: greedy unless --temperature is above 0; stops at every end token that "
        "the model's directory names. The text is printed as it comes. Classifiers print the "
        "label and its probability, regression heads the value, embedders the vector.\n\n"
        "JSON: text, tokens (their number) and ids; or label and scores (in the order of labels); "
        "or embedding.",
    .options = options,
    .words = "MODEL",
    .words_min = 1,
    .words_max = 2,
    .args_bytes = sizeof(run_args),
    .defaults = defaults,
    .run = run,
};

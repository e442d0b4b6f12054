/* tokenize - a text as the model's token ids, special tokens included. */
#include "program.h"

typedef struct tokenize_args {
    cli_common common;
    cli_source source;
} tokenize_args;

static const cli_option options[] = {{"prompt", 'p', CLI_TEXT, offsetof(tokenize_args, source.text),
                                      0, 0, "TEXT", "the text itself", NULL},
                                     {"file", 0, CLI_TEXT, offsetof(tokenize_args, source.file), 0,
                                      0, "FILE", "the text is this whole file, as one string",
                                      NULL},
                                     CLI_COMMON_OPTIONS};

static sfq_status print_ids(const tokenize_args *args, const int32_t *ids, size_t count,
                            sfq_error *err)
{
    if (!args->common.json) {
        for (size_t i = 0; i < count; i++)
            cli_outf("%d%s", ids[i], i + 1 < count ? " " : "");
        cli_outf("\n");
        return SFQ_OK;
    }
    json_t *object = cli_json_open(), *list = json_array();
    for (size_t i = 0; i < count; i++)
        cli_json_append(list, json_integer(ids[i]));
    cli_json_put(object, "ids", list);
    return cli_json_print(&object, err);
}

static sfq_status run(cli_context *cli, void *arguments, sfq_error *err)
{
    tokenize_args *args = arguments;
    sfq_buf text = SFQ_BUF_INIT(0);
    int32_t *ids = NULL;
    size_t count = 0;
    sfq_status status;
    SFQ_TRY(cli_source_word(cli, &args->source, err));
    SFQ_DO(cli_source_read(cli, &args->source, &text, err));
    status =
        sfq_tokenize(cli->words.items[0], text.data, text.len, NULL, 0, true, &ids, &count, err);
    if (status != SFQ_OK) {
        sfq_error_locate(err, args->source.file, NULL);
        goto done;
    }
    status = print_ids(args, ids, count, err);
done:
    sfq_release(ids);
    sfq_buf_free(&text);
    return status;
}

static const char *const synopsis[] = {"MODEL (-p TEXT | --file FILE | -) [--json]", NULL};
static const cli_example examples[] = {
    {"sfq tokenize models/novels-5m -p \"It was a dark night.\"", "the ids of a sentence"},
    {"sfq tokenize models/novels-5m --file book.txt | wc -w", "how many tokens a book has"},
    {NULL, NULL},
};

const cli_verb cli_verb_tokenize = {
    .name = "tokenize",
    .summary = "print the token ids of a text",
    .synopsis = synopsis,
    .examples = examples,
    .description =
        "Ids as the model's tokenizer.json gives them, with the special tokens that its "
        "post-processor adds; truncation and padding are ignored. MODEL needs no weights for "
        "this. The file is one string; text that is no UTF-8 is refused with its offset.\n\n"
        "JSON: ids.",
    .options = options,
    .words = "MODEL",
    .words_min = 1,
    .words_max = 2,
    .args_bytes = sizeof(tokenize_args),
    .run = run,
};

/* compress/card.c - README.md: what the artifact is, what it was made from, under which licence,
 * how large it is, and what was measured. Nothing that was not measured is claimed. */
#include "compress/report.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

enum { CARD_MAX = 1 << 20, LICENCE_MAX = 48 };

/* "license: apache-2.0" of the source card's front matter; "" when there is none. */
static void parse_licence(char out[LICENCE_MAX], const char *card)
{
    static const char key[] = "license:";
    out[0] = 0;
    if (strncmp(card, "---\n", 4) != 0)
        return;
    for (const char *line = card + 4; line != NULL && strncmp(line, "---", 3) != 0;) {
        if (strncmp(line, key, sizeof key - 1) == 0) {
            const char *value = line + sizeof key - 1;
            value += strspn(value, " \t\"'");
            size_t n = strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                     "0123456789.-_+");
            if (n < LICENCE_MAX) {
                memcpy(out, value, n);
                out[n] = 0;
            }
            return;
        }
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
}

static sfq_status read_licence(char out[LICENCE_MAX], const char *dir, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    sfq_buf card = SFQ_BUF_INIT(CARD_MAX);
    char *path = sfq_path_join(dir, "README.md");
    out[0] = 0;
    if (path == NULL)
        return sfq_fail_memory(err, strlen(dir), "a path");
    uint64_t size = 0;
    if (sfq_file_exists(path) && sfq_file_size(&size, path, NULL) == SFQ_OK && size < CARD_MAX) {
        SFQ_DO(sfq_file_read(&card, path, CARD_MAX, err));
        parse_licence(out, card.data);
    }
done:
    sfq_buf_free(&card);
    sfq_mem_free(path);
    return status;
}

static sfq_status find_licence_file(bool *found, const char *dir, sfq_error *err)
{
    static const char *const names[] = {"LICENSE", "LICENSE.txt", "LICENSE.md"};
    *found = false;
    for (size_t i = 0; i < sizeof names / sizeof *names && !*found; i++) {
        char *path = sfq_path_join(dir, names[i]);
        if (path == NULL)
            return sfq_fail_memory(err, strlen(dir), "a path");
        *found = sfq_file_exists(path);
        sfq_mem_free(path);
    }
    return SFQ_OK;
}

/* Text that can stand in quotes in YAML and in a table: quotes, bars, backslashes and what does not
 * print become '_'. */
static void make_plain(char *s)
{
    for (; *s != 0; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f || strchr("\"'\\|`<>", *s) != NULL)
            *s = '_';
}

static sfq_status add_head(sfq_buf *b, const char *title, const char *licence, bool pruned,
                           sfq_error *err)
{
    SFQ_TRY(sfq_buf_addf(b, err, "---\nbase_model: \"%s\"\n", title));
    if (licence[0] != 0)
        SFQ_TRY(sfq_buf_addf(b, err, "license: %s\n", licence));
    SFQ_TRY(sfq_buf_addf(b, err,
                         "tags:\n- sfq\n- quantized\n%s---\n\n# %s, compressed with SFQ\n\n",
                         pruned ? "- pruned\n" : "", title));
    return sfq_buf_addf(b, err,
                        "Made from `%s` by Sparse Fusion Quantization %s. Weights are stored as "
                        "integer codes; each "
                        "group of several hundred weights shares one scale.\n\n",
                        title, SFQ_VERSION_STRING);
}

/* The stored ones of the artifact. */
static unsigned long long parameters_of(const sfq_report *report)
{
    return (unsigned long long)json_integer_value(json_object_get(report->fused, "parameters"));
}

static sfq_status add_sizes(sfq_buf *b, const sfq_report *report, sfq_error *err)
{
    const sfq_compress_result *r = report->result;
    const double parameters = (double)report->source->original_parameters;
    SFQ_TRY(sfq_buf_addf(b, err, "| | original, 16 bit | this model |\n|---|---:|---:|\n"));
    SFQ_TRY(sfq_buf_addf(b, err, "| parameters | %llu | %llu |\n",
                         (unsigned long long)report->source->original_parameters,
                         parameters_of(report)));
    SFQ_TRY(sfq_buf_addf(b, err, "| bytes of weights | %llu | %llu |\n",
                         (unsigned long long)r->original_bytes, (unsigned long long)r->bytes));
    SFQ_TRY(sfq_buf_addf(b, err, "| bits per original parameter | 16 | %.3f |\n",
                         8.0 * (double)r->bytes / parameters));
    if (r->measured)
        SFQ_TRY(
            sfq_buf_addf(b, err, "| %s | %.6g | %.6g |\n", r->metric, r->baseline, r->compressed));
    SFQ_TRY(sfq_buf_addf(b, err,
                         "\nThe weights are %.1f %% smaller. Scales are %.3f %% of the quantized "
                         "weights by count.\n",
                         100 * r->reduction, 100 * r->scale_overhead));
    if (r->measured)
        return sfq_buf_addf(b, err, "Measured drop: %.4g %s.\n", r->drop,
                            strcmp(r->metric, "perplexity") == 0 ? "% of perplexity" : "points");
    return sfq_buf_addf(b, err, "No task was measured when this model was made.\n");
}

/* ---- how it was made ---- */

static sfq_status add_pruned(sfq_buf *b, const sfq_report *report, sfq_error *err)
{
    const sfq_prune_report *p = report->pruned;
    if (p == NULL)
        return sfq_buf_addf(b, err, "Nothing was pruned. ");
    return sfq_buf_addf(b, err,
                        "%d attention heads and %d FFN neurons were removed (%.1f %% of the "
                        "parameters of the blocks), in %d rounds, by %s saliency; %d of %d output "
                        "matrices were refitted. ",
                        p->heads, p->neurons, 100 * p->fraction, sfq_prune_rounds(report->options),
                        report->options->saliency, p->kept, p->solved);
}

static sfq_status add_calibration(sfq_buf *b, const sfq_report *report, sfq_error *err)
{
    const sfq_calibration *c = report->calibration;
    if (c == NULL)
        return sfq_buf_addf(b, err, "No data was used. ");
    SFQ_TRY(sfq_buf_addf(b, err, "Calibration data: %zu sequences, %llu tokens", c->count,
                         (unsigned long long)sfq_calibration_tokens(c)));
    if (strcmp(c->origin, "self") == 0)
        SFQ_TRY(sfq_buf_addf(b, err, ", sampled from the original model itself"));
    else
        SFQ_TRY(sfq_buf_addf(b, err, ", %.3g %% of %s", 100 * c->fraction,
                             strcmp(c->origin, "task") == 0 ? "the task's train split"
                                                            : "the given text"));
    return sfq_buf_addf(b, err,
                        "; %zu of the sequences were held out: they decided when to stop and what "
                        "to take back, and nothing else. ",
                        c->count - c->tune);
}

/* What a reader needs to know of a stage that has a loss. */
static const char *stage_title(const char *name)
{
    static const char *const titles[][2] = {{"prune", "after pruning"},
                                            {"reconstruct", "after refitting"},
                                            {"distill", "after distillation"},
                                            {"fuse", "quantized"},
                                            {"tune", "tuned"}};
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++)
        if (strcmp(titles[i][0], name) == 0)
            return titles[i][1];
    return name;
}

static sfq_status add_stages(sfq_buf *b, const sfq_report *report, sfq_error *err)
{
    const sfq_compress_result *r = report->result;
    const sfq_model_head head = report->source->arch->head;
    bool logits = head == SFQ_MODEL_HEAD_LM || head == SFQ_MODEL_HEAD_CLASSIFIER;
    bool any = false;
    for (int i = 0; i < r->stage_count; i++) {
        const sfq_stage_report *stage = &r->stages[i];
        if (!isfinite(stage->loss))
            continue;
        if (!any)
            SFQ_TRY(sfq_buf_addf(b, err,
                                 "\n\n| held-out sequences | %s | steps |\n|---|---:|---:|\n",
                                 logits ? "KL to the original, nats" : "squared distance"));
        any = true;
        SFQ_TRY(sfq_buf_addf(b, err, "| %s | %.4g | ", stage_title(stage->name), stage->loss));
        SFQ_TRY(stage->steps > 0 ? sfq_buf_addf(b, err, "%d |\n", stage->steps)
                                 : sfq_buf_addf(b, err, "|\n"));
    }
    return sfq_buf_addf(b, err, "\n");
}

static sfq_status add_method(sfq_buf *b, const sfq_report *report, sfq_error *err)
{
    const sfq_compress_options *o = report->options;
    SFQ_TRY(sfq_buf_addf(b, err,
                         "\n## How it was made\n\nRecipe `%s`: %d bits for the matrices, %d bits "
                         "for embeddings and language-model heads%s. ",
                         report->result->recipe, o->bits, o->embedding_bits,
                         o->keep_count + o->bits_for_count > 0
                             ? ", others for the tensors that `keep` and `bits_for` name"
                             : ""));
    SFQ_TRY(add_pruned(b, report, err));
    SFQ_TRY(add_calibration(b, report, err));
    if (strcmp(report->result->stopped_by, "time") == 0)
        SFQ_TRY(sfq_buf_addf(b, err, "A time limit of %g minutes cut it short. ", o->minutes));
    SFQ_TRY(sfq_buf_addf(b, err,
                         "`sfq_report.json` has the options, the widths of every layer, every "
                         "tensor's error and the times."));
    return add_stages(b, report, err);
}

static sfq_status add_tail(sfq_buf *b, const sfq_report *report, const char *licence,
                           sfq_error *err)
{
    bool file = false;
    SFQ_TRY(find_licence_file(&file, report->source->dir, err));
    SFQ_TRY(add_method(b, report, err));
    SFQ_TRY(sfq_buf_addf(
        b, err, "\n## Use\n\n```sh\nsfq inspect DIR\nsfq run DIR%s\n```\n\n## Licence\n\n",
        report->source->arch->head == SFQ_MODEL_HEAD_LM ? " -p \"Once upon a time\""
                                                        : " -p \"Some text\""));
    if (licence[0] != 0)
        return sfq_buf_addf(b, err, "`%s`, as the original model states.\n", licence);
    if (file)
        return sfq_buf_addf(b, err, "See the licence file, copied from the original model.\n");
    return sfq_buf_addf(b, err, "The original model's directory states none; its terms apply.\n");
}

sfq_status sfq_card_write(const sfq_report *report, sfq_outdir *dir, sfq_error *err)
{
    char licence[LICENCE_MAX];
    sfq_status status = SFQ_OK;
    sfq_buf card = SFQ_BUF_INIT(CARD_MAX);
    char *title = sfq_source_title(report->source, report->options->model);
    if (title == NULL)
        return sfq_fail_memory(err, 0, "README.md");
    make_plain(title);
    SFQ_DO(read_licence(licence, report->source->dir, err));
    SFQ_DO(add_head(&card, title, licence, report->pruned != NULL, err));
    SFQ_DO(add_sizes(&card, report, err));
    SFQ_DO(add_tail(&card, report, licence, err));
    SFQ_DO(sfq_outdir_put(dir, "README.md", card.data, card.len, err));
done:
    sfq_buf_free(&card);
    sfq_mem_free(title);
    return status;
}

/* input - the text that `run` and `tokenize` work on: from the command line, a file or standard
 * input, whole and in memory. */
#include "program.h"
#include "signals.h"

#include "base/file.h"
#include "base/sys.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define MAX_INPUT ((size_t)1 << 30)
#define PIECE ((size_t)1 << 16)

static sfq_status read_standard_input(cli_context *cli, sfq_buf *buf, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    cli_signals_release(); /* ^C while nothing is computed simply ends */
    for (;;) {
        SFQ_DO(sfq_buf_reserve(buf, PIECE, err));
        ssize_t n = sfq_sys_read(STDIN_FILENO, buf->data + buf->len, PIECE);
        if (n < 0) {
            status = sfq_fail_errno(err, errno, "standard input", "read");
            goto done;
        }
        if (n == 0)
            break;
        buf->len += (size_t)n;
    }
    SFQ_DO(sfq_buf_add(buf, "", 0, err));
done:
    cli_signals_catch(cli->common->json, cli->words.count ? cli->words.items[0] : NULL);
    return status;
}

sfq_status cli_source_word(const cli_context *cli, cli_source *source, sfq_error *err)
{
    if (cli->words.count < 2)
        return SFQ_OK;
    if (strcmp(cli->words.items[1], "-") != 0)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "%s: one word too many: '%s'; texts go behind -p, files behind --file",
                        cli->verb->name, cli->words.items[1]);
    source->standard_input = true;
    return SFQ_OK;
}

sfq_status cli_source_read(cli_context *cli, const cli_source *source, sfq_buf *buf, sfq_error *err)
{
    int sources = (source->text != NULL) + (source->file != NULL) + source->standard_input;
    *buf = SFQ_BUF_INIT(MAX_INPUT);
    if (sources != 1)
        return sfq_fail(err, SFQ_E_ARGUMENT, "%s: %s (sfq %s --help)", cli->verb->name,
                        sources ? "two texts are given; give one"
                                : "no text; give -p TEXT, --file FILE or -",
                        cli->verb->name);
    if (source->text)
        return sfq_buf_add(buf, source->text, strlen(source->text), err);
    if (source->file)
        return sfq_file_read(buf, source->file, MAX_INPUT, err);
    return read_standard_input(cli, buf, err);
}

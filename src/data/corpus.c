/* data/corpus.c - see corpus.h. The files are mapped, not read: a corpus may be larger than
 * memory, and only the passages that are drawn are looked at a second time. */
#include "data/corpus.h"

#include "base/ck.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <string.h>

enum { TEST_SHARE = 20, TEST_BYTES = 256 << 10 };

static size_t character_from(const char *text, size_t bytes, size_t at)
{
    while (at < bytes && ((unsigned char)text[at] & 0xC0) == 0x80)
        at++;
    return at;
}

size_t sfq_corpus_begin(const char *text, size_t bytes, size_t at, size_t reach)
{
    if (at >= bytes)
        return bytes;
    if (at == 0 || text[at - 1] == '\n')
        return at;
    reach = sfq_min_size(reach, bytes - at);
    const char *found = memchr(text + at, '\n', reach);
    if (found != NULL && found + 1 < text + bytes)
        return (size_t)(found + 1 - text);
    found = memchr(text + at, ' ', reach);
    return found != NULL ? (size_t)(found - text) : character_from(text, bytes, at);
}

/* One pass proves all of it. */
static sfq_status open_text(sfq_corpus_text *t, const char *path, sfq_error *err)
{
    t->path = path;
    SFQ_TRY(sfq_map_open(&t->map, path, err));
    t->text = (const char *)t->map.data;
    t->bytes = t->map.size;
    if (t->bytes == 0)
        return sfq_fail_at(err, SFQ_E_DATA, path, NULL, "%s: the file is empty", path);
    size_t good = sfq_utf8_valid_prefix(t->text, t->bytes);
    if (good < t->bytes)
        return sfq_fail_at(err, SFQ_E_DATA, path, NULL, "%s: invalid UTF-8 at byte %zu", path,
                           good);
    if (t->bytes >= 3 && memcmp(t->text, "\xef\xbb\xbf", 3) == 0) {
        t->text += 3;
        t->bytes -= 3;
    }
    return SFQ_OK;
}

/* A line that begins in the first half of the last twentieth begins the test. */
static void set_aside(sfq_corpus *c)
{
    sfq_corpus_text *last = &c->texts[c->count - 1];
    size_t share = sfq_min_size(last->bytes / TEST_SHARE, TEST_BYTES);
    size_t at = last->bytes - share;
    const char *line = memchr(last->text + at, '\n', share / 2);
    at = line != NULL ? (size_t)(line + 1 - last->text)
                      : character_from(last->text, last->bytes, at);
    c->test = last->text + at;
    c->test_bytes = last->bytes - at;
    last->bytes = at;
}

sfq_status sfq_corpus_open(sfq_corpus **out, const char *const *files, size_t count, sfq_error *err)
{
    sfq_corpus *c = SFQ_NEW(sfq_corpus);
    sfq_status status = SFQ_OK;
    *out = NULL;
    if (c != NULL)
        c->texts = SFQ_NEW_ARRAY(sfq_corpus_text, count);
    if (c == NULL || c->texts == NULL) {
        status = sfq_fail_memory(err, count * sizeof(*c->texts), "text files");
        goto done;
    }
    for (size_t i = 0; i < count; i++) {
        c->count = i + 1;
        SFQ_DO(open_text(&c->texts[i], files[i], err));
    }
    set_aside(c);
    for (size_t i = 0; i < count; i++)
        c->bytes += c->texts[i].bytes;
    *out = c;
    c = NULL;
done:
    sfq_corpus_close(&c);
    return status;
}

void sfq_corpus_close(sfq_corpus **corpus)
{
    sfq_corpus *c = *corpus;
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->count; i++)
        sfq_map_close(&c->texts[i].map);
    sfq_mem_free(c->texts);
    sfq_mem_free(c);
    *corpus = NULL;
}

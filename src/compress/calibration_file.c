/* compress/calibration_file.c - the set as one file of the journal: a header of 64-bit
 * little-endian numbers, then lengths, ids and types of 32 bits each. A file that was damaged, cut
 * or made by somebody else is refused: everything is proved against its size and the model before
 * it is used. */
#include "base/ck.h"
#include "base/file.h"
#include "base/mem.h"
#include "compress/calibration_parts.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file is little-endian");

typedef struct sfq_calib_header {
    char magic[8];
    uint64_t version, checksum; /* XXH3 of what follows this field */
    uint64_t count, tune, tokens, typed;
    uint64_t scanned, available, duplicates;
    double fraction;
    char origin[8];
} sfq_calib_header;

static_assert(sizeof(sfq_calib_header) == 96, "no padding");

static const char magic[8] = {'S', 'F', 'Q', 'C', 'A', 'L', 'I', 'B'};
enum { VERSION = 1, MAX_COUNT = 1 << 28 };
#define MAX_FILE ((size_t)1 << 36)

static uint64_t checksum(const char *file, size_t bytes)
{
    size_t skip = offsetof(sfq_calib_header, count);
    return XXH3_64bits(file + skip, bytes - skip);
}

/* ---- out ---- */

sfq_status sfq_calibration_save(const sfq_calibration *c, sfq_outdir *dir, const char *name,
                                sfq_error *err)
{
    size_t tokens = c->offset[c->count];
    sfq_calib_header h = {.version = VERSION,
                          .count = c->count,
                          .tune = c->tune,
                          .tokens = tokens,
                          .typed = c->types != NULL,
                          .scanned = c->scanned,
                          .available = c->available,
                          .duplicates = c->duplicates,
                          .fraction = c->fraction};
    sfq_buf file = SFQ_BUF_INIT(MAX_FILE);
    sfq_status status = SFQ_OK;
    memcpy(h.magic, magic, sizeof(magic));
    memcpy(h.origin, c->origin, sizeof(h.origin));
    SFQ_DO(sfq_buf_add(&file, &h, sizeof(h), err));
    for (size_t i = 0; i < c->count; i++) {
        uint32_t length = (uint32_t)(c->offset[i + 1] - c->offset[i]);
        SFQ_DO(sfq_buf_add(&file, &length, sizeof(length), err));
    }
    SFQ_DO(sfq_buf_add(&file, c->ids, tokens * sizeof(*c->ids), err));
    if (c->types != NULL)
        SFQ_DO(sfq_buf_add(&file, c->types, tokens * sizeof(*c->types), err));
    h.checksum = checksum(file.data, file.len);
    memcpy(file.data, &h, sizeof(h));
    SFQ_DO(sfq_outdir_put(dir, name, file.data, file.len, err));
done:
    sfq_buf_free(&file);
    return status;
}

/* ---- in ---- */

static sfq_status refuse(const char *path, const char *why, sfq_error *err)
{
    return sfq_fail_at(err, SFQ_E_FORMAT, path, NULL,
                       "%s: no calibration set of this model: %s; remove it to choose anew", path,
                       why);
}

static bool known_origin(const char origin[8])
{
    static const char names[3][8] = {"task", "text", "self"};
    for (size_t i = 0; i < 3; i++)
        if (memcmp(origin, names[i], sizeof(names[i])) == 0)
            return true;
    return false;
}

static sfq_status check_header(const sfq_calib_header *h, size_t bytes, const char *path,
                               sfq_error *err)
{
    size_t payload = 0;
    if (memcmp(h->magic, magic, sizeof(magic)) != 0 || h->version != VERSION)
        return refuse(path, "another kind of file, or another version", err);
    if (h->count < SFQ_CALIB_MIN || h->count > MAX_COUNT || h->tune < 1 || h->tune >= h->count)
        return refuse(path, "the number of sequences", err);
    if (h->typed > 1 || !sfq_ck_mul(h->tokens, 4 * (h->typed + 1), &payload) ||
        !sfq_ck_add(payload, 4 * h->count + sizeof(*h), &payload) || payload != bytes)
        return refuse(path, "the file's size", err);
    if (!(h->fraction >= 0 && h->fraction <= 1) || !known_origin(h->origin))
        return refuse(path, "the origin", err);
    return SFQ_OK;
}

static sfq_status check_tokens(const sfq_calibration *c, const sfq_arch *arch, const char *path,
                               sfq_error *err)
{
    size_t tokens = c->offset[c->count];
    if (c->types != NULL && arch->type_vocab < 1)
        return refuse(path, "token types, which the model has none of", err);
    for (size_t i = 0; i < tokens; i++) {
        if (c->ids[i] < 0 || c->ids[i] >= arch->vocab)
            return refuse(path, "a token outside the vocabulary", err);
        if (c->types != NULL && (c->types[i] < 0 || c->types[i] >= arch->type_vocab))
            return refuse(path, "a token type that the model does not have", err);
    }
    return SFQ_OK;
}

/* `at` points behind the header; sizes are proved. */
static sfq_status read_sequences(sfq_calibration *c, const char *at, size_t tokens,
                                 const sfq_arch *arch, const char *path, sfq_error *err)
{
    for (size_t i = 0; i < c->count; i++) {
        uint32_t length;
        memcpy(&length, at + 4 * i, sizeof(length));
        if (length < 1 || length > (uint32_t)arch->max_positions || length > tokens - c->offset[i])
            return refuse(path, "the length of a sequence", err);
        c->offset[i + 1] = c->offset[i] + length;
    }
    if (c->offset[c->count] != tokens)
        return refuse(path, "the lengths of the sequences", err);
    at += 4 * c->count;
    memcpy(c->ids, at, tokens * sizeof(*c->ids));
    if (c->types != NULL)
        memcpy(c->types, at + tokens * sizeof(*c->ids), tokens * sizeof(*c->types));
    return check_tokens(c, arch, path, err);
}

sfq_status sfq_calibration_load(sfq_calibration **out, const char *path, const sfq_arch *arch,
                                sfq_error *err)
{
    sfq_buf file = SFQ_BUF_INIT(MAX_FILE);
    sfq_calib_header h;
    sfq_status status = SFQ_OK;
    *out = NULL;
    SFQ_DO(sfq_file_read(&file, path, MAX_FILE, err));
    if (file.len < sizeof(h)) {
        status = refuse(path, "the file's size", err);
        goto done;
    }
    memcpy(&h, file.data, sizeof(h));
    SFQ_DO(check_header(&h, file.len, path, err));
    if (h.checksum != checksum(file.data, file.len)) {
        status = refuse(path, "the checksum", err);
        goto done;
    }
    SFQ_DO(sfq_calibration_alloc(out, h.count, h.tokens, h.typed != 0, err));
    (*out)->tune = h.tune;
    (*out)->fraction = h.fraction;
    (*out)->scanned = h.scanned;
    (*out)->available = h.available;
    (*out)->duplicates = h.duplicates;
    memcpy((*out)->origin, h.origin, sizeof(h.origin));
    SFQ_DO(read_sequences(*out, file.data + sizeof(h), h.tokens, arch, path, err));
done:
    if (status != SFQ_OK)
        sfq_calibration_close(out);
    sfq_buf_free(&file);
    return status;
}

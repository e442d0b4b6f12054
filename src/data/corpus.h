/* data/corpus.h - text files to draw passages from: mapped, proved to be UTF-8 once, and with the
 * end of the last one set aside, so that what is measured on was never calibrated on. */
#ifndef SFQ_DATA_CORPUS_H
#define SFQ_DATA_CORPUS_H

#include "base/file.h"

typedef struct sfq_corpus_text {
    const char *path;
    const char *text; /* [bytes] without a byte-order mark and without what is set aside */
    size_t bytes;
    sfq_map map;
} sfq_corpus_text;

typedef struct sfq_corpus {
    sfq_corpus_text *texts; /* [count] */
    size_t count;
    uint64_t bytes;   /* of all texts */
    const char *test; /* [test_bytes] the last twentieth of the last file, at most 256 KiB */
    size_t test_bytes;
} sfq_corpus;

/* Paths must outlive the corpus. DATA for an empty file and for invalid UTF-8 (with its offset). */
sfq_status sfq_corpus_open(sfq_corpus **out, const char *const *files, size_t count,
                           sfq_error *err);
void sfq_corpus_close(sfq_corpus **corpus);

/* Where a passage may begin: the first line that begins in [at, at + reach), else the first space,
 * else the first character. */
size_t sfq_corpus_begin(const char *text, size_t bytes, size_t at, size_t reach);

#endif

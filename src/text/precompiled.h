/* text/precompiled.h - the "Precompiled" normalizer: SentencePiece's character map. */
#ifndef SFQ_TEXT_PRECOMPILED_H
#define SFQ_TEXT_PRECOMPILED_H

#include "base/buf.h"
#include "base/status.h"

typedef struct sfq_precompiled {
    sfq_buf blob; /* decoded: u32 trie bytes, the trie (double array of u32), the texts */
    size_t units; /* of the trie */
    size_t texts; /* offset of the texts, each ended by NUL */
} sfq_precompiled;

sfq_status sfq_precompiled_load(sfq_precompiled *map, const char *base64, const char *file,
                                sfq_error *err);
void sfq_precompiled_close(sfq_precompiled *map);
/* Appends the mapped text; *first is set to the bytes that come from the first character. */
sfq_status sfq_precompiled_run(const sfq_precompiled *map, const char *s, size_t n, sfq_buf *out,
                               size_t *first, sfq_error *err);

#endif

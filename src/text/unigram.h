/* text/unigram.h - the Unigram language model (Kudo 2018, arXiv:1804.10959): the segmentation of a
 * word with the highest sum of token scores. */
#ifndef SFQ_TEXT_UNIGRAM_H
#define SFQ_TEXT_UNIGRAM_H

#include "text/vocab.h"

typedef struct sfq_unigram_edge {
    uint32_t node; /* parent; UINT32_MAX: free slot */
    uint32_t child;
    unsigned char byte;
} sfq_unigram_edge;

typedef struct sfq_unigram {
    const sfq_vocab *vocab;
    double *scores;          /* [count] by id */
    sfq_unigram_edge *edges; /* [mask + 1], hashed by node and byte */
    size_t mask;
    int32_t *leaves; /* [nodes]: id of the token that ends here, or -1 */
    uint32_t nodes;
    double unk_score; /* least score - 10 */
    int32_t unk;      /* -1: none */
    bool byte_fallback;
} sfq_unigram;

/* Fills the vocabulary too: its list of [text, score] pairs is the id order. */
sfq_status sfq_unigram_load(sfq_unigram *model, sfq_vocab *vocab, const json_t *json,
                            const char *file, sfq_error *err);
void sfq_unigram_close(sfq_unigram *model);
sfq_status sfq_unigram_encode(const sfq_unigram *model, sfq_buf *scratch, const char *word,
                              size_t n, sfq_ids *out, sfq_error *err);

#endif

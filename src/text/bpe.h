/* text/bpe.h - byte pair encoding (Sennrich et al. 2016, arXiv:1508.07909) in the variants of
 * tokenizer.json. */
#ifndef SFQ_TEXT_BPE_H
#define SFQ_TEXT_BPE_H

#include "text/vocab.h"

typedef struct sfq_merge {
    uint32_t left, right; /* ids; a free slot has rank UINT32_MAX */
    uint32_t rank;
    int32_t id; /* of the token that the pair becomes */
} sfq_merge;

#define SFQ_BPE_NO_UNK (-1)   /* unknown characters vanish */
#define SFQ_BPE_LOST_UNK (-2) /* unk_token is named and no token */

typedef struct sfq_bpe {
    const sfq_vocab *vocab;
    sfq_merge *merges; /* [mask + 1], hashed by the pair */
    size_t mask;
    int32_t *rank_ids; /* [merges]: id of the token that the merge of this rank makes */
    size_t rank_count; /* merges */
    uint64_t *joints;  /* [joint_mask + 1]: neighbours inside the token of some merge */
    size_t joint_mask;
    uint64_t ascii_joints[128][2]; /* the same for two ASCII characters, one bit each */
    char *prefix;                  /* continuing_subword_prefix or NULL */
    char *suffix;                  /* end_of_word_suffix or NULL */
    size_t prefix_len, suffix_len;
    int32_t unk;        /* SFQ_BPE_NO_UNK, SFQ_BPE_LOST_UNK or an id */
    int32_t bytes[256]; /* ids of <0xXX>, -1 where missing */
    int32_t chars[512]; /* ids of the one-character tokens of the lowest code points, -1 */
    bool byte_fallback, fuse_unk, ignore_merges;
    bool chunked; /* words may be cut where no merge can cross */
} sfq_bpe;

typedef struct sfq_bpe_scratch sfq_bpe_scratch; /* of one thread: symbols, queue, word cache */

sfq_status sfq_bpe_load(sfq_bpe *bpe, const sfq_vocab *vocab, const json_t *model, const char *file,
                        sfq_error *err);
void sfq_bpe_close(sfq_bpe *bpe);

sfq_status sfq_bpe_scratch_open(sfq_bpe_scratch **out, sfq_error *err);
void sfq_bpe_scratch_close(sfq_bpe_scratch **scratch);
/* Appends the ids of one word (valid UTF-8, n > 0). */
sfq_status sfq_bpe_encode(const sfq_bpe *bpe, sfq_bpe_scratch *scratch, const char *word, size_t n,
                          sfq_ids *out, sfq_error *err);

/* merge of a pair of ids, or NULL */
const sfq_merge *sfq_bpe_find_merge(const sfq_bpe *bpe, uint32_t left, uint32_t right);
/* false: no token that a merge makes has these two characters side by side */
bool sfq_bpe_can_join(const sfq_bpe *bpe, uint32_t left, uint32_t right);

#endif

/* text/bpe_queue.h - which merge comes next: least rank first, then least position. */
#ifndef SFQ_TEXT_BPE_QUEUE_H
#define SFQ_TEXT_BPE_QUEUE_H

#include "base/status.h"

typedef struct sfq_keys { /* a 4-ary min-heap */
    uint64_t *v;
    size_t count, cap;
} sfq_keys;

typedef struct sfq_bpe_node {
    uint32_t at, next; /* position; index of the next node of the same rank + 1 */
} sfq_bpe_node;

typedef struct sfq_bpe_queue {
    sfq_keys keys;           /* rank << 32 | position: everything, or what no list could take */
    sfq_keys ranks;          /* ranks whose list is not empty */
    uint32_t *heads, *tails; /* [rank_count]: nodes + 1; 0: empty list */
    size_t rank_count;
    sfq_bpe_node *nodes;
    size_t node_count, node_cap;
    bool lists; /* long words only */
} sfq_bpe_queue;

/* Empties the queue for a word of `symbols`; rank_count: ranks are below it. */
sfq_status sfq_bpe_queue_begin(sfq_bpe_queue *queue, size_t symbols, size_t rank_count,
                               sfq_error *err);
void sfq_bpe_queue_free(sfq_bpe_queue *queue);
sfq_status sfq_bpe_queue_push(sfq_bpe_queue *queue, uint32_t rank, uint32_t at, sfq_error *err);
/* rank << 32 | position of the next entry; false: empty */
bool sfq_bpe_queue_pop(sfq_bpe_queue *queue, uint64_t *key);

#endif

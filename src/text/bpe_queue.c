/* text/bpe_queue.c - the priority queue of BPE.
 *
 * A plain heap is right for words. For a word of millions of symbols (a text without spaces) its
 * cache misses make the time grow faster than the word, so there each rank has a list of positions
 * instead: entries of one rank almost always arrive in ascending order and are appended; the few
 * that do not go to the heap. A second, small heap holds the ranks that have a list. The order of
 * what comes out is the same in both forms. */
#include "text/bpe_queue.h"

#include "base/mem.h"

#define LISTS_FROM 1024 /* symbols */

static void heap_down(sfq_keys *keys)
{
    uint64_t *v = keys->v, key = v[0];
    size_t at = 0;
    for (;;) {
        size_t child = 4 * at + 1;
        if (child >= keys->count)
            break;
        size_t end = child + 4 < keys->count ? child + 4 : keys->count, least = child;
        for (size_t i = child + 1; i < end; i++)
            if (v[i] < v[least])
                least = i;
        if (v[least] >= key)
            break;
        v[at] = v[least];
        at = least;
    }
    v[at] = key;
}

static void heap_pop(sfq_keys *keys)
{
    keys->v[0] = keys->v[--keys->count];
    if (keys->count > 0)
        heap_down(keys);
}

static sfq_status heap_push(sfq_keys *keys, uint64_t key, sfq_error *err)
{
    if (keys->count == keys->cap) {
        size_t cap = keys->cap == 0 ? 256 : 2 * keys->cap;
        uint64_t *v = sfq_mem_resize(keys->v, cap, sizeof(uint64_t));
        if (!v)
            return sfq_fail_memory(err, cap * sizeof(uint64_t), "BPE queue");
        keys->v = v;
        keys->cap = cap;
    }
    size_t i = keys->count++;
    for (; i > 0 && keys->v[(i - 1) / 4] > key; i = (i - 1) / 4)
        keys->v[i] = keys->v[(i - 1) / 4];
    keys->v[i] = key;
    return SFQ_OK;
}

sfq_status sfq_bpe_queue_begin(sfq_bpe_queue *queue, size_t symbols, size_t rank_count,
                               sfq_error *err)
{
    queue->keys.count = queue->ranks.count = queue->node_count = 0;
    queue->lists = symbols >= LISTS_FROM;
    if (!queue->lists || queue->heads)
        return SFQ_OK; /* lists are empty again after each word */
    queue->heads = SFQ_NEW_ARRAY(uint32_t, rank_count);
    queue->tails = SFQ_NEW_ARRAY(uint32_t, rank_count);
    queue->rank_count = rank_count;
    if (!queue->heads || !queue->tails)
        return sfq_fail_memory(err, rank_count * sizeof(uint32_t), "BPE queue");
    return SFQ_OK;
}

void sfq_bpe_queue_free(sfq_bpe_queue *queue)
{
    sfq_mem_free(queue->keys.v);
    sfq_mem_free(queue->ranks.v);
    sfq_mem_free(queue->heads);
    sfq_mem_free(queue->tails);
    sfq_mem_free(queue->nodes);
    *queue = (sfq_bpe_queue){0};
}

sfq_status sfq_bpe_queue_push(sfq_bpe_queue *queue, uint32_t rank, uint32_t at, sfq_error *err)
{
    uint64_t key = (uint64_t)rank << 32 | at;
    if (!queue->lists)
        return heap_push(&queue->keys, key, err);
    uint32_t tail = queue->tails[rank];
    bool empty = queue->heads[rank] == 0;
    if (!empty && queue->nodes[tail - 1].at >= at)
        return heap_push(&queue->keys, key, err);
    if (queue->node_count == queue->node_cap) {
        size_t cap = queue->node_cap == 0 ? 4096 : 2 * queue->node_cap;
        sfq_bpe_node *nodes = sfq_mem_resize(queue->nodes, cap, sizeof(*nodes));
        if (!nodes)
            return sfq_fail_memory(err, cap * sizeof(*nodes), "BPE queue");
        queue->nodes = nodes;
        queue->node_cap = cap;
    }
    queue->nodes[queue->node_count++] = (sfq_bpe_node){at, 0};
    queue->tails[rank] = (uint32_t)queue->node_count;
    if (!empty) {
        queue->nodes[tail - 1].next = (uint32_t)queue->node_count;
        return SFQ_OK;
    }
    queue->heads[rank] = (uint32_t)queue->node_count;
    return heap_push(&queue->ranks, rank, err);
}

bool sfq_bpe_queue_pop(sfq_bpe_queue *queue, uint64_t *key)
{
    bool listed = queue->ranks.count > 0;
    if (listed) {
        uint64_t rank = queue->ranks.v[0];
        const sfq_bpe_node *node = &queue->nodes[queue->heads[rank] - 1];
        *key = rank << 32 | node->at;
        if (queue->keys.count == 0 || *key <= queue->keys.v[0]) {
            queue->heads[rank] = node->next;
            if (node->next == 0)
                heap_pop(&queue->ranks);
            return true;
        }
    }
    if (queue->keys.count == 0)
        return false;
    *key = queue->keys.v[0];
    heap_pop(&queue->keys);
    return true;
}

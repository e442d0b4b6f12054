/* compress/train_state.c - a head, then the blocks as they lie in memory. The checksum is a chain:
 * each block's is the seed of the next one's, the head's comes last. */
#include "compress/train_state.h"

#include "base/file.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

typedef struct head {
    char mark[8];
    uint64_t request;
    uint64_t bytes; /* of the blocks */
    sfq_train_state state;
    uint64_t hash; /* of the blocks and of what stands above */
} head;

static const char mark[8] = "SFQstat1";

static uint64_t hash_head(const head *h, uint64_t blocks)
{
    return XXH3_64bits_withSeed(h, offsetof(head, hash), blocks);
}

sfq_status sfq_train_state_save(const char *path, uint64_t request, const sfq_train_state *state,
                                const sfq_train_block *blocks, size_t count, sfq_error *err)
{
    head h = {.request = request, .state = *state};
    uint64_t hash = 0;
    sfq_file_part *parts = SFQ_NEW_ARRAY(sfq_file_part, count + 1);
    if (parts == NULL)
        return sfq_fail_memory(err, (count + 1) * sizeof(*parts), "the state of training");
    memcpy(h.mark, mark, sizeof(mark));
    parts[0] = (sfq_file_part){&h, sizeof(h)};
    for (size_t i = 0; i < count; i++) {
        parts[i + 1] = (sfq_file_part){blocks[i].data, blocks[i].bytes};
        h.bytes += blocks[i].bytes;
        hash = XXH3_64bits_withSeed(blocks[i].data, blocks[i].bytes, hash);
    }
    h.hash = hash_head(&h, hash);
    sfq_status status = sfq_file_replace(path, parts, count + 1, err);
    sfq_mem_free(parts);
    return status;
}

/* NULL: it is whole and of this request. */
static const char *judge(const sfq_map *map, uint64_t request, const sfq_train_block *blocks,
                         size_t count, head *h)
{
    uint64_t bytes = 0, hash = 0;
    for (size_t i = 0; i < count; i++)
        bytes += blocks[i].bytes;
    if (map->size < sizeof(*h))
        return "is cut off";
    memcpy(h, map->data, sizeof(*h));
    if (memcmp(h->mark, mark, sizeof(mark)) != 0)
        return "is of another kind";
    if (h->request != request || h->bytes != bytes)
        return "belongs to another run";
    if (map->size - sizeof(*h) != bytes)
        return "is cut off";
    const unsigned char *at = map->data + sizeof(*h);
    for (size_t i = 0; i < count; at += blocks[i++].bytes)
        hash = XXH3_64bits_withSeed(at, blocks[i].bytes, hash);
    return h->hash == hash_head(h, hash) ? NULL : "is damaged";
}

sfq_status sfq_train_state_load(const char *path, uint64_t request, sfq_train_state *state,
                                const sfq_train_block *blocks, size_t count, const char **why,
                                sfq_error *err)
{
    sfq_map map;
    head h;
    *why = "";
    if (!sfq_file_exists(path))
        return SFQ_OK;
    sfq_status status = sfq_map_open(&map, path, err);
    if (status != SFQ_OK) {
        *why = "cannot be read";
        return status == SFQ_E_MEMORY ? status : SFQ_OK;
    }
    *why = judge(&map, request, blocks, count, &h);
    if (*why == NULL) {
        const unsigned char *at = map.data + sizeof(h);
        *state = h.state;
        for (size_t i = 0; i < count; at += blocks[i++].bytes)
            memcpy(blocks[i].data, at, blocks[i].bytes);
    }
    sfq_map_close(&map);
    return SFQ_OK;
}

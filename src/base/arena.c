/* base/arena.c - pieces with one common life, cut from blocks that double up to a bound. A piece
 * larger than the next block gets a block of its own size. Under AddressSanitizer the unused rest
 * and a gap behind every piece are poisoned, so a write past a piece is found as it is with
 * malloc. */
#include "base/mem.h"

#include "base/ck.h"

#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define ARENA_POISON(p, n) ASAN_POISON_MEMORY_REGION((p), (n))
#define ARENA_UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))
#define ARENA_GAP 16
#else
#define ARENA_POISON(p, n) ((void)(p), (void)(n))
#define ARENA_UNPOISON(p, n) ((void)(p), (void)(n))
#define ARENA_GAP 0
#endif

enum { BLOCK_FIRST = 16 << 10, BLOCK_LARGEST = 1 << 20 };

typedef struct arena_block {
    struct arena_block *next;
    size_t cap;
    size_t used;
    char *data; /* [cap], behind this header, 64-byte aligned */
} arena_block;

enum { BLOCK_HEADER = 64 };
_Static_assert(sizeof(arena_block) <= BLOCK_HEADER, "data starts on a cache line");

struct sfq_arena {
    arena_block *blocks; /* the one in use first */
    size_t next_size;
};

sfq_arena *sfq_arena_open(void)
{
    sfq_arena *arena = SFQ_NEW(sfq_arena);
    if (arena != NULL)
        arena->next_size = BLOCK_FIRST;
    return arena;
}

static void free_blocks(arena_block *block)
{
    while (block != NULL) {
        arena_block *next = block->next;
        ARENA_UNPOISON(block->data, block->cap);
        sfq_mem_free(block);
        block = next;
    }
}

void sfq_arena_close(sfq_arena **arena)
{
    if (*arena == NULL)
        return;
    free_blocks((*arena)->blocks);
    sfq_mem_free(*arena);
    *arena = NULL;
}

void sfq_arena_reset(sfq_arena *arena)
{
    arena_block *keep = NULL; /* the largest: the next life will want as much */
    for (arena_block *b = arena->blocks; b != NULL; b = b->next)
        if (keep == NULL || b->cap > keep->cap)
            keep = b;
    if (keep == NULL)
        return;
    arena_block **at = &arena->blocks;
    while (*at != keep)
        at = &(*at)->next;
    *at = keep->next;
    free_blocks(arena->blocks);
    keep->next = NULL;
    keep->used = 0;
    ARENA_POISON(keep->data, keep->cap);
    arena->blocks = keep;
}

/* A new block with room for bytes becomes the one in use. */
static bool add_block(sfq_arena *arena, size_t bytes)
{
    size_t cap = sfq_max_size(arena->next_size, bytes);
    size_t total;
    if (!sfq_ck_round_up(cap, BLOCK_HEADER, &cap) || !sfq_ck_add(cap, BLOCK_HEADER, &total))
        return false;
    arena_block *block = sfq_mem_aligned(total);
    if (block == NULL)
        return false;
    block->data = (char *)block + BLOCK_HEADER;
    block->cap = cap;
    block->next = arena->blocks;
    arena->blocks = block;
    arena->next_size = sfq_min_size(2 * arena->next_size, BLOCK_LARGEST);
    ARENA_POISON(block->data, cap);
    return true;
}

static void *take(sfq_arena *arena, size_t bytes, size_t align)
{
    size_t room;
    if (!sfq_ck_add(bytes, ARENA_GAP + 1, &room))
        return NULL;
    arena_block *block = arena->blocks;
    size_t at = block != NULL ? sfq_round_up(block->used, align) : 0;
    if (block == NULL || at > block->cap || room > block->cap - at) {
        if (!add_block(arena, room))
            return NULL;
        block = arena->blocks;
        at = 0;
    }
    block->used = at + sfq_max_size(bytes, 1) + ARENA_GAP;
    char *p = block->data + at;
    ARENA_UNPOISON(p, bytes);
    memset(p, 0, bytes);
    return p;
}

void *sfq_arena_zero(sfq_arena *arena, size_t count, size_t size)
{
    size_t bytes;
    return sfq_ck_mul(count, size, &bytes) ? take(arena, bytes, 16) : NULL;
}

void *sfq_arena_aligned(sfq_arena *arena, size_t bytes)
{
    return take(arena, bytes, 64);
}

char *sfq_arena_strndup(sfq_arena *arena, const char *s, size_t n)
{
    size_t bytes;
    char *copy = sfq_ck_add(n, 1, &bytes) ? take(arena, bytes, 16) : NULL;
    if (copy != NULL && n > 0)
        memcpy(copy, s, n);
    return copy;
}

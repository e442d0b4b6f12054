/* base/mem.h - all heap use of the library. Typed macros check the multiplication; the raw
 * functions underneath (sys.h) are the seam at which a test makes the n-th allocation fail. */
#ifndef SFQ_BASE_MEM_H
#define SFQ_BASE_MEM_H

#include "base/status.h"

/* NULL on failure or overflow; zeroed unless said otherwise. 0 bytes gives a pointer to free. */
void *sfq_mem_zero(size_t count, size_t size);
void *sfq_mem_raw(size_t bytes);                          /* not zeroed */
void *sfq_mem_resize(void *p, size_t count, size_t size); /* not zeroed beyond the old size */
void *sfq_mem_aligned(size_t bytes); /* 64-byte aligned, zeroed; freed with sfq_mem_free too */
/* For what is large, lives long and is read over and over: 2 MB aligned, the kernel is asked for
 * huge pages, not zeroed (the pages come when they are first written). */
void *sfq_mem_huge(size_t bytes);
void sfq_mem_free(void *p);
char *sfq_mem_strdup(const char *s);
char *sfq_mem_strndup(const char *s, size_t n); /* copies n bytes and adds NUL */

#define SFQ_NEW(T) ((T *)sfq_mem_zero(1, sizeof(T)))
#define SFQ_NEW_ARRAY(T, n) ((T *)sfq_mem_zero((n), sizeof(T)))

/* Arena: many small pieces with one life. Pieces are zeroed and 64-byte aligned where asked. */
typedef struct sfq_arena sfq_arena;
sfq_arena *sfq_arena_open(void); /* NULL: out of memory */
void sfq_arena_close(sfq_arena **arena);
void *sfq_arena_zero(sfq_arena *arena, size_t count, size_t size); /* 16-byte aligned */
void *sfq_arena_aligned(sfq_arena *arena, size_t bytes);           /* 64-byte aligned */
char *sfq_arena_strndup(sfq_arena *arena, const char *s, size_t n);
void sfq_arena_reset(sfq_arena *arena); /* forgets all pieces, keeps one block for reuse */

#define SFQ_ARENA_NEW(arena, T) ((T *)sfq_arena_zero((arena), 1, sizeof(T)))
#define SFQ_ARENA_ARRAY(arena, T, n) ((T *)sfq_arena_zero((arena), (n), sizeof(T)))

#endif

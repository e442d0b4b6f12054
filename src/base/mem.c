/* base/mem.c - checked allocation over the seam. Sizes are multiplied here and nowhere else; a
 * request for nothing gives a pointer too, so NULL always means failure. */
#include "base/mem.h"

#include "base/ck.h"
#include "base/sys.h"

#include <string.h>
#include <sys/mman.h>

enum { CACHE_LINE = 64, HUGE_PAGE = 2 << 20 };

/* count * size as a size that malloc may be asked for; 0 becomes 1. False: no such object. */
static bool request_size(size_t count, size_t size, size_t *bytes)
{
    if (!sfq_ck_mul(count, size, bytes) || *bytes > PTRDIFF_MAX - CACHE_LINE)
        return false;
    if (*bytes == 0)
        *bytes = 1;
    return true;
}

void *sfq_mem_zero(size_t count, size_t size)
{
    size_t bytes;
    return request_size(count, size, &bytes) ? sfq_sys_calloc(bytes, 1) : NULL;
}

void *sfq_mem_raw(size_t bytes)
{
    return request_size(bytes, 1, &bytes) ? sfq_sys_malloc(bytes) : NULL;
}

void *sfq_mem_resize(void *p, size_t count, size_t size)
{
    size_t bytes;
    return request_size(count, size, &bytes) ? sfq_sys_realloc(p, bytes) : NULL;
}

void *sfq_mem_aligned(size_t bytes)
{
    if (!request_size(bytes, 1, &bytes))
        return NULL;
    bytes = sfq_round_up(bytes, CACHE_LINE);
    void *p = sfq_sys_memalign(CACHE_LINE, bytes);
    if (p != NULL)
        memset(p, 0, bytes);
    return p;
}

void *sfq_mem_huge(size_t bytes)
{
    if (!request_size(bytes, 1, &bytes) || bytes > PTRDIFF_MAX - HUGE_PAGE)
        return NULL;
    bytes = sfq_round_up(bytes, HUGE_PAGE);
    void *p = sfq_sys_memalign(HUGE_PAGE, bytes);
    if (p != NULL)
        (void)madvise(p, bytes, MADV_HUGEPAGE); /* a wish: small pages serve too */
    return p;
}

void sfq_mem_free(void *p)
{
    sfq_sys_free(p);
}

char *sfq_mem_strndup(const char *s, size_t n)
{
    size_t bytes;
    char *copy = sfq_ck_add(n, 1, &bytes) ? sfq_mem_raw(bytes) : NULL;
    if (copy == NULL)
        return NULL;
    if (n > 0)
        memcpy(copy, s, n);
    copy[n] = 0;
    return copy;
}

char *sfq_mem_strdup(const char *s)
{
    return sfq_mem_strndup(s, strlen(s));
}

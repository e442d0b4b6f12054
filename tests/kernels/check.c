/* tests/kernels/check.c - runs the checks of every kernel on every level of the ladder that this
 * host has; --bench times them instead. Rows come from kernel_list.inc: a row without check_<op> or
 * bench_<op> does not link.
 *
 *   check [--bench] [--filter TEXT] [--seed N]      TEXT: part of "op.isa" */
#include "check.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { LEVELS = 6, MAX_BUFFERS = 4096, FILL = 0xA5, MAX_PRINTED = 20 };

static const sfq_isa levels[LEVELS] = {SFQ_ISA_REF,    SFQ_ISA_AVX2,       SFQ_ISA_AVXVNNI,
                                       SFQ_ISA_AVX512, SFQ_ISA_AVX512VNNI, SFQ_ISA_AMX};

typedef struct kernel_row {
    const char *op;
    const char *at[LEVELS]; /* which implementation a level uses */
    void (*check)(const sfq_kernels *k);
    void (*bench)(const sfq_kernels *k);
} kernel_row;

static const kernel_row rows[] = {
#define SFQ_KERNEL(op, at_ref, at_avx2, at_avxvnni, at_avx512, at_avx512vnni, at_amx) \
    {#op,                                                                             \
     {#at_ref, #at_avx2, #at_avxvnni, #at_avx512, #at_avx512vnni, #at_amx},           \
     check_##op,                                                                      \
     bench_##op},
#include "kernels/kernel_list.inc"
#undef SFQ_KERNEL
};

static struct {
    uint64_t seed, state;
    const char *kernel; /* "op.isa" under test */
    int failures;
    struct {
        void *map;
        size_t bytes;
    } buffers[MAX_BUFFERS];
    size_t buffer_count;
} run = {.seed = 1};

/* SplitMix64 (Steele et al. 2014) */
uint64_t check_u64(void)
{
    uint64_t z = (run.state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

size_t check_between(size_t lo, size_t hi)
{
    return lo + (size_t)(check_u64() % (hi - lo + 1));
}

float check_normal(void)
{
    double u = ((double)(check_u64() >> 11) + 0.5) * 0x1p-53;
    double v = (double)(check_u64() >> 11) * 0x1p-53;
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

void check_floats(float *x, size_t n, int flavour)
{
    static const float wild[] = {0.0f, -0.0f, 1.0f, -1.0f, 1e4f, -3e4f, 1e-4f, 1e-30f, -1e-39f};
    for (size_t i = 0; i < n; i++) {
        x[i] = check_normal();
        if (flavour == CHECK_WILD && check_u64() % 4 == 0)
            x[i] = wild[check_u64() % (sizeof wild / sizeof *wild)];
    }
}

static void *map_buffer(size_t bytes, size_t tail)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t body = (bytes + page - 1) / page * page;
    size_t total = body + 2 * page;
    char *map = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || run.buffer_count == MAX_BUFFERS ||
        (body > 0 && mprotect(map + page, body, PROT_READ | PROT_WRITE) != 0)) {
        perror("check: guarded memory");
        exit(2);
    }
    memset(map + page, FILL, body);
    run.buffers[run.buffer_count].map = map;
    run.buffers[run.buffer_count++].bytes = total;
    return map + page + body - tail;
}

void *check_guarded(size_t bytes)
{
    return map_buffer(bytes, bytes);
}

void *check_copy(const void *src, size_t bytes)
{
    void *copy = check_guarded(bytes);
    memcpy(copy, src, bytes);
    return copy;
}

void *check_aligned(size_t bytes)
{
    return map_buffer(bytes, (bytes + 63) / 64 * 64);
}

void check_reset(void)
{
    while (run.buffer_count > 0) {
        run.buffer_count--;
        munmap(run.buffers[run.buffer_count].map, run.buffers[run.buffer_count].bytes);
    }
}

void check_fail(const char *fmt, ...)
{
    va_list args;
    if (++run.failures > MAX_PRINTED)
        return;
    printf("FAIL %s: ", run.kernel);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    printf("\n     again: check --filter %s --seed %llu\n", run.kernel,
           (unsigned long long)run.seed);
}

void check_near(double got, double want, double bound, const char *what, size_t at)
{
    if (!(fabs(got - want) <= bound))
        check_fail("%s[%zu] is %.9g, want %.9g within %.3g", what, at, got, want, bound);
}

void check_same(const void *a, const void *b, size_t bytes, const char *what)
{
    const unsigned char *x = a, *y = b;
    for (size_t i = 0; i < bytes; i++) {
        if (x[i] != y[i]) {
            check_fail("%s differs at byte %zu of %zu: %02x, want %02x", what, i, bytes, x[i],
                       y[i]);
            return;
        }
    }
}

void check_untouched(const void *p, size_t bytes, const char *what)
{
    const unsigned char *x = p;
    for (size_t i = 0; i < bytes; i++) {
        if (x[i] != FILL) {
            check_fail("%s: byte %zu was written", what, i);
            return;
        }
    }
}

/* Processor time of this thread: a busy machine takes the processor away, but that is not
 * counted. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double check_seconds(check_run_fn fn, void *ctx)
{
    double best = INFINITY, total = 0.0;
    fn(ctx);
    for (int i = 0; i < 200 && (i < 3 || total < 0.3); i++) {
        double start = now();
        fn(ctx);
        double spent = now() - start;
        best = spent < best ? spent : best;
        total += spent;
    }
    return best;
}

void check_report(const char *what, double seconds, double macs, double bytes)
{
    printf("%-18s %-34s %10.2f us", run.kernel, what, seconds * 1e6);
    if (macs > 0.0)
        printf(" %8.2f GMAC/s", macs / seconds * 1e-9);
    if (bytes > 0.0)
        printf(" %8.2f GB/s", bytes / seconds * 1e-9);
    printf("\n");
}

const sfq_kernels *check_ref(void)
{
    return sfq_kernels_get(SFQ_ISA_REF);
}

static void run_kernel(const kernel_row *row, const sfq_kernels *k, bool bench)
{
    int before = run.failures;
    run.state = run.seed;
    (bench ? row->bench : row->check)(k);
    check_reset();
    if (!bench)
        printf("%s %s\n", run.failures == before ? "ok  " : "FAIL", run.kernel);
    fflush(stdout);
}

static void run_level(size_t level, const char *filter, bool bench, int *skipped)
{
    const sfq_kernels *k = sfq_kernels_get(levels[level]);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        char name[64];
        const char *isa = sfq_isa_name(levels[level]);
        snprintf(name, sizeof name, "%s.%s", rows[r].op, isa);
        if (strcmp(rows[r].at[level], isa) != 0 || !strstr(name, filter))
            continue; /* an implementation is checked at the level it was made for */
        run.kernel = name;
        if (k->isa != levels[level])
            ++*skipped;
        else
            run_kernel(&rows[r], k, bench);
    }
    if (*skipped > 0 && k->isa != levels[level])
        printf("SKIP %d kernels of %s: this host has %s\n", *skipped, sfq_isa_name(levels[level]),
               sfq_isa_name(sfq_isa_detect()));
}

int main(int argc, char **argv)
{
    const char *filter = "";
    bool bench = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--bench") == 0) {
            bench = true;
        } else if (strcmp(argv[i], "--filter") == 0 && i + 1 < argc) {
            filter = argv[++i];
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            run.seed = strtoull(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "usage: check [--bench] [--filter TEXT] [--seed N]\n");
            return 2;
        }
    }
    if (!bench && strstr("packing", filter)) {
        run.kernel = "packing";
        run.state = run.seed;
        check_packing();
        check_reset();
        printf("%s packing\n", run.failures == 0 ? "ok  " : "FAIL");
    }
    for (size_t level = 0; level < LEVELS; level++) {
        int skipped = 0;
        run_level(level, filter, bench, &skipped);
    }
    if (run.failures > 0)
        printf("%d failures, seed %llu\n", run.failures, (unsigned long long)run.seed);
    return run.failures > 0;
}

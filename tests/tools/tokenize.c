/* tests/tools/tokenize.c - build/bin/sfq-test-tokenize: the tokenizer from a pipe, for the tests
 * that compare it with Python's.
 *
 *   sfq-test-tokenize DIR            reads requests, writes one line of JSON per request
 *   sfq-test-tokenize DIR --time F   encodes file F and prints seconds and tokens
 *
 * A request is one line "VERB FLAGS MAX N M" and N + M bytes (M = -1: no pair):
 *   encode FLAGS(1: special tokens) MAX_TOKENS N M  -> {"ids": [...], "types": [...], "special": k}
 *   decode FLAGS(1: skip special) 0 N -1, N bytes of blank-separated ids -> {"hex": "..."}
 * or {"error": "E_...", "message": "..."}. */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *name_of(sfq_status status)
{
    switch (status) {
#define CASE(name, value, exit_status, text) \
    case SFQ_##name:                         \
        return #name;
        SFQ_STATUS_MAP(CASE)
#undef CASE
    }
    return "?";
}

static void print_error(const sfq_error *err)
{
    printf("{\"error\": \"%s\", \"message\": \"", name_of(err->code));
    for (const char *c = err->message; *c; c++)
        if (*c == '"' || *c == '\\')
            printf("\\%c", *c);
        else if ((unsigned char)*c >= 32 && (unsigned char)*c < 127)
            putchar(*c);
    printf("\"}\n");
}

static void print_list(const char *name, const int32_t *v, size_t count)
{
    printf("\"%s\": [", name);
    for (size_t i = 0; i < count; i++)
        printf(i > 0 ? ",%d" : "%d", (int)v[i]);
    printf("], ");
}

static void encode(const sfq_tokenizer *t, bool special, size_t max_tokens, const char *text,
                   size_t n, const char *pair, size_t m)
{
    sfq_error err = {0};
    sfq_encoding e;
    if (sfq_tokenizer_encode(t, text, n, pair, m, special, max_tokens, &e, &err) != SFQ_OK) {
        print_error(&err);
        return;
    }
    printf("{");
    print_list("ids", e.ids, e.count);
    print_list("types", e.types, e.count);
    printf("\"special\": %zu}\n", e.special_count);
    sfq_encoding_clear(&e);
}

static void decode(const sfq_tokenizer *t, bool skip, char *text, size_t n)
{
    sfq_error err = {0};
    size_t count = 0, bytes;
    char *out, *end;
    int32_t *ids = malloc((n + 1) * sizeof(int32_t));
    for (char *at = text; ids; at = end) {
        long id = strtol(at, &end, 10);
        if (end == at)
            break;
        ids[count++] = (int32_t)id;
    }
    if (!ids || sfq_tokenizer_decode(t, ids, count, skip, &out, &bytes, &err) != SFQ_OK) {
        print_error(&err);
    } else {
        printf("{\"hex\": \"");
        for (size_t i = 0; i < bytes; i++)
            printf("%02x", (unsigned char)out[i]);
        printf("\"}\n");
        sfq_mem_free(out);
    }
    free(ids);
}

static bool serve(const sfq_tokenizer *t)
{
    char line[128], verb[16];
    int flags;
    long max_tokens, n, m;
    while (fgets(line, sizeof(line), stdin)) {
        if (sscanf(line, "%15s %d %ld %ld %ld", verb, &flags, &max_tokens, &n, &m) != 5 || n < 0)
            return false;
        size_t both = (size_t)n + (m > 0 ? (size_t)m : 0);
        char *text = malloc(both + 1);
        if (!text || fread(text, 1, both, stdin) != both) {
            free(text);
            return false;
        }
        text[both] = '\0';
        if (strcmp(verb, "decode") == 0)
            decode(t, flags & 1, text, (size_t)n);
        else
            encode(t, flags & 1, (size_t)max_tokens, text, (size_t)n, m < 0 ? NULL : text + n,
                   m < 0 ? 0 : (size_t)m);
        fflush(stdout);
        free(text);
    }
    return true;
}

static bool measure(const sfq_tokenizer *t, const char *path)
{
    sfq_error err = {0};
    sfq_buf text = SFQ_BUF_INIT((size_t)1 << 31);
    sfq_encoding e = {0};
    bool good = sfq_file_read(&text, path, text.max, &err) == SFQ_OK;
    double start = sfq_clock_seconds();
    good = good && sfq_tokenizer_encode(t, text.data ? text.data : "", text.len, NULL, 0, false, 0,
                                        &e, &err) == SFQ_OK;
    if (good)
        printf("{\"seconds\": %.6f, \"tokens\": %zu}\n", sfq_clock_seconds() - start, e.count);
    else
        print_error(&err);
    sfq_encoding_clear(&e);
    sfq_buf_free(&text);
    return good;
}

int main(int argc, char **argv)
{
    sfq_error err = {0};
    sfq_tokenizer *t = NULL;
    if (argc < 2) {
        fprintf(stderr, "usage: sfq-test-tokenize DIR [--time FILE]\n");
        return 2;
    }
    double start = sfq_clock_seconds();
    if (sfq_tokenizer_open(&t, argv[1], &err) != SFQ_OK) {
        print_error(&err);
        return 1;
    }
    printf("{\"open\": %.6f, \"end\": %d}\n", sfq_clock_seconds() - start,
           (int)sfq_tokenizer_vocab_end(t));
    fflush(stdout);
    bool good = argc > 3 ? measure(t, argv[3]) : serve(t);
    sfq_tokenizer_close(&t);
    return good ? 0 : 1;
}

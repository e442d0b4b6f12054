/* text/matcher.c - Aho-Corasick (1975, "Efficient string matching") run backwards: the automaton of
 * the reversed strings reads the text from its end, so that its state tells at each position the
 * longest string that *begins* there. Leftmost-longest matches are then picked from the front.
 * Linear in the text for any set of strings. */
#include "base/mem.h"
#include "text/added_tokens.h"

#include <string.h>

#define NONE UINT32_MAX

typedef struct edge {
    uint32_t node; /* NONE: free */
    uint32_t child;
    unsigned char byte;
} edge;

typedef struct state {
    uint32_t parent, fail;
    uint32_t len, value; /* longest string that ends here; len 0: none */
    unsigned char byte;
    bool own; /* the string of this very path */
} state;

struct sfq_matcher {
    edge *edges; /* [mask + 1], hashed by node and byte */
    size_t mask;
    state *states;
    uint32_t count;
    bool first[256]; /* bytes that leave the root */
};

sfq_status sfq_matcher_open(sfq_matcher **out, size_t bytes, sfq_error *err)
{
    size_t slots = 16;
    *out = SFQ_NEW(sfq_matcher);
    if (!*out || bytes >= NONE / 4) {
        sfq_matcher_close(out);
        return sfq_fail_memory(err, sizeof(sfq_matcher), "added tokens");
    }
    while (slots < 2 * bytes)
        slots *= 2;
    (*out)->edges = SFQ_NEW_ARRAY(edge, slots);
    (*out)->states = SFQ_NEW_ARRAY(state, bytes + 1);
    if (!(*out)->edges || !(*out)->states) {
        sfq_matcher_close(out);
        return sfq_fail_memory(err, slots * sizeof(edge), "added tokens");
    }
    for (size_t i = 0; i < slots; i++)
        (*out)->edges[i].node = NONE;
    (*out)->mask = slots - 1;
    (*out)->count = 1;
    return SFQ_OK;
}

void sfq_matcher_close(sfq_matcher **matcher)
{
    if (!*matcher)
        return;
    sfq_mem_free((*matcher)->edges);
    sfq_mem_free((*matcher)->states);
    sfq_mem_free(*matcher);
    *matcher = NULL;
}

static edge *find_edge(const sfq_matcher *m, uint32_t node, unsigned char byte)
{
    uint64_t x = ((uint64_t)node << 8 | byte) * 0x9E3779B97F4A7C15u;
    size_t slot = (size_t)(x >> 20) & m->mask;
    while (m->edges[slot].node != NONE &&
           !(m->edges[slot].node == node && m->edges[slot].byte == byte))
        slot = (slot + 1) & m->mask;
    return &m->edges[slot];
}

bool sfq_matcher_add(sfq_matcher *matcher, const char *text, size_t len, uint32_t value)
{
    uint32_t node = 0;
    for (size_t i = len; i > 0; i--) {
        unsigned char byte = (unsigned char)text[i - 1];
        edge *e = find_edge(matcher, node, byte);
        if (e->node == NONE) {
            *e = (edge){node, matcher->count, byte};
            matcher->states[matcher->count++] = (state){.parent = node, .byte = byte};
        }
        if (node == 0)
            matcher->first[byte] = true;
        node = e->child;
    }
    if (len == 0 || matcher->states[node].own)
        return false;
    matcher->states[node].own = true;
    matcher->states[node].len = (uint32_t)len;
    matcher->states[node].value = value;
    return true;
}

static uint32_t follow(const sfq_matcher *m, uint32_t node, unsigned char byte)
{
    for (;;) {
        const edge *e = find_edge(m, node, byte);
        if (e->node != NONE)
            return e->child;
        if (node == 0)
            return 0;
        node = m->states[node].fail;
    }
}

/* Failure links by breadth-first order: a state's link needs those of all shorter paths. */
sfq_status sfq_matcher_finish(sfq_matcher *matcher, sfq_error *err)
{
    uint32_t *depth = SFQ_NEW_ARRAY(uint32_t, matcher->count);
    uint32_t *starts = SFQ_NEW_ARRAY(uint32_t, (size_t)matcher->count + 1);
    uint32_t *order = SFQ_NEW_ARRAY(uint32_t, matcher->count);
    bool made = depth && starts && order;
    for (uint32_t i = 1; made && i < matcher->count; i++) { /* parents come before children */
        depth[i] = depth[matcher->states[i].parent] + 1;
        starts[depth[i]]++;
    }
    for (uint32_t d = 1, sum = 0; made && d <= matcher->count; d++) {
        uint32_t here = d < matcher->count ? starts[d] : 0;
        starts[d] = sum;
        sum += here;
    }
    for (uint32_t i = 1; made && i < matcher->count; i++)
        order[starts[depth[i]]++] = i;
    for (uint32_t k = 0; made && k + 1 < matcher->count; k++) {
        state *s = &matcher->states[order[k]];
        s->fail = s->parent == 0 ? 0 : follow(matcher, matcher->states[s->parent].fail, s->byte);
        if (!s->own) {
            s->len = matcher->states[s->fail].len;
            s->value = matcher->states[s->fail].value;
        }
    }
    sfq_mem_free(depth);
    sfq_mem_free(starts);
    sfq_mem_free(order);
    return made ? SFQ_OK : sfq_fail_memory(err, matcher->count * sizeof(uint32_t), "added tokens");
}

static sfq_status add_hit(sfq_hits *hits, sfq_hit hit, sfq_error *err)
{
    if (hits->count == hits->cap) {
        size_t cap = hits->cap == 0 ? 32 : 2 * hits->cap;
        sfq_hit *v = sfq_mem_resize(hits->v, cap, sizeof(*v));
        if (!v)
            return sfq_fail_memory(err, cap * sizeof(*v), "added tokens");
        hits->v = v;
        hits->cap = cap;
    }
    hits->v[hits->count++] = hit;
    return SFQ_OK;
}

sfq_status sfq_matcher_find(const sfq_matcher *matcher, const char *s, size_t n, sfq_hits *hits,
                            sfq_error *err)
{
    uint32_t node = 0;
    hits->count = 0;
    for (size_t i = n; i > 0; i--) {
        unsigned char byte = (unsigned char)s[i - 1];
        if (node == 0 && !matcher->first[byte])
            continue;
        node = follow(matcher, node, byte);
        const state *at = &matcher->states[node];
        if (at->len > 0)
            SFQ_TRY(add_hit(hits, (sfq_hit){i - 1, at->len, at->value}, err));
    }
    return SFQ_OK;
}

/* tests/model/packing.c - packs by rounding, cuts widths to 0. */
#include "packing.h"

#include <math.h>
#include <string.h>

static float dense_value(const sfq_matrix *m, size_t n, size_t k)
{
    float v;
    size_t size = sfq_dtype_info(m->dtype)->bytes;
    sfq_to_f32(&v, (const char *)m->w + (n * m->k + k) * size, m->dtype, 1);
    return v;
}

/* One scale per cluster: the largest magnitude over 2^(bits-1) - 1. */
static void round_matrix(const sfq_matrix *m, int bits, float *scales, uint8_t *codes)
{
    const sfq_cluster *c = &m->cluster;
    float most = (float)((1 << (bits - 1)) - 1);
    for (size_t n = 0; n < m->n; n++)
        for (size_t k = 0; k < m->k; k++) {
            float *s = &scales[sfq_scale_index(c, n, k / c->segment_k)];
            *s = fmaxf(*s, fabsf(dense_value(m, n, k)) / most);
        }
    for (size_t n = 0; n < m->n; n++)
        for (size_t k = 0; k < m->k; k++) {
            float s = scales[sfq_scale_index(c, n, k / c->segment_k)];
            float code = rintf(dense_value(m, n, k) / s) + (float)(1 << (bits - 1));
            codes[n * m->k + k] = (uint8_t)code;
        }
}

void packed_decode(const packed_matrix *p)
{
    const sfq_matrix *m = &p->m;
    for (size_t n = 0; n < m->n; n++)
        for (size_t k = 0; k < m->k; k++)
            p->w[n * m->k + k] =
                p->scales[sfq_scale_index(&m->cluster, n, k / m->cluster.segment_k)] *
                (float)((int)p->codes[n * m->k + k] - (1 << (m->bits - 1)));
}

/* Replaces a dense matrix in both nets. */
static void pack(packed_net *p, sfq_matrix *packed, sfq_matrix *dense, int bits, int activation)
{
    sfq_matrix m = *packed;
    if (m.n == 0 || m.k == 0)
        return;
    assert_true(p->count < PACKED_MOST);
    assert_true(sfq_cluster_make(&m.cluster, m.n, m.k));
    const sfq_cluster *c = &m.cluster;
    float *scales = SFQ_ARENA_ARRAY(p->arena, float, sfq_cluster_scales(c));
    uint8_t *codes = SFQ_ARENA_ARRAY(p->arena, uint8_t, m.n * m.k);
    uint8_t *panels = (uint8_t *)sfq_arena_aligned(p->arena, sfq_cluster_code_bytes(c, bits));
    float *w = SFQ_ARENA_ARRAY(p->arena, float, m.n *m.k);
    round_matrix(&m, bits, scales, codes);
    sfq_panels_pack(panels, codes, c, bits, 0, c->panels);
    m.packed = true;
    m.w = NULL;
    m.codes = panels;
    m.panel_bytes = sfq_cluster_panel_bytes(c, bits);
    m.bits = bits;
    m.activation_bits = activation;
    m.scales = scales;
    *packed = m;
    dense->w = w;
    dense->dtype = SFQ_F32;
    p->matrix[p->count] = (packed_matrix){m, scales, w, codes};
    packed_decode(&p->matrix[p->count++]);
}

void packed_open(packed_net *p, const sfq_net *net)
{
    size_t layers = (size_t)net->arch->layers;
    p->arena = sfq_arena_open();
    p->count = 0;
    p->packed = p->dense = *net;
    p->packed.layer = SFQ_ARENA_ARRAY(p->arena, sfq_layer_weights, layers);
    p->dense.layer = SFQ_ARENA_ARRAY(p->arena, sfq_layer_weights, layers);
    memcpy(p->packed.layer, net->layer, layers * sizeof(sfq_layer_weights));
    memcpy(p->dense.layer, net->layer, layers * sizeof(sfq_layer_weights));
    for (size_t i = 0; i < layers; i++) {
        sfq_layer_weights *a = &p->packed.layer[i], *b = &p->dense.layer[i];
        pack(p, &a->q, &b->q, 8, 14);
        pack(p, &a->k, &b->k, 6, 14);
        pack(p, &a->v, &b->v, 8, 12); /* other codes for the same input */
        pack(p, &a->qkv, &b->qkv, 8, 14);
        pack(p, &a->o, &b->o, 8, 14);
        if (i == 0)
            pack(p, &a->gate, &b->gate, 7, 14); /* else a dense matrix beside a packed one */
        pack(p, &a->up, &b->up, 8, 14);
        pack(p, &a->down, &b->down, 5, 14);
    }
    pack(p, &p->packed.word, &p->dense.word, 8, 14);
    pack(p, &p->packed.position, &p->dense.position, 8, 14);
    pack(p, &p->packed.type, &p->dense.type, 8, 14);
    pack(p, &p->packed.pooler, &p->dense.pooler, 8, 14);
    if (net->arch->tied_head) {
        p->packed.lm_head = p->packed.word;
        p->dense.lm_head = p->dense.word;
    } else {
        pack(p, &p->packed.lm_head, &p->dense.lm_head, 8, 14);
    }
}

void packed_close(packed_net *p)
{
    sfq_arena_close(&p->arena);
}

void ragged_make(ragged_net *r, const sfq_net *net, const float *bias)
{
    size_t layers = (size_t)net->arch->layers, last = layers - 1;
    r->arch = *net->arch;
    r->net = *net;
    memcpy(r->layer_arch, net->arch->layer, layers * sizeof(r->layer_arch[0]));
    memcpy(r->layer, net->layer, layers * sizeof(r->layer[0]));
    r->arch.layer = r->layer_arch;
    r->net.arch = &r->arch;
    r->net.layer = r->layer;
    const sfq_matrix none = {0};
    sfq_layer_weights *w = &r->layer[0];
    r->layer_arch[0].heads = r->layer_arch[0].kv_heads = 0;
    w->q = w->k = w->v = w->qkv = w->o = none;
    if (bias)
        w->o = (sfq_matrix){.n = (size_t)r->arch.hidden, .bias = bias};
    else if (r->arch.pre_norm)
        w->attn_norm.gain = NULL;
    w = &r->layer[last];
    r->layer_arch[last].ffn = 0;
    w->gate = w->up = w->down = none;
    if (bias)
        w->down = (sfq_matrix){.n = (size_t)r->arch.hidden, .bias = bias};
    else if (r->arch.pre_norm)
        w->ffn_norm.gain = NULL;
}

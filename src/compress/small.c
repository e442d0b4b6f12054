/* compress/small.c - one walk over the net, first to count, then to list. */
#include "compress/small.h"

#include "base/mem.h"

typedef struct walk {
    sfq_small *items; /* NULL: only counted */
    size_t count;
    uint64_t total;
} walk;

static void add(walk *w, sfq_small item)
{
    if (*item.place == NULL || item.count == 0)
        return;
    if (w->items != NULL)
        w->items[w->count] = item;
    w->count++;
    w->total += item.count;
}

static void add_matrix(walk *w, sfq_role role, int layer, sfq_matrix *m, sfq_matrix_grad *grad)
{
    size_t scales = m->packed ? sfq_cluster_scales(&m->cluster) : 0;
    add(w, (sfq_small){role, layer, SFQ_SMALL_SCALES, &m->scales, scales, &grad->scales});
    add(w, (sfq_small){role, layer, SFQ_SMALL_BIAS, &m->bias, m->n, &grad->bias});
}

static void add_norm(walk *w, sfq_role role, int layer, sfq_norm *norm, int width,
                     sfq_norm_grad *grad)
{
    size_t n = (size_t)width;
    add(w, (sfq_small){role, layer, SFQ_SMALL_GAIN, &norm->gain, n, &grad->gain});
    add(w, (sfq_small){role, layer, SFQ_SMALL_BIAS, &norm->bias, n, &grad->bias});
}

static void add_layer(walk *w, const sfq_arch *a, int i, sfq_layer_weights *l, sfq_layer_grad *g)
{
    add_norm(w, SFQ_ROLE_ATTN_NORM, i, &l->attn_norm, a->hidden, &g->attn_norm);
    add_matrix(w, SFQ_ROLE_Q, i, &l->q, &g->q);
    add_matrix(w, SFQ_ROLE_K, i, &l->k, &g->k);
    add_matrix(w, SFQ_ROLE_V, i, &l->v, &g->v);
    add_matrix(w, SFQ_ROLE_QKV, i, &l->qkv, &g->qkv);
    add_norm(w, SFQ_ROLE_Q_NORM, i, &l->q_norm, a->head_dim, &g->q_norm);
    add_norm(w, SFQ_ROLE_K_NORM, i, &l->k_norm, a->head_dim, &g->k_norm);
    add_matrix(w, SFQ_ROLE_O, i, &l->o, &g->o);
    add_norm(w, SFQ_ROLE_FFN_NORM, i, &l->ffn_norm, a->hidden, &g->ffn_norm);
    add_matrix(w, SFQ_ROLE_GATE, i, &l->gate, &g->gate);
    add_matrix(w, SFQ_ROLE_UP, i, &l->up, &g->up);
    add_matrix(w, SFQ_ROLE_DOWN, i, &l->down, &g->down);
}

/* grads [of the net's shape] may lack its layers where nothing is listed. */
static void walk_net(walk *w, sfq_net *net, sfq_net_grad *g)
{
    const sfq_arch *a = net->arch;
    sfq_layer_grad none = {0};
    add_matrix(w, SFQ_ROLE_WORD_EMBEDDING, -1, &net->word, &g->word);
    add_matrix(w, SFQ_ROLE_POSITION_EMBEDDING, -1, &net->position, &g->position);
    add_matrix(w, SFQ_ROLE_TYPE_EMBEDDING, -1, &net->type, &g->type);
    add_norm(w, SFQ_ROLE_EMBEDDING_NORM, -1, &net->embedding_norm, a->hidden, &g->embedding_norm);
    for (int i = 0; i < a->layers; i++)
        add_layer(w, a, i, &net->layer[i], g->layer != NULL ? &g->layer[i] : &none);
    add_norm(w, SFQ_ROLE_FINAL_NORM, -1, &net->final_norm, a->hidden, &g->final_norm);
    if (!a->tied_head)
        add_matrix(w, SFQ_ROLE_LM_HEAD, -1, &net->lm_head, &g->lm_head);
    add_matrix(w, SFQ_ROLE_POOLER, -1, &net->pooler, &g->pooler);
    add_matrix(w, SFQ_ROLE_CLASSIFIER, -1, &net->classifier, &g->classifier);
}

size_t sfq_smalls_count(const sfq_net *net, uint64_t *floats)
{
    walk w = {0};
    sfq_net_grad none = {0};
    walk_net(&w, (sfq_net *)(uintptr_t)net, &none); /* which changes nothing */
    *floats = w.total;
    return w.count;
}

sfq_status sfq_smalls_open(sfq_smalls **out, sfq_net *net, sfq_error *err)
{
    uint64_t floats;
    size_t count = sfq_smalls_count(net, &floats);
    *out = NULL;
    sfq_smalls *s = SFQ_NEW(sfq_smalls);
    if (s != NULL) {
        s->items = SFQ_NEW_ARRAY(sfq_small, count);
        s->grads.layer = SFQ_NEW_ARRAY(sfq_layer_grad, (size_t)net->arch->layers);
    }
    if (s == NULL || s->items == NULL || s->grads.layer == NULL) {
        sfq_smalls_close(&s);
        return sfq_fail_memory(err, count * sizeof(sfq_small), "the list of small tensors");
    }
    walk w = {.items = s->items};
    walk_net(&w, net, &s->grads);
    s->count = w.count;
    s->total = (size_t)w.total;
    *out = s;
    return SFQ_OK;
}

void sfq_smalls_close(sfq_smalls **smalls)
{
    if (*smalls == NULL)
        return;
    sfq_mem_free((*smalls)->items);
    sfq_mem_free((*smalls)->grads.layer);
    sfq_mem_free(*smalls);
    *smalls = NULL;
}

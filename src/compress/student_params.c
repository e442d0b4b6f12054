/* compress/student_params.c - what can be trained, as one list of flat arrays. The order is that in
 * which a token meets the weights; it decides where an optimizer keeps its state, so it depends on
 * the arch alone. */
#include "compress/student.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* At most so many places, each with a weight and a bias. */
enum { LAYER_MATRICES = 8, LAYER_NORMS = 4, OUTSIDE_MAX = 16 };

static void add(sfq_params *p, int layer, const char *what, const char *part, const float *value,
                size_t count, float **gradient)
{
    sfq_param *item = &p->items[p->count];
    if (value == NULL || count == 0)
        return;
    p->count++;
    p->total += count;
    *item = (sfq_param){.value = (float *)value,
                        .gradient = gradient,
                        .count = count,
                        .decay = strcmp(part, "weight") == 0};
    if (layer >= 0)
        snprintf(item->name, sizeof item->name, "layer %d %s.%s", layer, what, part);
    else
        snprintf(item->name, sizeof item->name, "%s.%s", what, part);
}

static void add_matrix(sfq_params *p, int layer, sfq_role role, const sfq_matrix *m,
                       sfq_matrix_grad *grad)
{
    const char *name = sfq_role_name(role);
    add(p, layer, name, "weight", m->w, m->n * m->k, &grad->w);
    add(p, layer, name, "bias", m->bias, m->n, &grad->bias);
}

static void add_norm(sfq_params *p, int layer, sfq_role role, const sfq_norm *norm, size_t width,
                     sfq_norm_grad *grad)
{
    const char *name = sfq_role_name(role);
    add(p, layer, name, "gain", norm->gain, width, &grad->gain);
    add(p, layer, name, "bias", norm->bias, width, &grad->bias);
}

static void add_layer(sfq_params *p, const sfq_student *student, int layer)
{
    const sfq_layer_weights *w = &student->net->layer[layer];
    sfq_layer_grad *g = &p->grads.layer[layer];
    const size_t c = (size_t)student->arch->hidden, d = (size_t)student->arch->head_dim;
    add_norm(p, layer, SFQ_ROLE_ATTN_NORM, &w->attn_norm, c, &g->attn_norm);
    add_matrix(p, layer, SFQ_ROLE_Q, &w->q, &g->q);
    add_matrix(p, layer, SFQ_ROLE_K, &w->k, &g->k);
    add_matrix(p, layer, SFQ_ROLE_V, &w->v, &g->v);
    add_matrix(p, layer, SFQ_ROLE_QKV, &w->qkv, &g->qkv);
    add_norm(p, layer, SFQ_ROLE_Q_NORM, &w->q_norm, d, &g->q_norm);
    add_norm(p, layer, SFQ_ROLE_K_NORM, &w->k_norm, d, &g->k_norm);
    add_matrix(p, layer, SFQ_ROLE_O, &w->o, &g->o);
    add_norm(p, layer, SFQ_ROLE_FFN_NORM, &w->ffn_norm, c, &g->ffn_norm);
    add_matrix(p, layer, SFQ_ROLE_GATE, &w->gate, &g->gate);
    add_matrix(p, layer, SFQ_ROLE_UP, &w->up, &g->up);
    add_matrix(p, layer, SFQ_ROLE_DOWN, &w->down, &g->down);
}

static void add_all(sfq_params *p, const sfq_student *student, bool tables)
{
    const sfq_net *net = student->net;
    const size_t c = (size_t)student->arch->hidden;
    sfq_net_grad *g = &p->grads;
    if (tables) {
        add_matrix(p, -1, SFQ_ROLE_WORD_EMBEDDING, &net->word, &g->word);
        add_matrix(p, -1, SFQ_ROLE_POSITION_EMBEDDING, &net->position, &g->position);
        add_matrix(p, -1, SFQ_ROLE_TYPE_EMBEDDING, &net->type, &g->type);
    }
    add_norm(p, -1, SFQ_ROLE_EMBEDDING_NORM, &net->embedding_norm, c, &g->embedding_norm);
    for (int i = 0; i < student->arch->layers; i++)
        add_layer(p, student, i);
    add_norm(p, -1, SFQ_ROLE_FINAL_NORM, &net->final_norm, c, &g->final_norm);
    if (net->lm_head.w != net->word.w) /* a tied head is the word table */
        add_matrix(p, -1, SFQ_ROLE_LM_HEAD, &net->lm_head, &g->lm_head);
    add_matrix(p, -1, SFQ_ROLE_POOLER, &net->pooler, &g->pooler);
    add_matrix(p, -1, SFQ_ROLE_CLASSIFIER, &net->classifier, &g->classifier);
}

sfq_status sfq_params_open(sfq_params **out, sfq_student *student, bool tables, sfq_error *err)
{
    const size_t layers = (size_t)student->arch->layers;
    const size_t most = 2 * (layers * (LAYER_MATRICES + LAYER_NORMS) + OUTSIDE_MAX);
    *out = NULL;
    if (student->dtype != SFQ_F32)
        return sfq_fail(err, SFQ_E_ARGUMENT, "only weights in F32 can be trained");
    sfq_params *p = SFQ_NEW(sfq_params);
    if (p != NULL) {
        p->items = SFQ_NEW_ARRAY(sfq_param, most);
        p->grads.layer = SFQ_NEW_ARRAY(sfq_layer_grad, layers);
    }
    if (p == NULL || p->items == NULL || p->grads.layer == NULL) {
        sfq_params_close(&p);
        return sfq_fail_memory(err, most * sizeof(sfq_param), "the list of parameters");
    }
    add_all(p, student, tables);
    *out = p;
    return SFQ_OK;
}

void sfq_params_close(sfq_params **params)
{
    if (*params == NULL)
        return;
    sfq_mem_free((*params)->items);
    sfq_mem_free((*params)->grads.layer);
    sfq_mem_free(*params);
    *params = NULL;
}

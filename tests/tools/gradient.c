/* tests/tools/gradient.c - runs a model directory on token ids, forward and backward from a fixed
 * loss, and writes gradients as raw floats, for comparison with an oracle.
 *
 *   sfq-test-gradient MODEL IDS OUT [--threads N] [--isa NAME]
 *
 * IDS as in kit.h. The loss: language models the mean cross-entropy of all next tokens; classifiers
 * the mean cross-entropy with label s mod labels for sequence s; regression the mean squared error
 * from targets ((3 s + j) mod 5) / 4; embeddings sum over s, c of ((37 (s C + c)) mod 101 - 50) /
 * 50 times the output.
 *
 * OUT.weights: gradients of all tensors. OUT.heads [S, sum of heads], OUT.neurons [S, sum of ffn]:
 * per sequence the gradients of a mask on each head and neuron, sum over its tokens (and channels)
 * of activation times gradient. stdout: JSON with the loss, the tensors in file order, and the
 * names of the matrices that read the masked activations. */
#include "kit/kit.h"

#include "base/mem.h"
#include "model/grad.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    const char *model, *ids, *out;
    int threads;
    sfq_isa isa;
} options;

typedef struct piece {
    float *at;
    char name[256];
    size_t n, k; /* n 0: a vector of k */
    bool transposed;
} piece;

typedef struct state {
    options opt;
    kit_input *in;
    kit_model model;
    sfq_grad *grad;
    sfq_batch batch;
    sfq_net_grad into;
    float *weights; /* [floats] */
    size_t floats, pieces;
    piece *piece;
    float *heads, *neurons; /* [S, heads], [S, neurons] */
    size_t head_count, neuron_count;
    double loss;
} state;

static bool parse_options(options *o, int argc, char **argv)
{
    *o = (options){.threads = 1, .isa = SFQ_ISA_COUNT};
    if (argc < 4 || argc % 2 != 0)
        return false;
    o->model = argv[1];
    o->ids = argv[2];
    o->out = argv[3];
    for (int i = 4; i < argc; i += 2) {
        if (strcmp(argv[i], "--threads") == 0)
            o->threads = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--isa") == 0)
            o->isa = kit_isa(argv[i + 1]);
        else
            return false;
    }
    return true;
}

/* ---- where each tensor's gradient goes ---- */

static sfq_matrix_grad *matrix_of(sfq_net_grad *into, const sfq_module *m)
{
    sfq_layer_grad *l = m->layer >= 0 ? &into->layer[m->layer] : NULL;
    switch (m->role) {
    case SFQ_ROLE_WORD_EMBEDDING:
        return &into->word;
    case SFQ_ROLE_POSITION_EMBEDDING:
        return &into->position;
    case SFQ_ROLE_TYPE_EMBEDDING:
        return &into->type;
    case SFQ_ROLE_LM_HEAD:
        return &into->lm_head;
    case SFQ_ROLE_POOLER:
        return &into->pooler;
    case SFQ_ROLE_CLASSIFIER:
        return &into->classifier;
    case SFQ_ROLE_Q:
        return &l->q;
    case SFQ_ROLE_K:
        return &l->k;
    case SFQ_ROLE_V:
        return &l->v;
    case SFQ_ROLE_QKV:
        return &l->qkv;
    case SFQ_ROLE_O:
        return &l->o;
    case SFQ_ROLE_GATE:
        return &l->gate;
    case SFQ_ROLE_UP:
        return &l->up;
    case SFQ_ROLE_DOWN:
        return &l->down;
    default:
        return NULL;
    }
}

static sfq_norm_grad *norm_of(sfq_net_grad *into, const sfq_module *m)
{
    sfq_layer_grad *l = m->layer >= 0 ? &into->layer[m->layer] : NULL;
    switch (m->role) {
    case SFQ_ROLE_EMBEDDING_NORM:
        return &into->embedding_norm;
    case SFQ_ROLE_FINAL_NORM:
        return &into->final_norm;
    case SFQ_ROLE_ATTN_NORM:
        return &l->attn_norm;
    case SFQ_ROLE_FFN_NORM:
        return &l->ffn_norm;
    case SFQ_ROLE_Q_NORM:
        return &l->q_norm;
    case SFQ_ROLE_K_NORM:
        return &l->k_norm;
    default:
        return NULL;
    }
}

static void add_piece(state *s, const sfq_module *m, const char *suffix, size_t n, size_t k,
                      float **to)
{
    piece *p = &s->piece[s->pieces++];
    if (s->weights)
        p->at = *to = s->weights + s->floats;
    snprintf(p->name, sizeof(p->name), "%s.%s", m->name, suffix);
    p->n = n;
    p->k = k;
    p->transposed = m->transposed && strcmp(suffix, "weight") == 0;
    s->floats += n > 0 ? n * k : k;
}

/* Once to count the floats, once to hand them out. */
static void place_pieces(state *s)
{
    s->floats = s->pieces = 0;
    for (size_t i = 0; i < s->model.modules->count; i++) {
        const sfq_module *m = &s->model.modules->items[i];
        sfq_matrix_grad *w = matrix_of(&s->into, m);
        sfq_norm_grad *norm = norm_of(&s->into, m);
        if (norm) {
            add_piece(s, m, "weight", 0, m->k, &norm->gain);
            if (m->bias)
                add_piece(s, m, "bias", 0, m->k, &norm->bias);
            continue;
        }
        if (m->k > 0)
            add_piece(s, m, "weight", m->n, m->k, &w->w);
        if (m->bias)
            add_piece(s, m, "bias", 0, m->n, &w->bias);
    }
    if (s->model.arch->tied_head)
        s->into.lm_head.w = s->into.word.w;
}

static sfq_status open_gradients(state *s, sfq_error *err)
{
    const sfq_arch *arch = s->model.arch;
    size_t sequences = s->in->sequences;
    s->into.layer = SFQ_NEW_ARRAY(sfq_layer_grad, (size_t)arch->layers);
    s->piece = SFQ_NEW_ARRAY(piece, 2 * s->model.modules->count);
    if (!s->into.layer || !s->piece)
        return sfq_fail_memory(err, s->model.modules->count, "gradients");
    place_pieces(s);
    s->weights = SFQ_NEW_ARRAY(float, s->floats);
    for (int i = 0; i < arch->layers; i++) {
        s->head_count += (size_t)arch->layer[i].heads;
        s->neuron_count += (size_t)arch->layer[i].ffn;
    }
    s->heads = SFQ_NEW_ARRAY(float, sequences * s->head_count);
    s->neurons = SFQ_NEW_ARRAY(float, sequences * s->neuron_count);
    if (!s->weights || !s->heads || !s->neurons)
        return sfq_fail_memory(err, s->floats, "gradients");
    place_pieces(s);
    return SFQ_OK;
}

/* ---- losses: value, and the gradient in place of what was computed ---- */

/* -log softmax(x)[label] * share; x becomes its gradient. */
static double cross_entropy(float *x, size_t n, size_t label, double share)
{
    double most = (double)x[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        most = fmax(most, (double)x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - most);
    double loss = most + log(sum) - (double)x[label];
    for (size_t i = 0; i < n; i++) {
        double p = exp((double)x[i] - most) / sum;
        x[i] = (float)(share * (p - (i == label ? 1 : 0)));
    }
    return share * loss;
}

static sfq_status lm_loss(state *s, const float *hidden, float *d_hidden, sfq_error *err)
{
    const sfq_batch *b = &s->batch;
    size_t v = (size_t)s->model.arch->vocab, t = b->offset[b->sequences], count = 0;
    size_t *rows = SFQ_NEW_ARRAY(size_t, t);
    float *logits = SFQ_NEW_ARRAY(float, t *v);
    sfq_status status = SFQ_OK;
    if (!rows || !logits)
        SFQ_DO(sfq_fail_memory(err, t * v, "logits"));
    for (size_t q = 0; q < b->sequences; q++)
        for (size_t i = b->offset[q]; i + 1 < b->offset[q + 1]; i++)
            rows[count++] = i;
    SFQ_DO(sfq_forward_logits(sfq_grad_exec(s->grad), hidden, rows, count, logits, err));
    for (size_t i = 0; i < count; i++)
        s->loss += cross_entropy(logits + i * v, v, (size_t)b->ids[rows[i] + 1], 1 / (double)count);
    status = sfq_grad_logits(s->grad, rows, count, logits, d_hidden, &s->into, err);
done:
    sfq_mem_free(rows);
    sfq_mem_free(logits);
    return status;
}

static sfq_status labels_loss(state *s, const float *hidden, float *d_hidden, sfq_error *err)
{
    size_t n = (size_t)s->model.arch->labels, sequences = s->batch.sequences;
    bool regression = s->model.arch->head == SFQ_MODEL_HEAD_REGRESSION;
    float *out = SFQ_NEW_ARRAY(float, sequences *n);
    sfq_status status = SFQ_OK;
    if (!out)
        SFQ_DO(sfq_fail_memory(err, sequences * n, "labels"));
    SFQ_DO(sfq_forward_labels(sfq_grad_exec(s->grad), &s->batch, hidden, out, err));
    for (size_t q = 0; q < sequences; q++) {
        float *x = out + q * n;
        if (!regression)
            s->loss += cross_entropy(x, n, q % n, 1 / (double)sequences);
        for (size_t j = 0; regression && j < n; j++) {
            double d = (double)x[j] - (double)((3 * q + j) % 5) / 4;
            s->loss += d * d / (double)(sequences * n);
            x[j] = (float)(2 * d / (double)(sequences * n));
        }
    }
    status = sfq_grad_labels(s->grad, out, d_hidden, &s->into, err);
done:
    sfq_mem_free(out);
    return status;
}

static sfq_status embedding_loss(state *s, const float *hidden, float *d_hidden, sfq_error *err)
{
    size_t n = s->batch.sequences * (size_t)s->model.arch->hidden;
    float *out = SFQ_NEW_ARRAY(float, n);
    sfq_status status = SFQ_OK;
    if (!out)
        SFQ_DO(sfq_fail_memory(err, n, "embeddings"));
    SFQ_DO(sfq_forward_embedding(sfq_grad_exec(s->grad), &s->batch, hidden, out, err));
    for (size_t i = 0; i < n; i++) {
        float weight = ((float)(37 * i % 101) - 50) / 50;
        s->loss += (double)weight * (double)out[i];
        out[i] = weight;
    }
    status = sfq_grad_embedding(s->grad, out, d_hidden, err);
done:
    sfq_mem_free(out);
    return status;
}

/* ---- masks ---- */

static void take_masks(void *ud, const sfq_grad_view *view)
{
    state *s = (state *)ud;
    const sfq_arch *arch = s->model.arch;
    size_t unit = view->ffn ? 1 : (size_t)arch->head_dim, at = 0;
    for (int i = 0; i < view->layer; i++)
        at += (size_t)(view->ffn ? arch->layer[i].ffn : arch->layer[i].heads);
    for (size_t q = 0; q < s->batch.sequences; q++)
        for (size_t j = 0; j < view->width / unit; j++) {
            double sum = 0;
            for (size_t t = s->batch.offset[q]; t < s->batch.offset[q + 1]; t++)
                for (size_t c = 0; c < unit; c++) {
                    size_t i = t * view->width + j * unit + c;
                    sum += (double)view->act[i] * (double)view->d_act[i];
                }
            if (view->ffn)
                s->neurons[q * s->neuron_count + at + j] = (float)sum;
            else
                s->heads[q * s->head_count + at + j] = (float)sum;
        }
}

/* ---- all of it ---- */

static sfq_status run_passes(state *s, sfq_error *err)
{
    size_t t = s->in->offset[s->in->sequences], c = (size_t)s->model.arch->hidden;
    const float *hidden;
    const sfq_grad_hooks hooks = {.ud = s, .sublayer = take_masks};
    float *d_hidden = SFQ_NEW_ARRAY(float, t *c);
    sfq_status status = SFQ_OK;
    if (!d_hidden)
        SFQ_DO(sfq_fail_memory(err, t * c, "gradients"));
    s->batch = (sfq_batch){.sequences = s->in->sequences,
                           .offset = s->in->offset,
                           .ids = s->in->ids,
                           .types = s->in->typed ? s->in->types : NULL};
    SFQ_DO(sfq_grad_forward(s->grad, &s->batch, &hidden, err));
    if (s->model.arch->head == SFQ_MODEL_HEAD_LM)
        SFQ_DO(lm_loss(s, hidden, d_hidden, err));
    else if (s->model.arch->head == SFQ_MODEL_HEAD_EMBEDDING)
        SFQ_DO(embedding_loss(s, hidden, d_hidden, err));
    else
        SFQ_DO(labels_loss(s, hidden, d_hidden, err));
    status = sfq_grad_backward(s->grad, d_hidden, &s->into, &hooks, err);
done:
    sfq_mem_free(d_hidden);
    return status;
}

static void print_names(const state *s, sfq_role role)
{
    const char *separator = "";
    for (int i = 0; i < s->model.arch->layers; i++) {
        const sfq_module *m = sfq_modules_find(s->model.modules, role, i);
        if (m)
            printf("%s[%d, \"%s\"]", separator, i, m->name);
        separator = m ? ", " : separator;
    }
}

static void print_piece(const piece *p, const char *separator)
{
    printf("%s{\"name\": \"%s\", \"transposed\": %s, \"shape\": [", separator, p->name,
           p->transposed ? "true" : "false");
    if (p->n > 0)
        printf("%zu, ", p->n);
    printf("%zu]}", p->k);
}

static void print_result(const state *s)
{
    printf("{\"loss\": %.9g, \"head_dim\": %d, \"heads\": %zu, \"neurons\": %zu, \"tensors\": [",
           s->loss, s->model.arch->head_dim, s->head_count, s->neuron_count);
    for (size_t i = 0; i < s->pieces; i++)
        print_piece(&s->piece[i], i ? ", " : "");
    printf("], \"attention\": [");
    print_names(s, SFQ_ROLE_O);
    printf("], \"ffn\": [");
    print_names(s, SFQ_ROLE_DOWN);
    printf("]}\n");
}

static sfq_status run(state *s, sfq_error *err)
{
    SFQ_TRY(kit_open(&s->model, s->opt.model, s->opt.threads, err));
    SFQ_TRY(open_gradients(s, err));
    SFQ_TRY(sfq_grad_open(&s->grad, s->model.net, sfq_kernels_get(s->opt.isa), s->model.pool, err));
    SFQ_TRY(run_passes(s, err));
    size_t sequences = s->in->sequences;
    if (!kit_write_floats(s->opt.out, "weights", s->weights, s->floats) ||
        !kit_write_floats(s->opt.out, "heads", s->heads, sequences * s->head_count) ||
        !kit_write_floats(s->opt.out, "neurons", s->neurons, sequences * s->neuron_count))
        return sfq_fail(err, SFQ_E_IO, "cannot write %s.*", s->opt.out);
    print_result(s);
    return SFQ_OK;
}

int main(int argc, char **argv)
{
    state s = {0};
    sfq_error err = {0};
    sfq_status status = SFQ_E_ARGUMENT;
    s.in = SFQ_NEW(kit_input);
    if (!s.in || !parse_options(&s.opt, argc, argv) || !kit_read_input(s.in, s.opt.ids))
        sfq_fail(&err, status, "usage: sfq-test-gradient MODEL IDS OUT [--threads N] [--isa NAME]");
    else
        status = run(&s, &err);
    int code = kit_exit(status, &err);
    sfq_grad_close(&s.grad);
    kit_close(&s.model);
    sfq_mem_free(s.weights);
    sfq_mem_free(s.heads);
    sfq_mem_free(s.neurons);
    sfq_mem_free(s.piece);
    sfq_mem_free(s.into.layer);
    sfq_mem_free(s.in);
    return code;
}

/* tests/tools/score.c - runs a saliency over token ids as the calibration set and writes it as raw
 * floats, for comparison with an oracle.
 *
 *   sfq-test-score MODEL IDS OUT KIND SEED ROUND THREADS
 *
 * IDS as in kit.h. OUT.groups [sum of KV heads], OUT.neurons [sum of ffn], OUT.attn and OUT.ffn
 * [layers, T] token weights. stdout: one line of JSON with the sizes. */
#include "kit/kit.h"

#include "base/mem.h"
#include "compress/score.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct state {
    sfq_compress_options options;
    kit_input *in;
    kit_model model;
    sfq_source *source;
    sfq_student *student;
    sfq_saliency *saliency;
    sfq_calibration calibration;
} state;

static sfq_status compute(state *s, sfq_saliency_kind kind, int round, sfq_error *err)
{
    const sfq_hooks none = {0};
    s->calibration = (sfq_calibration){.count = s->in->sequences,
                                       .tune = s->in->sequences,
                                       .offset = s->in->offset,
                                       .ids = s->in->ids,
                                       .types = s->in->typed ? s->in->types : NULL};
    SFQ_TRY(kit_open(&s->model, s->options.model, s->options.threads, err));
    SFQ_TRY(sfq_source_open(&s->source, &s->options, err));
    SFQ_TRY(sfq_student_open(&s->student, s->source, SFQ_F32, &none, err));
    const sfq_work work = {.options = &s->options,
                           .source = s->source,
                           .teacher = s->model.net,
                           .kernels = sfq_kernels_get(SFQ_ISA_COUNT),
                           .pool = s->model.pool,
                           .calibration = &s->calibration,
                           .stage = "score",
                           .index = 1,
                           .stages = 1,
                           .deadline = INFINITY};
    return sfq_score_run(&s->saliency, &work, s->student, kind, round, err);
}

/* One file from a part of every layer. */
static bool put(const state *s, const char *out, const char *name, bool ffn, bool weights)
{
    const sfq_arch *arch = s->student->arch;
    float *all = NULL;
    size_t count = 0;
    for (int i = 0; i < arch->layers; i++) {
        const sfq_layer_saliency *l = &s->saliency->layer[i];
        const size_t units = (size_t)(ffn ? arch->layer[i].ffn : arch->layer[i].kv_heads);
        const size_t n = weights ? s->saliency->tokens : units;
        const float *from = ffn ? l->neuron : l->group;
        if (weights)
            from = ffn ? l->ffn_weight : l->attn_weight;
        float *more = sfq_mem_resize(all, count + n, sizeof *all);
        if (more == NULL)
            break;
        all = more;
        memcpy(all + count, from, n * sizeof *from);
        count += n;
    }
    bool ok = all != NULL && kit_write_floats(out, name, all, count);
    sfq_mem_free(all);
    return ok;
}

static void free_state(state *s)
{
    sfq_saliency_close(&s->saliency);
    sfq_student_close(&s->student);
    sfq_source_close(&s->source);
    kit_close(&s->model);
    sfq_mem_free(s->in);
}

int main(int argc, char **argv)
{
    state s = {.in = SFQ_NEW(kit_input)};
    sfq_saliency_kind kind;
    sfq_error err = {0};
    int rc = 2;
    if (argc != 8 || s.in == NULL || !sfq_saliency_find(argv[4], &kind) ||
        !kit_read_input(s.in, argv[2])) {
        fprintf(stderr, "usage: sfq-test-score MODEL IDS OUT KIND SEED ROUND THREADS\n");
        free_state(&s);
        return rc;
    }
    s.options = (sfq_compress_options){.struct_size = sizeof s.options,
                                       .model = argv[1],
                                       .seed = strtoull(argv[5], NULL, 10),
                                       .threads = atoi(argv[7])};
    rc = kit_exit(compute(&s, kind, atoi(argv[6]), &err), &err);
    if (rc == 0 && put(&s, argv[3], "groups", false, false) &&
        put(&s, argv[3], "neurons", true, false) && put(&s, argv[3], "attn", false, true) &&
        put(&s, argv[3], "ffn", true, true))
        printf("{\"layers\": %d, \"tokens\": %zu}\n", s.saliency->layers, s.saliency->tokens);
    free_state(&s);
    return rc;
}

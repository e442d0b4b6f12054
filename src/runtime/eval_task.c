/* runtime/eval_task.c - labelled data: classifiers by their top label, regression heads by their
 * value, embedders on pairs with values by the cosine of the two vectors (STS-B needs no training
 * then). */
#include "base/mem.h"
#include "data/metric.h"
#include "runtime/classify.h"
#include "runtime/compare.h"
#include "runtime/eval_parts.h"

#include <math.h>

typedef struct sfq_task_eval {
    sfq_engine *engine, *against;
    const sfq_eval_options *o;
    sfq_dataset *data;
    size_t n;
    sfq_text_pair *inputs;     /* [n]; an embedder's second texts behind them */
    float *logits, *reference; /* [n, labels] */
    float *predicted, *values; /* [n] of regression */
    int *classes, *labels;     /* [n] of classification */
    double *kl;
    unsigned char *same;
} sfq_task_eval;

static void close_eval(sfq_task_eval *e)
{
    sfq_dataset_close(&e->data);
    sfq_mem_free(e->inputs);
    sfq_mem_free(e->logits);
    sfq_mem_free(e->reference);
    sfq_mem_free(e->predicted);
    sfq_mem_free(e->values);
    sfq_mem_free(e->classes);
    sfq_mem_free(e->labels);
    sfq_mem_free(e->kl);
    sfq_mem_free(e->same);
}

/* ---- head and task --------------------------------------------------------------------------- */

static sfq_status open_data(sfq_task_eval *e, sfq_error *err)
{
    const sfq_arch *arch = e->engine->arch;
    const sfq_hf_config *config = e->engine->config;
    bool classes = arch->head == SFQ_MODEL_HEAD_CLASSIFIER;
    const char *const *names =
        classes && config->label_count == arch->labels ? config->labels : NULL;
    if (arch->head == SFQ_MODEL_HEAD_LM)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, e->engine->path, NULL,
                           "%s is a language model; it is evaluated on text, not on task %s",
                           e->engine->path, e->o->task != NULL ? e->o->task : "own");
    SFQ_TRY(sfq_dataset_open(&e->data, e->o->task, e->o->data,
                             e->o->split != NULL ? e->o->split : "dev", names,
                             classes ? arch->labels : 1, err));
    const sfq_task *task = e->data->task;
    bool values = task->kind == SFQ_TASK_REGRESSION;
    if (classes == values)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, e->engine->path, NULL,
                           "task %s has %s, the head of %s gives %s", task->name,
                           values ? "values" : "classes", arch->architecture,
                           classes ? "classes" : "values or vectors");
    if (arch->head == SFQ_MODEL_HEAD_REGRESSION && arch->labels != 1)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, e->engine->path, NULL,
                           "task %s has one value per example, the head of %s gives %d", task->name,
                           e->engine->path, arch->labels);
    if (classes && task->label_count > 0 && task->label_count != arch->labels)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, e->engine->path, NULL,
                           "task %s has %d labels, the model %d", task->name, task->label_count,
                           arch->labels);
    e->n = e->data->count;
    return SFQ_OK;
}

static sfq_status make_inputs(sfq_task_eval *e, bool embed, sfq_error *err)
{
    e->inputs = SFQ_NEW_ARRAY(sfq_text_pair, embed ? 2 * e->n : e->n);
    if (e->inputs == NULL)
        return sfq_fail_memory(err, e->n * sizeof(*e->inputs), "examples");
    for (size_t i = 0; i < e->n; i++) {
        const sfq_example *x = &e->data->examples[i];
        e->inputs[i] = (sfq_text_pair){x->text, x->text_bytes, x->pair, x->pair_bytes};
        if (!embed)
            continue;
        if (x->pair == NULL)
            return sfq_fail(err, SFQ_E_UNSUPPORTED,
                            "example %zu has one text; an embedder is evaluated on pairs", i + 1);
        e->inputs[i] = (sfq_text_pair){.text = x->text, .text_bytes = x->text_bytes};
        e->inputs[e->n + i] = (sfq_text_pair){.text = x->pair, .text_bytes = x->pair_bytes};
    }
    return SFQ_OK;
}

static sfq_status set_metrics(const sfq_task_eval *e, sfq_eval_result *out, sfq_error *err)
{
    const sfq_task *task = e->data->task;
    out->task = task->name;
    out->n = e->n;
    out->metric_count = task->metric_count;
    for (int i = 0; i < task->metric_count; i++) {
        double value = 0;
        if (task->kind == SFQ_TASK_CLASSES)
            value = sfq_metric_classes(task->metrics[i], e->classes, e->labels, e->n);
        else if (!sfq_metric_values(task->metrics[i], e->predicted, e->values, e->n, &value))
            return sfq_fail_memory(err, e->n * sizeof(double), "metric");
        out->metrics[i] = (sfq_metric){sfq_metric_name(task->metrics[i]), value};
    }
    out->metric = out->metrics[0].name;
    out->value = out->metrics[0].value;
    return SFQ_OK;
}

static sfq_status alloc_results(sfq_task_eval *e, size_t width, sfq_error *err)
{
    e->logits = SFQ_NEW_ARRAY(float, e->n *width);
    e->reference = SFQ_NEW_ARRAY(float, e->against != NULL ? e->n * width : 1);
    e->predicted = SFQ_NEW_ARRAY(float, e->n);
    e->values = SFQ_NEW_ARRAY(float, e->n);
    e->classes = SFQ_NEW_ARRAY(int, e->n);
    e->labels = SFQ_NEW_ARRAY(int, e->n);
    e->kl = SFQ_NEW_ARRAY(double, e->n);
    e->same = SFQ_NEW_ARRAY(unsigned char, e->n);
    bool ok = e->logits != NULL && e->reference != NULL && e->predicted != NULL &&
              e->values != NULL && e->classes != NULL && e->labels != NULL && e->kl != NULL &&
              e->same != NULL;
    return ok ? SFQ_OK : sfq_fail_memory(err, e->n * width * sizeof(float), "answers");
}

/* ---- heads ----------------------------------------------------------------------------------- */

static sfq_status run_labels(const sfq_task_eval *e, sfq_engine *engine, float *out, sfq_error *err)
{
    return sfq_engine_label_logits(engine, e->inputs, e->n, (size_t)e->o->batch, &e->o->hooks, out,
                                   err);
}

static sfq_status eval_classes(sfq_task_eval *e, sfq_eval_result *out, sfq_error *err)
{
    size_t width = (size_t)e->engine->arch->labels;
    SFQ_TRY(run_labels(e, e->engine, e->logits, err));
    if (e->against != NULL)
        SFQ_TRY(run_labels(e, e->against, e->reference, err));
    for (size_t i = 0; i < e->n; i++) {
        e->classes[i] = (int)sfq_argmax(e->logits + i * width, width);
        e->labels[i] = e->data->examples[i].label;
    }
    SFQ_TRY(set_metrics(e, out, err));
    if (e->against == NULL)
        return SFQ_OK;
    for (size_t i = 0; i < e->n; i++) {
        const float *reference = e->reference + i * width;
        e->kl[i] = sfq_kl_divergence(reference, e->logits + i * width, width);
        e->same[i] = (int)sfq_argmax(reference, width) == e->classes[i];
    }
    return sfq_compare_finish(e->kl, e->same, e->n, out, err);
}

/* A value is no distribution: there is nothing to compare beyond the metrics. */
static sfq_status eval_values(sfq_task_eval *e, sfq_eval_result *out, sfq_error *err)
{
    SFQ_TRY(run_labels(e, e->engine, e->predicted, err));
    for (size_t i = 0; i < e->n; i++)
        e->values[i] = e->data->examples[i].value;
    return set_metrics(e, out, err);
}

static double cosine(const float *a, const float *b, size_t n)
{
    double aa = 0, bb = 0, ab = 0;
    for (size_t i = 0; i < n; i++) {
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
        ab += (double)a[i] * (double)b[i];
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa) / sqrt(bb) : 0.0;
}

static sfq_status eval_embedder(sfq_task_eval *e, sfq_eval_result *out, sfq_error *err)
{
    size_t width = (size_t)e->engine->arch->hidden;
    SFQ_TRY(sfq_engine_embed(e->engine, e->inputs, 2 * e->n, (size_t)e->o->batch, &e->o->hooks,
                             e->logits, err));
    for (size_t i = 0; i < e->n; i++) {
        const float *pair = e->logits + (e->n + i) * width;
        e->predicted[i] = (float)cosine(e->logits + i * width, pair, width);
        e->values[i] = e->data->examples[i].value;
    }
    return set_metrics(e, out, err);
}

sfq_status sfq_eval_task(sfq_engine *engine, sfq_engine *against, const sfq_eval_options *options,
                         sfq_eval_result *out, sfq_error *err)
{
    sfq_task_eval e = {.engine = engine, .against = against, .o = options};
    sfq_model_head head = engine->arch->head;
    bool embed = head == SFQ_MODEL_HEAD_EMBEDDING;
    sfq_status status = SFQ_OK;
    SFQ_DO(open_data(&e, err));
    SFQ_DO(make_inputs(&e, embed, err));
    SFQ_DO(alloc_results(
        &e, embed ? 2 * (size_t)engine->arch->hidden : (size_t)engine->arch->labels, err));
    if (head == SFQ_MODEL_HEAD_CLASSIFIER)
        SFQ_DO(eval_classes(&e, out, err));
    else if (embed)
        SFQ_DO(eval_embedder(&e, out, err));
    else
        SFQ_DO(eval_values(&e, out, err));
done:
    close_eval(&e);
    return status;
}

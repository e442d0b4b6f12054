/* runtime/eval.c - the one entry to evaluation: checks what was asked and hands it to
 * eval_task.c or eval_text.c. */
#include "runtime/eval.h"

#include "base/clock.h"
#include "runtime/eval_parts.h"

#include <string.h>

static sfq_status check_options(const sfq_eval_options *o, sfq_error *err)
{
    if ((o->task != NULL || o->data != NULL) == (o->text_count > 0))
        return sfq_fail(err, SFQ_E_ARGUMENT, "evaluate either a task with its data or text files");
    if (o->text_count > 0 && o->text_files == NULL)
        return sfq_fail(err, SFQ_E_ARGUMENT, "text_count is set, text_files is NULL");
    for (size_t i = 0; i < o->text_count; i++)
        if (o->text_files[i] == NULL)
            return sfq_fail(err, SFQ_E_ARGUMENT, "text file %zu is NULL", i + 1);
    if (o->text_count == 0 && o->data == NULL)
        return sfq_fail(err, SFQ_E_ARGUMENT, "task %s needs the directory of its data", o->task);
    if (o->context < 0 || o->batch < 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "context and batch must not be negative");
    return SFQ_OK;
}

/* Two models are comparable when the same ids mean the same in both. */
static sfq_status check_against(const sfq_engine *engine, const sfq_engine *against, sfq_error *err)
{
    const sfq_arch *a = engine->arch, *b = against->arch;
    if (a->head != b->head || a->labels != b->labels)
        return sfq_fail(err, SFQ_E_ARGUMENT, "%s and %s have different heads", engine->path,
                        against->path);
    if (a->head == SFQ_MODEL_HEAD_LM && (a->vocab != b->vocab || a->bos != b->bos))
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "%s and %s have different vocabularies, their answers do not compare",
                        engine->path, against->path);
    return SFQ_OK;
}

sfq_status sfq_engine_evaluate(sfq_engine *engine, sfq_engine *against,
                               const sfq_eval_options *options, sfq_eval_result *out,
                               sfq_error *err)
{
    double begin = sfq_clock_seconds();
    sfq_model_info info;
    memset(out, 0, sizeof(*out));
    SFQ_TRY(check_options(options, err));
    SFQ_TRY(sfq_engine_need(engine, SFQ_NEED_TOKENIZER, err));
    SFQ_TRY(sfq_engine_info(engine, &info, err));
    if (against != NULL) {
        SFQ_TRY(sfq_engine_need(against, SFQ_NEED_TOKENIZER, err));
        SFQ_TRY(check_against(engine, against, err));
    }
    if (options->text_count > 0)
        SFQ_TRY(sfq_eval_texts(engine, against, options, out, err));
    else
        SFQ_TRY(sfq_eval_task(engine, against, options, out, err));
    out->isa = engine->kernels->isa_name;
    out->activation_bits = info.activation_bits;
    out->seconds = sfq_clock_seconds() - begin;
    return SFQ_OK;
}

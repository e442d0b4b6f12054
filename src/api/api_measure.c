/* api/api_measure.c - <sfq/session.h>, measuring: evaluation and benchmarks. */
#include "api/api.h"
#include "base/mem.h"
#include "runtime/bench.h"
#include "runtime/eval.h"

void sfq_eval_options_default(sfq_eval_options *options)
{
    if (options != NULL)
        *options = (sfq_eval_options){.struct_size = sizeof(*options), .split = "dev"};
}

sfq_status sfq_evaluate(sfq_model *model, const sfq_eval_options *options, sfq_eval_result *out,
                        sfq_error *err)
{
    SFQ_API_NEED(out);
    *out = (sfq_eval_result){0};
    SFQ_API_NEED(model);
    SFQ_API_NEED(options);
    sfq_eval_options o;
    sfq_eval_options_default(&o);
    SFQ_TRY(sfq_api_options(&o, sizeof(o), options, options->struct_size, "sfq_eval_options", err));
    sfq_engine *against = o.against != NULL ? o.against->engine : NULL;
    sfq_status status = sfq_engine_evaluate(model->engine, against, &o, out, err);
    if (status != SFQ_OK)
        *out = (sfq_eval_result){0};
    return status;
}

void sfq_bench_options_default(sfq_bench_options *options)
{
    if (options != NULL)
        *options = (sfq_bench_options){.struct_size = sizeof(*options),
                                       .prompt_tokens = 512,
                                       .generate_tokens = 128,
                                       .batch = 1,
                                       .rounds = 3};
}

/* Options filled and checked, results cleared; then the run. */
static sfq_status bench(const sfq_bench_subject *subjects, size_t count,
                        const sfq_bench_options *options, sfq_bench_result *results,
                        const char **isa, int *threads, sfq_error *err)
{
    const char *used_isa = NULL;
    int used_threads = 0;
    sfq_bench_options o;
    sfq_bench_options_default(&o);
    for (size_t i = 0; i < count; i++)
        results[i] = (sfq_bench_result){0};
    SFQ_TRY(sfq_api_options(&o, sizeof(o), options, options != NULL ? options->struct_size : 0,
                            "sfq_bench_options", err));
    if (o.threads < 0 || o.threads > SFQ_MAX_THREADS)
        return sfq_fail(err, SFQ_E_ARGUMENT, "threads must be in 1..%d, or 0 for the default",
                        SFQ_MAX_THREADS);
    sfq_status status =
        sfq_bench_subjects(subjects, count, &o, results, &used_isa, &used_threads, err);
    for (size_t i = 0; status != SFQ_OK && i < count; i++)
        results[i] = (sfq_bench_result){0};
    if (isa != NULL)
        *isa = used_isa;
    if (threads != NULL)
        *threads = used_threads;
    return status;
}

sfq_status sfq_bench(const char *const *paths, size_t count, const sfq_bench_options *options,
                     sfq_bench_result *results, const char **isa, int *threads, sfq_error *err)
{
    SFQ_API_NEED(paths);
    SFQ_API_NEED(results);
    for (size_t i = 0; i < count; i++)
        SFQ_API_NEED(paths[i]);
    sfq_bench_subject *subjects = SFQ_NEW_ARRAY(sfq_bench_subject, count);
    if (subjects == NULL)
        return sfq_fail_memory(err, count * sizeof(*subjects), "benchmark");
    for (size_t i = 0; i < count; i++)
        subjects[i].path = paths[i];
    sfq_status status = bench(subjects, count, options, results, isa, threads, err);
    sfq_mem_free(subjects);
    return status;
}

sfq_status sfq_bench_shapes(const sfq_bench_shape *shapes, size_t count,
                            const sfq_bench_options *options, sfq_bench_result *results,
                            const char **isa, int *threads, sfq_error *err)
{
    SFQ_API_NEED(shapes);
    SFQ_API_NEED(results);
    sfq_bench_subject *subjects = SFQ_NEW_ARRAY(sfq_bench_subject, count);
    if (subjects == NULL)
        return sfq_fail_memory(err, count * sizeof(*subjects), "benchmark");
    for (size_t i = 0; i < count; i++)
        subjects[i].shape = &shapes[i];
    sfq_status status = bench(subjects, count, options, results, isa, threads, err);
    sfq_mem_free(subjects);
    return status;
}

sfq_status sfq_probe(int threads, sfq_probe_result *out, sfq_error *err)
{
    sfq_isa cap = SFQ_ISA_COUNT;
    sfq_pool *pool = NULL;
    SFQ_API_NEED(out);
    SFQ_TRY(sfq_isa_from_env(&cap, err));
    SFQ_TRY(sfq_pool_open(&pool, threads, err));
    sfq_status status = sfq_probe_machine(pool, cap, out, err);
    sfq_pool_close(&pool);
    return status;
}

/* runtime/bench.c - timing models against each other on random tokens. Every model is first opened
 * alone, warmed up and its peak memory read; then all are open together and take turns, round after
 * round, so that a change of the machine's mood meets all of them; medians are reported. What is
 * timed is what `run` and `eval` use: the same pieces of prompt, the same passes. */
#include "base/ck.h"
#include "base/clock.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/sys.h"
#include "runtime/batch.h"
#include "runtime/bench_parts.h"
#include "runtime/compare.h"

#include <fcntl.h>

enum { MAX_ROUNDS = 1000, MAX_BATCH = 4096, TOKEN_STREAM = 0xbe9c };
static const double SAMPLE_SECONDS = 0.5; /* of rounds between two samples of the roofs */

static void close_model(sfq_bench_model *m)
{
    for (size_t i = 0; m->kv != NULL && i < m->batch; i++)
        sfq_kv_close(&m->kv[i]);
    sfq_mem_free(m->kv);
    sfq_mem_free(m->ids);
    sfq_mem_free(m->next);
    sfq_mem_free(m->offset);
    sfq_mem_free(m->rows);
    sfq_mem_free(m->logits);
    sfq_mem_free(m->prefill);
    sfq_mem_free(m->decode);
    sfq_engine_close(&m->engine);
    *m = (sfq_bench_model){0};
}

/* ---- opening --------------------------------------------------------------------------------- */

static sfq_status size_model(sfq_bench_model *m, const sfq_bench_options *o, sfq_error *err)
{
    int positions = m->engine->arch->max_positions;
    bool lm = m->engine->arch->head == SFQ_MODEL_HEAD_LM;
    int generate = lm ? o->generate_tokens : 0;
    if (generate >= positions)
        return sfq_fail(err, SFQ_E_LIMIT, "%s has %d positions: no room to generate %d tokens",
                        m->engine->path, positions, generate);
    int prompt = o->prompt_tokens < positions - generate ? o->prompt_tokens : positions - generate;
    m->prompt = (size_t)prompt;
    m->generate = (size_t)generate;
    m->batch = (size_t)o->batch;
    return SFQ_OK;
}

static sfq_status open_caches(sfq_bench_model *m, sfq_error *err)
{
    int capacity = (int)(m->prompt + m->generate);
    uint64_t bytes = sfq_cap_mul(m->batch, sfq_kv_bytes(m->engine->arch, m->engine->kv, capacity));
    SFQ_TRY(sfq_engine_need_memory(m->engine, bytes, "the KV cache of this batch", err));
    m->kv = SFQ_NEW_ARRAY(sfq_kv *, m->batch);
    if (m->kv == NULL)
        return sfq_fail_memory(err, m->batch * sizeof(sfq_kv *), "KV caches");
    for (size_t i = 0; i < m->batch; i++)
        SFQ_TRY(sfq_kv_open(&m->kv[i], m->engine->arch, m->engine->kv, capacity, err));
    return SFQ_OK;
}

static sfq_status open_engine(sfq_engine **engine, const sfq_bench_subject *s,
                              const sfq_bench_options *o, bool header_only, sfq_error *err)
{
    sfq_model_options options = {
        .struct_size = sizeof(options), .threads = o->threads, .kv_bits = o->kv_bits};
    options.huge_pages = o->huge_pages;
    options.hooks = o->hooks;
    options.header_only = header_only;
    if (s->shape != NULL)
        return sfq_engine_open_shape(engine, s->shape, &options, err);
    return sfq_engine_open(engine, s->path, &options, err);
}

static sfq_status open_model(sfq_bench_model *m, const sfq_bench_subject *s,
                             const sfq_bench_options *o, sfq_error *err)
{
    SFQ_TRY(open_engine(&m->engine, s, o, false, err));
    SFQ_TRY(size_model(m, o, err));
    size_t vocab = (size_t)m->engine->arch->vocab, tokens = m->batch * m->prompt;
    m->ids = SFQ_NEW_ARRAY(int32_t, tokens);
    m->next = SFQ_NEW_ARRAY(int32_t, m->batch);
    m->offset = SFQ_NEW_ARRAY(size_t, m->batch + 1);
    m->rows = SFQ_NEW_ARRAY(size_t, m->batch);
    m->logits = SFQ_NEW_ARRAY(float, m->batch *vocab);
    m->prefill = SFQ_NEW_ARRAY(double, (size_t)o->rounds);
    m->decode = SFQ_NEW_ARRAY(double, (size_t)o->rounds);
    if (m->ids == NULL || m->next == NULL || m->offset == NULL || m->rows == NULL ||
        m->logits == NULL || m->prefill == NULL || m->decode == NULL)
        return sfq_fail_memory(err, tokens * sizeof(int32_t) + m->batch * vocab * sizeof(float),
                               "benchmark");
    for (size_t i = 0; i < tokens; i++)
        m->ids[i] = (int32_t)(sfq_rng_u64(0, TOKEN_STREAM, i) % vocab);
    return m->engine->arch->head == SFQ_MODEL_HEAD_LM ? open_caches(m, err) : SFQ_OK;
}

/* ---- passes ---------------------------------------------------------------------------------- */

/* Whole sequences, in batches of about SFQ_BATCH_TOKENS as classify and embed make them. */
static sfq_status run_encoder(sfq_bench_model *m, sfq_error *err)
{
    size_t group = sfq_max_size(1, SFQ_BATCH_TOKENS / m->prompt);
    const float *hidden = NULL;
    for (size_t at = 0; at < m->batch; at += group) {
        size_t n = sfq_min_size(group, m->batch - at);
        for (size_t i = 0; i <= n; i++)
            m->offset[i] = i * m->prompt;
        sfq_batch batch = {.sequences = n, .offset = m->offset, .ids = m->ids + at * m->prompt};
        SFQ_TRY(sfq_forward(m->engine->exec, &batch, &hidden, NULL, NULL, err));
    }
    return SFQ_OK;
}

/* One prompt in pieces; its logits go to row i. */
static sfq_status run_prompt(sfq_bench_model *m, size_t i, sfq_error *err)
{
    size_t vocab = (size_t)m->engine->arch->vocab;
    const size_t row = 0;
    const float *hidden = NULL;
    sfq_kv_truncate(m->kv[i], 0);
    for (size_t at = 0; at < m->prompt; at += SFQ_PREFILL_TOKENS) {
        size_t offset[2] = {0, sfq_min_size(SFQ_PREFILL_TOKENS, m->prompt - at)};
        sfq_batch batch = {.sequences = 1,
                           .offset = offset,
                           .ids = m->ids + i * m->prompt + at,
                           .kv = &m->kv[i],
                           .last_only = true};
        SFQ_TRY(sfq_forward(m->engine->exec, &batch, &hidden, NULL, NULL, err));
    }
    SFQ_TRY(sfq_forward_logits(m->engine->exec, hidden, &row, 1, m->logits + i * vocab, err));
    m->next[i] = (int32_t)sfq_argmax(m->logits + i * vocab, vocab);
    return SFQ_OK;
}

/* One token more for every sequence, greedy. */
static sfq_status run_step(sfq_bench_model *m, sfq_error *err)
{
    size_t vocab = (size_t)m->engine->arch->vocab;
    const float *hidden = NULL;
    for (size_t i = 0; i <= m->batch; i++)
        m->offset[i] = i;
    for (size_t i = 0; i < m->batch; i++)
        m->rows[i] = i;
    sfq_batch batch = {.sequences = m->batch, .offset = m->offset, .ids = m->next, .kv = m->kv};
    SFQ_TRY(sfq_forward(m->engine->exec, &batch, &hidden, NULL, NULL, err));
    SFQ_TRY(sfq_forward_logits(m->engine->exec, hidden, m->rows, m->batch, m->logits, err));
    for (size_t i = 0; i < m->batch; i++)
        m->next[i] = (int32_t)sfq_argmax(m->logits + i * vocab, vocab);
    return SFQ_OK;
}

/* One round; round -1 warms up and is kept short. */
static sfq_status run_round(sfq_bench_model *m, int round, const sfq_hooks *hooks, sfq_error *err)
{
    double begin = sfq_clock_seconds();
    if (m->kv == NULL)
        SFQ_TRY(run_encoder(m, err));
    for (size_t i = 0; m->kv != NULL && i < m->batch; i++) {
        SFQ_TRY(sfq_hooks_check(hooks, err));
        SFQ_TRY(run_prompt(m, i, err));
    }
    double middle = sfq_clock_seconds();
    size_t steps = round < 0 ? sfq_min_size(m->generate, 4) : m->generate;
    for (size_t i = 0; i < steps; i++) {
        SFQ_TRY(sfq_hooks_check(hooks, err));
        SFQ_TRY(run_step(m, err));
    }
    double end = sfq_clock_seconds();
    if (round < 0)
        return SFQ_OK;
    m->prefill[round] = (double)(m->batch * m->prompt) / (middle - begin);
    m->decode[round] = steps > 0 ? (double)(m->batch * steps) / (end - middle) : 0;
    return SFQ_OK;
}

/* ---- peak memory ----------------------------------------------------------------------------- */

/* Linux forgets the process's peak when 5 is written here; where it may not be written, the peak
 * stays that of the process so far. */
static void reset_peak(void)
{
    int fd = sfq_sys_open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)!sfq_sys_pwrite(fd, "5", 1, 0);
    (void)sfq_sys_close(fd);
}

static void note_prompt(const sfq_bench_model *m, const sfq_bench_options *o)
{
    if (m->prompt < (size_t)o->prompt_tokens)
        sfq_hooks_log(&o->hooks, SFQ_LOG_NOTE,
                      "%s: prompts of %zu tokens, its positions allow no more", m->engine->path,
                      m->prompt);
}

/* Opens and warms up a model; what the process holds more than `base` before is not the model's. */
static sfq_status open_measured(sfq_bench_model *m, const sfq_bench_subject *s,
                                const sfq_bench_options *o, uint64_t base, sfq_bench_result *result,
                                sfq_error *err)
{
    reset_peak();
    uint64_t held = sfq_memory_peak(), others = held > base ? held - base : 0;
    SFQ_TRY(open_model(m, s, o, err));
    note_prompt(m, o);
    SFQ_TRY(run_round(m, -1, &o->hooks, err));
    uint64_t peak = sfq_memory_peak();
    result->peak_rss_bytes = peak > others ? peak - others : 0;
    return SFQ_OK;
}

/* A directory's pages come and go with the kernel's wishes, so each is measured alone; weights of a
 * shape take long to make and stay. */
static sfq_status open_all(sfq_bench_model *models, const sfq_bench_subject *subjects, size_t count,
                           const sfq_bench_options *o, sfq_bench_result *results, sfq_error *err)
{
    reset_peak();
    uint64_t base = sfq_memory_peak();
    for (size_t i = 0; i < count; i++) {
        SFQ_TRY(open_measured(&models[i], &subjects[i], o, base, &results[i], err));
        if (subjects[i].shape == NULL)
            close_model(&models[i]);
    }
    for (size_t i = 0; i < count; i++)
        if (subjects[i].shape == NULL)
            SFQ_TRY(open_model(&models[i], &subjects[i], o, err));
    return SFQ_OK;
}

/* Before the first weight is made: do all shapes fit side by side, caches included? */
static sfq_status check_shapes(const sfq_bench_subject *subjects, size_t count,
                               const sfq_bench_options *o, sfq_error *err)
{
    uint64_t need = 0, available = sfq_memory_available();
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        sfq_engine *e = NULL;
        if (subjects[i].shape == NULL)
            continue;
        any = true;
        SFQ_TRY(open_engine(&e, &subjects[i], o, true, err));
        sfq_bench_model m = {.engine = e};
        sfq_status status = size_model(&m, o, err);
        need = sfq_cap_add(need, sfq_shape_bytes(e->shape));
        if (status == SFQ_OK && e->arch->head == SFQ_MODEL_HEAD_LM) {
            uint64_t sequence = sfq_kv_bytes(e->arch, e->kv, (int)(m.prompt + m.generate));
            sequence = sfq_cap_add(sequence, sizeof(float) * (uint64_t)e->arch->vocab);
            need = sfq_cap_add(need, sfq_cap_mul(m.batch, sequence));
        }
        sfq_engine_close(&e);
        SFQ_TRY(status);
    }
    if (!any || need <= available)
        return SFQ_OK;
    return sfq_fail(err, SFQ_E_MEMORY,
                    "weights, caches and logits of %zu model%s take %.1f MB, %.1f MB of memory are "
                    "available; take a smaller shape, fewer bits or fewer models at a time",
                    count, count == 1 ? "" : "s", (double)need / 1e6, (double)available / 1e6);
}

/* ---- all ------------------------------------------------------------------------------------- */

static sfq_status check_options(const sfq_bench_options *o, size_t count, sfq_error *err)
{
    if (count == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "no model to time");
    if (o->prompt_tokens < 1 || o->generate_tokens < 0)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "prompt_tokens must be positive, generate_tokens not negative");
    if (o->batch < 1 || o->batch > MAX_BATCH || o->rounds < 1 || o->rounds > MAX_ROUNDS)
        return sfq_fail(err, SFQ_E_ARGUMENT, "batch must be in 1..%d, rounds in 1..%d",
                        (int)MAX_BATCH, (int)MAX_ROUNDS);
    return SFQ_OK;
}

static sfq_status run_rounds(sfq_bench_model *models, size_t count, const sfq_bench_options *o,
                             sfq_meter *meter, const sfq_bench_roofs *roofs, sfq_error *err)
{
    const uint64_t total = (uint64_t)o->rounds * count;
    size_t samples = 0; /* the last one; the first comes before the warm-up: it empties caches */
    SFQ_TRY(sfq_meter_sample(meter, &roofs->sample[0], err));
    double sampled = sfq_clock_seconds();
    for (size_t i = 0; i < count; i++)
        SFQ_TRY(run_round(&models[i], -1, &o->hooks, err));
    for (int round = 0; round < o->rounds; round++) {
        if (sfq_clock_seconds() - sampled >= SAMPLE_SECONDS) {
            SFQ_TRY(sfq_meter_sample(meter, &roofs->sample[++samples], err));
            sampled = sfq_clock_seconds();
        }
        roofs->before[round] = samples;
        for (size_t i = 0; i < count; i++) {
            SFQ_TRY(run_round(&models[i], round, &o->hooks, err));
            sfq_hooks_progress(&o->hooks, "bench", 1, 1, (uint64_t)round * count + i + 1, total,
                               "rounds");
        }
    }
    return sfq_meter_sample(meter, &roofs->sample[samples + 1], err);
}

static sfq_status run_metered(sfq_bench_model *models, size_t count, const sfq_bench_options *o,
                              const sfq_bench_roofs *roofs, sfq_bench_result *results,
                              sfq_error *err)
{
    sfq_meter *meter = NULL;
    sfq_isa cap = SFQ_ISA_COUNT;
    SFQ_TRY(sfq_isa_from_env(&cap, err));
    SFQ_TRY(sfq_meter_open(&meter, models[0].engine->pool, cap, err));
    sfq_status status = run_rounds(models, count, o, meter, roofs, err);
    sfq_meter_close(&meter);
    SFQ_TRY(status);
    for (size_t i = 0; i < count; i++)
        SFQ_TRY(sfq_bench_summarize(&models[i], (size_t)o->rounds, roofs, &results[i], err));
    return SFQ_OK;
}

static sfq_status measure(sfq_bench_model *models, const sfq_bench_subject *subjects, size_t count,
                          const sfq_bench_options *o, sfq_bench_result *results, sfq_error *err)
{
    const size_t rounds = (size_t)o->rounds;
    sfq_bench_roofs roofs = {0};
    SFQ_TRY(check_shapes(subjects, count, o, err));
    SFQ_TRY(open_all(models, subjects, count, o, results, err));
    roofs.sample = SFQ_NEW_ARRAY(sfq_probe_result, rounds + 2);
    roofs.before = SFQ_NEW_ARRAY(size_t, rounds);
    sfq_status status = roofs.sample == NULL || roofs.before == NULL
                            ? sfq_fail_memory(err, rounds * sizeof *roofs.sample, "benchmark")
                            : run_metered(models, count, o, &roofs, results, err);
    sfq_mem_free(roofs.sample);
    sfq_mem_free(roofs.before);
    return status;
}

sfq_status sfq_bench_subjects(const sfq_bench_subject *subjects, size_t count,
                              const sfq_bench_options *options, sfq_bench_result *results,
                              const char **isa, int *threads, sfq_error *err)
{
    SFQ_TRY(check_options(options, count, err));
    sfq_bench_model *models = SFQ_NEW_ARRAY(sfq_bench_model, count);
    if (models == NULL)
        return sfq_fail_memory(err, count * sizeof(*models), "benchmark");
    sfq_status status = measure(models, subjects, count, options, results, err);
    if (status == SFQ_OK) {
        *isa = models[0].engine->kernels->isa_name;
        *threads = sfq_pool_threads(models[0].engine->pool);
    }
    for (size_t i = 0; i < count; i++)
        close_model(&models[i]);
    sfq_mem_free(models);
    return status;
}

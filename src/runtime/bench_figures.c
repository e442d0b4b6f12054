/* runtime/bench_figures.c - from the rates of the rounds to what is reported: medians, and the
 * share of the two roofs, memory and multiply units, that they amount to. */
#include "base/ck.h"
#include "runtime/batch.h"
#include "runtime/bench_parts.h"
#include "runtime/compare.h"

#include <string.h>

/* ---- reading --------------------------------------------------------------------------------- */

/* Bytes that must be read for one token: weights once per pass, the keys and values so far once per
 * sequence and step. */
static double bytes_per_token(const sfq_bench_model *m)
{
    double weights = (double)m->engine->net->weight_bytes;
    if (m->generate == 0) {
        size_t pass = m->kv == NULL
                          ? sfq_max_size(m->prompt, SFQ_BATCH_TOKENS / m->prompt * m->prompt)
                          : SFQ_PREFILL_TOKENS;
        size_t tokens = m->kv == NULL ? m->batch * m->prompt : m->prompt;
        return weights / (double)sfq_min_size(pass, tokens);
    }
    int middle = (int)(m->prompt + m->generate / 2);
    return weights / (double)m->batch +
           (double)sfq_kv_bytes(m->engine->arch, m->engine->kv, middle);
}

/* ---- multiplying ----------------------------------------------------------------------------- */

typedef struct sfq_products {
    double macs;     /* of the matrices, in one pass over all prompts of the batch */
    double products; /* what the units multiply for them */
} sfq_products;

/* Whether dense weights are multiplied as bf16 terms on tiles (gemm_amx.c). */
static bool on_tiles(const sfq_bench_model *m, const sfq_matrix *w)
{
    return m->engine->kernels->isa == SFQ_ISA_AMX && !w->packed && w->dtype != SFQ_F32;
}

static void add_matrix(sfq_products *sum, const sfq_bench_model *m, const sfq_matrix *w,
                       double rows)
{
    double macs = (double)w->n * (double)w->k * rows;
    double each = on_tiles(m, w) ? (w->dtype == SFQ_BF16 ? 3 : 5) : 1;
    if (w->packed && w->activation_bits > 8)
        each = 2;
    sum->macs += macs;
    sum->products += macs * each;
}

/* Attention is left out: its products are float and, at these lengths, few. Behind the last layer's
 * attention only the last token of each piece of a prompt goes on. */
static sfq_products count_products(const sfq_bench_model *m)
{
    const sfq_net *net = m->engine->net;
    const double tokens = (double)m->batch * (double)m->prompt;
    const size_t pieces = (m->prompt + SFQ_PREFILL_TOKENS - 1) / SFQ_PREFILL_TOKENS;
    const double lasts = (double)m->batch * (double)pieces;
    sfq_products sum = {0};
    for (int i = 0; i < net->arch->layers; i++)
        for (sfq_role role = 0; role < SFQ_ROLE_COUNT; role++) {
            const sfq_matrix *w = sfq_net_matrix(net, role, i);
            const bool projects = role >= SFQ_ROLE_Q && role <= SFQ_ROLE_QKV;
            const bool last = m->kv != NULL && i + 1 == net->arch->layers && !projects;
            if (w != NULL && w->n > 0)
                add_matrix(&sum, m, w, last ? lasts : tokens);
        }
    if (m->kv != NULL)
        add_matrix(&sum, m, &net->lm_head, (double)m->batch);
    return sum;
}

/* The number type that the blocks' matrices are multiplied in. Where there is no VNNI, codes under
 * 8-bit activations may be multiplied as bytes and, of few bits, added in 16 bits. */
static const char *number_type(const sfq_bench_model *m)
{
    const sfq_net *net = m->engine->net;
    for (int i = 0; i < net->arch->layers; i++) {
        const sfq_matrix *up = &net->layer[i].up;
        if (up->k > 0 && up->packed)
            return up->activation_bits > 8 ? "int8" : up->bits > 5 ? "int7" : "int4";
        if (up->k > 0)
            return up->dtype == SFQ_BF16 || on_tiles(m, up) ? "bf16" : "f32";
    }
    return "f32";
}

static bool peak_serves(const sfq_probe_peak *p, const char *type)
{
    if (strncmp(type, "int", 3) == 0 && strncmp(p->type, "int", 3) == 0)
        return strcmp(p->type, type) >= 0; /* wider ones serve, too */
    if (strcmp(type, "bf16") == 0 && strcmp(p->type, "f32") == 0)
        return true;
    return strcmp(p->type, type) == 0;
}

/* Units that may take several products for one multiply-add. */
static bool takes_several(const char *isa)
{
    return strcmp(isa, "avxvnni") == 0 || strcmp(isa, "avx512vnni") == 0 || strcmp(isa, "amx") == 0;
}

/* The highest peak of the levels that the kernels in use may take; peak_count: none. */
static int find_peak(const sfq_bench_model *m, const sfq_probe_result *probe)
{
    const char *type = number_type(m);
    int best = probe->peak_count;
    for (int i = 0; i < probe->peak_count; i++) {
        const sfq_probe_peak *p = &probe->peaks[i];
        bool built = false;
        for (int isa = 0; isa <= (int)m->engine->kernels->isa; isa++)
            built = built || strcmp(p->isa, sfq_isa_name((sfq_isa)isa)) == 0;
        if (built && peak_serves(p, type) &&
            (best == probe->peak_count || p->macs_per_second > probe->peaks[best].macs_per_second))
            best = i;
    }
    return best;
}

/* ---- shares ---------------------------------------------------------------------------------- */

/* Each round's rate by the higher of the roofs before and behind it; the median. `roof` reads one
 * of a sample. */
static sfq_status median_share(const double *rate, size_t rounds, const sfq_bench_roofs *roofs,
                               double (*roof)(const sfq_probe_result *sample, int which), int which,
                               double *share, sfq_error *err)
{
    double *shares = SFQ_NEW_ARRAY(double, rounds);
    if (shares == NULL)
        return sfq_fail_memory(err, rounds * sizeof *shares, "benchmark");
    for (size_t i = 0; i < rounds; i++) {
        const sfq_probe_result *near = &roofs->sample[roofs->before[i]];
        double before = roof(near, which), behind = roof(near + 1, which);
        shares[i] = rate[i] / (before > behind ? before : behind);
    }
    *share = sfq_quantile(shares, rounds, 0.5);
    sfq_mem_free(shares);
    return SFQ_OK;
}

static double roof_read(const sfq_probe_result *sample, int which)
{
    (void)which;
    return sample->read_bytes_per_second;
}

static double roof_peak(const sfq_probe_result *sample, int which)
{
    return sample->peaks[which].macs_per_second;
}

static sfq_status share_read(const sfq_bench_model *m, size_t rounds, const sfq_bench_roofs *roofs,
                             sfq_bench_result *result, sfq_error *err)
{
    SFQ_TRY(median_share(m->generate > 0 ? m->decode : m->prefill, rounds, roofs, roof_read, 0,
                         &result->read_bandwidth_share, err));
    result->bytes_per_token = bytes_per_token(m);
    result->read_bandwidth_share *= result->bytes_per_token;
    return SFQ_OK;
}

static sfq_status share_peak(const sfq_bench_model *m, size_t rounds, const sfq_bench_roofs *roofs,
                             sfq_bench_result *result, sfq_error *err)
{
    const sfq_probe_result *first = &roofs->sample[0];
    int which = find_peak(m, first);
    sfq_products products = count_products(m);
    result->products_per_mac = 1;
    if (which == first->peak_count || !(products.macs > 0))
        return SFQ_OK;
    const sfq_probe_peak *peak = &first->peaks[which];
    result->multiply_peak_isa = peak->isa;
    result->multiply_peak_type = peak->type;
    SFQ_TRY(
        median_share(m->prefill, rounds, roofs, roof_peak, which, &result->multiply_share, err));
    result->multiply_share *= products.macs / ((double)m->batch * (double)m->prompt);
    if (takes_several(peak->isa))
        result->products_per_mac = products.products / products.macs;
    return SFQ_OK;
}

/* ---- all ------------------------------------------------------------------------------------- */

sfq_status sfq_bench_summarize(sfq_bench_model *m, size_t rounds, const sfq_bench_roofs *roofs,
                               sfq_bench_result *result, sfq_error *err)
{
    sfq_model_info info;
    SFQ_TRY(sfq_engine_info(m->engine, &info, err));
    SFQ_TRY(share_read(m, rounds, roofs, result, err)); /* before medians put rounds in order */
    SFQ_TRY(share_peak(m, rounds, roofs, result, err));
    result->load_seconds = m->engine->load_seconds;
    result->prefill_tokens_per_second = sfq_quantile(m->prefill, rounds, 0.5);
    result->decode_tokens_per_second = sfq_quantile(m->decode, rounds, 0.5);
    result->latency_seconds = (double)m->prompt * (double)(m->kv == NULL ? m->batch : 1) /
                              result->prefill_tokens_per_second;
    result->bits = info.bits_per_parameter;
    result->bytes = info.bytes;
    return SFQ_OK;
}

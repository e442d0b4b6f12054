/* compress/plan.c - one decision per tensor, in one pass over the data, before anything is written.
 * Which tensors are packed, at how many bits, with what scale dtype and activation width follows
 * from names, roles and the largest weights alone; so do all sizes. The size of the file is not
 * computed here a second time: the same declarations go to the same writer that emit uses. */
#include "compress/plan.h"

#include "base/ck.h"
#include "base/clock.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "compress/copy.h"
#include "compress/rules.h"
#include "compress/scale.h"
#include "model/pack_rule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- options ---- */

static sfq_status check_bits(const char *option, int bits, sfq_error *err)
{
    if (bits >= 2 && bits <= 8)
        return SFQ_OK;
    return sfq_fail(err, SFQ_E_ARGUMENT, "%s %d: expected 2 to 8", option, bits);
}

/* A language model can write its own calibration text, an encoder cannot. */
static sfq_status check_stages(const sfq_compress_options *o, bool causal, sfq_error *err)
{
    if (!(o->prune >= 0.0 && o->prune < 1.0))
        return sfq_fail(err, SFQ_E_ARGUMENT, "--prune %g: expected a share from 0 to below 1",
                        o->prune);
    if ((o->prune == 0.0 && o->steps == 0) || causal || o->data != NULL || o->text_count > 0)
        return SFQ_OK;
    return sfq_fail(err, SFQ_E_ARGUMENT,
                    "an encoder needs data to be pruned or recalibrated (--task and --data, or "
                    "--text); without data pass --prune 0 --steps 0");
}

sfq_status sfq_plan_check(const sfq_compress_options *o, bool causal, sfq_error *err)
{
    if (o->recipe != NULL && strcmp(o->recipe, "auto") == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "--recipe auto is not built yet; use --recipe sfq");
    if (o->recipe != NULL && strcmp(o->recipe, "sfq") != 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "--recipe %s: expected \"sfq\"", o->recipe);
    SFQ_TRY(check_bits("--bits", o->bits, err));
    SFQ_TRY(check_bits("--embedding-bits", o->embedding_bits, err));
    SFQ_TRY(sfq_pack_check(o->activation_bits, err));
    if (isnan(o->max_drop))
        return sfq_fail(err, SFQ_E_ARGUMENT, "--max-drop: expected a number of points");
    return check_stages(o, causal, err);
}

/* ---- rules of the recipe ---- */

static sfq_status decide(sfq_plan_tensor *t, const sfq_source *s, sfq_rules *rules,
                         const sfq_compress_options *o, sfq_error *err)
{
    const sfq_module *m = t->module;
    if (!sfq_role_is_matrix(m->role) || m->role == SFQ_ROLE_CLASSIFIER)
        return SFQ_OK;
    int bits = sfq_role_is_embedding(m->role) ? o->embedding_bits : o->bits;
    SFQ_TRY(sfq_rules_bits(rules, t->source->name, bits, &bits, err));
    if (bits == 16)
        return SFQ_OK;
    SFQ_TRY(
        sfq_pack_choose(&t->spec, &t->packed, m, s->arch->causal, bits, o->activation_bits, err));
    t->feedback = t->packed && sfq_feedback_norm(s, m) != NULL;
    return SFQ_OK;
}

/* ---- the list ---- */

static int by_name(const void *a, const void *b)
{
    const sfq_plan_tensor *x = a;
    const sfq_plan_tensor *y = b;
    return strcmp(x->source->name, y->source->name);
}

static sfq_status list_tensors(sfq_plan *plan, const sfq_source *s, sfq_error *err)
{
    plan->tensors = SFQ_NEW_ARRAY(sfq_plan_tensor, 2 * s->modules->count);
    if (plan->tensors == NULL)
        return sfq_fail_memory(err, s->modules->count * sizeof *plan->tensors, "the plan");
    for (size_t i = 0; i < s->modules->count; i++) {
        const sfq_module *m = &s->modules->items[i];
        const sfq_tensor *weight = sfq_module_weight(m, s->ck);
        const sfq_tensor *bias = m->bias ? sfq_module_bias(m, s->ck) : NULL;
        if (weight != NULL)
            plan->tensors[plan->count++] = (sfq_plan_tensor){.module = m, .source = weight};
        if (bias != NULL)
            plan->tensors[plan->count++] = (sfq_plan_tensor){.module = m, .source = bias};
    }
    qsort(plan->tensors, plan->count, sizeof *plan->tensors, by_name);
    return SFQ_OK;
}

static bool is_weight(const sfq_plan_tensor *t, const sfq_source *s)
{
    return t->source == sfq_module_weight(t->module, s->ck);
}

static sfq_status decide_all(sfq_plan *plan, const sfq_source *s, const sfq_compress_options *o,
                             sfq_error *err)
{
    sfq_rules *rules = NULL;
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_rules_open(&rules, o, err));
    for (size_t i = 0; i < plan->count; i++)
        if (is_weight(&plan->tensors[i], s))
            SFQ_DO(decide(&plan->tensors[i], s, rules, o, err));
    const char *unused = sfq_rules_unused(rules);
    if (unused != NULL)
        sfq_hooks_log(&o->hooks, SFQ_LOG_WARNING,
                      "\"%s\" matches the name of no matrix that could be packed", unused);
done:
    sfq_rules_close(&rules);
    return status;
}

/* ---- the order of neurons ---- */

static sfq_plan_tensor *find_tensor(sfq_plan *plan, const sfq_tensor *source)
{
    for (size_t i = 0; i < plan->count && source != NULL; i++)
        if (plan->tensors[i].source == source)
            return &plan->tensors[i];
    return NULL;
}

typedef struct ffn_part {
    const sfq_module *module;
    sfq_plan_tensor *weight, *bias;
} ffn_part;

static ffn_part find_part(sfq_plan *plan, const sfq_source *s, sfq_role role, int layer)
{
    ffn_part part = {.module = sfq_modules_find(s->modules, role, layer)};
    if (part.module != NULL) {
        part.weight = find_tensor(plan, sfq_module_weight(part.module, s->ck));
        if (part.module->bias)
            part.bias = find_tensor(plan, sfq_module_bias(part.module, s->ck));
    }
    return part;
}

/* A layer is arranged when all of its FFN matrices are packed: what --keep names stays byte by byte
 * what the source has. */
static sfq_status arrange_layer(sfq_plan *plan, const sfq_source *s, int layer, sfq_error *err)
{
    ffn_part gate = find_part(plan, s, SFQ_ROLE_GATE, layer);
    ffn_part up = find_part(plan, s, SFQ_ROLE_UP, layer);
    ffn_part down = find_part(plan, s, SFQ_ROLE_DOWN, layer);
    if (up.weight == NULL || !up.weight->packed || down.weight == NULL || !down.weight->packed ||
        (gate.module != NULL && (gate.weight == NULL || !gate.weight->packed)) ||
        !sfq_arrange_helps(up.module, down.module))
        return SFQ_OK;
    SFQ_TRY(sfq_arrange_layer(&plan->arrangement, s, layer, err));
    const uint32_t *order = plan->arrangement.order[layer];
    sfq_plan_tensor *by_row[] = {gate.weight, gate.bias, up.weight, up.bias};
    for (size_t i = 0; i < sizeof by_row / sizeof *by_row; i++)
        if (by_row[i] != NULL)
            by_row[i]->row_order = order;
    down.weight->column_order = order;
    plan->arranged_layers++;
    return SFQ_OK;
}

static sfq_status arrange_all(sfq_plan *plan, const sfq_source *s, const sfq_compress_options *o,
                              sfq_error *err)
{
    SFQ_TRY(sfq_arrange_open(&plan->arrangement, s->arch->layers, err));
    for (int layer = 0; layer < s->arch->layers; layer++) {
        SFQ_TRY(sfq_hooks_check(&o->hooks, err));
        SFQ_TRY(arrange_layer(plan, s, layer, err));
    }
    return SFQ_OK;
}

/* ---- the pass over the data ---- */

static sfq_status fail_nonfinite(const sfq_plan_tensor *t, const sfq_source *s, sfq_error *err)
{
    uint64_t at = sfq_tensor_first_nonfinite(t->source);
    return sfq_fail_at(err, SFQ_E_NUMERIC, sfq_checkpoint_file(s->ck, t->source->name),
                       t->source->name, "tensor %s: element %llu is NaN or infinite",
                       t->source->name, (unsigned long long)at);
}

/* F16 unless a value rounds to infinity there. */
static sfq_dtype leftover_dtype(const sfq_tensor *t)
{
    enum { CHUNK = 1024 };
    float w[CHUNK];
    const size_t size = sfq_dtype_info(t->dtype)->bytes;
    if (t->dtype == SFQ_F16)
        return SFQ_F16;
    for (uint64_t at = 0; at < t->count; at += CHUNK) {
        size_t n = sfq_min_size(CHUNK, (size_t)(t->count - at));
        sfq_to_f32(w, (const unsigned char *)t->data + at * size, t->dtype, n);
        for (size_t i = 0; i < n; i++)
            if (!isfinite(sfq_f16_to_f32(sfq_f32_to_f16(w[i]))))
                return t->dtype;
    }
    return SFQ_F16;
}

static sfq_status scan_tensor(sfq_plan_tensor *t, sfq_fuser *fuser, const sfq_source *s,
                              const sfq_compress_options *o, sfq_error *err)
{
    if (!t->packed) {
        if (sfq_tensor_first_nonfinite(t->source) < t->source->count)
            return fail_nonfinite(t, s, err);
        t->dtype = leftover_dtype(t->source);
        return sfq_hooks_check(&o->hooks, err);
    }
    sfq_fuse_input in = sfq_plan_fuse_input(t);
    sfq_fuse_scan scan;
    SFQ_TRY(sfq_fuser_scan(fuser, &in, &o->hooks, &scan, err));
    if (!scan.finite)
        return fail_nonfinite(t, s, err);
    t->scale_dtype = scan.fits_f16 ? SFQ_F16 : SFQ_F32;
    return SFQ_OK;
}

static sfq_status scan_all(sfq_plan *plan, const sfq_source *s, const sfq_compress_options *o,
                           int stages, sfq_error *err)
{
    sfq_fuser *fuser = NULL;
    sfq_status status = SFQ_OK;
    uint64_t done = 0;
    SFQ_DO(sfq_fuser_open(&fuser, s->pool, sfq_plan_widest(plan), err));
    for (size_t i = 0; i < plan->count; i++) {
        sfq_plan_tensor *t = &plan->tensors[i];
        SFQ_DO(scan_tensor(t, fuser, s, o, err));
        done += t->source->count;
        sfq_hooks_progress(&o->hooks, "check", 1, stages, done, plan->source_weights, "weights");
    }
done:
    sfq_fuser_close(&fuser);
    return status;
}

/* ---- figures ---- */

static void sum_tensors(sfq_plan *plan, const sfq_source *s)
{
    plan->original_bytes = 2 * s->original_parameters;
    for (size_t i = 0; i < plan->count; i++) {
        const sfq_plan_tensor *t = &plan->tensors[i];
        plan->source_weights += t->source->count;
        if (!t->packed)
            continue;
        plan->packed_count++;
        plan->feedback_count += t->feedback;
        plan->weights += t->source->count;
        plan->scales += sfq_cluster_scales_true(&t->spec.cluster);
    }
}

/* What emit holds at once: the panels' scratch and one tensor's output. */
static uint64_t peak_memory(const sfq_plan *plan, const sfq_source *s)
{
    const uint64_t fixed = (uint64_t)8 << 20; /* headers, tokenizer files, report */
    uint64_t largest = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const sfq_plan_tensor *t = &plan->tensors[i];
        uint64_t bytes = 0;
        if (t->packed)
            bytes = sfq_cluster_code_bytes(&t->spec.cluster, t->spec.bits) +
                    2 * sizeof(float) * (uint64_t)sfq_cluster_scales(&t->spec.cluster);
        else if (t->dtype != t->source->dtype)
            bytes = t->source->count * sfq_dtype_info(t->dtype)->bytes;
        largest = bytes > largest ? bytes : largest;
    }
    if (plan->feedback_count > 0)
        largest += sfq_moment_bytes((size_t)s->arch->hidden);
    return fixed + largest + sfq_fuser_bytes(sfq_pool_threads(s->pool), sfq_plan_widest(plan));
}

/* Seconds per weight of the search at `bits`, from a short trial on made-up weights. */
static double search_cost(int bits)
{
    enum { TRIAL = 512, ROUNDS = 4 };
    float w[TRIAL];
    float scratch[2 * TRIAL + 32];
    for (int i = 0; i < TRIAL; i++)
        w[i] = sinf((float)i) * 0.1F;
    sfq_scale_input in = {.w = w, .count = TRIAL, .bits = bits, .dtype = SFQ_F16};
    double begin = sfq_clock_seconds();
    for (int i = 0; i < ROUNDS; i++) {
        w[i] += sfq_scale_search(&in, scratch, NULL);
    }
    return (sfq_clock_seconds() - begin) / (TRIAL * ROUNDS);
}

static double estimate_seconds(const sfq_plan *plan, const sfq_source *s)
{
    const double bytes_per_second = 300e6;  /* reading twice and writing through, a plain disk */
    const double moments_per_second = 1e9;  /* multiply-adds of a core in double, */
    const double feedback_per_second = 8e9; /* and of both roundings in float */
    const size_t hidden = (size_t)s->arch->hidden;
    double cost[9];
    double work = 0;
    double fed = 0;
    for (int bits = 2; bits <= 8; bits++)
        cost[bits] = search_cost(bits);
    for (size_t i = 0; i < plan->count; i++)
        if (plan->tensors[i].packed)
            work += cost[plan->tensors[i].spec.bits] * (double)plan->tensors[i].source->count;
    for (size_t i = 0; i < plan->count; i++)
        if (plan->tensors[i].feedback)
            fed += (double)plan->tensors[i].source->count * (double)hidden;
    work += fed / feedback_per_second;
    if (fed > 0)
        work += sfq_moment_work((size_t)s->arch->vocab, hidden) / moments_per_second;
    double moved = (double)sfq_checkpoint_bytes(s->ck) + (double)plan->file_bytes;
    return work / sfq_pool_threads(s->pool) + moved / bytes_per_second;
}

static sfq_status size_file(sfq_plan *plan, sfq_error *err)
{
    sfq_st_writer *writer = NULL;
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_st_writer_open(&writer, NULL, "model.safetensors", err));
    SFQ_DO(sfq_plan_declare(plan, writer, err));
    plan->file_bytes = sfq_st_writer_size(writer);
done:
    sfq_st_writer_abort(&writer);
    return status;
}

/* ---- public ---- */

size_t sfq_plan_widest(const sfq_plan *plan)
{
    size_t k = 1;
    for (size_t i = 0; i < plan->count; i++)
        if (plan->tensors[i].packed)
            k = sfq_max_size(k, plan->tensors[i].spec.cluster.k);
    return k;
}

sfq_fuse_input sfq_plan_fuse_input(const sfq_plan_tensor *t)
{
    return (sfq_fuse_input){.module = t->module,
                            .weight = t->source,
                            .cluster = &t->spec.cluster,
                            .bits = t->spec.bits,
                            .scale_dtype = t->scale_dtype,
                            .row_order = t->row_order,
                            .column_order = t->column_order,
                            .energy = t->energy};
}

void sfq_plan_weigh(sfq_plan *plan, const sfq_energy *energy)
{
    for (size_t i = 0; i < plan->count; i++)
        if (plan->tensors[i].packed)
            plan->tensors[i].energy = sfq_energy_of(energy, plan->tensors[i].module);
}

/* Gives every tensor its number in the file. */
static void number_tensors(sfq_plan *plan)
{
    size_t next = 0;
    for (size_t i = 0; i < plan->count; i++)
        if (plan->tensors[i].packed)
            plan->tensors[i].index = next++;
    for (size_t i = 0; i < plan->count; i++)
        if (plan->tensors[i].packed)
            plan->tensors[i].scale_index = next++;
    for (size_t i = 0; i < plan->count; i++)
        if (!plan->tensors[i].packed)
            plan->tensors[i].index = next++;
}

static sfq_status declare_packed(const sfq_plan_tensor *t, bool scales, sfq_st_writer *writer,
                                 sfq_error *err)
{
    const sfq_cluster *c = &t->spec.cluster;
    uint64_t codes_shape[3] = {c->panels, c->k_blocks, sfq_block_bytes(t->spec.bits)};
    uint64_t scales_shape[3] = {c->panels, c->segments, SFQ_PANEL_N / c->share};
    size_t room = strlen(t->spec.name) + sizeof ".scales";
    char *name = sfq_mem_raw(room);
    if (name == NULL)
        return sfq_fail_memory(err, room, "a name");
    size_t n = strlen(t->spec.name);
    memcpy(name, t->spec.name, n);
    strcpy(name + n, scales ? ".scales" : ".codes");
    sfq_status status = sfq_st_writer_declare(writer, name, scales ? t->scale_dtype : SFQ_U8, 3,
                                              scales ? scales_shape : codes_shape, err);
    sfq_mem_free(name);
    return status;
}

sfq_status sfq_plan_declare(const sfq_plan *plan, sfq_st_writer *writer, sfq_error *err)
{
    SFQ_TRY(sfq_st_writer_metadata(writer, "format", "pt", err));
    SFQ_TRY(sfq_st_writer_metadata(writer, "sfq_version", SFQ_VERSION_STRING, err));
    for (int scales = 0; scales < 2; scales++)
        for (size_t i = 0; i < plan->count; i++)
            if (plan->tensors[i].packed)
                SFQ_TRY(declare_packed(&plan->tensors[i], scales != 0, writer, err));
    for (size_t i = 0; i < plan->count; i++) {
        const sfq_plan_tensor *t = &plan->tensors[i];
        if (!t->packed)
            SFQ_TRY(sfq_st_writer_declare(writer, t->source->name, t->dtype, t->source->rank,
                                          t->source->shape, err));
    }
    return SFQ_OK;
}

sfq_status sfq_plan_make(sfq_plan **out, const sfq_source *source,
                         const sfq_compress_options *options, int stages, sfq_error *err)
{
    *out = NULL;
    sfq_status status = SFQ_OK;
    uint64_t copied = 0;
    sfq_plan *plan = SFQ_NEW(sfq_plan);
    if (plan == NULL)
        return sfq_fail_memory(err, sizeof *plan, "the plan");
    SFQ_DO(list_tensors(plan, source, err));
    SFQ_DO(decide_all(plan, source, options, err));
    SFQ_DO(arrange_all(plan, source, options, err));
    sum_tensors(plan, source);
    SFQ_DO(scan_all(plan, source, options, stages, err));
    number_tensors(plan);
    SFQ_DO(size_file(plan, err));
    SFQ_DO(sfq_copy_size(source->dir, &copied, err));
    plan->memory_bytes = peak_memory(plan, source);
    plan->disk_bytes = plan->file_bytes + copied + ((uint64_t)1 << 20);
    plan->seconds = estimate_seconds(plan, source);
done:
    if (status != SFQ_OK)
        sfq_plan_free(&plan);
    *out = plan;
    return status;
}

void sfq_plan_free(sfq_plan **plan)
{
    if (*plan == NULL)
        return;
    sfq_arrange_close(&(*plan)->arrangement);
    sfq_mem_free((*plan)->tensors);
    sfq_mem_free(*plan);
    *plan = NULL;
}

/* runtime/shape.c - shapes by name or from a config.json: their widths and their tensors. The names
 * stand for the configs of models that many people run; everything goes through the readers that a
 * model directory goes through, so a shape is refused where such a model would be. */
#include "runtime/shape.h"

#include "base/ck.h"
#include "base/file.h"
#include "base/mem.h"
#include "model/pack_rule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t LARGEST = (uint64_t)1 << 50; /* bytes of all weights; no machine has them */

/* ---- names ----------------------------------------------------------------------------------- */

#define LLAMA(hidden, ffn, layers, heads, kv)                                              \
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "              \
    "\"hidden_size\": " #hidden ", \"intermediate_size\": " #ffn                           \
    ", \"num_hidden_layers\": " #layers ", \"num_attention_heads\": " #heads               \
    ", \"num_key_value_heads\": " #kv                                                      \
    ", \"vocab_size\": 32000, \"max_position_embeddings\": 8192, \"rms_norm_eps\": 1e-5, " \
    "\"rope_theta\": 10000.0, \"hidden_act\": \"silu\", \"tie_word_embeddings\": false, "  \
    "\"bos_token_id\": 1, \"eos_token_id\": 2}"
#define BERT(hidden, ffn, layers, heads)                                                       \
    "{\"architectures\": [\"BertModel\"], \"model_type\": \"bert\", \"hidden_size\": " #hidden \
    ", \"intermediate_size\": " #ffn ", \"num_hidden_layers\": " #layers                       \
    ", \"num_attention_heads\": " #heads ", \"vocab_size\": 30522, "                           \
    "\"max_position_embeddings\": 512, \"type_vocab_size\": 2, \"layer_norm_eps\": 1e-12, "    \
    "\"hidden_act\": \"gelu\"}"

static const struct {
    const char *name, *config;
} shapes[] = {
    {"llama-1b", LLAMA(2048, 8192, 16, 32, 8)},
    {"llama-3b", LLAMA(3072, 8192, 28, 24, 8)},
    {"llama-7b", LLAMA(4096, 11008, 32, 32, 32)},
    {"llama-13b", LLAMA(5120, 13824, 40, 40, 40)},
    {"llama-30b", LLAMA(6656, 17920, 60, 52, 52)},
    {"bert-base", BERT(768, 3072, 12, 12)},
    {"minilm", BERT(384, 1536, 6, 12)},
};

static sfq_status open_config(sfq_hf_config **out, const char *name, sfq_error *err)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(shapes[i].name, name) == 0)
            return sfq_hf_config_alone(out, name, shapes[i].config, err);
    if (!sfq_file_exists(name))
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "shape '%s' is unknown, and no file; expected llama-1b, llama-3b, "
                        "llama-7b, llama-13b, llama-30b, bert-base, minilm or the path of a "
                        "config.json",
                        name);
    return sfq_hf_config_alone(out, name, NULL, err);
}

/* ---- pruning --------------------------------------------------------------------------------- */

static void prune_layer(const sfq_arch *a, sfq_layer_arch *l, double share)
{
    int group = l->kv_heads > 0 ? l->heads / l->kv_heads : 0;
    int unit = l->ffn < 256 ? 16 : 64;
    double head = (double)a->hidden * a->head_dim * (2 * group + 2); /* weights of a KV group */
    double neuron = (double)a->hidden * (a->gated ? 3 : 2);
    double remove = share * (head * l->kv_heads + neuron * l->ffn);
    int kept = (int)lround(l->kv_heads * (1 - share)), removed = 0;
    if (share <= 0)
        return;
    kept = l->kv_heads > 0 && kept < 1 ? 1 : kept;
    double rest = remove - head * (l->kv_heads - kept);
    if (rest > 0)
        removed = (int)ceil(rest / neuron);
    int ffn = l->ffn > removed ? (l->ffn - removed) / unit * unit : 0;
    ffn = l->ffn >= unit && ffn < unit ? unit : l->ffn < unit ? l->ffn : ffn;
    rest -= neuron * (l->ffn - ffn);
    for (; kept > 1 && rest > 0; kept--) /* what the neurons could not give */
        rest -= head;
    l->kv_heads = kept;
    l->heads = kept * group;
    l->ffn = ffn;
}

void sfq_shape_prune(sfq_arch *arch, double share)
{
    for (int i = 0; i < arch->layers; i++)
        prune_layer(arch, &arch->layer[i], share);
}

/* ---- tensors --------------------------------------------------------------------------------- */

static sfq_status add_tensor(sfq_shape_model *s, const sfq_module *m, const char *suffix,
                             sfq_random_tensor kind, sfq_tensor t, sfq_error *err)
{
    size_t n = strlen(m->name), bytes = sfq_dtype_info(t.dtype)->bytes;
    char *name = SFQ_ARENA_ARRAY(s->arena, char, n + strlen(suffix) + 1);
    if (name == NULL)
        return sfq_fail_memory(err, n, "the names of the tensors");
    memcpy(name, m->name, n);
    strcpy(name + n, suffix);
    t.name = name;
    t.count = 1;
    for (int i = 0; i < t.rank; i++)
        t.count = sfq_cap_mul(t.count, t.shape[i]);
    t.bytes = sfq_cap_mul(t.count, bytes);
    kind.at = s->bytes;
    if (t.bytes > LARGEST || s->bytes > LARGEST)
        return sfq_fail_at(err, SFQ_E_LIMIT, s->config->path, name,
                           "%s: with tensor %s the weights pass 2^50 bytes", s->config->path, name);
    s->bytes += sfq_round_up((size_t)t.bytes, 64);
    s->tensors[s->count] = t;
    s->random[s->count++] = kind;
    return SFQ_OK;
}

static sfq_status add_packed(sfq_shape_model *s, const sfq_module *m, const sfq_packed_spec *spec,
                             bool scales, sfq_error *err)
{
    const sfq_cluster *c = &spec->cluster;
    if (!scales)
        return add_tensor(
            s, m, ".codes", (sfq_random_tensor){.kind = SFQ_RANDOM_CODES},
            (sfq_tensor){.dtype = SFQ_U8,
                         .rank = 3,
                         .shape = {c->panels, c->k_blocks, sfq_block_bytes(spec->bits)}},
            err);
    return add_tensor(
        s, m, ".scales", (sfq_random_tensor){.kind = SFQ_RANDOM_SCALES, .bits = spec->bits},
        (sfq_tensor){
            .dtype = SFQ_F16, .rank = 3, .shape = {c->panels, c->segments, SFQ_PANEL_N / c->share}},
        err);
}

static sfq_status add_dense(sfq_shape_model *s, const sfq_module *m, bool packed, sfq_error *err)
{
    bool matrix = sfq_role_is_matrix(m->role);
    sfq_tensor t = {.dtype = SFQ_F16, .rank = 1, .shape = {m->k}};
    if (matrix)
        t = (sfq_tensor){.dtype = SFQ_F16,
                         .rank = 2,
                         .shape = {m->transposed ? m->k : m->n, m->transposed ? m->n : m->k}};
    sfq_random_kind kind = matrix ? SFQ_RANDOM_WEIGHTS : SFQ_RANDOM_ONES;
    if (!packed && m->k > 0)
        SFQ_TRY(add_tensor(s, m, ".weight",
                           (sfq_random_tensor){.kind = kind, .copied = matrix && m->transposed}, t,
                           err));
    t = (sfq_tensor){.dtype = SFQ_F16, .rank = 1, .shape = {matrix ? m->n : m->k}};
    if (m->bias)
        SFQ_TRY(add_tensor(s, m, ".bias", (sfq_random_tensor){.kind = SFQ_RANDOM_WEIGHTS}, t, err));
    return SFQ_OK;
}

/* In the order of the file that compress writes: codes, scales, the rest. */
static sfq_status add_all(sfq_shape_model *s, const sfq_modules *modules,
                          const sfq_packed_spec *const *specs, sfq_error *err)
{
    s->tensors = SFQ_NEW_ARRAY(sfq_tensor, 3 * modules->count);
    s->random = SFQ_NEW_ARRAY(sfq_random_tensor, 3 * modules->count);
    if (s->tensors == NULL || s->random == NULL)
        return sfq_fail_memory(err, modules->count * sizeof(sfq_tensor), "the list of tensors");
    for (int scales = 0; scales < 2; scales++)
        for (size_t i = 0; i < modules->count; i++)
            if (specs[i] != NULL)
                SFQ_TRY(add_packed(s, &modules->items[i], specs[i], scales != 0, err));
    for (size_t i = 0; i < modules->count; i++)
        SFQ_TRY(add_dense(s, &modules->items[i], specs[i] != NULL, err));
    return SFQ_OK;
}

/* ---- the artifact ---------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const sfq_packed_spec *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* What config.json of the compressed model would say. specs [modules]: its place in the table, NULL
 * for what stays dense; the table's names are copies. */
static sfq_status describe_packed(sfq_shape_model *s, const sfq_modules *modules,
                                  const sfq_bench_shape *o, const sfq_packed_spec **specs,
                                  sfq_error *err)
{
    sfq_artifact_info *info = s->artifact = SFQ_NEW(sfq_artifact_info);
    if (info == NULL)
        return sfq_fail_memory(err, sizeof *info, "the shape");
    info->version = SFQ_ARTIFACT_VERSION;
    info->layers = SFQ_NEW_ARRAY(sfq_layer_dims, (size_t)s->arch->layers);
    info->packed = SFQ_NEW_ARRAY(sfq_packed_spec, modules->count);
    if (info->layers == NULL || info->packed == NULL)
        return sfq_fail_memory(err, modules->count * sizeof *info->packed, "the shape");
    info->layer_count = s->arch->layers;
    for (int i = 0; i < s->arch->layers; i++) {
        const sfq_layer_arch *l = &s->arch->layer[i];
        info->layers[i] = (sfq_layer_dims){l->heads, l->kv_heads, l->ffn};
    }
    for (size_t i = 0; i < modules->count; i++) {
        const sfq_module *m = &modules->items[i];
        sfq_packed_spec *spec = &info->packed[info->packed_count];
        bool packed = false;
        int bits = sfq_role_is_embedding(m->role) ? o->embedding_bits : o->bits;
        SFQ_TRY(sfq_pack_choose(spec, &packed, m, s->arch->causal, bits, o->activation_bits, err));
        char *name = packed ? sfq_mem_strdup(m->name) : NULL;
        spec->name = name;
        if (packed && name == NULL)
            return sfq_fail_memory(err, strlen(m->name), "the shape");
        info->packed_count += packed;
    }
    qsort(info->packed, info->packed_count, sizeof *info->packed, by_name);
    for (size_t i = 0; i < modules->count; i++)
        specs[i] = sfq_artifact_find(info, modules->items[i].name);
    return SFQ_OK;
}

static uint64_t count_parameters(const sfq_modules *modules)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < modules->count; i++) {
        const sfq_module *m = &modules->items[i];
        sum += (uint64_t)m->n * m->k;
        sum += m->bias ? (sfq_role_is_matrix(m->role) ? m->n : m->k) : 0;
    }
    return sum;
}

/* ---- opening --------------------------------------------------------------------------------- */

static sfq_status check_shape(const sfq_bench_shape *o, sfq_error *err)
{
    if (o->shape == NULL || o->shape[0] == '\0')
        return sfq_fail(err, SFQ_E_ARGUMENT, "no shape is named");
    if (o->bits != SFQ_SHAPE_DENSE && (o->bits < 2 || o->bits > 8))
        return sfq_fail(err, SFQ_E_ARGUMENT, "bits %d: expected 2 to 8, or 16 for a dense model",
                        o->bits);
    if (o->embedding_bits != 0 && (o->embedding_bits < 2 || o->embedding_bits > 8))
        return sfq_fail(err, SFQ_E_ARGUMENT, "embedding bits %d: expected 2 to 8",
                        o->embedding_bits);
    if (!(o->prune >= 0 && o->prune < 1))
        return sfq_fail(err, SFQ_E_ARGUMENT, "prune %g: expected a share from 0 to below 1",
                        o->prune);
    return sfq_pack_check(o->activation_bits, err);
}

/* An artifact's config.json gives its widths; its bits are not asked. */
static sfq_status open_arch(sfq_shape_model *s, sfq_error *err)
{
    sfq_artifact_info *info = NULL;
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_artifact_read(&info, s->config, err));
    SFQ_DO(sfq_arch_open(&s->arch, s->config, info, NULL, err));
done:
    sfq_artifact_free(&info);
    return status;
}

static sfq_status list_tensors(sfq_shape_model *s, const sfq_bench_shape *o, sfq_error *err)
{
    sfq_modules *modules = NULL;
    const sfq_packed_spec **specs = NULL;
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_modules_list(&modules, s->arch, NULL, err));
    uint64_t original = count_parameters(modules);
    sfq_modules_close(&modules);
    sfq_shape_prune(s->arch, o->prune);
    SFQ_DO(sfq_modules_list(&modules, s->arch, NULL, err));
    specs = SFQ_NEW_ARRAY(const sfq_packed_spec *, modules->count);
    if (specs == NULL) {
        status = sfq_fail_memory(err, modules->count * sizeof *specs, "the shape");
        goto done;
    }
    if (o->bits != SFQ_SHAPE_DENSE) {
        SFQ_DO(describe_packed(s, modules, o, specs, err));
        s->artifact->original_parameters = original;
    }
    SFQ_DO(add_all(s, modules, specs, err));
done:
    sfq_mem_free(specs);
    sfq_modules_close(&modules);
    return status;
}

sfq_status sfq_shape_open(sfq_shape_model **out, const sfq_bench_shape *shape, sfq_error *err)
{
    sfq_bench_shape o = *shape;
    sfq_status status = SFQ_OK;
    *out = NULL;
    SFQ_TRY(check_shape(&o, err));
    o.embedding_bits = o.embedding_bits > 0 ? o.embedding_bits : 8;
    sfq_shape_model *s = SFQ_NEW(sfq_shape_model);
    if (s == NULL || (s->arena = sfq_arena_open()) == NULL) {
        status = sfq_fail_memory(err, sizeof *s, "the shape");
        goto done;
    }
    s->seed = o.seed;
    SFQ_DO(open_config(&s->config, o.shape, err));
    SFQ_DO(open_arch(s, err));
    SFQ_DO(list_tensors(s, &o, err));
    *out = s;
    s = NULL;
done:
    sfq_shape_close(&s);
    return status;
}

void sfq_shape_close(sfq_shape_model **shape)
{
    sfq_shape_model *s = *shape;
    if (s == NULL)
        return;
    sfq_mem_free(s->data);
    sfq_mem_free(s->random);
    sfq_mem_free(s->tensors);
    sfq_artifact_free(&s->artifact);
    sfq_arch_close(&s->arch);
    sfq_hf_config_close(&s->config);
    sfq_arena_close(&s->arena);
    sfq_mem_free(s);
    *shape = NULL;
}

uint64_t sfq_shape_bytes(const sfq_shape_model *s)
{
    uint64_t bytes = s->bytes;
    for (size_t i = 0; i < s->count; i++) {
        const sfq_tensor *t = &s->tensors[i];
        if (s->random[i].kind == SFQ_RANDOM_SCALES || t->rank == 1)
            bytes += sizeof(float) * t->count;
        if (s->random[i].copied)
            bytes += t->bytes;
    }
    return bytes;
}

/* model/names.c - turns a family's name table and an arch into the list of modules, and proves a
 * checkpoint against it: every expected tensor there with its shape and a float dtype (or packed as
 * the artifact says), and no tensor left that nobody knows. After this, binding cannot miss. */
#include "model/families.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

typedef struct sfq_module_list {
    sfq_modules public;
    sfq_module **by_name; /* [count] sorted */
    sfq_module **by_role; /* [(layers + 1) * roles]; row 0 is outside the layers */
    int layers;
} sfq_module_list;

/* ---- roles ---- */

static const struct {
    const char *name;
    bool matrix, embedding, block;
} sfq_roles[SFQ_ROLE_COUNT] = {
    [SFQ_ROLE_WORD_EMBEDDING] = {"word embedding", true, true, false},
    [SFQ_ROLE_POSITION_EMBEDDING] = {"position embedding", true, true, false},
    [SFQ_ROLE_TYPE_EMBEDDING] = {"type embedding", true, true, false},
    [SFQ_ROLE_LM_HEAD] = {"lm head", true, true, false},
    [SFQ_ROLE_Q] = {"q", true, false, true},
    [SFQ_ROLE_K] = {"k", true, false, true},
    [SFQ_ROLE_V] = {"v", true, false, true},
    [SFQ_ROLE_QKV] = {"qkv", true, false, true},
    [SFQ_ROLE_O] = {"o", true, false, true},
    [SFQ_ROLE_GATE] = {"gate", true, false, true},
    [SFQ_ROLE_UP] = {"up", true, false, true},
    [SFQ_ROLE_DOWN] = {"down", true, false, true},
    [SFQ_ROLE_POOLER] = {"pooler", true, false, false},
    [SFQ_ROLE_CLASSIFIER] = {"classifier", true, false, false},
    [SFQ_ROLE_EMBEDDING_NORM] = {"embedding norm", false, false, false},
    [SFQ_ROLE_ATTN_NORM] = {"attention norm", false, false, false},
    [SFQ_ROLE_FFN_NORM] = {"ffn norm", false, false, false},
    [SFQ_ROLE_Q_NORM] = {"q norm", false, false, false},
    [SFQ_ROLE_K_NORM] = {"k norm", false, false, false},
    [SFQ_ROLE_FINAL_NORM] = {"final norm", false, false, false},
};

bool sfq_role_is_matrix(sfq_role role)
{
    return role < SFQ_ROLE_COUNT && sfq_roles[role].matrix;
}

bool sfq_role_is_embedding(sfq_role role)
{
    return role < SFQ_ROLE_COUNT && sfq_roles[role].embedding;
}

bool sfq_role_is_block(sfq_role role)
{
    return role < SFQ_ROLE_COUNT && sfq_roles[role].block;
}

const char *sfq_role_name(sfq_role role)
{
    return role < SFQ_ROLE_COUNT ? sfq_roles[role].name : "unknown";
}

/* ---- shapes ---- */

typedef struct sfq_shape {
    bool wanted; /* the module belongs to this model */
    size_t n, k;
    bool bias;
} sfq_shape;

static sfq_shape sfq_shape_outside(const sfq_arch *a, sfq_role role)
{
    size_t c = (size_t)a->hidden, v = (size_t)a->vocab, labels = (size_t)a->labels;
    switch (role) {
    case SFQ_ROLE_WORD_EMBEDDING:
        return (sfq_shape){true, v, c, false};
    case SFQ_ROLE_POSITION_EMBEDDING:
        return (sfq_shape){a->learned_positions, (size_t)a->max_positions, c, false};
    case SFQ_ROLE_TYPE_EMBEDDING:
        return (sfq_shape){a->type_vocab > 0, (size_t)a->type_vocab, c, false};
    case SFQ_ROLE_LM_HEAD:
        return (sfq_shape){a->head == SFQ_MODEL_HEAD_LM && !a->tied_head, v, c, false};
    case SFQ_ROLE_POOLER:
        return (sfq_shape){labels > 0, c, c, true};
    case SFQ_ROLE_CLASSIFIER:
        return (sfq_shape){labels > 0, labels, c, true};
    default: /* norms */
        return (sfq_shape){true, 1, c, !a->rms_norm};
    }
}

static sfq_shape sfq_shape_layer(const sfq_arch *a, int layer, sfq_role role)
{
    const sfq_layer_arch *l = &a->layer[layer];
    size_t c = (size_t)a->hidden, d = (size_t)a->head_dim;
    size_t q = (size_t)l->heads * d, kv = (size_t)l->kv_heads * d, f = (size_t)l->ffn;
    bool attn = l->heads > 0, ffn = l->ffn > 0;
    switch (role) {
    case SFQ_ROLE_Q:
        return (sfq_shape){attn, q, c, a->bias_qkv};
    case SFQ_ROLE_K:
    case SFQ_ROLE_V:
        return (sfq_shape){attn, kv, c, a->bias_qkv};
    case SFQ_ROLE_QKV:
        return (sfq_shape){attn, q + 2 * kv, c, a->bias_qkv};
    case SFQ_ROLE_O:
        return (sfq_shape){attn, c, q, a->bias_o};
    case SFQ_ROLE_GATE:
        return (sfq_shape){ffn && a->gated, f, c, a->bias_mlp};
    case SFQ_ROLE_UP:
        return (sfq_shape){ffn, f, c, a->bias_mlp};
    case SFQ_ROLE_DOWN:
        return (sfq_shape){ffn, c, f, a->bias_mlp};
    case SFQ_ROLE_Q_NORM:
    case SFQ_ROLE_K_NORM:
        return (sfq_shape){attn && a->qk_norm, 1, d, false};
    case SFQ_ROLE_ATTN_NORM:
        return (sfq_shape){attn || !a->pre_norm, 1, c, !a->rms_norm};
    default: /* SFQ_ROLE_FFN_NORM */
        return (sfq_shape){ffn || !a->pre_norm, 1, c, !a->rms_norm};
    }
}

/* ---- names ---- */

/* prefix + row with '#' replaced; NULL: out of memory. */
static char *sfq_expand(const char *prefix, const char *row, int layer)
{
    char digits[12];
    size_t nd = 0;
    for (unsigned v = layer < 0 ? 0 : (unsigned)layer; nd == 0 || v > 0; v /= 10)
        digits[nd++] = (char)('0' + v % 10);
    size_t np = strlen(prefix);
    char *out = (char *)sfq_mem_raw(np + strlen(row) + sizeof(digits) + 1);
    if (!out)
        return NULL;
    memcpy(out, prefix, np);
    char *to = out + np;
    for (; *row; row++) {
        if (*row != '#')
            *to++ = *row;
        else
            for (size_t i = nd; i-- > 0;)
                *to++ = digits[i];
    }
    *to = '\0';
    return out;
}

/* name + suffix in the checkpoint. A name too long for the buffer is in no table. */
static const sfq_tensor *sfq_find_with(const sfq_checkpoint *ck, const char *name,
                                       const char *suffix)
{
    char full[256];
    size_t n = strlen(name), s = strlen(suffix);
    if (n + s >= sizeof(full))
        return NULL;
    memcpy(full, name, n);
    memcpy(full + n, suffix, s + 1);
    return sfq_checkpoint_find(ck, full);
}

const sfq_tensor *sfq_module_weight(const sfq_module *module, const sfq_checkpoint *ck)
{
    if (module->packed || module->k == 0)
        return NULL;
    const sfq_tensor *t = sfq_find_with(ck, module->name, ".weight");
    return t || sfq_roles[module->role].matrix ? t : sfq_find_with(ck, module->name, ".gamma");
}

const sfq_tensor *sfq_module_bias(const sfq_module *module, const sfq_checkpoint *ck)
{
    const sfq_tensor *t = sfq_find_with(ck, module->name, ".bias");
    return t || sfq_roles[module->role].matrix ? t : sfq_find_with(ck, module->name, ".beta");
}

/* The family's prefix where the word table carries it, else none. */
static const char *sfq_resolve_prefix(const sfq_name_table *table, const sfq_checkpoint *ck)
{
    char *name = sfq_expand(table->prefix, table->rows[0].name, -1);
    if (!name)
        return NULL;
    bool with = sfq_find_with(ck, name, ".weight") || sfq_find_with(ck, name, ".codes");
    sfq_mem_free(name);
    return with ? table->prefix : "";
}

/* ---- proofs ---- */

static sfq_status sfq_fail_tensor(sfq_error *err, const sfq_checkpoint *ck, const char *name,
                                  const char *suffix, const char *what)
{
    char full[256];
    size_t n = strnlen(name, sizeof(full) - 16);
    memcpy(full, name, n);
    memcpy(full + n, suffix, strlen(suffix) + 1);
    return sfq_fail_at(err, SFQ_E_FORMAT, sfq_checkpoint_file(ck, full), full, "tensor %s: %s",
                       full, what);
}

static sfq_status sfq_prove_shape(const sfq_checkpoint *ck, const sfq_tensor *t, int rank,
                                  uint64_t rows, uint64_t cols, sfq_error *err)
{
    const char *file = sfq_checkpoint_file(ck, t->name);
    if (!sfq_dtype_info(t->dtype)->is_float)
        return sfq_fail_at(err, SFQ_E_FORMAT, file, t->name,
                           "tensor %s: dtype %s where F32, F16 or BF16 is expected", t->name,
                           sfq_dtype_info(t->dtype)->name);
    if (rank == 1 && !(t->rank == 1 && t->shape[0] == cols))
        return sfq_fail_at(err, SFQ_E_FORMAT, file, t->name,
                           "tensor %s: expected shape [%llu], found rank %d with %llu elements",
                           t->name, (unsigned long long)cols, t->rank,
                           (unsigned long long)t->count);
    if (rank == 2 && !(t->rank == 2 && t->shape[0] == rows && t->shape[1] == cols))
        return sfq_fail_at(err, SFQ_E_FORMAT, file, t->name,
                           "tensor %s: expected shape [%llu, %llu], found [%llu, %llu] (rank %d)",
                           t->name, (unsigned long long)rows, (unsigned long long)cols,
                           t->rank > 0 ? (unsigned long long)t->shape[0] : 0,
                           t->rank > 1 ? (unsigned long long)t->shape[1] : 0, t->rank);
    return SFQ_OK;
}

static sfq_status sfq_prove_packed(const sfq_module *m, const sfq_packed_spec *spec,
                                   const sfq_checkpoint *ck, sfq_error *err)
{
    const sfq_tensor *codes, *scales;
    bool aligned;
    if (spec->cluster.n != m->n || spec->cluster.k != m->k)
        return sfq_fail_tensor(err, ck, m->name, ".codes",
                               "quantization_config gives it another shape than the model has");
    return sfq_packed_bind(spec, ck, &codes, &scales, &aligned, err);
}

/* Whether NAME.bias is part of the model when it is there. */
static bool sfq_bias_counts(sfq_role role, bool expected, const sfq_artifact_info *artifact)
{
    return expected || (artifact && sfq_roles[role].block);
}

/* Weight and bias of one module against the checkpoint; settles m->packed and m->bias. */
static sfq_status sfq_prove_module(sfq_module *m, bool bias_expected, const sfq_checkpoint *ck,
                                   const sfq_artifact_info *artifact, sfq_error *err)
{
    bool matrix = sfq_roles[m->role].matrix;
    const sfq_packed_spec *spec =
        artifact && matrix && m->k > 0 ? sfq_artifact_find(artifact, m->name) : NULL;
    m->packed = spec != NULL;
    if (spec) {
        SFQ_TRY(sfq_prove_packed(m, spec, ck, err));
        m->transposed = false;
    } else if (m->k > 0) {
        const sfq_tensor *w = sfq_module_weight(m, ck);
        if (!w)
            return sfq_fail_tensor(err, ck, m->name, ".weight",
                                   m->role == SFQ_ROLE_LM_HEAD
                                       ? "missing (config.json says tie_word_embeddings false)"
                                       : "missing");
        SFQ_TRY(sfq_prove_shape(ck, w, matrix ? 2 : 1, m->transposed ? m->k : m->n,
                                m->transposed ? m->n : m->k, err));
    }
    const sfq_tensor *bias = sfq_module_bias(m, ck);
    if (!bias && bias_expected)
        return sfq_fail_tensor(err, ck, m->name, ".bias", "missing");
    m->bias = bias && sfq_bias_counts(m->role, bias_expected, artifact);
    return m->bias ? sfq_prove_shape(ck, bias, 1, 1, matrix ? m->n : m->k, err) : SFQ_OK;
}

/* ---- the list ---- */

/* A row of a layer or of the outside; appends a module where the model has one. Without a
 * checkpoint there is nothing to prove. */
static sfq_status sfq_add_module(sfq_module_list *list, const sfq_arch *a,
                                 const sfq_name_table *table, const char *prefix,
                                 const sfq_name_row *row, int layer, const sfq_checkpoint *ck,
                                 const sfq_artifact_info *artifact, sfq_error *err)
{
    sfq_shape s =
        layer < 0 ? sfq_shape_outside(a, row->role) : sfq_shape_layer(a, layer, row->role);
    bool output = row->role == SFQ_ROLE_O || row->role == SFQ_ROLE_DOWN;
    if ((row->role == SFQ_ROLE_Q_NORM || row->role == SFQ_ROLE_K_NORM) && !a->qk_norm)
        return SFQ_OK;
    if (!s.wanted && !output)
        return SFQ_OK;
    sfq_module m = {.role = row->role, .layer = layer, .n = s.n, .k = s.wanted ? s.k : 0};
    m.transposed = table->transposed && sfq_roles[row->role].block;
    m.name = sfq_expand(row->outside ? "" : prefix, row->name, layer);
    if (!m.name)
        return sfq_fail_memory(err, strlen(row->name), "module name");
    bool counts = ck && sfq_bias_counts(m.role, s.bias, artifact);
    if (!s.wanted && !(counts && sfq_module_bias(&m, ck))) {
        sfq_mem_free(m.name);
        return SFQ_OK;
    }
    sfq_module *slot = &list->public.items[list->public.count++];
    *slot = m;
    list->by_role[(size_t)(layer + 1) * SFQ_ROLE_COUNT + row->role] = slot;
    slot->bias = s.bias;
    return ck ? sfq_prove_module(slot, s.bias, ck, artifact, err) : SFQ_OK;
}

static int sfq_compare_modules(const void *a, const void *b)
{
    return strcmp((*(sfq_module *const *)a)->name, (*(sfq_module *const *)b)->name);
}

static const sfq_module *sfq_module_named(const sfq_module_list *list, const char *name)
{
    sfq_module key = {.name = (char *)name};
    sfq_module *k = &key;
    if (list->public.count == 0)
        return NULL;
    sfq_module **hit = (sfq_module **)bsearch(&k, list->by_name, list->public.count,
                                              sizeof(*list->by_name), sfq_compare_modules);
    return hit ? *hit : NULL;
}

/* What follows `pattern` in name, NULL where it does not match. '#': one or more digits; '*' at the
 * end: anything. */
static const char *sfq_match(const char *pattern, const char *name)
{
    for (; *pattern; pattern++) {
        if (*pattern == '*')
            return "";
        if (*pattern == '#') {
            if (*name < '0' || *name > '9')
                return NULL;
            while (*name >= '0' && *name <= '9')
                name++;
        } else if (*name++ != *pattern) {
            return NULL;
        }
    }
    return name;
}

static bool sfq_matches(const char *pattern, const char *name)
{
    const char *rest = sfq_match(pattern, name);
    return rest && *rest == '\0';
}

/* The module that a tensor's name belongs to: all before its last dot. */
static const sfq_module *sfq_module_of(const sfq_module_list *list, const sfq_tensor *t)
{
    char name[256];
    const char *dot = strrchr(t->name, '.');
    size_t n = dot ? (size_t)(dot - t->name) : 0;
    if (!dot || n >= sizeof(name))
        return NULL;
    memcpy(name, t->name, n);
    name[n] = '\0';
    return sfq_module_named(list, name);
}

/* What a dropped sublayer leaves behind: empty tensors and its norm, which is no module then. */
static bool sfq_is_leftover(const sfq_module_list *list, const sfq_name_table *table,
                            const sfq_arch *a, const char *bare, const sfq_tensor *t)
{
    bool gone = !sfq_module_of(list, t);
    for (size_t i = 0; i < table->count; i++) {
        sfq_role role = table->rows[i].role;
        bool norm = a->pre_norm && (role == SFQ_ROLE_ATTN_NORM || role == SFQ_ROLE_FFN_NORM);
        bool qk_norm = a->qk_norm && (role == SFQ_ROLE_Q_NORM || role == SFQ_ROLE_K_NORM);
        const char *rest = sfq_match(table->rows[i].name, bare);
        if (rest && *rest == '.' && ((gone && (norm || qk_norm)) || t->count == 0))
            return true;
    }
    return false;
}

static bool sfq_is_skipped(const sfq_module_list *list, const sfq_name_table *table,
                           const sfq_arch *a, const sfq_tensor *t)
{
    size_t np = strlen(table->prefix);
    const char *bare = strncmp(t->name, table->prefix, np) == 0 ? t->name + np : t->name;
    for (size_t i = 0; i < table->skipped_count; i++)
        if (sfq_matches(table->skipped[i], bare) || sfq_matches(table->skipped[i], t->name))
            return true;
    if (a->tied_head && strcmp(t->name, "lm_head.weight") == 0)
        return true;
    return sfq_is_leftover(list, table, a, bare, t);
}

/* A tensor that a module has. */
static bool sfq_is_claimed(const sfq_module_list *list, const sfq_checkpoint *ck,
                           const sfq_tensor *t)
{
    const char *dot = strrchr(t->name, '.');
    const sfq_module *m = sfq_module_of(list, t);
    if (!m)
        return false;
    if (m->packed && (strcmp(dot, ".codes") == 0 || strcmp(dot, ".scales") == 0))
        return true;
    return t == sfq_module_weight(m, ck) || (m->bias && t == sfq_module_bias(m, ck));
}

static sfq_status sfq_prove_all(const sfq_module_list *list, const sfq_name_table *table,
                                const sfq_arch *a, const sfq_checkpoint *ck,
                                const sfq_artifact_info *artifact, sfq_error *err)
{
    for (size_t i = 0; i < sfq_checkpoint_count(ck); i++) {
        const sfq_tensor *t = sfq_checkpoint_at(ck, i);
        if (!sfq_is_claimed(list, ck, t) && !sfq_is_skipped(list, table, a, t))
            return sfq_fail_at(err, SFQ_E_FORMAT, sfq_checkpoint_file(ck, t->name), t->name,
                               "tensor %s: %s has no such tensor", t->name, a->architecture);
    }
    for (size_t i = 0; artifact && i < artifact->packed_count; i++) {
        const sfq_module *m = sfq_module_named(list, artifact->packed[i].name);
        if (!m || !m->packed)
            return sfq_fail_at(err, SFQ_E_FORMAT, NULL, artifact->packed[i].name,
                               "quantization_config names %s, which %s does not have",
                               artifact->packed[i].name, a->architecture);
    }
    return SFQ_OK;
}

static sfq_status sfq_fill(sfq_module_list *list, const sfq_arch *a, const sfq_name_table *table,
                           const char *prefix, const sfq_checkpoint *ck,
                           const sfq_artifact_info *artifact, sfq_error *err)
{
    size_t first = 0, end = 0; /* the rows of a layer lie together */
    while (!strchr(table->rows[first].name, '#'))
        first++;
    for (end = first; strchr(table->rows[end].name, '#');)
        end++;
    for (size_t r = 0; r < first; r++)
        SFQ_TRY(sfq_add_module(list, a, table, prefix, &table->rows[r], -1, ck, artifact, err));
    for (int layer = 0; layer < a->layers; layer++)
        for (size_t r = first; r < end; r++)
            SFQ_TRY(
                sfq_add_module(list, a, table, prefix, &table->rows[r], layer, ck, artifact, err));
    for (size_t r = end; r < table->count; r++)
        SFQ_TRY(sfq_add_module(list, a, table, prefix, &table->rows[r], -1, ck, artifact, err));
    for (size_t i = 0; i < list->public.count; i++)
        list->by_name[i] = &list->public.items[i];
    qsort(list->by_name, list->public.count, sizeof(*list->by_name), sfq_compare_modules);
    return SFQ_OK;
}

/* All modules; proved, or only listed. */
static sfq_status sfq_modules_make(sfq_modules **out, const sfq_arch *arch,
                                   const sfq_checkpoint *ck, const sfq_artifact_info *artifact,
                                   bool prove, sfq_error *err)
{
    const sfq_name_table *table = sfq_name_table_of(arch->family);
    const char *prefix = ck ? sfq_resolve_prefix(table, ck) : table->prefix;
    sfq_status status = SFQ_OK;
    size_t most = ((size_t)arch->layers + 1) * SFQ_ROLE_COUNT;
    sfq_modules *owner = NULL;
    *out = NULL;
    sfq_module_list *list = SFQ_NEW(sfq_module_list);
    if (!list)
        return sfq_fail_memory(err, sizeof(*list), "modules");
    owner = &list->public;
    list->layers = arch->layers;
    list->public.items = SFQ_NEW_ARRAY(sfq_module, most);
    list->by_name = SFQ_NEW_ARRAY(sfq_module *, most);
    list->by_role = SFQ_NEW_ARRAY(sfq_module *, most);
    if (!list->public.items || !list->by_name || !list->by_role) {
        status = sfq_fail_memory(err, most * sizeof(sfq_module), "modules");
        goto done;
    }
    if (!prefix) {
        status = sfq_fail_memory(err, strlen(table->prefix), "module name");
        goto done;
    }
    SFQ_DO(sfq_fill(list, arch, table, prefix, prove ? ck : NULL, artifact, err));
    if (prove)
        SFQ_DO(sfq_prove_all(list, table, arch, ck, artifact, err));
    *out = owner;
    owner = NULL;
done:
    sfq_modules_close(&owner);
    return status;
}

sfq_status sfq_modules_open(sfq_modules **out, const sfq_arch *arch, const sfq_checkpoint *ck,
                            const sfq_artifact_info *artifact, sfq_error *err)
{
    return sfq_modules_make(out, arch, ck, artifact, true, err);
}

sfq_status sfq_modules_list(sfq_modules **out, const sfq_arch *arch, const sfq_checkpoint *ck,
                            sfq_error *err)
{
    return sfq_modules_make(out, arch, ck, NULL, false, err);
}

void sfq_modules_close(sfq_modules **modules)
{
    if (!modules || !*modules)
        return;
    sfq_module_list *list = (sfq_module_list *)*modules; /* its first member */
    for (size_t i = 0; list->public.items && i < list->public.count; i++)
        sfq_mem_free(list->public.items[i].name);
    sfq_mem_free(list->public.items);
    sfq_mem_free(list->by_name);
    sfq_mem_free(list->by_role);
    sfq_mem_free(list);
    *modules = NULL;
}

const sfq_module *sfq_modules_find(const sfq_modules *modules, sfq_role role, int layer)
{
    const sfq_module_list *list = (const sfq_module_list *)modules;
    if (layer < -1 || layer >= list->layers || role >= SFQ_ROLE_COUNT)
        return NULL;
    return list->by_role[(size_t)(layer + 1) * SFQ_ROLE_COUNT + role];
}

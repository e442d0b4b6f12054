/* compress/source.c - opening the model, and the reader that hides how a family stores a matrix.
 * The files are mapped: what is read streams through the page cache and takes no memory of ours. */
#include "compress/source.h"

#include "base/ck.h"
#include "base/mem.h"

#include <string.h>

static sfq_status refuse_artifact(const sfq_source *s, const sfq_artifact_info *artifact,
                                  sfq_error *err)
{
    if (artifact == NULL)
        return SFQ_OK;
    return sfq_fail_at(err, SFQ_E_UNSUPPORTED, s->config->path, NULL,
                       "%s: this model is compressed already; compress the original again with "
                       "the bits that you want",
                       s->dir);
}

static void count_parameters(sfq_source *s)
{
    for (size_t i = 0; i < s->modules->count; i++) {
        const sfq_module *m = &s->modules->items[i];
        const sfq_tensor *weight = sfq_module_weight(m, s->ck);
        const sfq_tensor *bias = m->bias ? sfq_module_bias(m, s->ck) : NULL;
        s->parameters += (weight != NULL ? weight->count : 0) + (bias != NULL ? bias->count : 0);
    }
    s->original_parameters = s->parameters;
}

/* Widths and further biases come from the artifact's description; nothing may be packed. */
static sfq_status open_cut(sfq_source *s, const sfq_artifact_info *artifact, const sfq_hooks *hooks,
                           sfq_error *err)
{
    if (artifact != NULL && artifact->packed_count > 0)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, s->config->path, NULL,
                           "%s: its weights are packed; a dense model is expected", s->dir);
    SFQ_TRY(sfq_arch_open(&s->arch, s->config, artifact, s->dir, err));
    SFQ_TRY(sfq_checkpoint_open(&s->ck, s->dir, hooks, err));
    SFQ_TRY(sfq_modules_open(&s->modules, s->arch, s->ck, artifact, err));
    count_parameters(s);
    if (artifact != NULL)
        s->original_parameters = artifact->original_parameters;
    return SFQ_OK;
}

sfq_status sfq_source_open(sfq_source **out, const sfq_compress_options *options, sfq_error *err)
{
    *out = NULL;
    sfq_artifact_info *artifact = NULL;
    sfq_source *s = SFQ_NEW(sfq_source);
    if (s == NULL)
        return sfq_fail_memory(err, sizeof *s, "the source model");
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_model_dir_resolve(&s->dir, options->model, err));
    SFQ_DO(sfq_hf_config_open(&s->config, s->dir, err));
    SFQ_DO(sfq_artifact_read(&artifact, s->config, err));
    SFQ_DO(refuse_artifact(s, artifact, err));
    SFQ_DO(sfq_arch_open(&s->arch, s->config, NULL, s->dir, err));
    SFQ_DO(sfq_checkpoint_open(&s->ck, s->dir, &options->hooks, err));
    SFQ_DO(sfq_modules_open(&s->modules, s->arch, s->ck, NULL, err));
    SFQ_DO(sfq_pool_open(&s->pool, options->threads, err));
    s->own_pool = true;
    count_parameters(s);
done:
    sfq_artifact_free(&artifact);
    if (status != SFQ_OK)
        sfq_source_close(&s);
    *out = s;
    return status;
}

sfq_status sfq_source_open_dir(sfq_source **out, const char *dir, sfq_pool *pool,
                               const sfq_hooks *hooks, sfq_error *err)
{
    sfq_artifact_info *artifact = NULL;
    sfq_status status = SFQ_OK;
    *out = NULL;
    sfq_source *s = SFQ_NEW(sfq_source);
    if (s == NULL)
        return sfq_fail_memory(err, sizeof *s, "a model");
    s->pool = pool;
    s->dir = sfq_mem_strdup(dir);
    if (s->dir == NULL) {
        status = sfq_fail_memory(err, strlen(dir) + 1, dir);
        goto done;
    }
    SFQ_DO(sfq_hf_config_open(&s->config, s->dir, err));
    SFQ_DO(sfq_artifact_read(&artifact, s->config, err));
    SFQ_DO(open_cut(s, artifact, hooks, err));
done:
    sfq_artifact_free(&artifact);
    if (status != SFQ_OK)
        sfq_source_close(&s);
    *out = s;
    return status;
}

void sfq_source_close(sfq_source **source)
{
    sfq_source *s = *source;
    if (s == NULL)
        return;
    if (s->own_pool)
        sfq_pool_close(&s->pool);
    sfq_modules_close(&s->modules);
    sfq_checkpoint_close(&s->ck);
    sfq_arch_close(&s->arch);
    sfq_hf_config_close(&s->config);
    sfq_mem_free(s->dir);
    sfq_mem_free(s);
    *source = NULL;
}

/* Climbs from the source to the root; every step is compared by inode, so links and "./" do not
 * matter. */
sfq_status sfq_source_guard(const sfq_source *source, const char *output, sfq_error *err)
{
    enum { MAX_CLIMB = 256 };
    if (sfq_path_same(source->dir, output))
        return sfq_fail_at(err, SFQ_E_ARGUMENT, output, NULL,
                           "%s: the output is the model itself; choose another output", output);
    char *path = sfq_mem_strdup(source->dir);
    for (int i = 0; i < MAX_CLIMB && path != NULL; i++) {
        char *up = sfq_path_join(path, "..");
        bool root = up != NULL && sfq_path_same(up, path);
        sfq_mem_free(path);
        path = up;
        if (path != NULL && !root && sfq_path_same(path, output)) {
            sfq_mem_free(path);
            return sfq_fail_at(err, SFQ_E_ARGUMENT, output, NULL,
                               "%s: the output holds the model; choose another output", output);
        }
        if (root)
            break;
    }
    bool whole = path != NULL;
    sfq_mem_free(path);
    return whole ? SFQ_OK : sfq_fail_memory(err, strlen(source->dir), "a path");
}

/* One line of UTF-8, whatever bytes a file system allows. */
static char *printable(const char *text, size_t n)
{
    size_t room = 4 * n + 1; /* a byte becomes \xHH at most */
    char *out = sfq_mem_raw(room);
    if (out != NULL)
        (void)sfq_text_printable(out, room, text, n);
    return out;
}

char *sfq_source_title(const sfq_source *source, const char *model)
{
    if (!sfq_path_same(model, source->dir))
        return printable(model, strlen(model)); /* a Hub id */
    size_t end = strlen(model);
    while (end > 1 && model[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && model[begin - 1] != '/')
        begin--;
    size_t n = end - begin;
    bool dots = n == 0 || (n <= 2 && memcmp(model + begin, "..", n) == 0);
    if (dots)
        return sfq_mem_strdup(source->arch->architecture);
    return printable(model + begin, n);
}

const char *const *sfq_source_labels(const sfq_source *source, int *count)
{
    bool classes = source->arch->head == SFQ_MODEL_HEAD_CLASSIFIER;
    *count = classes ? source->arch->labels : 1;
    return classes && source->config->label_count == *count ? source->config->labels : NULL;
}

/* One row; the file holds [N, K], or [K, N] where the module is transposed. */
static void read_row(float *dst, const sfq_module *m, const sfq_tensor *t, size_t row)
{
    const size_t size = sfq_dtype_info(t->dtype)->bytes;
    const unsigned char *data = t->data;
    if (!m->transposed) {
        sfq_to_f32(dst, data + row * m->k * size, t->dtype, m->k);
        return;
    }
    for (size_t i = 0; i < m->k; i++)
        sfq_to_f32(dst + i, data + (i * m->n + row) * size, t->dtype, 1);
}

/* Rows that lie side by side in a transposed file: a run of them for each input. */
static void read_transposed(float *dst, const sfq_module *m, const sfq_tensor *t, size_t row,
                            size_t rows)
{
    const size_t size = sfq_dtype_info(t->dtype)->bytes;
    const unsigned char *data = t->data;
    float run[SFQ_PANEL_N];
    for (size_t r0 = 0; r0 < rows; r0 += SFQ_PANEL_N) {
        size_t n = sfq_min_size(rows - r0, SFQ_PANEL_N);
        for (size_t i = 0; i < m->k; i++) {
            sfq_to_f32(run, data + (i * m->n + row + r0) * size, t->dtype, n);
            for (size_t r = 0; r < n; r++)
                dst[(r0 + r) * m->k + i] = run[r];
        }
    }
}

void sfq_source_rows(float *dst, const sfq_module *module, const sfq_tensor *weight,
                     const uint32_t *order, size_t row, size_t rows)
{
    const size_t size = sfq_dtype_info(weight->dtype)->bytes;
    const size_t k = module->k;
    if (order != NULL)
        for (size_t r = 0; r < rows; r++)
            read_row(dst + r * k, module, weight, order[row + r]);
    else if (module->transposed)
        read_transposed(dst, module, weight, row, rows);
    else
        sfq_to_f32(dst, (const unsigned char *)weight->data + row * k * size, weight->dtype,
                   rows * k);
}

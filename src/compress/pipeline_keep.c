/* compress/pipeline_keep.c - --keep-stages: the model after each stage beside the result, so that
 * what a step costs or gives back can be measured by whatever a user trusts. Weights that lie in
 * the journal are linked, not copied. */
#include "base/mem.h"
#include "compress/copy.h"
#include "compress/pipeline_parts.h"

#include <stdio.h>
#include <string.h>

static const char *const kept[] = {"pruned", "reconstructed", "distilled", "fused"};

/* OUTPUT.NAME; to be freed. */
static sfq_status path_of(char **out, const sfq_run *r, const char *name, sfq_error *err)
{
    const size_t size = strlen(r->out->output) + strlen(name) + 2;
    *out = SFQ_NEW_ARRAY(char, size);
    if (*out == NULL)
        return sfq_fail_memory(err, size, "a path");
    (void)snprintf(*out, size, "%s.%s", r->out->output, name);
    return SFQ_OK;
}

static bool may_replace(const sfq_run *r)
{
    return r->options->force || (r->journal != NULL && sfq_journal_last(r->journal) != NULL);
}

static sfq_status begin(sfq_outdir **dir, const sfq_run *r, const char *name, sfq_error *err)
{
    char *path;
    SFQ_TRY(path_of(&path, r, name, err));
    sfq_status status = sfq_outdir_open(dir, path, may_replace(r), err);
    sfq_mem_free(path);
    return status;
}

sfq_status sfq_run_keep_check(const sfq_run *r, sfq_error *err)
{
    if (!r->options->keep_stages)
        return SFQ_OK;
    if (!r->recovers)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "--keep-stages: with --prune 0 and --steps 0 there is one stage, and its "
                        "model is the output");
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        sfq_outdir *dir = NULL;
        SFQ_TRY(begin(&dir, r, kept[i], err));
        sfq_outdir_abort(&dir);
    }
    return SFQ_OK;
}

sfq_status sfq_run_take_model(const sfq_run *r, const char *from, sfq_outdir *dir, uint64_t *bytes,
                              sfq_error *err)
{
    static const char *const files[] = {"model.safetensors", "config.json"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *path = sfq_path_join(from, files[i]);
        if (path == NULL)
            return sfq_fail_memory(err, strlen(from), "a path");
        sfq_status status = sfq_outdir_take(dir, files[i], path, err);
        if (status == SFQ_OK && i == 0 && bytes != NULL)
            status = sfq_file_size(bytes, path, err);
        sfq_mem_free(path);
        SFQ_TRY(status);
    }
    return sfq_copy_files(r->source->dir, dir, err);
}

sfq_status sfq_run_keep_student(const sfq_run *r, const char *name, sfq_error *err)
{
    sfq_outdir *dir = NULL;
    sfq_status status = SFQ_OK;
    if (!r->options->keep_stages)
        return SFQ_OK;
    SFQ_DO(begin(&dir, r, name, err));
    SFQ_DO(sfq_student_write(r->student, r->source, dir, &r->options->hooks, err));
    SFQ_DO(sfq_copy_files(r->source->dir, dir, err));
    SFQ_DO(sfq_outdir_commit(&dir, NULL, err));
done:
    sfq_outdir_abort(&dir);
    return status;
}

sfq_status sfq_run_keep_stage(const sfq_run *r, const char *stage, const char *name, sfq_error *err)
{
    const char *from = sfq_journal_find(r->journal, stage);
    sfq_outdir *dir = NULL;
    sfq_status status = SFQ_OK;
    if (!r->options->keep_stages || from == NULL)
        return SFQ_OK;
    SFQ_DO(begin(&dir, r, name, err));
    SFQ_DO(sfq_run_take_model(r, from, dir, NULL, err));
    SFQ_DO(sfq_outdir_commit(&dir, NULL, err));
done:
    sfq_outdir_abort(&dir);
    return status;
}

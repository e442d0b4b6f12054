/* format/model_dir.c - from what a user types to a directory, without a network. The layout is that
 * of huggingface_hub's cache: models--ORG--NAME/{refs/main, snapshots/COMMIT/}. */
#include "base/file.h"
#include "base/mem.h"
#include "format/checkpoint.h"

#include <stdlib.h>
#include <string.h>

enum { ID_MAX = 96, REF_MAX = 256 };

/* "name" or "org/name" of letters, digits, '-', '_' and '.', as the Hub allows. */
static bool is_hub_id(const char *s)
{
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
    size_t first = strspn(s, set), second;
    if (first == 0 || s[0] == '.' || s[0] == '-' || strlen(s) > ID_MAX)
        return false;
    if (s[first] == '\0')
        return true;
    second = strspn(s + first + 1, set);
    return s[first] == '/' && second > 0 && s[first + 1] != '.' && s[first + 1 + second] == '\0';
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

/* The cache's folder, in the order in which huggingface_hub looks. */
static sfq_status cache_dir(sfq_buf *out, sfq_error *err)
{
    const char *hub = environment("HF_HUB_CACHE"), *home = environment("HF_HOME");
    const char *xdg = environment("XDG_CACHE_HOME"), *user = environment("HOME");
    if (hub)
        return sfq_buf_addf(out, err, "%s", hub);
    if (home)
        return sfq_buf_addf(out, err, "%s/hub", home);
    if (xdg)
        return sfq_buf_addf(out, err, "%s/huggingface/hub", xdg);
    return sfq_buf_addf(out, err, "%s/.cache/huggingface/hub", user ? user : "");
}

/* CACHE/models--ORG--NAME */
static sfq_status repo_dir(sfq_buf *out, const char *id, sfq_error *err)
{
    SFQ_TRY(cache_dir(out, err));
    SFQ_TRY(sfq_buf_addf(out, err, "/models--"));
    for (; *id; id++)
        SFQ_TRY(*id == '/' ? sfq_buf_addf(out, err, "--") : sfq_buf_add(out, id, 1, err));
    return SFQ_OK;
}

/* Reads REPO/refs/main: the commit's name without white space around it. */
static sfq_status read_ref(sfq_buf *out, const char *repo, const char *model, sfq_error *err)
{
    sfq_buf path = SFQ_BUF_INIT(4096);
    sfq_status status;
    SFQ_DO(sfq_buf_addf(&path, err, "%s/refs/main", repo));
    if (!sfq_file_exists(path.data)) {
        status = sfq_fail_at(err, SFQ_E_NOT_FOUND, model, NULL,
                             "%s: no such directory, and not in the Hugging Face cache (%s): "
                             "download it there first, sfq does not use the network",
                             model, path.data);
        goto done;
    }
    SFQ_DO(sfq_file_read(out, path.data, REF_MAX, err));
    while (out->len > 0 && strchr(" \r\n\t", out->data[out->len - 1]))
        out->data[--out->len] = '\0';
    if (out->len == 0 || strlen(out->data) != out->len || !sfq_name_is_plain(out->data))
        status = sfq_fail_at(err, SFQ_E_FORMAT, path.data, NULL,
                             "%s: does not hold the name of a commit", path.data);
done:
    sfq_buf_free(&path);
    return status;
}

static sfq_status from_cache(char **dir, const char *model, sfq_error *err)
{
    sfq_buf path = SFQ_BUF_INIT(4096), ref = SFQ_BUF_INIT(REF_MAX + 1);
    sfq_status status;
    SFQ_DO(repo_dir(&path, model, err));
    SFQ_DO(read_ref(&ref, path.data, model, err));
    SFQ_DO(sfq_buf_addf(&path, err, "/snapshots/%s", ref.data));
    if (!sfq_dir_exists(path.data)) {
        status = sfq_fail_at(err, SFQ_E_NOT_FOUND, model, NULL,
                             "%s: refs/main of the cache names a snapshot that is not there (%s)",
                             model, path.data);
        goto done;
    }
    *dir = sfq_buf_take(&path);
done:
    sfq_buf_free(&path);
    sfq_buf_free(&ref);
    return status;
}

sfq_status sfq_model_dir_resolve(char **dir, const char *model, sfq_error *err)
{
    *dir = NULL;
    if (model[0] == '\0')
        return sfq_fail(err, SFQ_E_NOT_FOUND,
                        "\"\": no such directory; give a model's directory or a Hub id");
    if (sfq_dir_exists(model)) {
        *dir = sfq_mem_strdup(model);
        return *dir ? SFQ_OK : sfq_fail_memory(err, strlen(model) + 1, model);
    }
    if (sfq_file_exists(model))
        return sfq_fail_at(err, SFQ_E_ARGUMENT, model, NULL,
                           "%s: is no directory; give the model's directory", model);
    if (!is_hub_id(model))
        return sfq_fail_at(err, SFQ_E_NOT_FOUND, model, NULL, "%s: no such directory", model);
    return from_cache(dir, model, err);
}

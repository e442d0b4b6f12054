/* model/pooling.c - sentence-transformers' modules.json and pooling config. Both spellings of the
 * pooling mode are read: one flag per mode (up to version 5) and "pooling_mode" (from 6 on). */
#include "model/pooling.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#include <string.h>

enum { SFQ_POOLING_FILE_MAX = 1 << 20 };

static sfq_status sfq_pooling_unsupported(sfq_error *err, const char *path, const char *what)
{
    return sfq_fail_at(err, SFQ_E_UNSUPPORTED, path, NULL,
                       "%s: %s is not supported (mean pooling, then optional Normalize, is)", path,
                       what);
}

/* {"pooling_mode": "mean"} or ["mean"], or {"pooling_mode_mean_tokens": true, ...} */
static sfq_status sfq_pooling_modes(const json_t *root, const char *path, sfq_error *err)
{
    static const char prefix[] = "pooling_mode_";
    const json_t *mode = sfq_json_get(root, "pooling_mode");
    if (json_is_array(mode) && json_array_size(mode) == 1)
        mode = json_array_get(mode, 0);
    if (mode) {
        const char *name = json_string_value(mode);
        return name && strcmp(name, "mean") == 0
                   ? SFQ_OK
                   : sfq_pooling_unsupported(err, path, name ? name : "more than one pooling mode");
    }
    bool mean = false;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)root, key, value)
    {
        if (strncmp(key, prefix, sizeof(prefix) - 1) != 0 || !json_is_true(value))
            continue;
        if (strcmp(key, "pooling_mode_mean_tokens") != 0)
            return sfq_pooling_unsupported(err, path, key);
        mean = true;
    }
    return mean ? SFQ_OK : sfq_pooling_unsupported(err, path, "a pooling config without a mode");
}

static sfq_status sfq_pooling_config(const char *dir, const char *folder, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    json_t *root = NULL;
    char *sub = sfq_path_join(dir, folder);
    char *path = sub ? sfq_path_join(sub, "config.json") : NULL;
    if (!path) {
        status = sfq_fail_memory(err, strlen(dir), "path");
        goto done;
    }
    if (!sfq_file_exists(path))
        goto done;
    SFQ_DO(sfq_json_read(&root, path, SFQ_POOLING_FILE_MAX, err));
    SFQ_DO(sfq_pooling_modes(root, path, err));
done:
    json_decref(root);
    sfq_mem_free(path);
    sfq_mem_free(sub);
    return status;
}

/* One entry of modules.json: the last part of "type" names the module. */
static sfq_status sfq_pooling_module(const json_t *entry, const char *path, const char *dir,
                                     bool *normalize, sfq_error *err)
{
    const char *type = NULL, *folder = NULL;
    SFQ_TRY(sfq_json_string(entry, path, "type", true, &type, err));
    SFQ_TRY(sfq_json_string(entry, path, "path", false, &folder, err));
    const char *dot = strrchr(type, '.');
    const char *name = dot ? dot + 1 : type;
    if (strcmp(name, "Transformer") == 0)
        return folder && *folder ? sfq_pooling_unsupported(
                                       err, path, "a Transformer module in a folder of its own")
                                 : SFQ_OK;
    if (strcmp(name, "Normalize") == 0) {
        *normalize = true;
        return SFQ_OK;
    }
    if (strcmp(name, "Pooling") != 0)
        return sfq_pooling_unsupported(err, path, type);
    if (*normalize)
        return sfq_pooling_unsupported(err, path, "Normalize before Pooling");
    if (!folder || !sfq_name_is_plain(folder))
        return sfq_fail_at(err, SFQ_E_FORMAT, path, NULL, "%s: Pooling needs a plain folder name",
                           path);
    return sfq_pooling_config(dir, folder, err);
}

sfq_status sfq_pooling_read(const char *dir, bool *normalize, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    json_t *root = NULL;
    char *path = sfq_path_join(dir, "modules.json");
    *normalize = false;
    if (!path)
        return sfq_fail_memory(err, strlen(dir), "path");
    if (!sfq_file_exists(path)) {
        SFQ_DO(sfq_pooling_config(dir, "1_Pooling", err));
        goto done;
    }
    SFQ_DO(sfq_json_read(&root, path, SFQ_POOLING_FILE_MAX, err));
    if (!json_is_array(root)) {
        status = sfq_fail_at(err, SFQ_E_FORMAT, path, NULL, "%s: expected a list", path);
        goto done;
    }
    for (size_t i = 0; i < json_array_size(root); i++)
        SFQ_DO(sfq_pooling_module(json_array_get(root, i), path, dir, normalize, err));
done:
    json_decref(root);
    sfq_mem_free(path);
    return status;
}

sfq_status sfq_pooling_folder(const char *dir, char **folder, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    json_t *root = NULL;
    char *path = sfq_path_join(dir, "modules.json");
    *folder = NULL;
    if (!path)
        return sfq_fail_memory(err, strlen(dir), "path");
    if (sfq_file_exists(path))
        SFQ_DO(sfq_json_read(&root, path, SFQ_POOLING_FILE_MAX, err));
    for (size_t i = 0; i < json_array_size(root) && !*folder; i++) {
        const json_t *entry = json_array_get(root, i);
        const char *type = json_string_value(sfq_json_get(entry, "type"));
        const char *name = json_string_value(sfq_json_get(entry, "path"));
        const char *dot = type ? strrchr(type, '.') : NULL;
        if (!name || strcmp(dot ? dot + 1 : (type ? type : ""), "Pooling") != 0 ||
            !sfq_name_is_plain(name))
            continue;
        *folder = sfq_mem_strdup(name);
        if (!*folder)
            status = sfq_fail_memory(err, strlen(name), "path");
    }
done:
    json_decref(root);
    sfq_mem_free(path);
    return status;
}

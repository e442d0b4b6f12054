/* compress/copy.c - copies by a list of names and never by what a directory happens to hold:
 * nothing unknown travels on, no pickle, no script. One name comes from the model: the folder of a
 * sentence-transformers pooling module, of which config.json is taken. */
#include "compress/copy.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/sys.h"
#include "model/pooling.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define COPY_MAX ((size_t)256 << 20)

/* One level of folders at most. */
#define COPIED_POOLING "1_Pooling/config.json"
static const char *const copied[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    COPIED_POOLING,
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
};

enum { COPIED = sizeof copied / sizeof *copied };

sfq_status sfq_copy_size(const char *from, uint64_t *bytes, sfq_error *err)
{
    *bytes = 0;
    for (size_t i = 0; i < COPIED; i++) {
        char *path = sfq_path_join(from, copied[i]);
        if (path == NULL)
            return sfq_fail_memory(err, strlen(from), "a path");
        sfq_status status = SFQ_OK;
        uint64_t size = 0;
        if (sfq_file_exists(path))
            status = sfq_file_size(&size, path, err);
        if (status == SFQ_OK && size > COPY_MAX)
            status = sfq_fail_at(err, SFQ_E_LIMIT, path, NULL, "%s: larger than %zu MiB", path,
                                 COPY_MAX >> 20);
        sfq_mem_free(path);
        SFQ_TRY(status);
        *bytes += size;
    }
    return SFQ_OK;
}

sfq_status sfq_copy_room(const char *output, uint64_t bytes, sfq_error *err)
{
    size_t end = strlen(output);
    while (end > 1 && output[end - 1] == '/')
        end--;
    while (end > 0 && output[end - 1] != '/')
        end--;
    char *parent = end == 0 ? sfq_mem_strdup(".") : sfq_mem_strndup(output, end);
    if (parent == NULL)
        return sfq_fail_memory(err, end, "a path");
    uint64_t available = sfq_disk_available(parent);
    sfq_mem_free(parent);
    if (bytes <= available)
        return SFQ_OK;
    return sfq_fail_at(
        err, SFQ_E_NO_SPACE, output, NULL,
        "%s: %llu MiB are needed and %llu MiB are free; nothing was written; free some, or "
        "write to another disk",
        output, (unsigned long long)(bytes >> 20) + 1, (unsigned long long)(available >> 20));
}

/* An outdir knows plain names only; a file of a folder is made here, inside the temporary, which
 * abort removes with all it holds. */
static sfq_status put_nested(sfq_outdir *to, const char *name, const sfq_buf *data, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    int fd = -1;
    int dir_fd = -1;
    char *path = sfq_path_join(sfq_outdir_path(to), name);
    if (path == NULL)
        return sfq_fail_memory(err, strlen(name), "a path");
    char *slash = strrchr(path, '/');
    *slash = 0;
    if (sfq_sys_mkdir(path, 0777) != 0 && errno != EEXIST) {
        status = sfq_fail_errno(err, errno, path, "cannot make the directory");
        goto done;
    }
    dir_fd = sfq_sys_open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (dir_fd >= 0)
        fd = sfq_sys_openat(dir_fd, slash + 1, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                            0666);
    if (fd < 0) {
        status = sfq_fail_errno(err, errno, name, "cannot create");
        goto done;
    }
    SFQ_DO(sfq_outdir_write(fd, name, data->data, data->len, 0, err));
    if (sfq_sys_fsync(fd) != 0 || sfq_sys_fsync(dir_fd) != 0)
        status = sfq_fail_errno(err, errno, name, "cannot be written through to the disk");
done:
    if (fd >= 0 && sfq_sys_close(fd) != 0 && status == SFQ_OK)
        status = sfq_fail_errno(err, errno, name, "close failed");
    if (dir_fd >= 0)
        sfq_sys_close(dir_fd);
    sfq_mem_free(path);
    return status;
}

static sfq_status copy_file(const char *from, const char *name, sfq_outdir *to, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    sfq_buf data = SFQ_BUF_INIT(COPY_MAX);
    char *path = sfq_path_join(from, name);
    if (path == NULL)
        return sfq_fail_memory(err, strlen(from), "a path");
    if (!sfq_file_exists(path))
        goto done;
    SFQ_DO(sfq_file_read(&data, path, COPY_MAX, err));
    if (strchr(name, '/') != NULL)
        status = put_nested(to, name, &data, err);
    else
        status = sfq_outdir_put(to, name, data.data, data.len, err);
done:
    sfq_buf_free(&data);
    sfq_mem_free(path);
    return status;
}

/* Of a pooling module whose folder has another name than sentence-transformers gives it. */
static sfq_status copy_pooling(const char *from, sfq_outdir *to, sfq_error *err)
{
    char *folder = NULL;
    SFQ_TRY(sfq_pooling_folder(from, &folder, err));
    char *name = folder != NULL ? sfq_path_join(folder, "config.json") : NULL;
    sfq_status status = SFQ_OK;
    if (folder != NULL && name == NULL)
        status = sfq_fail_memory(err, strlen(folder), "a path");
    else if (name != NULL && strcmp(name, COPIED_POOLING) != 0)
        status = copy_file(from, name, to, err);
    sfq_mem_free(name);
    sfq_mem_free(folder);
    return status;
}

sfq_status sfq_copy_files(const char *from, sfq_outdir *to, sfq_error *err)
{
    for (size_t i = 0; i < COPIED; i++)
        SFQ_TRY(copy_file(from, copied[i], to, err));
    return copy_pooling(from, to, err);
}

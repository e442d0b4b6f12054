/* runtime/tokenize.c - the tokenizer of a directory without its model: tokenizer.json is all that
 * text to ids takes. A config.json beside it that can be read must know as many ids. */
#include "runtime/tokenize.h"

#include "base/file.h"
#include "base/mem.h"
#include "format/checkpoint.h"
#include "format/hf_config.h"

#include <string.h>

sfq_status sfq_tokenizer_of(sfq_tokenizer **out, const char *model, sfq_error *err)
{
    sfq_tokenizer *tokenizer = NULL;
    sfq_hf_config *config = NULL;
    char *dir = NULL;
    char *path = NULL;
    sfq_error ignored;
    sfq_status status = SFQ_OK;
    *out = NULL;
    SFQ_DO(sfq_model_dir_resolve(&dir, model, err));
    SFQ_DO(sfq_tokenizer_open(&tokenizer, dir, err));
    path = sfq_path_join(dir, "tokenizer.json");
    if (path == NULL) {
        status = sfq_fail_memory(err, strlen(dir), "path of the tokenizer");
        goto done;
    }
    status = sfq_hf_config_open(&config, dir, &ignored);
    if (status == SFQ_E_MEMORY) {
        status = sfq_fail_memory(err, 0, "config.json");
        goto done;
    }
    status = SFQ_OK; /* without a config that can be read the ids stand for themselves */
    if (config != NULL && config->vocab > 0)
        SFQ_DO(sfq_tokenizer_fits(tokenizer, path, config->vocab, err));
    *out = tokenizer;
    tokenizer = NULL;
done:
    sfq_tokenizer_close(&tokenizer);
    sfq_hf_config_close(&config);
    sfq_mem_free(path);
    sfq_mem_free(dir);
    return status;
}

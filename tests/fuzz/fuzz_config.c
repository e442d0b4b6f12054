/* fuzz_config - any bytes as config.json, read as the engine reads it: the numbers, the widths of
 * the layers, and the description of an artifact. */
#include "fuzz.h"

#include "base/mem.h"
#include "format/artifact.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sfq_error err;
    sfq_hf_config *config = NULL;
    sfq_artifact_info *info = NULL;
    fuzz_file("config.json", data, size);
    if (sfq_hf_config_open(&config, fuzz_dir(), &err) != SFQ_OK)
        return 0;
    if (sfq_artifact_read(&info, config, &err) == SFQ_OK) {
        sfq_layer_dims *dims = SFQ_NEW_ARRAY(sfq_layer_dims, (size_t)config->layers);
        if (dims)
            (void)sfq_hf_layer_dims(dims, config, info, &err);
        sfq_mem_free(dims);
    }
    sfq_artifact_free(&info);
    sfq_hf_config_close(&config);
    return 0;
}

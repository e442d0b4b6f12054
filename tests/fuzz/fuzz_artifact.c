/* fuzz_artifact - a whole model directory: two bytes (little endian) give the length of
 * config.json, the rest is model.safetensors. Opened to describe it, verified, and opened to
 * compute. */
#include "fuzz.h"

#include <sfq/sfq.h>

/* Four words are enough: what fuzz_tokenizer covers is not the matter here. */
static const char tokenizer[] =
    "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[],"
    "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"post_processor\":null,"
    "\"decoder\":null,\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"u\","
    "\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":100,"
    "\"vocab\":{\"u\":0,\"a\":1,\"b\":2,\"##b\":3}}}";

static void open_once(bool header_only)
{
    sfq_error err;
    sfq_model *model = NULL;
    sfq_model_options options;
    sfq_model_info info;
    sfq_layer_info layer;
    sfq_model_options_default(&options);
    options.header_only = header_only;
    options.threads = 1;
    if (sfq_model_open(&model, fuzz_dir(), &options, &err) == SFQ_OK) {
        if (sfq_model_info_get(model, &info, &err) == SFQ_OK && info.layers > 0)
            (void)sfq_model_layer_get(model, info.layers - 1, &layer, &err);
        if (header_only)
            (void)sfq_model_verify(model, NULL, &err);
    }
    sfq_model_close(&model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t config = size >= 2 ? data[0] + ((size_t)data[1] << 8) : 0;
    if (size < 2 || config > size - 2)
        return 0;
    fuzz_file("config.json", data + 2, config);
    fuzz_file("model.safetensors", data + 2 + config, size - 2 - config);
    fuzz_file("tokenizer.json", tokenizer, sizeof tokenizer - 1);
    open_once(true);
    open_once(false);
    return 0;
}

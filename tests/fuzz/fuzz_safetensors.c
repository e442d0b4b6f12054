/* fuzz_safetensors - any bytes as a safetensors file. What opens must be safe to read to its last
 * byte. */
#include "fuzz.h"

#include "format/safetensors.h"

static volatile unsigned char sink; /* reads that the compiler must keep */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sfq_error err;
    sfq_safetensors *st = NULL;
    const char *path = fuzz_file("model.safetensors", data, size);
    if (sfq_safetensors_open(&st, path, &err) != SFQ_OK)
        return 0;
    for (size_t i = 0; i < sfq_safetensors_count(st); i++) {
        const sfq_tensor *t = sfq_safetensors_at(st, i);
        const unsigned char *bytes = t->data;
        for (size_t b = 0; b < t->bytes; b++)
            sink = bytes[b];
        if (sfq_safetensors_find(st, t->name) != t)
            __builtin_trap();
    }
    sfq_safetensors_close(&st);
    return 0;
}

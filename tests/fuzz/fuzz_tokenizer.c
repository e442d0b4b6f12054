/* fuzz_tokenizer - the first bytes of the input (up to a line break) as a text, the rest as
 * tokenizer.json: parse, encode, decode. */
#include "fuzz.h"

#include "base/mem.h"
#include "text/tokenizer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sfq_error err;
    sfq_tokenizer *tokenizer = NULL;
    sfq_encoding encoding = {0};
    char *text = NULL;
    size_t bytes = 0;
    const char *input = (const char *)data;
    const char *end = size ? memchr(input, '\n', size) : NULL;
    size_t length = end ? (size_t)(end - input) : 0;
    size_t skip = end ? length + 1 : 0;
    if (sfq_tokenizer_parse(&tokenizer, "tokenizer.json", input + skip, size - skip, &err) !=
        SFQ_OK)
        return 0;
    if (sfq_tokenizer_encode(tokenizer, input, length, NULL, 0, true, 0, &encoding, &err) ==
        SFQ_OK) {
        (void)sfq_tokenizer_decode(tokenizer, encoding.ids, encoding.count, false, &text, &bytes,
                                   &err);
        sfq_mem_free(text);
    }
    sfq_encoding_clear(&encoding);
    sfq_tokenizer_close(&tokenizer);
    return 0;
}

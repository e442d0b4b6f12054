/* runtime/tokenize.h - a directory's tokenizer, with or without a model around it. */
#ifndef SFQ_RUNTIME_TOKENIZE_H
#define SFQ_RUNTIME_TOKENIZE_H

#include "text/tokenizer.h"

/* MODEL's tokenizer.json. NOT_FOUND without one; FORMAT where config.json has fewer ids. */
sfq_status sfq_tokenizer_of(sfq_tokenizer **out, const char *model, sfq_error *err);

#endif

/* text/model.h - the model of tokenizer.json: one of BPE, WordPiece, WordLevel, Unigram. */
#ifndef SFQ_TEXT_MODEL_H
#define SFQ_TEXT_MODEL_H

#include "text/bpe.h"
#include "text/unigram.h"
#include "text/wordpiece.h"

typedef enum sfq_model_kind {
    SFQ_MODEL_BPE,
    SFQ_MODEL_WORDPIECE,
    SFQ_MODEL_WORDLEVEL,
    SFQ_MODEL_UNIGRAM
} sfq_model_kind;

typedef struct sfq_word_model {
    sfq_model_kind kind;
    sfq_vocab vocab;
    sfq_bpe bpe;
    sfq_wordpiece wordpiece; /* WordLevel too */
    sfq_unigram unigram;
} sfq_word_model;

typedef struct sfq_model_scratch {
    sfq_bpe_scratch *bpe;
    sfq_buf work;
} sfq_model_scratch;

/* `model` must stay where it is: its parts point to its vocabulary. */
sfq_status sfq_word_model_load(sfq_word_model *model, const json_t *json, const char *file,
                               sfq_error *err);
void sfq_word_model_close(sfq_word_model *model);
sfq_status sfq_model_scratch_open(sfq_model_scratch *scratch, const sfq_word_model *model,
                                  sfq_error *err);
void sfq_model_scratch_close(sfq_model_scratch *scratch);
sfq_status sfq_word_model_encode(const sfq_word_model *model, sfq_model_scratch *scratch,
                                 const char *word, size_t n, sfq_ids *out, sfq_error *err);

#endif

/* tests/tools/kit/kit.h - what the tools share: token ids from a file, a model directory opened,
 * raw floats written. */
#ifndef SFQ_TESTS_TOOLS_KIT_H
#define SFQ_TESTS_TOOLS_KIT_H

#include "model/forward.h"

enum { KIT_SEQUENCES = 256, KIT_TOKENS = 1 << 16 };

/* A sequence per line, ids separated by spaces, optionally "|" and as many token types. */
typedef struct kit_input {
    size_t sequences;
    size_t offset[KIT_SEQUENCES + 1];
    int32_t ids[KIT_TOKENS], types[KIT_TOKENS];
    bool typed;
} kit_input;

bool kit_read_input(kit_input *in, const char *path);

typedef struct kit_model {
    sfq_hf_config *config;
    sfq_checkpoint *ck;
    sfq_artifact_info *artifact;
    sfq_arch *arch;
    sfq_modules *modules;
    sfq_net *net;
    sfq_pool *pool;
} kit_model;

/* kit_close in any case. */
sfq_status kit_open(kit_model *m, const char *dir, int threads, sfq_error *err);
void kit_close(kit_model *m);

/* SFQ_ISA_COUNT for an unknown name. */
sfq_isa kit_isa(const char *name);
/* Writes OUT.SUFFIX. */
bool kit_write_floats(const char *out, const char *suffix, const float *data, size_t n);
/* Says a failure on stderr; the program's exit status. */
int kit_exit(sfq_status status, const sfq_error *err);

#endif

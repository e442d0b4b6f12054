/* compress/copy.h - the files of a model directory that compression does not touch: tokenizer,
 * generation settings, pooling, chat template, licence. */
#ifndef SFQ_COMPRESS_COPY_H
#define SFQ_COMPRESS_COPY_H

#include "base/file.h"

/* Bytes of all that would be copied. LIMIT for a file beyond what such a file can be. */
sfq_status sfq_copy_size(const char *from, uint64_t *bytes, sfq_error *err);
/* NO_SPACE where the disk that is to hold the directory `output` has less than `bytes` free. */
sfq_status sfq_copy_room(const char *output, uint64_t bytes, sfq_error *err);
sfq_status sfq_copy_files(const char *from, sfq_outdir *to, sfq_error *err);

#endif

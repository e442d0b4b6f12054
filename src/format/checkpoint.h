/* format/checkpoint.h - the weights of a model directory: model.safetensors, or the shards that
 * model.safetensors.index.json names, as one set of tensors. Pickle files are refused by name. */
#ifndef SFQ_FORMAT_CHECKPOINT_H
#define SFQ_FORMAT_CHECKPOINT_H

#include "format/safetensors.h"

typedef struct sfq_checkpoint sfq_checkpoint;

sfq_status sfq_checkpoint_open(sfq_checkpoint **out, const char *dir, const sfq_hooks *hooks,
                               sfq_error *err);
/* Of tensors that lie in memory, not in files: names and data stay the caller's and must outlive
 * it. `name` stands where a message would name a file. */
sfq_status sfq_checkpoint_of(sfq_checkpoint **out, const char *name, const sfq_tensor *tensors,
                             size_t count, sfq_error *err);
/* All files move into memory of huge pages; pointers to tensors' data end. What lies in memory
 * already stays. */
sfq_status sfq_checkpoint_copy(sfq_checkpoint *ck, sfq_pool *pool, const sfq_hooks *hooks,
                               sfq_error *err);
void sfq_checkpoint_close(sfq_checkpoint **ck);
size_t sfq_checkpoint_count(const sfq_checkpoint *ck);
/* Sorted by name (strcmp), whatever the shards: what decides bytes does not depend on the split. */
const sfq_tensor *sfq_checkpoint_at(const sfq_checkpoint *ck, size_t i);
const sfq_tensor *sfq_checkpoint_find(const sfq_checkpoint *ck, const char *name);
uint64_t sfq_checkpoint_bytes(const sfq_checkpoint *ck); /* of all weight files */
/* The path of the file that holds it; of the directory where there is no such tensor. */
const char *sfq_checkpoint_file(const sfq_checkpoint *ck, const char *tensor);
/* Every "xxh3:NAME" that the files carry is recomputed: CHECKSUM names the tensor. Float tensors
 * are checked for NaN and infinity: NUMERIC. */
sfq_status sfq_checkpoint_verify(const sfq_checkpoint *ck, const sfq_hooks *hooks, sfq_error *err);

/* MODEL as users give it -> directory: an existing directory as it is, else "org/name" in the local
 * Hugging Face cache (HF_HUB_CACHE, HF_HOME/hub, ~/.cache/huggingface/hub): refs/main -> snapshot.
 * *dir is freed with sfq_mem_free. */
sfq_status sfq_model_dir_resolve(char **dir, const char *model, sfq_error *err);

#endif

/* fuzz.h - what the fuzz targets share: the entry that libFuzzer and the replay driver call, and a
 * scratch directory for readers that take paths. */
#ifndef SFQ_FUZZ_H
#define SFQ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One directory for the process, in memory where the machine has /dev/shm; removed at exit. */
const char *fuzz_dir(void);
/* Writes fuzz_dir()/name; returns its path (a static buffer per call, four in turn). */
const char *fuzz_file(const char *name, const void *data, size_t size);

#endif

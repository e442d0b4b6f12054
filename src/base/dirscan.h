/* base/dirscan.h - listing and removing directories without the heap, so that cleaning up works
 * when memory is what ran out. Private to base. */
#ifndef SFQ_BASE_DIRSCAN_H
#define SFQ_BASE_DIRSCAN_H

#include <stdbool.h>
#include <stddef.h>

/* Called for each entry but "." and ".."; false ends the scan. */
typedef bool (*sfq_dirscan_fn)(void *ctx, int dirfd, const char *name);

/* From the start of the directory. False when reading failed (errno) or the callback ended it. */
bool sfq_dirscan_each(int dirfd, sfq_dirscan_fn fn, void *ctx);
/* Opens name in dirfd as a directory, never through a link; -1 and errno. */
int sfq_dirscan_open(int dirfd, const char *name);
/* Removes name in dirfd with all it holds; follows no link and enters no other file system. What
 * cannot be removed stays; false then. */
bool sfq_dirscan_remove(int dirfd, const char *name);

#endif

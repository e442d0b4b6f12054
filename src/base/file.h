/* base/file.h - reading whole regular files, and writing a file or a directory so that it appears
 * at once or not at all. Only regular files are opened (no FIFO can hang us, no device is read). */
#ifndef SFQ_BASE_FILE_H
#define SFQ_BASE_FILE_H

#include "base/buf.h"
#include "base/pool.h"
#include "base/status.h"

#include <stdint.h>

/* ---- reading ---- */

typedef struct sfq_map {
    const unsigned char *data; /* NULL for an empty file */
    size_t size;
    bool copied; /* private memory, not the file's pages */
} sfq_map;

/* mmap of a whole file. NOT_FOUND, IO, MEMORY; ARGUMENT when it is no regular file. */
sfq_status sfq_map_open(sfq_map *out, const char *path, sfq_error *err);
void sfq_map_close(sfq_map *map);
/* The bytes move to private memory in huge pages: read up to 1.6 times faster than the page cache
 * with its small ones (docs/BENCHMARKING.md), no longer shared between processes, safe from writers
 * of the file. Pointers into the old map end. MEMORY, INTERRUPTED: the map stays as it was. */
sfq_status sfq_map_copy(sfq_map *map, sfq_pool *pool, const sfq_hooks *hooks, const char *what,
                        sfq_error *err);

/* Replaces out's content by a whole file of at most max bytes (LIMIT), by pread; NUL is put behind.
 * Raises out->max to max where it is less. */
sfq_status sfq_file_read(sfq_buf *out, const char *path, size_t max, sfq_error *err);
/* Anything at that path, dangling links included. Where looking fails (EIO, EACCES) both say yes:
 * opening it then reports why. */
bool sfq_file_exists(const char *path);
bool sfq_dir_exists(const char *path);
sfq_status sfq_file_size(uint64_t *size, const char *path, sfq_error *err);
/* dir + "/" + name into a new string; NULL: out of memory. */
char *sfq_path_join(const char *dir, const char *name);
/* A name from a file that may only name an entry of the same directory: not empty, no '/', no NUL,
 * not "." or "..". */
bool sfq_name_is_plain(const char *name);
/* Same file system object (st_dev, st_ino), through links. */
bool sfq_path_same(const char *a, const char *b);

/* ---- replacing one file atomically ---- */

typedef struct sfq_file_part {
    const void *data;
    size_t bytes;
} sfq_file_part;

/* The file becomes these parts, one after the other, or stays as it was (absent, too): written to
 * "PATH.tmp", fsync, rename, fsync of the directory. One writer at a time. */
sfq_status sfq_file_replace(const char *path, const sfq_file_part *parts, size_t count,
                            sfq_error *err);

/* ---- writing a directory atomically ----
 * Files go to ".NAME.sfq-tmp.PID" beside the target; commit() fsyncs each file and the directory,
 * renames (exchanges, when a target is replaced), fsyncs the parent. abort() (or commit's failure)
 * closes files that were not finished and removes the temporary; both work without memory.
 * Temporaries of dead processes are removed at open. A failed fsync is final. */
typedef struct sfq_outdir sfq_outdir;

/* EXISTS unless force; with force only a directory that holds a config.json, or an empty one, is
 * replaced (a link never is). NOT_FOUND when the parent is missing. */
sfq_status sfq_outdir_open(sfq_outdir **out, const char *target, bool force, sfq_error *err);
const char *sfq_outdir_path(const sfq_outdir *dir); /* of the temporary */
/* A whole small file. */
sfq_status sfq_outdir_put(sfq_outdir *dir, const char *name, const void *data, size_t n,
                          sfq_error *err);
/* A big file, written piecewise; preallocates size (NO_SPACE before any work). The descriptor stays
 * the outdir's: end it by finish, or leave it to abort. */
sfq_status sfq_outdir_create(sfq_outdir *dir, const char *name, uint64_t size, int *fd,
                             sfq_error *err);
/* fsync + close of a file from create; closed in any case. */
sfq_status sfq_outdir_finish(sfq_outdir *dir, const char *name, int fd, sfq_error *err);
sfq_status sfq_outdir_write(int fd, const char *name, const void *data, size_t n, uint64_t at,
                            sfq_error *err);
/* A file that is there already, whole and on the disk, under another name: a second link to it, or
 * a copy where the file system has none. */
sfq_status sfq_outdir_take(sfq_outdir *dir, const char *name, const char *path, sfq_error *err);
/* rename_to: another final name beside the target ("NAME.rejected"; a model directory there is an
 * earlier run's and is replaced), or NULL for the target. Closes in any case. */
sfq_status sfq_outdir_commit(sfq_outdir **dir, const char *rename_to, sfq_error *err);
void sfq_outdir_abort(sfq_outdir **dir);

#endif

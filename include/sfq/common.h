/* sfq/common.h - what every other public header needs: export mark, status codes, the caller-owned
 * error, hooks for progress, log and cancellation, and the version.
 *
 * Status values are pinned: a code is never renumbered and never removed. */
#ifndef SFQ_COMMON_H
#define SFQ_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SFQ_API __attribute__((visibility("default")))
#else
#define SFQ_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define SFQ_VERSION_MAJOR 0
#define SFQ_VERSION_MINOR 1
#define SFQ_VERSION_PATCH 0
#define SFQ_VERSION_STRING "0.1.0"

/* X(name, value, exit status of the command line, text) */
#define SFQ_STATUS_MAP(X)                            \
    X(OK, 0, 0, "ok")                                \
    X(E_ARGUMENT, -10, 2, "bad argument")            \
    X(E_IO, -20, 1, "input/output failed")           \
    X(E_NOT_FOUND, -21, 2, "not found")              \
    X(E_EXISTS, -22, 2, "already exists")            \
    X(E_NO_SPACE, -23, 6, "no space left")           \
    X(E_FORMAT, -30, 2, "damaged or malformed file") \
    X(E_CHECKSUM, -31, 2, "checksum differs")        \
    X(E_DATA, -32, 2, "bad data")                    \
    X(E_LIMIT, -33, 2, "beyond a limit")             \
    X(E_MEMORY, -40, 6, "out of memory")             \
    X(E_UNSUPPORTED, -50, 5, "not supported")        \
    X(E_NUMERIC, -60, 2, "not a finite number")      \
    X(E_GUARD, -70, 3, "accuracy guard tripped")     \
    X(E_INFEASIBLE, -71, 4, "budget infeasible")     \
    X(E_INTERRUPTED, -80, 130, "interrupted")        \
    X(E_INTERNAL, -90, 1, "internal error")

typedef enum sfq_status {
#define SFQ_STATUS_ENUM(name, value, exit_status, text) SFQ_##name = (value),
    SFQ_STATUS_MAP(SFQ_STATUS_ENUM)
#undef SFQ_STATUS_ENUM
} sfq_status;

/* The status's name without prefix ("E_FORMAT"), its text, and the exit status that programs use.
 * An unknown value gives "E_INTERNAL" and its facts. Never NULL. */
SFQ_API const char *sfq_status_name(sfq_status status);
SFQ_API const char *sfq_status_text(sfq_status status);
SFQ_API int sfq_status_exit(sfq_status status);

/* Filled by a call that fails; owned by the caller, who may pass NULL. The message is one printable
 * line that says what, where and what to do next. file and tensor are "" where they do not
 * apply. */
typedef struct sfq_error {
    sfq_status code;
    char message[512];
    char file[256];
    char tensor[160];
} sfq_error;

/* Where a long call stands. Stages count from 1. total is 0 where it is not known beforehand. */
typedef struct sfq_progress {
    const char *stage; /* "fuse", "eval", ... */
    int stage_index;
    int stage_count;
    uint64_t done;
    uint64_t total;
    const char *unit; /* "weights", "examples", "tokens" */
} sfq_progress;

typedef enum sfq_log_level { SFQ_LOG_NOTE = 0, SFQ_LOG_WARNING = 1 } sfq_log_level;

/* All members may be NULL. They are called on the thread that made the call. cancelled() is asked
 * between steps; true ends the call with SFQ_E_INTERRUPTED and nothing half written. */
typedef struct sfq_hooks {
    void *ud;
    void (*progress)(void *ud, const sfq_progress *progress);
    void (*log)(void *ud, sfq_log_level level, const char *message);
    bool (*cancelled)(void *ud);
} sfq_hooks;

SFQ_API const char *sfq_version(void);

/* Frees memory that a call of this library handed to the caller. NULL is fine. */
SFQ_API void sfq_release(void *memory);

/* What the library found on this machine. Strings are static or inside the struct. */
typedef struct sfq_environment {
    const char *version;
    const char *compiler;
    const char *build_type;
    const char *isa;          /* the best kernel set in use: "ref", "avx2", ... */
    const char *isa_detected; /* what the processor offers before SFQ_MAX_ISA */
    char cpu[96];
    int threads; /* the default thread count */
    int threads_affinity;
    int threads_cores;         /* physical cores in the affinity set */
    double threads_quota;      /* cgroup quota in processors, 0 without one */
    uint64_t memory_available; /* bytes: the lesser of MemAvailable and the cgroup's rest */
    char libraries[192];       /* "jansson 2.14, PCRE2 10.42, ..." */
} sfq_environment;

SFQ_API sfq_status sfq_environment_get(sfq_environment *out, sfq_error *err);

#ifdef __cplusplus
}
#endif
#endif

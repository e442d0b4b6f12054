/* compress/journal.c - order makes it safe: a stage's directory is in place before journal.json
 * names it, and journal.json has forgotten a directory before it is removed. The directory itself
 * carries the lock, which the kernel drops with the process. */
#include "compress/journal.h"

#include "base/ck.h"
#include "base/clock.h"
#include "base/dirscan.h"
#include "base/mem.h"
#include "base/sys.h"
#include "compress/request.h"
#include "format/artifact.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { STAGES_MAX = 64, NAME_MAX_BYTES = 32, JOURNAL_BYTES_MAX = 64 << 20, ATTEMPTS = 16 };

static const char journal_name[] = "journal.json";
static const char journal_new[] = "journal.json.tmp"; /* what sfq_file_replace leaves */
static const char state_suffix[] = ".state";

typedef struct entry {
    char name[NAME_MAX_BYTES];
    char *path; /* of its directory; NULL: obsolete, removed */
    json_t *report;
} entry;

struct sfq_journal {
    char *path; /* OUTPUT.work */
    char *parent;
    const char *name; /* last part of path */
    char *file;       /* journal.json */
    int parent_fd;
    int fd;     /* of path, locked */
    bool ready; /* ours: locked and proved to be a journal or empty */
    json_t *request;
    entry stages[STAGES_MAX];
    int count;
    char running[NAME_MAX_BYTES];
    char *state; /* of the running stage */
    double opened, earlier;
};

/* ---- names ---- */

/* Of a stage: what we write ourselves, so nothing else is believed in a file. */
static bool is_stage_name(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-");
    return n > 0 && n < NAME_MAX_BYTES && s[n] == 0 && s[0] != '-';
}

static sfq_status set_paths(sfq_journal *j, const char *output, sfq_error *err)
{
    size_t end = strlen(output);
    while (end > 1 && output[end - 1] == '/')
        end--;
    size_t room = end + sizeof ".work";
    j->path = sfq_mem_raw(room);
    if (j->path == NULL)
        return sfq_fail_memory(err, room, "a path");
    memcpy(j->path, output, end);
    strcpy(j->path + end, ".work");
    const char *slash = strrchr(j->path, '/');
    j->name = slash != NULL ? slash + 1 : j->path;
    if (slash == NULL)
        j->parent = sfq_mem_strdup(".");
    else
        j->parent = sfq_mem_strndup(j->path, slash == j->path ? 1 : (size_t)(slash - j->path));
    j->file = sfq_path_join(j->path, journal_name);
    if (j->parent == NULL || j->file == NULL)
        return sfq_fail_memory(err, room, "a path");
    return SFQ_OK;
}

/* ---- the directory and its lock ---- */

/* Whether the path still leads to what fd is: another run may have removed it before the lock. */
static bool still_there(const sfq_journal *j)
{
    struct stat mine;
    struct stat there;
    return sfq_sys_fstat(j->fd, &mine) == 0 &&
           sfq_sys_fstatat(j->parent_fd, j->name, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
           mine.st_dev == there.st_dev && mine.st_ino == there.st_ino;
}

static sfq_status lock_once(sfq_journal *j, bool *locked, sfq_error *err)
{
    *locked = false;
    if (sfq_sys_mkdir(j->path, 0777) != 0 && errno != EEXIST)
        return sfq_fail_errno(err, errno, j->path, "cannot make the directory");
    j->fd = sfq_dirscan_open(j->parent_fd, j->name);
    if (j->fd < 0 && errno == ENOENT)
        return SFQ_OK;
    if (j->fd < 0 && (errno == ENOTDIR || errno == ELOOP))
        return sfq_fail_at(err, SFQ_E_EXISTS, j->path, NULL,
                           "%s: is no directory; unfinished work goes there: move it away, or "
                           "choose another output",
                           j->path);
    if (j->fd < 0)
        return sfq_fail_errno(err, errno, j->path, "cannot open");
    /* a file system without locks loses only the protection from a second run */
    if (sfq_sys_flock(j->fd) != 0 && errno == EWOULDBLOCK)
        return sfq_fail_at(err, SFQ_E_EXISTS, j->path, NULL,
                           "%s: another run works there; wait for it, or choose another output",
                           j->path);
    *locked = still_there(j);
    if (!*locked) {
        sfq_sys_close(j->fd);
        j->fd = -1;
    }
    return SFQ_OK;
}

static sfq_status lock_directory(sfq_journal *j, sfq_error *err)
{
    bool locked = false;
    j->parent_fd = sfq_sys_open(j->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (j->parent_fd < 0)
        return sfq_fail_errno(err, errno, j->parent,
                              "cannot open the parent directory, which must exist");
    for (int i = 0; i < ATTEMPTS && !locked; i++)
        SFQ_TRY(lock_once(j, &locked, err));
    if (locked)
        return SFQ_OK;
    return sfq_fail_at(err, SFQ_E_IO, j->path, NULL, "%s: comes and goes; try again", j->path);
}

/* ---- what stays ---- */

static bool is_kept(const sfq_journal *j, const char *name)
{
    if (strcmp(name, journal_name) == 0)
        return true;
    size_t n = strlen(name);
    size_t tail = sizeof state_suffix - 1;
    bool state = n > tail && strcmp(name + n - tail, state_suffix) == 0;
    for (int i = 0; i < j->count; i++) {
        const entry *e = &j->stages[i];
        if (state && strlen(e->name) == n - tail && strncmp(name, e->name, n - tail) == 0)
            return false; /* the stage is done */
        if (e->path != NULL && strcmp(name, e->name) == 0)
            return true;
    }
    return state;
}

typedef struct sweep {
    const sfq_journal *journal;
    bool removed;
} sweep;

static bool sweep_entry(void *ctx, int dirfd, const char *name)
{
    sweep *s = ctx;
    if (is_kept(s->journal, name))
        return true;
    bool gone = sfq_sys_unlinkat(dirfd, name, 0) == 0 || sfq_dirscan_remove(dirfd, name);
    s->removed = s->removed || gone;
    return true;
}

/* Removes what the journal does not know; what cannot be removed does no harm. */
static void sweep_directory(const sfq_journal *j)
{
    sweep s = {.journal = j, .removed = true};
    while (s.removed) { /* again until a pass finds nothing: entries move as others go */
        s.removed = false;
        (void)sfq_dirscan_each(j->fd, sweep_entry, &s);
    }
}

static void forget_stages(sfq_journal *j)
{
    for (int i = 0; i < j->count; i++) {
        sfq_mem_free(j->stages[i].path);
        json_decref(j->stages[i].report);
    }
    j->count = 0;
    j->earlier = 0;
}

/* ---- writing journal.json ---- */

static json_t *stage_json(const entry *e)
{
    return json_pack("{s:s, s:b, s:O}", "name", e->name, "kept", e->path != NULL, "report",
                     e->report);
}

static json_t *journal_json(const sfq_journal *j, double seconds)
{
    json_t *stages = json_array();
    bool ok = stages != NULL;
    for (int i = 0; i < j->count && ok; i++)
        ok = json_array_append_new(stages, stage_json(&j->stages[i])) == 0;
    if (!ok) {
        json_decref(stages);
        return NULL;
    }
    return json_pack("{s:i, s:O, s:f, s:o}", "schema", 1, "request", j->request, "seconds", seconds,
                     "stages", stages);
}

static sfq_status write_journal(sfq_journal *j, sfq_error *err)
{
    sfq_buf text = SFQ_BUF_INIT(JOURNAL_BYTES_MAX);
    sfq_status status = SFQ_OK;
    json_t *json = journal_json(j, j->earlier + sfq_clock_seconds() - j->opened);
    if (json == NULL)
        return sfq_fail_memory(err, 0, journal_name);
    SFQ_DO(sfq_artifact_text(&text, json, err));
    const sfq_file_part whole = {text.data, text.len};
    SFQ_DO(sfq_file_replace(j->file, &whole, 1, err));
done:
    sfq_buf_free(&text);
    json_decref(json);
    return status;
}

/* ---- reading journal.json ---- */

static sfq_status damaged(const sfq_journal *j, const char *what, sfq_error *err)
{
    return sfq_fail_at(err, SFQ_E_FORMAT, j->file, NULL,
                       "%s: damaged (%s); start anew with --force", j->file, what);
}

/* One finished stage, proved: its name, its numbers, and that its directory is there. */
static sfq_status read_stage(sfq_journal *j, const json_t *item, sfq_error *err)
{
    entry e = {0};
    const char *name = json_string_value(json_object_get(item, "name"));
    json_t *report = json_object_get(item, "report");
    if (name == NULL || !is_stage_name(name) || sfq_journal_done(j, name, NULL) ||
        !json_is_object(report) || !json_is_boolean(json_object_get(item, "kept")) ||
        j->count == STAGES_MAX)
        return damaged(j, "a stage", err);
    strcpy(e.name, name);
    if (json_is_true(json_object_get(item, "kept"))) {
        struct stat st;
        if (sfq_sys_fstatat(j->fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(st.st_mode))
            return damaged(j, "a stage's directory is missing", err);
        e.path = sfq_path_join(j->path, name);
        if (e.path == NULL)
            return sfq_fail_memory(err, strlen(j->path), "a path");
    }
    e.report = json_incref(report);
    j->stages[j->count++] = e;
    return SFQ_OK;
}

static sfq_status read_stages(sfq_journal *j, const json_t *root, sfq_error *err)
{
    const json_t *stages = json_object_get(root, "stages");
    const json_t *seconds = json_object_get(root, "seconds");
    size_t i;
    json_t *item;
    if (json_integer_value(json_object_get(root, "schema")) != 1 || !json_is_array(stages) ||
        !json_is_object(json_object_get(root, "request")) || !json_is_number(seconds) ||
        !(json_number_value(seconds) >= 0))
        return damaged(j, "no journal of this version", err);
    json_array_foreach((json_t *)(uintptr_t)stages, i, item) SFQ_TRY(read_stage(j, item, err));
    j->earlier = json_number_value(seconds);
    return SFQ_OK;
}

static sfq_status check_request(const sfq_journal *j, const json_t *root, sfq_error *err)
{
    char what[160];
    const json_t *found = json_object_get(root, "request");
    if (j->count == 0 || !sfq_request_differs(j->request, found, what, sizeof what))
        return SFQ_OK;
    return sfq_fail_at(err, SFQ_E_EXISTS, j->path, NULL,
                       "%s: holds an interrupted run of another request (different: %s); repeat "
                       "that one, choose another output, or start anew with --force",
                       j->path, what);
}

static bool any_entry(void *ctx, int dirfd, const char *name)
{
    (void)dirfd;
    bool *foreign = ctx;
    size_t n = strlen(name);
    size_t tail = sizeof state_suffix - 1;
    bool ours = strcmp(name, journal_new) == 0 ||
                (name[0] == '.' && strstr(name, ".sfq-tmp.") != NULL) ||
                (n > tail && strcmp(name + n - tail, state_suffix) == 0);
    *foreign = !ours;
    return ours;
}

/* Without journal.json: a run that was killed before it wrote one, or something of the user's. */
static sfq_status check_foreign(const sfq_journal *j, sfq_error *err)
{
    bool foreign = false;
    if (!sfq_dirscan_each(j->fd, any_entry, &foreign) && !foreign)
        return sfq_fail_errno(err, errno, j->path, "cannot list");
    if (!foreign)
        return SFQ_OK;
    return sfq_fail_at(err, SFQ_E_EXISTS, j->path, NULL,
                       "%s: holds files but no %s; unfinished work goes there: move it away, or "
                       "choose another output",
                       j->path, journal_name);
}

static sfq_status read_journal(sfq_journal *j, sfq_error *err)
{
    json_t *root = NULL;
    sfq_error why = {0};
    sfq_status status = sfq_json_read(&root, j->file, JOURNAL_BYTES_MAX, &why);
    if (status == SFQ_E_FORMAT || status == SFQ_E_LIMIT)
        return damaged(j, why.message, err);
    if (status != SFQ_OK)
        return sfq_fail_at(err, status, j->file, NULL, "%s", why.message);
    status = read_stages(j, root, err);
    if (status == SFQ_OK)
        status = check_request(j, root, err);
    if (status == SFQ_OK && j->count == 0)
        j->earlier = 0;
    json_decref(root);
    return status;
}

/* ---- open and close ---- */

static sfq_status load(sfq_journal *j, bool force, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    if (!sfq_file_exists(j->file)) {
        SFQ_TRY(check_foreign(j, err));
    } else {
        status = read_journal(j, err);
        if (force && (status == SFQ_E_EXISTS || status == SFQ_E_FORMAT)) {
            forget_stages(j);
            status = SFQ_OK;
        }
    }
    SFQ_TRY(status);
    j->ready = true;
    if (j->count == 0) /* a journal of this request, before what an older one names goes */
        SFQ_TRY(write_journal(j, err));
    sweep_directory(j);
    return SFQ_OK;
}

sfq_status sfq_journal_open(sfq_journal **out, const sfq_source *source,
                            const sfq_compress_options *options, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    *out = NULL;
    sfq_journal *j = SFQ_NEW(sfq_journal);
    if (j == NULL)
        return sfq_fail_memory(err, sizeof *j, "the journal");
    j->fd = j->parent_fd = -1;
    j->opened = sfq_clock_seconds();
    SFQ_DO(set_paths(j, options->output, err));
    SFQ_DO(sfq_source_guard(source, j->path, err));
    SFQ_DO(sfq_request_make(&j->request, source, options, err));
    SFQ_DO(lock_directory(j, err));
    SFQ_DO(load(j, options->force, err));
done:
    if (status != SFQ_OK)
        sfq_journal_close(&j);
    *out = j;
    return status;
}

/* First it forgets its stages, then they go, journal.json last: killed in between, it is one
 * without a finished stage. */
static bool remove_directory(sfq_journal *j)
{
    forget_stages(j);
    (void)write_journal(j, NULL);
    sweep_directory(j);
    return sfq_dirscan_remove(j->parent_fd, j->name);
}

static void release(sfq_journal **journal)
{
    sfq_journal *j = *journal;
    forget_stages(j);
    if (j->fd >= 0)
        sfq_sys_close(j->fd);
    if (j->parent_fd >= 0)
        sfq_sys_close(j->parent_fd);
    json_decref(j->request);
    sfq_mem_free(j->state);
    sfq_mem_free(j->file);
    sfq_mem_free(j->parent);
    sfq_mem_free(j->path);
    sfq_mem_free(j);
    *journal = NULL;
}

void sfq_journal_close(sfq_journal **journal)
{
    sfq_journal *j = *journal;
    if (j == NULL)
        return;
    if (j->ready && j->count == 0)
        (void)remove_directory(j);
    release(journal);
}

sfq_status sfq_journal_remove(sfq_journal **journal, sfq_error *err)
{
    sfq_journal *j = *journal;
    if (j == NULL)
        return SFQ_OK;
    sfq_status status = SFQ_OK;
    if (!remove_directory(j))
        status = sfq_fail_errno(err, errno, j->path, "cannot be removed");
    release(journal);
    return status;
}

/* ---- stages ---- */

static entry *find_entry(const sfq_journal *j, const char *stage)
{
    for (int i = 0; i < j->count; i++)
        if (strcmp(j->stages[i].name, stage) == 0)
            return (entry *)(uintptr_t)&j->stages[i];
    return NULL;
}

const char *sfq_journal_path(const sfq_journal *journal)
{
    return journal->path;
}

bool sfq_journal_done(const sfq_journal *journal, const char *stage, const json_t **report)
{
    const entry *e = find_entry(journal, stage);
    if (report != NULL)
        *report = e != NULL ? e->report : NULL;
    return e != NULL;
}

const char *sfq_journal_find(const sfq_journal *journal, const char *stage)
{
    const entry *e = find_entry(journal, stage);
    return e != NULL ? e->path : NULL;
}

const char *sfq_journal_last(const sfq_journal *journal)
{
    return journal->count > 0 ? journal->stages[journal->count - 1].name : NULL;
}

sfq_status sfq_journal_begin(sfq_journal *journal, const char *stage, sfq_outdir **dir,
                             sfq_error *err)
{
    *dir = NULL;
    if (!is_stage_name(stage) || sfq_journal_done(journal, stage, NULL) ||
        journal->count == STAGES_MAX)
        return sfq_fail(err, SFQ_E_INTERNAL, "stage \"%s\" cannot begin", stage);
    char *path = sfq_path_join(journal->path, stage);
    if (path == NULL)
        return sfq_fail_memory(err, strlen(journal->path), "a path");
    sfq_status status = sfq_outdir_open(dir, path, true, err);
    sfq_mem_free(path);
    return status;
}

static void drop_state(sfq_journal *j)
{
    char name[NAME_MAX_BYTES + sizeof state_suffix];
    if (j->state == NULL)
        return;
    (void)snprintf(name, sizeof name, "%s%s", j->running, state_suffix);
    (void)sfq_dirscan_remove(j->fd, name); /* else the next open does it */
    sfq_mem_free(j->state);
    j->state = NULL;
}

sfq_status sfq_journal_end(sfq_journal *journal, const char *stage, sfq_outdir **dir,
                           const json_t *report, const char *const *obsolete, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    entry e = {.report = json_incref((json_t *)(uintptr_t)report),
               .path = sfq_path_join(journal->path, stage)};
    (void)snprintf(e.name, sizeof e.name, "%s", stage);
    if (e.path == NULL) {
        status = sfq_fail_memory(err, strlen(journal->path), "a path");
        goto done;
    }
    SFQ_DO(sfq_outdir_commit(dir, NULL, err));
    journal->stages[journal->count++] = e;
    e = (entry){0};
    for (size_t i = 0; obsolete != NULL && obsolete[i] != NULL; i++) {
        entry *old = find_entry(journal, obsolete[i]);
        if (old == NULL)
            continue;
        sfq_mem_free(old->path);
        old->path = NULL;
    }
    SFQ_DO(write_journal(journal, err));
    for (size_t i = 0; obsolete != NULL && obsolete[i] != NULL; i++)
        if (find_entry(journal, obsolete[i]) != NULL)
            (void)sfq_dirscan_remove(journal->fd, obsolete[i]); /* else the next open does it */
    drop_state(journal);
done:
    sfq_outdir_abort(dir);
    json_decref(e.report);
    sfq_mem_free(e.path);
    return status;
}

sfq_status sfq_journal_state(sfq_journal *journal, const char *stage, const char **path,
                             sfq_error *err)
{
    *path = NULL;
    char name[NAME_MAX_BYTES + sizeof state_suffix];
    if (!is_stage_name(stage))
        return sfq_fail(err, SFQ_E_INTERNAL, "\"%s\" is no name of a stage", stage);
    (void)snprintf(name, sizeof name, "%s%s", stage, state_suffix);
    sfq_mem_free(journal->state);
    (void)snprintf(journal->running, sizeof journal->running, "%s", stage);
    journal->state = sfq_path_join(journal->path, name);
    if (journal->state == NULL)
        return sfq_fail_memory(err, strlen(journal->path), "a path");
    if (sfq_sys_mkdir(journal->state, 0777) != 0 && errno != EEXIST)
        return sfq_fail_errno(err, errno, journal->state, "cannot make the directory");
    *path = journal->state;
    return SFQ_OK;
}

double sfq_journal_seconds(const sfq_journal *journal)
{
    return journal->earlier;
}

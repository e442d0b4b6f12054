/* compress/journal.h - OUTPUT.work: what an interrupted run has done, so that the next one goes on
 * from there. A directory per finished stage, written by sfq_outdir (whole or not at all), and
 * journal.json with the request and the stages' reports, replaced atomically. Whatever the journal
 * does not name is left over from a stage that did not finish, and is removed at open. So a run
 * that is killed at any moment leaves a state that is complete up to some stage. */
#ifndef SFQ_COMPRESS_JOURNAL_H
#define SFQ_COMPRESS_JOURNAL_H

#include "base/file.h"
#include "base/json.h"
#include "compress/source.h"

typedef struct sfq_journal sfq_journal;

/* Opens or makes OUTPUT.work, which is this process's until close: EXISTS while another works in
 * it. A journal of another request (other model, data, options that decide bytes, seed, version,
 * instruction set) is EXISTS and says what differs, a damaged one is FORMAT; with options->force
 * both are removed. One without a finished stage holds nothing and is replaced. A directory that is
 * no journal is never touched. */
sfq_status sfq_journal_open(sfq_journal **out, const sfq_source *source,
                            const sfq_compress_options *options, sfq_error *err);
/* Leaves the directory for the next run; without a finished stage there is nothing to leave. */
void sfq_journal_close(sfq_journal **journal);
/* Removes the directory: the run is complete. Closes in any case. */
sfq_status sfq_journal_remove(sfq_journal **journal, sfq_error *err);
const char *sfq_journal_path(const sfq_journal *journal);

/* Whether a stage is done; its report (borrowed, may be NULL to ask without). */
bool sfq_journal_done(const sfq_journal *journal, const char *stage, const json_t **report);
/* The stage's directory; NULL: the stage is not done, or its directory was obsolete. */
const char *sfq_journal_find(const sfq_journal *journal, const char *stage);
/* The last stage that is done; NULL: none. */
const char *sfq_journal_last(const sfq_journal *journal);
/* Begins a stage's directory. */
sfq_status sfq_journal_begin(sfq_journal *journal, const char *stage, sfq_outdir **dir,
                             sfq_error *err);
/* Commits it (closed in any case), records the report (borrowed), and removes the stage's state and
 * the directories of the stages named in `obsolete` (NULL-terminated; may be NULL). */
sfq_status sfq_journal_end(sfq_journal *journal, const char *stage, sfq_outdir **dir,
                           const json_t *report, const char *const *obsolete, sfq_error *err);
/* A directory for the state of a stage that runs (sfq_distill_run's dir); made if it is not
 * there. *path is the journal's, valid until the stage ends. */
sfq_status sfq_journal_state(sfq_journal *journal, const char *stage, const char **path,
                             sfq_error *err);
double sfq_journal_seconds(const sfq_journal *journal); /* spent by earlier runs */

#endif

/* compress/journal.h - OUTPUT.work: what an interrupted run has done, so that the next one goes on
 * from there. A directory per finished stage, written by sfq_outdir (whole or not at all), and
 * journal.json with the request's fingerprint and the stages' reports. */
#ifndef SFQ_COMPRESS_JOURNAL_H
#define SFQ_COMPRESS_JOURNAL_H

#include "compress/source.h"

typedef struct sfq_journal sfq_journal;

/* Opens or makes OUTPUT.work. A journal of another request (other model, data, options that decide
 * bytes, seed, version, instruction set) is EXISTS and says what to do, or with options->force
 * removed. */
sfq_status sfq_journal_open(sfq_journal **out, const sfq_source *source,
                            const sfq_compress_options *options, sfq_error *err);
/* Leaves the directory for the next run. */
void sfq_journal_close(sfq_journal **journal);
/* Removes the directory: the run is complete. */
sfq_status sfq_journal_remove(sfq_journal **journal, sfq_error *err);

/* The stage's directory; NULL: this stage is not done. The report is what was recorded. */
const char *sfq_journal_find(const sfq_journal *journal, const char *stage, json_t **report);
/* Begins a stage's directory. */
sfq_status sfq_journal_begin(sfq_journal *journal, const char *stage, sfq_outdir **dir,
                             sfq_error *err);
/* Commits it, records the report (borrowed), and removes the directories of the stages named in
 * `obsolete` (NULL-terminated; may be NULL). */
sfq_status sfq_journal_end(sfq_journal *journal, const char *stage, sfq_outdir **dir,
                           const json_t *report, const char *const *obsolete, sfq_error *err);
/* A place for the state of a stage that runs (sfq_distill_run's dir). */
const char *sfq_journal_state(sfq_journal *journal);
double sfq_journal_seconds(const sfq_journal *journal); /* spent by earlier runs */

#endif

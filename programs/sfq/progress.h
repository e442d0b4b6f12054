/* progress - what stderr shows while a verb works: one rewritten line on a terminal, plain lines
 * elsewhere, nothing with --quiet. Notes and warnings of the library come through here too. */
#ifndef SFQ_CLI_PROGRESS_H
#define SFQ_CLI_PROGRESS_H

#include "base/status.h"

typedef struct cli_progress {
    bool quiet;
    bool rewrite; /* one line, rewritten: stderr is a terminal that can */
    bool color;
    bool open;       /* a rewritten line stands unfinished */
    int width;       /* of that line */
    int stage_index; /* of the stage that runs; 0: none yet */
    char stage[32];
    char unit[24];
    uint64_t done;
    double started;    /* when the stage began */
    double shown;      /* when it was last shown */
    bool line_pending; /* plain lines: something happened since the last line */
    int stage_count;
} cli_progress;

void cli_progress_open(cli_progress *progress, bool quiet);
/* Finishes what is on the screen; before anything else is written to stderr or a terminal. */
void cli_progress_close(cli_progress *progress);
/* Hooks whose ud is the progress; cancelled asks signals.h. */
sfq_hooks cli_progress_hooks(cli_progress *progress);
/* The same without progress, for what streams its own result. */
sfq_hooks cli_quiet_hooks(cli_progress *progress);

#endif

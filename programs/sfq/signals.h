/* signals - the process's answer to signals. The only mutable state of the program outside main. */
#ifndef SFQ_CLI_SIGNALS_H
#define SFQ_CLI_SIGNALS_H

#include <stdbool.h>

/* SIGINT, SIGTERM: the first asks to stop (cli_signals_cancelled), the second kills. SIGPIPE:
 * writes fail with EPIPE. SIGBUS: says that a file changed while it was read, exit 1; with json
 * also as the error object on stdout. `file` (may be NULL) is what is being read; it must stay
 * valid. */
void cli_signals_catch(bool json, const char *file);
/* Back to the default for SIGINT and SIGTERM: while waiting for the user's own input. */
void cli_signals_release(void);
bool cli_signals_cancelled(void);

#endif

/* signals - the process's answer to signals. The only mutable state of the program outside main. */
#ifndef SFQ_CLI_SIGNALS_H
#define SFQ_CLI_SIGNALS_H

#include <stdbool.h>

/* SIGINT, SIGTERM: the first asks to stop (cli_signals_cancelled), the second kills. SIGPIPE and
 * SIGXFSZ: writes fail with EPIPE, EFBIG. SIGBUS: says that a file changed while it was read, exit
 * 1; with json also as the error object on stdout. `file` (may be NULL) is what is being read; it
 * must stay valid. */
void cli_signals_catch(bool json, const char *file);
/* SIGINT and SIGTERM end the program at once, status 130: while it waits for the user's input and
 * nothing is there to be cleaned up. */
void cli_signals_release(void);
bool cli_signals_cancelled(void);

#endif

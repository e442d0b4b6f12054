/* signals - see signals.h. Handlers only set a flag or write prepared bytes and leave. A file that
 * is cut while it is mapped ends in SIGBUS (POSIX mmap); nothing can be computed from it then, so
 * the process says why and ends. */
#include "signals.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t cancelled;
static char bus_text[640];
static char bus_json[640];

static void on_stop(int number)
{
    cancelled = 1;
    signal(number, SIG_DFL);
}

static void put(int fd, const char *text)
{
    ssize_t written = write(fd, text, strlen(text));
    (void)written; /* the process ends in any case */
}

static void on_bus(int number)
{
    (void)number;
    put(STDERR_FILENO, bus_text);
    put(STDOUT_FILENO, bus_json);
    _exit(1);
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigaction(number, &action, NULL);
}

/* A file name that can stand in a JSON string and on a terminal as it is. */
static void plain_name(char *out, size_t bytes, const char *name)
{
    size_t n = 0;
    for (; name[n] && n + 1 < bytes; n++)
        out[n] = name[n] < ' ' || strchr("\"\\\177", name[n]) ? '?' : name[n];
    out[n] = '\0';
}

void cli_signals_catch(bool json, const char *file)
{
    static const char what[] = "changed or was cut while it was read; run again when nothing "
                               "writes to it";
    char name[200];
    plain_name(name, sizeof name, file ? file : "a file");
    snprintf(bus_text, sizeof bus_text, "sfq: %s: %s\n", name, what);
    bus_json[0] = '\0';
    if (json)
        snprintf(bus_json, sizeof bus_json,
                 "{\"schema\": 1, \"error\": {\"code\": \"E_IO\", \"message\": \"%s: %s\", "
                 "\"file\": \"%s\", \"tensor\": \"\"}}\n",
                 name, what, file ? name : "");
    handle(SIGBUS, on_bus);
    handle(SIGPIPE, SIG_IGN);
    handle(SIGXFSZ, SIG_IGN); /* write() fails instead, and the output is cleaned up */
    if (!cancelled) {
        handle(SIGINT, on_stop);
        handle(SIGTERM, on_stop);
    }
}

static void on_leave(int number)
{
    (void)number;
    put(STDERR_FILENO, "sfq: interrupted\n");
    _exit(130);
}

void cli_signals_release(void)
{
    handle(SIGINT, on_leave);
    handle(SIGTERM, on_leave);
}

bool cli_signals_cancelled(void)
{
    return cancelled != 0;
}

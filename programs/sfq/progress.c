/* progress - see progress.h. */
#include "progress.h"

#include "output.h"
#include "signals.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REWRITE_SECONDS 0.1
#define LINE_SECONDS 5.0
#define BAR 24

void cli_progress_open(cli_progress *p, bool quiet)
{
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    bool able = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
    *p = (cli_progress){
        .quiet = quiet, .rewrite = able, .color = able && !(no_color && no_color[0])};
}

/* Writes `line` over the line that stands there. */
static void rewrite(cli_progress *p, const char *line)
{
    int width = (int)strlen(line), rest = p->width - width;
    const char *on = p->color ? "\033[36m" : "", *off = p->color ? "\033[0m" : "";
    fprintf(stderr, "\r%s%s%s%*s", on, line, off, rest > 0 ? rest : 0, "");
    fflush(stderr);
    p->width = width;
    p->open = true;
}

static void bar(char out[BAR + 3], double share)
{
    int full = share >= 1 ? BAR : (int)(share * BAR);
    out[0] = '[';
    for (int i = 0; i < BAR; i++)
        out[1 + i] = i < full ? '#' : '.';
    out[1 + BAR] = ']';
    out[2 + BAR] = '\0';
}

static void show(cli_progress *p, uint64_t total, double now)
{
    char line[200], drawn[BAR + 3];
    cli_text done, rate, left;
    double seconds = now - p->started;
    double per_second = seconds > 0 ? (double)p->done / seconds : 0;
    cli_count(&done, (double)p->done);
    cli_count(&rate, per_second);
    if (total == 0) {
        snprintf(line, sizeof line, "%d/%d %s  %s %s  %s/s", p->stage_index, p->stage_count,
                 p->stage, done.s, p->unit, rate.s);
    } else {
        double share = (double)p->done / (double)total;
        cli_time(&left, per_second > 0 ? (double)(total - p->done) / per_second : -1);
        bar(drawn, share);
        snprintf(line, sizeof line, "%d/%d %s %s %3.0f %%  %s %s/s  ETA %s", p->stage_index,
                 p->stage_count, p->stage, drawn, 100 * share, rate.s, p->unit, left.s);
    }
    if (p->rewrite)
        rewrite(p, line);
    else
        fprintf(stderr, "sfq: %s\n", line);
    p->shown = now;
    p->line_pending = false;
}

/* The last word on a stage that ends. */
static void end_stage(cli_progress *p)
{
    cli_text count, time;
    char line[160];
    if (!p->line_pending && !p->open)
        return;
    cli_count(&count, (double)p->done);
    cli_time(&time, sfq_clock_seconds() - p->started);
    snprintf(line, sizeof line, "%d/%d %s  %s %s in %s", p->stage_index, p->stage_count, p->stage,
             count.s, p->unit, time.s);
    if (p->rewrite) {
        rewrite(p, line);
        fputc('\n', stderr);
    } else {
        fprintf(stderr, "sfq: %s\n", line);
    }
    p->open = p->line_pending = false;
    p->width = 0;
}

void cli_progress_close(cli_progress *p)
{
    if (p->stage_index > 0)
        end_stage(p);
    p->stage_index = 0;
}

static void on_progress(void *ud, const sfq_progress *news)
{
    cli_progress *p = ud;
    double now = sfq_clock_seconds();
    const char *stage = news->stage ? news->stage : "", *unit = news->unit ? news->unit : "";
    if (p->quiet)
        return;
    if (news->stage_index != p->stage_index || strncmp(stage, p->stage, sizeof p->stage - 1) != 0) {
        cli_progress_close(p);
        p->stage_index = news->stage_index;
        p->started = p->shown = now;
        snprintf(p->stage, sizeof p->stage, "%s", stage);
    } else if (strncmp(unit, p->unit, sizeof p->unit - 1) != 0) {
        p->started = now; /* a part of the stage that counts something else */
    }
    snprintf(p->unit, sizeof p->unit, "%s", unit);
    p->stage_count = news->stage_count;
    p->done = news->done;
    p->line_pending = true;
    if (now - p->shown >= (p->rewrite ? REWRITE_SECONDS : LINE_SECONDS))
        show(p, news->total < news->done ? 0 : news->total, now);
}

static void on_log(void *ud, sfq_log_level level, const char *message)
{
    cli_progress *p = ud;
    if (p->quiet && level == SFQ_LOG_NOTE)
        return;
    if (p->open)
        rewrite(p, "");
    fprintf(stderr, "%ssfq: %s: %s\n", p->open ? "\r" : "",
            level == SFQ_LOG_WARNING ? "warning" : "note", message);
    p->open = false;
    p->width = 0;
}

static bool on_cancelled(void *ud)
{
    (void)ud;
    return cli_signals_cancelled();
}

sfq_hooks cli_quiet_hooks(cli_progress *p)
{
    return (sfq_hooks){.ud = p, .log = on_log, .cancelled = on_cancelled};
}

sfq_hooks cli_progress_hooks(cli_progress *p)
{
    sfq_hooks hooks = cli_quiet_hooks(p);
    hooks.progress = on_progress;
    return hooks;
}

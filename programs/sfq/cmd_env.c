/* env - what the program found on this machine: the first thing to put into a bug report. */
#include "program.h"

#include <stdio.h>

typedef struct env_args {
    cli_common common;
} env_args;

static const cli_option options[] = {CLI_COMMON_OPTIONS};

static sfq_status print_json(const sfq_environment *e, sfq_error *err)
{
    json_t *o = cli_json_open();
    cli_json_text(o, "version", e->version);
    cli_json_text(o, "compiler", e->compiler);
    cli_json_text(o, "build_type", e->build_type);
    cli_json_text(o, "isa", e->isa);
    cli_json_text(o, "isa_detected", e->isa_detected);
    cli_json_text(o, "cpu", e->cpu);
    cli_json_int(o, "threads", (uint64_t)e->threads);
    cli_json_int(o, "threads_affinity", (uint64_t)e->threads_affinity);
    cli_json_int(o, "threads_cores", (uint64_t)e->threads_cores);
    cli_json_real(o, "threads_quota", e->threads_quota);
    cli_json_int(o, "memory_available", e->memory_available);
    cli_json_text(o, "libraries", e->libraries);
    return cli_json_print(&o, err);
}

static sfq_status run(cli_context *cli, void *arguments, sfq_error *err)
{
    const env_args *args = arguments;
    sfq_environment e;
    cli_text memory, quota = {"none"};
    (void)cli;
    SFQ_TRY(sfq_environment_get(&e, err));
    if (args->common.json)
        return print_json(&e, err);
    if (e.threads_quota > 0)
        snprintf(quota.s, sizeof quota.s, "%.2f", e.threads_quota);
    cli_outf("sfq        %s (%s, %s)\n", e.version, e.compiler, e.build_type);
    cli_outf("processor  %s\n", e.cpu);
    cli_outf("isa        %s (the processor offers %s)\n", e.isa, e.isa_detected);
    cli_outf("threads    %d (affinity %d, physical cores %d, quota %s)\n", e.threads,
             e.threads_affinity, e.threads_cores, quota.s);
    cli_outf("memory     %s available\n", cli_bytes(&memory, e.memory_available));
    cli_outf("libraries  %s\n", e.libraries);
    return SFQ_OK;
}

static const char *const synopsis[] = {"[--json]", NULL};
static const cli_example examples[] = {
    {"sfq env", "build, instruction set, threads, libraries"},
    {"SFQ_MAX_ISA=avx2 sfq env", "what is used when the instruction set is capped"},
    {NULL, NULL},
};

const cli_verb cli_verb_env = {
    .name = "env",
    .summary = "show build, instruction set, threads and libraries",
    .synopsis = synopsis,
    .examples = examples,
    .description =
        "The default thread count is the least of affinity, physical cores and cgroup quota. "
        "SFQ_MAX_ISA=ref|avx2|avxvnni|avx512|avx512vnni|amx caps the instruction set.",
    .options = options,
    .words = "",
    .words_min = 0,
    .words_max = 0,
    .args_bytes = sizeof(env_args),
    .run = run,
};

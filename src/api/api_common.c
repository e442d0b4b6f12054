/* api/api_common.c - <sfq/common.h>: statuses, version, memory, and what the
 * library found on this machine. */
#define PCRE2_CODE_UNIT_WIDTH 8

#include "api/api.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"

#include <cpuid.h>
#include <pcre2.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>

const char *sfq_status_name(sfq_status status)
{
    return sfq_status_facts_get(status)->name;
}

const char *sfq_status_text(sfq_status status)
{
    return sfq_status_facts_get(status)->text;
}

int sfq_status_exit(sfq_status status)
{
    return sfq_status_facts_get(status)->exit_status;
}

const char *sfq_version(void)
{
    return SFQ_VERSION_STRING;
}

void sfq_release(void *memory)
{
    sfq_mem_free(memory);
}

sfq_status sfq_api_options(void *out, size_t size, const void *given, size_t given_size,
                           const char *what, sfq_error *err)
{
    if (given == NULL)
        return SFQ_OK;
    if (given_size <= sizeof(size_t) || given_size > size)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "%s.struct_size is %zu, this library knows %zu; fill it by its "
                        "..._default() function",
                        what, given_size, size);
    memcpy(out, given, given_size);
    return SFQ_OK;
}

/* ---- environment
 * -----------------------------------------------------------------------------
 */

#if defined(__clang__)
static const char COMPILER[] = "clang " __clang_version__;
#else
static const char COMPILER[] = "gcc " __VERSION__;
#endif

/* The brand string of cpuid leaves 0x80000002..4, without the spaces around it.
 */
static void cpu_name(char *out, size_t cap)
{
    unsigned words[12] = {0};
    char text[sizeof(words) + 1];
    for (unsigned i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002u + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2],
                         &words[4 * i + 3]))
            break;
    memcpy(text, words, sizeof(words));
    text[sizeof(words)] = 0;
    size_t n = strlen(text), begin = strspn(text, " ");
    while (n > begin && text[n - 1] == ' ')
        n--;
    text[n] = 0;
    (void)snprintf(out, cap, "%s", n > begin ? text + begin : "unknown");
}

static void library_versions(char *out, size_t cap)
{
    char pcre2[64] = "?";
    if (pcre2_config(PCRE2_CONFIG_VERSION, NULL) <= (int)sizeof(pcre2))
        (void)pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    pcre2[strcspn(pcre2, " ")] = 0;
    unsigned xxhash = XXH_versionNumber();
    (void)snprintf(out, cap, "jansson %s, PCRE2 %s, utf8proc %s, xxHash %u.%u.%u",
                   jansson_version_str(), pcre2, utf8proc_version(), xxhash / 10000,
                   xxhash / 100 % 100, xxhash % 100);
}

sfq_status sfq_environment_get(sfq_environment *out, sfq_error *err)
{
    SFQ_API_NEED(out);
    sfq_isa cap = SFQ_ISA_COUNT;
    SFQ_TRY(sfq_isa_from_env(&cap, err));
    sfq_thread_limits limits = sfq_thread_limits_get();
    *out = (sfq_environment){.version = SFQ_VERSION_STRING,
                             .compiler = COMPILER,
                             .build_type = SFQ_BUILD_TYPE,
                             .isa = sfq_kernels_get(cap)->isa_name,
                             .isa_detected = sfq_isa_name(sfq_isa_detect()),
                             .threads = sfq_threads_default(),
                             .threads_affinity = limits.affinity,
                             .threads_cores = limits.cores,
                             .threads_quota = limits.quota,
                             .memory_available = sfq_memory_available()};
    cpu_name(out->cpu, sizeof(out->cpu));
    library_versions(out->libraries, sizeof(out->libraries));
    return SFQ_OK;
}

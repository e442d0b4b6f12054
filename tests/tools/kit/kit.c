/* tests/tools/kit/kit.c - see kit.h. */
#include "kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    sfq_status code;
    int exit_status;
    const char *name;
} statuses[] = {
#define STATUS_ROW(name, value, exit_status, text) {SFQ_##name, exit_status, #name},
    SFQ_STATUS_MAP(STATUS_ROW)
#undef STATUS_ROW
};

static bool parse_line(kit_input *in, char *line, size_t *at)
{
    char *types = strchr(line, '|'), *end;
    size_t begin = *at, typed = begin;
    if (types)
        *types++ = '\0';
    for (char *s = line; *at < KIT_TOKENS; s = end) {
        long v = strtol(s, &end, 10);
        if (end == s)
            break;
        in->ids[(*at)++] = (int32_t)v;
    }
    for (char *s = types; s && typed < *at; s = end) {
        long v = strtol(s, &end, 10);
        if (end == s)
            return false;
        in->types[typed++] = (int32_t)v;
        in->typed = true;
    }
    return *at > begin;
}

bool kit_read_input(kit_input *in, const char *path)
{
    static char line[1 << 19];
    size_t at = 0;
    FILE *f = fopen(path, "r");
    bool good = f != NULL;
    while (good && in->sequences < KIT_SEQUENCES && fgets(line, sizeof(line), f)) {
        good = parse_line(in, line, &at);
        in->offset[++in->sequences] = at;
    }
    if (f)
        fclose(f);
    return good && in->sequences > 0;
}

sfq_status kit_open(kit_model *m, const char *dir, int threads, sfq_error *err)
{
    const sfq_hooks hooks = {0};
    SFQ_TRY(sfq_hf_config_open(&m->config, dir, err));
    SFQ_TRY(sfq_artifact_read(&m->artifact, m->config, err));
    SFQ_TRY(sfq_arch_open(&m->arch, m->config, m->artifact, dir, err));
    SFQ_TRY(sfq_checkpoint_open(&m->ck, dir, &hooks, err));
    SFQ_TRY(sfq_modules_open(&m->modules, m->arch, m->ck, m->artifact, err));
    SFQ_TRY(sfq_net_open(&m->net, m->arch, m->modules, m->ck, m->artifact, &hooks, err));
    return sfq_pool_open(&m->pool, threads, err);
}

void kit_close(kit_model *m)
{
    sfq_pool_close(&m->pool);
    sfq_net_close(&m->net);
    sfq_modules_close(&m->modules);
    sfq_checkpoint_close(&m->ck);
    sfq_arch_close(&m->arch);
    sfq_artifact_free(&m->artifact);
    sfq_hf_config_close(&m->config);
}

sfq_isa kit_isa(const char *name)
{
    sfq_isa isa = SFQ_ISA_REF;
    while (isa < SFQ_ISA_COUNT && strcmp(sfq_isa_name(isa), name) != 0)
        isa++;
    return isa;
}

bool kit_write_floats(const char *out, const char *suffix, const float *data, size_t n)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s.%s", out, suffix);
    FILE *f = fopen(path, "wb");
    if (!f)
        return false;
    bool good = fwrite(data, sizeof(float), n, f) == n;
    return fclose(f) == 0 && good;
}

int kit_exit(sfq_status status, const sfq_error *err)
{
    size_t i = 0;
    while (statuses[i].code != status)
        i++;
    if (status != SFQ_OK)
        fprintf(stderr, "%s: %s\n", statuses[i].name, err->message);
    return statuses[i].exit_status;
}

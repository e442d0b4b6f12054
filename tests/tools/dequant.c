/* sfq-test-dequant MODEL NAME: the float32 weights [N, K] that the engine's unpack_row gives for
 * the packed matrix NAME, row by row, to standard output. For tests/python/test_format_spec.py. */
#include "base/mem.h"
#include "format/artifact.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <string.h>

typedef struct model {
    sfq_hf_config *config;
    sfq_artifact_info *artifact;
    sfq_checkpoint *ck;
} model;

static sfq_status open_model(model *m, const char *dir, sfq_error *err)
{
    SFQ_TRY(sfq_hf_config_open(&m->config, dir, err));
    SFQ_TRY(sfq_artifact_read(&m->artifact, m->config, err));
    if (m->artifact == NULL)
        return sfq_fail(err, SFQ_E_ARGUMENT, "%s is no artifact", dir);
    return sfq_checkpoint_open(&m->ck, dir, NULL, err);
}

static sfq_status write_rows(const model *m, const sfq_packed_spec *spec, sfq_error *err)
{
    const sfq_cluster *c = &spec->cluster;
    const sfq_tensor *codes;
    const sfq_tensor *scales;
    bool aligned;
    sfq_isa cap;
    sfq_status status = SFQ_OK;
    float *row = SFQ_NEW_ARRAY(float, c->k);
    float *all = SFQ_NEW_ARRAY(float, sfq_cluster_scales(c));
    unsigned char *panel = sfq_mem_aligned(sfq_cluster_panel_bytes(c, spec->bits));
    if (row == NULL || all == NULL || panel == NULL) {
        status = sfq_fail_memory(err, c->k * sizeof *row, "a row");
        goto done;
    }
    SFQ_DO(sfq_packed_bind(spec, m->ck, &codes, &scales, &aligned, err));
    SFQ_DO(sfq_isa_from_env(&cap, err));
    sfq_to_f32(all, scales->data, scales->dtype, sfq_cluster_scales(c));
    const sfq_kernels *kernels = sfq_kernels_get(cap);
    size_t panel_bytes = sfq_cluster_panel_bytes(c, spec->bits);
    size_t panel_scales = c->segments * (SFQ_PANEL_N / c->share);
    for (size_t n = 0; n < c->n; n++) {
        size_t p = n / SFQ_PANEL_N;
        memcpy(panel, (const unsigned char *)codes->data + p * panel_bytes, panel_bytes);
        kernels->unpack_row(row, panel, spec->bits, all + p * panel_scales, c, n % SFQ_PANEL_N);
        if (fwrite(row, sizeof *row, c->k, stdout) != c->k) {
            status = sfq_fail(err, SFQ_E_IO, "standard output: write failed");
            goto done;
        }
    }
done:
    sfq_mem_free(row);
    sfq_mem_free(all);
    sfq_mem_free(panel);
    return status;
}

int main(int argc, char **argv)
{
    sfq_error err = {0};
    model m = {0};
    if (argc != 3) {
        fprintf(stderr, "usage: sfq-test-dequant MODEL NAME\n");
        return 2;
    }
    sfq_status status = open_model(&m, argv[1], &err);
    if (status == SFQ_OK) {
        const sfq_packed_spec *spec = sfq_artifact_find(m.artifact, argv[2]);
        status = spec != NULL ? write_rows(&m, spec, &err)
                              : sfq_fail(&err, SFQ_E_ARGUMENT, "%s is not packed", argv[2]);
    }
    if (status != SFQ_OK)
        fprintf(stderr, "%s\n", err.message);
    sfq_checkpoint_close(&m.ck);
    sfq_artifact_free(&m.artifact);
    sfq_hf_config_close(&m.config);
    return status == SFQ_OK ? 0 : 1;
}

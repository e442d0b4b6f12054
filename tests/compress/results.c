/* compress_results FILE.csv: compresses the models of the repository at 8 to 2 bits and compares
 * size and relative weight error with the committed table. compress_results --write FILE.csv writes
 * the table anew; the difference is for a reviewer to judge. */
#include "base/file.h"
#include "base/mem.h"
#include "compress/emit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const models[] = {"models/novels-5m", "models/sst2-tiny"};

typedef struct figures {
    uint64_t bytes;
    double bits_per_parameter, relative_error;
} figures;

static sfq_status compress(figures *out, const char *model, int bits, const char *dir,
                           sfq_error *err)
{
    sfq_compress_options o = {.struct_size = sizeof o,
                              .model = model,
                              .output = dir,
                              .bits = bits,
                              .embedding_bits = bits,
                              .max_drop = -1};
    sfq_source *source = NULL;
    sfq_plan *plan = NULL;
    sfq_outdir *outdir = NULL;
    sfq_emit_loss *losses = NULL;
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_source_open(&source, &o, err));
    SFQ_DO(sfq_plan_make(&plan, source, &o, 1, err));
    SFQ_DO(sfq_outdir_open(&outdir, dir, true, err));
    losses = SFQ_NEW_ARRAY(sfq_emit_loss, plan->count);
    if (losses == NULL) {
        status = sfq_fail_memory(err, plan->count, "the table");
        goto done;
    }
    SFQ_DO(sfq_emit_weights(plan, source, outdir, &o.hooks, 1, 1, losses, err));
    double error = 0;
    double energy = 0;
    for (size_t i = 0; i < plan->count; i++) {
        error += losses[i].error;
        energy += losses[i].energy;
    }
    *out = (figures){plan->file_bytes, 8 * (double)plan->file_bytes / (double)source->parameters,
                     error / energy};
done:
    sfq_mem_free(losses);
    sfq_outdir_abort(&outdir);
    sfq_plan_free(&plan);
    sfq_source_close(&source);
    return status;
}

static sfq_status make_table(sfq_buf *table, const char *dir, sfq_error *err)
{
    SFQ_TRY(sfq_buf_addf(table, err, "model,bits,bytes,bits_per_parameter,relative_error\n"));
    for (size_t m = 0; m < sizeof models / sizeof *models; m++)
        for (int bits = 8; bits >= 2; bits--) {
            figures f = {0};
            SFQ_TRY(compress(&f, models[m], bits, dir, err));
            SFQ_TRY(sfq_buf_addf(table, err, "%s,%d,%llu,%.4f,%.4e\n", models[m], bits,
                                 (unsigned long long)f.bytes, f.bits_per_parameter,
                                 f.relative_error));
        }
    return SFQ_OK;
}

static int finish(const sfq_buf *table, const char *path, bool write)
{
    sfq_buf committed = SFQ_BUF_INIT(1 << 20);
    sfq_error err = {0};
    if (write) {
        FILE *file = fopen(path, "wb");
        return file != NULL && fwrite(table->data, 1, table->len, file) == table->len &&
                       fclose(file) == 0
                   ? 0
                   : 1;
    }
    int same = sfq_file_read(&committed, path, 1 << 20, &err) == SFQ_OK &&
               committed.len == table->len && memcmp(committed.data, table->data, table->len) == 0;
    if (!same)
        printf("%s differs from what was measured; if it should, run compress_results --write\n"
               "committed:\n%s\nmeasured:\n%s%s\n",
               path, committed.data != NULL ? committed.data : "", table->data, err.message);
    sfq_buf_free(&committed);
    return same ? 0 : 1;
}

int main(int argc, char **argv)
{
    bool write = argc == 3 && strcmp(argv[1], "--write") == 0;
    const char *base = getenv("TMPDIR");
    char dir[4096];
    sfq_error err = {0};
    if (argc != 2 && !write)
        return 2;
    snprintf(dir, sizeof dir, "%s/sfq-results-XXXXXX", base != NULL ? base : "/tmp");
    if (mkdtemp(dir) == NULL)
        return 2;
    sfq_buf table = SFQ_BUF_INIT(1 << 20);
    sfq_status status = make_table(&table, dir, &err);
    if (status != SFQ_OK)
        fprintf(stderr, "%s\n", err.message);
    int result = status == SFQ_OK ? finish(&table, argv[argc - 1], write) : 1;
    sfq_buf_free(&table);
    remove(dir);
    return result;
}

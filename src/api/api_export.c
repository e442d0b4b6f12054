/* api/api_export.c - the export part of <sfq/compress.h>. */
#include "api/api.h"
#include "compress/export.h"

void sfq_export_options_default(sfq_export_options *options)
{
    if (options != NULL)
        *options = (sfq_export_options){.struct_size = sizeof(*options), .format = "dense"};
}

sfq_status sfq_export(const sfq_export_options *options, sfq_export_result *out, sfq_error *err)
{
    sfq_export_options o;
    SFQ_API_NEED(out);
    *out = (sfq_export_result){0};
    SFQ_API_NEED(options);
    sfq_export_options_default(&o);
    SFQ_TRY(
        sfq_api_options(&o, sizeof(o), options, options->struct_size, "sfq_export_options", err));
    SFQ_API_NEED(o.model);
    SFQ_API_NEED(o.output);
    SFQ_API_NEED(o.format);
    if (o.model[0] == '\0' || o.output[0] == '\0')
        return sfq_fail(err, SFQ_E_ARGUMENT, "model and output must not be empty");
    if (o.threads < 0 || o.threads > SFQ_MAX_THREADS)
        return sfq_fail(err, SFQ_E_ARGUMENT, "threads must be in 1..%d, or 0 for the default",
                        SFQ_MAX_THREADS);
    return sfq_export_dense(&o, out, err);
}

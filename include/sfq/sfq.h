/* sfq/sfq.h - Sparse Fusion Quantization: umbrella header.
 *
 * Three ways to use the library:
 *
 * 1. Compress a checkpoint (compress.h):
 *        sfq_compress_options o;  sfq_compress_options_default(&o);
 *        o.model = "model-dir";  o.output = "out-dir";
 *        o.prune = 0;  o.steps = 0;  // fuse only: needs no data
 *        sfq_compress_result r;  sfq_error e;
 *        if (sfq_compress(&o, &r, &e)) puts(e.message);
 *
 * 2. Open a model, dense or compressed, and use it (model.h, session.h):
 *        sfq_model *m;  sfq_model_open(&m, "out-dir", NULL, &e);
 *        sfq_generation g;  sfq_generate(m, "Once", 4, NULL, &g, &e);
 *        puts(g.text);  sfq_generation_clear(&g);  sfq_model_close(&m);
 *
 * 3. Measure it (session.h): sfq_evaluate() for accuracy, perplexity and the distance to another
 *    model, sfq_bench() for speed.
 *
 * For frameworks that keep the rest of a model: a single packed matrix, linear.h; which units go,
 * and what the weights behind them become, prune.h.
 *
 * Rules that hold everywhere: a call returns sfq_status, 0 is success; options are filled by
 * sfq_x_options_default(), and NULL means the defaults where they are enough (a compression or an
 * evaluation must say of what); handles are opened with sfq_x_open(&x, ...)
 * and closed with sfq_x_close(&x), which accepts NULL and leaves NULL; the library never prints,
 * exits or aborts and keeps no global state of its own. */
#ifndef SFQ_SFQ_H
#define SFQ_SFQ_H

#include <sfq/common.h>
#include <sfq/compress.h>
#include <sfq/linear.h>
#include <sfq/model.h>
#include <sfq/prune.h>
#include <sfq/session.h>

#endif

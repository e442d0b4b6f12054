/* api/api.h - what the files that define public symbols share: the handle, and the checks of what a
 * caller passed in. */
#ifndef SFQ_API_API_H
#define SFQ_API_API_H

#include "runtime/engine.h"

struct sfq_model {
    sfq_engine *engine;
};

/* ARGUMENT, naming the function and the parameter that is NULL. */
#define SFQ_API_NEED(pointer)                                                           \
    do {                                                                                \
        if ((pointer) == NULL)                                                          \
            return sfq_fail(err, SFQ_E_ARGUMENT, "%s: %s is NULL", __func__, #pointer); \
    } while (0)

/* Copies the caller's options over the defaults in *out [size]. given NULL: the defaults stay. An
 * older program's shorter struct is fine; a longer one is from a newer header than this library. */
sfq_status sfq_api_options(void *out, size_t size, const void *given, size_t given_size,
                           const char *what, sfq_error *err);

#endif

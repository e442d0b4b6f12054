/* compress/units.h - which of a framework's units go: the knapsack on arrays of the caller. */
#ifndef SFQ_COMPRESS_UNITS_H
#define SFQ_COMPRESS_UNITS_H

#include "base/status.h"

#include <sfq/prune.h>

/* As sfq_prune_choose_units, of arguments that were checked. */
sfq_status sfq_units_choose(const sfq_prune_units *units, double share, bool *keep, sfq_error *err);

#endif

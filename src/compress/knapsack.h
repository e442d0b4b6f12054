/* compress/knapsack.h - the search over which units go (M2): units in groups of like ones, each
 * with what it is worth and what it costs; two kinds of groups, as heads and neurons are. */
#ifndef SFQ_COMPRESS_KNAPSACK_H
#define SFQ_COMPRESS_KNAPSACK_H

#include "base/status.h"

/* FFN widths stay multiples of the block (the small one below SFQ_SMALL_WIDTH). */
enum { SFQ_NEURON_BLOCK = 64, SFQ_NEURON_SMALL_BLOCK = 16, SFQ_SMALL_WIDTH = 256 };

/* A unit. */
typedef struct sfq_knapsack_unit {
    double worth;
    uint64_t cost; /* > 0 */
    uint32_t index;
} sfq_knapsack_unit;

/* A group narrows by steps to the next multiple below, while the floor allows it. */
typedef struct sfq_knapsack_group {
    size_t width;
    size_t floor;            /* so many units stay, or what there is */
    size_t multiple;         /* > 0 */
    bool fixed;              /* stays as it is */
    size_t cut;              /* steps taken */
    size_t left;             /* units that stay: unit[width - left ..] once it is ranked */
    sfq_knapsack_unit *unit; /* [width]; ranked: least worth first */
} sfq_knapsack_group;

typedef struct sfq_knapsack_step sfq_knapsack_step;

typedef struct sfq_knapsack_kind {
    size_t groups;
    sfq_knapsack_group *group;
    sfq_knapsack_step *steps;
    size_t count; /* of steps */
    bool uniform;
} sfq_knapsack_kind;

/* Groups without units: the caller gives each its width, floor and multiple. */
sfq_status sfq_knapsack_open(sfq_knapsack_kind *kind, size_t groups, sfq_error *err);
/* Room for the width's units, which the caller fills. */
sfq_status sfq_knapsack_room(sfq_knapsack_group *group, sfq_error *err);
/* Ranks the units. uniform: all groups have one floor and multiple, and one width when done; one
 * that is fixed then keeps all of them as they are. */
sfq_status sfq_knapsack_rank(sfq_knapsack_kind *kind, bool uniform, sfq_error *err);
void sfq_knapsack_close(sfq_knapsack_kind *kind);

/* What goes at most. */
uint64_t sfq_knapsack_most(const sfq_knapsack_kind *kind);
/* Takes steps of both kinds that cost `remove` or more, with the least worth; sets `left`. False:
 * the floors do not allow so much. Deterministic: ties go to the lower group, then index. */
bool sfq_knapsack_solve(sfq_knapsack_kind *a, sfq_knapsack_kind *b, uint64_t remove,
                        uint64_t *removed);

#endif

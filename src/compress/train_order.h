/* compress/train_order.h - which sequence comes when: every epoch takes each once, in an order of
 * its own that seed and epoch decide (Fisher and Yates 1938, as Durstenfeld 1964 wrote it). */
#ifndef SFQ_COMPRESS_TRAIN_ORDER_H
#define SFQ_COMPRESS_TRAIN_ORDER_H

#include "base/status.h"

typedef struct sfq_train_order {
    uint64_t seed, epoch;
    size_t count;
    uint32_t *index; /* [count] the order of `epoch` */
} sfq_train_order;

sfq_status sfq_train_order_open(sfq_train_order *o, size_t count, uint64_t seed, sfq_error *err);
void sfq_train_order_close(sfq_train_order *o);
/* The sequence at a position of the endless list, and its epoch. */
size_t sfq_train_order_at(sfq_train_order *o, uint64_t position, uint64_t *epoch);

#endif

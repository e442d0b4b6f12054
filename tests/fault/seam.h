/* fault/seam.h - what the test of the seam itself uses; sfq-fault is driven by the environment. */
#ifndef SFQ_TESTS_FAULT_SEAM_H
#define SFQ_TESTS_FAULT_SEAM_H

#include <stdbool.h>

/* Counts from zero on and fails what `spec` says (see seam.c); NULL or "": nothing. False: the spec
 * cannot be read. */
bool seam_arm(const char *spec);
void seam_disarm(void);
bool seam_fired(void); /* did a fault happen since seam_arm? */
unsigned long seam_count(const char *op);
/* Allocations less releases since seam_arm. */
long seam_live(void);

#endif

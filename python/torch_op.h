/* python/torch_op.h - what Python calls of torch_op.c (sfq/_torch.so). */
#ifndef SFQ_PYTHON_TORCH_OP_H
#define SFQ_PYTHON_TORCH_OP_H

#include <sfq/linear.h>

/* The threads that multiply; they must live until others are set. Before the first call. */
SFQ_API void sfq_torch_workers(sfq_workers *workers);
/* Registers the kernel of sfq::linear, which must be defined, once for a process. libtorch: the
 * path of libtorch_cpu.so, which is loaded. NULL, or the name of what it lacks. */
SFQ_API const char *sfq_torch_register(const char *libtorch);

#endif

/* init.h - what init.c has in variants for instruction sets (kernel_init.c). */
#ifndef MR_INIT_H
#define MR_INIT_H

#include "base/base.h"

typedef struct init_functions {
    /* n normal numbers of a stream. */
    void (*normals)(uint64_t seed, size_t n, float mean, float deviation, float *out);
} init_functions;

#endif

/* op_pool.h - what the kernels over the entries of a batch share: how they are cut. */
#ifndef MR_OP_POOL_H
#define MR_OP_POOL_H

#include <string.h>

#include "kernel/kernel.h"
#include "tensor/operation.h"

#define INLINE inline __attribute__((always_inline))

enum {
    POOL_BLOCK = 16,    /* floats of a row that one pass keeps in registers */
    POOL_SAMPLES = 128, /* of a piece of forward */
    POOL_UNIQUES = 512, /* of a piece of backward */
    POOL_AHEAD = 16     /* entries between the prefetch of a row and its use */
};

static inline size_t pieces(size_t n, size_t each)
{
    return (n + each - 1) / each;
}

/* -1 after fail() if the batch of a pooling node has no fields, or entries of others. */
int KERNEL(pool_fields_known)(const node *n, const char *operation);

/* The field of entry e of sample s. */
static INLINE uint32_t pool_field(const mr_batch *b, size_t s, uint32_t e)
{
    return b->field ? b->field[e] : e - b->offsets[s];
}

/* Calls block(p, i, k0, width, valued) for the blocks of a row of dim floats, with width and
 * valued constant in each inlined copy. */
#define POOL_WIDTHS(dim, block, p, i, k0, valued)                                                  \
    do {                                                                                           \
        uint32_t k0 = 0;                                                                           \
        for (; (dim)-k0 >= 16; k0 += 16)                                                           \
            block(p, i, k0, 16, valued);                                                           \
        for (; (dim)-k0 >= 8; k0 += 8)                                                             \
            block(p, i, k0, 8, valued);                                                            \
        for (; (dim)-k0 >= 4; k0 += 4)                                                             \
            block(p, i, k0, 4, valued);                                                            \
        for (; k0 < (dim); k0++)                                                                   \
            block(p, i, k0, 1, valued);                                                            \
    } while (0)
#define POOL_BLOCKS(dim, block, p, i, k0, valued)                                                  \
    do {                                                                                           \
        if (valued)                                                                                \
            POOL_WIDTHS(dim, block, p, i, k0, 1);                                                  \
        else                                                                                       \
            POOL_WIDTHS(dim, block, p, i, k0, 0);                                                  \
    } while (0)

#endif

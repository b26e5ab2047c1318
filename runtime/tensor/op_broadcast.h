/* op_broadcast.h - tensors that are repeated to a larger shape: shapes are aligned at the right, in
 * RANK_MAX dimensions, and a tensor has stride 0 where it has 1 dimension and the result more. The
 * last dimension is the row. */
#ifndef MR_OP_BROADCAST_H
#define MR_OP_BROADCAST_H

#include "kernel/kernel.h"
#include "tensor/operation.h"

typedef struct operand {
    real *data;
    size_t stride[RANK_MAX];
} operand;

/* Dimension i of a, of RANK_MAX aligned at the right. */
static inline size_t dim_of(const node *a, int i)
{
    int at = i - (RANK_MAX - a->rank);
    return at < 0 ? 1 : (size_t)a->dim[at];
}

/* Tensor a, whose data is `data`, repeated to dim[RANK_MAX]. */
static inline operand operand_of(const size_t *dim, const node *a, void *data)
{
    operand o = {.data = (real *)data};
    size_t stride = 1;
    for (int i = RANK_MAX - 1; i >= 0; i--) {
        size_t d = dim_of(a, i);
        o.stride[i] = d == 1 && dim[i] != 1 ? 0 : stride;
        stride *= d;
    }
    return o;
}

/* Where the operand stands at the beginning of a row of dim[RANK_MAX]. */
static inline size_t row_offset(const size_t *dim, const operand *o, size_t row)
{
    uint32_t r = (uint32_t)row, d2 = (uint32_t)dim[2], d1 = (uint32_t)dim[1]; /* below 2^31 */
    return r / d2 / d1 * o->stride[0] + r / d2 % d1 * o->stride[1] + r % d2 * o->stride[2];
}

#endif

/* op_shape.c - concat and stack, slice, transpose, and reshape. */
#include "kernel/kernel.h"
#include "tensor/op_pool.h"

/* ---- concat: along an axis, n->code (from 0): rows are what is in front of it, and out[i, :] =
 * a[i, :] next to b[i, :] next to ...; stack (n->a): the same of tensors that get the axis first ---- */

enum { ROWS = 128, SPAN = 1024 };

typedef struct joining {
    const real *from;
    real *to;
    size_t rows, width;            /* of what is copied */
    size_t from_stride, to_stride; /* reals a row */
    int add;
} joining;

static void copy_rows(void *context, size_t piece)
{
    const joining *p = context;
    size_t end = MIN((piece + 1) * ROWS, p->rows);
    for (size_t r = piece * ROWS; r < end; r++) {
        const real *from = p->from + r * p->from_stride;
        real *to = p->to + r * p->to_stride;
        if (p->add)
            for (size_t i = 0; i < p->width; i++)
                to[i] += from[i];
        else
            memcpy(to, from, sizeof(real) * p->width);
    }
}

/* Dimensions [from, to) of a as one. */
static size_t dims_of(const node *a, int from, int to)
{
    size_t count = 1;
    for (int i = from; i < to; i++)
        count *= (size_t)a->dim[i];
    return count;
}

int KERNEL(concat_forward)(mr_tape *t, node *n)
{
    const node *first = node_in(t, n, 0);
    int axis = n->code, stack = n->a != 0, rank = first->rank + stack;
    const char *name = stack ? "stack" : "concat";
    if (rank > RANK_MAX)
        return fail("stack: %s has %d dimensions already", node_text(first), RANK_MAX);
    if (axis < 0 || axis >= rank)
        return fail("%s: %s has no axis %d", name, node_text(first), axis + 1);
    int32_t dim[RANK_MAX];
    for (int i = 0; i < rank; i++)
        dim[i] = stack && i == axis ? n->inputs : first->dim[i - (stack && i > axis)];
    for (int i = 1; i < n->inputs; i++) {
        const node *a = node_in(t, n, i);
        int fits = a->rank == first->rank;
        for (int k = 0; fits && k < a->rank; k++)
            fits = (k == axis && !stack) || a->dim[k] == first->dim[k];
        if (!fits && !stack && axis == rank - 1)
            return fail("concat: tensor %d is %s, which does not fit %s beside the last axis",
                        i + 1, node_text(a), node_text(first));
        if (!fits && !stack)
            return fail("concat: tensor %d is %s, which does not fit %s beside axis %d", i + 1,
                        node_text(a), node_text(first), axis + 1);
        if (!fits)
            return fail("stack: tensor %d is %s, expected %s", i + 1, node_text(a),
                        node_text(first));
        if (!stack)
            dim[axis] += a->dim[axis];
    }
    if (node_shape(n, rank, dim) || node_data(t, n))
        return -1;
    size_t at = 0, width = dims_of(n, axis, rank), rows = dims_of(n, 0, axis);
    for (int i = 0; i < n->inputs; i++) {
        const node *a = node_in(t, n, i);
        size_t own = dims_of(a, axis, a->rank);
        joining p = {.from = a->data,
                     .to = (real *)n->data + at,
                     .rows = rows,
                     .width = own,
                     .from_stride = own,
                     .to_stride = width};
        parallel(pieces(rows, ROWS), copy_rows, &p);
        at += own;
    }
    return 0;
}

int KERNEL(concat_backward)(mr_tape *t, node *n)
{
    size_t at = 0, width = dims_of(n, n->code, n->rank), rows = dims_of(n, 0, n->code);
    for (int i = 0; i < n->inputs; i++) {
        node *a = node_in(t, n, i);
        size_t own = dims_of(a, n->code, a->rank);
        sink s;
        if (node_sink(t, a, &s))
            return -1;
        joining p = {.from = (const real *)n->grad + at,
                     .to = s.grad,
                     .rows = rows,
                     .width = own,
                     .from_stride = width,
                     .to_stride = own,
                     .add = s.add};
        if (p.to)
            parallel(pieces(rows, ROWS), copy_rows, &p);
        at += own;
    }
    return 0;
}

/* ---- slice: places n->a to n->b (from 0) of axis n->code ---- */

int KERNEL(slice_forward)(mr_tape *t, node *n)
{
    const node *a = node_in(t, n, 0);
    int axis = n->code;
    if (axis < 0 || axis >= a->rank)
        return fail("slice: %s has no axis %d", node_text(a), axis + 1);
    if (!(n->a >= 0 && n->a <= n->b && n->b < a->dim[axis]))
        return fail("slice: places %g to %g of axis %d, of %s", n->a + 1, n->b + 1, axis + 1,
                    node_text(a));
    int32_t dim[RANK_MAX];
    memcpy(dim, a->dim, sizeof dim);
    dim[axis] = (int32_t)(n->b - n->a) + 1;
    if (node_shape(n, a->rank, dim) || node_data(t, n))
        return -1;
    size_t inner = dims_of(a, axis + 1, a->rank);
    joining p = {.from = (const real *)a->data + (size_t)n->a * inner,
                 .to = n->data,
                 .rows = dims_of(a, 0, axis),
                 .width = dims_of(n, axis, n->rank),
                 .from_stride = dims_of(a, axis, a->rank),
                 .to_stride = dims_of(n, axis, n->rank)};
    parallel(pieces(p.rows, ROWS), copy_rows, &p);
    return 0;
}

int KERNEL(slice_backward)(mr_tape *t, node *n)
{
    node *a = node_in(t, n, 0);
    sink s;
    if (node_sink(t, a, &s))
        return -1;
    if (!s.grad)
        return 0;
    if (!s.add)
        memset(s.grad, 0, sizeof(real) * a->count);
    int axis = n->code;
    size_t inner = dims_of(a, axis + 1, a->rank);
    joining p = {.from = n->grad,
                 .to = (real *)s.grad + (size_t)n->a * inner,
                 .rows = dims_of(a, 0, axis),
                 .width = dims_of(n, axis, n->rank),
                 .from_stride = dims_of(n, axis, n->rank),
                 .to_stride = dims_of(a, axis, a->rank),
                 .add = 1};
    parallel(pieces(p.rows, ROWS), copy_rows, &p);
    return 0;
}

/* ---- transpose: axes n->code and (int)n->a (from 0) change places ---- */

typedef struct transposing {
    const real *from;
    real *to;
    size_t dim[RANK_MAX], stride[RANK_MAX]; /* of `to`, and where its elements stand in `from` */
    int add;
} transposing;

static void transpose_rows(void *context, size_t piece)
{
    const transposing *p = context;
    size_t len = p->dim[RANK_MAX - 1], step = p->stride[RANK_MAX - 1];
    size_t end = MIN((piece + 1) * ROWS, p->dim[0] * p->dim[1] * p->dim[2]);
    for (size_t r = piece * ROWS; r < end; r++) {
        const real *from = p->from + r / p->dim[2] / p->dim[1] * p->stride[0] +
                           r / p->dim[2] % p->dim[1] * p->stride[1] + r % p->dim[2] * p->stride[2];
        real *to = p->to + r * len;
        if (p->add)
            for (size_t i = 0; i < len; i++)
                to[i] += from[i * step];
        else if (step == 1)
            memcpy(to, from, sizeof(real) * len);
        else
            for (size_t i = 0; i < len; i++)
                to[i] = from[i * step];
    }
}

/* Writes a tensor of the shape of `of` to p->to, axes a and b of p->from having changed places. */
static void transpose(transposing *p, const node *of, int a, int b)
{
    int32_t dim[RANK_MAX];
    size_t stride[RANK_MAX] = {0}, step = 1;
    memcpy(dim, of->dim, sizeof dim);
    dim[a] = of->dim[b];
    dim[b] = of->dim[a];
    for (int i = of->rank - 1; i >= 0; i--) {
        stride[i == a ? b : i == b ? a : i] = step;
        step *= (size_t)dim[i];
    }
    for (int i = 0; i < RANK_MAX; i++) {
        int at = i - (RANK_MAX - of->rank);
        p->dim[i] = at < 0 ? 1 : (size_t)of->dim[at];
        p->stride[i] = at < 0 ? 0 : stride[at];
    }
    parallel(pieces(p->dim[0] * p->dim[1] * p->dim[2], ROWS), transpose_rows, p);
}

int KERNEL(transpose_forward)(mr_tape *t, node *n)
{
    const node *a = node_in(t, n, 0);
    int first = n->code, second = (int)n->a;
    for (int i = 0; i < 2; i++)
        if ((i ? second : first) < 0 || (i ? second : first) >= a->rank)
            return fail("transpose: %s has no axis %d", node_text(a), (i ? second : first) + 1);
    int32_t dim[RANK_MAX];
    memcpy(dim, a->dim, sizeof dim);
    dim[first] = a->dim[second];
    dim[second] = a->dim[first];
    if (node_shape(n, a->rank, dim) || node_data(t, n))
        return -1;
    transposing p = {.from = a->data, .to = n->data};
    transpose(&p, n, first, second);
    return 0;
}

int KERNEL(transpose_backward)(mr_tape *t, node *n)
{
    node *a = node_in(t, n, 0);
    sink s;
    if (node_sink(t, a, &s))
        return -1;
    transposing p = {.from = n->grad, .to = s.grad, .add = s.add};
    if (p.to)
        transpose(&p, a, n->code, (int)n->a);
    return 0;
}

/* ---- reshape: the same data ---- */

int KERNEL(reshape_forward)(mr_tape *t, node *n)
{
    const node *a = node_in(t, n, 0);
    size_t others = 1;
    int open = -1;
    for (int i = 0; i < n->rank; i++) {
        if (n->dim[i] == -1 && open < 0)
            open = i;
        else if (n->dim[i] < 0)
            return fail("reshape: dimension %d is %d", i + 1, (int)n->dim[i]);
        else
            others *= (size_t)n->dim[i];
    }
    if (open >= 0 && others)
        n->dim[open] = (int32_t)(a->count / others);
    size_t count = open >= 0 ? others * (size_t)n->dim[open] : others;
    if (count != a->count)
        return fail("reshape: %s has %zu elements, which %s does not", node_text(a), a->count,
                    node_text(n));
    int32_t dim[RANK_MAX];
    memcpy(dim, n->dim, sizeof dim);
    if (node_shape(n, n->rank, dim))
        return -1;
    n->data = a->data;
    return 0;
}

int KERNEL(reshape_backward)(mr_tape *t, node *n)
{
    sink s;
    if (node_sink(t, node_in(t, n, 0), &s))
        return -1;
    if (!s.grad)
        return 0;
    joining p = {.from = n->grad,
                 .to = s.grad,
                 .rows = n->count / SPAN,
                 .width = SPAN,
                 .from_stride = SPAN,
                 .to_stride = SPAN,
                 .add = s.add};
    parallel(pieces(p.rows, ROWS), copy_rows, &p);
    p.from += p.rows * SPAN;
    p.to += p.rows * SPAN;
    p.width = n->count % SPAN;
    p.rows = 1;
    copy_rows(&p, 0);
    return 0;
}

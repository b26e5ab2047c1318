/* op_shape.c - concat along the last axis, and reshape. */
#include "kernel.h"
#include "op_pool.h"

/* ---- concat: out[i, :] = a[i, :] next to b[i, :] next to ... ---- */

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

static size_t last_dim(const node *n)
{
    return (size_t)n->dim[n->rank - 1];
}

int KERNEL(concat_forward)(mr_tape *t, node *n)
{
    const node *first = node_in(t, n, 0);
    int32_t dim[RANK_MAX];
    memcpy(dim, first->dim, sizeof dim);
    for (int i = 1; i < n->inputs; i++) {
        const node *a = node_in(t, n, i);
        int fits = a->rank == first->rank;
        for (int k = 0; fits && k < a->rank - 1; k++)
            fits = a->dim[k] == first->dim[k];
        if (!fits)
            return fail("concat: tensor %d is %s, which does not fit %s beside the last axis",
                        i + 1, node_text(a), node_text(first));
        dim[a->rank - 1] += (int32_t)last_dim(a);
    }
    if (node_shape(n, first->rank, dim) || node_data(t, n))
        return -1;
    size_t at = 0, width = last_dim(n), rows = width ? n->count / width : 0;
    for (int i = 0; i < n->inputs; i++) {
        const node *a = node_in(t, n, i);
        joining p = {.from = a->data,
                     .to = (real *)n->data + at,
                     .rows = rows,
                     .width = last_dim(a),
                     .from_stride = last_dim(a),
                     .to_stride = width};
        parallel(pieces(rows, ROWS), copy_rows, &p);
        at += p.width;
    }
    return 0;
}

int KERNEL(concat_backward)(mr_tape *t, node *n)
{
    size_t at = 0, width = last_dim(n), rows = width ? n->count / width : 0;
    for (int i = 0; i < n->inputs; i++) {
        node *a = node_in(t, n, i);
        sink s;
        if (node_sink(t, a, &s))
            return -1;
        joining p = {.from = (const real *)n->grad + at,
                     .to = s.grad,
                     .rows = rows,
                     .width = last_dim(a),
                     .from_stride = width,
                     .to_stride = last_dim(a),
                     .add = s.add};
        if (p.to)
            parallel(pieces(rows, ROWS), copy_rows, &p);
        at += p.width;
    }
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

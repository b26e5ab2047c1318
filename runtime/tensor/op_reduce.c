/* op_reduce.c - sum, mean and max along one axis, n->code (from 0): the tensor is [outer, len, inner],
 * the result [outer, inner], whose axis is 1 (n->a) or gone.
 *
 *     sum, mean  in double, in the order of the axis;  da = g, or g / len, at every place
 *     max        the first of the largest, or of the NaNs;  da = g at its place, else 0
 *
 * Of [d] without its axis, the result is [1]. */
#include "kernel/kernel.h"
#include "tensor/op_pool.h"

enum { BLOCK = 64 /* of inner */ };

typedef struct reducing {
    int op;
    const real *a, *g;
    real *out; /* or da */
    int32_t *place;
    size_t outer, len, inner, each; /* outer of a piece */
    real scale;
    int add;
} reducing;

static reducing reducing_of(mr_tape *t, const node *n)
{
    const node *a = node_in(t, n, 0);
    reducing p = {
        .op = n->op, .place = n->saved, .outer = 1, .inner = 1, .len = (size_t)a->dim[n->code]};
    for (int i = 0; i < a->rank; i++)
        *(i < n->code ? &p.outer : &p.inner) *= i == n->code ? 1 : (size_t)a->dim[i];
    p.scale = n->op == OP_MEAN_AXIS ? 1 / (real)p.len : 1;
    p.each = MAX(ELEMENTS / MAX(p.len * p.inner, 1), (size_t)1);
    return p;
}

static void sum_row(const reducing *p, size_t o)
{
    const real *a = p->a + o * p->len;
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < p->len; i++)
        sum += (double)a[i];
    p->out[o] = (real)(sum * (double)p->scale);
}

static void sum_block(const reducing *p, size_t o, size_t from, size_t n)
{
    double sum[BLOCK] = {0};
    for (size_t i = 0; i < p->len; i++) {
        const real *a = p->a + (o * p->len + i) * p->inner + from;
        for (size_t k = 0; k < n; k++)
            sum[k] += (double)a[k];
    }
    for (size_t k = 0; k < n; k++)
        p->out[o * p->inner + from + k] = (real)(sum[k] * (double)p->scale);
}

static void max_block(const reducing *p, size_t o, size_t from, size_t n)
{
    real most[BLOCK];
    int32_t place[BLOCK] = {0};
    const real *a = p->a + o * p->len * p->inner + from;
    memcpy(most, a, sizeof(real) * n);
    for (size_t i = 1; i < p->len; i++) {
        a += p->inner;
        for (size_t k = 0; k < n; k++) {
            int take = (a[k] > most[k]) | ((a[k] != a[k]) & (most[k] == most[k]));
            most[k] = take ? a[k] : most[k];
            place[k] = take ? (int32_t)i : place[k];
        }
    }
    memcpy(p->out + o * p->inner + from, most, sizeof(real) * n);
    memcpy(p->place + o * p->inner + from, place, sizeof *place * n);
}

static void forward_piece(void *context, size_t piece)
{
    const reducing *p = context;
    size_t end = MIN((piece + 1) * p->each, p->outer);
    for (size_t o = piece * p->each; o < end; o++)
        if (p->inner == 1 && p->op != OP_MAX_AXIS)
            sum_row(p, o);
        else
            for (size_t from = 0; from < p->inner; from += BLOCK)
                (p->op == OP_MAX_AXIS ? max_block : sum_block)(p, o, from,
                                                               MIN((size_t)BLOCK, p->inner - from));
}

int KERNEL(reduce_axis_forward)(mr_tape *t, node *n)
{
    const node *a = node_in(t, n, 0);
    int axis = n->code, rank = 0;
    int32_t dim[RANK_MAX] = {1};
    const char *name = n->op == OP_SUM_AXIS ? "sum" : n->op == OP_MEAN_AXIS ? "mean" : "max";
    if (axis < 0 || axis >= a->rank)
        return fail("%s: %s has no axis %d", name, node_text(a), axis + 1);
    if (a->dim[axis] == 0 && n->op != OP_SUM_AXIS)
        return fail("%s: axis %d of %s has no elements", name, axis + 1, node_text(a));
    for (int i = 0; i < a->rank; i++)
        if (i != axis || n->a)
            dim[rank++] = i == axis ? 1 : a->dim[i];
    if (node_shape(n, MAX(rank, 1), dim) || node_data(t, n))
        return -1;
    if (n->op == OP_MAX_AXIS) {
        n->saved = arena_take(tape_arena(t), sizeof(int32_t) * n->count);
        if (!n->saved)
            return -1;
    }
    reducing p = reducing_of(t, n);
    p.a = a->data;
    p.out = n->data;
    parallel(pieces(p.outer, p.each), forward_piece, &p);
    return 0;
}

static void backward_piece(void *context, size_t piece)
{
    const reducing *p = context;
    size_t end = MIN((piece + 1) * p->each, p->outer);
    for (size_t o = piece * p->each; o < end; o++) {
        if (p->inner == 1 && p->op != OP_MAX_AXIS) {
            real *to = p->out + o * p->len, g = p->scale * p->g[o];
            for (size_t i = 0; i < p->len; i++)
                to[i] = (p->add ? to[i] : 0) + g;
            continue;
        }
        for (size_t i = 0; i < p->len; i++) {
            const real *g = p->g + o * p->inner;
            const int32_t *place = p->place + o * p->inner;
            real *to = p->out + (o * p->len + i) * p->inner;
            if (p->op == OP_MAX_AXIS)
                for (size_t k = 0; k < p->inner; k++)
                    to[k] = (p->add ? to[k] : 0) + (place[k] == (int32_t)i ? g[k] : 0);
            else
                for (size_t k = 0; k < p->inner; k++)
                    to[k] = (p->add ? to[k] : 0) + p->scale * g[k];
        }
    }
}

int KERNEL(reduce_axis_backward)(mr_tape *t, node *n)
{
    sink s;
    if (node_sink(t, node_in(t, n, 0), &s))
        return -1;
    reducing p = reducing_of(t, n);
    p.g = n->grad;
    p.out = s.grad;
    p.add = s.add;
    if (p.out)
        parallel(pieces(p.outer, p.each), backward_piece, &p);
    return 0;
}

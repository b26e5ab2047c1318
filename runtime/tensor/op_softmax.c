/* op_softmax.c - softmax over the last axis, where a mask allows.
 *
 *     out_i = m_i exp(a_i - max_j a_j) / sum_j m_j exp(a_j - max a),  max over the j with m_j != 0;
 *     da_i = out_i (g_i - g_0 - sum_j (g_j - g_0) out_j),  any g_0, here the first, as sum_j out_j = 1
 *
 * The mask is 0 or not, aligned at the right and repeated as in op_broadcast.h, and gets no gradient. A
 * row without any element that it allows is 0. */
#include "kernel/kernel_math.h"
#include "tensor/op_broadcast.h"
#include "tensor/op_pool.h"

typedef struct softmax {
    const real *a, *g;
    real *out; /* or da */
    operand mask;
    size_t dim[RANK_MAX], rows, len, each; /* rows of a piece */
    int masked, add;
} softmax;

static softmax softmax_of(const node *n)
{
    softmax p = {.len = (size_t)n->dim[n->rank - 1]};
    for (int i = 0; i < RANK_MAX; i++)
        p.dim[i] = dim_of(n, i);
    p.rows = p.len ? n->count / p.len : 0;
    p.each = MAX(ELEMENTS / 4 / MAX(p.len, 1), (size_t)1);
    return p;
}

static void forward_piece(void *context, size_t piece)
{
    const softmax *p = context;
    size_t begin = piece * p->each, end = MIN(begin + p->each, p->rows), len = p->len;
    size_t step = p->mask.stride[RANK_MAX - 1];
    for (size_t r = begin; r < end; r++) { /* what is left out is far below: exp is 0 */
        const real *a = p->a + r * len;
        const real *m = p->masked ? p->mask.data + row_offset(p->dim, &p->mask, r) : NULL;
        real *out = p->out + r * len, most = -INFINITY;
        for (size_t i = 0; i < len; i++) {
            out[i] = m && m[i * step] == 0 ? -INFINITY : a[i];
            most = out[i] > most ? out[i] : most;
        }
        if (most == -INFINITY)
            most = 0;
        for (size_t i = 0; i < len; i++)
            out[i] -= most;
    }
    for (size_t i = begin * len; i < end * len; i++)
        p->out[i] = real_exp(p->out[i]);
    for (size_t r = begin; r < end; r++) {
        real *out = p->out + r * len, sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < len; i++)
            sum += out[i];
        real scale = sum == 0 ? 0 : 1 / sum;
        for (size_t i = 0; i < len; i++)
            out[i] *= scale;
    }
}

int KERNEL(softmax_forward)(mr_tape *t, node *n)
{
    const node *a = node_in(t, n, 0), *mask = n->inputs > 1 ? node_in(t, n, 1) : NULL;
    if (node_shape(n, a->rank, a->dim) || node_data(t, n))
        return -1;
    softmax p = softmax_of(n);
    for (int i = 0; mask && i < RANK_MAX; i++)
        if (dim_of(mask, i) != 1 && dim_of(mask, i) != p.dim[i])
            return fail("softmax: a mask %s does not fit %s", node_text(mask), node_text(a));
    p.a = a->data;
    p.out = n->data;
    p.masked = mask != NULL;
    if (mask)
        p.mask = operand_of(p.dim, mask, mask->data);
    parallel(pieces(p.rows, p.each), forward_piece, &p);
    return 0;
}

static void backward_piece(void *context, size_t piece)
{
    const softmax *p = context;
    size_t end = MIN((piece + 1) * p->each, p->rows), len = p->len;
    for (size_t r = piece * p->each; r < end; r++) {
        const real *y = p->a + r * len, *g = p->g + r * len;
        real *to = p->out + r * len, dot = 0, first = g[0];
#pragma omp simd reduction(+ : dot)
        for (size_t i = 0; i < len; i++)
            dot += y[i] * (g[i] - first);
        for (size_t i = 0; i < len; i++)
            to[i] = (p->add ? to[i] : 0) + y[i] * (g[i] - first - dot);
    }
}

int KERNEL(softmax_backward)(mr_tape *t, node *n)
{
    sink s;
    if (node_sink(t, node_in(t, n, 0), &s))
        return -1;
    softmax p = softmax_of(n);
    p.a = n->data;
    p.g = n->grad;
    p.out = s.grad;
    p.add = s.add;
    if (p.out)
        parallel(pieces(p.rows, p.each), backward_piece, &p);
    return 0;
}

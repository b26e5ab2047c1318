/* op_unary.c - operations on one tensor, element by element: the result has its shape.
 *
 *     affine   scale a + shift      da = scale g
 *     relu     max(a, 0)            da = g where out > 0
 *     sigmoid  1 / (1 + exp(-a))    da = g out (1 - out)
 *     tanh                          da = g (1 - out^2)
 *     dropout  a keep_i / (1 - rate), keep_i drawn; da = g keep_i / (1 - rate)
 *
 * Dropout's rate is rounded to a multiple of 2^-16, and scaled by what it is then: four elements
 * share a 64-bit random number, 16 bits each. */
#include <tgmath.h>

#include "kernel.h"
#include "op_pool.h"

typedef struct unary {
    const node *n;
    const real *a, *g;
    real *out;     /* or the gradient of a */
    uint8_t *keep; /* dropout */
    uint64_t stream;
    int add;
} unary;

static void forward_piece(void *context, size_t piece)
{
    const unary *p = context;
    size_t begin = piece * ELEMENTS, n = MIN((size_t)ELEMENTS, p->n->count - begin);
    const real *a = p->a + begin;
    real *out = p->out + begin;
    real scale = (real)p->n->a, shift = (real)p->n->b;
    switch (p->n->op) {
    case OP_AFFINE:
        for (size_t i = 0; i < n; i++)
            out[i] = scale * a[i] + shift;
        break;
    case OP_RELU:
        for (size_t i = 0; i < n; i++)
            out[i] = a[i] > 0 ? a[i] : 0;
        break;
    case OP_SIGMOID:
        for (size_t i = 0; i < n; i++)
            out[i] = 1 / (1 + exp(-a[i]));
        break;
    case OP_TANH:
        for (size_t i = 0; i < n; i++)
            out[i] = tanh(a[i]);
        break;
    }
}

static int unary_forward(mr_tape *t, node *n, task *piece)
{
    const node *a = node_in(t, n, 0);
    if (node_shape(n, a->rank, a->dim) || node_data(t, n))
        return -1;
    unary p = {.n = n, .a = a->data, .out = n->data, .keep = n->saved, .stream = tape_stream(t, n)};
    parallel(pieces(n->count, ELEMENTS), piece, &p);
    return 0;
}

int KERNEL(affine_forward)(mr_tape *t, node *n)
{
    return unary_forward(t, n, forward_piece);
}

int KERNEL(unary_forward)(mr_tape *t, node *n)
{
    return unary_forward(t, n, forward_piece);
}

#define EACH(expression)                                                                           \
    do {                                                                                           \
        if (p->add)                                                                                \
            for (size_t i = 0; i < n; i++)                                                         \
                to[i] += expression;                                                               \
        else                                                                                       \
            for (size_t i = 0; i < n; i++)                                                         \
                to[i] = expression;                                                                \
    } while (0)

static void backward_piece(void *context, size_t piece)
{
    const unary *p = context;
    size_t begin = piece * ELEMENTS, n = MIN((size_t)ELEMENTS, p->n->count - begin);
    const real *y = (const real *)p->n->data + begin, *g = p->g + begin;
    real *to = p->out + begin, scale = (real)p->n->a;
    switch (p->n->op) {
    case OP_AFFINE:
        EACH(scale * g[i]);
        break;
    case OP_RELU:
        EACH(y[i] > 0 ? g[i] : 0);
        break;
    case OP_SIGMOID:
        EACH(g[i] * y[i] * (1 - y[i]));
        break;
    case OP_TANH:
        EACH(g[i] * (1 - y[i] * y[i]));
        break;
    case OP_DROPOUT:
        EACH((p->keep + begin)[i] ? scale * g[i] : 0);
        break;
    }
}

static int unary_backward(mr_tape *t, node *n)
{
    sink s;
    if (node_sink(t, node_in(t, n, 0), &s))
        return -1;
    unary p = {.n = n, .g = n->grad, .out = s.grad, .keep = n->saved, .add = s.add};
    if (p.out)
        parallel(pieces(n->count, ELEMENTS), backward_piece, &p);
    return 0;
}

int KERNEL(affine_backward)(mr_tape *t, node *n)
{
    return unary_backward(t, n);
}

int KERNEL(unary_backward)(mr_tape *t, node *n)
{
    return unary_backward(t, n);
}

/* ---- dropout: n->a is the scale of what is kept, n->b the chance to drop, of 65536 ---- */

static void drop_piece(void *context, size_t piece)
{
    const unary *p = context;
    size_t begin = piece * ELEMENTS, n = MIN((size_t)ELEMENTS, p->n->count - begin);
    const real *a = p->a + begin;
    real *out = p->out + begin, scale = (real)p->n->a;
    uint8_t *keep = p->keep + begin;
    uint16_t below = (uint16_t)p->n->b;
    _Static_assert(ELEMENTS % 4 == 0, "four elements of a piece share a random number");
    for (size_t i = 0; i < n; i += 4) {
        uint64_t random = random_at(p->stream, (begin + i) / 4);
        for (size_t k = 0; k < 4; k++) /* the buffer is rounded up to whole cache lines */
            keep[i + k] = (uint16_t)(random >> 16 * k) >= below;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = keep[i] ? scale * a[i] : 0;
}

int KERNEL(dropout_forward)(mr_tape *t, node *n)
{
    n->b = fmin(round(n->a * 65536), 65535.0);
    n->a = 65536 / (65536 - n->b);
    n->saved = arena_take(tape_arena(t), node_in(t, n, 0)->count);
    return n->saved ? unary_forward(t, n, drop_piece) : -1;
}

int KERNEL(dropout_backward)(mr_tape *t, node *n)
{
    return unary_backward(t, n);
}

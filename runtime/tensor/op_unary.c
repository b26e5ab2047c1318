/* op_unary.c - operations on one tensor, element by element: the result has its shape.
 *
 *     affine      scale a + shift               da = scale g
 *     relu        max(a, 0)                     da = g where out > 0
 *     leaky_relu  a where a > 0, else slope a   da = g where a > 0, else slope g
 *     sigmoid     1 / (1 + exp(-a))             da = g out (1 - out)
 *     tanh                                      da = g (1 - out^2)
 *     gelu        a P, P = 1/2 (1 + erf(a / sqrt(2)))
 *                                               da = g (P + a exp(-a^2 / 2) / sqrt(2 pi))
 *     silu        a s, s = sigmoid(a)           da = g s (1 + a (1 - s))
 *     exp                                       da = g out
 *     log                                       da = g / a
 *     sqrt                                      da = g / (2 out)
 *     abs                                       da = g sign(a), 0 where a is 0
 *     square      a^2                           da = 2 a g
 *     dropout     a keep_i / (1 - rate), keep_i drawn; da = g keep_i / (1 - rate)
 *
 * Dropout's rate is rounded to a multiple of 2^-16, and scaled by what it is then: four elements
 * share a 64-bit random number, 16 bits each. */
#include <tgmath.h>

#include "kernel/kernel.h"
#include "kernel/kernel_math.h"
#include "tensor/op_pool.h"

typedef struct unary {
    const node *n;
    const real *a, *g;
    real *out;     /* or the gradient of a */
    uint8_t *keep; /* dropout */
    uint64_t stream;
    int add;
} unary;

/* The normal distribution's P(a), as in gelu. */
static inline real normal_below(real a)
{
    return (real)0.5 * (1 + real_erf(a * (real)0.70710678118654752440));
}

#define EACH(expression)                                                                           \
    for (size_t i = 0; i < n; i++)                                                                 \
    out[i] = expression

static void forward_piece(void *context, size_t piece)
{
    const unary *p = context;
    size_t begin = piece * ELEMENTS, n = MIN((size_t)ELEMENTS, p->n->count - begin);
    const real *a = p->a + begin;
    real *out = p->out + begin;
    real scale = (real)p->n->a, shift = (real)p->n->b;
    switch (p->n->op) {
    case OP_AFFINE:
        EACH(scale * a[i] + shift);
        break;
    case OP_RELU:
        EACH(a[i] > 0 ? a[i] : 0);
        break;
    case OP_LEAKY_RELU:
        EACH(a[i] > 0 ? a[i] : scale * a[i]);
        break;
    case OP_SIGMOID:
        EACH(real_sigmoid(a[i]));
        break;
    case OP_TANH:
        EACH(real_tanh(a[i]));
        break;
    case OP_GELU:
        EACH(a[i] * normal_below(a[i]));
        break;
    case OP_SILU:
        EACH(a[i] * real_sigmoid(a[i]));
        break;
    case OP_EXP:
        EACH(real_exp(a[i]));
        break;
    case OP_LOG:
        EACH(log(a[i]));
        break;
    case OP_SQRT:
        EACH(sqrt(a[i]));
        break;
    case OP_ABS:
        EACH(fabs(a[i]));
        break;
    case OP_SQUARE:
        EACH(a[i] * a[i]);
        break;
    }
}
#undef EACH

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
    const real *y = (const real *)p->n->data + begin, *g = p->g + begin, *a = p->a + begin;
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
    case OP_LEAKY_RELU:
        EACH(a[i] > 0 ? g[i] : scale * g[i]);
        break;
    case OP_GELU:
        EACH(g[i] * (normal_below(a[i]) +
                     a[i] * (real)0.39894228040143267794 * real_exp((real)-0.5 * a[i] * a[i])));
        break;
    case OP_SILU:
        EACH(g[i] * real_sigmoid(a[i]) * (1 + a[i] * real_sigmoid(-a[i])));
        break;
    case OP_EXP:
        EACH(g[i] * y[i]);
        break;
    case OP_LOG:
        EACH(g[i] / a[i]);
        break;
    case OP_SQRT:
        EACH(g[i] / (2 * y[i]));
        break;
    case OP_ABS:
        EACH(g[i] * (real)((a[i] > 0) - (a[i] < 0)));
        break;
    case OP_SQUARE:
        EACH(2 * a[i] * g[i]);
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
    unary p = {.n = n,
               .a = node_in(t, n, 0)->data,
               .g = n->grad,
               .out = s.grad,
               .keep = n->saved,
               .add = s.add};
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

/* op_element.c - element-wise operations that users write: a list of steps, each computed from
 * earlier ones (moonrock.h has them), the last of which is the result.
 *
 * They run over blocks of BLOCK elements, so that all steps of a block stay in the first cache and
 * each is one loop that the compiler makes vectors of; the last writes the result itself. Backward
 * computes a block's steps again, but for the last, and then the adjoints d of the steps, from the
 * last, whose is the gradient, to the inputs, whose are where their gradients go:
 *
 *     add  da = d, db = d             exp      da = d y
 *     sub  da = d, db = -d            log      da = d / a
 *     mul  da = d b, db = d a         sqrt     da = d / (2 y)
 *     div  da = d / b, db = -d y / b  abs      da = d sign(a)
 *     max  da = d where a > b,        sigmoid  da = d y (1 - y)
 *          else db = d                tanh     da = d (1 - y^2)
 *                                     relu     da = d where y > 0 */
#include <tgmath.h>

#include "kernel/kernel_math.h"
#include "tensor/op_pool.h"

enum { BLOCK = 256, INPUTS = 8 };

typedef struct element {
    const mr_element_step *step;
    int steps, inputs;
    size_t count;
    const real *in[INPUTS];
    const real *g; /* backward */
    real *out;
    sink to[INPUTS];
} element;

#define EACH(expression)                                                                           \
    for (size_t i = 0; i < n; i++)                                                                 \
        y[i] = expression;                                                                         \
    break

/* Computes steps of n elements from `begin` on: value[k] is where those of step k are. */
static void compute(const element *p, int steps, size_t begin, size_t n, real (*room)[BLOCK],
                    const real **value)
{
    value[p->steps - 1] = p->out + begin;
    for (int k = 0; k < steps; k++) {
        const mr_element_step *s = &p->step[k];
        real *y = k < p->steps - 1 ? room[k] : p->out + begin;
        if (s->op == MR_ELEMENT_INPUT) {
            value[k] = p->in[s->a] + begin;
            continue;
        }
        const real *a = k ? value[s->a] : NULL, *b = k ? value[s->b] : NULL, c = (real)s->value;
        value[k] = y;
        switch (s->op) {
        case MR_ELEMENT_CONSTANT:
            EACH(c);
        case MR_ELEMENT_ADD:
            EACH(a[i] + b[i]);
        case MR_ELEMENT_SUB:
            EACH(a[i] - b[i]);
        case MR_ELEMENT_MUL:
            EACH(a[i] * b[i]);
        case MR_ELEMENT_DIV:
            EACH(a[i] / b[i]);
        case MR_ELEMENT_MAX:
            EACH(a[i] > b[i] ? a[i] : b[i]);
        case MR_ELEMENT_MIN:
            EACH(a[i] < b[i] ? a[i] : b[i]);
        case MR_ELEMENT_EXP:
            EACH(real_exp(a[i]));
        case MR_ELEMENT_LOG:
            EACH(log(a[i]));
        case MR_ELEMENT_SQRT:
            EACH(sqrt(a[i]));
        case MR_ELEMENT_ABS:
            EACH(fabs(a[i]));
        case MR_ELEMENT_SIGMOID:
            EACH(real_sigmoid(a[i]));
        case MR_ELEMENT_TANH:
            EACH(real_tanh(a[i]));
        case MR_ELEMENT_RELU:
            EACH(a[i] > 0 ? a[i] : 0);
        }
    }
}

static void forward_piece(void *context, size_t piece)
{
    const element *p = context;
    real room[MR_ELEMENT_STEPS][BLOCK];
    const real *value[MR_ELEMENT_STEPS];
    size_t end = MIN((piece + 1) * ELEMENTS, p->count);
    for (size_t begin = piece * ELEMENTS; begin < end; begin += BLOCK) {
        size_t n = MIN((size_t)BLOCK, end - begin);
        compute(p, p->steps, begin, n, room, value);
    }
}

static int gather(mr_tape *t, node *n, element *p)
{
    const node *a = node_in(t, n, 0);
    *p = (element){.step = n->saved, .steps = n->code, .inputs = n->inputs, .count = a->count};
    if (n->inputs > INPUTS || p->steps <= n->inputs)
        return fail("element: %d steps of %d tensors, expected more, of 1 to %d", p->steps,
                    n->inputs, INPUTS);
    for (int i = 0; i < n->inputs; i++) {
        const node *x = node_in(t, n, i);
        if (x->rank != a->rank || memcmp(x->dim, a->dim, sizeof x->dim))
            return fail("element: tensor %d is %s, expected %s as the first", i + 1, node_text(x),
                        node_text(a));
        p->in[i] = x->data;
    }
    return 0;
}

int KERNEL(element_forward)(mr_tape *t, node *n)
{
    element p;
    const node *a = node_in(t, n, 0);
    if (gather(t, n, &p) || node_shape(n, a->rank, a->dim) || node_data(t, n))
        return -1;
    p.out = n->data;
    parallel(pieces(p.count, ELEMENTS), forward_piece, &p);
    return 0;
}

#define ADJOINT(to_a, to_b)                                                                        \
    for (size_t i = 0; i < n; i++) {                                                               \
        da[i] += to_a;                                                                             \
        db[i] += to_b;                                                                             \
    }                                                                                              \
    break

#define ADJOINT_1(to_a)                                                                            \
    for (size_t i = 0; i < n; i++)                                                                 \
        da[i] += to_a;                                                                             \
    break

/* Adds what the adjoint d of step k makes in those of the steps that it is of. */
static void adjoint(const mr_element_step *s, size_t n, const real *a, const real *b, const real *y,
                    const real *d, real *da, real *db)
{
    switch (s->op) {
    case MR_ELEMENT_ADD:
        ADJOINT(d[i], d[i]);
    case MR_ELEMENT_SUB:
        ADJOINT(d[i], -d[i]);
    case MR_ELEMENT_MUL:
        ADJOINT(d[i] * b[i], d[i] * a[i]);
    case MR_ELEMENT_DIV:
        ADJOINT(d[i] / b[i], -d[i] * y[i] / b[i]);
    case MR_ELEMENT_MAX:
        ADJOINT(a[i] > b[i] ? d[i] : 0, a[i] > b[i] ? 0 : d[i]);
    case MR_ELEMENT_MIN:
        ADJOINT(a[i] < b[i] ? d[i] : 0, a[i] < b[i] ? 0 : d[i]);
    case MR_ELEMENT_EXP:
        ADJOINT_1(d[i] * y[i]);
    case MR_ELEMENT_LOG:
        ADJOINT_1(d[i] / a[i]);
    case MR_ELEMENT_SQRT:
        ADJOINT_1(d[i] / (2 * y[i]));
    case MR_ELEMENT_ABS:
        ADJOINT_1(a[i] > 0 ? d[i] : a[i] < 0 ? -d[i] : 0);
    case MR_ELEMENT_SIGMOID:
        ADJOINT_1(d[i] * y[i] * (1 - y[i]));
    case MR_ELEMENT_TANH:
        ADJOINT_1(d[i] * (1 - y[i] * y[i]));
    case MR_ELEMENT_RELU:
        ADJOINT_1(y[i] > 0 ? d[i] : 0);
    }
}

static void backward_piece(void *context, size_t piece)
{
    const element *p = context;
    real room[MR_ELEMENT_STEPS][BLOCK], adjoints[MR_ELEMENT_STEPS][BLOCK];
    const real *value[MR_ELEMENT_STEPS];
    real *d[MR_ELEMENT_STEPS];
    int last = p->steps - 1;
    size_t end = MIN((piece + 1) * ELEMENTS, p->count);
    for (size_t begin = piece * ELEMENTS; begin < end; begin += BLOCK) {
        size_t n = MIN((size_t)BLOCK, end - begin);
        compute(p, last, begin, n, room, value);
        for (int k = 0; k < last; k++) { /* the first steps are the inputs, in order */
            real *to = k < p->inputs ? p->to[k].grad : NULL;
            d[k] = to ? to + begin : adjoints[k];
            if (!to || !p->to[k].add)
                memset(d[k], 0, n * sizeof(real));
        }
        for (int k = last; k >= p->inputs; k--) {
            const mr_element_step *s = &p->step[k];
            if (s->op > MR_ELEMENT_CONSTANT)
                adjoint(s, n, value[s->a], value[s->b], value[k], k == last ? p->g + begin : d[k],
                        d[s->a], d[s->b]);
        }
    }
}

int KERNEL(element_backward)(mr_tape *t, node *n)
{
    element p;
    if (gather(t, n, &p))
        return -1;
    p.g = n->grad;
    p.out = n->data;
    for (int i = 0; i < n->inputs; i++)
        if (node_sink(t, node_in(t, n, i), &p.to[i]))
            return -1;
    parallel(pieces(p.count, ELEMENTS), backward_piece, &p);
    return 0;
}

/* op_binary.c - add, sub, mul, div with broadcasting: shapes are aligned at the right, and where
 * one tensor has 1 (or no) dimension its element is repeated.
 *
 *     add: da = g, db = g;  sub: db = -g;  mul: da = g b, db = g a;  div: da = g / b,
 *     db = -g out / b;  a repeated tensor's gradient is the sum over the repeats, in double, in
 *     the order of the elements.
 *
 * The work is spans of at most SPAN elements in a row, over which each operand either advances or
 * stands. Equal shapes, and a single number, are one long row. [n] against [n, 1] is refused: its
 * result would be [n, n], which is a mistake more often than not. */
#include "tensor/op_broadcast.h"
#include "tensor/op_pool.h"

enum { SPAN = 1024, SPANS = 16 /* of a piece */, PARTS = 16, PART_SPANS = 64 };

typedef struct binary {
    int op;
    operand a, b;
    real *out;
    size_t dim[RANK_MAX]; /* of the result; the last is the row */
    size_t spans;         /* of a row */
    /* backward */
    const real *g;
    operand to;                       /* the gradient of one operand */
    double *sum;                      /* [parts, count]: the same, while it is a sum over repeats */
    size_t count, parts, units, unit; /* it is cut into parts of whole units of so many spans */
    int apart;                        /* the parts write to different elements: sum is [count] */
    int of_b, add;
} binary;

static size_t rows_of(const binary *p)
{
    return p->dim[0] * p->dim[1] * p->dim[2];
}

static binary binary_of(const node *n, const node *a, const node *b)
{
    binary p = {.op = n->op, .out = n->data};
    for (int i = 0; i < RANK_MAX; i++)
        p.dim[i] = dim_of(n, i);
    int flat_a = a->count == n->count, flat_b = b->count == n->count;
    if ((flat_a && flat_b) || (flat_a && b->count == 1) || (flat_b && a->count == 1)) {
        for (int i = 0; i < RANK_MAX; i++)
            p.dim[i] = i < RANK_MAX - 1 ? 1 : n->count;
        p.a = (operand){.data = a->data, .stride = {0, 0, 0, flat_a}};
        p.b = (operand){.data = b->data, .stride = {0, 0, 0, flat_b}};
    } else {
        p.a = operand_of(p.dim, a, a->data);
        p.b = operand_of(p.dim, b, b->data);
    }
    p.spans = pieces(p.dim[RANK_MAX - 1], SPAN);
    return p;
}

/* out[i] = an expression of i, x = a[i] and y = b[i]. */
#define EACH(expression)                                                                           \
    do {                                                                                           \
        if (sa && sb)                                                                              \
            EACH_OF(a[i], b[i], expression)                                                        \
        else if (sa)                                                                               \
            EACH_OF(a[i], b[0], expression)                                                        \
        else                                                                                       \
            EACH_OF(a[0], b[i], expression)                                                        \
    } while (0)
#define EACH_OF(first, second, expression)                                                         \
    for (size_t i = 0; i < n; i++) {                                                               \
        real x = first, y = second;                                                                \
        (void)x, (void)y;                                                                          \
        out[i] = expression;                                                                       \
    }

static void forward_span(const binary *p, size_t row, size_t from, size_t n)
{
    size_t sa = p->a.stride[RANK_MAX - 1], sb = p->b.stride[RANK_MAX - 1];
    const real *a = p->a.data + row_offset(p->dim, &p->a, row) + from * sa;
    const real *b = p->b.data + row_offset(p->dim, &p->b, row) + from * sb;
    real *out = p->out + row * p->dim[RANK_MAX - 1] + from;
    switch (p->op) {
    case OP_ADD:
        EACH(x + y);
        break;
    case OP_SUB:
        EACH(x - y);
        break;
    case OP_MUL:
        EACH(x * y);
        break;
    case OP_DIV:
        EACH(x / y);
        break;
    }
}

/* One span of the gradient of an operand: g times the derivative by it, in out. */
static void derive_span(const binary *p, size_t row, size_t from, size_t n, real *out)
{
    size_t sa = p->a.stride[RANK_MAX - 1], sb = p->b.stride[RANK_MAX - 1];
    const real *a = p->a.data + row_offset(p->dim, &p->a, row) + from * sa;
    const real *b = p->b.data + row_offset(p->dim, &p->b, row) + from * sb;
    const real *g = p->g + row * p->dim[RANK_MAX - 1] + from;
    switch (p->op) {
    case OP_ADD:
        memcpy(out, g, sizeof(real) * n);
        break;
    case OP_SUB:
        for (size_t i = 0; i < n; i++)
            out[i] = p->of_b ? -g[i] : g[i];
        break;
    case OP_MUL:
        if (p->of_b)
            EACH(g[i] * x);
        else
            EACH(g[i] * y);
        break;
    case OP_DIV:
        if (p->of_b)
            EACH(-g[i] * x / (y * y));
        else
            EACH(g[i] / y);
        break;
    }
}

static void forward_piece(void *context, size_t piece)
{
    const binary *p = context;
    size_t end = MIN((piece + 1) * SPANS, rows_of(p) * p->spans);
    for (size_t i = piece * SPANS; i < end; i++) {
        size_t from = i % p->spans * SPAN;
        forward_span(p, i / p->spans, from, MIN((size_t)SPAN, p->dim[RANK_MAX - 1] - from));
    }
}

/* The gradient of an operand that is not repeated. */
static void backward_piece(void *context, size_t piece)
{
    const binary *p = context;
    real buffer[SPAN];
    size_t end = MIN((piece + 1) * SPANS, rows_of(p) * p->spans), len = p->dim[RANK_MAX - 1];
    for (size_t i = piece * SPANS; i < end; i++) {
        size_t row = i / p->spans, from = i % p->spans * SPAN, n = MIN((size_t)SPAN, len - from);
        real *to = p->to.data + row * len + from;
        if (!p->add) {
            derive_span(p, row, from, n, to);
            continue;
        }
        derive_span(p, row, from, n, buffer);
        for (size_t k = 0; k < n; k++)
            to[k] += buffer[k];
    }
}

/* A part of the sums of one that is. */
static void repeated_part(void *context, size_t part)
{
    const binary *p = context;
    real buffer[SPAN];
    size_t len = p->dim[RANK_MAX - 1], stride = p->to.stride[RANK_MAX - 1];
    size_t begin = p->units * part / p->parts * p->unit;
    size_t end = p->units * (part + 1) / p->parts * p->unit;
    double *sums = p->apart ? p->sum : p->sum + part * p->count;
    for (size_t i = begin; i < end; i++) {
        size_t row = i / p->spans, from = i % p->spans * SPAN, n = MIN((size_t)SPAN, len - from);
        derive_span(p, row, from, n, buffer);
        double *sum = sums + row_offset(p->dim, &p->to, row) + from * stride;
        if (stride) {
            for (size_t k = 0; k < n; k++)
                sum[k] += (double)buffer[k];
            continue;
        }
        double all = 0;
#pragma omp simd reduction(+ : all)
        for (size_t k = 0; k < n; k++)
            all += (double)buffer[k];
        *sum += all;
    }
}

static void repeated_sum(void *context, size_t piece)
{
    const binary *p = context;
    size_t end = MIN((piece + 1) * ELEMENTS, p->count);
    for (size_t i = piece * ELEMENTS; i < end; i++) {
        double sum = p->sum[i];
        for (size_t part = 1; part < p->parts && !p->apart; part++)
            sum += p->sum[part * p->count + i];
        p->to.data[i] = (p->add ? p->to.data[i] : 0) + (real)sum;
    }
}

/* The gradient of a repeated operand: cut along the first dimension of the result, by whose parts
 * its elements differ if it is not repeated there; otherwise each part has sums of its own. */
static int backward_repeated(mr_tape *t, binary *p, size_t count)
{
    int first = 0;
    while (first < RANK_MAX - 1 && p->dim[first] == 1)
        first++;
    p->count = count;
    p->units = first < RANK_MAX - 1 ? p->dim[first] : p->spans;
    p->unit = 1;
    for (int i = first; i < RANK_MAX - 1; i++)
        p->unit *= i > first ? p->dim[i] : p->spans;
    p->apart = first < RANK_MAX - 1 && p->to.stride[first] != 0;
    p->parts = MIN(pieces(p->units * p->unit, PART_SPANS), p->units);
    if (!p->apart)
        p->parts = MIN(p->parts, (size_t)PARTS);
    p->parts = MAX(p->parts, (size_t)1);
    size_t size = sizeof(double) * count * (p->apart ? 1 : p->parts);
    p->sum = arena_take(tape_arena(t), size);
    if (!p->sum)
        return -1;
    memset(p->sum, 0, size);
    parallel(p->parts, repeated_part, p);
    parallel(pieces(count, ELEMENTS), repeated_sum, p);
    return 0;
}

int KERNEL(binary_forward)(mr_tape *t, node *n)
{
    const node *a = node_in(t, n, 0), *b = node_in(t, n, 1);
    static const char *const name[] = {"add", "sub", "mul", "div"};
    int32_t dim[RANK_MAX];
    int rank = MAX(a->rank, b->rank);
    for (int i = 0; i < rank; i++) {
        size_t da = dim_of(a, i + RANK_MAX - rank), db = dim_of(b, i + RANK_MAX - rank);
        if (da != db && da != 1 && db != 1)
            return fail("%s: shapes %s and %s do not fit", name[n->op - OP_ADD], node_text(a),
                        node_text(b));
        dim[i] = (int32_t)(da == 1 ? db : da);
    }
    if (node_shape(n, rank, dim))
        return -1;
    if (a->rank != b->rank && n->count > MAX(a->count, b->count))
        return fail("%s: shapes %s and %s would both be repeated, to %s; reshape one of them",
                    name[n->op - OP_ADD], node_text(a), node_text(b), node_text(n));
    if (node_data(t, n))
        return -1;
    binary p = binary_of(n, a, b);
    parallel(pieces(rows_of(&p) * p.spans, SPANS), forward_piece, &p);
    return 0;
}

static int backward_one(mr_tape *t, node *n, int of_b)
{
    node *in = node_in(t, n, of_b);
    sink s;
    if (node_sink(t, in, &s))
        return -1;
    if (!s.grad)
        return 0;
    binary p = binary_of(n, node_in(t, n, 0), node_in(t, n, 1));
    p.g = n->grad;
    p.of_b = of_b;
    p.add = s.add;
    p.to = of_b ? p.b : p.a;
    p.to.data = s.grad;
    if (in->count == n->count) {
        parallel(pieces(rows_of(&p) * p.spans, SPANS), backward_piece, &p);
        return 0;
    }
    return backward_repeated(t, &p, in->count);
}

int KERNEL(binary_backward)(mr_tape *t, node *n)
{
    return backward_one(t, n, 0) || backward_one(t, n, 1) ? -1 : 0;
}

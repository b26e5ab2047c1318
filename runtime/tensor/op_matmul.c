/* op_matmul.c - products of as many matrices as the leading dimensions have, which are equal:
 *
 *     out[.., a, c] = x[.., a, b] y[.., b, c];    dx = g y^T,  dy = x^T g
 *     or, with n->code, y is [.., c, b]:  x y^T;  dx = g y,    dy = g^T x
 *
 * Each matrix is one thread's, on OpenBLAS, also where it is small: for 10 to 64 rows a blocked loop of
 * our own took 1.5 to 2 times as long. */
#include "kernel/kernel.h"
#include "tensor/op_pool.h"

enum { WORK = 1 << 18 /* multiplications of a piece */ };

typedef struct matmul {
    const real *x, *y, *g;
    real *out, *dx, *dy;
    size_t count, a, b, c, each;
    int across, add_dx, add_dy;
} matmul;

static matmul matmul_of(mr_tape *t, const node *n)
{
    const node *x = node_in(t, n, 0), *y = node_in(t, n, 1);
    int r = n->rank;
    matmul p = {.x = x->data,
                .y = y->data,
                .count = 1,
                .a = (size_t)x->dim[r - 2],
                .b = (size_t)x->dim[r - 1],
                .c = (size_t)n->dim[r - 1],
                .across = n->code};
    for (int i = 0; i < r - 2; i++)
        p.count *= (size_t)n->dim[i];
    p.each = MAX(WORK / MAX(p.a * p.b * p.c, 1), (size_t)1);
    return p;
}

/* out[m, n] (+)= x[m, k] y[k, n]; turned, x is [k, m] and y is [n, k]. */
static void multiply(int turn_x, const real *x, int turn_y, const real *y, int add, real *out,
                     size_t m, size_t n, size_t k)
{
    GEMM(CblasRowMajor, turn_x ? CblasTrans : CblasNoTrans, turn_y ? CblasTrans : CblasNoTrans,
         (int)m, (int)n, (int)k, 1, x, (int)MAX(turn_x ? m : k, 1), y, (int)MAX(turn_y ? k : n, 1),
         add, out, (int)MAX(n, 1));
}

static void forward_piece(void *context, size_t piece)
{
    const matmul *p = context;
    size_t end = MIN((piece + 1) * p->each, p->count), a = p->a, b = p->b, c = p->c;
    for (size_t s = piece * p->each; s < end; s++)
        multiply(0, p->x + s * a * b, p->across, p->y + s * b * c, 0, p->out + s * a * c, a, c, b);
}

int KERNEL(matmul_forward)(mr_tape *t, node *n)
{
    const node *x = node_in(t, n, 0), *y = node_in(t, n, 1);
    int r = x->rank, fits = y->rank == r && r > 2, across = n->code;
    for (int i = 0; fits && i < r - 2; i++)
        fits = x->dim[i] == y->dim[i];
    if (!fits || x->dim[r - 1] != y->dim[across ? r - 1 : r - 2])
        return fail("matmul: shapes %s and %s%s do not fit", node_text(x), node_text(y),
                    across ? ", transposed," : "");
    int32_t dim[RANK_MAX];
    memcpy(dim, x->dim, sizeof dim);
    dim[r - 1] = y->dim[across ? r - 2 : r - 1];
    if (node_shape(n, r, dim) || node_data(t, n))
        return -1;
    matmul p = matmul_of(t, n);
    p.out = n->data;
    parallel(pieces(p.count, p.each), forward_piece, &p);
    return 0;
}

static void backward_piece(void *context, size_t piece)
{
    const matmul *p = context;
    size_t end = MIN((piece + 1) * p->each, p->count), a = p->a, b = p->b, c = p->c;
    for (size_t s = piece * p->each; s < end; s++) {
        const real *x = p->x + s * a * b, *y = p->y + s * b * c, *g = p->g + s * a * c;
        if (p->dx)
            multiply(0, g, !p->across, y, p->add_dx, p->dx + s * a * b, a, b, c);
        if (p->dy && p->across)
            multiply(1, g, 0, x, p->add_dy, p->dy + s * b * c, c, b, a);
        else if (p->dy)
            multiply(1, x, 0, g, p->add_dy, p->dy + s * b * c, b, c, a);
    }
}

int KERNEL(matmul_backward)(mr_tape *t, node *n)
{
    sink dx, dy;
    if (node_sink(t, node_in(t, n, 0), &dx) || node_sink(t, node_in(t, n, 1), &dy))
        return -1;
    matmul p = matmul_of(t, n);
    p.g = n->grad;
    p.dx = dx.grad;
    p.dy = dy.grad;
    p.add_dx = dx.add;
    p.add_dy = dy.add;
    parallel(pieces(p.count, p.each), backward_piece, &p);
    return 0;
}

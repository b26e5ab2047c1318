/* op_matmul.c - products of as many matrices as the leading dimensions have, which are equal:
 *
 *     out[.., a, c] = x[.., a, b] y[.., b, c];    dx = g y^T,  dy = x^T g
 *     or, with n->code, y is [.., c, b]:  x y^T;  dx = g y,    dy = g^T x
 *
 * Most of these matrices are small, a head of attention of a sample, and OpenBLAS would spend its time
 * on being called. Blocks of 4 by 16 elements of the result stay in registers while the sum runs;
 * a right side that lies across is turned first. Matrices with LARGE elements in every product go to
 * OpenBLAS. Each is one thread's, so no sum is cut. */
#include "kernel.h"
#include "op_pool.h"

enum { LARGE = 96 * 96 * 96, WORK = 1 << 18 /* multiplications of a piece */ };

/* out[m, n] (+)= x y over k: x[i, j] is at i x_row + j x_column. y is [k, n]. */
typedef struct product {
    const real *x, *y;
    real *out;
    size_t m, n, k, x_row, x_column;
    int add;
} product;

static INLINE void block(const product *p, size_t i, size_t j, size_t rows, size_t width)
{
    real sum[4][16] = {{0}};
    for (size_t l = 0; l < p->k; l++) {
        const real *y = p->y + l * p->n + j;
        for (size_t r = 0; r < rows; r++) {
            real x = p->x[(i + r) * p->x_row + l * p->x_column];
            for (size_t c = 0; c < width; c++)
                sum[r][c] += x * y[c];
        }
    }
    for (size_t r = 0; r < rows; r++) {
        real *out = p->out + (i + r) * p->n + j;
        for (size_t c = 0; c < width; c++)
            out[c] = p->add ? out[c] + sum[r][c] : sum[r][c];
    }
}

static INLINE void columns(const product *p, size_t j, size_t width)
{
    size_t i = 0;
    for (; i + 4 <= p->m; i += 4)
        block(p, i, j, 4, width);
    for (; i < p->m; i++)
        block(p, i, j, 1, width);
}

static void multiply(const product *p)
{
    size_t j = 0;
    for (; p->n - j >= 16; j += 16)
        columns(p, j, 16);
    for (; p->n - j >= 8; j += 8)
        columns(p, j, 8);
    for (; p->n - j >= 4; j += 4)
        columns(p, j, 4);
    for (; j < p->n; j++)
        columns(p, j, 1);
}

/* to[j, i] = from[i, j] of [rows, columns]. */
static void turn(const real *from, size_t rows, size_t columns, real *to)
{
    for (size_t j = 0; j < columns; j++)
        for (size_t i = 0; i < rows; i++)
            to[j * rows + i] = from[i * columns + j];
}

typedef struct matmul {
    const real *x, *y, *g;
    real *out, *dx, *dy;
    real *turned; /* [count, b, c]: y, or (if y is across already) NULL */
    size_t count, a, b, c, each;
    int across, large, add_dx, add_dy;
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
    size_t work = p.a * p.b * p.c;
    p.large = work >= LARGE;
    p.each = MAX(WORK / MAX(work, 1), (size_t)1);
    return p;
}

static void forward_piece(void *context, size_t piece)
{
    const matmul *p = context;
    size_t end = MIN((piece + 1) * p->each, p->count);
    for (size_t s = piece * p->each; s < end; s++) {
        const real *x = p->x + s * p->a * p->b, *y = p->y + s * p->b * p->c;
        real *out = p->out + s * p->a * p->c;
        if (p->large) {
            GEMM(CblasRowMajor, CblasNoTrans, p->across ? CblasTrans : CblasNoTrans, (int)p->a,
                 (int)p->c, (int)p->b, 1, x, (int)p->b, y, (int)(p->across ? p->b : p->c), 0, out,
                 (int)p->c);
            continue;
        }
        if (p->across) {
            turn(y, p->c, p->b, p->turned + s * p->b * p->c);
            y = p->turned + s * p->b * p->c;
        }
        multiply(&(product){x, y, out, p->a, p->c, p->b, p->b, 1, 0});
    }
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
    if (across && !p.large && !(p.turned = arena_take(tape_arena(t), sizeof(real) * y->count)))
        return -1;
    parallel(pieces(p.count, p.each), forward_piece, &p);
    return 0;
}

static void backward_piece(void *context, size_t piece)
{
    const matmul *p = context;
    size_t end = MIN((piece + 1) * p->each, p->count), a = p->a, b = p->b, c = p->c;
    for (size_t s = piece * p->each; s < end; s++) {
        const real *x = p->x + s * a * b, *y = p->y + s * b * c, *g = p->g + s * a * c;
        real *dx = p->dx ? p->dx + s * a * b : NULL, *dy = p->dy ? p->dy + s * b * c : NULL;
        if (p->large) {
            if (dx)
                GEMM(CblasRowMajor, CblasNoTrans, p->across ? CblasNoTrans : CblasTrans, (int)a,
                     (int)b, (int)c, 1, g, (int)c, y, (int)(p->across ? b : c), p->add_dx, dx,
                     (int)b);
            if (dy && p->across)
                GEMM(CblasRowMajor, CblasTrans, CblasNoTrans, (int)c, (int)b, (int)a, 1, g, (int)c,
                     x, (int)b, p->add_dy, dy, (int)b);
            else if (dy)
                GEMM(CblasRowMajor, CblasTrans, CblasNoTrans, (int)b, (int)c, (int)a, 1, x, (int)b,
                     g, (int)c, p->add_dy, dy, (int)c);
            continue;
        }
        if (dx && !p->across) {
            turn(y, b, c, p->turned + s * b * c);
            y = p->turned + s * b * c;
        }
        if (dx)
            multiply(&(product){g, y, dx, a, b, c, c, 1, p->add_dx});
        if (dy && p->across)
            multiply(&(product){g, x, dy, c, b, a, 1, c, p->add_dy});
        else if (dy)
            multiply(&(product){x, g, dy, b, c, a, 1, b, p->add_dy});
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
    if (p.dx && !p.across && !p.large) {
        p.turned = arena_take(tape_arena(t), sizeof(real) * p.count * p.b * p.c);
        if (!p.turned)
            return -1;
    }
    parallel(pieces(p.count, p.each), backward_piece, &p);
    return 0;
}

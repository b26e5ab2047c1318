/* op_cross.c - what a layer of a cross network does beside its product with the weights.
 *
 *     out = x0 z + x + b,   x0, x and out [n, d], b [d] or none;
 *     z [n, 1], the product x w of DCN, or [n, d], the product x W of DCN v2
 *
 *     dx0 = g z,  dz = g x0 (summed over d for [n, 1]),  dx = g,  db = column sums of g
 *
 * Wang et al., "Deep & Cross Network for Ad Click Predictions", ADKDD 2017, equation (3); Wang et al.,
 * "DCN V2: Improved Deep & Cross Network", WWW 2021, equation (1). The first layer's x is x0 itself:
 * the gradients go to it one after the other. */
#include "kernel/kernel.h"
#include "tensor/op_pool.h"

enum { CROSS_ROWS = 32, CROSS_COLUMNS = 64 };

typedef struct cross {
    const real *x0, *z, *x, *b;
    const real *g;
    real *out;
    real *dx0, *dz, *dx, *db;
    int add_x0, add_z, add_x, add_b;
    size_t n, d, z_wide; /* z_wide: 1 or d */
    size_t row_pieces;
} cross;

static cross cross_of(mr_tape *t, const node *n)
{
    const node *z = node_in(t, n, 1);
    return (cross){.x0 = node_in(t, n, 0)->data,
                   .z = z->data,
                   .x = node_in(t, n, 2)->data,
                   .b = n->inputs > 3 ? node_in(t, n, 3)->data : NULL,
                   .g = n->grad,
                   .out = n->data,
                   .n = (size_t)n->dim[0],
                   .d = (size_t)n->dim[1],
                   .z_wide = n->dim[0] ? z->count / (size_t)n->dim[0] : 1};
}

static void cross_rows(void *context, size_t piece)
{
    const cross *p = context;
    size_t d = p->d, end = MIN((piece + 1) * CROSS_ROWS, p->n);
    for (size_t s = piece * CROSS_ROWS; s < end; s++) {
        const real *x0 = p->x0 + s * d, *x = p->x + s * d, *z = p->z + s * p->z_wide;
        real *restrict out = p->out + s * d;
        if (p->z_wide == d)
            for (size_t i = 0; i < d; i++)
                out[i] = x0[i] * z[i] + x[i];
        else
            for (size_t i = 0; i < d; i++)
                out[i] = x0[i] * z[0] + x[i];
        if (p->b)
            for (size_t i = 0; i < d; i++)
                out[i] += p->b[i];
    }
}

int KERNEL(cross_forward)(mr_tape *t, node *n)
{
    const node *x0 = node_in(t, n, 0), *z = node_in(t, n, 1), *x = node_in(t, n, 2);
    int32_t d = x0->dim[0] ? (int32_t)(x0->count / (size_t)x0->dim[0]) : 1;
    if (x->count != x0->count || x->dim[0] != x0->dim[0])
        return fail("cross: x is %s, expected %s as of the first input", node_text(x),
                    node_text(x0));
    if (z->dim[0] != x0->dim[0] || (z->count != x0->count && z->count != (size_t)x0->dim[0]))
        return fail("cross: the product is %s, expected [%d, 1] or [%d, %d]", node_text(z),
                    (int)x0->dim[0], (int)x0->dim[0], (int)d);
    if (n->inputs > 3 && node_in(t, n, 3)->count != (size_t)d)
        return fail("cross: the bias is %s, expected [%d]", node_text(node_in(t, n, 3)), (int)d);
    if (node_shape(n, 2, (const int32_t[]){x0->dim[0], d}) || node_data(t, n))
        return -1;
    cross p = cross_of(t, n);
    parallel(pieces(p.n, CROSS_ROWS), cross_rows, &p);
    return 0;
}

static INLINE void put(real *to, size_t n, int add, const real *a, const real *b, size_t b_wide)
{
    if (b_wide == 1 && add)
        for (size_t i = 0; i < n; i++)
            to[i] += a[i] * b[0];
    else if (b_wide == 1)
        for (size_t i = 0; i < n; i++)
            to[i] = a[i] * b[0];
    else if (add)
        for (size_t i = 0; i < n; i++)
            to[i] += a[i] * b[i];
    else
        for (size_t i = 0; i < n; i++)
            to[i] = a[i] * b[i];
}

static void cross_back_rows(const cross *p, size_t piece)
{
    static const real one = 1;
    size_t d = p->d, end = MIN((piece + 1) * CROSS_ROWS, p->n);
    for (size_t s = piece * CROSS_ROWS; s < end; s++) {
        const real *g = p->g + s * d, *x0 = p->x0 + s * d;
        if (p->dx0)
            put(p->dx0 + s * d, d, p->add_x0, g, p->z + s * p->z_wide, p->z_wide);
        if (p->dx)
            put(p->dx + s * d, d, p->add_x, g, &one, 1);
        if (p->dz && p->z_wide == d) {
            put(p->dz + s * d, d, p->add_z, g, x0, d);
        } else if (p->dz) {
            real sum = 0;
#pragma omp simd reduction(+ : sum)
            for (size_t i = 0; i < d; i++)
                sum += g[i] * x0[i];
            p->dz[s] = p->add_z ? p->dz[s] + sum : sum;
        }
    }
}

static void cross_back_bias(const cross *p, size_t piece)
{
    size_t begin = piece * CROSS_COLUMNS, width = MIN((size_t)CROSS_COLUMNS, p->d - begin);
    double sum[CROSS_COLUMNS] = {0};
    for (size_t s = 0; s < p->n; s++)
        for (size_t i = 0; i < width; i++)
            sum[i] += (double)p->g[s * p->d + begin + i];
    for (size_t i = 0; i < width; i++)
        p->db[begin + i] = (real)sum[i] + (p->add_b ? p->db[begin + i] : 0);
}

static void cross_back_piece(void *context, size_t piece)
{
    const cross *p = context;
    if (piece < p->row_pieces)
        cross_back_rows(p, piece);
    else
        cross_back_bias(p, piece - p->row_pieces);
}

int KERNEL(cross_backward)(mr_tape *t, node *n)
{
    cross p = cross_of(t, n);
    sink x0, z, x, b = {NULL, 0};
    if (node_sink(t, node_in(t, n, 0), &x0) || node_sink(t, node_in(t, n, 1), &z) ||
        node_sink(t, node_in(t, n, 2), &x) || (p.b && node_sink(t, node_in(t, n, 3), &b)))
        return -1;
    p.dx0 = x0.grad;
    p.dz = z.grad;
    p.dx = x.grad;
    p.db = b.grad;
    p.add_x0 = x0.add;
    p.add_z = z.add;
    p.add_x = x.add;
    p.add_b = b.add;
    p.row_pieces = pieces(p.n, CROSS_ROWS);
    parallel(p.row_pieces + (p.db ? pieces(p.d, CROSS_COLUMNS) : 0), cross_back_piece, &p);
    return 0;
}

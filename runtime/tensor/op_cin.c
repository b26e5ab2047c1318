/* op_cin.c - a layer of a compressed interaction network on OpenBLAS: x [n, H, d], x0 [n, F, d] and weights
 * W [H F, out] -> [n, out, d].
 *
 *     out_so = sum_ij W_ij,o (x_si * x0_sj), * by elements:  out = W^T Z,  Z_ij = x_i * x0_j
 *     dZ = W g,  dx_i = sum_j dZ_ij * x0_j,  dx0_j = sum_i dZ_ij * x_i,  dW = Z g^T
 *
 * Lian et al., "xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender Systems",
 * KDD 2018, equation (6). Z has H F rows and a column for each of a sample's d coordinates. It is never
 * there as a whole: it is made for chunks of samples, in backward once more for the weights, whose
 * gradient is cut by its rows, each a sum over all chunks in their order. */
#include "kernel/kernel.h"
#include "tensor/op_pool.h"

enum {
    CIN_COLUMNS = 128, /* of Z at a time, about */
    CIN_PIECES = 16,   /* with a Z of their own */
    CIN_ROWS = 128     /* of dW in a piece, about */
};

typedef struct cin {
    const real *x, *x0, *w;
    real *out; /* [n, outs, d]; in backward, its gradient */
    real *dx, *dx0, *dw;
    int add_x, add_x0, add_w;
    size_t n, rows, fields, d, outs; /* H, F, d, out */
    size_t each, chunks;             /* samples of a chunk */
    real *z;                         /* [pieces, H F, each d], or less */
    real *g;        /* [chunks, outs, each d]: out or its gradient, chunk by chunk */
    size_t at_once; /* rows of x in a piece of dW */
} cin;

static int cin_of(mr_tape *t, const node *n, cin *p)
{
    const node *x = node_in(t, n, 0), *x0 = node_in(t, n, 1);
    *p = (cin){.x = x->data,
               .x0 = x0->data,
               .w = node_in(t, n, 2)->data,
               .n = (size_t)x->dim[0],
               .rows = (size_t)x->dim[1],
               .fields = (size_t)x0->dim[1],
               .d = (size_t)x->dim[2],
               .outs = (size_t)n->dim[1]};
    p->each = MAX(1, CIN_COLUMNS / p->d);
    p->chunks = pieces(p->n, p->each);
    p->at_once = MIN(MAX(1, CIN_ROWS / p->fields), p->rows);
    size_t columns = p->each * p->d, count = MIN((size_t)CIN_PIECES, p->chunks);
    p->z = arena_take(tape_arena(t), sizeof(real) * count * p->rows * p->fields * columns);
    p->g = arena_take(tape_arena(t), sizeof(real) * p->chunks * p->outs * columns);
    return p->z && p->g ? 0 : -1;
}

/* A chunk: samples [begin, begin + count), which are as many columns. */
typedef struct chunk {
    size_t begin, count, columns;
    real *g; /* [outs, columns] */
} chunk;

static chunk chunk_of(const cin *p, size_t number)
{
    size_t begin = number * p->each, count = MIN(p->each, p->n - begin);
    return (chunk){begin, count, count * p->d, p->g + begin * p->outs * p->d};
}

/* Makes the rows of Z of x's vectors [i0, i1). */
static void interact(const cin *p, const chunk *c, size_t i0, size_t i1, real *z)
{
    size_t d = p->d;
    for (size_t i = i0; i < i1; i++)
        for (size_t j = 0; j < p->fields; j++, z += c->columns)
            for (size_t s = 0; s < c->count; s++) {
                const real *x = p->x + ((c->begin + s) * p->rows + i) * d;
                const real *x0 = p->x0 + ((c->begin + s) * p->fields + j) * d;
#pragma omp simd
                for (size_t k = 0; k < d; k++)
                    z[s * d + k] = x[k] * x0[k];
            }
}

/* Between [n, outs, d] and a chunk's [outs, columns]. */
static void turn(const cin *p, const chunk *c, int back)
{
    for (size_t s = 0; s < c->count; s++)
        for (size_t o = 0; o < p->outs; o++) {
            real *out = p->out + ((c->begin + s) * p->outs + o) * p->d;
            real *g = c->g + o * c->columns + s * p->d;
            memcpy(back ? g : out, back ? out : g, sizeof(real) * p->d);
        }
}

static real *room_of(const cin *p, size_t piece)
{
    return p->z + piece * p->rows * p->fields * p->each * p->d;
}

static void cin_piece(void *context, size_t piece)
{
    const cin *p = context;
    real *z = room_of(p, piece);
    for (size_t i = piece; i < p->chunks; i += CIN_PIECES) {
        chunk c = chunk_of(p, i);
        int columns = (int)c.columns, outs = (int)p->outs;
        interact(p, &c, 0, p->rows, z);
        GEMM(CblasRowMajor, CblasTrans, CblasNoTrans, outs, columns, (int)(p->rows * p->fields), 1,
             p->w, outs, z, columns, 0, c.g, columns);
        turn(p, &c, 0);
    }
}

int KERNEL(cin_forward)(mr_tape *t, node *n)
{
    const node *x = node_in(t, n, 0), *x0 = node_in(t, n, 1), *w = node_in(t, n, 2);
    if (x->rank != 3 || x0->rank != 3 || x->dim[0] != x0->dim[0] || x->dim[2] != x0->dim[2])
        return fail("cin: expected vectors [n, rows, dim] and [n, fields, dim], got %s and %s",
                    node_text(x), node_text(x0));
    if (w->rank != 2 || (int64_t)x->dim[1] * x0->dim[1] != w->dim[0])
        return fail("cin: expected weights [%d * %d, out], got %s", (int)x->dim[1], (int)x0->dim[1],
                    node_text(w));
    if (node_shape(n, 3, (const int32_t[]){x->dim[0], w->dim[1], x->dim[2]}) || node_data(t, n))
        return -1;
    cin p;
    if (cin_of(t, n, &p))
        return -1;
    p.out = n->data;
    parallel(MIN((size_t)CIN_PIECES, p.chunks), cin_piece, &p);
    return 0;
}

/* to += a * b by elements, for all samples of a chunk; steps are reals from sample to sample. */
static void add_products(size_t samples, size_t d, real *to, size_t to_step, const real *a,
                         const real *b, size_t b_step)
{
    for (size_t s = 0; s < samples; s++, to += to_step, a += d, b += b_step)
#pragma omp simd
        for (size_t k = 0; k < d; k++)
            to[k] += a[k] * b[k];
}

static void cin_back_piece(void *context, size_t piece)
{
    const cin *p = context;
    real *z = room_of(p, piece);
    size_t x_step = p->rows * p->d, x0_step = p->fields * p->d;
    for (size_t i = piece; i < p->chunks; i += CIN_PIECES) {
        chunk c = chunk_of(p, i);
        int columns = (int)c.columns, outs = (int)p->outs;
        turn(p, &c, 1);
        if (!p->dx && !p->dx0)
            continue;
        GEMM(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)(p->rows * p->fields), columns, outs,
             1, p->w, outs, c.g, columns, 0, z, columns);
        if (p->dx && !p->add_x)
            memset(p->dx + c.begin * x_step, 0, sizeof(real) * c.count * x_step);
        if (p->dx0 && !p->add_x0)
            memset(p->dx0 + c.begin * x0_step, 0, sizeof(real) * c.count * x0_step);
        for (size_t h = 0; h < p->rows; h++)
            for (size_t j = 0; j < p->fields; j++) {
                const real *dz = z + (h * p->fields + j) * c.columns;
                size_t x = c.begin * x_step + h * p->d, x0 = c.begin * x0_step + j * p->d;
                if (p->dx)
                    add_products(c.count, p->d, p->dx + x, x_step, dz, p->x0 + x0, x0_step);
                if (p->dx0)
                    add_products(c.count, p->d, p->dx0 + x0, x0_step, dz, p->x + x, x_step);
            }
    }
}

static void cin_back_weights(void *context, size_t piece)
{
    const cin *p = context;
    size_t begin = piece * p->at_once, end = MIN(begin + p->at_once, p->rows);
    real *z = p->z + begin * p->fields * p->each * p->d;
    for (size_t i = 0; i < p->chunks; i++) {
        chunk c = chunk_of(p, i);
        int columns = (int)c.columns, outs = (int)p->outs;
        interact(p, &c, begin, end, z);
        GEMM(CblasRowMajor, CblasNoTrans, CblasTrans, (int)((end - begin) * p->fields), outs,
             columns, 1, z, columns, c.g, columns, i > 0 || p->add_w,
             p->dw + begin * p->fields * p->outs, outs);
    }
}

int KERNEL(cin_backward)(mr_tape *t, node *n)
{
    cin p;
    sink x, x0, w;
    if (cin_of(t, n, &p) || node_sink(t, node_in(t, n, 0), &x) ||
        node_sink(t, node_in(t, n, 1), &x0) || node_sink(t, node_in(t, n, 2), &w))
        return -1;
    p.out = n->grad;
    p.dx = x.grad;
    p.dx0 = x0.grad;
    p.dw = w.grad;
    p.add_x = x.add;
    p.add_x0 = x0.add;
    p.add_w = w.add;
    parallel(MIN((size_t)CIN_PIECES, p.chunks), cin_back_piece, &p);
    if (p.dw)
        parallel(pieces(p.rows, p.at_once), cin_back_weights, &p);
    return 0;
}

/* op_linear.c - act(x W + b) on OpenBLAS: [n, out], n the samples of x, or (n->a: of a matmul) the
 * rows along its last axis, whose shape is kept.
 *
 *     z = x W + b,  y = act(z);  dz = dy act'(z), from y;
 *     dx = dz W^T,  dW = x^T dz,  db = column sums of dz
 *
 * Work is cut by rows of the result, whatever the number of threads: dW by its own rows, each a sum over
 * all samples, so that no partial sums are added. Large pieces pack less, small ones at the end let the
 * threads end together; so from 1024 samples on, each 512 are cut into 256, 128, 64 and 64. The gradient of z
 * overwrites that of y. A result of one column is a dot product a row; a matrix product that narrow would
 * spend its time packing. */
#include "kernel/kernel.h"
#include "kernel/kernel_math.h"
#include "tensor/op_pool.h"

enum { ROWS = 128, BLOCK = 512, CUTS = 4, COLUMNS = 64 };

typedef struct linear {
    const real *x, *w, *b;
    real *y;  /* [n, out] */
    real *dz; /* [n, out] */
    real *dx, *dw, *db;
    int add_dx, add_dw, add_db;
    size_t n, in, out;
    size_t dw_pieces, dx_pieces;
    int act;
} linear;

/* Where the i-th piece of n samples begins; n if there is none. */
static size_t cut(size_t n, size_t i)
{
    static const uint16_t within[CUTS] = {0, BLOCK / 2, 3 * BLOCK / 4, 7 * BLOCK / 8};
    size_t at = n < 2 * BLOCK ? i * ROWS : i / CUTS * BLOCK + within[i % CUTS];
    return MIN(at, n);
}

static size_t cuts(size_t n)
{
    size_t count = n < 2 * BLOCK ? n / ROWS : n / BLOCK * CUTS;
    while (cut(n, count) < n)
        count++;
    return count;
}

static linear linear_of(mr_tape *t, const node *n)
{
    const node *x = node_in(t, n, 0), *w = node_in(t, n, 1);
    return (linear){.x = x->data,
                    .w = w->data,
                    .b = n->inputs > 2 ? node_in(t, n, 2)->data : NULL,
                    .y = n->data,
                    .dz = n->grad,
                    .n = n->count / (size_t)MAX(w->dim[1], 1),
                    .in = (size_t)w->dim[0],
                    .out = (size_t)w->dim[1],
                    .act = n->code};
}

static void activate(int act, size_t n, real *y)
{
    switch (act) {
    case LINEAR_RELU:
        for (size_t i = 0; i < n; i++)
            y[i] = y[i] > 0 ? y[i] : 0;
        break;
    case LINEAR_SIGMOID:
        for (size_t i = 0; i < n; i++)
            y[i] = real_sigmoid(y[i]);
        break;
    case LINEAR_TANH:
        for (size_t i = 0; i < n; i++)
            y[i] = real_tanh(y[i]);
        break;
    }
}

/* A function of its own: inlined, compilers forgot that the sum may be in any order. */
static __attribute__((noinline)) real dot(const real *a, const real *b, size_t n)
{
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void forward_rows(void *context, size_t piece)
{
    const linear *p = context;
    size_t begin = cut(p->n, piece), rows = cut(p->n, piece + 1) - begin;
    const real *x = p->x + begin * p->in;
    real *y = p->y + begin * p->out;
    if (p->out == 1) {
        for (size_t s = 0; s < rows; s++)
            y[s] = dot(x + s * p->in, p->w, p->in) + (p->b ? p->b[0] : 0);
    } else {
        if (p->b)
            for (size_t s = 0; s < rows; s++)
                memcpy(y + s * p->out, p->b, sizeof(real) * p->out);
        GEMM(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)p->out, (int)p->in, 1, x,
             (int)p->in, p->w, (int)p->out, p->b != NULL, y, (int)p->out);
    }
    activate(p->act, rows * p->out, y);
}

int KERNEL(linear_forward)(mr_tape *t, node *n)
{
    const node *x = node_in(t, n, 0), *w = node_in(t, n, 1);
    if (w->rank != 2)
        return fail("linear: expected weights [in, out], got %s", node_text(w));
    size_t in = x->dim[0] ? x->count / (size_t)x->dim[0] : (size_t)w->dim[0];
    int32_t dim[RANK_MAX] = {x->dim[0], w->dim[1]};
    int rank = 2;
    if (n->a) {
        rank = x->rank;
        memcpy(dim, x->dim, sizeof dim);
        in = (size_t)dim[rank - 1];
        dim[rank - 1] = w->dim[1];
    }
    if (x->rank < 2 || in != (size_t)w->dim[0])
        return fail(n->a ? "matmul: weights %s expect rows of %d, got %s"
                         : "linear: weights %s expect an input of %d a sample, got %s",
                    node_text(w), (int)w->dim[0], node_text(x));
    if (n->inputs > 2 && node_in(t, n, 2)->count != (size_t)w->dim[1])
        return fail("linear: weights %s expect a bias of %d, got %s", node_text(w), (int)w->dim[1],
                    node_text(node_in(t, n, 2)));
    if (node_shape(n, rank, dim) || node_data(t, n))
        return -1;
    linear p = linear_of(t, n);
    parallel(cuts(p.n), forward_rows, &p);
    return 0;
}

static void activate_back(void *context, size_t piece)
{
    const linear *p = context;
    size_t begin = cut(p->n, piece), rows = cut(p->n, piece + 1) - begin, count = rows * p->out;
    const real *y = p->y + begin * p->out;
    real *g = p->dz + begin * p->out;
    switch (p->act) {
    case LINEAR_RELU:
        for (size_t i = 0; i < count; i++)
            g[i] = y[i] > 0 ? g[i] : 0;
        break;
    case LINEAR_SIGMOID:
        for (size_t i = 0; i < count; i++)
            g[i] *= y[i] * (1 - y[i]);
        break;
    case LINEAR_TANH:
        for (size_t i = 0; i < count; i++)
            g[i] *= 1 - y[i] * y[i];
        break;
    }
}

/* Rows of dW: dW[i, :] = sum_s x[s, i] dz[s, :]. */
static void weights_back(const linear *p, size_t piece)
{
    size_t begin = piece * ROWS, rows = MIN((size_t)ROWS, p->in - begin);
    if (p->out == 1) {
        real *dw = p->dw + begin;
        if (!p->add_dw)
            memset(dw, 0, sizeof(real) * rows);
        for (size_t s = 0; s < p->n; s++) {
            real g = p->dz[s];
            const real *x = p->x + s * p->in + begin;
            for (size_t i = 0; i < rows; i++)
                dw[i] += g * x[i];
        }
        return;
    }
    GEMM(CblasRowMajor, CblasTrans, CblasNoTrans, (int)rows, (int)p->out, (int)p->n, 1,
         p->x + begin, (int)p->in, p->dz, (int)p->out, p->add_dw, p->dw + begin * p->out,
         (int)p->out);
}

static void input_back(const linear *p, size_t piece)
{
    size_t begin = cut(p->n, piece), rows = cut(p->n, piece + 1) - begin;
    const real *dz = p->dz + begin * p->out;
    real *dx = p->dx + begin * p->in;
    if (p->out == 1) {
        for (size_t s = 0; s < rows; s++)
            if (p->add_dx)
                for (size_t i = 0; i < p->in; i++)
                    dx[s * p->in + i] += dz[s] * p->w[i];
            else
                for (size_t i = 0; i < p->in; i++)
                    dx[s * p->in + i] = dz[s] * p->w[i];
        return;
    }
    GEMM(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)p->in, (int)p->out, 1, dz,
         (int)p->out, p->w, (int)p->out, p->add_dx, dx, (int)p->in);
}

static void bias_back(const linear *p, size_t piece)
{
    size_t begin = piece * COLUMNS, width = MIN((size_t)COLUMNS, p->out - begin);
    double sum[COLUMNS] = {0};
    for (size_t s = 0; s < p->n; s++)
        for (size_t j = 0; j < width; j++)
            sum[j] += (double)p->dz[s * p->out + begin + j];
    for (size_t j = 0; j < width; j++)
        p->db[begin + j] = (real)sum[j] + (p->add_db ? p->db[begin + j] : 0);
}

static void backward_piece(void *context, size_t piece)
{
    const linear *p = context;
    if (piece < p->dw_pieces)
        weights_back(p, piece);
    else if (piece - p->dw_pieces < p->dx_pieces)
        input_back(p, piece - p->dw_pieces);
    else
        bias_back(p, piece - p->dw_pieces - p->dx_pieces);
}

int KERNEL(linear_backward)(mr_tape *t, node *n)
{
    linear p = linear_of(t, n);
    if (p.act != LINEAR_NONE)
        parallel(cuts(p.n), activate_back, &p);
    sink dx, dw, db = {NULL, 0};
    if (node_sink(t, node_in(t, n, 0), &dx) || node_sink(t, node_in(t, n, 1), &dw))
        return -1;
    if (p.b && node_sink(t, node_in(t, n, 2), &db))
        return -1;
    p.dx = dx.grad;
    p.dw = dw.grad;
    p.db = db.grad;
    p.add_dx = dx.add;
    p.add_dw = dw.add;
    p.add_db = db.add;
    p.dw_pieces = p.dw ? pieces(p.in, ROWS) : 0;
    p.dx_pieces = p.dx ? cuts(p.n) : 0;
    size_t db_pieces = p.db ? pieces(p.out, COLUMNS) : 0;
    parallel(p.dw_pieces + p.dx_pieces + db_pieces, backward_piece, &p);
    return 0;
}

/* op_inner.c - inner products of a sample's vectors: all pairs of x [n, F, k], or each of x with each of
 * y [n, H, k].
 *
 *     out_s,ij = <x_si, x_sj>,  i < j, in the order 12, 13, ..., 1F, 23, ...: [n, F (F - 1) / 2]
 *     dx_si    = sum_{j != i} g_s,ij x_sj
 *
 *     out_s,ij = <x_si, y_sj>: [n, F H];  dx_si = sum_j g_s,ij y_sj,  dy_sj = sum_i g_s,ij x_si
 *
 * Qu et al., "Product-based Neural Networks for User Response Prediction", ICDM 2016, 3.1. The vectors of a
 * sample are turned over, so that one of them meets 16 others, a register each; backward is a product with
 * the pairs' gradients as a matrix, symmetric for x alone. */
#include "kernel/kernel.h"
#include "tensor/op_pool.h"

enum { INNER_SAMPLES = 32, WIDTH = 16, ROWS = 4 };

typedef struct inner {
    const real *x; /* [n, fields, k] */
    const real *y; /* [n, others, k]; x, too, for its own pairs */
    const real *g; /* [n, pairs] */
    real *out;     /* [n, pairs] */
    real *dx, *dy; /* as x and y; dy is NULL for x's own pairs */
    int add_x, add_y;
    real *room; /* [pieces, room_size] */
    size_t room_size;
    size_t n, fields, others, k, pairs;
    int own; /* x's own pairs */
} inner;

static inner inner_of(mr_tape *t, const node *n)
{
    const node *x = node_in(t, n, 0), *y = node_in(t, n, n->inputs - 1);
    return (inner){.x = x->data,
                   .y = y->data,
                   .g = n->grad,
                   .out = n->data,
                   .n = (size_t)x->dim[0],
                   .fields = (size_t)x->dim[1],
                   .others = (size_t)y->dim[1],
                   .k = (size_t)x->dim[2],
                   .pairs = (size_t)n->dim[1],
                   .own = n->inputs == 1};
}

/* Runs task over the samples, with so many reals of room for each piece. */
static int inner_run(mr_tape *t, inner *p, task *run, size_t room)
{
    size_t count = pieces(p->n, INNER_SAMPLES);
    p->room_size = (room + WIDTH - 1) / WIDTH * WIDTH;
    p->room = arena_take(tape_arena(t), sizeof(real) * count * p->room_size);
    if (!p->room)
        return -1;
    parallel(count, run, p);
    return 0;
}

/* turned [k, stride], with room to read WIDTH from any vector on. */
static size_t stride_of(const inner *p)
{
    return (p->others + WIDTH - 1) / WIDTH * WIDTH + WIDTH;
}

static void inner_samples(void *context, size_t piece)
{
    const inner *p = context;
    size_t F = p->fields, H = p->others, K = p->k, stride = stride_of(p);
    size_t end = MIN((piece + 1) * INNER_SAMPLES, p->n);
    real *turned = p->room + piece * p->room_size, *products = turned + K * stride;
    memset(turned, 0, sizeof(real) * K * stride);
    for (size_t s = piece * INNER_SAMPLES; s < end; s++) {
        const real *x = p->x + s * F * K, *y = p->y + s * H * K;
        for (size_t f = 0; f < H; f++)
            for (size_t k = 0; k < K; k++)
                turned[k * stride + f] = y[f * K + k];
        real *to = products;
        for (size_t i = 0; i < F; i++)
            for (size_t j = p->own ? i + 1 : 0; j < H; j += WIDTH) {
                real sum[WIDTH] = {0};
                for (size_t k = 0; k < K; k++)
#pragma omp simd
                    for (size_t q = 0; q < WIDTH; q++)
                        sum[q] += x[i * K + k] * turned[k * stride + j + q];
                memcpy(to, sum, sizeof sum); /* what is too much is written over */
                to += MIN((size_t)WIDTH, H - j);
            }
        memcpy(p->out + s * p->pairs, products, sizeof(real) * p->pairs);
    }
}

int KERNEL(inner_forward)(mr_tape *t, node *n)
{
    const node *x = node_in(t, n, 0), *y = node_in(t, n, n->inputs - 1);
    if (x->rank != 3 || (n->inputs == 1 && x->dim[1] < 2))
        return fail(
            "inner_products: expected vectors [n, fields, dim] of two fields or more, got %s",
            node_text(x));
    if (y->rank != 3 || y->dim[0] != x->dim[0] || y->dim[2] != x->dim[2])
        return fail("inner_products: vectors %s do not fit %s", node_text(y), node_text(x));
    int64_t F = x->dim[1], pairs = n->inputs == 1 ? F * (F - 1) / 2 : F * y->dim[1];
    if (pairs > INT32_MAX)
        return fail("inner_products: %s has too many pairs", node_text(x));
    if (node_shape(n, 2, (const int32_t[]){x->dim[0], (int32_t)pairs}) || node_data(t, n))
        return -1;
    inner p = inner_of(t, n);
    return inner_run(t, &p, inner_samples, p.k * stride_of(&p) + p.pairs + WIDTH);
}

/* to_i += sum_j g_ij v_j, over a block of the vectors. */
typedef struct product {
    const real *g, *v;
    real *to;
    size_t vectors;        /* j */
    size_t i_step, j_step; /* of g */
    size_t k;
    int add;
} product;

/* Of `rows` of them, up to ROWS, so that one sum need not wait for the last. */
static INLINE void product_block(const product *p, size_t i, uint32_t k0, uint32_t width, int rows)
{
    real sum[ROWS][POOL_BLOCK] = {{0}};
    for (size_t j = 0; j < p->vectors; j++) {
        const real *v = p->v + j * p->k + k0, *g = p->g + i * p->i_step + j * p->j_step;
        for (int r = 0; r < rows; r++)
#pragma omp simd
            for (size_t q = 0; q < width; q++)
                sum[r][q] += g[(size_t)r * p->i_step] * v[q];
    }
    for (int r = 0; r < rows; r++) {
        real *to = p->to + (i + (size_t)r) * p->k + k0;
        for (size_t q = 0; q < width; q++)
            to[q] = p->add ? to[q] + sum[r][q] : sum[r][q];
    }
}

static void product_rows(product p, size_t rows)
{
    size_t i = 0;
    for (; i + ROWS <= rows; i += ROWS)
        POOL_WIDTHS((uint32_t)p.k, product_block, &p, i, k0, ROWS);
    for (; i < rows; i++)
        POOL_WIDTHS((uint32_t)p.k, product_block, &p, i, k0, 1);
}

static void inner_back_samples(void *context, size_t piece)
{
    const inner *p = context;
    size_t F = p->fields, H = p->others, K = p->k, end = MIN((piece + 1) * INNER_SAMPLES, p->n);
    real *both = p->room + piece * p->room_size;
    for (size_t f = 0; p->own && f < F; f++)
        both[f * F + f] = 0;
    for (size_t s = piece * INNER_SAMPLES; s < end; s++) {
        const real *g = p->g + s * p->pairs;
        size_t x = s * F * K, y = s * H * K;
        if (p->own) {
            for (size_t i = 0; i < F; i++)
                for (size_t j = i + 1; j < F; j++)
                    both[i * F + j] = both[j * F + i] = *g++;
            g = both;
        }
        if (p->dx)
            product_rows((product){g, p->y + y, p->dx + x, H, H, 1, K, p->add_x}, F);
        if (p->dy)
            product_rows((product){g, p->x + x, p->dy + y, F, 1, H, K, p->add_y}, H);
    }
}

int KERNEL(inner_backward)(mr_tape *t, node *n)
{
    inner p = inner_of(t, n);
    sink x, y = {NULL, 0};
    if (node_sink(t, node_in(t, n, 0), &x) || (!p.own && node_sink(t, node_in(t, n, 1), &y)))
        return -1;
    p.dx = x.grad;
    p.add_x = x.add;
    p.dy = y.grad;
    p.add_y = y.add;
    return inner_run(t, &p, inner_back_samples, p.own ? p.fields * p.fields : 0);
}

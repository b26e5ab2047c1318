/* op_fm.c - the pairwise products of a sample's vectors, fused: from rows in place. As a vector they
 * are the bi-interaction of a neural FM, [n, dim]; summed, an FM's second-order term, [n, 1].
 *
 *     bi_sk = sum_e x_e v_ek B_ek,  B_ek = the sum of x_i v_ik over the entries i before e
 *     fm_s  = sum_k bi_sk
 *     dv_uk = sum over its occurrences e of g_sk x_e (S_sk - x_e v_uk),  S_sk = sum_e x_e v_ek
 *
 * where g_sk is g_s for the FM. This is lemma 3.1 of Rendle, "Factorization Machines", ICDM 2010, 1/2 (S^2 -
 * sum_e (x_e v_e)^2), without its difference: beside one large value that would leave nothing of the others'
 * pairs. B and S are sums in double, where the product of two floats is exact, so that S - x v has the
 * digits of a float while values lie within nine orders of magnitude. S is kept, [n, dim], so that backward
 * touches a sample's sums and the row itself, and no other row. He and Chua, "Neural Factorization
 * Machines for Sparse Predictive Analytics", SIGIR 2017, equation (4). Cut as in op_pool.c. */
#include "kernel/kernel.h"
#include "tensor/op_pool.h"

typedef struct fm {
    const lookup *l;
    const uint32_t *offsets;
    const float *values;
    const real *g; /* the gradient of out */
    real *out;     /* [n], or [n, dim] of the bi-interaction */
    double *sums;  /* S [n, dim], or NULL in evaluation */
    real *grad;    /* of the lookup, at the column */
    int add;       /* to what stands there */
    uint32_t offset, dim, width;
    int vector;    /* the bi-interaction */
    double *total; /* of the sample under way, over k */
} fm;

static fm fm_of(const node *n)
{
    const lookup *l = n->lookup;
    return (fm){.l = l,
                .offsets = l->batch->offsets,
                .values = l->batch->values,
                .g = n->grad,
                .out = n->data,
                .sums = n->saved,
                .offset = n->column->offset,
                .dim = n->column->dim,
                .width = l->grad_width,
                .vector = n->op == OP_POOL_BI};
}

static INLINE void fm_block(const fm *p, size_t s, uint32_t k0, uint32_t width, int valued)
{
    double sum[POOL_BLOCK] = {0}, pair[POOL_BLOCK] = {0};
    const uint32_t *at = p->l->at;
    uint32_t end = p->offsets[s + 1], last = p->offsets[p->l->batch->n] - 1;
    for (uint32_t e = p->offsets[s]; e < end; e++) {
        __builtin_prefetch((const real *)p->l->row[at[MIN(e + POOL_AHEAD, last)]] + p->offset + k0);
        const real *v = (const real *)p->l->row[at[e]] + p->offset + k0;
        double x = valued ? (double)p->values[e] : 1;
        for (uint32_t k = 0; k < width; k++) {
            double xv = x * (double)v[k];
            pair[k] += xv * sum[k];
            sum[k] += xv;
        }
    }
    if (p->vector) {
        for (uint32_t k = 0; k < width; k++)
            p->out[s * p->dim + k0 + k] = (real)pair[k];
    } else {
        double all = 0;
        for (uint32_t k = 0; k < width; k++)
            all += pair[k];
        *p->total += all;
    }
    if (p->sums)
        for (uint32_t k = 0; k < width; k++)
            p->sums[s * p->dim + k0 + k] = sum[k];
}

static void fm_samples(void *context, size_t piece)
{
    fm own = *(const fm *)context, *p = &own;
    double total;
    p->total = &total;
    size_t end = MIN((piece + 1) * POOL_SAMPLES, (size_t)p->l->batch->n);
    for (size_t s = piece * POOL_SAMPLES; s < end; s++) {
        total = 0;
        POOL_BLOCKS(p->dim, fm_block, p, s, k0, p->values != NULL);
        if (!p->vector)
            p->out[s] = (real)total;
    }
}

int KERNEL(pool_fm_forward)(mr_tape *t, node *n)
{
    const mr_batch *b = n->lookup->batch;
    int32_t width = n->op == OP_POOL_BI ? (int32_t)n->column->dim : 1;
    if (node_shape(n, 2, (const int32_t[]){b->n, width}) || node_data(t, n))
        return -1;
    if (tape_training(t)) {
        n->saved = arena_take(tape_arena(t), sizeof(double) * (size_t)b->n * n->column->dim);
        if (!n->saved)
            return -1;
    }
    fm p = fm_of(n);
    parallel(pieces((size_t)b->n, POOL_SAMPLES), fm_samples, &p);
    return 0;
}

static INLINE void fm_keep(const fm *p, size_t u, uint32_t k0, uint32_t width, const double *sum)
{
    real *grad = p->grad + u * p->width + k0;
    if (p->add)
        for (uint32_t k = 0; k < width; k++)
            grad[k] += (real)sum[k];
    else
        for (uint32_t k = 0; k < width; k++)
            grad[k] = (real)sum[k];
}

static INLINE void fm_back_block(const fm *p, size_t u, uint32_t k0, uint32_t width, int valued)
{
    double sum[POOL_BLOCK] = {0}, v[POOL_BLOCK];
    const real *row = (const real *)p->l->row[u] + p->offset + k0;
    for (uint32_t k = 0; k < width; k++)
        v[k] = (double)row[k];
    const occurrence *o = p->l->occurrence;
    for (uint32_t i = p->l->start[u]; i < p->l->start[u + 1]; i++) {
        const double *sums = p->sums + (size_t)o[i].sample * p->dim + k0;
        double x = valued ? (double)p->values[o[i].entry] : 1;
        double gx = (double)p->g[o[i].sample] * x;
        for (uint32_t k = 0; k < width; k++)
            sum[k] += gx * (sums[k] - x * v[k]);
    }
    fm_keep(p, u, k0, width, sum);
}

static INLINE void bi_back_block(const fm *p, size_t u, uint32_t k0, uint32_t width, int valued)
{
    double sum[POOL_BLOCK] = {0}, v[POOL_BLOCK];
    const real *row = (const real *)p->l->row[u] + p->offset + k0;
    for (uint32_t k = 0; k < width; k++)
        v[k] = (double)row[k];
    const occurrence *o = p->l->occurrence;
    for (uint32_t i = p->l->start[u]; i < p->l->start[u + 1]; i++) {
        size_t at = (size_t)o[i].sample * p->dim + k0;
        const double *sums = p->sums + at;
        const real *g = p->g + at;
        double x = valued ? (double)p->values[o[i].entry] : 1;
        for (uint32_t k = 0; k < width; k++)
            sum[k] += (double)g[k] * x * (sums[k] - x * v[k]);
    }
    fm_keep(p, u, k0, width, sum);
}

static void fm_back_uniques(void *context, size_t piece)
{
    const fm *p = context;
    uint32_t last = p->l->unique - 1;
    size_t end = MIN((piece + 1) * POOL_UNIQUES, (size_t)p->l->unique);
    for (size_t u = piece * POOL_UNIQUES; u < end; u++) {
        const real *ahead = p->l->row[MIN(u + POOL_AHEAD, last)];
        for (uint32_t k = 0; k < p->dim; k += POOL_BLOCK)
            __builtin_prefetch(ahead + p->offset + k);
        if (p->vector)
            POOL_BLOCKS(p->dim, bi_back_block, p, u, k0, p->values != NULL);
        else
            POOL_BLOCKS(p->dim, fm_back_block, p, u, k0, p->values != NULL);
    }
}

int KERNEL(pool_fm_backward)(mr_tape *t, node *n)
{
    fm p = fm_of(n);
    p.grad = lookup_grad(t, n, &p.add);
    if (!p.grad)
        return -1;
    parallel(pieces(n->lookup->unique, POOL_UNIQUES), fm_back_uniques, &p);
    return 0;
}

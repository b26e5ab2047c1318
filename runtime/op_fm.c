/* op_fm.c - the pairwise products of a sample's vectors, fused: from rows in place. As a vector they
 * are the bi-interaction of a neural FM, [n, dim]; summed, an FM's second-order term, [n, 1].
 *
 *     bi_sk = 1/2 (S_sk^2 - sum_e (x_e v_ek)^2),  S_sk = sum_e x_e v_ek,   fm_s = sum_k bi_sk
 *     dv_uk = sum over its occurrences of x_e g_sk S_sk  -  (the sum of x_e^2 g_sk) v_uk
 *
 * where g_sk is g_s for the FM. S is kept, [n, dim], so that backward touches a sample's sums and the
 * row itself, and no other row. Rendle, "Factorization Machines", ICDM 2010, lemma 3.1; He and Chua,
 * "Neural Factorization Machines for Sparse Predictive Analytics", SIGIR 2017, equation (4). Cut as
 * in op_pool.c. */
#include "kernel.h"
#include "op_pool.h"

typedef struct fm {
    const lookup *l;
    const uint32_t *offsets;
    const float *values;
    const real *g; /* the gradient of out */
    real *out;     /* [n], or [n, dim] of the bi-interaction */
    real *sums;    /* S [n, dim], or NULL in evaluation */
    real *grad;    /* of the lookup, at the column */
    int add;       /* to what stands there */
    uint32_t offset, dim, width;
    int vector; /* the bi-interaction */
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
    real sum[POOL_BLOCK] = {0}, square[POOL_BLOCK] = {0};
    const uint32_t *at = p->l->at;
    uint32_t end = p->offsets[s + 1], last = p->offsets[p->l->batch->n] - 1;
    for (uint32_t e = p->offsets[s]; e < end; e++) {
        __builtin_prefetch((const real *)p->l->row[at[MIN(e + POOL_AHEAD, last)]] + p->offset + k0);
        const real *v = (const real *)p->l->row[at[e]] + p->offset + k0;
        real x = valued ? (real)p->values[e] : 1;
        for (uint32_t k = 0; k < width; k++) {
            real xv = x * v[k];
            sum[k] += xv;
            square[k] += xv * xv;
        }
    }
    if (p->vector) {
        for (uint32_t k = 0; k < width; k++)
            p->out[s * p->dim + k0 + k] = (real)0.5 * (sum[k] * sum[k] - square[k]);
    } else {
        real pair = 0;
        for (uint32_t k = 0; k < width; k++)
            pair += sum[k] * sum[k] - square[k];
        p->out[s] = (k0 ? p->out[s] : 0) + (real)0.5 * pair;
    }
    if (p->sums)
        for (uint32_t k = 0; k < width; k++)
            p->sums[s * p->dim + k0 + k] = sum[k];
}

static void fm_samples(void *context, size_t piece)
{
    const fm *p = context;
    size_t end = MIN((piece + 1) * POOL_SAMPLES, (size_t)p->l->batch->n);
    for (size_t s = piece * POOL_SAMPLES; s < end; s++)
        POOL_BLOCKS(p->dim, fm_block, p, s, k0, p->values != NULL);
}

int KERNEL(pool_fm_forward)(mr_tape *t, node *n)
{
    const mr_batch *b = n->lookup->batch;
    int32_t width = n->op == OP_POOL_BI ? (int32_t)n->column->dim : 1;
    if (node_shape(n, 2, (const int32_t[]){b->n, width}) || node_data(t, n))
        return -1;
    if (tape_training(t)) {
        n->saved = arena_take(tape_arena(t), sizeof(real) * (size_t)b->n * n->column->dim);
        if (!n->saved)
            return -1;
    }
    fm p = fm_of(n);
    parallel(pieces((size_t)b->n, POOL_SAMPLES), fm_samples, &p);
    return 0;
}

static INLINE void fm_keep(const fm *p, size_t u, uint32_t k0, uint32_t width, const real *sum,
                           const real *own, uint32_t own_step)
{
    const real *v = (const real *)p->l->row[u] + p->offset + k0;
    real *grad = p->grad + u * p->width + k0;
    if (p->add)
        for (uint32_t k = 0; k < width; k++)
            grad[k] += sum[k] - own[k * own_step] * v[k];
    else
        for (uint32_t k = 0; k < width; k++)
            grad[k] = sum[k] - own[k * own_step] * v[k];
}

static INLINE void fm_back_block(const fm *p, size_t u, uint32_t k0, uint32_t width, int valued)
{
    real sum[POOL_BLOCK] = {0}, own = 0;
    const occurrence *o = p->l->occurrence;
    for (uint32_t i = p->l->start[u]; i < p->l->start[u + 1]; i++) {
        const real *sums = p->sums + (size_t)o[i].sample * p->dim + k0;
        real x = valued ? (real)p->values[o[i].entry] : 1;
        real gx = p->g[o[i].sample] * x;
        own += gx * x;
        for (uint32_t k = 0; k < width; k++)
            sum[k] += gx * sums[k];
    }
    fm_keep(p, u, k0, width, sum, &own, 0);
}

static INLINE void bi_back_block(const fm *p, size_t u, uint32_t k0, uint32_t width, int valued)
{
    real sum[POOL_BLOCK] = {0}, own[POOL_BLOCK] = {0};
    const occurrence *o = p->l->occurrence;
    for (uint32_t i = p->l->start[u]; i < p->l->start[u + 1]; i++) {
        size_t at = (size_t)o[i].sample * p->dim + k0;
        const real *sums = p->sums + at, *g = p->g + at;
        real x = valued ? (real)p->values[o[i].entry] : 1;
        for (uint32_t k = 0; k < width; k++) {
            real gx = g[k] * x;
            own[k] += gx * x;
            sum[k] += gx * sums[k];
        }
    }
    fm_keep(p, u, k0, width, sum, own, 1);
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

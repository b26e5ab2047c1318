/* op_pool.c - sums and means of rows over the entries of a sample, and by field.
 *
 * Forward goes by samples: entry e of sample s reads row[at[e]] in place. Backward goes by
 * uniques: a row's gradient is the sum over its occurrences in the order of the samples, written
 * by one thread, so that nothing is atomic and the bits do not depend on the threads.
 *
 * Sums over entries with values are in double, where the product of two floats is exact: values of any sizes
 * may stand side by side, and cancel.
 *
 * Wide columns are worked through in blocks of 16 floats, which stay in registers; the block's
 * width is a constant in the inlined loops for 16, 8, 4 and 1. */
#include <tgmath.h>

#include "kernel/kernel.h"
#include "tensor/op_pool.h"

/* ---- sums and means: out[s, :] = scale_s sum_e x_e v_e; scale is 1 for sum, 1 / entries of s for
 * mean, 1 / sqrt(sum_e x_e^2) for sqrtn, 1 / sum_e x_e for the weighted mean, and 0 where that would
 * be 1 / 0 ---- */

typedef struct pooling {
    const lookup *l;
    const uint32_t *offsets;
    const float *values;
    const real *scale; /* [n], or by field [n, fields], or NULL: 1 */
    const real *rows;  /* [unique], gathered, when dim is 1 */
    real *out;         /* [n, dim]; in backward, its gradient */
    real *grad;        /* of the lookup, at the column */
    int add;           /* to what stands there */
    uint32_t offset, dim, width;
} pooling;

static pooling pooling_of(const node *n, real *out)
{
    const lookup *l = n->lookup;
    return (pooling){.l = l,
                     .offsets = l->batch->offsets,
                     .values = l->batch->values,
                     .scale = n->saved,
                     .out = out,
                     .offset = n->column->offset,
                     .dim = n->column->dim,
                     .width = l->grad_width};
}

typedef struct scaling {
    const mr_batch *b;
    real *scale;
    int how, by_field; /* mr_pool */
} scaling;

static void scale_samples(void *context, size_t piece)
{
    const scaling *p = context;
    const mr_batch *b = p->b;
    size_t end = MIN((piece + 1) * POOL_SAMPLES, (size_t)b->n);
    size_t rows = p->by_field ? (size_t)b->fields : 1;
    for (size_t s = piece * POOL_SAMPLES; s < end; s++) {
        real *scale = p->scale + s * rows;
        double all = 0;
        for (size_t r = 0; r < rows; r++)
            scale[r] = 0;
        for (uint32_t e = b->offsets[s]; e < b->offsets[s + 1]; e++) {
            double x = b->values && p->how != MR_POOL_MEAN ? (double)b->values[e] : 1;
            x = p->how == MR_POOL_SQRTN ? x * x : x;
            if (p->by_field)
                scale[pool_field(b, s, e)] += (real)x;
            all += x;
        }
        if (!p->by_field)
            scale[0] = (real)all;
        for (size_t r = 0; r < rows; r++) {
            real root = p->how == MR_POOL_SQRTN ? sqrt(scale[r]) : scale[r];
            scale[r] = root == 0 ? 0 : 1 / root;
        }
    }
}

/* The scales of n->code, in n->saved, for pooling_of(). */
static int pool_scale(mr_tape *t, node *n, int by_field)
{
    const mr_batch *b = n->lookup->batch;
    if (n->code == MR_POOL_SUM)
        return 0;
    size_t rows = by_field ? (size_t)b->fields : 1;
    n->saved = arena_take(tape_arena(t), sizeof(real) * (size_t)b->n * rows);
    if (!n->saved)
        return -1;
    scaling p = {.b = b, .scale = n->saved, .how = n->code, .by_field = by_field};
    parallel(pieces((size_t)b->n, POOL_SAMPLES), scale_samples, &p);
    return 0;
}

static INLINE void sum_block(const pooling *p, size_t s, uint32_t k0, uint32_t width, int valued)
{
    double sum[POOL_BLOCK] = {0};
    const uint32_t *at = p->l->at;
    uint32_t end = p->offsets[s + 1], last = p->offsets[p->l->batch->n] - 1;
    for (uint32_t e = p->offsets[s]; e < end; e++) {
        __builtin_prefetch((const real *)p->l->row[at[MIN(e + POOL_AHEAD, last)]] + p->offset + k0);
        const real *v = (const real *)p->l->row[at[e]] + p->offset + k0;
        double x = valued ? (double)p->values[e] : 1;
        for (uint32_t k = 0; k < width; k++)
            sum[k] += x * (double)v[k];
    }
    double scale = p->scale ? (double)p->scale[s] : 1;
    for (uint32_t k = 0; k < width; k++)
        p->out[s * p->dim + k0 + k] = (real)(scale * sum[k]);
}

static void sum_samples(void *context, size_t piece)
{
    const pooling *p = context;
    size_t end = MIN((piece + 1) * POOL_SAMPLES, (size_t)p->l->batch->n);
    for (size_t s = piece * POOL_SAMPLES; s < end; s++)
        POOL_BLOCKS(p->dim, sum_block, p, s, k0, p->values != NULL);
}

/* dim 1: the weights of all uniques side by side stay in the first cache, rows do not. */
static void gather_uniques(void *context, size_t piece)
{
    const pooling *p = context;
    uint32_t last = p->l->unique - 1;
    size_t end = MIN((piece + 1) * POOL_UNIQUES, (size_t)p->l->unique);
    real *rows = (real *)(uintptr_t)p->rows;
    for (size_t u = piece * POOL_UNIQUES; u < end; u++) {
        __builtin_prefetch((const real *)p->l->row[MIN(u + 2 * POOL_AHEAD, last)] + p->offset);
        rows[u] = ((const real *)p->l->row[u])[p->offset];
    }
}

static void sum_gathered(void *context, size_t piece)
{
    const pooling *p = context;
    const uint32_t *at = p->l->at;
    size_t end = MIN((piece + 1) * POOL_SAMPLES, (size_t)p->l->batch->n);
    for (size_t s = piece * POOL_SAMPLES; s < end; s++) {
        real sum = 0;
        double all = 0;
        if (p->values)
            for (uint32_t e = p->offsets[s]; e < p->offsets[s + 1]; e++)
                all += (double)p->values[e] * (double)p->rows[at[e]];
        else
            for (uint32_t e = p->offsets[s]; e < p->offsets[s + 1]; e++)
                sum += p->rows[at[e]];
        sum += (real)all;
        p->out[s] = p->scale ? p->scale[s] * sum : sum;
    }
}

int KERNEL(pool_sum_forward)(mr_tape *t, node *n)
{
    const mr_batch *b = n->lookup->batch;
    if (node_shape(n, 2, (const int32_t[]){b->n, (int32_t)n->column->dim}) || node_data(t, n) ||
        pool_scale(t, n, 0))
        return -1;
    pooling p = pooling_of(n, n->data);
    size_t samples = pieces((size_t)b->n, POOL_SAMPLES);
    if (p.dim > 1) {
        parallel(samples, sum_samples, &p);
        return 0;
    }
    p.rows = arena_take(tape_arena(t), sizeof(real) * n->lookup->unique);
    if (!p.rows)
        return -1;
    parallel(pieces(n->lookup->unique, POOL_UNIQUES), gather_uniques, &p);
    parallel(samples, sum_gathered, &p);
    return 0;
}

static INLINE void gradient_keep(const pooling *p, size_t u, uint32_t k0, uint32_t width,
                                 const real *sum)
{
    real *grad = p->grad + u * p->width + k0;
    if (p->add)
        for (uint32_t k = 0; k < width; k++)
            grad[k] += sum[k];
    else
        for (uint32_t k = 0; k < width; k++)
            grad[k] = sum[k];
}

/* dv_u = sum over its occurrences of x_e scale_s dout[s, :]. */
static INLINE void sum_back_block(const pooling *p, size_t u, uint32_t k0, uint32_t width,
                                  int valued)
{
    real sum[POOL_BLOCK] = {0};
    const occurrence *o = p->l->occurrence;
    for (uint32_t i = p->l->start[u]; i < p->l->start[u + 1]; i++) {
        const real *g = p->out + (size_t)o[i].sample * p->dim + k0;
        real x = valued ? (real)p->values[o[i].entry] : 1;
        if (p->scale)
            x *= p->scale[o[i].sample];
        for (uint32_t k = 0; k < width; k++)
            sum[k] += x * g[k];
    }
    gradient_keep(p, u, k0, width, sum);
}

/* The same for dim 1 without values or scale: four sums, so that one need not wait for the last. */
static void sum_back_ones(const pooling *p, size_t begin, size_t end)
{
    const occurrence *o = p->l->occurrence;
    const real *g = p->out;
    for (size_t u = begin; u < end; u++) {
        uint32_t i = p->l->start[u], last = p->l->start[u + 1];
        real a = 0, b = 0, c = 0, d = 0;
        for (; i + 4 <= last; i += 4) {
            a += g[o[i].sample];
            b += g[o[i + 1].sample];
            c += g[o[i + 2].sample];
            d += g[o[i + 3].sample];
        }
        for (; i < last; i++)
            a += g[o[i].sample];
        a = (a + b) + (c + d);
        gradient_keep(p, u, 0, 1, &a);
    }
}

static void sum_back_uniques(void *context, size_t piece)
{
    const pooling *p = context;
    size_t end = MIN((piece + 1) * POOL_UNIQUES, (size_t)p->l->unique);
    if (p->dim == 1 && !p->values && !p->scale) {
        sum_back_ones(p, piece * POOL_UNIQUES, end);
        return;
    }
    for (size_t u = piece * POOL_UNIQUES; u < end; u++)
        POOL_BLOCKS(p->dim, sum_back_block, p, u, k0, p->values != NULL);
}

static int pool_backward(mr_tape *t, node *n, task *uniques)
{
    pooling p = pooling_of(n, n->grad);
    p.grad = lookup_grad(t, n, &p.add);
    if (!p.grad)
        return -1;
    parallel(pieces(n->lookup->unique, POOL_UNIQUES), uniques, &p);
    return 0;
}

int KERNEL(pool_sum_backward)(mr_tape *t, node *n)
{
    return pool_backward(t, n, sum_back_uniques);
}

/* ---- fields: out[s, f, :] = scale_sf times the sum over the entries e of s whose field is f of
 * x_e v_e ---- */

/* Where entry e of sample s goes, in rows of out. */
static INLINE size_t field_row(const pooling *p, size_t s, uint32_t e)
{
    const mr_batch *b = p->l->batch;
    return b->field ? s * (size_t)b->fields + b->field[e] : e;
}

/* What entry e counts in its row of out. */
static INLINE real weight_of(const pooling *p, uint32_t e, size_t row)
{
    real x = p->values ? (real)p->values[e] : 1;
    return p->scale ? x * p->scale[row] : x;
}

static INLINE void fields_block(const pooling *p, size_t s, uint32_t k0, uint32_t width, int valued)
{
    const uint32_t *at = p->l->at;
    uint32_t end = p->offsets[s + 1], last = p->offsets[p->l->batch->n] - 1;
    int adds = p->l->batch->field != NULL;
    for (uint32_t e = p->offsets[s]; e < end; e++) {
        __builtin_prefetch((const real *)p->l->row[at[MIN(e + POOL_AHEAD, last)]] + p->offset + k0);
        const real *v = (const real *)p->l->row[at[e]] + p->offset + k0;
        size_t row = field_row(p, s, e);
        real x = valued ? weight_of(p, e, row) : 1;
        real *out = p->out + row * p->dim + k0;
        if (adds)
            for (uint32_t k = 0; k < width; k++)
                out[k] += x * v[k];
        else
            for (uint32_t k = 0; k < width; k++)
                out[k] = x * v[k];
    }
}

static void fields_samples(void *context, size_t piece)
{
    const pooling *p = context;
    const mr_batch *b = p->l->batch;
    size_t begin = piece * POOL_SAMPLES, end = MIN(begin + POOL_SAMPLES, (size_t)b->n);
    size_t row = (size_t)b->fields * p->dim;
    if (b->field)
        memset(p->out + begin * row, 0, sizeof(real) * (end - begin) * row);
    for (size_t s = begin; s < end; s++)
        POOL_BLOCKS(p->dim, fields_block, p, s, k0, p->values || p->scale);
}

int KERNEL(pool_fields_known)(const node *n, const char *operation)
{
    const lookup *l = n->lookup;
    const mr_batch *b = l->batch;
    if (b->fields <= 0)
        return fail("%s: table %s, column %s: the samples are plain sets of keys, without "
                    "fields; pool them by sum or mean",
                    operation, l->table, n->column->name);
    if (b->field) {
        uint16_t largest = 0;
        for (int32_t e = 0; e < b->entries; e++)
            largest = MAX(largest, b->field[e]);
        if (largest >= b->fields)
            return fail("%s: table %s, column %s: field %d in a batch of %d fields", operation,
                        l->table, n->column->name, largest, (int)b->fields);
    } else if (b->entries != b->n * b->fields) {
        return fail("%s: table %s, column %s: %d entries, expected %d samples of %d", operation,
                    l->table, n->column->name, (int)b->entries, (int)b->n, (int)b->fields);
    }
    return 0;
}

int KERNEL(pool_fields_forward)(mr_tape *t, node *n)
{
    const mr_batch *b = n->lookup->batch;
    if (KERNEL(pool_fields_known)(n, "fields"))
        return -1;
    if (node_shape(n, 3, (const int32_t[]){b->n, b->fields, (int32_t)n->column->dim}) ||
        node_data(t, n) || pool_scale(t, n, 1))
        return -1;
    pooling p = pooling_of(n, n->data);
    parallel(pieces((size_t)b->n, POOL_SAMPLES), fields_samples, &p);
    return 0;
}

static INLINE void fields_back_block(const pooling *p, size_t u, uint32_t k0, uint32_t width,
                                     int valued)
{
    real sum[POOL_BLOCK] = {0};
    const occurrence *o = p->l->occurrence;
    uint32_t last = (uint32_t)p->l->batch->entries - 1;
    for (uint32_t i = p->l->start[u]; i < p->l->start[u + 1]; i++) {
        const occurrence *next = &o[MIN(i + POOL_AHEAD, last)];
        __builtin_prefetch(p->out + field_row(p, next->sample, next->entry) * p->dim + k0);
        size_t row = field_row(p, o[i].sample, o[i].entry);
        const real *g = p->out + row * p->dim + k0;
        real x = valued ? weight_of(p, o[i].entry, row) : 1;
        for (uint32_t k = 0; k < width; k++)
            sum[k] += x * g[k];
    }
    gradient_keep(p, u, k0, width, sum);
}

static void fields_back_uniques(void *context, size_t piece)
{
    const pooling *p = context;
    size_t end = MIN((piece + 1) * POOL_UNIQUES, (size_t)p->l->unique);
    for (size_t u = piece * POOL_UNIQUES; u < end; u++)
        POOL_BLOCKS(p->dim, fields_back_block, p, u, k0, p->values || p->scale);
}

int KERNEL(pool_fields_backward)(mr_tape *t, node *n)
{
    return pool_backward(t, n, fields_back_uniques);
}

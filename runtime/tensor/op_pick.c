/* op_pick.c - pooling where each element of the result is one entry's: max, and the entries of a field
 * one behind another. As in op_pool.c, forward goes by samples and backward by uniques. */
#include "tensor/op_pool.h"

typedef struct picking {
    const lookup *l;
    const mr_batch *b;
    real *out; /* in backward, its gradient */
    int32_t *
        place; /* max: the entry of each element, or -1. Sequence: the place of each entry, or -1 */
    real *grad;  /* of the lookup, at the column */
    size_t rows; /* of a sample */
    uint32_t offset, dim, field;
    int by_field, add;
} picking;

static picking picking_of(const node *n, real *out)
{
    const mr_batch *b = n->lookup->batch;
    return (picking){.l = n->lookup,
                     .b = b,
                     .out = out,
                     .place = n->saved,
                     .offset = n->column->offset,
                     .dim = n->column->dim};
}

static const real *row_of(const picking *p, uint32_t e)
{
    return (const real *)p->l->row[p->l->at[e]] + p->offset;
}

static real value_of(const picking *p, uint32_t e)
{
    return p->b->values ? (real)p->b->values[e] : 1;
}

static int pick_backward(mr_tape *t, node *n, picking *p, task *uniques)
{
    p->grad = lookup_grad(t, n, &p->add);
    if (!p->grad)
        return -1;
    parallel(pieces(n->lookup->unique, POOL_UNIQUES), uniques, p);
    return 0;
}

/* The gradient of unique u, which is 0 if nothing was added to it so far. */
static real *grad_of(const picking *p, size_t u)
{
    real *grad = p->grad + u * p->l->grad_width;
    if (!p->add)
        memset(grad, 0, sizeof(real) * p->dim);
    return grad;
}

/* ---- max: out[s, k] = max_e x_e v_ek, or by field; 0 without entries; the first of equals ---- */

static picking max_of(const node *n, real *out)
{
    picking p = picking_of(n, out);
    p.by_field = n->code;
    p.rows = p.by_field ? (size_t)p.b->fields : 1;
    return p;
}

static size_t max_row(const picking *p, size_t s, uint32_t e)
{
    return s * p->rows + (p->by_field ? pool_field(p->b, s, e) : 0);
}

static void max_samples(void *context, size_t piece)
{
    const picking *p = context;
    size_t begin = piece * POOL_SAMPLES, end = MIN(begin + POOL_SAMPLES, (size_t)p->b->n);
    size_t width = p->rows * p->dim;
    memset(p->out + begin * width, 0, sizeof(real) * (end - begin) * width);
    for (size_t i = begin * width; i < end * width; i++)
        p->place[i] = -1;
    for (size_t s = begin; s < end; s++)
        for (uint32_t e = p->b->offsets[s]; e < p->b->offsets[s + 1]; e++) {
            const real *v = row_of(p, e);
            real x = value_of(p, e), *out = p->out + max_row(p, s, e) * p->dim;
            int32_t *place = p->place + max_row(p, s, e) * p->dim;
            for (uint32_t k = 0; k < p->dim; k++) {
                real a = x * v[k];
                int take = (place[k] < 0) | (a > out[k]) | ((a != a) & (out[k] == out[k]));
                out[k] = take ? a : out[k];
                place[k] = take ? (int32_t)e : place[k];
            }
        }
}

int KERNEL(pool_max_forward)(mr_tape *t, node *n)
{
    const mr_batch *b = n->lookup->batch;
    if (n->code && KERNEL(pool_fields_known)(n, "fields"))
        return -1;
    int32_t dim[] = {b->n, b->fields, (int32_t)n->column->dim};
    if (!n->code)
        dim[1] = dim[2];
    if (node_shape(n, n->code ? 3 : 2, dim) || node_data(t, n))
        return -1;
    n->saved = arena_take(tape_arena(t), sizeof(int32_t) * n->count);
    if (!n->saved)
        return -1;
    picking p = max_of(n, n->data);
    parallel(pieces((size_t)b->n, POOL_SAMPLES), max_samples, &p);
    return 0;
}

static void max_uniques(void *context, size_t piece)
{
    const picking *p = context;
    size_t end = MIN((piece + 1) * POOL_UNIQUES, (size_t)p->l->unique);
    for (size_t u = piece * POOL_UNIQUES; u < end; u++) {
        real *grad = grad_of(p, u);
        for (uint32_t i = p->l->start[u]; i < p->l->start[u + 1]; i++) {
            occurrence o = p->l->occurrence[i];
            size_t at = max_row(p, o.sample, o.entry) * p->dim;
            real x = value_of(p, o.entry);
            for (uint32_t k = 0; k < p->dim; k++)
                grad[k] += p->place[at + k] == (int32_t)o.entry ? x * p->out[at + k] : 0;
        }
    }
}

int KERNEL(pool_max_backward)(mr_tape *t, node *n)
{
    picking p = max_of(n, n->grad);
    return pick_backward(t, n, &p, max_uniques);
}

/* ---- sequence: out[s, i, :] = x_e v_e of the i-th entry of field n->a of sample s, for the first
 * n->b of them, or (n->code 0) as many as the sample with most has, at least one; 0 behind the last. The
 * mask is 1 where there is one. ---- */

static picking sequence_of(const node *n, real *out)
{
    picking p = picking_of(n, out);
    p.field = (uint32_t)n->a;
    p.rows = (size_t)n->b;
    return p;
}

static void sequence_samples(void *context, size_t piece)
{
    const picking *p = context;
    size_t begin = piece * POOL_SAMPLES, end = MIN(begin + POOL_SAMPLES, (size_t)p->b->n);
    size_t width = p->rows * p->dim;
    memset(p->out + begin * width, 0, sizeof(real) * (end - begin) * width);
    for (size_t s = begin; s < end; s++) {
        size_t at = 0;
        for (uint32_t e = p->b->offsets[s]; e < p->b->offsets[s + 1]; e++) {
            p->place[e] = -1;
            if (pool_field(p->b, s, e) != p->field || at == p->rows)
                continue;
            const real *v = row_of(p, e);
            real x = value_of(p, e), *out = p->out + s * width + at * p->dim;
            for (uint32_t k = 0; k < p->dim; k++)
                out[k] = x * v[k];
            p->place[e] = (int32_t)at++;
        }
    }
}

static int sequence_known(const node *n)
{
    const mr_batch *b = n->lookup->batch;
    if (KERNEL(pool_fields_known)(n, "sequence"))
        return -1;
    if (!(n->a >= 0 && n->a < b->fields))
        return fail("sequence: table %s, column %s: field %g in a batch of %d fields",
                    n->lookup->table, n->column->name, n->a + 1, (int)b->fields);
    if (!(n->b >= 1))
        return fail("sequence: table %s, column %s: length is %g, expected 1 or more",
                    n->lookup->table, n->column->name, n->b);
    return 0;
}

/* Entries of a field in the sample that has most of them, from 1 to most. */
static size_t longest(const mr_batch *b, uint32_t field, size_t most)
{
    size_t length = 1;
    for (size_t s = 0; b->field && s < (size_t)b->n && length < most; s++) {
        size_t count = 0;
        for (uint32_t e = b->offsets[s]; e < b->offsets[s + 1]; e++)
            count += b->field[e] == field;
        length = MAX(length, count);
    }
    return MIN(length, most);
}

int KERNEL(sequence_forward)(mr_tape *t, node *n)
{
    const mr_batch *b = n->lookup->batch;
    if (sequence_known(n))
        return -1;
    if (!n->code)
        n->b = (double)longest(b, (uint32_t)n->a, (size_t)n->b);
    if (node_shape(n, 3, (const int32_t[]){b->n, (int32_t)n->b, (int32_t)n->column->dim}) ||
        node_data(t, n))
        return -1;
    n->saved = arena_take(tape_arena(t), sizeof(int32_t) * (size_t)b->entries);
    if (!n->saved)
        return -1;
    picking p = sequence_of(n, n->data);
    parallel(pieces((size_t)b->n, POOL_SAMPLES), sequence_samples, &p);
    return 0;
}

static void sequence_uniques(void *context, size_t piece)
{
    const picking *p = context;
    size_t end = MIN((piece + 1) * POOL_UNIQUES, (size_t)p->l->unique);
    for (size_t u = piece * POOL_UNIQUES; u < end; u++) {
        real *grad = grad_of(p, u);
        for (uint32_t i = p->l->start[u]; i < p->l->start[u + 1]; i++) {
            occurrence o = p->l->occurrence[i];
            if (p->place[o.entry] < 0)
                continue;
            const real *g = p->out + (o.sample * p->rows + (size_t)p->place[o.entry]) * p->dim;
            real x = value_of(p, o.entry);
            for (uint32_t k = 0; k < p->dim; k++)
                grad[k] += x * g[k];
        }
    }
}

int KERNEL(sequence_backward)(mr_tape *t, node *n)
{
    picking p = sequence_of(n, n->grad);
    return pick_backward(t, n, &p, sequence_uniques);
}

int KERNEL(sequence_mask_forward)(mr_tape *t, node *n)
{
    const mr_batch *b = n->lookup->batch;
    n->needs_grad = 0;
    if (sequence_known(n) || node_shape(n, 2, (const int32_t[]){b->n, (int32_t)n->b}) ||
        node_data(t, n))
        return -1;
    size_t length = (size_t)n->b;
    real *out = n->data;
    memset(out, 0, sizeof(real) * n->count);
    for (size_t s = 0; s < (size_t)b->n; s++) {
        size_t at = 0;
        for (uint32_t e = b->offsets[s]; e < b->offsets[s + 1] && at < length; e++)
            if (pool_field(b, s, e) == (uint32_t)n->a)
                out[s * length + at++] = 1;
    }
    return 0;
}

int KERNEL(sequence_mask_backward)(mr_tape *t, node *n)
{
    (void)t, (void)n;
    return 0;
}

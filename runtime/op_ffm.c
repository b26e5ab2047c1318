/* op_ffm.c - the second-order term of a field-aware factorization machine, [n, 1], from rows in place.
 *
 * A row is F vectors of k floats: v_ib is what entry i shows to entries of field b. Let A_sa be the sum of
 * x_i v_i over the entries i of field a, which is a row again, and A_sab its vector for field b. Then
 * sum_{i<j} <v_i at f_j, v_j at f_i> x_i x_j, with any number of entries a field, is
 *
 *     out_s = sum_{a<b} <A_sab, A_sba> + 1/2 sum_a (|A_saa|^2 - sum_{i of a} x_i^2 |v_ia|^2)
 *     dv_ub = sum over its occurrences i of g_s x_i (A_sbf - x_i v_ub if b = f), f the field of i
 *
 * A field of one entry needs no sum: A is x times a row in place, and its own term is 0. Juan et al.,
 * "Field-aware Factorization Machines for CTR Prediction", RecSys 2016, equation (4).
 *
 * Forward goes by samples. A gradient needs a part of every other row of its sample, so backward is not
 * cut by uniques but by the fields b: a piece goes through all samples in their order, reads only rows of
 * its own few fields, and adds only to their vectors in all gradients, so that a slice of the gradients
 * and a few fields' rows are all that it keeps in the cache. */
#include "kernel.h"
#include "op_pool.h"

typedef struct ffm {
    const lookup *l;
    const uint32_t *offsets;
    const float *values;
    const real *g; /* [n]: the gradient of out */
    real *out;     /* [n] */
    real *grad;    /* of the lookup, at the column */
    int add;       /* to what stands there */
    uint32_t offset, dim, width;
    uint32_t fields, k;
    uint32_t each; /* fields of a piece */
    char *room;    /* of each piece, room_size bytes: see piece_of() */
    size_t room_size;
    const real *zeros; /* [dim]: the row of a field without entries */
} ffm;

/* A sample as a piece sees it, of the fields [begin, end) that are the piece's. */
typedef struct fields {
    const ffm *p;
    uint32_t begin, end;
    const real **row; /* [end - begin]: A is x times this */
    real *x;          /* [end - begin] */
    real *sum;        /* [end - begin, dim]: rows of fields with several entries */
    int several;      /* whether this sample has any */
} fields;

static int ffm_of(mr_tape *t, const node *n, uint32_t each, size_t count, ffm *p)
{
    const lookup *l = n->lookup;
    *p = (ffm){.l = l,
               .offsets = l->batch->offsets,
               .values = l->batch->values,
               .g = n->grad,
               .out = n->data,
               .offset = n->column->offset,
               .dim = n->column->dim,
               .width = l->grad_width,
               .fields = (uint32_t)n->code,
               .k = n->column->dim / (uint32_t)n->code,
               .each = each};
    /* without l->batch->field no sample has several entries of a field */
    p->room_size = each * (sizeof(real *) + sizeof(real) * (1 + (l->batch->field ? p->dim : 0)));
    p->room_size = (p->room_size + 63) / 64 * 64;
    p->room = arena_take(tape_arena(t), count * p->room_size);
    real *zeros = arena_take(tape_arena(t), sizeof(real) * p->dim);
    if (!p->room || !zeros)
        return -1;
    memset(zeros, 0, sizeof(real) * p->dim);
    p->zeros = zeros;
    return 0;
}

static fields piece_of(const ffm *p, size_t piece, uint32_t begin)
{
    char *room = p->room + piece * p->room_size;
    const real **row = (const real **)(void *)room;
    real *x = (real *)(void *)(row + p->each);
    return (fields){p, begin, MIN(begin + p->each, p->fields), row, x, x + p->each, 0};
}

static INLINE const real *row_of(const ffm *p, uint32_t e)
{
    return (const real *)p->l->row[p->l->at[e]] + p->offset;
}

static INLINE real value_of(const ffm *p, uint32_t e)
{
    return p->values ? (real)p->values[e] : 1;
}

/* Sets q's rows to those of sample s. */
static void gather(fields *q, size_t s)
{
    const ffm *p = q->p;
    const mr_batch *b = p->l->batch;
    uint32_t begin = p->offsets[s], count = q->end - q->begin;
    if (!b->field) {
        for (uint32_t j = 0; j < count; j++) {
            q->row[j] = row_of(p, begin + q->begin + j);
            q->x[j] = value_of(p, begin + q->begin + j);
        }
        return;
    }
    q->several = 0;
    for (uint32_t j = 0; j < count; j++) {
        q->row[j] = p->zeros;
        q->x[j] = 1;
    }
    for (uint32_t e = begin; e < p->offsets[s + 1]; e++) {
        uint32_t j = b->field[e] - q->begin;
        if (j >= count) /* or b->field[e] is below q->begin */
            continue;
        const real *v = row_of(p, e);
        real x = value_of(p, e), *sum = q->sum + (size_t)j * p->dim;
        if (q->row[j] == p->zeros) {
            q->row[j] = v;
            q->x[j] = x;
            continue;
        }
        if (q->row[j] != sum) {
            for (uint32_t i = 0; i < p->dim; i++)
                sum[i] = q->x[j] * q->row[j][i];
            q->row[j] = sum;
            q->x[j] = 1;
            q->several = 1;
        }
        for (uint32_t i = 0; i < p->dim; i++)
            sum[i] += x * v[i];
    }
}

static INLINE int has_several(const fields *q, uint32_t f)
{
    return q->several && q->row[f - q->begin] == q->sum + (size_t)(f - q->begin) * q->p->dim;
}

/* ---- forward ---- */

enum { LANES = 4 /* sums side by side, so that one need not wait for the last */ };

static INLINE void ffm_block(const fields *q, size_t s, uint32_t k0, uint32_t width, int valued)
{
    const ffm *p = q->p;
    size_t k = p->k;
    real sum[LANES][POOL_BLOCK] = {{0}};
    for (uint32_t a = 0; a < p->fields; a++) {
        const real *row = q->row[a] + k0;
        size_t at = a * k + k0;
        uint32_t b = a + 1;
        for (; b + LANES <= p->fields; b += LANES)
            for (uint32_t j = 0; j < LANES; j++) {
                real x = valued ? q->x[a] * q->x[b + j] : 1;
                for (uint32_t i = 0; i < width; i++)
                    sum[j][i] += x * row[(b + j) * k + i] * q->row[b + j][at + i];
            }
        for (; b < p->fields; b++) {
            real x = valued ? q->x[a] * q->x[b] : 1;
            for (uint32_t i = 0; i < width; i++)
                sum[0][i] += x * row[b * k + i] * q->row[b][at + i];
        }
    }
    real out = 0;
    for (uint32_t i = 0; i < width; i++)
        out += (sum[0][i] + sum[1][i]) + (sum[2][i] + sum[3][i]);
    p->out[s] = (k0 ? p->out[s] : 0) + out;
}

/* The pairs within fields of several entries. */
static real within(const fields *q, size_t s)
{
    const ffm *p = q->p;
    real twice = 0;
    for (uint32_t a = 0; a < p->fields; a++)
        for (uint32_t i = a * p->k; has_several(q, a) && i < (a + 1) * p->k; i++)
            twice += q->row[a][i] * q->row[a][i];
    for (uint32_t e = p->offsets[s]; e < p->offsets[s + 1]; e++) {
        uint32_t f = p->l->batch->field[e];
        for (uint32_t i = f * p->k; has_several(q, f) && i < (f + 1) * p->k; i++) {
            real xv = value_of(p, e) * row_of(p, e)[i];
            twice -= xv * xv;
        }
    }
    return twice / 2;
}

enum { FFM_SAMPLES = 32, LINE = 64 / sizeof(real) };

static void ffm_samples(void *context, size_t piece)
{
    const ffm *p = context;
    fields q = piece_of(p, piece, 0);
    size_t end = MIN((piece + 1) * FFM_SAMPLES, (size_t)p->l->batch->n);
    for (size_t s = piece * FFM_SAMPLES; s < end; s++) {
        gather(&q, s);
        if (s + 1 < end)
            for (uint32_t e = p->offsets[s + 1]; e < p->offsets[s + 2]; e++)
                for (uint32_t i = 0; i < p->dim; i += LINE)
                    __builtin_prefetch(row_of(p, e) + i);
        POOL_BLOCKS(p->k, ffm_block, &q, s, k0, p->values != NULL);
        if (q.several)
            p->out[s] += within(&q, s);
    }
}

int KERNEL(pool_ffm_forward)(mr_tape *t, node *n)
{
    const lookup *l = n->lookup;
    const mr_batch *b = l->batch;
    if (KERNEL(pool_fields_known)(n, "ffm"))
        return -1;
    if (n->code != b->fields)
        return fail("ffm: table %s, column %s: made for %d fields, in a batch of %d", l->table,
                    n->column->name, (int)n->code, (int)b->fields);
    if (n->column->dim % (uint32_t)n->code)
        return fail("ffm: table %s, column %s: dim is %u, expected a multiple of its %d fields",
                    l->table, n->column->name, n->column->dim, (int)n->code);
    size_t count = pieces((size_t)b->n, FFM_SAMPLES);
    ffm p;
    if (node_shape(n, 2, (const int32_t[]){b->n, 1}) || node_data(t, n) ||
        ffm_of(t, n, (uint32_t)n->code, count, &p))
        return -1;
    parallel(count, ffm_samples, &p);
    return 0;
}

/* ---- backward ---- */

static INLINE void back_block(const fields *q, size_t s, uint32_t k0, uint32_t width, int valued)
{
    const ffm *p = q->p;
    const mr_batch *b = p->l->batch;
    size_t k = p->k;
    uint32_t count = q->end - q->begin;
    for (uint32_t e = p->offsets[s]; e < p->offsets[s + 1]; e++) {
        uint32_t f = pool_field(b, s, e);
        real x = valued ? (real)p->values[e] : 1, gx = p->g[s] * x;
        real *grad = p->grad + (size_t)p->l->at[e] * p->width + q->begin * k + k0;
        size_t at = f * k + k0;
        for (uint32_t j = 0; j < count; j++) {
            if (j == f - q->begin)
                continue;
            real y = valued ? gx * q->x[j] : gx;
            for (uint32_t i = 0; i < width; i++)
                grad[j * k + i] += y * q->row[j][at + i];
        }
        if (f - q->begin < count && has_several(q, f)) {
            const real *v = row_of(p, e) + at;
            for (uint32_t i = 0; i < width; i++)
                grad[(f - q->begin) * k + i] += gx * (q->row[f - q->begin][at + i] - x * v[i]);
        }
    }
}

static void back_fields(void *context, size_t piece)
{
    const ffm *p = context;
    fields q = piece_of(p, piece, (uint32_t)piece * p->each);
    size_t n = (size_t)p->l->batch->n, at = (size_t)q.begin * p->k;
    if (!p->add)
        for (size_t u = 0; u < p->l->unique; u++)
            memset(p->grad + u * p->width + at, 0, sizeof(real) * (q.end - q.begin) * p->k);
    for (size_t s = 0; s < n; s++) {
        gather(&q, s);
        POOL_BLOCKS(p->k, back_block, &q, s, k0, p->values != NULL);
    }
}

int KERNEL(pool_ffm_backward)(mr_tape *t, node *n)
{
    uint32_t k = n->column->dim / (uint32_t)n->code;
    uint32_t each = MIN(MAX(1, LINE / k), (uint32_t)n->code);
    size_t count = pieces((size_t)n->code, each);
    ffm p;
    if (ffm_of(t, n, each, count, &p))
        return -1;
    p.grad = lookup_grad(t, n, &p.add);
    if (!p.grad)
        return -1;
    parallel(count, back_fields, &p);
    return 0;
}

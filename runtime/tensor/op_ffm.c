/* op_ffm.c - the second-order term of a field-aware factorization machine, [n, 1], from rows in place.
 *
 * A row is F vectors of k floats: v_ib is what entry i shows to entries of field b. Let A_sa be the sum of
 * x_i v_i over the entries i of field a, which is a row again, and A_sab its vector for field b. Then
 * sum_{i<j} <v_i at f_j, v_j at f_i> x_i x_j, with any number of entries a field, is
 *
 *     out_s = sum_{a<b} <A_sab, A_sba> + sum_a sum_{i of a} <x_i v_ia, those of a before i, summed>
 *     dv_ub = sum over its occurrences i of g_s x_i (A_sbf - x_i v_ub if b = f), f the field of i
 *
 * A field of one entry needs no sum: A is x times a row in place, and its own term is 0. The difference is
 * of sums in double, so that a large value leaves the digits of small ones beside it. Juan et al.,
 * "Field-aware Factorization Machines for CTR Prediction", RecSys 2016, equation (4).
 *
 * Forward goes by samples. A gradient needs a part of every other row of its sample, so backward is not
 * cut by uniques but by the fields b: a piece goes through all samples in their order, reads only rows of
 * its own few fields, and adds only to their vectors in all gradients, so that a slice of the gradients
 * and a few fields' rows are all that it keeps in the cache. */
#include "kernel/kernel.h"
#include "tensor/op_pool.h"

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
    uint32_t each; /* backward: fields of a piece */
    char *room;    /* of each piece, room_size bytes */
    size_t room_size;
    const real *zeros; /* [dim]: forward: the row of a field without entries */
} ffm;

static ffm ffm_of(const node *n)
{
    const lookup *l = n->lookup;
    return (ffm){.l = l,
                 .offsets = l->batch->offsets,
                 .values = l->batch->values,
                 .g = n->grad,
                 .out = n->data,
                 .offset = n->column->offset,
                 .dim = n->column->dim,
                 .width = l->grad_width,
                 .fields = (uint32_t)n->code,
                 .k = n->column->dim / (uint32_t)n->code};
}

static INLINE const real *row_of(const ffm *p, uint32_t e)
{
    return (const real *)p->l->row[p->l->at[e]] + p->offset;
}

static INLINE real value_of(const ffm *p, uint32_t e)
{
    return p->values ? (real)p->values[e] : 1;
}

/* ---- forward ---- */

/* A sample: A of field f is x[f] row[f]. */
typedef struct fields {
    const ffm *p;
    const real **row; /* [fields]: in place, or in sum if there are several entries */
    real *x;          /* [fields] */
    real *sum;        /* [fields, dim] */
    double within;    /* the pairs within fields of several entries */
} fields;

/* Sets q to sample s. */
static void gather(fields *q, size_t s)
{
    const ffm *p = q->p;
    const mr_batch *b = p->l->batch;
    q->within = 0;
    if (b->field)
        for (uint32_t f = 0; f < p->fields; f++) {
            q->row[f] = p->zeros;
            q->x[f] = 1;
        }
    for (uint32_t e = p->offsets[s]; e < p->offsets[s + 1]; e++) {
        uint32_t f = pool_field(b, s, e);
        const real *v = row_of(p, e);
        real x = value_of(p, e);
        if (!b->field || q->row[f] == p->zeros) {
            q->row[f] = v;
            q->x[f] = x;
            continue;
        }
        real *sum = q->sum + (size_t)f * p->dim;
        if (q->row[f] != sum) {
            for (uint32_t i = 0; i < p->dim; i++)
                sum[i] = q->x[f] * q->row[f][i];
            q->row[f] = sum;
            q->x[f] = 1;
        }
        for (uint32_t i = f * p->k; i < (f + 1) * p->k; i++)
            q->within += (double)(x * v[i]) * (double)sum[i];
        for (uint32_t i = 0; i < p->dim; i++)
            sum[i] += x * v[i];
    }
}

enum { LANES = 4 /* sums side by side, so that one need not wait for the last */ };

static INLINE void ffm_block(const fields *q, size_t s, uint32_t k0, uint32_t width, int valued)
{
    const ffm *p = q->p;
    size_t k = p->k, fields = p->fields;
    real sum[LANES][POOL_BLOCK] = {{0}};
    for (size_t a = 0; a < fields; a++) {
        const real *row = q->row[a] + k0;
        size_t at = a * k + k0, b = a + 1;
        for (; b + LANES <= fields; b += LANES)
            for (size_t j = 0; j < LANES; j++) {
                real x = valued ? q->x[a] * q->x[b + j] : 1;
                const real *u = row + (b + j) * k, *v = q->row[b + j] + at;
#pragma omp simd
                for (size_t i = 0; i < width; i++)
                    sum[j][i] += x * u[i] * v[i];
            }
        for (; b < fields; b++) {
            real x = valued ? q->x[a] * q->x[b] : 1;
#pragma omp simd
            for (size_t i = 0; i < width; i++)
                sum[0][i] += x * row[b * k + i] * q->row[b][at + i];
        }
    }
    real out = 0;
    for (uint32_t i = 0; i < width; i++)
        out += (sum[0][i] + sum[1][i]) + (sum[2][i] + sum[3][i]);
    p->out[s] = (k0 ? p->out[s] : 0) + out;
}

enum { FFM_SAMPLES = 32, LINE = 64 / sizeof(real) };

static void ffm_samples(void *context, size_t piece)
{
    const ffm *p = context;
    char *room = p->room + piece * p->room_size;
    fields q = {.p = p, .row = (const real **)(void *)room};
    q.x = (real *)(void *)(q.row + p->fields);
    q.sum = q.x + p->fields;
    size_t end = MIN((piece + 1) * FFM_SAMPLES, (size_t)p->l->batch->n);
    for (size_t s = piece * FFM_SAMPLES; s < end; s++) {
        gather(&q, s);
        if (s + 1 < end)
            for (uint32_t e = p->offsets[s + 1]; e < p->offsets[s + 2]; e++)
                for (uint32_t i = 0; i < p->dim; i += LINE)
                    __builtin_prefetch(row_of(p, e) + i, 0, 2);
        POOL_BLOCKS(p->k, ffm_block, &q, s, k0, p->values != NULL);
        p->out[s] = (real)((double)p->out[s] + q.within);
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
    if (node_shape(n, 2, (const int32_t[]){b->n, 1}) || node_data(t, n))
        return -1;
    ffm p = ffm_of(n);
    /* without b->field no field has several entries */
    p.room_size = p.fields * (sizeof(real *) + sizeof(real) * (1 + (b->field ? p.dim : 0)));
    p.room_size = (p.room_size + 63) / 64 * 64;
    p.room = arena_take(tape_arena(t), p.room_size * count);
    real *zeros = arena_take(tape_arena(t), sizeof(real) * p.dim);
    if (!p.room || !zeros)
        return -1;
    memset(zeros, 0, sizeof(real) * p.dim);
    p.zeros = zeros;
    parallel(count, ffm_samples, &p);
    return 0;
}

/* ---- backward ---- */

typedef struct back {
    const ffm *p;
    uint32_t begin, end; /* the fields of the piece */
    real *slice;         /* [unique, each k]: their part of the gradients */
    real *others;      /* [fields, each k]: at f, what the sample's entries of field f see: A_sbf */
    double *own;       /* [each, k]: A_sbb, if entries name their fields */
    uint32_t *entries; /* [each]: of the sample in field b */
} back;

static INLINE real *slice_of(const ffm *p, size_t piece)
{
    return (real *)(void *)(p->room + piece * p->room_size);
}

/* Adds x v to A_sb, b the j-th field of the piece: others[f, j, :] += x v at f. */
static INLINE void spread(const back *q, size_t j, const real *v, real x, size_t k, size_t wide)
{
    real *to = q->others + j * k;
    size_t fields = q->p->fields;
    if (q->entries[j]++)
        for (size_t f = 0; f < fields; f++)
#pragma omp simd
            for (size_t i = 0; i < k; i++)
                to[f * wide + i] += x * v[f * k + i];
    else
        for (size_t f = 0; f < fields; f++)
#pragma omp simd
            for (size_t i = 0; i < k; i++)
                to[f * wide + i] = x * v[f * k + i];
}

/* Adds a sample to the slice. What the next one needs, rows of the piece's fields and its part of the slice,
 * is fetched meanwhile. */
static INLINE void back_sample(const back *q, size_t s, size_t k, size_t wide, int fielded)
{
    const ffm *p = q->p;
    const uint16_t *field = p->l->batch->field;
    const uint32_t *at = p->l->at;
    uint32_t begin = p->offsets[s], end = p->offsets[s + 1], count = q->end - q->begin;
    uint32_t last = p->offsets[p->l->batch->n] - 1;
    memset(q->entries, 0, sizeof(uint32_t) * p->each);
    if (fielded) {
        memset(q->others, 0, sizeof(real) * p->fields * wide);
        memset(q->own, 0, sizeof(double) * wide);
    }
    uint32_t from = fielded ? begin : begin + q->begin, to = fielded ? end : begin + q->end;
    for (uint32_t e = from; e < to; e++) {
        uint32_t next = MIN(e + p->fields, last);
        if (!fielded || field[next] - q->begin < count)
            for (uint32_t i = 0; i < p->dim; i += LINE)
                __builtin_prefetch(row_of(p, next) + i);
        uint32_t j = fielded ? field[e] - q->begin : e - from;
        if (j >= count)
            continue;
        spread(q, j, row_of(p, e), value_of(p, e), k, wide);
        for (size_t i = 0; fielded && i < k; i++)
            q->own[j * k + i] +=
                (double)value_of(p, e) * (double)row_of(p, e)[(q->begin + j) * k + i];
    }
    for (uint32_t j = 0; j < count; j++) /* an entry does not see itself */
        memset(q->others + (q->begin + j) * wide + j * k, 0, sizeof(real) * k);
    for (uint32_t e = begin; e < end; e++) {
        size_t f = fielded ? field[e] : e - begin;
        real gx = p->g[s] * value_of(p, e);
        real *grad = q->slice + at[e] * wide;
        const real *others = q->others + f * wide;
        __builtin_prefetch(q->slice + at[MIN(e + p->fields, last)] * wide, 1);
#pragma omp simd
        for (size_t i = 0; i < wide; i++)
            grad[i] += gx * others[i];
        size_t j = f - q->begin;
        if (fielded && j < count && q->entries[j] > 1) /* only the others of its field */
            for (size_t i = 0; i < k; i++)
                grad[j * k + i] +=
                    gx * (real)(q->own[j * k + i] -
                                (double)value_of(p, e) * (double)row_of(p, e)[f * k + i]);
    }
}

static void back_fields(void *context, size_t piece)
{
    const ffm *p = context;
    size_t wide = (size_t)p->each * p->k, n = (size_t)p->l->batch->n;
    uint32_t begin = (uint32_t)piece * p->each;
    real *slice = slice_of(p, piece), *others = slice + p->l->unique * wide;
    back q = {p, begin, MIN(begin + p->each, p->fields), slice, others, NULL, NULL};
    char *rest = (char *)(others + p->fields * wide);
    q.own = (double *)(void *)(rest + (8 - (uintptr_t)rest % 8) % 8);
    q.entries = (uint32_t *)(void *)(q.own + wide);
    memset(slice, 0, p->room_size);
    if (p->l->batch->field)
        for (size_t s = 0; s < n; s++)
            back_sample(&q, s, p->k, wide, 1);
    else if (p->k == 4 && wide == 16)
        for (size_t s = 0; s < n; s++)
            back_sample(&q, s, 4, 16, 0);
    else
        for (size_t s = 0; s < n; s++)
            back_sample(&q, s, p->k, wide, 0);
}

/* Puts the slices side by side. */
static INLINE void back_join(const ffm *p, size_t u, size_t wide)
{
    real *grad = p->grad + u * p->width;
    for (size_t piece = 0, i0 = 0; i0 < p->dim; piece++, i0 += wide) {
        const real *from = slice_of(p, piece) + u * wide;
        size_t width = MIN(wide, p->dim - i0);
        if (p->add)
            for (size_t i = 0; i < width; i++)
                grad[i0 + i] += from[i];
        else if (width == wide)
#pragma omp simd
            for (size_t i = 0; i < wide; i++)
                grad[i0 + i] = from[i];
        else
            for (size_t i = 0; i < width; i++)
                grad[i0 + i] = from[i];
    }
}

static void back_uniques(void *context, size_t piece)
{
    const ffm *p = context;
    size_t end = MIN((piece + 1) * POOL_UNIQUES, (size_t)p->l->unique), wide = p->each * p->k;
    if (wide == 16)
        for (size_t u = piece * POOL_UNIQUES; u < end; u++)
            back_join(p, u, 16);
    else
        for (size_t u = piece * POOL_UNIQUES; u < end; u++)
            back_join(p, u, wide);
}

int KERNEL(pool_ffm_backward)(mr_tape *t, node *n)
{
    ffm p = ffm_of(n);
    p.each = MIN((LINE + p.k - 1) / p.k, p.fields);
    p.room_size = sizeof(real) * (p.l->unique + p.fields) * p.each * p.k +
                  sizeof(uint32_t) * p.each + sizeof(double) * (p.each * p.k + 1);
    p.room_size = (p.room_size + 63) / 64 * 64;
    size_t count = pieces(p.fields, p.each);
    p.room = arena_take(tape_arena(t), p.room_size * count);
    p.grad = lookup_grad(t, n, &p.add);
    if (!p.grad || !p.room)
        return -1;
    parallel(count, back_fields, &p);
    parallel(pieces(p.l->unique, POOL_UNIQUES), back_uniques, &p);
    return 0;
}

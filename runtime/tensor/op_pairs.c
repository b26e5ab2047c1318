/* op_pairs.c - the products of all pairs of rows of a sample: [n, f, k] -> [n, f (f - 1) / 2, k].
 *
 *     out[s, (i, j), :] = a[s, i, :] * b[s, j, :] for i < j, by i and then by j; b may be a
 *     da[s, i, :] = sum over j of g * b[s, j, :],  db[s, j, :] = sum over i of g * a[s, i, :],
 *     both in the order of the pairs
 *
 * Xiao et al., "Attentional Factorization Machines", IJCAI 2017, equation (2). */
#include "tensor/op_pool.h"

typedef struct pairing {
    const real *a, *b, *g;
    real *out, *da, *db;
    size_t n, f, k, pairs, each;
    int add_a, add_b;
} pairing;

static pairing pairing_of(mr_tape *t, const node *n)
{
    const node *a = node_in(t, n, 0);
    pairing p = {.a = a->data,
                 .b = node_in(t, n, n->inputs - 1)->data,
                 .n = (size_t)a->dim[0],
                 .f = (size_t)a->dim[1],
                 .k = (size_t)a->dim[2],
                 .pairs = (size_t)n->dim[1]};
    p.each = MAX(ELEMENTS / MAX(p.pairs * p.k, 1), (size_t)1);
    return p;
}

static void forward_piece(void *context, size_t piece)
{
    const pairing *p = context;
    size_t end = MIN((piece + 1) * p->each, p->n), f = p->f, k = p->k;
    for (size_t s = piece * p->each; s < end; s++) {
        const real *a = p->a + s * f * k, *b = p->b + s * f * k;
        real *out = p->out + s * p->pairs * k;
        for (size_t i = 0; i < f; i++)
            for (size_t j = i + 1; j < f; j++, out += k)
                for (size_t l = 0; l < k; l++)
                    out[l] = a[i * k + l] * b[j * k + l];
    }
}

int KERNEL(pairs_forward)(mr_tape *t, node *n)
{
    const node *a = node_in(t, n, 0);
    if (a->rank != 3 || a->dim[1] < 2)
        return fail("pairs: expected [n, 2 or more, k], got %s", node_text(a));
    const node *b = node_in(t, n, n->inputs - 1);
    if (b->rank != 3 || memcmp(a->dim, b->dim, sizeof a->dim) != 0)
        return fail("pairs: shapes %s and %s differ", node_text(a), node_text(b));
    int64_t f = a->dim[1], pairs = f * (f - 1) / 2;
    if (pairs > INT32_MAX)
        return fail("pairs: %s has too many", node_text(a));
    if (node_shape(n, 3, (const int32_t[]){a->dim[0], (int32_t)pairs, a->dim[2]}) ||
        node_data(t, n))
        return -1;
    pairing p = pairing_of(t, n);
    p.out = n->data;
    parallel(pieces(p.n, p.each), forward_piece, &p);
    return 0;
}

static void backward_piece(void *context, size_t piece)
{
    const pairing *p = context;
    size_t end = MIN((piece + 1) * p->each, p->n), f = p->f, k = p->k;
    for (size_t s = piece * p->each; s < end; s++) {
        const real *a = p->a + s * f * k, *b = p->b + s * f * k, *g = p->g + s * p->pairs * k;
        real *da = p->da ? p->da + s * f * k : NULL, *db = p->db ? p->db + s * f * k : NULL;
        if (da && !p->add_a)
            memset(da, 0, sizeof(real) * f * k);
        if (db && !p->add_b)
            memset(db, 0, sizeof(real) * f * k);
        for (size_t i = 0; i < f; i++)
            for (size_t j = i + 1; j < f; j++, g += k) {
                for (size_t l = 0; l < k && da; l++)
                    da[i * k + l] += g[l] * b[j * k + l];
                for (size_t l = 0; l < k && db; l++)
                    db[j * k + l] += g[l] * a[i * k + l];
            }
    }
}

int KERNEL(pairs_backward)(mr_tape *t, node *n)
{
    sink da, db;
    if (node_sink(t, node_in(t, n, 0), &da) || node_sink(t, node_in(t, n, n->inputs - 1), &db))
        return -1;
    pairing p = pairing_of(t, n);
    p.g = n->grad;
    p.da = da.grad;
    p.db = db.grad;
    p.add_a = da.add;
    p.add_b = db.add;
    parallel(pieces(p.n, p.each), backward_piece, &p);
    return 0;
}

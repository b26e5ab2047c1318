/* op_in_batch.c - two towers: softmax over the items of the batch, vectors of length 1, and how
 * often a key is in a batch.
 *
 *     s_ij = <u_i, v_j> / T - q_j,  L_i = ln sum_j exp(s_ij) over j = i and the j whose id is not
 *     that of i (an accidental hit is no negative)
 *     loss = 1/n sum_i c_i (L_i - s_ii),  c_i = w_i y_i
 *     p_ij = c_i (exp(s_ij - L_i) - [i = j]) / (n T),  du_i = sum_j p_ij v_j,  dv_j = sum_i p_ij u_i
 *
 * q is the log-Q correction: Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
 * Recommendations", RecSys 2019. s is never kept: tiles of USERS by ITEMS of it are computed once in
 * forward, which sums exponentials relative to the largest so far, and twice in backward, for du by
 * pieces of users and for dv by pieces of items. */
#include "kernel/kernel_math.h"
#include "tensor/op_pool.h"

enum { USERS = 64, ITEMS = 128 };

typedef struct in_batch {
    const real *u, *v, *y, *w, *q, *id;
    real *du, *dv;
    double *logs; /* [n, 2]: the largest s_ij, and L less that, which a float of L would lose */
    double *loss; /* [n] */
    double scale; /* 1 / T */
    double g;     /* gradient of the loss, over n */
    size_t n, d;
    int add_u, add_v;
} in_batch;

static in_batch in_batch_of(mr_tape *t, const node *n)
{
    const real *of[6];
    for (int i = 0; i < 6; i++) {
        const node *in = node_in_or(t, n, i);
        of[i] = in ? in->data : NULL;
    }
    const node *u = node_in(t, n, 0);
    return (in_batch){.u = of[0],
                      .v = of[1],
                      .y = of[2],
                      .w = of[3],
                      .q = of[4],
                      .id = of[5],
                      .logs = n->saved,
                      .scale = 1 / n->a,
                      .n = (size_t)u->dim[0],
                      .d = (size_t)u->dim[1]};
}

static inline double share(const in_batch *p, size_t i)
{
    return (p->w ? (double)p->w[i] : 1) * (p->y ? (double)p->y[i] : 1);
}

/* s of users i0 .. i0 + rows and items j0 .. j0 + columns, [rows, columns]; -infinity for hits. */
static void tile(const in_batch *p, size_t i0, size_t rows, size_t j0, size_t columns, real *s)
{
    int d = (int)p->d;
    GEMM(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)columns, d, (real)p->scale,
         p->u + i0 * p->d, d, p->v + j0 * p->d, d, 0, s, (int)columns);
    for (size_t i = i0; i < i0 + rows; i++, s += columns) {
        for (size_t j = 0; p->q && j < columns; j++)
            s[j] -= p->q[j0 + j];
        if (!p->id)
            continue;
        real own = i >= j0 && i < j0 + columns ? s[i - j0] : 0, id = p->id[i];
        for (size_t j = 0; j < columns; j++)
            s[j] = p->id[j0 + j] == id ? -(real)INFINITY : s[j];
        if (i >= j0 && i < j0 + columns)
            s[i - j0] = own;
    }
}

static void users_piece(void *context, size_t piece)
{
    const in_batch *p = context;
    real s[USERS * ITEMS], top[USERS];
    double sum[USERS], own[USERS];
    size_t i0 = piece * USERS, rows = MIN((size_t)USERS, p->n - i0);
    for (size_t i = 0; i < rows; i++) {
        top[i] = -(real)INFINITY;
        sum[i] = own[i] = 0;
    }
    for (size_t j0 = 0; j0 < p->n; j0 += ITEMS) {
        size_t columns = MIN((size_t)ITEMS, p->n - j0);
        tile(p, i0, rows, j0, columns, s);
        for (size_t i = 0; i < rows; i++) {
            const real *row = s + i * columns;
            real above = top[i];
            for (size_t j = 0; j < columns; j++)
                above = row[j] > above ? row[j] : above;
            if (above == -(real)INFINITY)
                continue; /* hits only */
            double more = 0;
#pragma omp simd reduction(+ : more)
            for (size_t j = 0; j < columns; j++)
                more += (double)real_exp(row[j] - above);
            sum[i] = sum[i] * exp((double)top[i] - (double)above) + more;
            top[i] = above;
            if (i0 + i >= j0 && i0 + i < j0 + columns)
                own[i] = (double)row[i0 + i - j0];
        }
    }
    for (size_t i = 0; i < rows; i++) {
        double c = share(p, i0 + i);
        double rest = log(sum[i]);
        p->logs[2 * (i0 + i)] = (double)top[i];
        p->logs[2 * (i0 + i) + 1] = rest;
        p->loss[i0 + i] = c == 0 ? 0 : c * ((double)top[i] - own[i] + rest);
    }
}

int KERNEL(in_batch_forward)(mr_tape *t, node *n)
{
    static const char *const what[] = {"users", "items", "labels", "weights", "log_q", "ids"};
    const node *u = node_in(t, n, 0), *v = node_in(t, n, 1);
    if (u->rank != 2 || u->count == 0)
        return fail("in_batch_softmax: expected users [n, d], got %s", node_text(u));
    if (v->rank != 2 || v->dim[0] != u->dim[0] || v->dim[1] != u->dim[1])
        return fail("in_batch_softmax: items are %s, expected %s as the users", node_text(v),
                    node_text(u));
    size_t count = (size_t)u->dim[0];
    for (int i = 2; i < n->inputs; i++) {
        const node *in = node_in_or(t, n, i);
        if (in && in->count != count)
            return fail("in_batch_softmax: %s are %s, expected [%zu] as of the users", what[i],
                        node_text(in), count);
    }
    n->saved = arena_take(tape_arena(t), sizeof(double) * 2 * count);
    in_batch p = in_batch_of(t, n);
    for (size_t i = 0; p.y && i < count; i++)
        if (!(p.y[i] >= 0 && p.y[i] <= 1))
            return fail("in_batch_softmax: the label of sample %zu of the batch is %g, expected 0 "
                        "to 1",
                        i + 1, isnan(p.y[i]) ? (double)NAN : (double)p.y[i]);
    p.loss = arena_take(tape_arena(t), sizeof(double) * count);
    if (!p.logs || !p.loss || node_shape(n, 1, (const int32_t[]){1}) || node_data(t, n))
        return -1;
    parallel(pieces(count, USERS), users_piece, &p);
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += p.loss[i];
    *(real *)n->data = (real)(sum / (double)count);
    return 0;
}

/* p_ij of a tile, in place of s. */
static void tile_back(const in_batch *p, size_t i0, size_t rows, size_t j0, size_t columns, real *s)
{
    tile(p, i0, rows, j0, columns, s);
    for (size_t i = i0; i < i0 + rows; i++, s += columns) {
        real c = (real)(p->g * p->scale * share(p, i));
        real top = (real)p->logs[2 * i], rest = (real)p->logs[2 * i + 1];
        for (size_t j = 0; j < columns; j++)
            s[j] = c * real_exp(s[j] - top - rest);
        if (i >= j0 && i < j0 + columns)
            s[i - j0] -= c;
    }
}

static void users_back_piece(void *context, size_t piece)
{
    const in_batch *p = context;
    real s[USERS * ITEMS];
    int d = (int)p->d;
    size_t i0 = piece * USERS, rows = MIN((size_t)USERS, p->n - i0);
    for (size_t j0 = 0; j0 < p->n; j0 += ITEMS) {
        size_t columns = MIN((size_t)ITEMS, p->n - j0);
        tile_back(p, i0, rows, j0, columns, s);
        GEMM(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, d, (int)columns, 1, s,
             (int)columns, p->v + j0 * p->d, d, j0 || p->add_u ? 1 : 0, p->du + i0 * p->d, d);
    }
}

static void items_back_piece(void *context, size_t piece)
{
    const in_batch *p = context;
    real s[USERS * ITEMS];
    int d = (int)p->d;
    size_t j0 = piece * ITEMS, columns = MIN((size_t)ITEMS, p->n - j0);
    for (size_t i0 = 0; i0 < p->n; i0 += USERS) {
        size_t rows = MIN((size_t)USERS, p->n - i0);
        tile_back(p, i0, rows, j0, columns, s);
        GEMM(CblasRowMajor, CblasTrans, CblasNoTrans, (int)columns, d, (int)rows, 1, s,
             (int)columns, p->u + i0 * p->d, d, i0 || p->add_v ? 1 : 0, p->dv + j0 * p->d, d);
    }
}

int KERNEL(in_batch_backward)(mr_tape *t, node *n)
{
    sink u, v;
    if (node_sink(t, node_in(t, n, 0), &u) || node_sink(t, node_in(t, n, 1), &v))
        return -1;
    in_batch p = in_batch_of(t, n);
    p.du = u.grad;
    p.add_u = u.add;
    p.dv = v.grad;
    p.add_v = v.add;
    p.g = (double)*(real *)n->grad / (double)p.n;
    if (p.du)
        parallel(pieces(p.n, USERS), users_back_piece, &p);
    if (p.dv)
        parallel(pieces(p.n, ITEMS), items_back_piece, &p);
    return 0;
}

/* ---- l2_normalize: y = x / |x|, dx = (dy - y <dy, y>) / |x|, by rows of the last axis ---- */

typedef struct normalizing {
    const real *x, *y, *dy;
    real *to;
    double *length; /* [rows] */
    size_t rows, d;
    int add;
} normalizing;

static normalizing normalizing_of(mr_tape *t, const node *n)
{
    const node *x = node_in(t, n, 0);
    size_t d = (size_t)x->dim[x->rank - 1];
    return (normalizing){.x = x->data,
                         .y = n->data,
                         .dy = n->grad,
                         .length = n->saved,
                         .rows = d ? x->count / d : 0,
                         .d = d};
}

static void normalize_piece(void *context, size_t piece)
{
    const normalizing *p = context;
    size_t end = MIN((piece + 1) * USERS, p->rows);
    for (size_t s = piece * USERS; s < end; s++) {
        const real *x = p->x + s * p->d;
        real *y = p->to + s * p->d;
        double square = 0;
        for (size_t k = 0; k < p->d; k++)
            square += (double)x[k] * (double)x[k];
        p->length[s] = sqrt(square);
        double by = square > 0 ? 1 / p->length[s] : 0;
        for (size_t k = 0; k < p->d; k++)
            y[k] = (real)((double)x[k] * by);
    }
}

int KERNEL(l2_normalize_forward)(mr_tape *t, node *n)
{
    const node *x = node_in(t, n, 0);
    if (node_shape(n, x->rank, x->dim) || node_data(t, n))
        return -1;
    n->saved = arena_take(tape_arena(t), sizeof(double) * MAX(x->count, (size_t)1));
    normalizing p = normalizing_of(t, n);
    p.to = n->data;
    if (!p.length)
        return -1;
    parallel(pieces(p.rows, USERS), normalize_piece, &p);
    return 0;
}

static void normalize_back_piece(void *context, size_t piece)
{
    const normalizing *p = context;
    size_t end = MIN((piece + 1) * USERS, p->rows);
    for (size_t s = piece * USERS; s < end; s++) {
        const real *y = p->y + s * p->d, *dy = p->dy + s * p->d;
        real *to = p->to + s * p->d;
        double along = 0, by = p->length[s] > 0 ? 1 / p->length[s] : 0;
        for (size_t k = 0; k < p->d; k++)
            along += (double)dy[k] * (double)y[k];
        for (size_t k = 0; k < p->d; k++) {
            real grad = (real)(((double)dy[k] - (double)y[k] * along) * by);
            to[k] = p->add ? to[k] + grad : grad;
        }
    }
}

int KERNEL(l2_normalize_backward)(mr_tape *t, node *n)
{
    sink s;
    if (node_sink(t, node_in(t, n, 0), &s))
        return -1;
    normalizing p = normalizing_of(t, n);
    p.to = s.grad;
    p.add = s.add;
    if (p.to)
        parallel(pieces(p.rows, USERS), normalize_back_piece, &p);
    return 0;
}

/* ---- frequency: Yi et al., 2019, algorithm 2 ----
 *
 * For each bucket h of keys the step A_h of the last batch that had one, and the mean number B_h of
 * steps between such batches: B_h = (1 - rate) B_h + rate (step - A_h), A_h = step, once a step; a bucket
 * that comes first at step t begins with B_h = t. ln q = -ln B_h. Steps are kept modulo 2^24, as far
 * as floats hold whole numbers. */

int KERNEL(frequency_forward)(mr_tape *t, node *n)
{
    enum { WRAP = 1 << 24 };
    int32_t dim[RANK_MAX];
    if (param_shape(n->param[0], dim) != 2 || dim[0] != 2 || node_data(t, n))
        return dim[0] != 2 ? fail("frequency: its param is not [2, buckets]") : -1;
    float *last = mr_param_data(n->param[0]), *gap = last + dim[1];
    const uint64_t *keys = n->saved;
    float now = (float)(tape_step(t) % WRAP);
    for (size_t s = 0; s < n->count; s++) {
        size_t h = mix64(keys[s]) % (size_t)dim[1];
        if (tape_training(t) && gap[h] == 0) {
            gap[h] = MAX(now, 1);
            last[h] = now;
        } else if (tape_training(t) && last[h] != now) {
            float since = now - last[h] + (now < last[h] ? WRAP : 0);
            gap[h] += (float)n->a * (since - gap[h]);
            last[h] = now;
        }
        ((real *)n->data)[s] = (real)-log((double)MAX(gap[h], 1));
    }
    return 0;
}

int KERNEL(frequency_backward)(mr_tape *t, node *n)
{
    (void)t;
    (void)n;
    return 0; /* a constant */
}

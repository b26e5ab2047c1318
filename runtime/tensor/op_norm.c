/* op_norm.c - batch normalisation over the samples, for each of the d elements of the last axis, and
 * layer normalisation over that axis.
 *
 *     h = (a - mu) r,  r = 1 / sqrt(var + eps),  out = gamma h + beta
 *     dbeta = sum g,  dgamma = sum g h,
 *     da = gamma r (g - (sum g) / m - h (sum g h) / m)
 *
 * mu and var (biased) are those of the m rows of the batch in training; the running ones move towards mu and
 * m / (m - 1) var, once a step, when backward passes: a batch that was only looked at, or refused, leaves
 * no trace. With a mask the rows where it is 0 are not among the m: they are normalised as the others are,
 * and their da is gamma r g.
 *
 * In evaluation, and in training where m is below 2 (one row has no variance), mu and var are the running
 * ones, constants: da = gamma r g, and the running ones stay as they are.
 *
 * Work is cut by columns, so that each sum is one thread's, in double, in the order of the samples. What is
 * subtracted from a float is kept as two, so that a large mean leaves the digits of a small variance. Ioffe
 * and Szegedy, 2015. */
#include <math.h>

#include "kernel/kernel.h"
#include "tensor/op_pool.h"

enum { COLUMNS = 32 };

/* A double as the sum of two reals. */
typedef struct split {
    real high, low;
} split;

static INLINE split split_of(double x)
{
    real high = (real)x;
    return (split){high, (real)(x - (double)high)};
}

typedef struct norm {
    const real *a, *gamma, *beta, *mask, *g;
    real *out;               /* or da */
    double *mean, *variance; /* [d] in training: what a is normalised by, or NULL */
    const float *running_mean, *running_variance;
    real *dgamma, *dbeta;
    int add, add_gamma, add_beta;
    size_t n, d, m; /* m: rows that the statistics are of; 0: they are the running ones */
    double eps;
} norm;

static norm norm_of(mr_tape *t, const node *n)
{
    const node *a = node_in(t, n, 0), *gamma = node_in_or(t, n, 1), *beta = node_in_or(t, n, 2);
    const node *mask = node_in_or(t, n, 3);
    size_t d = (size_t)a->dim[a->rank - 1];
    double *saved = n->saved;
    return (norm){.a = a->data,
                  .gamma = gamma ? gamma->data : NULL,
                  .beta = beta ? beta->data : NULL,
                  .mask = mask ? mask->data : NULL,
                  .g = n->grad,
                  .out = n->data,
                  .mean = saved,
                  .variance = saved ? saved + d : NULL,
                  .running_mean = mr_param_data(n->param[0]),
                  .running_variance = mr_param_data(n->param[1]),
                  .n = d ? a->count / d : 0,
                  .d = d,
                  .m = (size_t)n->code,
                  .eps = n->b};
}

static INLINE int counts(const norm *p, size_t s)
{
    return !p->mask || p->mask[s] != 0;
}

static void batch_moments(const norm *p, const real *a, size_t width, double *mean,
                          double *variance)
{
    for (size_t s = 0; s < p->n; s++)
        for (size_t j = 0; j < width && counts(p, s); j++)
            mean[j] += (double)a[s * p->d + j];
    for (size_t j = 0; j < width; j++)
        mean[j] /= (double)p->m;
    for (size_t s = 0; s < p->n; s++)
        for (size_t j = 0; j < width && counts(p, s); j++) {
            double off = (double)a[s * p->d + j] - mean[j];
            variance[j] += off * off;
        }
    for (size_t j = 0; j < width; j++)
        variance[j] /= (double)p->m;
}

static void forward_columns(void *context, size_t piece)
{
    const norm *p = context;
    size_t begin = piece * COLUMNS, width = MIN((size_t)COLUMNS, p->d - begin);
    double mean[COLUMNS] = {0}, variance[COLUMNS] = {0};
    const real *a = p->a + begin;
    if (p->m)
        batch_moments(p, a, width, mean, variance);
    for (size_t j = 0; j < width && !p->m; j++) {
        mean[j] = (double)p->running_mean[begin + j];
        variance[j] = (double)p->running_variance[begin + j];
    }
    for (size_t j = 0; j < width && p->mean; j++) {
        p->mean[begin + j] = mean[j];
        p->variance[begin + j] = variance[j];
    }
    real high[COLUMNS], low[COLUMNS], scale[COLUMNS], shift[COLUMNS];
    for (size_t j = 0; j < width; j++) {
        double gamma = p->gamma ? (double)p->gamma[begin + j] : 1;
        split centre = split_of(mean[j]);
        high[j] = centre.high;
        low[j] = centre.low;
        scale[j] = (real)(gamma / sqrt(variance[j] + p->eps));
        shift[j] = p->beta ? p->beta[begin + j] : 0;
    }
    real *out = p->out + begin;
    for (size_t s = 0; s < p->n; s++)
        for (size_t j = 0; j < width; j++)
            out[s * p->d + j] = (a[s * p->d + j] - high[j] - low[j]) * scale[j] + shift[j];
}

int KERNEL(batch_norm_forward)(mr_tape *t, node *n)
{
    const node *a = node_in(t, n, 0), *mask = node_in_or(t, n, 3);
    size_t d = (size_t)a->dim[a->rank - 1], rows = d ? a->count / d : 0;
    if (a->rank < 2)
        return fail("batch_norm: expected [n, d], got %s", node_text(a));
    for (int i = 1; i < 3; i++) {
        const node *in = node_in_or(t, n, i);
        if (in && in->count != d)
            return fail("batch_norm: %s is %s, expected [%zu] for an input %s",
                        i == 1 ? "gamma" : "beta", node_text(in), d, node_text(a));
    }
    if (mask && mask->count != rows)
        return fail("batch_norm: a mask %s does not fit %s, expected [%zu]", node_text(mask),
                    node_text(a), rows);
    for (int i = 0; i < 2; i++)
        if (param_count(n->param[i]) != d)
            return fail("batch_norm: %s has %zu elements, expected %zu for an input %s",
                        param_name(n->param[i]), param_count(n->param[i]), d, node_text(a));
    n->code = 0;
    if (tape_training(t)) {
        n->saved = arena_take(tape_arena(t), sizeof(double) * 2 * d);
        if (!n->saved)
            return -1;
        norm p = norm_of(t, n);
        for (size_t s = 0; s < rows; s++)
            n->code += counts(&p, s);
        if (n->code < 2)
            n->code = 0;
    }
    if (node_shape(n, a->rank, a->dim) || node_data(t, n))
        return -1;
    norm p = norm_of(t, n);
    parallel(pieces(d, COLUMNS), forward_columns, &p);
    return 0;
}

static void backward_columns(void *context, size_t piece)
{
    const norm *p = context;
    size_t begin = piece * COLUMNS, width = MIN((size_t)COLUMNS, p->d - begin);
    double sum_g[COLUMNS] = {0}, sum_gh[COLUMNS] = {0}, r[COLUMNS];
    const real *a = p->a + begin, *g = p->g + begin;
    const double *mean = p->mean + begin;
    for (size_t j = 0; j < width; j++)
        r[j] = 1 / sqrt(p->variance[begin + j] + p->eps);
    for (size_t s = 0; s < p->n; s++)
        for (size_t j = 0; j < width; j++) {
            double h = ((double)a[s * p->d + j] - mean[j]) * r[j], gi = (double)g[s * p->d + j];
            sum_g[j] += gi;
            sum_gh[j] += gi * h;
        }
    for (size_t j = 0; j < width && p->dgamma; j++)
        p->dgamma[begin + j] = (p->add_gamma ? p->dgamma[begin + j] : 0) + (real)sum_gh[j];
    for (size_t j = 0; j < width && p->dbeta; j++)
        p->dbeta[begin + j] = (p->add_beta ? p->dbeta[begin + j] : 0) + (real)sum_g[j];
    if (!p->out)
        return;
    real high[COLUMNS], low[COLUMNS], scale[COLUMNS], by_g[COLUMNS], rest[COLUMNS], by_h[COLUMNS];
    for (size_t j = 0; j < width; j++) {
        double m = p->m ? (double)p->m : INFINITY;
        split centre = split_of(mean[j]), mean_g = split_of(sum_g[j] / m);
        high[j] = centre.high;
        low[j] = centre.low;
        scale[j] = (real)((p->gamma ? (double)p->gamma[begin + j] : 1) * r[j]);
        by_g[j] = mean_g.high;
        rest[j] = mean_g.low;
        by_h[j] = (real)(sum_gh[j] / m * r[j]);
    }
    real *da = p->out + begin;
    for (size_t s = 0; s < p->n; s++) {
        int of_batch = counts(p, s);
        for (size_t j = 0; j < width; j++) {
            size_t i = s * p->d + j;
            real centred = g[i] - by_g[j] - rest[j] - (a[i] - high[j] - low[j]) * by_h[j];
            real grad = scale[j] * (of_batch ? centred : g[i]);
            da[i] = p->add ? da[i] + grad : grad;
        }
    }
}

int KERNEL(batch_norm_backward)(mr_tape *t, node *n)
{
    norm p = norm_of(t, n);
    sink da, dgamma = {NULL, 0}, dbeta = {NULL, 0};
    if (node_sink(t, node_in(t, n, 0), &da) ||
        (p.gamma && node_sink(t, node_in(t, n, 1), &dgamma)) ||
        (p.beta && node_sink(t, node_in(t, n, 2), &dbeta)))
        return -1;
    p.out = da.grad;
    p.add = da.add;
    p.dgamma = dgamma.grad;
    p.add_gamma = dgamma.add;
    p.dbeta = dbeta.grad;
    p.add_beta = dbeta.add;
    parallel(pieces(p.d, COLUMNS), backward_columns, &p);
    if (n->updated || !p.m || tape_real(t) != sizeof(float))
        return 0;
    n->updated = 1;
    float *mean = mr_param_data(n->param[0]), *variance = mr_param_data(n->param[1]);
    double unbiased = (double)p.m / (double)(p.m - 1);
    for (size_t j = 0; j < p.d; j++) {
        mean[j] = (float)((1 - n->a) * (double)mean[j] + n->a * p.mean[j]);
        variance[j] = (float)((1 - n->a) * (double)variance[j] + n->a * unbiased * p.variance[j]);
    }
    return 0;
}

/* ---- layer norm: of each row a of d elements, whatever the others are ----
 *
 *     h = (a - mu) r,  r = 1 / sqrt(var + eps),  out = gamma h + beta
 *     dbeta = sum g,  dgamma = sum g h  over the rows,
 *     da = r (q - mean q - h mean (q h)),  q = gamma g
 *
 * mu and var (biased) are the row's, in double. Ba, Kiros and Hinton, 2016. */

typedef struct layer {
    const real *a, *gamma, *beta, *g;
    real *out;     /* or da */
    double *saved; /* [rows, 2]: mu and r */
    real *dgamma, *dbeta;
    int add, add_gamma, add_beta;
    size_t rows, d, each, row_pieces;
    double eps;
} layer;

static layer layer_of(mr_tape *t, const node *n)
{
    const node *a = node_in(t, n, 0);
    size_t d = (size_t)a->dim[a->rank - 1];
    return (layer){.a = a->data,
                   .gamma = n->inputs > 1 && n->in[1] >= 0 ? node_in(t, n, 1)->data : NULL,
                   .beta = n->inputs > 2 ? node_in(t, n, 2)->data : NULL,
                   .g = n->grad,
                   .out = n->data,
                   .saved = n->saved,
                   .rows = d ? n->count / d : 0,
                   .d = d,
                   .each = MAX(ELEMENTS / 4 / MAX(d, 1), (size_t)1),
                   .eps = n->b};
}

static void layer_rows(void *context, size_t piece)
{
    const layer *p = context;
    size_t end = MIN((piece + 1) * p->each, p->rows), d = p->d;
    for (size_t s = piece * p->each; s < end; s++) {
        const real *a = p->a + s * d;
        real *out = p->out + s * d;
        double mean = 0, variance = 0;
#pragma omp simd reduction(+ : mean)
        for (size_t j = 0; j < d; j++)
            mean += (double)a[j];
        mean /= (double)d;
#pragma omp simd reduction(+ : variance)
        for (size_t j = 0; j < d; j++)
            variance += ((double)a[j] - mean) * ((double)a[j] - mean);
        double r = 1 / sqrt(variance / (double)d + p->eps);
        p->saved[2 * s] = mean;
        p->saved[2 * s + 1] = r;
        split centre = split_of(mean);
        for (size_t j = 0; j < d; j++)
            out[j] = (a[j] - centre.high - centre.low) * (real)r;
        for (size_t j = 0; j < d && p->gamma; j++)
            out[j] *= p->gamma[j];
        for (size_t j = 0; j < d && p->beta; j++)
            out[j] += p->beta[j];
    }
}

int KERNEL(layer_norm_forward)(mr_tape *t, node *n)
{
    const node *a = node_in(t, n, 0);
    size_t d = (size_t)a->dim[a->rank - 1];
    for (int i = 1; i < n->inputs; i++)
        if (n->in[i] >= 0 && node_in(t, n, i)->count != d)
            return fail("layer_norm: %s is %s, expected [%zu] for an input %s",
                        i == 1 ? "gamma" : "beta", node_text(node_in(t, n, i)), d, node_text(a));
    if (node_shape(n, a->rank, a->dim) || node_data(t, n))
        return -1;
    n->saved = arena_take(tape_arena(t), sizeof(double) * 2 * (d ? n->count / d : 0));
    if (!n->saved)
        return -1;
    layer p = layer_of(t, n);
    parallel(pieces(p.rows, p.each), layer_rows, &p);
    return 0;
}

static void layer_rows_back(const layer *p, size_t piece)
{
    size_t end = MIN((piece + 1) * p->each, p->rows), d = p->d;
    for (size_t s = piece * p->each; s < end; s++) {
        const real *a = p->a + s * d, *g = p->g + s * d;
        split centre = split_of(p->saved[2 * s]);
        real *da = p->out + s * d, r = (real)p->saved[2 * s + 1];
        double q = 0, qh = 0;
#pragma omp simd reduction(+ : q, qh)
        for (size_t j = 0; j < d; j++) {
            double one = (double)(p->gamma ? p->gamma[j] * g[j] : g[j]);
            q += one;
            qh += one * (double)((a[j] - centre.high - centre.low) * r);
        }
        split by_g = split_of(q / (double)d);
        real by_h = (real)(qh / (double)d);
        for (size_t j = 0; j < d; j++) {
            real one = p->gamma ? p->gamma[j] * g[j] : g[j];
            real h = (a[j] - centre.high - centre.low) * r;
            real grad = r * (one - by_g.high - by_g.low - h * by_h);
            da[j] = p->add ? da[j] + grad : grad;
        }
    }
}

static void layer_columns_back(const layer *p, size_t piece)
{
    size_t begin = piece * COLUMNS, width = MIN((size_t)COLUMNS, p->d - begin);
    double sum_g[COLUMNS] = {0}, sum_gh[COLUMNS] = {0};
    for (size_t s = 0; s < p->rows; s++) {
        const real *a = p->a + s * p->d + begin, *g = p->g + s * p->d + begin;
        double mean = p->saved[2 * s], r = p->saved[2 * s + 1];
        for (size_t j = 0; j < width; j++) {
            sum_g[j] += (double)g[j];
            sum_gh[j] += (double)g[j] * (((double)a[j] - mean) * r);
        }
    }
    for (size_t j = 0; j < width && p->dgamma; j++)
        p->dgamma[begin + j] = (p->add_gamma ? p->dgamma[begin + j] : 0) + (real)sum_gh[j];
    for (size_t j = 0; j < width && p->dbeta; j++)
        p->dbeta[begin + j] = (p->add_beta ? p->dbeta[begin + j] : 0) + (real)sum_g[j];
}

static void layer_back(void *context, size_t piece)
{
    const layer *p = context;
    if (piece < p->row_pieces)
        layer_rows_back(p, piece);
    else
        layer_columns_back(p, piece - p->row_pieces);
}

int KERNEL(layer_norm_backward)(mr_tape *t, node *n)
{
    layer p = layer_of(t, n);
    sink da, dgamma = {NULL, 0}, dbeta = {NULL, 0};
    if (node_sink(t, node_in(t, n, 0), &da) ||
        (p.gamma && node_sink(t, node_in(t, n, 1), &dgamma)) ||
        (p.beta && node_sink(t, node_in(t, n, 2), &dbeta)))
        return -1;
    p.out = da.grad;
    p.add = da.add;
    p.dgamma = dgamma.grad;
    p.add_gamma = dgamma.add;
    p.dbeta = dbeta.grad;
    p.add_beta = dbeta.add;
    p.row_pieces = p.out ? pieces(p.rows, p.each) : 0;
    parallel(p.row_pieces + (p.dgamma || p.dbeta ? pieces(p.d, COLUMNS) : 0), layer_back, &p);
    return 0;
}

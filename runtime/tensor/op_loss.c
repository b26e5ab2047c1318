/* op_loss.c - what ends in one number: sum, mean, and the losses of a score and a label a sample.
 * Sums are in double, in pieces of ELEMENTS that are added in their order. */
#include <math.h>

#include "kernel/kernel.h"
#include "tensor/op_pool.h"

/* ---- sum and mean of all elements: da = g, or g / count ---- */

typedef struct reducing {
    const real *a;
    double *sum; /* [pieces] */
    size_t count;
    real *to;
    real g;
    int add;
} reducing;

static void sum_piece(void *context, size_t piece)
{
    const reducing *p = context;
    size_t begin = piece * ELEMENTS, n = MIN((size_t)ELEMENTS, p->count - begin);
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += (double)p->a[begin + i];
    p->sum[piece] = sum;
}

int KERNEL(reduce_forward)(mr_tape *t, node *n)
{
    const node *a = node_in(t, n, 0);
    reducing p = {.a = a->data, .count = a->count};
    size_t parts = pieces(a->count, ELEMENTS);
    p.sum = arena_take(tape_arena(t), sizeof(double) * parts);
    if (!p.sum || node_shape(n, 1, (const int32_t[]){1}) || node_data(t, n))
        return -1;
    if (n->op == OP_MEAN && a->count == 0)
        return fail("mean: %s has no elements", node_text(a));
    parallel(parts, sum_piece, &p);
    double sum = 0;
    for (size_t i = 0; i < parts; i++)
        sum += p.sum[i];
    *(real *)n->data = (real)(n->op == OP_MEAN ? sum / (double)a->count : sum);
    return 0;
}

static void spread_piece(void *context, size_t piece)
{
    const reducing *p = context;
    size_t end = MIN((piece + 1) * ELEMENTS, p->count);
    for (size_t i = piece * ELEMENTS; i < end; i++)
        p->to[i] = p->add ? p->to[i] + p->g : p->g;
}

int KERNEL(reduce_backward)(mr_tape *t, node *n)
{
    node *a = node_in(t, n, 0);
    sink s;
    if (node_sink(t, a, &s))
        return -1;
    real g = *(real *)n->grad;
    reducing p = {.count = a->count,
                  .to = s.grad,
                  .add = s.add,
                  .g = n->op == OP_MEAN ? (real)((double)g / (double)a->count) : g};
    if (p.to)
        parallel(pieces(a->count, ELEMENTS), spread_piece, &p);
    return 0;
}

/* ---- losses of a score a and a label y a sample, weighted by w, mean over n ----
 *
 * With r = a - y and softplus(x) = max(x, 0) + ln(1 + exp(-|x|)):
 *
 *     bce       p y softplus(-a) + (1 - y) softplus(a), y moved to (1 - e) y + e / 2 before
 *     mse       r^2
 *     mae       |r|
 *     huber     r^2 / 2 where |r| <= d, else d (|r| - d / 2): Huber, 1964
 *     hinge     max(0, 1 - t a), t = 1 for y > 0, else -1
 *     poisson   exp(a) - y a: -ln P(y) of a count whose mean is exp(a), without ln y!
 *     quantile  q |r| below the label, (1 - q) |r| above: Koenker and Bassett, 1978
 *     bpr       softplus(-r) of a positive's score a and a negative's y: Rendle et al., 2009
 *
 * The derivative of each by a is slope(); at a corner it is 0, or the side of r = 0 for hinge.
 * Losses of r alone pass the opposite of it to y, if that wants a gradient. */

typedef struct loss {
    const real *a, *y, *w;
    real *to, *to_y;
    double *sum; /* [pieces] */
    double g;    /* gradient of the loss, over n */
    double first, second;
    size_t n;
    int kind, add, add_y;
} loss;

enum { SAMPLES = 512 };

static const char *const loss_name[] = {
    [MR_BCE] = "bce",           [MR_MSE] = "mse",     [MR_MAE] = "mae",
    [MR_HUBER] = "huber",       [MR_HINGE] = "hinge", [MR_POISSON] = "poisson",
    [MR_QUANTILE] = "quantile", [MR_BPR] = "bpr"};

static loss loss_of(mr_tape *t, const node *n)
{
    const node *a = node_in(t, n, 0);
    return (loss){.a = a->data,
                  .y = node_in(t, n, 1)->data,
                  .w = n->inputs > 2 ? node_in(t, n, 2)->data : NULL,
                  .n = a->count,
                  .first = n->a,
                  .second = n->b,
                  .kind = n->code};
}

static inline double softplus(double x)
{
    return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
}

/* softplus(a) - a y, whose first terms cancel before the last is added. */
static inline double bce(double a, double y)
{
    return (a > 0 ? a * (1 - y) : -a * y) + log1p(exp(-fabs(a)));
}

static inline double smooth(double y, double by)
{
    return y + by * (0.5 - y);
}

static inline double value(const loss *p, double a, double y)
{
    double r = a - y, size = fabs(r);
    switch (p->kind) {
    case MR_BCE:
        y = smooth(y, p->second);
        if (p->first == 1)
            return bce(a, y);
        return p->first * y * softplus(-a) + (1 - y) * softplus(a);
    case MR_MSE:
        return r * r;
    case MR_MAE:
        return size;
    case MR_HUBER:
        return size <= p->first ? r * r / 2 : p->first * (size - p->first / 2);
    case MR_HINGE:
        return fmax(0, y > 0 ? 1 - a : 1 + a);
    case MR_POISSON:
        return exp(a) - y * a;
    case MR_QUANTILE:
        return (r < 0 ? p->first : 1 - p->first) * size;
    default:
        return softplus(-r);
    }
}

static inline double slope(const loss *p, double a, double y)
{
    double r = a - y;
    switch (p->kind) {
    case MR_BCE:
        y = smooth(y, p->second);
        return (1 - y + p->first * y) / (1 + exp(-a)) - p->first * y;
    case MR_MSE:
        return 2 * r;
    case MR_MAE:
        return (r > 0) - (r < 0);
    case MR_HUBER:
        return fmax(-p->first, fmin(r, p->first));
    case MR_HINGE:
        return y > 0 ? -(a < 1) : a > -1;
    case MR_POISSON:
        return exp(a) - y;
    case MR_QUANTILE:
        return r < 0 ? -p->first : r > 0 ? 1 - p->first : 0;
    default:
        return -1 / (1 + exp(r));
    }
}

static void loss_piece(void *context, size_t piece)
{
    const loss *p = context;
    size_t end = MIN((piece + 1) * SAMPLES, p->n);
    double sum = 0;
    for (size_t s = piece * SAMPLES; s < end; s++)
        sum += (p->w ? (double)p->w[s] : 1) * value(p, (double)p->a[s], (double)p->y[s]);
    p->sum[piece] = sum;
}

/* What is wrong with a label: NULL, or what was expected. */
static const char *label_wrong(int kind, double y)
{
    switch (kind) {
    case MR_BCE:
        return y >= 0 && y <= 1 ? NULL : "0 to 1";
    case MR_HINGE:
        return y == 0 || y == 1 || y == -1 ? NULL : "0 or 1 (or -1 or 1)";
    case MR_POISSON:
        return y >= 0 && isfinite(y) ? NULL : "a count of at least 0";
    case MR_BPR:
        return NULL; /* a score: backward reports a loss that is not finite */
    default:
        return isfinite(y) ? NULL : "a finite number";
    }
}

int KERNEL(loss_forward)(mr_tape *t, node *n)
{
    const char *name = loss_name[n->code];
    const node *a = node_in(t, n, 0);
    size_t count = a->count, parts = pieces(count, SAMPLES);
    if (count != (size_t)a->dim[0] || count == 0)
        return fail("%s: expected scores [n, 1], got %s", name, node_text(a));
    for (int i = 1; i < n->inputs; i++)
        if (node_in(t, n, i)->count != count)
            return fail("%s: %s are %s, expected [%zu] as of the scores", name,
                        i == 2              ? "weights"
                        : n->code == MR_BPR ? "scores of negatives"
                                            : "labels",
                        node_text(node_in(t, n, i)), count);
    loss p = loss_of(t, n);
    for (size_t s = 0; s < count; s++) {
        const char *expected = label_wrong(n->code, (double)p.y[s]);
        if (expected)
            return fail("%s: the label of sample %zu of the batch is %g, expected %s", name, s + 1,
                        isnan(p.y[s]) ? (double)NAN : (double)p.y[s], expected);
    }
    p.sum = arena_take(tape_arena(t), sizeof(double) * parts);
    if (!p.sum || node_shape(n, 1, (const int32_t[]){1}) || node_data(t, n))
        return -1;
    parallel(parts, loss_piece, &p);
    double sum = 0;
    for (size_t i = 0; i < parts; i++)
        sum += p.sum[i];
    *(real *)n->data = (real)(sum / (double)count);
    return 0;
}

static void loss_back_piece(void *context, size_t piece)
{
    const loss *p = context;
    size_t end = MIN((piece + 1) * SAMPLES, p->n);
    for (size_t s = piece * SAMPLES; s < end; s++) {
        double d = slope(p, (double)p->a[s], (double)p->y[s]);
        real grad = (real)(p->g * (p->w ? (double)p->w[s] : 1) * d);
        if (p->to)
            p->to[s] = p->add ? p->to[s] + grad : grad;
        if (p->to_y)
            p->to_y[s] = p->add_y ? p->to_y[s] - grad : -grad;
    }
}

int KERNEL(loss_backward)(mr_tape *t, node *n)
{
    sink a, y = {NULL, 0};
    int of_r = n->code != MR_BCE && n->code != MR_HINGE && n->code != MR_POISSON;
    if (node_sink(t, node_in(t, n, 0), &a) || (of_r && node_sink(t, node_in(t, n, 1), &y)))
        return -1;
    loss p = loss_of(t, n);
    p.to = a.grad;
    p.add = a.add;
    p.to_y = y.grad;
    p.add_y = y.add;
    p.g = (double)*(real *)n->grad / (double)p.n;
    if (p.to || p.to_y)
        parallel(pieces(p.n, SAMPLES), loss_back_piece, &p);
    return 0;
}

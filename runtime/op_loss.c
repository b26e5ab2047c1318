/* op_loss.c - what ends in one number: sum, mean, binary cross-entropy and squared error. Sums
 * are in double, in pieces of ELEMENTS that are added in their order. */
#include <math.h>

#include "kernel.h"
#include "op_pool.h"

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
 *     bce  max(a, 0) - a y + ln(1 + exp(-|a|))     da = w (sigmoid(a) - y) / n
 *     mse  (a - y)^2                               da = 2 w (a - y) / n */

typedef struct loss {
    const real *a, *y, *w;
    real *to;
    double *sum; /* [pieces] */
    double g;    /* gradient of the loss, over n */
    size_t n;
    int op, add;
} loss;

enum { SAMPLES = 512 };

static loss loss_of(mr_tape *t, const node *n)
{
    const node *a = node_in(t, n, 0);
    return (loss){.a = a->data,
                  .y = node_in(t, n, 1)->data,
                  .w = n->inputs > 2 ? node_in(t, n, 2)->data : NULL,
                  .n = a->count,
                  .op = n->op};
}

static void loss_piece(void *context, size_t piece)
{
    const loss *p = context;
    size_t end = MIN((piece + 1) * SAMPLES, p->n);
    double sum = 0;
    for (size_t s = piece * SAMPLES; s < end; s++) {
        double a = (double)p->a[s], y = (double)p->y[s], one;
        if (p->op == OP_BCE)
            one = (a > 0 ? a : 0) - a * y + log1p(exp(-fabs(a)));
        else
            one = (a - y) * (a - y);
        sum += p->w ? (double)p->w[s] * one : one;
    }
    p->sum[piece] = sum;
}

static int loss_forward(mr_tape *t, node *n, const char *name)
{
    const node *a = node_in(t, n, 0);
    size_t count = a->count, parts = pieces(count, SAMPLES);
    if (count != (size_t)a->dim[0] || count == 0)
        return fail("%s: expected scores [n, 1], got %s", name, node_text(a));
    for (int i = 1; i < n->inputs; i++)
        if (node_in(t, n, i)->count != count)
            return fail("%s: %s are %s, expected [%zu] as of the scores", name,
                        i == 1 ? "labels" : "weights", node_text(node_in(t, n, i)), count);
    loss p = loss_of(t, n);
    for (size_t s = 0; s < count; s++)
        if (n->op == OP_BCE ? !(p.y[s] >= 0 && p.y[s] <= 1) : !isfinite(p.y[s]))
            return fail("%s: the label of sample %zu of the batch is %g, expected %s", name, s + 1,
                        isnan(p.y[s]) ? (double)NAN : (double)p.y[s],
                        n->op == OP_BCE ? "0 to 1" : "a finite number");
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
        double a = (double)p->a[s], y = (double)p->y[s];
        double d = p->op == OP_BCE ? 1 / (1 + exp(-a)) - y : 2 * (a - y);
        real grad = (real)(p->g * (p->w ? (double)p->w[s] : 1) * d);
        p->to[s] = p->add ? p->to[s] + grad : grad;
    }
}

static int loss_backward(mr_tape *t, node *n)
{
    sink s;
    if (node_sink(t, node_in(t, n, 0), &s))
        return -1;
    loss p = loss_of(t, n);
    p.to = s.grad;
    p.add = s.add;
    p.g = (double)*(real *)n->grad / (double)p.n;
    if (p.to)
        parallel(pieces(p.n, SAMPLES), loss_back_piece, &p);
    return 0;
}

int KERNEL(bce_forward)(mr_tape *t, node *n)
{
    return loss_forward(t, n, "bce");
}

int KERNEL(bce_backward)(mr_tape *t, node *n)
{
    return loss_backward(t, n);
}

int KERNEL(mse_forward)(mr_tape *t, node *n)
{
    return loss_forward(t, n, "mse");
}

int KERNEL(mse_backward)(mr_tape *t, node *n)
{
    return loss_backward(t, n);
}

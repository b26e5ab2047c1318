/* op_cross_entropy.c - softmax cross-entropy over classes: z [n, c], labels y [n] of a class or
 * probabilities [n, c], weighted by w, mean over n; with label smoothing e (Szegedy et al., 2016).
 *
 *     t_j = (1 - e) y_j + e / c,  T = sum_j t_j,  L = ln sum_j exp(z_j)
 *     loss = sum_j t_j (L - z_j)          dz_j = w (T softmax(z)_j - t_j) / n
 *
 * L is kept for backward as the largest z and ln sum_j exp(z_j - that), since a float of their sum would
 * lose the second beside a large first. */
#include "kernel/kernel_math.h"
#include "tensor/op_pool.h"

enum { CLASS_SAMPLES = 64, PROBABILITY_SLACK = 1000 /* probabilities sum to 1 within 1 / this */ };

typedef struct entropy {
    const real *z, *y, *w;
    real *to;
    double *sum;  /* [pieces] */
    double *logs; /* [n, 2]: the largest z, and L less that */
    double g, smoothing;
    size_t n, c;
    int classes, add; /* classes: y is one a sample */
} entropy;

static int is_class(const node *z, const node *y)
{
    return !(y->rank == 2 && y->dim[1] == z->dim[1] && z->dim[1] > 1);
}

static entropy entropy_of(mr_tape *t, const node *n)
{
    const node *z = node_in(t, n, 0), *y = node_in(t, n, 1), *w = node_in_or(t, n, 2);
    return (entropy){.z = z->data,
                     .y = y->data,
                     .w = w ? w->data : NULL,
                     .logs = n->saved,
                     .smoothing = n->a,
                     .n = (size_t)z->dim[0],
                     .c = (size_t)z->dim[1],
                     .classes = is_class(z, y)};
}

static inline double target(const entropy *p, size_t s, size_t j)
{
    double y = p->classes ? (double)p->y[s] == (double)j : (double)p->y[s * p->c + j];
    return y + p->smoothing * (1 / (double)p->c - y);
}

static void entropy_piece(void *context, size_t piece)
{
    const entropy *p = context;
    size_t end = MIN((piece + 1) * CLASS_SAMPLES, p->n);
    double total = 0;
    for (size_t s = piece * CLASS_SAMPLES; s < end; s++) {
        const real *z = p->z + s * p->c;
        real top = z[0];
        for (size_t j = 1; j < p->c; j++)
            top = z[j] > top ? z[j] : top;
        double sum = (double)real_exp(z[0] - top), loss = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t j = 1; j < p->c; j++)
            sum += (double)real_exp(z[j] - top);
        double rest = log(sum);
        p->logs[2 * s] = (double)top;
        p->logs[2 * s + 1] = rest;
        for (size_t j = 0; j < p->c; j++) {
            double to = target(p, s, j);
            loss += to == 0 ? 0 : to * ((double)top - (double)z[j] + rest);
        }
        total += (p->w ? (double)p->w[s] : 1) * loss;
    }
    p->sum[piece] = total;
}

static int entropy_labels(const entropy *p)
{
    for (size_t s = 0; s < p->n; s++) {
        double y = (double)p->y[s], sum = 0;
        if (p->classes) {
            if (!(y >= 0 && y < (double)p->c && y == floor(y)))
                return fail("cross_entropy: the label of sample %zu of the batch is %g, expected a "
                            "class from 0 to %zu",
                            s + 1, isnan(y) ? (double)NAN : y, p->c - 1);
            continue;
        }
        for (size_t j = 0; j < p->c; j++) {
            y = (double)p->y[s * p->c + j];
            sum += y >= 0 ? y : (double)NAN;
        }
        if (!(fabs(sum - 1) * PROBABILITY_SLACK <= 1))
            return fail("cross_entropy: the labels of sample %zu of the batch are not "
                        "probabilities: their sum is %g",
                        s + 1, isnan(sum) ? (double)NAN : sum);
    }
    return 0;
}

int KERNEL(cross_entropy_forward)(mr_tape *t, node *n)
{
    const node *z = node_in(t, n, 0), *y = node_in(t, n, 1), *w = node_in_or(t, n, 2);
    if (z->rank != 2 || z->count == 0)
        return fail("cross_entropy: expected logits [n, classes], got %s", node_text(z));
    if (is_class(z, y) ? y->count != (size_t)z->dim[0] : y->count != z->count)
        return fail("cross_entropy: labels are %s, expected [%d] or %s", node_text(y),
                    (int)z->dim[0], node_text(z));
    if (w && w->count != (size_t)z->dim[0])
        return fail("cross_entropy: weights are %s, expected [%d]", node_text(w), (int)z->dim[0]);
    size_t parts = pieces((size_t)z->dim[0], CLASS_SAMPLES);
    n->saved = arena_take(tape_arena(t), sizeof(double) * 2 * (size_t)z->dim[0]);
    entropy p = entropy_of(t, n);
    p.sum = arena_take(tape_arena(t), sizeof(double) * parts);
    if (!p.logs || !p.sum || entropy_labels(&p) || node_shape(n, 1, (const int32_t[]){1}) ||
        node_data(t, n))
        return -1;
    parallel(parts, entropy_piece, &p);
    double sum = 0;
    for (size_t i = 0; i < parts; i++)
        sum += p.sum[i];
    *(real *)n->data = (real)(sum / (double)p.n);
    return 0;
}

static void entropy_back_piece(void *context, size_t piece)
{
    const entropy *p = context;
    size_t end = MIN((piece + 1) * CLASS_SAMPLES, p->n);
    for (size_t s = piece * CLASS_SAMPLES; s < end; s++) {
        double g = p->g * (p->w ? (double)p->w[s] : 1), total = 0;
        real top = (real)p->logs[2 * s], rest = (real)p->logs[2 * s + 1];
        for (size_t j = 0; j < p->c; j++)
            total += target(p, s, j);
        for (size_t j = 0; j < p->c; j++) {
            size_t i = s * p->c + j;
            real grad =
                (real)(g * (total * (double)real_exp(p->z[i] - top - rest) - target(p, s, j)));
            p->to[i] = p->add ? p->to[i] + grad : grad;
        }
    }
}

int KERNEL(cross_entropy_backward)(mr_tape *t, node *n)
{
    sink s;
    if (node_sink(t, node_in(t, n, 0), &s))
        return -1;
    entropy p = entropy_of(t, n);
    p.to = s.grad;
    p.add = s.add;
    p.g = (double)*(real *)n->grad / (double)p.n;
    if (p.to)
        parallel(pieces(p.n, CLASS_SAMPLES), entropy_back_piece, &p);
    return 0;
}

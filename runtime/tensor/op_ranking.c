/* op_ranking.c - losses of the samples of a group against each other: scores a, labels y, weights w.
 *
 *     pairwise  mean over the pairs i, j of a group with y_i > y_j of
 *               w_i w_j ln(1 + exp(-(a_i - a_j))): RankNet, Burges et al., 2005
 *     listwise  mean over the groups with Y = sum_i y_i > 0 of
 *               sum_i (w_i y_i / Y) (L - a_i), L = ln sum_i exp(a_i): ListNet, Cao et al., 2007,
 *               with softmax over scores and labels in proportion
 *
 * A loss without any pair, or group, is 0. Each sample sums over its group for itself, so that no two
 * pieces write to one place. */
#include <math.h>
#include <string.h>

#include "kernel/kernel.h"
#include "tensor/grouping.h"
#include "tensor/op_pool.h"

enum { RANK_SAMPLES = 64, RANK_GROUPS = 64 };

typedef struct ranking {
    const real *a, *y, *w;
    real *to;
    grouping by;
    double *sum;  /* [samples] or [groups] */
    double *part; /* pairwise, [samples]: pairs won; listwise, [groups]: 1 / Y or 0 */
    double *logs; /* listwise, [groups]: L */
    double *pull; /* listwise, [groups]: sum_i w_i y_i / Y */
    double g, count /* of pairs, or groups */;
    size_t n;
    int add;
} ranking;

static inline double weight(const ranking *p, size_t s)
{
    return p->w ? (double)p->w[s] : 1;
}

/* Checks shapes and labels, and groups the samples; the result is kept for backward. */
static ranking *ranking_make(mr_tape *t, node *n, const char *name, int from_0)
{
    static const char *const what[] = {"scores", "labels", "groups", "weights"};
    const node *a = node_in(t, n, 0), *group = node_in_or(t, n, 2), *w = node_in_or(t, n, 3);
    size_t count = a->count;
    if (count != (size_t)a->dim[0] || count == 0)
        return fail_null("%s: expected scores [n, 1], got %s", name, node_text(a));
    for (int i = 1; i < n->inputs; i++) {
        const node *in = node_in_or(t, n, i);
        if (in && in->count != count)
            return fail_null("%s: %s are %s, expected [%zu] as of the scores", name, what[i],
                             node_text(in), count);
    }
    arena *arena = tape_arena(t);
    ranking *p = arena_take(arena, sizeof *p);
    uint64_t *keys = arena_take(arena, sizeof *keys * count);
    if (!p || !keys)
        return NULL;
    *p = (ranking){.a = a->data,
                   .y = node_in(t, n, 1)->data,
                   .w = w ? w->data : NULL,
                   .n = count,
                   .sum = arena_take(arena, sizeof(double) * count),
                   .part = arena_take(arena, sizeof(double) * count),
                   .logs = arena_take(arena, sizeof(double) * count),
                   .pull = arena_take(arena, sizeof(double) * count)};
    for (size_t s = 0; s < count; s++) {
        double y = (double)p->y[s], number = group ? (double)((real *)group->data)[s] + 0.0 : 0;
        if (!isfinite(y) || (from_0 && y < 0))
            return fail_null("%s: the label of sample %zu of the batch is %g, expected %s", name,
                             s + 1, isnan(y) ? (double)NAN : y,
                             from_0 ? "a number of at least 0" : "a finite number");
        memcpy(&keys[s], &number, sizeof number);
    }
    if (!p->sum || !p->part || !p->logs || !p->pull || grouping_make(arena, keys, count, &p->by) ||
        node_shape(n, 1, (const int32_t[]){1}) || node_data(t, n))
        return NULL;
    n->saved = p;
    return p;
}

/* The mean of `of` sums, which `count` things make. */
static void ranking_result(ranking *p, node *n, size_t of)
{
    double sum = 0;
    for (size_t i = 0; i < of; i++)
        sum += p->sum[i];
    *(real *)n->data = (real)(p->count > 0 ? sum / p->count : 0);
}

static int ranking_back(mr_tape *t, node *n, task *piece)
{
    sink s;
    ranking *p = n->saved;
    if (node_sink(t, node_in(t, n, 0), &s))
        return -1;
    p->to = s.grad;
    p->add = s.add;
    p->g = p->count > 0 ? (double)*(real *)n->grad / p->count : 0;
    if (p->to)
        parallel(pieces(p->n, RANK_SAMPLES), piece, p);
    return 0;
}

/* ---- pairwise ---- */

static void pairs_piece(void *context, size_t piece)
{
    ranking *p = context;
    size_t end = MIN((piece + 1) * RANK_SAMPLES, p->n);
    for (size_t i = piece * RANK_SAMPLES; i < end; i++) {
        uint32_t group = p->by.of[i];
        double sum = 0, pairs = 0;
        for (uint32_t m = p->by.start[group]; m < p->by.start[group + 1]; m++) {
            uint32_t j = p->by.member[m];
            if (!(p->y[i] > p->y[j]))
                continue;
            double r = (double)p->a[i] - (double)p->a[j];
            sum += weight(p, j) * (fmax(-r, 0) + log1p(exp(-fabs(r))));
            pairs += 1;
        }
        p->sum[i] = weight(p, i) * sum;
        p->part[i] = pairs;
    }
}

int KERNEL(pairwise_forward)(mr_tape *t, node *n)
{
    ranking *p = ranking_make(t, n, "pairwise", 0);
    if (!p)
        return -1;
    parallel(pieces(p->n, RANK_SAMPLES), pairs_piece, p);
    for (size_t i = 0; i < p->n; i++)
        p->count += p->part[i];
    ranking_result(p, n, p->n);
    return 0;
}

static void pairs_back_piece(void *context, size_t piece)
{
    const ranking *p = context;
    size_t end = MIN((piece + 1) * RANK_SAMPLES, p->n);
    for (size_t i = piece * RANK_SAMPLES; i < end; i++) {
        uint32_t group = p->by.of[i];
        double sum = 0;
        for (uint32_t m = p->by.start[group]; m < p->by.start[group + 1]; m++) {
            uint32_t j = p->by.member[m];
            double r = (double)p->a[i] - (double)p->a[j];
            if (p->y[i] > p->y[j])
                sum -= weight(p, j) / (1 + exp(r));
            else if (p->y[i] < p->y[j])
                sum += weight(p, j) / (1 + exp(-r));
        }
        real grad = (real)(p->g * weight(p, i) * sum);
        p->to[i] = p->add ? p->to[i] + grad : grad;
    }
}

int KERNEL(pairwise_backward)(mr_tape *t, node *n)
{
    return ranking_back(t, n, pairs_back_piece);
}

/* ---- listwise ---- */

static void lists_piece(void *context, size_t piece)
{
    ranking *p = context;
    size_t end = MIN((piece + 1) * RANK_GROUPS, p->by.groups);
    for (size_t g = piece * RANK_GROUPS; g < end; g++) {
        const uint32_t *m = p->by.member + p->by.start[g];
        size_t size = p->by.start[g + 1] - p->by.start[g];
        double top = (double)p->a[m[0]], labels = 0, pull = 0, loss = 0;
        for (size_t i = 0; i < size; i++) {
            top = fmax(top, (double)p->a[m[i]]);
            labels += (double)p->y[m[i]];
        }
        double sum = exp((double)p->a[m[0]] - top);
        for (size_t i = 1; i < size; i++)
            sum += exp((double)p->a[m[i]] - top);
        p->logs[g] = top + log(sum);
        p->part[g] = labels > 0 ? 1 / labels : 0;
        for (size_t i = 0; i < size; i++) {
            double share = weight(p, m[i]) * (double)p->y[m[i]] * p->part[g];
            pull += share;
            loss += share * (p->logs[g] - (double)p->a[m[i]]);
        }
        p->pull[g] = pull;
        p->sum[g] = loss;
    }
}

int KERNEL(listwise_forward)(mr_tape *t, node *n)
{
    ranking *p = ranking_make(t, n, "listwise", 1);
    if (!p)
        return -1;
    parallel(pieces(p->by.groups, RANK_GROUPS), lists_piece, p);
    for (size_t g = 0; g < p->by.groups; g++)
        p->count += p->part[g] > 0;
    ranking_result(p, n, p->by.groups);
    return 0;
}

static void lists_back_piece(void *context, size_t piece)
{
    const ranking *p = context;
    size_t end = MIN((piece + 1) * RANK_SAMPLES, p->n);
    for (size_t i = piece * RANK_SAMPLES; i < end; i++) {
        uint32_t g = p->by.of[i];
        double share = weight(p, i) * (double)p->y[i] * p->part[g];
        double d = p->pull[g] * exp((double)p->a[i] - p->logs[g]) - share;
        real grad = (real)(p->g * d);
        p->to[i] = p->add ? p->to[i] + grad : grad;
    }
}

int KERNEL(listwise_backward)(mr_tape *t, node *n)
{
    return ranking_back(t, n, lists_back_piece);
}

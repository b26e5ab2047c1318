/* rank_metrics.c - what the order of the samples of a group is worth: GAUC, NDCG, precision, recall and
 * hit rate at k, MAP, MRR.
 *
 * A sample is relevant if its label is above 0; its gain is 2^label - 1 (Burges et al., 2005), at most
 * that of 0. Of a group with P relevant samples, ranked by score from above:
 *
 *     AUC        of its pairs, by the weights of both, ties half; n_u is the weight of the group
 *     DCG        sum over ranks r <= k of gain_r / log2(r + 1); NDCG: over that of the best order
 *     precision  relevant ranks r <= k, over k, also where the group is smaller; recall: over P
 *     hit        1 if some rank r <= k is relevant
 *     AP         1/P sum over relevant ranks r of (relevant ranks <= r) / r
 *     RR         1 / the first relevant rank
 *
 * Equal scores have no order: each of these is the mean over all their orders, in closed form
 * (McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently in the Presence
 * of Tied Scores", ECIR 2008), so a constant score earns what chance would. But for the AUC, samples
 * count as one each; those of weight 0 are left out.
 *
 * All samples are kept and sorted by group and score when read: there is no fixed-memory form for groups
 * whose samples come in any order. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "metrics/metrics.h"

typedef struct ranked {
    uint64_t group;
    float score, label, weight;
} ranked;

struct mr_ranks {
    int link; /* mr_link, for what labels may be */
    size_t k;
    ranked *sample; /* [samples], owned */
    size_t samples, room;
    double *gain; /* [gain_room], of a group from above; owned */
    size_t gain_room;
};

mr_ranks *mr_ranks_new(int link, int k)
{
    if (k < 1)
        return fail_null("metrics: k is %d, expected a number from 1", k);
    mr_ranks *r = memory_zero(sizeof *r);
    if (!r)
        return NULL;
    r->link = link;
    r->k = (size_t)k;
    return r;
}

void mr_ranks_free(mr_ranks *r)
{
    if (!r)
        return;
    memory_free(r->sample);
    memory_free(r->gain);
    memory_free(r);
}

void mr_ranks_reset(mr_ranks *r)
{
    GIVEN(r, );
    r->samples = 0;
}

int mr_ranks_add(mr_ranks *r, const uint64_t *groups, const float *score, const float *label,
                 const float *weight, int n)
{
    GIVEN(r && groups && score && label, -1);
    if (metrics_check(r->link, score, label, weight, n) ||
        memory_reserve((void **)&r->sample, &r->room, r->samples + (size_t)n, sizeof *r->sample))
        return -1;
    for (int i = 0; i < n; i++)
        if (!weight || weight[i] > 0)
            r->sample[r->samples++] =
                (ranked){groups[i], score[i], label[i], weight ? weight[i] : 1};
    return 0;
}

/* By group, then score from above. What is equal in all of it can be exchanged, so the order of
 * arrival does not matter. */
static int compare(const void *pa, const void *pb)
{
    const ranked *a = pa, *b = pb;
    if (a->group != b->group)
        return a->group < b->group ? -1 : 1;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    if (a->label != b->label)
        return a->label > b->label ? -1 : 1;
    return (a->weight < b->weight) - (a->weight > b->weight);
}

static int falling(const void *pa, const void *pb)
{
    double a = *(const double *)pa, b = *(const double *)pb;
    return (a < b) - (a > b);
}

static double gain(const ranked *s)
{
    return s->label > 0 ? exp2((double)s->label) - 1 : 0;
}

/* sum of 1 / log2(r + 1) over ranks from < r <= to */
static double discounts(size_t from, size_t to)
{
    double sum = 0;
    for (size_t r = from + 1; r <= to; r++)
        sum += 1 / log2((double)r + 1);
    return sum;
}

/* What is known of a group down to some rank. */
typedef struct group {
    size_t above, above_wanted; /* samples so far, and the relevant ones */
    double positive, negative, won, weight;
    double dcg, hits, ap, rr, hit;
} group;

/* The first run with relevant samples: p of m, behind `above` others. `none` is the chance that none
 * of its first i - 1 is. */
static void first_hits(group *g, size_t m, size_t p, size_t k)
{
    double none = 1;
    for (size_t i = 1; i <= m - p + 1; i++) {
        double left = (double)(m - i + 1), here = none * (double)p / left;
        g->rr += here / (double)(g->above + i);
        g->hit += g->above + i <= k ? here : 0;
        none *= (left - (double)p) / left;
    }
}

/* Adds the m samples of one score. */
static void run_add(group *g, const ranked *s, size_t m, size_t k)
{
    double gains = 0, positive = 0, negative = 0;
    size_t p = 0;
    for (size_t i = 0; i < m; i++) {
        gains += gain(&s[i]);
        p += s[i].label > 0;
        *(s[i].label > 0 ? &positive : &negative) += (double)s[i].weight;
    }
    g->won += negative * (g->positive + positive / 2);
    g->positive += positive;
    g->negative += negative;
    size_t end = g->above + m, within = MIN(end, k);
    if (within > g->above) {
        g->dcg += gains / (double)m * discounts(g->above, within);
        g->hits += (double)p / (double)m * (double)(within - g->above);
    }
    if (p && !g->above_wanted)
        first_hits(g, m, p, k);
    for (size_t i = 0; p && i < m; i++) {
        double before = m > 1 ? (double)(i * (p - 1)) / (double)(m - 1) : 0;
        g->ap += (double)p / (double)m * ((double)g->above_wanted + 1 + before) /
                 (double)(g->above + i + 1);
    }
    g->above = end;
    g->above_wanted += p;
}

static double best_dcg(mr_ranks *r, const ranked *s, size_t size)
{
    for (size_t i = 0; i < size; i++)
        r->gain[i] = gain(&s[i]);
    qsort(r->gain, size, sizeof *r->gain, falling);
    double sum = 0;
    for (size_t i = 0; i < MIN(size, r->k); i++)
        sum += r->gain[i] / log2((double)i + 2);
    return sum;
}

int mr_ranks_read(mr_ranks *r, mr_ranked *out)
{
    GIVEN(r && out, -1);
    double weight = 0;
    *out = (mr_ranked){0};
    if (r->samples)
        qsort(r->sample, r->samples, sizeof *r->sample, compare);
    for (size_t begin = 0, end; begin < r->samples; begin = end) {
        group g = {0};
        for (end = begin; end < r->samples && r->sample[end].group == r->sample[begin].group; end++)
            g.weight += (double)r->sample[end].weight;
        for (size_t i = begin, next; i < end; i = next) {
            for (next = i; next < end && r->sample[next].score == r->sample[i].score; next++)
                ;
            run_add(&g, r->sample + i, next - i, r->k);
        }
        if (g.positive * g.negative > 0) {
            out->gauc += g.weight * g.won / (g.positive * g.negative);
            weight += g.weight;
        }
        if (!g.above_wanted)
            continue;
        if (memory_reserve((void **)&r->gain, &r->gain_room, g.above, sizeof *r->gain))
            return -1;
        out->groups += 1;
        out->ndcg += g.dcg / best_dcg(r, r->sample + begin, g.above);
        out->precision += g.hits / (double)r->k;
        out->recall += g.hits / (double)g.above_wanted;
        out->hit_rate += g.hit;
        out->map += g.ap / (double)g.above_wanted;
        out->mrr += g.rr;
    }
    double n = out->groups > 0 ? out->groups : NAN;
    out->gauc /= weight > 0 ? weight : NAN;
    out->ndcg /= n;
    out->precision /= n;
    out->recall /= n;
    out->hit_rate /= n;
    out->map /= n;
    out->mrr /= n;
    return 0;
}

/* metrics.c - what a model's predictions are worth: AUC, logloss, accuracy, RMSE, calibration.
 *
 * Of labels, with p = sigmoid(score): logloss, and over the entropy of the base rate NE (He et al.,
 * "Practical Lessons from Predicting Clicks on Ads at Facebook", 2014); calibration sum p / sum y; ECE,
 * the mean over BUCKETS equal ones of p, by weight, of |mean p - mean y|. PR-AUC is the average
 * precision: the sum over distinct scores, from above, of the positives at one times the precision
 * down to it, over all positives; no interpolation.
 *
 * All means are sums in double, in the order in which samples were added, so they do not depend
 * on threads. AUC needs the order of the scores, in one of two forms:
 *
 *   exact      every sample is kept as one uint64_t: the score as an ordered integer above, its
 *              weight (>= 0, so the sign is free) below, with the label as sign. 8 bytes a sample,
 *              16 once it was read. A stable radix sort leaves equal scores in order of
 *              arrival, however often the accumulator is read in between.
 *   streaming  weights of positives and negatives by bin of the logit. Bins are cut like floats:
 *              2^m equal ones in each octave of |z| + 2^-10, over 16 octaves, for either sign.
 *              Samples of one bin are counted as ties, so the result is off by at most
 *                  sum over bins of P_b N_b / (2 P N),
 *              which mr_metrics_read reports; likewise for PR-AUC, where a positive of a bin has at
 *              best the precision P / (P + N) with the negatives above the bin and the positives
 *              down to its end, at worst the other way round. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "metrics/metrics.h"

enum { BINS_MIN = 32, BINS_MAX = 1 << 20, OCTAVES = 16, MANTISSA = 23 };
enum { BUCKETS = 10 };
enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS, PASSES = 3 };

#define SMALLEST 0x1p-10f /* |z| below this shares its bins with nothing smaller */
#define LABEL_BIT 0x80000000u

typedef struct bucket {
    double weight, label, mean; /* weighted sums, as below */
} bucket;

typedef struct sums {
    double rows;
    double weight;
    double label; /* weighted sums, from here on */
    double mean;  /* predictions, of the link */
    double loss;
    double right;  /* samples on the right side of 1/2 */
    double square; /* (prediction - label)^2 */
    double off;    /* |prediction - label| */
    bucket bucket[BUCKETS];
} sums;

struct mr_metrics {
    sums sum;
    int link;                    /* mr_link */
    int bins;                    /* 0: exact */
    int shift;                   /* of the bits of a float, to a bin */
    double *positive, *negative; /* [bins], weights; owned */
    uint64_t *sample;            /* exact: packed, owned */
    size_t samples, room;
    uint64_t *scratch; /* [scratch_room], for sorting */
    size_t scratch_room;
};

static uint32_t float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Integers in the order of the floats; both zeros are one. */
static uint32_t ordered(float x)
{
    uint32_t u = float_bits(x + 0.0f);
    if (u == 0x80000000u)
        u = 0;
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

static int bin_of(const mr_metrics *m, float z)
{
    uint32_t from = float_bits(SMALLEST), half = (uint32_t)m->bins / 2;
    uint32_t i = (float_bits(fabsf(z) + SMALLEST) - from) >> m->shift;
    i = MIN(i, half - 1);
    return (int)(z < 0 ? half - 1 - i : half + i);
}

mr_metrics *mr_metrics_new(int link, int bins)
{
    if (link < MR_LOGIT || link > MR_LOG)
        return fail_null("metrics: link %d is unknown", link);
    if (bins && (bins < BINS_MIN || bins > BINS_MAX || bins & (bins - 1)))
        return fail_null("metrics: %d bins, expected 0 or a power of two from %d to %d", bins,
                         BINS_MIN, BINS_MAX);
    mr_metrics *m = memory_zero(sizeof *m);
    if (!m)
        return NULL;
    m->link = link;
    m->bins = link == MR_LOGIT ? bins : 0;
    if (m->bins) {
        m->shift = MANTISSA;
        for (int n = 2 * OCTAVES; n < bins; n *= 2)
            m->shift--;
        m->positive = memory_zero((size_t)bins * sizeof(double));
        m->negative = memory_zero((size_t)bins * sizeof(double));
        if (!m->positive || !m->negative) {
            mr_metrics_free(m);
            return NULL;
        }
    }
    return m;
}

void mr_metrics_free(mr_metrics *m)
{
    if (!m)
        return;
    memory_free(m->positive);
    memory_free(m->negative);
    memory_free(m->sample);
    memory_free(m->scratch);
    memory_free(m);
}

void mr_metrics_reset(mr_metrics *m)
{
    GIVEN(m, );
    memset(&m->sum, 0, sizeof m->sum);
    m->samples = 0;
    if (m->bins) {
        memset(m->positive, 0, (size_t)m->bins * sizeof(double));
        memset(m->negative, 0, (size_t)m->bins * sizeof(double));
    }
}

int metrics_check(int link, const float *score, const float *label, const float *weight, int n)
{
    if (!label)
        return fail("metrics: the data has no label");
    for (int i = 0; i < n; i++) {
        if (isnan(score[i]))
            return fail("metrics: the score of sample %d of %d is not a number", i + 1, n);
        if (link == MR_LOGIT && label[i] != 0 && label[i] != 1 && label[i] != -1)
            return fail("metrics: the label of sample %d of %d is %g, expected 0 or 1 "
                        "(or -1 or 1)",
                        i + 1, n, (double)label[i]);
        if (link != MR_LOGIT && !isfinite(label[i]))
            return fail("metrics: the label of sample %d of %d is not finite", i + 1, n);
        if (weight && !(weight[i] >= 0 && weight[i] <= FLT_MAX))
            return fail("metrics: the weight of sample %d of %d is %g, expected one of at "
                        "least 0",
                        i + 1, n, (double)weight[i]);
    }
    return 0;
}

static void add_value(sums *s, double prediction, double label, double w)
{
    s->mean += w * prediction;
    s->label += w * label;
    s->square += w * (prediction - label) * (prediction - label);
    s->off += w * fabs(prediction - label);
}

/* With u the logit of the wrong answer, -ln p(right) = ln(1 + e^u) = max(u, 0) + ln(1 + e^-|u|):
 * no overflow, and no cancellation where p is close to 1. */
static void add_binary(sums *s, double logit, int positive, double w)
{
    double u = positive ? -logit : logit;
    double e = exp(-fabs(u));
    double wrong = u > 0 ? 1 / (1 + e) : e / (1 + e); /* 1 - p(right) */
    double p = positive ? 1 - wrong : wrong;
    s->loss += w * (fmax(u, 0) + log1p(e));
    s->mean += w * p;
    s->label += positive ? w : 0;
    s->right += (positive ? logit > 0 : logit <= 0) ? w : 0;
    s->square += w * wrong * wrong;
    s->off += w * wrong;
    bucket *b = &s->bucket[MIN((int)(p * BUCKETS), BUCKETS - 1)];
    b->weight += w;
    b->mean += w * p;
    b->label += positive ? w : 0;
}

int metrics_one(mr_metrics *m, float score, float label, float w)
{
    int exact = m->link == MR_LOGIT && !m->bins, positive = label > 0;
    if (exact && memory_reserve((void **)&m->sample, &m->room, m->samples + 1, sizeof *m->sample))
        return -1;
    m->sum.rows += 1;
    m->sum.weight += w;
    if (m->link != MR_LOGIT) {
        add_value(&m->sum, m->link == MR_LOG ? exp((double)score) : score, label, w);
        return 0;
    }
    /* A weight of 0 says nothing, not even about a score that is infinite. */
    if (w > 0)
        add_binary(&m->sum, score, positive, w);
    if (exact)
        m->sample[m->samples++] = (uint64_t)ordered(score) << 32 | (float_bits(w) & ~LABEL_BIT) |
                                  (positive ? LABEL_BIT : 0);
    else
        (positive ? m->positive : m->negative)[bin_of(m, score)] += w;
    return 0;
}

int mr_metrics_add(mr_metrics *m, const float *score, const float *label, const float *weight,
                   int n)
{
    GIVEN(m && score, -1);
    if (metrics_check(m->link, score, label, weight, n))
        return -1;
    if (m->link == MR_LOGIT && !m->bins && /* all or nothing */
        memory_reserve((void **)&m->sample, &m->room, m->samples + (size_t)n, sizeof *m->sample))
        return -1;
    for (int i = 0; i < n; i++)
        metrics_one(m, score[i], label[i], weight ? weight[i] : 1);
    return 0;
}

int mr_metrics_add_batch(mr_metrics *m, const float *score, const mr_batch *batch)
{
    GIVEN(m && score && batch, -1);
    return mr_metrics_add(m, score, batch->label, batch->weight, batch->n);
}

/* Sorts the samples by score, stably: the lowest digit first. */
static int sort(mr_metrics *m)
{
    size_t n = m->samples;
    if (memory_reserve((void **)&m->scratch, &m->scratch_room, n, sizeof *m->scratch))
        return -1;
    uint32_t count[PASSES][DIGITS] = {0};
    for (size_t i = 0; i < n; i++)
        for (int p = 0; p < PASSES; p++)
            count[p][m->sample[i] >> (32 + p * DIGIT_BITS) & (DIGITS - 1)]++;
    for (int p = 0; p < PASSES; p++) {
        uint32_t *at = count[p], total = 0;
        int shift = 32 + p * DIGIT_BITS;
        for (int d = 0; d < DIGITS; d++) {
            uint32_t c = at[d];
            at[d] = total;
            total += c;
        }
        for (size_t i = 0; i < n; i++)
            m->scratch[at[m->sample[i] >> shift & (DIGITS - 1)]++] = m->sample[i];
        uint64_t *sorted = m->scratch;
        size_t room = m->scratch_room;
        m->scratch = m->sample;
        m->scratch_room = m->room;
        m->sample = sorted;
        m->room = room;
    }
    return 0;
}

/* The curves, when groups of equal scores come from above: each negative is beaten by the positives
 * above it, and half by those beside it. */
typedef struct curve {
    double positive, negative; /* weights so far */
    double won, tied;          /* of pairs */
    double precision;          /* sum over positives */
    double off;                /* at most, of precision, if a group is a bin */
} curve;

static void curve_add(curve *c, double positive, double negative)
{
    double p = c->positive + positive, n = c->negative + negative;
    c->won += negative * c->positive;
    c->tied += positive * negative;
    if (positive > 0) {
        double here = p / (p + n), best = p / (p + c->negative);
        double worst = c->positive + n > 0 ? c->positive / (c->positive + n) : here;
        c->precision += positive * here;
        c->off += positive * fmax(best - here, here - worst);
    }
    c->positive = p;
    c->negative = n;
}

static curve curve_exact(const mr_metrics *m)
{
    curve c = {0};
    for (size_t i = m->samples; i > 0;) {
        uint32_t score = (uint32_t)(m->sample[i - 1] >> 32);
        double positive = 0, negative = 0;
        for (; i > 0 && (uint32_t)(m->sample[i - 1] >> 32) == score; i--) {
            uint32_t low = (uint32_t)m->sample[i - 1];
            double w = (double)float_of(low & ~LABEL_BIT);
            *(low & LABEL_BIT ? &positive : &negative) += w;
        }
        curve_add(&c, positive, negative);
    }
    return c;
}

static void read_labels(const sums *s, double w, mr_score *out)
{
    double rate = s->label / w, gap = 0;
    out->logloss = s->loss / w;
    out->accuracy = s->right / w;
    if (rate > 0 && rate < 1)
        out->ne = out->logloss / -(rate * log(rate) + (1 - rate) * log1p(-rate));
    for (int b = 0; b < BUCKETS; b++)
        gap += fabs(s->bucket[b].mean - s->bucket[b].label);
    out->ece = gap / w;
}

int mr_metrics_read(mr_metrics *m, mr_score *out)
{
    GIVEN(m && out, -1);
    const sums *s = &m->sum;
    double w = s->weight > 0 ? s->weight : NAN;
    *out = (mr_score){
        .rows = s->rows,
        .weight = s->weight,
        .label = s->label / w,
        .prediction = s->mean / w,
        .rmse = sqrt(s->square / w),
        .mae = s->off / w,
        .calibration = s->label != 0 ? s->mean / s->label : NAN,
        .logloss = NAN,
        .accuracy = NAN,
        .auc = NAN,
        .auc_error = NAN,
        .pr_auc = NAN,
        .pr_auc_error = NAN,
        .ne = NAN,
        .ece = NAN,
    };
    if (m->link != MR_LOGIT)
        return 0;
    read_labels(s, w, out);
    curve c = {0};
    if (m->bins) {
        for (int b = m->bins - 1; b >= 0; b--)
            curve_add(&c, m->positive[b], m->negative[b]);
    } else {
        if (m->samples > UINT32_MAX)
            return fail("metrics: %zu samples are too many for an exact AUC; use bins", m->samples);
        if (sort(m))
            return -1;
        c = curve_exact(m);
    }
    double pairs = c.positive * c.negative;
    if (pairs > 0) {
        out->auc = (c.won + c.tied / 2) / pairs;
        out->auc_error = m->bins ? c.tied / 2 / pairs : 0;
    }
    if (c.positive > 0) {
        out->pr_auc = c.precision / c.positive;
        out->pr_auc_error = m->bins ? c.off / c.positive : 0;
    }
    return 0;
}

int mr_metrics_bucket(const mr_metrics *m, int i, double *weight, double *prediction, double *label)
{
    GIVEN(m && weight && prediction && label, -1);
    if (m->link != MR_LOGIT || i < 0 || i >= BUCKETS)
        return 0;
    const bucket *b = &m->sum.bucket[i];
    double w = b->weight > 0 ? b->weight : NAN;
    *weight = b->weight;
    *prediction = b->mean / w;
    *label = b->label / w;
    return 1;
}

typedef struct saved_bin {
    double positive, negative;
    uint64_t bin;
} saved_bin;

size_t metrics_save_room(const mr_metrics *m)
{
    return sizeof(sums) + sizeof(uint64_t) + (size_t)m->bins * sizeof(saved_bin);
}

size_t metrics_save(const mr_metrics *m, uint8_t *out)
{
    uint8_t *p = out + sizeof(sums) + sizeof(uint64_t);
    uint64_t used = 0;
    for (int b = 0; b < m->bins; b++) {
        saved_bin s = {m->positive[b], m->negative[b], (uint64_t)b};
        if (s.positive > 0 || s.negative > 0) {
            memcpy(p, &s, sizeof s);
            p += sizeof s;
            used++;
        }
    }
    memcpy(out, &m->sum, sizeof(sums));
    memcpy(out + sizeof(sums), &used, sizeof used);
    return (size_t)(p - out);
}

int64_t metrics_load(mr_metrics *m, const uint8_t *bytes, size_t len)
{
    mr_metrics_reset(m);
    size_t head = sizeof(sums) + sizeof(uint64_t);
    uint64_t used;
    if (len < head)
        return fail("metrics: %zu saved bytes, expected at least %zu", len, head);
    memcpy(&used, bytes + sizeof(sums), sizeof used);
    if (used > (uint64_t)m->bins || (len - head) / sizeof(saved_bin) < used)
        return fail("metrics: %llu saved bins do not fit in %d bins and %zu bytes",
                    (unsigned long long)used, m->bins, len);
    for (uint64_t i = 0; i < used; i++) {
        saved_bin s;
        memcpy(&s, bytes + head + i * sizeof s, sizeof s);
        if (s.bin >= (uint64_t)m->bins) {
            mr_metrics_reset(m);
            return fail("metrics: saved bin %llu of %d", (unsigned long long)s.bin, m->bins);
        }
        m->positive[s.bin] = s.positive;
        m->negative[s.bin] = s.negative;
    }
    memcpy(&m->sum, bytes, sizeof(sums));
    return (int64_t)(head + used * sizeof(saved_bin));
}

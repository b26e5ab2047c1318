/* kernel_optimizer.c - the update rules, each beside its formula (g gradient, w weight, t the
 * update's number); all are per coordinate but where a row is named. State vectors follow one
 * another: s[0..n), s[n..2n). Settings become floats only after what is small has been subtracted:
 * 1 - beta2 of a float 0.999 would be wrong from the fifth digit on. */
#include <math.h>
#include <string.h>

#include "kernel/kernel.h"
#include "optim/optimizer.h"

/* One of the two floats next to x, the nearer one the more often, by a hash of w and t: for steps that
 * are the same number again and again, which would be rounded in the same direction each time, in the end to
 * nothing. A double has 29 bits more. */
static inline float near_float(double x, float w, uint64_t t)
{
    const uint64_t low = ((uint64_t)1 << 29) - 1;
    uint64_t bits;
    uint32_t seen;
    memcpy(&bits, &x, 8);
    memcpy(&seen, &w, 4);
    bits = (bits + (mix64(t << 32 ^ seen) & low)) & ~low;
    memcpy(&x, &bits, 8);
    return (float)x;
}

/* ---- SGD ---- */

/* w -= rate g, and the proximal step of l1 |w|: it shrinks by rate l1, not beyond 0. (Duchi and Singer,
 * 2009.) */
static inline float shrunk(float w, float rate, float g, float l1, uint64_t t)
{
    double moved = w - (double)rate * g, by = (double)rate * l1;
    return fabs(moved) > by ? near_float(moved - copysign(by, moved), w, t) : 0;
}

/* g += l2 w;  without momentum w -= lr g;  with it u = momentum u + g, w -= lr u, or by Nesterov
 * w -= lr (g + momentum u), as Sutskever et al., 2013; then l1. */
static void sgd(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w, float *u)
{
    float lr = (float)o->lr, l1 = (float)o->l1, l2 = (float)o->l2, momentum = (float)o->momentum;
    int nesterov = o->nesterov;
    if (momentum == 0 && l1 == 0)
        for (size_t i = 0; i < n; i++)
            w[i] -= lr * (g[i] + l2 * w[i]);
    else if (momentum == 0)
        for (size_t i = 0; i < n; i++)
            w[i] = shrunk(w[i], lr, g[i] + l2 * w[i], l1, t);
    else
        for (size_t i = 0; i < n; i++) {
            float gi = g[i] + l2 * w[i];
            u[i] = momentum * u[i] + gi;
            w[i] = shrunk(w[i], lr, nesterov ? gi + momentum * u[i] : u[i], l1, t);
        }
}

/* ---- group lasso ---- */

/* A row whose w is to be what is least in sum_i (h_i/2 w_i^2 - a_i w_i) + group ||w||, where h_i =
 * (sqrt(q_i) + c) / lr + l2, q_i at q[i stride], and a_i is what l1 leaves of (h_i + pull) w_i - g_i: for
 * FTRL of -z where that is kept for a w of 0. In double, as w is to stay the same where g is 0. */
typedef struct grouped {
    const mr_optim *o;
    size_t n, stride;
    const float *g, *q, *z; /* z: NULL for Adagrad */
    double c, l2, decay, pull;
} grouped;

static inline double grouped_h(const grouped *r, size_t i)
{
    return (sqrt((double)r->q[i * r->stride]) + r->c) / r->o->lr + r->l2;
}

static inline double grouped_a(const grouped *r, size_t i, double h, double w)
{
    double a = (h + r->pull) * w - (r->g[i] + r->decay * w);
    if (r->z)
        a = w != 0 ? a + copysign(r->o->l1, w) : -(double)r->z[i];
    double beyond = fabs(a) - r->o->l1;
    return beyond > 0 ? copysign(beyond, a) : 0;
}

/* All of w is 0 if ||a|| <= group; else w_i = a_i r / (h_i r + group) with r = ||w||, the root of S(r) =
 * sum_i (a_i / (h_i r + group))^2 = 1. Newton's steps for 1 / sqrt(S) - 1, a concave function, come from the
 * norm so far, and stay below the root once they are; where all h_i are one h, the first is exact. */
static inline void group_least(const grouped *row, float *w)
{
    double group = row->o->group, norm = 0, before = 0;
    size_t n = row->n;
#pragma omp simd reduction(+ : norm, before)
    for (size_t i = 0; i < n; i++) {
        double a = grouped_a(row, i, grouped_h(row, i), w[i]);
        norm += a * a;
        before += (double)w[i] * w[i];
    }
    if (norm <= group * group) {
        for (size_t i = 0; i < n; i++)
            w[i] = 0;
        return;
    }
    double r = sqrt(before), more = r;
    for (int step = 0; step < 30 && fabs(more) >= 1e-9 * r; step++) {
        double sum = 0, slope = 0;
#pragma omp simd reduction(+ : sum, slope)
        for (size_t i = 0; i < n; i++) {
            double h = grouped_h(row, i), a = grouped_a(row, i, h, w[i]), below = h * r + group;
            double square = a * a / (below * below);
            sum += square;
            slope += square * h / below;
        }
        more = (sum * sqrt(sum) - sum) / slope;
        r = MAX(0, r + more);
    }
    for (size_t i = 0; i < n; i++) {
        double h = grouped_h(row, i);
        w[i] = (float)(grouped_a(row, i, h, w[i]) * r / (h * r + group));
    }
}

/* ---- Adagrad ---- */

/* Every fade_every updates of the row (of a dense weight: steps of the model) G = max(init, fade G). */
static inline void fade(const mr_optim *o, uint64_t t, size_t n, float *q)
{
    if (!o->fade_every || t % (uint64_t)o->fade_every)
        return;
    float init = (float)o->init, by = (float)o->fade;
    for (size_t i = 0; i < n; i++)
        q[i] = MAX(init, by * q[i]);
}

/* w -= lr g / (sqrt(G) + eps); with l1 or group the proximal step in the metric h = (sqrt(G) + eps) /
 * lr: w is what is least in sum (h/2) (w - u)^2 + l1 |w| + group ||w||, u what it was without. */
static inline void adagrad_weights(const mr_optim *o, uint64_t t, size_t n, const float *g,
                                   float *w, const float *q, size_t stride)
{
    float lr = (float)o->lr, l1 = (float)o->l1, l2 = (float)o->l2, eps = (float)o->eps;
    if (o->group > 0 && lr > 0) {
        grouped row = {
            .o = o, .n = n, .stride = stride, .g = g, .q = q, .c = o->eps, .decay = o->l2};
        group_least(&row, w);
    } else if (l1 > 0) {
        for (size_t i = 0; i < n; i++)
            w[i] = shrunk(w[i], lr / (sqrtf(q[i * stride]) + eps), g[i] + l2 * w[i], l1, t);
    } else {
        for (size_t i = 0; i < n; i++)
            w[i] -= lr * (g[i] + l2 * w[i]) / (sqrtf(q[i * stride]) + eps);
    }
}

/* G += g^2; G starts at `init`. Duchi, Hazan and Singer, 2011. */
static void adagrad(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w, float *s)
{
    float l2 = (float)o->l2;
    fade(o, t, n, s);
    for (size_t i = 0; i < n; i++) {
        float gi = g[i] + l2 * w[i];
        s[i] += gi * gi;
    }
    adagrad_weights(o, t, n, g, w, s, 1);
}

/* One G for the row: G += mean_j g_j^2. */
static void row_adagrad(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w, float *s)
{
    float l2 = (float)o->l2, sum = *s;
    double squares = 0;
    fade(o, t, 1, &sum);
#pragma omp simd reduction(+ : squares)
    for (size_t i = 0; i < n; i++) {
        float gi = g[i] + l2 * w[i];
        squares += (double)gi * gi;
    }
    sum += (float)(squares / (double)n);
    adagrad_weights(o, t, n, g, w, &sum, 0);
    *s = sum;
}

/* ---- Adam and what came of it ---- */

/* 1 - b^t, by squaring: pow() would take longer than the row. */
static inline double without_power(double b, uint64_t t)
{
    double power = 1;
    for (; t && power > 0x1p-60; t >>= 1, b *= b)
        if (t & 1)
            power *= b;
    return 1 - power;
}

/* m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2,
 * w -= lr decay w, w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps), and with `peak`, the
 * largest v so far, in place of v. */
static inline void adam_step(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w,
                             float *m, float *v, float *peak)
{
    float b1 = (float)o->beta1, b2 = (float)o->beta2, l2 = (float)o->l2, eps = (float)o->eps;
    float new1 = (float)(1 - o->beta1), new2 = (float)(1 - o->beta2);
    float decay = (float)(o->lr * o->decay);
    float c1 = (float)(o->lr / without_power(o->beta1, t));
    float c2 = (float)(1 / sqrt(without_power(o->beta2, t)));
    for (size_t i = 0; i < n; i++) {
        float gi = g[i] + l2 * w[i];
        m[i] = b1 * m[i] + new1 * gi;
        v[i] = b2 * v[i] + new2 * gi * gi;
        float square = v[i];
        if (peak)
            square = peak[i] = MAX(peak[i], square);
        w[i] -= decay * w[i] + c1 * m[i] / (sqrtf(square) * c2 + eps);
    }
}

/* Adam: Kingma and Ba, 2015. AdamW, decay apart from the gradient, on touch: Loshchilov and Hutter,
 * 2019. They differ in the settings they take. */
static void adam(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w, float *s)
{
    adam_step(o, t, n, g, w, s, s + n, NULL);
}

/* Reddi, Kale and Kumar, 2018. */
static void amsgrad(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w, float *s)
{
    adam_step(o, t, n, g, w, s, s + n, s + 2 * n);
}

/* w -= lr (sgn(b1 m + (1 - b1) g) + decay w), m = b2 m + (1 - b2) g. Chen et al., 2023. */
static void lion(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w, float *m)
{
    double lr = o->lr, decay = o->lr * o->decay;
    float b1 = (float)o->beta1, b2 = (float)o->beta2;
    float new1 = (float)(1 - o->beta1), new2 = (float)(1 - o->beta2);
    for (size_t i = 0; i < n; i++) {
        float ahead = b1 * m[i] + new1 * g[i];
        double sign = (ahead > 0) - (ahead < 0);
        w[i] = near_float(w[i] - (lr * sign + decay * w[i]), w[i], t);
        m[i] = b2 * m[i] + new2 * g[i];
    }
}

/* ---- RMSprop ---- */

/* w -= lr x, or with momentum u = momentum u + x, w -= lr u, where x = g / (sqrt(v) + eps). */
static inline void rmsprop_step(const mr_optim *o, size_t n, const float *g, float *w,
                                const float *v, float *u)
{
    float lr = (float)o->lr, l2 = (float)o->l2, eps = (float)o->eps, momentum = (float)o->momentum;
    if (momentum == 0) {
        for (size_t i = 0; i < n; i++)
            w[i] -= lr * (g[i] + l2 * w[i]) / (sqrtf(v[i]) + eps);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        u[i] = momentum * u[i] + (g[i] + l2 * w[i]) / (sqrtf(v[i]) + eps);
        w[i] -= lr * u[i];
    }
}

/* v = b2 v + (1 - b2) g^2. Tieleman and Hinton, 2012. */
static void rmsprop(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w, float *v)
{
    (void)t;
    float b2 = (float)o->beta2, new2 = (float)(1 - o->beta2), l2 = (float)o->l2;
    for (size_t i = 0; i < n; i++) {
        float gi = g[i] + l2 * w[i];
        v[i] = b2 * v[i] + new2 * gi * gi;
    }
    rmsprop_step(o, n, g, w, v, v + n);
}

/* v is the variance about the mean m = b2 m + (1 - b2) g (Graves, 2013): the mean of squares less m^2,
 * of which v = b2 (v + (1 - b2) (g - m)^2), m as it was, keeps the digits. */
static void centered_rmsprop(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w,
                             float *m)
{
    (void)t;
    float *v = m + n, b2 = (float)o->beta2, new2 = (float)(1 - o->beta2), l2 = (float)o->l2;
    for (size_t i = 0; i < n; i++) {
        float off = g[i] + l2 * w[i] - m[i];
        v[i] = b2 * (v[i] + new2 * off * off);
        m[i] += new2 * off;
    }
    rmsprop_step(o, n, g, w, v, v + n);
}

/* ---- FTRL ---- */

/* z += g - s w with s = (sqrt(n + g^2) - sqrt(n)) / lr, n += g^2; then w is 0 if |z| <= l1, else
 * -(z - sgn(z) l1) / h, h = (beta + sqrt(n)) / lr + l2. McMahan et al., 2013, algorithm 1.
 *
 * Where w is not 0, z before is -w h - sgn(w) l1, so z is now g - w h - sgn(w) l1 with the new h, and w -= g /
 * h unless it would change its sign: nothing cancels, and no weight moves because the learning rate did.
 * With `group` the norm of the row counts too: it is 0 if the norm of z, less l1, is <= group. The exact
 * least of the objective of Yang et al., 2010, whose -z (1 - group / ||z||) / h is for one h. */
static void ftrl(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w, float *s)
{
    (void)t;
    float *z = s, *q = s + n, lr = (float)o->lr, l1 = (float)o->l1, l2 = (float)o->l2;
    float beta = (float)o->beta;
    double squares = 0, pull = 0;
    int group = o->group > 0;
    if (lr == 0)
        return;
    if (group) {
#pragma omp simd reduction(+ : squares)
        for (size_t i = 0; i < n; i++)
            squares += (double)w[i] * w[i];
        pull = squares > 0 ? o->group / sqrt(squares) : 0;
    }
    for (size_t i = 0; i < n; i++) {
        q[i] += g[i] * g[i];
        float h = (beta + sqrtf(q[i])) / lr + l2, side = w[i] != 0 ? copysignf(1, w[i]) : 0;
        z[i] = g[i] + (side != 0 ? -w[i] * (h + (float)pull) - side * l1 : z[i]);
        if (group)
            continue;
        float moved = w[i] - g[i] / h, beyond = fabsf(z[i]) - l1;
        if (moved * side > 0)
            w[i] = moved;
        else
            w[i] = beyond > 0 ? -copysignf(beyond, z[i]) / h : 0;
    }
    if (group) {
        grouped row = {.o = o,
                       .n = n,
                       .stride = 1,
                       .g = g,
                       .q = q,
                       .z = z,
                       .c = o->beta,
                       .l2 = o->l2,
                       .pull = pull};
        group_least(&row, w);
    }
}

const optimizer_rules KERNEL(optimizer_rules) = {{[MR_SGD] = sgd,
                                                  [MR_ADAGRAD] = adagrad,
                                                  [MR_ADAM] = adam,
                                                  [MR_ADAMW] = adam,
                                                  [MR_FTRL] = ftrl,
                                                  [MR_ROW_ADAGRAD] = row_adagrad,
                                                  [MR_AMSGRAD] = amsgrad,
                                                  [MR_LION] = lion,
                                                  [MR_RMSPROP] = rmsprop,
                                                  [MR_CENTERED_RMSPROP] = centered_rmsprop}};

/* kernel_optimizer.c - the update rules, each beside its formula (g gradient, w weight, t the
 * update's number); all are per coordinate. State vectors follow one another: s[0..n), s[n..2n). */
#include <math.h>

#include "kernel.h"
#include "optimizer.h"

/* g += l2 w;  without momentum w -= lr g;  with it u = momentum u + g, w -= lr u. */
static void sgd(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w, float *u)
{
    (void)t;
    float lr = o->lr, l2 = o->l2, momentum = o->momentum;
    if (momentum == 0) {
        for (size_t i = 0; i < n; i++)
            w[i] -= lr * (g[i] + l2 * w[i]);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        u[i] = momentum * u[i] + (g[i] + l2 * w[i]);
        w[i] -= lr * u[i];
    }
}

/* G += g^2, w -= lr g / (sqrt(G) + eps); G starts at `init`. Duchi, Hazan and Singer, 2011. */
static void adagrad(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w, float *s)
{
    (void)t;
    float lr = o->lr, l2 = o->l2, eps = o->eps;
    for (size_t i = 0; i < n; i++) {
        float gi = g[i] + l2 * w[i];
        s[i] += gi * gi;
        w[i] -= lr * gi / (sqrtf(s[i]) + eps);
    }
}

/* m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2,
 * w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps). Kingma and Ba, 2015. */
static void adam(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w, float *s)
{
    float *m = s, *v = s + n, b1 = o->beta1, b2 = o->beta2, l2 = o->l2, eps = o->eps;
    float c1 = (float)(o->lr / (1 - pow(b1, (double)t)));
    float c2 = (float)(1 / sqrt(1 - pow(b2, (double)t)));
    for (size_t i = 0; i < n; i++) {
        float gi = g[i] + l2 * w[i];
        m[i] = b1 * m[i] + (1 - b1) * gi;
        v[i] = b2 * v[i] + (1 - b2) * gi * gi;
        w[i] -= c1 * m[i] / (sqrtf(v[i]) * c2 + eps);
    }
}

/* Adam, and decay apart from the gradient: w -= lr decay w, on touch.
 * Loshchilov and Hutter, 2019. */
static void adamw(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w, float *s)
{
    float keep = 1 - o->lr * o->decay;
    for (size_t i = 0; i < n; i++)
        w[i] *= keep;
    adam(o, t, n, g, w, s);
}

/* z += g - s w with s = (sqrt(n + g^2) - sqrt(n)) / lr, n += g^2; then w = 0 if |z| <= l1, else
 * -(z - sgn(z) l1) / ((beta + sqrt(n)) / lr + l2). McMahan et al., 2013, algorithm 1. */
static void ftrl(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w, float *s)
{
    (void)t;
    float *z = s, *q = s + n, lr = o->lr, l1 = o->l1, l2 = o->l2, beta = o->beta;
    for (size_t i = 0; i < n; i++) {
        float root = sqrtf(q[i]);
        q[i] += g[i] * g[i];
        float grown = sqrtf(q[i]);
        z[i] += g[i] - (grown - root) / lr * w[i];
        float beyond = fabsf(z[i]) - l1;
        w[i] = beyond > 0 ? -copysignf(beyond, z[i]) / ((beta + grown) / lr + l2) : 0;
    }
}

const optimizer_rules KERNEL(optimizer_rules) = {{[MR_SGD] = sgd,
                                                  [MR_ADAGRAD] = adagrad,
                                                  [MR_ADAM] = adam,
                                                  [MR_ADAMW] = adamw,
                                                  [MR_FTRL] = ftrl}};

/* kernel_idle.c - many updates in a row of weights whose only gradient is l2 w: what idle.c replays most. */
#include <math.h>

#include "kernel.h"
#include "optimizer.h"

enum { LANES = 16 };

/* The updates of `steps` steps of LANES weights; c1, c2 and keep are those of kernel_optimizer.c by step. */
static inline __attribute__((always_inline)) void adam_lanes(const mr_optim *o, size_t steps,
                                                             const float *c1, const float *c2,
                                                             const float *keep, float *restrict w,
                                                             float *restrict m, float *restrict v)
{
    float b1 = (float)o->beta1, b2 = (float)o->beta2, l2 = (float)o->l2, eps = (float)o->eps;
    float a1 = (float)(1 - (double)o->beta1), a2 = (float)(1 - (double)o->beta2);
    for (size_t i = 0; i < steps; i++)
        for (size_t k = 0; k < LANES; k++) {
            float wk = w[k] * keep[i], g = l2 * wk;
            m[k] = b1 * m[k] + a1 * g;
            v[k] = b2 * v[k] + a2 * g * g;
            w[k] = wk - c1[i] * m[k] / (sqrtf(v[k]) * c2[i] + eps);
        }
}

/* Adam and AdamW. The powers of the betas are carried on from step to step. */
static void adam(const mr_optim *o, uint64_t t, size_t steps, const double *lr, size_t n, float *w,
                 float *s)
{
    float c1[IDLE_STEPS], c2[IDLE_STEPS], keep[IDLE_STEPS];
    double p1 = pow((double)o->beta1, (double)(t - 1)), p2 = pow((double)o->beta2, (double)(t - 1));
    for (size_t i = 0; i < steps; i++) {
        p1 *= (double)o->beta1;
        p2 *= (double)o->beta2;
        c1[i] = (float)(lr[i] / (1 - p1));
        c2[i] = (float)(1 / sqrt(1 - p2));
        keep[i] = (float)(1 - lr[i] * (double)o->decay);
    }
    for (size_t from = 0; from < n; from += LANES) {
        size_t len = MIN(n - from, (size_t)LANES);
        float some[3][LANES] = {{0}};
        for (size_t k = 0; k < len; k++) {
            some[0][k] = w[from + k];
            some[1][k] = s[from + k];
            some[2][k] = s[n + from + k];
        }
        adam_lanes(o, steps, c1, c2, keep, some[0], some[1], some[2]);
        for (size_t k = 0; k < len; k++) {
            w[from + k] = some[0][k];
            s[from + k] = some[1][k];
            s[n + from + k] = some[2][k];
        }
    }
}

const idle_rules KERNEL(idle_rules) = {{[MR_ADAM] = adam, [MR_ADAMW] = adam}};

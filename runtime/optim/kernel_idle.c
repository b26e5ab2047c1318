/* kernel_idle.c - many updates in a row of weights whose only gradient is l2 w: what idle.c replays most. */
#include <math.h>

#include "kernel/kernel.h"
#include "optim/optimizer.h"

enum { LANES = 16 };

/* The updates of `steps` steps of LANES weights; c1, c2 and decay are those of kernel_optimizer.c by step. */
static inline __attribute__((always_inline)) void adam_lanes(const mr_optim *o, size_t steps,
                                                             const float *c1, const float *c2,
                                                             const float *decay, float *restrict w,
                                                             float *restrict m, float *restrict v)
{
    float b1 = (float)o->beta1, b2 = (float)o->beta2, l2 = (float)o->l2, eps = (float)o->eps;
    float a1 = (float)(1 - o->beta1), a2 = (float)(1 - o->beta2);
    for (size_t i = 0; i < steps; i++)
        for (size_t k = 0; k < LANES; k++) {
            float g = l2 * w[k];
            m[k] = b1 * m[k] + a1 * g;
            v[k] = b2 * v[k] + a2 * g * g;
            w[k] -= decay[i] * w[k] + c1[i] * m[k] / (sqrtf(v[k]) * c2[i] + eps);
        }
}

/* Adam and AdamW. The powers of the betas are carried on from step to step. */
static void adam(const mr_optim *o, uint64_t t, size_t steps, const double *lr, size_t n, float *w,
                 float *s)
{
    float c1[IDLE_STEPS], c2[IDLE_STEPS], decay[IDLE_STEPS];
    double p1 = pow(o->beta1, (double)(t - 1)), p2 = pow(o->beta2, (double)(t - 1));
    for (size_t i = 0; i < steps; i++) {
        p1 *= o->beta1;
        p2 *= o->beta2;
        c1[i] = (float)(lr[i] / (1 - p1));
        c2[i] = (float)(1 / sqrt(1 - p2));
        decay[i] = (float)(lr[i] * o->decay);
    }
    for (size_t from = 0; from < n; from += LANES) {
        size_t len = MIN(n - from, (size_t)LANES);
        float some[3][LANES] = {{0}};
        for (size_t k = 0; k < len; k++) {
            some[0][k] = w[from + k];
            some[1][k] = s[from + k];
            some[2][k] = s[n + from + k];
        }
        adam_lanes(o, steps, c1, c2, decay, some[0], some[1], some[2]);
        for (size_t k = 0; k < len; k++) {
            w[from + k] = some[0][k];
            s[from + k] = some[1][k];
            s[n + from + k] = some[2][k];
        }
    }
}

const idle_rules KERNEL(idle_rules) = {{[MR_ADAM] = adam, [MR_ADAMW] = adam}};

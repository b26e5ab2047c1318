/* kernel_math.h - exp, tanh, the sigmoid and erf for the loops of kernels: without branches or
 * calls, so that the compiler makes vectors of them. In double precision they are the C library's.
 *
 * exp: x = k ln 2 + r with |r| <= ln 2 / 2, exp(x) = 2^k exp(r), and exp(r) - 1 by its Taylor
 * series up to r^7, which leaves out less than 6e-9: within 2 units of the last place. Overflow
 * gives infinity, underflow goes by way of denormals to 0, NaN stays NaN.
 *
 * erf: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: within 2e-7. */
#ifndef MR_KERNEL_MATH_H
#define MR_KERNEL_MATH_H

#include <math.h>
#include <string.h>

#include "kernel/kernel.h"

#ifdef MR_F64

static inline real real_exp(real x)
{
    return exp(x);
}

static inline real real_tanh(real x)
{
    return tanh(x);
}

static inline real real_erf(real x)
{
    return erf(x);
}

#else

static inline float power_of_2(int32_t k) /* k from -126 to 127 */
{
    uint32_t bits = (uint32_t)(k + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

/* exp(r) - 1 for the r of x, and k. */
static inline float exp_parts(float x, int32_t *k)
{
    const float round = 12582912; /* 1.5 2^23: a sum's last place is 1 */
    float sum = x * 1.44269504f + round;
    uint32_t bits;
    memcpy(&bits, &sum, sizeof bits);
    *k = (int32_t)(bits - 0x4b400000u); /* the bits of `round` */
    float n = sum - round;
    float r = x - n * 0.693359375f; /* ln 2 in two parts; the first times n is exact */
    r += n * 2.12194440e-4f;
    float p = 1 / 5040.0f;
    p = p * r + 1 / 720.0f;
    p = p * r + 1 / 120.0f;
    p = p * r + 1 / 24.0f;
    p = p * r + 1 / 6.0f;
    p = p * r + 0.5f;
    return p * r * r + r;
}

static inline real real_exp(real x)
{
    x = x > 89 ? 89 : x; /* false for NaN */
    x = x < -105 ? -105 : x;
    int32_t k;
    float p = exp_parts(x, &k) + 1;
    return p * power_of_2(k >> 1) * power_of_2(k - (k >> 1));
}

/* m / (m + 2) with m = exp(2 x) - 1. */
static inline real real_tanh(real x)
{
    x = x > 10 ? 10 : x;
    x = x < -10 ? -10 : x;
    int32_t k;
    float p = exp_parts(2 * x, &k), power = power_of_2(k), m = power * p + (power - 1);
    return m / (m + 2);
}

static inline real real_erf(real x)
{
    float y = fabsf(x), t = 1 / (1 + 0.3275911f * y), p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    return copysignf(1 - p * t * real_exp(-y * y), x);
}

#endif

static inline real real_sigmoid(real x)
{
    return 1 / (1 + real_exp(-x));
}

#endif

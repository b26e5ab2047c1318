/* kernel_init.c - normal numbers for fresh weights, many at once: half of the cost of a new key.
 *
 * The numbers are the same in every variant: plain element-wise arithmetic, and no multiplication is
 * joined with an addition. */
#include <math.h>
#include <string.h>

#include "kernel/init.h"
#include "kernel/kernel.h"

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

enum { PAIRS = 8 };

/* ln x, 0 < x <= 1, by 2 atanh((m - 1) / (m + 1)) of the mantissa, m from sqrt(1/2) to sqrt(2). */
static inline float logarithm(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t high = bits + 0x004afb0du; /* carries into the exponent from sqrt(2) on */
    float exponent = (float)((int32_t)(high >> 23) - 127), m;
    bits -= (high & 0xff800000u) - 0x3f800000u;
    memcpy(&m, &bits, 4);
    float s = (m - 1) / (m + 1), z = s * s;
    float series = 1 + z * (1 / 3.0f + z * (1 / 5.0f + z * (1 / 7.0f + z * (1 / 9.0f))));
    return exponent * 0.69314718f + 2 * s * series;
}

/* Box and Muller, 1958: two uniform numbers give a pair of normal ones,
 * sqrt(-2 ln u) (cos 2 pi t, sin 2 pi t); sine and cosine by their series within an eighth of a turn. */
static void normals(uint64_t seed, size_t n, float mean, float deviation, float *out)
{
    for (size_t from = 0; from < n; from += 2 * PAIRS) {
        float u[PAIRS], t[PAIRS], pair[2 * PAIRS];
        for (size_t i = 0; i < PAIRS; i++) {
            uint64_t random = random_at(seed, from + 2 * i);
            u[i] = ((float)(uint32_t)(random >> 32) + 0.5f) * 0x1p-32f;
            t[i] = (float)(uint32_t)random * 0x1p-32f;
        }
        for (size_t i = 0; i < PAIRS; i++) {
            float radius = sqrtf(-2 * logarithm(u[i])) * deviation;
            int32_t turn = (int32_t)(t[i] * 4 + 0.5f);
            float a = (t[i] * 4 - (float)turn) * 1.57079633f, z = a * a;
            float sine =
                a *
                (1 - z * (1 / 6.0f - z * (1 / 120.0f - z * (1 / 5040.0f - z * (1 / 362880.0f)))));
            float cosine = 1 - z * (0.5f - z * (1 / 24.0f - z * (1 / 720.0f - z * (1 / 40320.0f))));
            float x = turn & 1 ? sine : cosine, y = turn & 1 ? cosine : sine;
            pair[2 * i] = mean + radius * ((turn + 1) & 2 ? -x : x);
            pair[2 * i + 1] = mean + radius * (turn & 2 ? -y : y);
        }
        memcpy(out + from, pair, 4 * MIN((size_t)2 * PAIRS, n - from));
    }
}

const init_functions KERNEL(init_functions) = {normals};

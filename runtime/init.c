/* init.c - fresh weights: a pure function of a stream's seed and the coordinate (random_at), so
 * that training, evaluation, another thread count and another run all see the same ones.
 * Normals are Box and Muller's (1958): one 64-bit number gives two uniforms and a pair. */
#include <math.h>

#include "base.h"

static void normal_pair(uint64_t random, float *a, float *b)
{
    float u = ((float)(random >> 32) + 0.5f) * 0x1p-32f;
    float angle = (float)(uint32_t)random * (float)(0x1p-32 * 2 * M_PI);
    float radius = sqrtf(-2 * logf(u));
    *a = radius * cosf(angle);
    *b = radius * sinf(angle);
}

static float truncated_normal(uint64_t seed, uint64_t i)
{
    uint64_t stream = random_at(seed, i);
    for (uint64_t draw = 0;; draw++) { /* 95 % succeed at each draw */
        float a, b;
        normal_pair(random_at(stream, draw), &a, &b);
        if (fabsf(a) <= 2)
            return a;
        if (fabsf(b) <= 2)
            return b;
    }
}

void init_fill(const mr_init *init, uint64_t seed, size_t n, float *out)
{
    float a = init->a, b = init->b;
    switch (init->kind) {
    case MR_CONSTANT:
        for (size_t i = 0; i < n; i++)
            out[i] = a;
        break;
    case MR_UNIFORM:
        for (size_t i = 0; i < n; i++)
            out[i] = a + (b - a) * ((float)(random_at(seed, i) >> 40) * 0x1p-24f);
        break;
    case MR_NORMAL:
        for (size_t i = 0; i < n; i += 2) {
            float x, y;
            normal_pair(random_at(seed, i), &x, &y);
            out[i] = a + b * x;
            if (i + 1 < n)
                out[i + 1] = a + b * y;
        }
        break;
    case MR_TRUNCATED_NORMAL:
        for (size_t i = 0; i < n; i++)
            out[i] = a + b * truncated_normal(seed, i);
        break;
    }
}

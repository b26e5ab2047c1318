/* init.c - fresh weights: a pure function of a stream's seed and the coordinate (random_at), so
 * that training, evaluation, another thread count and another run all see the same ones. */
#include <math.h>

#include "kernel/init.h"
#include "kernel/kernel.h"

KERNEL_PICK(init_functions, init_functions)

static float truncated_normal(uint64_t seed, uint64_t i)
{
    uint64_t stream = random_at(seed, i);
    for (uint64_t draw = 0;; draw++) { /* 95 % succeed at each draw */
        float pair[2];
        init_functions_pick()->normals(random_at(stream, draw), 2, 0, 1, pair);
        if (fabsf(pair[0]) <= 2)
            return pair[0];
        if (fabsf(pair[1]) <= 2)
            return pair[1];
    }
}

int init_check(const mr_init *init, const char *subject)
{
    if (init->kind < MR_CONSTANT || init->kind > MR_DRAWN)
        return fail("%s: initializer %d is unknown", subject, (int)init->kind);
    if (init->kind == MR_DRAWN && !init->values)
        return fail("%s: an initializer without the values that it draws", subject);
    if (!isfinite(init->a) || !isfinite(init->b))
        return fail("%s: an initializer of %g and %g, expected finite numbers", subject,
                    (double)init->a, (double)init->b);
    return 0;
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
        init_functions_pick()->normals(seed, n, a, b, out);
        break;
    case MR_TRUNCATED_NORMAL:
        for (size_t i = 0; i < n; i++)
            out[i] = a + b * truncated_normal(seed, i);
        break;
    case MR_DRAWN:
        for (size_t i = 0; i < n; i++)
            out[i] = init->values[random_at(seed, i) >> 48];
        break;
    }
}

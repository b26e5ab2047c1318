/* clip.c - what holds gradients within bounds. */
#include "optim/optimizer.h"

enum { LANES = 8 };

double gradient_squares(float *g, size_t n, float scale, float value)
{
    if (scale != 1)
        for (size_t i = 0; i < n; i++)
            g[i] *= scale;
    if (value > 0)
        for (size_t i = 0; i < n; i++)
            g[i] = g[i] > value ? value : g[i] < -value ? -value : g[i];
    double lane[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++)
            lane[k] += (double)g[i + k] * g[i + k];
    for (; i < n; i++)
        sum += (double)g[i] * g[i];
    for (size_t k = 0; k < LANES; k++)
        sum += lane[k];
    return sum;
}

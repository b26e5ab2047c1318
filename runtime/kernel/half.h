/* half.h - bfloat16, the upper half of a float, in which a table's columns may be kept.
 *
 * Where a weight moves by less than half a step of its format, rounding to the nearest would hold it for
 * good. It is rounded up with a chance of the part that is cut off instead (Gupta et al., 2015), so that
 * its mean is what it would be in float. Chances are drawn from a seed: the same everywhere. What is
 * representable stays as it is, and what is finite stays finite. */
#ifndef MR_HALF_H
#define MR_HALF_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Of numbers at any address. */
typedef uint16_t half_at __attribute__((aligned(1), may_alias));

typedef struct half_functions {
    void (*open)(const void *from, size_t n, float *to);
    void (*close)(const float *from, size_t n, uint64_t seed, void *to);
} half_functions;

/* In the variant for this processor. */
const half_functions *half(void);

/* x + up, cut off to its upper half; up: 0 to 65535. */
static inline uint16_t half_cut(float x, uint32_t up)
{
    uint32_t bits, most = 0x7f7f;
    memcpy(&bits, &x, sizeof bits);
    uint32_t cut = (bits + up) >> 16, plain = bits >> 16;
    uint32_t special = (bits & 0x7f800000) == 0x7f800000;
    uint32_t quiet = plain | ((bits & 0x7fffff) != 0 ? 0x40 : 0); /* infinite, or not a number */
    uint32_t held = (cut & 0x7fff) > most ? (cut & 0x8000) | most : cut;
    return (uint16_t)(special ? quiet : held);
}

/* The representable number that is nearest; of two, the even one. */
static inline float half_nearest(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (uint32_t)half_cut(x, 0x7fff + (bits >> 16 & 1)) << 16;
    memcpy(&x, &bits, sizeof x);
    return x;
}

#endif

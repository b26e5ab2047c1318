/* kernel_half.c - numbers to and from half precision. */
#include "kernel/half.h"
#include "kernel/kernel.h"

static void half_open(const void *from, size_t n, float *to)
{
    const half_at *x = from;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)x[i] << 16;
        memcpy(&to[i], &bits, sizeof bits);
    }
}

/* The draw of number i: 32 bits of a counter, mixed (the constants are those of MurmurHash3). */
static void half_close(const float *from, size_t n, uint64_t seed, void *to)
{
    half_at *x = to;
    uint32_t first = (uint32_t)seed, key = (uint32_t)(seed >> 32);
    for (size_t i = 0; i < n; i++) {
        uint32_t draw = (first + (uint32_t)i) * 0x9e3779b1u ^ key;
        draw = (draw ^ draw >> 16) * 0x85ebca6bu;
        draw = (draw ^ draw >> 13) * 0xc2b2ae35u;
        x[i] = half_cut(from[i], draw >> 16);
    }
}

const half_functions KERNEL(half_functions) = {half_open, half_close};

/* cpu.c - which instruction set the kernels use: found once, at the first question. */
#include <stdlib.h>
#include <string.h>

#include "kernel/kernel.h"

static kernel_level level_found(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !__builtin_cpu_supports("bmi2"))
        return KERNEL_BASE;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512cd"))
        return KERNEL_V3;
    return KERNEL_V4;
#else
    return KERNEL_BASE;
#endif
}

kernel_level kernel_variant(void)
{
    static int known = -1; /* two threads that race here find the same */
    if (known < 0) {
        kernel_level level = level_found();
        const char *cap = getenv("MOONROCK_KERNELS");
        if (cap && !strcmp(cap, "base"))
            level = KERNEL_BASE;
        else if (cap && !strcmp(cap, "v3"))
            level = MIN(level, KERNEL_V3);
        known = level;
    }
    return (kernel_level)known;
}

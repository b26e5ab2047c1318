/* kernel_keys.c - the hashes of many keys at once. */
#include "kernel/kernel.h"
#include "table/table_room.h"

static void hash(const uint64_t *keys, size_t n, uint64_t *to)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        to[i] = key_hash(keys[i]);
}

const key_functions KERNEL(key_functions) = {hash};

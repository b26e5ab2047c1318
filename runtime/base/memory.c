/* memory.c - the one allocator; arenas on top of it, and regions beside it. Every block is 64-byte
 * aligned; a block of 2 MiB and more is aligned to that and asks for huge pages, which halves the
 * cost of a random access. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/base.h"

#define HUGE_PAGE ((size_t)2 << 20)

static atomic_size_t calls;
static atomic_llong fail_in; /* calls until one fails; 0 and less: none does */

double mr_memory_calls(void)
{
    return (double)atomic_load(&calls);
}

double mr_memory_peak(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    if (!f)
        return 0;
    char line[256];
    double kib = 0;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %lf", &kib) == 1)
            break;
    fclose(f);
    return kib * 1024;
}

int64_t mr_memory_fail(int64_t n)
{
    return atomic_exchange(&fail_in, n);
}

static int failing(void)
{
    return atomic_load_explicit(&fail_in, memory_order_relaxed) > 0 &&
           atomic_fetch_sub(&fail_in, 1) == 1;
}

void *memory_new(size_t len)
{
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    size_t align = len >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    void *p = NULL;
    if (len >= HUGE_PAGE && (double)len > mr_memory_limit())
        return fail_null(
            "memory: %.0f MB at once, of the %.0f MB that this process may use (--memory)",
            (double)len / 1e6, mr_memory_limit() / 1e6);
    if (len > SIZE_MAX / 2 || failing() || posix_memalign(&p, align, len ? len : 1))
        return fail_null("memory: out of memory for %zu bytes", len);
    if (align == HUGE_PAGE)
        madvise(p, len, MADV_HUGEPAGE);
    return p;
}

void *memory_zero(size_t len)
{
    void *p = memory_new(len);
    return p ? memset(p, 0, len) : NULL;
}

void *memory_resize(void *p, size_t old_len, size_t len)
{
    void *q = memory_new(len);
    if (!q)
        return NULL;
    if (p)
        memcpy(q, p, MIN(old_len, len));
    memory_free(p);
    return q;
}

void memory_free(void *p)
{
    free(p);
}

int memory_reserve(void **array, size_t *room, size_t need, size_t size)
{
    if (need <= *room)
        return 0;
    size_t grown = MAX(need, *room + *room / 2 + 16);
    void *p = memory_resize(*array, *room * size, grown * size);
    if (!p)
        return -1;
    *array = p;
    *room = grown;
    return 0;
}

/* ---- arenas: a list of blocks, the newest first; only the newest gives out memory -------- */

typedef struct block {
    struct block *older;
    size_t size; /* bytes after the header's 64 */
    size_t used;
} block;

struct arena {
    block *newest;
    size_t taken; /* bytes given out since the last reset, over all blocks */
};

#define ARENA_FIRST ((size_t)64 << 10)

arena *arena_new(void)
{
    return memory_zero(sizeof(arena));
}

static void blocks_free(block *b)
{
    while (b) {
        block *older = b->older;
        memory_free(b);
        b = older;
    }
}

void arena_free(arena *a)
{
    if (!a)
        return;
    blocks_free(a->newest);
    memory_free(a);
}

static block *block_new(size_t size, block *older)
{
    block *b = memory_new(ALIGNMENT + size);
    if (b)
        *b = (block){older, size, 0};
    return b;
}

void *arena_take(arena *a, size_t len)
{
    len = (len + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    block *b = a->newest;
    if (!b || b->size - b->used < len) {
        size_t size = MAX(MAX(len, ARENA_FIRST), b ? 2 * b->size : 0);
        if ((double)a->taken + (double)len > mr_memory_limit())
            return fail_null(
                "memory: the tensors of a step would take %.0f MB, more than the %.0f MB that "
                "the process may use",
                ((double)a->taken + (double)len) / 1e6, mr_memory_limit() / 1e6);
        b = block_new(size, a->newest);
        if (!b)
            return NULL;
        a->newest = b;
    }
    void *p = (char *)b + ALIGNMENT + b->used;
    b->used += len;
    a->taken += len;
    return p;
}

void arena_reset(arena *a)
{
    block *b = a->newest;
    if (b && b->older) { /* one block that holds it all, with room for a step a little larger */
        size_t size = a->taken + a->taken / 4;
        blocks_free(b);
        a->newest = block_new(size, NULL); /* on failure the next take tries again */
    } else if (b) {
        b->used = 0;
    }
    a->taken = 0;
}

/* ---- regions --------------------------------------------------------------------------- */

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static size_t region_size(size_t most)
{
    return (most + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
}

char *region_new(size_t most)
{
    size_t size = region_size(most);
    char *p =
        mmap(NULL, size + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return fail_null("memory: no room for %zu bytes of addresses (ulimit -v?)", size);
    char *base = (char *)(((uintptr_t)p + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    if (base > p)
        munmap(p, (size_t)(base - p));
    if (base < p + HUGE_PAGE)
        munmap(base + size, (size_t)(p + HUGE_PAGE - base));
    return base;
}

void region_free(char *base, size_t most)
{
    if (base)
        munmap(base, region_size(most));
}

int region_grow(char *base, size_t from, size_t to)
{
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    if (mprotect(base + from, to - from, PROT_READ | PROT_WRITE))
        return fail("memory: out of memory for %zu bytes", to - from);
    size_t first = from / HUGE_PAGE * HUGE_PAGE;
    if (to % HUGE_PAGE == 0) { /* small pages that stand in front become part of a huge one */
        madvise(base + first, to - first, MADV_HUGEPAGE);
        if (first < from && !madvise(base + first, HUGE_PAGE, MADV_COLLAPSE))
            return 0;
    }
    if (madvise(base + from, to - from, MADV_POPULATE_WRITE))
        for (size_t at = from; at < to; at += 4096) /* kernels before 5.14 */
            *(volatile char *)(base + at) = 0;
    return 0;
}

/* base.h - what every room of the runtime stands on: errors, memory, threads, random numbers. */
#ifndef MR_BASE_H
#define MR_BASE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "moonrock.h"

#define ALIGNMENT 64
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Keeps a message for mr_error() and returns -1. */
int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same where a pointer is returned: `return fail_null(...)`. */
void *fail_null(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Puts ? for control characters, which would change the terminal that a message is shown on. Messages
 * of fail() are so already. */
void printable(char *text);

/* At the top of a public function: what it returns after fail() unless all of these pointers are given. Lua
 * has nil for what was closed, or left out. `GIVEN(t && name, -1);` */
#define GIVEN(all, failed)                                                                         \
    do {                                                                                           \
        if (!(all)) {                                                                              \
            fail("%s: a NULL among its arguments: something that was closed, or left out",         \
                 __func__);                                                                        \
            return failed;                                                                         \
        }                                                                                          \
    } while (0)

/* The allocator: 64-byte aligned, contents undefined (or zero), NULL after fail(). Blocks of
 * 2 MiB and more ask for huge pages. `resize` keeps the first old_len bytes. */
void *memory_new(size_t len);
void *memory_zero(size_t len);
void *memory_resize(void *p, size_t old_len, size_t len);
void memory_free(void *p);
/* For tests: the n-th block from now on is refused, once; 0: none. Returns what was left of the
 * n before: 0 or less, if it was refused. */
__attribute__((visibility("default"))) int64_t mr_memory_fail(int64_t n);

/* Room for `need` elements of `size` bytes in a growing array of *room; -1 after fail(). */
int memory_reserve(void **array, size_t *room, size_t need, size_t size);

/* An arena: memory that is given out in order and taken back at once. It grows by blocks that
 * never move; a reset merges them, so that a steady state needs no allocation. */
typedef struct arena arena;
arena *arena_new(void);
void arena_free(arena *a);
void *arena_take(arena *a, size_t len); /* 64-byte aligned, undefined; NULL after fail() */
void arena_reset(arena *a);

/* A counter of generations (generation.c): it starts above what it was when it was last in use, outlives
 * whatever counts in it, and never goes down. NULL after fail(). free counts it up. */
double *generation_new(void);
void generation_free(double *counter);

/* A region: the addresses of up to `most` bytes, none of which is memory yet. region_grow makes
 * [from, to) memory at once, zero; where `to` is a multiple of 2 MiB, in huge pages if it can. Nothing
 * ever moves. */
char *region_new(size_t most);
int region_grow(char *base, size_t from, size_t to);
void region_free(char *base, size_t most);

/* The memory budget (budget.c): whoever keeps much memory for long joins it. The process may grow
 * while what is resident, and what was promised to others but is not held yet, stays below the
 * limit. */
typedef struct memory_client {
    const char *name;
    size_t promise; /* bytes it may come to hold whatever others do */
    size_t held;
    struct memory_client *next;
} memory_client;
void memory_join(memory_client *c, const char *name, size_t promise);
void memory_leave(memory_client *c);
/* 1: it may hold len bytes more, which count from now on; it says memory_took(len) once they are
 * resident. 0: they are more than the budget has left. */
int memory_grant(memory_client *c, size_t len);
void memory_took(size_t len);
void memory_gave(memory_client *c, size_t len);    /* it holds len bytes less */
void memory_promise(memory_client *c, size_t len); /* it may come to hold len bytes in all */
/* Bytes that are neither resident nor promised. */
double memory_left(void);

/* Runs task(context, piece) for every piece in [0, pieces) on the threads of the pool and
 * waits. Pieces are taken in order of their number, by whichever thread is free, so their
 * number and bounds must depend on the data alone. A call inside a piece runs in place. */
typedef void task(void *context, size_t piece);
void parallel(size_t pieces, task *run, void *context);

/* Starts a thread that signals do not reach: they are the main thread's. 0, or an errno. */
int thread_start(pthread_t *thread, void *(*run)(void *), void *context);

/* splitmix64's output function: a bijection that mixes all bits. */
static inline uint64_t mix64(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* The i-th number of the counter-based stream `seed`. */
static inline uint64_t random_at(uint64_t seed, uint64_t i)
{
    return mix64(seed + (i + 1) * 0x9e3779b97f4a7c15ull);
}

/* Fills out[0..n) with the fresh weights of stream `seed`; check: -1 after fail() if it is no initializer. */
int init_check(const mr_init *init, const char *subject);
void init_fill(const mr_init *init, uint64_t seed, size_t n, float *out);

#endif

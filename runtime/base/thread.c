/* thread.c - the pool that calls fork over and join; made once. Whoever waits spins, then lets others that
 * want the processor have it (the reader's thread), then sleeps; to be woken takes long.
 *
 * The pieces of a call are dealt out in shares of neighbours, one a thread. Thread i begins with share i
 * in every call, so that what a piece leaves in a core's cache is mostly there for the next call's piece
 * that goes on with it; then it helps with the other shares. A share is one 64-bit ticket: | end: 32 |
 * next piece: 32 |. Whoever adds 1 to it owns the piece it held before, if that is below the end. The
 * caller leaves when `done` counts every piece, so it never waits for a worker that was too late to take
 * one, and a late worker finds either nothing left or a piece of the next call: both are right. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/base.h"
#include "base/blas.h"

enum { THREADS_MAX = 256, SPINS = 500, YIELDS = 100 };

typedef struct share {
    _Alignas(64) atomic_uint_fast64_t ticket;
} share;

static struct {
    share share[THREADS_MAX];
    pthread_t worker[THREADS_MAX];
    int threads; /* the caller's included */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_int sleeping; /* workers that wait for `wake` */
    atomic_int stop;
    _Alignas(64) atomic_uint_fast64_t call; /* its number */
    _Alignas(64) atomic_size_t done;
    atomic_int waiting; /* the caller sleeps until all is done */
    pthread_cond_t joined;
    task *run; /* of the call under way, as the next two; stable while one of its pieces is */
    void *context;
    size_t pieces;
} pool = {.threads = 1,
          .lock = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER,
          .joined = PTHREAD_COND_INITIALIZER};

static _Thread_local int inside; /* this thread is running a piece */

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits for a moment until something is so. */
#define LINGER(until)                                                                              \
    for (int i = 0; i < SPINS + YIELDS && !(until); i++)                                           \
    i < SPINS ? relax() : (void)sched_yield()

/* Runs pieces of the call under way until none is left, those of the thread's own share first. */
static void take_pieces(int thread)
{
    inside = 1;
    for (int i = 0; i < pool.threads; i++) {
        share *s = &pool.share[(thread + i) % pool.threads];
        for (;;) {
            uint64_t t = atomic_load_explicit(&s->ticket, memory_order_relaxed);
            if ((uint32_t)t >= t >> 32)
                break;
            t = atomic_fetch_add(&s->ticket, 1);
            if ((uint32_t)t >= t >> 32)
                break;
            size_t pieces = pool.pieces; /* once `done` has the last one, the next call may begin */
            pool.run(pool.context, (uint32_t)t);
            if (atomic_fetch_add(&pool.done, 1) + 1 == pieces && atomic_load(&pool.waiting)) {
                pthread_mutex_lock(&pool.lock);
                pthread_cond_signal(&pool.joined);
                pthread_mutex_unlock(&pool.lock);
            }
        }
    }
    inside = 0;
}

static void *worker_main(void *number)
{
    uint64_t seen = atomic_load(&pool.call);
    blas_thread_begin();
    while (!atomic_load(&pool.stop)) {
        LINGER(atomic_load(&pool.call) != seen);
        if (atomic_load(&pool.call) == seen) {
            pthread_mutex_lock(&pool.lock);
            atomic_fetch_add(&pool.sleeping, 1);
            while (atomic_load(&pool.call) == seen && !atomic_load(&pool.stop))
                pthread_cond_wait(&pool.wake, &pool.lock);
            atomic_fetch_sub(&pool.sleeping, 1);
            pthread_mutex_unlock(&pool.lock);
        }
        seen = atomic_load(&pool.call);
        take_pieces((int)(intptr_t)number);
    }
    return NULL;
}

static void wake_all(void)
{
    pthread_mutex_lock(&pool.lock);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
}

void parallel(size_t pieces, task *run, void *context)
{
    if (pieces <= 1 || pool.threads == 1 || inside) {
        for (size_t i = 0; i < pieces; i++)
            run(context, i);
        return;
    }
    pool.run = run;
    pool.context = context;
    pool.pieces = pieces;
    atomic_store(&pool.done, 0);
    size_t threads = (size_t)pool.threads;
    for (size_t i = 0; i < threads; i++)
        atomic_store(&pool.share[i].ticket,
                     (pieces * (i + 1) / threads) << 32 | pieces * i / threads);
    atomic_fetch_add(&pool.call, 1);
    if (atomic_load(&pool.sleeping))
        wake_all();
    take_pieces(0);
    LINGER(atomic_load(&pool.done) == pieces);
    if (atomic_load(&pool.done) == pieces)
        return;
    pthread_mutex_lock(&pool.lock); /* the last piece's thread has no processor just now */
    atomic_store(&pool.waiting, 1);
    while (atomic_load(&pool.done) < pieces)
        pthread_cond_wait(&pool.joined, &pool.lock);
    atomic_store(&pool.waiting, 0);
    pthread_mutex_unlock(&pool.lock);
}

int thread_start(pthread_t *thread, void *(*run)(void *), void *context)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int why = pthread_create(thread, NULL, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return why;
}

int mr_threads(void)
{
    return pool.threads;
}

static int processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : MIN(CPU_COUNT(&set), THREADS_MAX);
}

int mr_threads_set(int n)
{
    static int chosen;
    if (n == 0 && chosen)
        return 0;
    chosen = 1;
    if (n == 0)
        n = processors();
    if (n < 1 || n > THREADS_MAX)
        return fail("threads: %d is out of range, expected 1 to %d", n, THREADS_MAX);
    atomic_store(&pool.stop, 1);
    wake_all();
    for (int i = 1; i < pool.threads; i++)
        pthread_join(pool.worker[i], NULL);
    atomic_store(&pool.stop, 0);
    pool.threads = 1;
    blas_thread_begin();
    while (pool.threads < n) {
        if (thread_start(&pool.worker[pool.threads], worker_main, (void *)(intptr_t)pool.threads))
            return fail("threads: could not start thread %d of %d", pool.threads + 1, n);
        pool.threads++;
    }
    return 0;
}

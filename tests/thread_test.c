/* thread_test.c - the pool's hand-over from call to call: every piece runs once and in its own call,
 * however late a thread comes, and nobody waits for ever. */
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "support/check.h"

/* The pool once more, all of whose threads stumble: before any of its atomic stores and additions, and some
 * of its loads, they may lose the processor for a while. So each order that the hand-over allows comes up,
 * on few processors and busy ones too. */
static void stumble(unsigned one_in);
#undef atomic_store
#undef atomic_load
#undef atomic_fetch_add
#undef atomic_fetch_sub
#define atomic_store(at, x) (stumble(3), atomic_store_explicit(at, x, memory_order_seq_cst))
#define atomic_load(at) (stumble(500), atomic_load_explicit(at, memory_order_seq_cst))
#define atomic_fetch_add(at, x) (stumble(3), atomic_fetch_add_explicit(at, x, memory_order_seq_cst))
#define atomic_fetch_sub(at, x) (stumble(3), atomic_fetch_sub_explicit(at, x, memory_order_seq_cst))
#define parallel parallel_stumbling
#define thread_start thread_start_stumbling
#define mr_threads mr_threads_stumbling
#define mr_threads_set mr_threads_set_stumbling
#include "base/thread.c"
#undef parallel
#undef mr_threads_set

static void stumble(unsigned one_in)
{
    static atomic_uint threads;
    static _Thread_local uint64_t state;
    if (!state)
        state = 1 + atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed);
    uint64_t draw = mix64(state++);
    if (draw % one_in == 0)
        usleep((unsigned)(draw >> 32) % 40);
}

enum { PIECES = 600, PATIENCE = 60 }; /* seconds until a call counts as one that never ends */

/* The pool as it is, and the one that stumbles. */
static void (*run_pool)(size_t n, task *run, void *context) = parallel;
static int (*set_pool)(int threads) = mr_threads_set;

static atomic_uint call_now;

typedef struct pieces {
    unsigned call; /* a thread that is late must not run a piece of another call */
    size_t late;   /* the piece that takes long, of so many microseconds; SIZE_MAX: none */
    unsigned pause;
    atomic_uint strange;
    unsigned char ran[PIECES];
} pieces;

static void piece_run(void *context, size_t i)
{
    pieces *p = context;
    if (p->call != atomic_load_explicit(&call_now, memory_order_relaxed))
        p->strange++;
    if (i == p->late)
        usleep(p->pause);
    p->ran[i]++;
}

/* One call of n pieces; whether each ran once. */
static int call_lasting(size_t n, size_t late, unsigned pause)
{
    pieces p = {.call = atomic_fetch_add_explicit(&call_now, 1, memory_order_relaxed) + 1,
                .late = late,
                .pause = pause};
    int good = 1;
    run_pool(n, piece_run, &p);
    for (size_t i = 0; i < PIECES; i++)
        good &= p.ran[i] == (i < n);
    return good && !p.strange;
}

static int call_once(size_t n, size_t late)
{
    return call_lasting(n, late, 2000);
}

/* Calls that follow upon each other without a pause: most threads come late to them. */
static void short_calls_test(const char *name, int part)
{
    static const struct {
        int threads, calls;
        size_t most;
    } rounds[] = {{2, 30000, 4}, {4, 30000, 6}, {16, 3000, 40}, {96, 600, 200}};
    int before = failures;
    for (size_t r = 0; r < sizeof rounds / sizeof *rounds; r++) {
        if (!check(!set_pool(rounds[r].threads), "%d threads", rounds[r].threads))
            break;
        int wrong = 0;
        for (int i = 0; i < rounds[r].calls / part && !wrong; i++)
            wrong = !call_once((size_t)i % rounds[r].most + 1, SIZE_MAX);
        check(!wrong, "%d threads: a piece ran twice, not at all, or in another call",
              rounds[r].threads);
    }
    report(name, before);
}

/* A piece that takes long, at each place of its call: the caller sleeps, and is woken. */
static void late_pieces_test(void)
{
    int before = failures;
    for (int threads = 2; threads <= 8; threads *= 2) {
        set_pool(threads);
        for (size_t i = 0; i < 64; i++)
            check(call_once(64, i), "%d threads: piece %zu is late", threads, i);
        for (size_t n = 0; n <= 9; n++)
            check(call_once(n, n - 1), "%d threads, %zu pieces", threads, n);
    }
    report("a caller waits for the piece that takes long, and is woken", before);
}

/* The last piece ends at about the time at which the caller gives up waiting for it, and goes to sleep. */
static void falling_asleep_test(void)
{
    int before = failures, wrong = 0;
    set_pool(2);
    for (unsigned i = 0; i < 6000 && !wrong; i++)
        wrong = !call_lasting(2, 1, i % 600);
    check(!wrong, "a piece ran twice, not at all, or in another call");
    report("a caller that falls asleep as the last piece ends is woken", before);
}

typedef struct nest {
    pieces inner[24];
    atomic_uint wrong;
} nest;

static void count_run(void *context, size_t i)
{
    ((pieces *)context)->ran[i]++;
}

static void nested_run(void *context, size_t i)
{
    nest *n = context;
    run_pool(40, count_run, &n->inner[i]);
    for (size_t k = 0; k < 40; k++) /* it is over when it returns */
        if (n->inner[i].ran[k] != 1)
            n->wrong++;
}

static void nested_test(void)
{
    int before = failures;
    for (int threads = 1; threads <= 8; threads *= 2) {
        set_pool(threads);
        for (int times = 0; times < 300; times++) {
            static nest n;
            memset(&n, 0, sizeof n);
            run_pool(24, nested_run, &n);
            for (size_t i = 0; i < 24; i++)
                for (size_t k = 0; k < 40; k++)
                    if (n.inner[i].ran[k] != 1)
                        n.wrong++;
            if (!check(!n.wrong, "%d threads: %u pieces", threads, n.wrong))
                break;
        }
    }
    report("calls within a piece run all of their pieces before they return", before);
}

static void failing_run(void *context, size_t i)
{
    int *failed = context;
    if (i % 7 == 3)
        failed[i] = fail("piece %zu", i);
}

/* A piece that fails says so to itself; the others, and the next call, are not touched by it. */
static void failing_test(void)
{
    int before = failures;
    set_pool(4);
    for (int times = 0; times < 500; times++) {
        int failed[100] = {0};
        run_pool(100, failing_run, failed);
        for (size_t i = 0; i < 100; i++)
            check(failed[i] == (i % 7 == 3 ? -1 : 0), "piece %zu", i);
        if (!check(call_once(50, SIZE_MAX), "the call after one with pieces that failed"))
            break;
    }
    report("pieces that fail leave the others, and the next call, as they are", before);
}

static pthread_t caller;

static void signals_run(void *context, size_t i)
{
    sigset_t now;
    static atomic_int
        others; /* pieces that were not the caller's: it waits for one, on a busy machine too */
    others += !pthread_equal(pthread_self(), caller);
    for (int ms = 0; i == 0 && !others && ms < 5000; ms++)
        usleep(1000);
    usleep(500);
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    ((unsigned char *)context)[i] =
        !pthread_equal(pthread_self(), caller) &&
        !(sigismember(&now, SIGINT) && sigismember(&now, SIGTERM) && sigismember(&now, SIGCHLD));
}

static void signals_test(void)
{
    int before = failures;
    unsigned char open[64];
    sigset_t now;
    caller = pthread_self();
    set_pool(4);
    run_pool(64, signals_run, open);
    for (int i = 0; i < 64; i++)
        if (!check(!open[i], "a thread of the pool takes signals"))
            break;
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    check(!sigismember(&now, SIGINT) && !sigismember(&now, SIGTERM), "the caller takes none");
    report("signals are the caller's alone", before);
}

int main(void)
{
    alarm(PATIENCE);
    RUN(short_calls_test, "every piece of calls that follow upon each other runs once", 1);
    RUN(late_pieces_test);
    RUN(nested_test);
    RUN(failing_test);
    RUN(signals_test);
    run_pool = parallel_stumbling;
    set_pool = mr_threads_set_stumbling;
    RUN(falling_asleep_test);
    RUN(short_calls_test, "and so it does, and no call waits for ever, where all threads stumble",
        20);
    return failures != 0;
}

/* clock.c - time, signals and the hash: what the base asks of the system. */
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/base.h"

const char *mr_version(void)
{
    return "0.1.0";
}

double mr_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double mr_clock_wall(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static volatile sig_atomic_t caught, line_stands;

#define SAME_SIGNAL 0.1 /* seconds: timeout(1), for one, signals a process and then its group */

/* Ends the process by the signal, with no line left on the terminal. */
static void on_end(int number)
{
    static const char wipe[] = "\r\33[J";
    if (line_stands && write(2, wipe, sizeof wipe - 1) < 0)
        line_stands = 0;
    signal(number, SIG_DFL);
    raise(number);
}

static void on_signal(int number)
{
    static double first;
    double now = mr_clock();
    if (caught && now - first < SAME_SIGNAL)
        return;
    first = now;
    if (caught) /* the second one ends the process, as if it had not been caught */
        on_end(number);
    caught = number;
}

void mr_interrupt_catch(void)
{
    static const int numbers[] = {SIGINT, SIGTERM};
    for (int i = 0; i < 2; i++) {
        struct sigaction old,
            action = {.sa_handler = on_signal}; /* no SA_RESTART: a read wakes up */
        sigemptyset(&action.sa_mask);
        sigaction(numbers[i], NULL, &old);
        int another =
            old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN && old.sa_handler != on_end;
        if (!another)
            sigaction(numbers[i], &action, NULL);
    }
}

void mr_interrupt_set(int number)
{
    caught = number;
}

void mr_terminal_line(int stands)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    static int armed;
    line_stands = stands;
    for (int i = 0; !armed && i < 4; i++) {
        struct sigaction old, action = {.sa_handler = on_end};
        sigemptyset(&action.sa_mask);
        if (!sigaction(ends[i], NULL, &old) && old.sa_handler == SIG_DFL)
            sigaction(ends[i], &action, NULL);
    }
    armed = 1;
}

int mr_interrupted(void)
{
    return caught;
}

const char *mr_program(void)
{
    static char path[4096];
    ssize_t len = readlink("/proc/self/exe", path, sizeof path - 1);
    path[len > 0 ? len : 0] = 0;
    return path;
}

uint64_t mr_hash(const void *bytes, size_t len, uint64_t seed)
{
    return XXH3_64bits_withSeed(bytes, len, seed);
}

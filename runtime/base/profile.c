/* profile.c - where the time of training goes: each part's own time, without that of the parts begun
 * within it, on the thread that runs Lua (the others wait for it, or work behind it). */
#include <string.h>
#include <time.h>

#include "base/base.h"
#include "base/profile.h"

enum { DEPTH = 16, PARTS = PART_OPERATIONS + 2 * PROFILE_OPERATIONS };

static const char *const names[PART_OPERATIONS] = {
    [PART_OTHER] = "Lua and the rest",
    [PART_READ] = "read: waiting for a batch",
    [PART_AHEAD] = "pull: looking ahead",
    [PART_PULL] = "pull: occurrences, rows",
    [PART_DEDUPE] = "pull: dedupe, find",
    [PART_CLIP] = "push: clipping",
    [PART_PUSH] = "push: rows",
    [PART_PARAMS] = "push: params",
    [PART_COMMIT] = "commit",
};

/* Of the operations, which come after the parts, all forward and then all backward. */
static const char *(*operation_name_of)(int code);
static int operations;

int profiling;
static struct {
    double seconds, calls;
} spent[PARTS];
static int inside[DEPTH], depth;
static double since;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void turn(void)
{
    double t = now();
    spent[inside[depth]].seconds += t - since;
    since = t;
}

void profile_operations(const char *(*name)(int code), int n)
{
    operation_name_of = name;
    operations = n;
}

void profile_begin(int part)
{
    turn();
    if (depth + 1 < DEPTH)
        inside[++depth] = part;
    spent[part].calls++;
}

void profile_end(void)
{
    turn();
    depth -= depth > 0;
}

void mr_profile_start(void)
{
    memset(spent, 0, sizeof spent);
    depth = 0;
    mr_profile_resume();
}

void mr_profile_resume(void)
{
    since = now();
    profiling = 1;
}

int mr_profile_pause(void)
{
    int was = profiling;
    if (was)
        turn();
    profiling = 0;
    return was;
}

int mr_profile_part(int i, mr_profile *out)
{
    GIVEN(out, -1);
    if (i < 0 || i >= PART_OPERATIONS + 2 * operations)
        return -1;
    int operation = i - PART_OPERATIONS;
    out->direction = operation < 0 ? "" : operation < operations ? "forward" : "backward";
    out->name = operation < 0 ? names[i] : operation_name_of(operation % operations);
    out->seconds = spent[i].seconds;
    out->calls = spent[i].calls;
    return 0;
}

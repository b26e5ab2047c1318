/* budget.c - the memory that this process may use: the limit, what is resident, and who holds or was
 * promised how much.
 *
 * What is resident is measured, not added up: it counts libraries, RocksDB's buffers, batches and
 * dense weights as well, without anybody having to tell. Clients are those whose memory grows for
 * long (rows) or must be there later on (the block cache, the buffers of a commit). */
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"

enum { SLACK = 4 << 20 }; /* for what no client tells: batches and arenas that still grow */

static struct {
    pthread_mutex_t lock;
    double limit; /* bytes; 0: not set yet */
    memory_client *first;
    size_t pending; /* granted, but perhaps not resident yet */
} budget = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* A number at the start of a file; 0 where there is none ("max"). */
static double file_number(const char *path)
{
    FILE *f = fopen(path, "r");
    double number = 0;
    if (f && fscanf(f, "%lf", &number) != 1)
        number = 0;
    if (f)
        fclose(f);
    return number;
}

/* Half of the memory of the machine, or of the control group where that is less. */
static double limit_default(void)
{
    double most = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    char line[512], path[600];
    FILE *f = fopen("/proc/self/cgroup", "r");
    while (f && fgets(line, sizeof line, f)) {
        char *group = strrchr(line, ':');
        if (!group || strncmp(line, "0::", 3))
            continue;
        group[strcspn(group, "\n")] = 0;
        for (char *end = group + strlen(group); end; end = strrchr(group, '/')) {
            *end = 0; /* a group is bounded by those above it too */
            snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group + 1);
            double max = file_number(path);
            if (max > 0)
                most = MIN(most, max);
        }
    }
    if (f)
        fclose(f);
    double v1 = file_number("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    if (v1 > 0)
        most = MIN(most, v1);
    return most / 2;
}

double mr_memory_resident(void)
{
    long pages[2] = {0, 0};
    char text[64];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (len <= 0)
        return 0;
    text[len] = 0;
    sscanf(text, "%ld %ld", &pages[0], &pages[1]);
    return (double)pages[1] * (double)sysconf(_SC_PAGESIZE);
}

double mr_memory_limit(void)
{
    pthread_mutex_lock(&budget.lock);
    if (!budget.limit) {
        /* Large blocks go back to the system when they are freed; few threads, few heaps. */
        mallopt(M_MMAP_THRESHOLD, 1 << 20);
        mallopt(M_TRIM_THRESHOLD, 4 << 20);
        mallopt(M_ARENA_MAX, 4);
        budget.limit = limit_default();
    }
    double limit = budget.limit;
    pthread_mutex_unlock(&budget.lock);
    return limit;
}

int mr_memory_limit_set(double bytes)
{
    mr_memory_limit();
    if (!(bytes >= 0))
        return fail("memory: %g bytes, expected a size such as 1e9", bytes);
    budget.limit = bytes > 0 ? bytes : limit_default();
    return 0;
}

/* ---- clients ---- */

void memory_join(memory_client *c, const char *name, size_t promise)
{
    *c = (memory_client){.name = name, .promise = promise};
    pthread_mutex_lock(&budget.lock);
    c->next = budget.first;
    budget.first = c;
    pthread_mutex_unlock(&budget.lock);
}

void memory_leave(memory_client *c)
{
    pthread_mutex_lock(&budget.lock);
    memory_client **at = &budget.first;
    while (*at && *at != c)
        at = &(*at)->next;
    if (*at)
        *at = c->next;
    pthread_mutex_unlock(&budget.lock);
}

/* With the lock held: bytes promised to all but `own`, and not held yet. */
static double promised(const memory_client *own)
{
    double bytes = 0;
    for (const memory_client *c = budget.first; c; c = c->next)
        if (c != own && c->promise > c->held)
            bytes += (double)(c->promise - c->held);
    return bytes;
}

static double left(const memory_client *own)
{
    double limit = budget.limit;
    return limit - limit / 64 - SLACK - mr_memory_resident() - (double)budget.pending -
           promised(own);
}

int memory_grant(memory_client *c, size_t len)
{
    mr_memory_limit();
    pthread_mutex_lock(&budget.lock);
    int yes = (double)len <= left(c);
    if (yes) {
        c->held += len;
        budget.pending += len;
    }
    pthread_mutex_unlock(&budget.lock);
    return yes;
}

void memory_took(size_t len)
{
    pthread_mutex_lock(&budget.lock);
    budget.pending -= len;
    pthread_mutex_unlock(&budget.lock);
}

void memory_gave(memory_client *c, size_t len)
{
    pthread_mutex_lock(&budget.lock);
    c->held -= len;
    pthread_mutex_unlock(&budget.lock);
}

void memory_promise(memory_client *c, size_t len)
{
    pthread_mutex_lock(&budget.lock);
    c->promise = len;
    pthread_mutex_unlock(&budget.lock);
}

double memory_left(void)
{
    mr_memory_limit();
    pthread_mutex_lock(&budget.lock);
    double bytes = left(NULL);
    pthread_mutex_unlock(&budget.lock);
    return bytes;
}

double mr_memory_floor(void)
{
    mr_memory_limit();
    pthread_mutex_lock(&budget.lock);
    double floor = (mr_memory_resident() + promised(NULL) + SLACK) * 64 / 63;
    pthread_mutex_unlock(&budget.lock);
    return floor;
}

const char *mr_memory_part(int i, double *held, double *promise)
{
    GIVEN(held && promise, NULL);
    const char *name = NULL;
    pthread_mutex_lock(&budget.lock);
    const memory_client *c = budget.first;
    while (c && i-- > 0)
        c = c->next;
    if (c) {
        name = c->name;
        *held = (double)c->held;
        *promise = (double)c->promise;
    }
    pthread_mutex_unlock(&budget.lock);
    return name;
}

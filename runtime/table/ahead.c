/* ahead.c - reading rows ahead: threads of the process that take the sets of rows that lookups miss,
 * in the order they come, chunk by chunk. Whoever waits for a set takes chunks of it too.
 *
 * They touch nothing but the rows of the sets, which are pinned until the sets are done, and the
 * database. Since a row that the cache has not is clean, what they read is its last state. */
#include <stdio.h>

#include "table/table_room.h"

enum { CHUNK = 256, THREADS_MAX = 16 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    int threads;
    read_set *first, **last; /* sets with chunks that nobody took yet */
} ahead = {.lock = PTHREAD_MUTEX_INITIALIZER,
           .work = PTHREAD_COND_INITIALIZER,
           .done = PTHREAD_COND_INITIALIZER,
           .last = &ahead.first};

/* A chunk of a set: where its rows begin. */
typedef struct chunk {
    const mr_table *t;
    const keyed_row *rows;
} chunk;

static int chunk_found(void *context, size_t i, const uint8_t *bytes, size_t len)
{
    const chunk *c = context;
    row *r = c->rows[i].row;
    int rc = bytes ? record_decode_kept(c->t, r, bytes, len) : 1;
    if (rc > 0)
        kept_fresh(c->t, r->key, r);
    return rc < 0 ? -1 : 0;
}

/* With the lock held: reads one chunk of a set that has one left, without it. */
static void chunk_read(read_set *s)
{
    size_t from = s->taken, n = MIN((size_t)CHUNK, s->n - from);
    s->taken += n;
    if (s->taken == s->n) { /* it is in the queue, as the first or further on */
        read_set **at = &ahead.first;
        while (*at && *at != s)
            at = &(*at)->next;
        if (*at && !(*at = s->next))
            ahead.last = at;
    }
    pthread_mutex_unlock(&ahead.lock);
    chunk c = {s->t, s->rows + from};
    int bad = s->t->store.read(s->t->store.store, s->t->id, c.rows, n, chunk_found, &c);
    pthread_mutex_lock(&ahead.lock);
    if (bad && !s->failed) {
        s->failed = 1;
        snprintf(s->error, sizeof s->error, "%s", mr_error());
    }
    s->done += n;
    if (s->done == s->n)
        pthread_cond_broadcast(&ahead.done);
}

static void *reads_ahead(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&ahead.lock);
    for (;;) {
        while (!ahead.first)
            pthread_cond_wait(&ahead.work, &ahead.lock);
        chunk_read(ahead.first);
    }
    return NULL;
}

void reads_start(read_set *s)
{
    if (!s->n)
        return;
    pthread_mutex_lock(&ahead.lock);
    s->next = NULL;
    *ahead.last = s;
    ahead.last = &s->next;
    while (ahead.threads < MIN(MAX(1, mr_threads() - 1), THREADS_MAX)) {
        pthread_t thread; /* without any, those who wait read */
        if (thread_start(&thread, reads_ahead, NULL))
            break;
        pthread_detach(thread);
        ahead.threads++;
    }
    pthread_cond_broadcast(&ahead.work);
    pthread_mutex_unlock(&ahead.lock);
}

int reads_wait(read_set *s)
{
    if (!s->n)
        return 0;
    pthread_mutex_lock(&ahead.lock);
    while (s->done < s->n)
        if (s->taken < s->n)
            chunk_read(s);
        else
            pthread_cond_wait(&ahead.done, &ahead.lock);
    int failed = s->failed;
    pthread_mutex_unlock(&ahead.lock);
    return failed ? fail("%s", s->error) : 0;
}

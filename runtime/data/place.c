/* place.c - see place.h. What is kept stands for all records from at[0] on without a gap: a record
 * beyond one, or before at[0], begins the list anew. A source that is read again has its records
 * where they were. */
#include <string.h>

#include "base/base.h"
#include "data/place.h"

enum { PLACES_MAX = 1 << 16 }; /* then the older half is forgotten */

void places_open(places *p)
{
    memset(p, 0, sizeof *p);
    p->most = p->last.record = -1;
    p->last.file = SIZE_MAX; /* so that the first record is kept */
    pthread_mutex_init(&p->lock, NULL);
}

void places_close(places *p)
{
    memory_free(p->at);
    pthread_mutex_destroy(&p->lock);
}

int places_jump(places *p, place here)
{
    int rc = 0;
    p->most = MAX(p->most, p->last.record);
    pthread_mutex_lock(&p->lock);
    if (p->n && (here.record > p->most + 1 || here.record < p->at[0].record)) {
        p->n = 0;
        p->most = -1;
    }
    if (!p->n || here.record > p->most) {
        if (p->n == PLACES_MAX) {
            p->n /= 2;
            memmove(p->at, p->at + p->n, p->n * sizeof *p->at);
        }
        rc = memory_reserve((void **)&p->at, &p->room, p->n + 1, sizeof *p->at);
        if (!rc)
            p->at[p->n++] = here;
    }
    pthread_mutex_unlock(&p->lock);
    p->last = here;
    return rc;
}

int places_find(places *p, int64_t record, place *out)
{
    pthread_mutex_lock(&p->lock);
    size_t low = 0, high = p->n; /* how many are of records up to this one */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (p->at[middle].record <= record)
            low = middle + 1;
        else
            high = middle;
    }
    if (low) {
        *out = p->at[low - 1];
        out->line += (uint64_t)(record - out->record);
        out->record = record;
    }
    pthread_mutex_unlock(&p->lock);
    return low > 0;
}

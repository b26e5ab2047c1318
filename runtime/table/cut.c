/* cut.c - the rows of a commit, which is written while training goes on.
 *
 * A cut takes the list of rows that changed since the one before. The committing thread sorts them and
 * encodes them in the order of their keys, a few at a time, under the cut's lock; cut_next is the key
 * that it comes to next. A push that is the first to change a row of the cut looks at cut_next: a row
 * that is not written yet is first copied to a side buffer of its shard, under the same lock, and its
 * step is set there, so that the committing thread sees a row either as it was at the cut or
 * with a newer step, and then takes the copy. When the side buffer is full, the push waits until
 * the row is written. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "table/table_room.h"

enum { SIDE_FIRST = 64, SIDE_PART = 16 }; /* copies of a shard: a 16th of its rows, and a few */

int table_cut(mr_table *t, uint64_t step)
{
    size_t n = 0;
    for (int i = 0; i < SHARDS; i++)
        n += t->shard[i].dirty_n;
    if (memory_reserve((void **)&t->sorted, &t->sorted_room, 2 * n, sizeof *t->sorted))
        return -1;
    for (int i = 0; i < SHARDS; i++) { /* of the lists that the next updates go to */
        shard *s = &t->shard[i];
        if (memory_reserve((void **)&s->cut, &s->cut_room, s->dirty_n, sizeof *s->cut))
            return -1;
    }
    for (int i = 0; i < SHARDS; i++) {
        shard *s = &t->shard[i];
        row **rows = s->cut;
        size_t room = s->cut_room;
        s->cut = s->dirty;
        s->cut_n = s->dirty_n;
        s->cut_room = s->dirty_room;
        s->dirty = rows;
        s->dirty_room = room;
        s->dirty_n = s->side_n = 0;
    }
    t->cut_step = step;
    t->cut_next = 0;
    t->cut_written = n == 0;
    return 0;
}

int table_unchanged(const mr_table *t)
{
    for (int i = 0; i < SHARDS; i++)
        if (t->shard[i].dirty_n)
            return 0;
    return 1;
}

/* ---- the committing thread's ---- */

static int by_key(const void *a, const void *b)
{
    uint64_t x = ((const keyed_row *)a)->key, y = ((const keyed_row *)b)->key;
    return (x > y) - (x < y);
}

/* Least significant byte first, passing over bytes that are all equal. */
void sort_rows(keyed_row *rows, keyed_row *spare, size_t n)
{
    if (n < 64) {
        if (n) /* rows may be NULL without any */
            qsort(rows, n, sizeof *rows, by_key);
        return;
    }
    keyed_row *from = rows, *to = spare;
    for (int shift = 0; shift < 64; shift += 8) {
        size_t count[257] = {0};
        for (size_t i = 0; i < n; i++)
            count[(from[i].key >> shift & 255) + 1]++;
        if (count[(from[0].key >> shift & 255) + 1] == n)
            continue;
        for (int b = 0; b < 256; b++)
            count[b + 1] += count[b];
        for (size_t i = 0; i < n; i++)
            to[count[from[i].key >> shift & 255]++] = from[i];
        keyed_row *swap = from;
        from = to;
        to = swap;
    }
    if (from != rows)
        memcpy(rows, from, n * sizeof *rows);
}

int64_t table_cut_sort(mr_table *t)
{
    size_t n = 0;
    for (int i = 0; i < SHARDS; i++) {
        const shard *s = &t->shard[i];
        for (size_t k = 0; k < s->cut_n; k++) {
            if (k + 16 < s->cut_n)
                __builtin_prefetch(s->cut[k + 16]);
            t->sorted[n++] = (keyed_row){s->cut[k]->key, s->cut[k]};
        }
    }
    sort_rows(t->sorted, t->sorted + n, n);
    return (int64_t)n;
}

size_t table_cut_encode(mr_table *t, size_t from, size_t n, uint64_t *keys, uint8_t *records,
                        size_t *ends)
{
    size_t total = 0, at = 0;
    for (int i = 0; i < SHARDS; i++)
        total += t->shard[i].cut_n;
    n = MIN(n, total - from);
    const keyed_row *rows = t->sorted + from;
    for (size_t i = 0; i < n; i++)
        row_prefetch(t, rows[i].row);
    pthread_mutex_lock(&t->cut_lock);
    for (size_t i = 0; i < n; i++) {
        const row *r = rows[i].row;
        if (__atomic_load_n(&r->step, __ATOMIC_RELAXED) > t->cut_step) {
            const shard *s = &t->shard[hash_shard(key_hash(rows[i].key))];
            r = (const row *)(s->side + r->side * (size_t)t->row_bytes);
        }
        keys[i] = rows[i].key;
        at += table_encode(t, r, records + at);
        ends[i] = at;
    }
    if (from + n < total)
        t->cut_next = rows[n].key;
    else
        t->cut_written = 1;
    pthread_mutex_unlock(&t->cut_lock);
    return n;
}

void table_cut_abandon(mr_table *t)
{
    pthread_mutex_lock(&t->cut_lock);
    t->cut_written = 1;
    pthread_mutex_unlock(&t->cut_lock);
}

/* ---- the training thread's ---- */

static int is_written(const mr_table *t, uint64_t key)
{
    return atomic_load(&t->cut_written) || key < atomic_load(&t->cut_next);
}

int cut_keep(mr_table *t, shard *s, row *r, uint64_t step)
{
    size_t most = s->slots / SIDE_PART + SIDE_FIRST;
    while (!is_written(t, r->key)) {
        pthread_mutex_lock(&t->cut_lock);
        int bad = 0, kept = !is_written(t, r->key) && s->side_n < most;
        if (kept)
            bad = memory_reserve((void **)&s->side, &s->side_room, s->side_n + 1, t->row_bytes);
        if (kept && !bad) {
            memcpy(s->side + s->side_n * t->row_bytes, r, t->row_bytes);
            r->side = (uint32_t)s->side_n++;
            __atomic_store_n(&r->step, step, __ATOMIC_RELAXED);
        }
        pthread_mutex_unlock(&t->cut_lock);
        if (bad || kept)
            return bad;
        usleep(100);
    }
    return 0;
}

void table_cut_end(mr_table *t, int durable)
{
    uint64_t step = t->cut_step;
    t->cut_step = durable ? step : t->durable;
    t->durable = t->cut_step;
    t->cut_written = 1;
    if (t->admission)
        admission_cut_end(t->admission, durable);
    for (int i = 0; i < SHARDS; i++) {
        shard *s = &t->shard[i];
        size_t n = s->cut_n;
        s->cut_n = s->side_n = 0;
        if (durable || !n)
            continue;
        /* there is room for them (push); those that changed meanwhile are in the list already */
        for (size_t k = 0; k < n; k++)
            if (s->cut[k]->step <= step)
                s->dirty[s->dirty_n++] = s->cut[k];
    }
}

/* cache.c - the index of a shard and the slots behind it.
 *
 * Invariant: every key in the index has a slot of its own, and every used slot a key in the index; the
 * entries of a probe sequence have no gaps. A shard grows as long as the budget grants it memory;
 * from then on a new row takes the slot of a clean one that was not looked up for long (a clock with
 * counters: the hand takes one from a row's heat as it comes by, and the row that has none left). */
#include <string.h>

#include "table/table_room.h"

enum {
    INDEX_FIRST = 64,
    SLAB_STEP = 64 << 10,   /* bytes that a shard's rows first grow by */
    SLAB_HUGE = 2 << 20,    /* and from there on */
    SLAB_SMALL = 256 << 10, /* when the budget has no more left */
    RETRY = 1024,           /* evictions until the budget is asked again */
    LOOK = 8                /* rows between the hand and what it prefetches */
};

/* Takes an entry out, and moves back those behind it that would not be found any more. */
static void index_remove(shard *s, index_entry *e)
{
    size_t hole = (size_t)(e - s->index), size = s->index_size, i = hole;
    for (;;) {
        s->index[hole].slot = NO_SLOT;
        for (;;) {
            if (++i == size)
                i = 0;
            if (s->index[i].slot == NO_SLOT)
                return;
            size_t home = shard_home(s, s->index[i].hash);
            /* it may stay where its home lies between the hole and it */
            int stays = hole <= i ? hole < home && home <= i : hole < home || home <= i;
            if (!stays)
                break;
        }
        s->index[hole] = s->index[i];
        hole = i;
    }
}

/* Doubles the index, or makes it half as large again: 0, 1: the budget has not enough left, -1 after
 * fail(). */
static int index_grow(mr_table *t, shard *s)
{
    size_t old_size = s->index_size, size = 2 * old_size, bytes = size * sizeof(index_entry);
    if (size >= UINT32_MAX || !memory_grant(&t->memory, bytes)) {
        size = old_size + old_size / 2;
        bytes = size * sizeof(index_entry);
        if (size >= UINT32_MAX || !memory_grant(&t->memory, bytes))
            return 1;
    }
    index_entry *index = memory_new(bytes);
    if (!index) {
        memory_took(bytes);
        memory_gave(&t->memory, bytes);
        return -1;
    }
    memset(index, 0xff, bytes);
    memory_took(bytes);
    index_entry *old = s->index;
    s->index = index;
    s->index_size = size;
    for (size_t i = 0; i < old_size; i++)
        if (old[i].slot != NO_SLOT)
            *shard_place(s, old[i].hash) = old[i];
    memory_free(old);
    memory_gave(&t->memory, old_size * sizeof(index_entry));
    return 0;
}

/* Makes more of the region memory: 0, 1, -1 as above. */
static int rows_grow(mr_table *t, shard *s)
{
    size_t left = SLAB_HUGE - s->granted % SLAB_HUGE, step = left;
    if (s->granted < SLAB_SMALL)
        step = MAX((size_t)SLAB_STEP, s->granted);
    while (!memory_grant(&t->memory, step)) {
        if (step <= SLAB_SMALL)
            return 1;
        step = SLAB_SMALL;
    }
    if (s->granted + step > t->region)
        step = 0;
    int bad = step ? region_grow(s->rows, s->granted, s->granted + step) : 1;
    memory_took(step);
    if (bad) {
        memory_gave(&t->memory, step);
        return bad;
    }
    s->granted += step;
    /* what a commit may need at once for each row: sorting, lists, the filter of its file, copies of
     * rows that change meanwhile */
    size_t more = step / t->row_bytes * (40 + t->row_bytes / 16);
    memory_promise(&t->writing, atomic_fetch_add(&t->writing_rows, more) + more);
    return 0;
}

/* A clean row that nobody needs; NO_SLOT if there is none. */
static uint32_t victim(mr_table *t, shard *s)
{
    uint32_t oldest = t->plans ? t->plans->serial : t->serial + 1;
    for (uint64_t looks = (uint64_t)s->slots * (HEAT_MAX + 1); looks; looks--) {
        uint32_t slot = s->hand;
        s->hand = slot + 1 < s->slots ? slot + 1 : 0;
        row *r = slot_row(t, s, slot);
        if (slot + LOOK < s->slots) {
            __builtin_prefetch(slot_row(t, s, slot + LOOK), 1);
            const row *near = slot_row(t, s, slot + LOOK / 2);
            __builtin_prefetch(&s->index[shard_home(s, key_hash(near->key))]);
        }
        if (r->free || r->step > t->durable)
            continue;
        if (r->pin) {
            if ((int32_t)(r->pin - oldest) >= 0)
                continue;
            r->pin = 0;
        }
        if (!r->heat)
            return slot;
        r->heat--;
    }
    return NO_SLOT;
}

void shard_remove(mr_table *t, shard *s, row *r)
{
    index_remove(s, shard_place(s, key_hash(r->key)));
    r->free = 1;
    r->step = 0;
    r->mark = s->free;
    s->free = (uint32_t)(((char *)r - s->rows) / t->row_bytes);
    s->used--;
}

/* Room for one more key in the index, and a slot for its row: 0, 1: the budget has none, -1. */
static int shard_grow(mr_table *t, shard *s)
{
    int rc = 0;
    if (((size_t)s->used + 1) * 8 > s->index_size * 5 && (rc = index_grow(t, s)) != 0)
        return rc;
    if (s->free != NO_SLOT)
        return 0;
    while (!rc && ((size_t)s->slots + 1) * t->row_bytes > s->granted)
        rc = rows_grow(t, s);
    return rc;
}

row *shard_add(mr_table *t, shard *s, uint64_t key, uint64_t hash, int evict, index_entry **at,
               int *starved)
{
    const index_entry *index = s->index;
    int may = s->refused % RETRY == 0, rc = may ? shard_grow(t, s) : 1, moved = 0;
    if (rc < 0)
        return NULL;
    s->refused = rc ? s->refused + 1 : 0;
    /* without memory for a larger index the old one is filled up */
    int crowded = ((size_t)s->used + 1) * 16 > s->index_size * 13;
    if (crowded || (s->free == NO_SLOT && ((size_t)s->slots + 1) * t->row_bytes > s->granted)) {
        uint32_t slot = evict ? victim(t, s) : NO_SLOT;
        if (slot == NO_SLOT) {
            *starved = 1;
            return NULL;
        }
        shard_remove(t, s, slot_row(t, s, slot));
        moved = 1;
    }
    if (moved || index != s->index)
        *at = shard_place(s, hash);
    uint32_t slot = s->free;
    if (slot != NO_SLOT)
        s->free = slot_row(t, s, slot)->mark;
    else
        slot = s->slots++;
    s->used++;
    **at = (index_entry){hash, slot};
    row *r = slot_row(t, s, slot);
    *r = (row){.key = key};
    return r;
}

row *table_find(const mr_table *t, uint64_t key)
{
    uint64_t hash = key_hash(key);
    const shard *s = &t->shard[hash_shard(hash)];
    const index_entry *e = shard_place(s, hash);
    return e->slot == NO_SLOT ? NULL : slot_row(t, s, e->slot);
}

int shard_begin(mr_table *t, shard *s)
{
    size_t bytes = INDEX_FIRST * sizeof *s->index;
    pthread_mutex_init(&s->lock, NULL);
    s->free = NO_SLOT;
    s->index = memory_new(bytes);
    s->rows = region_new(t->region);
    if (!s->index || !s->rows)
        return -1;
    s->index_size = INDEX_FIRST;
    memset(s->index, 0xff, bytes);
    t->memory.held += bytes;
    return 0;
}

void shard_end(mr_table *t, shard *s)
{
    pthread_mutex_destroy(&s->lock);
    memory_free(s->index);
    region_free(s->rows, t->region);
    memory_free(s->dirty);
    memory_free(s->cut);
    memory_free(s->side);
}

void shard_clear(mr_table *t, shard *s)
{
    memset(s->index, 0xff, s->index_size * sizeof *s->index);
    s->slots = s->used = s->hand = s->refused = 0;
    s->free = NO_SLOT;
    s->dirty_n = s->cut_n = s->side_n = 0;
    s->created = 0;
    (void)t;
}

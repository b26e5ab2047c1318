/* record.c - rows as the store keeps them, little-endian:
 *
 *   | layout number: u16 | flags, 0: u16 | step of the last update: u64 |
 *   | update count of each column: u32 | weights of each column: f32 | state of each: f32 |
 *
 * in the order of the columns. The layout number is LAYOUT: a table whose columns change gets
 * another. */
#include <stdlib.h>
#include <string.h>

#include "table_room.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "records are little-endian"
#endif

enum { LAYOUT = 1, HEAD = 12 };

uint32_t table_id(const mr_table *t)
{
    return t->id;
}

const char *table_name(const mr_table *t)
{
    return t->name;
}

size_t table_record_len(const mr_table *t)
{
    size_t len = HEAD;
    for (uint32_t c = 0; c < t->columns; c++)
        len += 4 + 4 * ((size_t)t->column[c].dim + t->column[c].state);
    return len;
}

static uint8_t *put(uint8_t *to, const void *from, size_t len)
{
    memcpy(to, from, len);
    return to + len;
}

static const uint8_t *get(void *to, const uint8_t *from, size_t len)
{
    memcpy(to, from, len);
    return from + len;
}

size_t table_encode(const mr_table *t, const void *stored, uint8_t *record)
{
    const row *r = stored;
    uint16_t head[2] = {LAYOUT, 0};
    uint8_t *at = put(record, head, sizeof head);
    at = put(at, &r->step, 8);
    at = put(at, r->count, 4 * t->columns);
    for (uint32_t c = 0; c < t->columns; c++)
        at = put(at, row_column(t, (row *)r, c), 4 * (size_t)t->column[c].dim);
    for (uint32_t c = 0; c < t->columns; c++)
        at = put(at, row_column(t, (row *)r, c) + t->column[c].dim, 4 * (size_t)t->column[c].state);
    return (size_t)(at - record);
}

int table_decode(mr_table *t, uint64_t key, const uint8_t *record, size_t len)
{
    uint16_t head[2] = {0, 0};
    if (len >= sizeof head)
        memcpy(head, record, sizeof head);
    if (len != table_record_len(t) || head[0] != LAYOUT || head[1] != 0)
        return fail("table %s: the record of key %llu has %zu bytes of layout %u, expected %zu "
                    "of layout %d",
                    t->name, (unsigned long long)key, len, head[0], table_record_len(t), LAYOUT);
    uint64_t hash = key_hash(key);
    shard *s = &t->shard[hash_shard(hash)];
    if (shard_reserve(s, 1))
        return -1;
    index_entry *e = shard_place(s, hash);
    row *r = e->slot == NO_SLOT ? shard_add(t, s, e, key, hash) : slot_row(t, s, e->slot);
    if (!r)
        return -1;
    s->rows += r->step == 0;
    const uint8_t *at = get(&r->step, record + sizeof head, 8);
    if (!r->step)
        return fail("table %s: the record of key %llu has step 0", t->name,
                    (unsigned long long)key);
    at = get(r->count, at, 4 * t->columns);
    for (uint32_t c = 0; c < t->columns; c++)
        at = get(row_column(t, r, c), at, 4 * (size_t)t->column[c].dim);
    for (uint32_t c = 0; c < t->columns; c++)
        at = get(row_column(t, r, c) + t->column[c].dim, at, 4 * (size_t)t->column[c].state);
    t->committed = MAX(t->committed, r->step);
    return 0;
}

/* ---- the rows of a commit ---- */

typedef struct commit_rows {
    mr_table *t;
    size_t begin[SHARDS + 1];
} commit_rows;

static int by_key(const void *a, const void *b)
{
    uint64_t x = ((const dirty_row *)a)->key, y = ((const dirty_row *)b)->key;
    return (x > y) - (x < y);
}

/* Sorts rows by key: least significant byte first, passing over bytes that are all equal. */
static void sort_rows(dirty_row *rows, dirty_row *spare, size_t n)
{
    if (n < 256) {
        if (n) /* rows may be NULL without any */
            qsort(rows, n, sizeof *rows, by_key);
        return;
    }
    dirty_row *from = rows, *to = spare;
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
        dirty_row *swap = from;
        from = to;
        to = swap;
    }
    if (from != rows)
        memcpy(rows, from, n * sizeof *rows);
}

int64_t table_dirty(mr_table *t, const dirty_row **rows)
{
    size_t n = 0;
    for (int s = 0; s < SHARDS; s++)
        n += t->shard[s].dirty_n;
    if (memory_reserve((void **)&t->sorted, &t->sorted_room, 2 * n, sizeof *t->sorted))
        return -1;
    size_t at = 0;
    for (int s = 0; s < SHARDS; s++)
        for (size_t i = 0; i < t->shard[s].dirty_n; i++) {
            row *r = t->shard[s].dirty[i];
            t->sorted[at++] = (dirty_row){r->key, r};
        }
    sort_rows(t->sorted, t->sorted + n, n);
    *rows = t->sorted;
    return (int64_t)n;
}

void table_committed(mr_table *t)
{
    for (int s = 0; s < SHARDS; s++) {
        for (size_t i = 0; i < t->shard[s].dirty_n; i++)
            t->committed = MAX(t->committed, t->shard[s].dirty[i]->step);
        t->shard[s].dirty_n = 0;
    }
}

/* ---- reading single rows ---- */

double mr_table_peek(mr_table *t, int c, uint64_t key, float *out)
{
    row *r = table_find(t, key), *spare = NULL;
    if (!r) {
        r = spare = memory_new(t->row_bytes);
        if (!r)
            return -1;
        row_fresh(t, key, r);
    }
    memcpy(out, row_column(t, r, (uint32_t)c), 4 * (size_t)mr_table_state(t, c));
    double count = r->step ? r->count[c] : 0;
    memory_free(spare);
    return count;
}

int mr_table_keys(mr_table *t, uint64_t from, size_t n, uint64_t *keys)
{
    size_t have = 0; /* the n least keys >= from so far, as a heap with the largest on top */
    for (int i = 0; i < SHARDS; i++) {
        shard *s = &t->shard[i];
        for (uint32_t slot = 0; slot < s->slots && n; slot++) {
            const row *r = slot_row(t, s, slot);
            if (!r->step || r->key < from || (have == n && r->key >= keys[0]))
                continue;
            size_t at = have < n ? have++ : 0;
            if (at == 0 && have == n) { /* sift down from the top */
                for (size_t child; (child = 2 * at + 1) < n; at = child) {
                    child += child + 1 < n && keys[child + 1] > keys[child];
                    if (keys[child] <= r->key)
                        break;
                    keys[at] = keys[child];
                }
            } else { /* sift up from the end */
                for (; at && keys[(at - 1) / 2] < r->key; at = (at - 1) / 2)
                    keys[at] = keys[(at - 1) / 2];
            }
            keys[at] = r->key;
        }
    }
    for (size_t end = have; end > 1; end--) { /* heap sort */
        uint64_t last = keys[end - 1], at = 0;
        keys[end - 1] = keys[0];
        for (size_t child; (child = 2 * at + 1) < end - 1; at = child) {
            child += child + 1 < end - 1 && keys[child + 1] > keys[child];
            if (keys[child] <= last)
                break;
            keys[at] = keys[child];
        }
        keys[at] = last;
    }
    return (int)have;
}

/* table_room.h - the inside of a table, shared by table.c (cache, pull, push) and record.c (what
 * goes to the store and comes from it).
 *
 * A table is SHARDS independent hash tables, chosen by the top bits of a key's hash: a shard
 * belongs to one piece of parallel work at a time, so nothing in it is atomic, and what happens
 * in it depends on the data alone.
 *
 * A row: | key 8 | step 8 | mark 4 | update count 4 a column | narrow columns | 64-byte lines of
 * the wide ones |, where a column is its weights and then its optimizer state. step is that of
 * the last update, 0: never updated (such a row holds fresh values, and is no row to anyone but the
 * cache). */
#ifndef MR_TABLE_ROOM_H
#define MR_TABLE_ROOM_H

#include <pthread.h>

#include "base.h"
#include "lookup.h"
#include "optimizer.h"
#include "table.h"

enum { SHARDS = 16, COLUMNS_MAX = 16, SEGMENTS_MAX = 40, SEGMENT_FIRST = 64 };
#define NO_SLOT UINT32_MAX
#define SLAB_BLOCK ((size_t)4 << 20)

typedef struct row {
    uint64_t key;
    uint64_t step;
    uint32_t mark; /* its place in the list of a push that merges lookups */
    uint32_t count[];
} row;

typedef struct index_entry {
    uint64_t hash; /* of the key; different keys have different ones */
    uint32_t slot; /* NO_SLOT: empty */
    uint32_t mark; /* its unique in the last pull, if that unique's row is this one */
} index_entry;

typedef struct shard {
    index_entry *index; /* open addressing, linear probing, at most 5/8 full */
    size_t index_size;  /* a power of two */
    uint32_t slots;     /* in use: 0 .. slots - 1 */
    uint32_t segments;
    char *segment[SEGMENTS_MAX]; /* segment k has SEGMENT_FIRST << k rows; never moves */
    row **dirty;                 /* rows changed since the last commit */
    size_t dirty_n, dirty_room;
    size_t rows; /* ever updated */
} shard;

typedef struct table_column {
    char *name;
    mr_init init;
    mr_optim optim;
    uint32_t dim;
    uint32_t state;  /* floats of state */
    uint32_t offset; /* bytes from the row to the weights; the state follows them */
    uint64_t seed;   /* of its fresh weights */
} table_column;

/* A row that several lookups of a step share, with the sum of its gradients. */
typedef struct merged_row {
    row *row;
    float *grad;      /* that of its first lookup, to which the others are added */
    uint32_t touched; /* bit c: column c got a gradient */
} merged_row;

struct mr_table {
    char *name;
    uint32_t id;
    uint32_t columns;
    uint32_t row_bytes; /* a multiple of 64 */
    uint32_t grad_width;
    uint64_t committed; /* step of the last commit: newer rows are dirty */
    table_column column[COLUMNS_MAX];
    lookup_column layout[COLUMNS_MAX]; /* as lookups show it */
    shard shard[SHARDS];
    pthread_mutex_t slab_lock;
    char *slab, *slab_next; /* newest block, which begins with the address of the one before */
    size_t slab_left;
    lookup *first, **last; /* the lookups of this step, in order */
    merged_row *merged;    /* scratch of a push with several lookups */
    size_t merged_room;
    dirty_row *sorted; /* the rows of the commit under way */
    size_t sorted_room;
};

/* A bijection: the hash stands for the key. */
static inline uint64_t key_hash(uint64_t key)
{
    return mix64(key ^ 0x9e3779b97f4a7c15ull);
}

static inline uint32_t hash_shard(uint64_t hash)
{
    return hash >> 60;
}

static inline row *slot_row(const mr_table *t, const shard *s, uint32_t slot)
{
    uint64_t at = (uint64_t)slot + SEGMENT_FIRST;
    unsigned k = 63 - (unsigned)__builtin_clzll(at);
    return (row *)(s->segment[k - 6] + (at - (1ull << k)) * t->row_bytes);
}

static inline float *row_column(const mr_table *t, row *r, uint32_t c)
{
    return (float *)((char *)r + t->column[c].offset);
}

/* The row of a key in the cache, or NULL. */
row *table_find(const mr_table *t, uint64_t key);

/* Where the key of a hash is in its shard's index, or would be: then its slot is NO_SLOT. */
index_entry *shard_place(const shard *s, uint64_t hash);

/* Makes the fresh row of a key, at the place found for it; NULL after fail(). The index must have
 * room (shard_reserve). */
row *shard_add(mr_table *t, shard *s, index_entry *e, uint64_t key, uint64_t hash);

/* Room in the index for `more` keys; -1 after fail(). */
int shard_reserve(shard *s, size_t more);

/* Fills in the fresh row of a key. */
void row_fresh(const mr_table *t, uint64_t key, row *r);

#endif

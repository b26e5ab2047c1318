/* table_room.h - the inside of a table, shared by table.c (making, rows), cache.c (index, slots,
 * eviction), pull.c (the rows of a batch), ahead.c (reading rows ahead), idle.c (the steps that rows
 * idled), push.c (updates), half.c (columns in half precision), show.c (rows as lookups have
 * them), cut.c (the rows of a commit), record.c (rows as bytes) and admission.c.
 *
 * A table is SHARDS independent hash tables, chosen by the top bits of a key's hash: a shard
 * belongs to one piece of parallel work at a time, so nothing in it is atomic, and what happens
 * in it depends on the data alone.
 *
 * A row: | key 8 | step 8 | mark 4 | pin 4 | side 4 | heat 1 | state 1 | admitted 2 | update count 4 a
 * column | narrow columns | 64-byte lines of the wide ones |, where a column is its weights and
 * then its optimizer state. step is that of the last update, 0: never updated (such a row holds
 * fresh values, and is no row to anyone but the cache).
 *
 * Where a column is in half precision (half.h), the table's rows are *kept* ones: the same header, then
 * the columns one after another, in 2 or 4 bytes a number; an absent one is not filled in. An *open* row
 * is the above, with floats, and all that is computed is computed on open ones (half.c). In all other
 * tables kept rows are open.
 *
 * A row is clean while step <= durable, the step of the last commit; only clean rows are evicted.
 * While a commit is under way, those with durable < step <= cut_step belong to it. */
#ifndef MR_TABLE_ROOM_H
#define MR_TABLE_ROOM_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/base.h"
#include "optim/optimizer.h"
#include "table/admission.h"
#include "table/lookup.h"
#include "table/table.h"

enum { SHARDS = 16, COLUMNS_MAX = 16, LAYOUTS_MAX = 64, HEAT_MAX = 15 };
enum { HALF_WEIGHTS = 1, HALF_STATE = 2, HALF_DIM_MAX = 4096 };
#define NO_SLOT UINT32_MAX

typedef struct row {
    uint64_t key;
    uint64_t step;
    uint32_t mark; /* its place in the list of a push that merges lookups; of a free slot: the
                          next one */
    uint32_t pin;  /* serial of the last plan that needs it; 0: of none that is left */
    uint32_t side; /* its copy in the shard's side buffer, if it changed while it was in a cut */
    uint8_t heat;  /* lookups since the hand last came by, at most HEAT_MAX */
    uint8_t free;  /* the slot holds no row */
    uint16_t admitted; /* bit c: column c is trained from now on, though it was never updated */
    uint32_t count[];  /* updates of each column; 0: it is absent, and holds fresh values */
} row;

typedef struct index_entry {
    uint64_t hash; /* of the key; different keys have different ones */
    uint32_t slot; /* NO_SLOT: empty */
} __attribute__((packed)) index_entry;

typedef struct shard {
    index_entry *index; /* open addressing, linear probing */
    size_t index_size;
    char *rows;       /* a region of row_bytes a slot */
    size_t granted;   /* bytes of it that are memory */
    uint32_t slots;   /* ever used: 0 .. slots - 1 */
    uint32_t used;    /* of these, with a row */
    uint32_t free;    /* first slot without one, or NO_SLOT */
    uint32_t hand;    /* where the search for a row to evict goes on */
    uint32_t refused; /* times that the budget had no more for it; 0: it may grow */
    row **dirty;      /* rows changed since the last cut */
    size_t dirty_n, dirty_room;
    row **cut; /* rows of the commit under way */
    size_t cut_n, cut_room;
    char *side; /* [side_n] copies of rows of the cut, as they were */
    size_t side_n, side_room;
    int64_t created;      /* rows updated for the first time, less those dropped */
    pthread_mutex_t lock; /* of the installing of rows */
} shard;

/* A learning rate, from a step on; and those of a column, ascending. */
typedef struct rate {
    uint64_t from;
    double lr;
} rate;

typedef struct rates {
    rate *rate; /* [room], or NULL: the column's rows owe nothing for idle steps */
    size_t n, room;
} rates;

typedef struct table_column {
    char *name;
    mr_init init;
    mr_optim optim;
    uint32_t dim;
    uint32_t state;       /* floats of state */
    uint32_t half;        /* HALF_WEIGHTS, HALF_STATE: what is in half precision */
    uint32_t offset;      /* bytes from an open row to the weights; the state follows them */
    uint32_t kept_offset; /* bytes from a kept row to the column */
    uint64_t seed;        /* of its fresh weights */
    uint32_t admit;       /* sightings until it is trained; 0 and 1: the first */
    rates rates;          /* of its last steps */
} table_column;

/* How a column of a record's layout maps to the table's. */
typedef struct record_column {
    int to;              /* a column, or -1: it is gone */
    uint32_t dim, state; /* numbers */
    uint32_t half;       /* which of them are in half precision */
    int keep;            /* its state is of the column's optimizer */
} record_column;

typedef struct record_layout {
    uint32_t columns; /* 0: not known */
    record_column column[COLUMNS_MAX];
} record_layout;

/* A row that several lookups of a step share, with the sum of its gradients. */
typedef struct merged_row {
    row *row;
    row *seen;        /* as its lookups have it: itself, or an open copy (show.c) */
    float *grad;      /* that of its first lookup, to which the others are added */
    uint32_t touched; /* bit c: column c got a gradient */
} merged_row;

/* Rows that are read from the store, by threads that take them chunk by chunk. */
typedef struct read_set {
    struct read_set *next; /* in the queue of ahead.c */
    mr_table *t;
    keyed_row *rows; /* [n], ascending by key */
    size_t n, taken, done;
    int failed;
    char error[512];
} read_set;

/* A batch looked up while the table is not resident: its rows are pinned from then on, and those
 * that were missing are being read. */
typedef struct plan {
    struct plan *next;
    lookup lookup; /* in the arena but for this */
    arena *arena;
    uint64_t batch; /* its number */
    uint32_t serial;
    int training;
    int starved; /* there was no place for all of its rows */
    int taken;   /* a pull got it; then in_use, until the tape is reset */
    int in_use;
    read_set reads;
} plan;

struct mr_table {
    char *name;
    uint32_t id;
    uint32_t columns;
    uint32_t row_bytes;  /* of a kept row, a multiple of 64 */
    uint32_t open_bytes; /* of an open one */
    int half;            /* some column is in half precision */
    uint32_t grad_width;
    uint64_t seed;
    table_column column[COLUMNS_MAX];
    uint32_t owing;                    /* bit c: rows that idle owe steps of column c (idle.c) */
    lookup_column layout[COLUMNS_MAX]; /* as lookups show it */
    record_layout record[LAYOUTS_MAX]; /* by number */
    uint32_t record_now;               /* number of the layout that is written */
    shard shard[SHARDS];
    size_t region; /* bytes of addresses of a shard's rows */
    memory_client memory, writing;
    atomic_size_t writing_rows; /* bytes that commits of the rows granted so far may need */
    admission *admission;       /* NULL: every key is admitted */
    double *generation;         /* counts how often all rows went: lookups before are over */
    /* where rows come from and go to */
    table_store store;      /* none, too, once it was closed */
    mr_table *attached;     /* the store's next table */
    atomic_int resident;    /* the cache holds every row */
    uint64_t step;          /* the last one */
    uint64_t durable;       /* step of the last commit */
    uint64_t expired;       /* rows of this step and before are no more */
    double kept;            /* rows in the store when it was loaded */
    uint64_t ttl;           /* microseconds; 0: rows do not expire */
    uint64_t expiry_commit; /* number of the commit that gave `expired` */
    uint64_t forgotten;     /* drops of this step and before are not known any more */
    /* the steps under way */
    lookup *first, **last; /* the lookups of this step, in order, of a tape that is at tape_then */
    const double *tape_now;
    double tape_then;
    /* their gradients, once they are summed by row: those of the one lookup that has some, or (NULL) of
     * merged; a shard's from begin to end. They are to be multiplied by scale. */
    int summed;
    const lookup *only;
    merged_row *merged;
    size_t merged_room;
    uint32_t begin[SHARDS], end[SHARDS];
    float scale;
    row *
        handed_row; /* that mr_table_updated() handed out, or NULL; as lookups have it; and where it
                        goes on */
    row *handed_seen;
    uint32_t handed;
    plan *plans, *spare; /* by serial; and those that can be used again */
    uint32_t serial;     /* of the newest plan */
    /* the commit under way (cut.c) */
    uint64_t cut_step; /* step of the last cut; durable if none is under way */
    pthread_mutex_t cut_lock;
    _Atomic uint64_t cut_next; /* rows of the cut below this key are written */
    atomic_int cut_written;    /* all are */
    keyed_row *sorted;
    size_t sorted_room;
    double missed;    /* rows that lookups had to read from the store, or look for there */
    uint64_t counted; /* the batch whose keys were counted last */
};

/* Forgets the lookups of a tape that has forgotten them. */
static inline void lookups_check(mr_table *t)
{
    if (t->first && *t->tape_now != t->tape_then)
        mr_table_drop(t);
}

/* A bijection: the hash stands for the key. */
static inline uint64_t key_hash(uint64_t key)
{
    return mix64(key ^ 0x9e3779b97f4a7c15ull);
}

typedef struct key_functions {
    void (*hash)(const uint64_t *keys, size_t n, uint64_t *to); /* key_hash of each */
} key_functions;

static inline uint32_t hash_shard(uint64_t hash)
{
    return hash >> 60;
}

static inline row *slot_row(const mr_table *t, const shard *s, uint32_t slot)
{
    return (row *)(s->rows + (size_t)slot * t->row_bytes);
}

/* Where the probing for a hash begins in the index of a shard; and where its key is, or would be: then
 * the slot is NO_SLOT. */
static inline size_t shard_home(const shard *s, uint64_t hash)
{
    return (size_t)(((hash & UINT32_MAX) * s->index_size) >> 32);
}

static inline index_entry *shard_place(const shard *s, uint64_t hash)
{
    size_t i = shard_home(s, hash);
    while (s->index[i].slot != NO_SLOT && s->index[i].hash != hash)
        if (++i == s->index_size)
            i = 0;
    return &s->index[i];
}

/* Of an open row: weights, then state. */
static inline float *row_column(const mr_table *t, row *r, uint32_t c)
{
    return (float *)((char *)r + t->column[c].offset);
}

static inline void *kept_column(const mr_table *t, const row *r, uint32_t c)
{
    return (char *)r + t->column[c].kept_offset;
}

static inline void row_prefetch(const mr_table *t, const row *r)
{
    for (uint32_t line = 0; line < t->row_bytes; line += 64)
        __builtin_prefetch((const char *)r + line, 1);
}

static inline int row_expired(const mr_table *t, const row *r)
{
    return r->step != 0 && r->step <= t->expired;
}

/* Bit c: column c of a row may be trained. */
static inline uint32_t row_admitted(const mr_table *t, const row *r)
{
    uint32_t bits = r->admitted;
    for (uint32_t c = 0; c < t->columns; c++)
        bits |= (uint32_t)(t->column[c].admit <= 1 || r->count[c]) << c;
    return bits;
}

/* ---- table.c ---- */

/* Fills in the fresh open row of a key, and leaves the cache's own fields alone. A column that has to be
 * admitted first is 0 until then, if the table says so: row_unseen_column; row_fresh_column is what
 * it begins with. */
void row_fresh(const mr_table *t, uint64_t key, row *r);
void row_unseen_column(const mr_table *t, row *r, uint32_t c);
void row_fresh_column(const mr_table *t, row *r, uint32_t c);

/* ---- half.c ---- */

/* Bytes of a column in a record and in a kept row; in_half is a column's `half`. */
size_t column_bytes(uint32_t dim, uint32_t state, uint32_t in_half);
/* Its numbers, weights and then state, as floats; and floats as the column keeps them, rounded by draws
 * from a seed, or to the nearest and in place. */
void column_open(const void *from, uint32_t dim, uint32_t state, uint32_t in_half, float *to);
void column_close(const table_column *c, const float *w, uint64_t seed, void *to);
void column_nearest(const table_column *c, float *w);

/* An open copy of a kept row; and back: those of the columns that are not absent, with their counts. The
 * rounding is drawn by the key and the step of the kept row. */
void row_open(const mr_table *t, const row *kept, row *open);
void row_close(const mr_table *t, const row *open, row *kept, uint32_t columns);
/* row_fresh, of a kept row. */
void kept_fresh(const mr_table *t, uint64_t key, row *r);

/* ---- show.c ---- */

/* Shows a lookup open rows, as they are after the last step; the table's own stay as they are. */
int rows_show(const mr_table *t, lookup *l, arena *a);

/* ---- cache.c ---- */

/* Takes a slot for a key that the shard has not, and enters it in the index: at the place found for it,
 * which may become another one. The row's values are for the caller to fill in. Without room for it
 * NULL: after fail(), or with *starved = 1. */
row *shard_add(mr_table *t, shard *s, uint64_t key, uint64_t hash, int evict, index_entry **at,
               int *starved);

/* Takes a key and its row out of a shard. */
void shard_remove(mr_table *t, shard *s, row *r);

int shard_begin(mr_table *t, shard *s);
void shard_end(mr_table *t, shard *s);
void shard_clear(mr_table *t, shard *s);

/* The row of a key in the cache, or NULL. */
row *table_find(const mr_table *t, uint64_t key);

/* ---- pull.c, ahead.c ---- */

/* Forgets what was looked up ahead and no tape uses. 1 if there was some. */
int plans_drop(mr_table *t);
/* Frees all plans; no lookup may be used any more. */
void plans_free(mr_table *t);

/* Reads the rows of a set: start queues them, wait helps until they are there; -1 after fail(). */
void reads_start(read_set *s);
int reads_wait(read_set *s);

/* Sorts by key; spare has n places too. */
void sort_rows(keyed_row *rows, keyed_row *spare, size_t n);

/* ---- idle.c ---- */

/* Sets a new column up; frees what that took. */
int idle_begin(mr_table *t, uint32_t c);
void idle_end(mr_table *t);
/* Forgets all learning rates. */
void idle_clear(mr_table *t);
/* A step begins to update rows, with the learning rates of now. */
void idle_note(mr_table *t, uint64_t step);
/* Replays column c of a row that was updated in the step `last`, up to the step `through`. */
void idle_replay(const mr_table *t, uint32_t c, row *r, uint64_t last, uint64_t through);
/* All of a row, up to the last step. */
void row_replay(const mr_table *t, row *r);

/* ---- cut.c ---- */

/* Before the first change of a row of the cut: keeps it as it was unless it is written already. Sets
 * its step. -1 after fail(). */
int cut_keep(mr_table *t, shard *s, row *r, uint64_t step);

/* ---- record.c ---- */

/* The layout of the table's own columns, under the number that is written. */
void record_begin(mr_table *t);
/* Fills an open row, or a kept one, in from its record; 1: it expired, the row is as it was; -1 after
 * fail(). */
int record_decode(const mr_table *t, row *r, const uint8_t *record, size_t len);
int record_decode_kept(const mr_table *t, row *r, const uint8_t *record, size_t len);

/* ---- admission.c ---- */

/* Counts the keys of a training batch, once each, and decides which columns are trained. */
void admit(mr_table *t, lookup *l, uint64_t step);
/* After an update: a column that was admitted, but got no gradient, is absent as before. */
static inline void row_settle(const mr_table *t, row *r)
{
    for (uint32_t c = 0; r->admitted && !t->half && c < t->columns; c++)
        if (r->admitted >> c & 1 && !r->count[c])
            row_unseen_column(t, r, c);
    r->admitted = 0;
}

#endif

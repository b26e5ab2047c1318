/* table.h - what the store sees of a table, and the table of a store. */
#ifndef MR_TABLE_H
#define MR_TABLE_H

#include "base/base.h"
#include "moonrock.h"
#include "table/lookup.h"

enum {
    TABLES_MAX = 64,      /* of a store: numbers below this */
    TABLE_NAME_MOST = 200 /* bytes: a name is part of the names of records */
};

/* A row by its key. */
typedef struct keyed_row {
    uint64_t key;
    void *row;
} keyed_row;

uint32_t table_id(const mr_table *t);
const char *table_name(const mr_table *t);

/* ---- commits: cut and end are the training thread's, the others the committing one's ---- */

/* The rows that changed since the last cut are those of a commit at `step`. -1 after fail(). */
int table_cut(mr_table *t, uint64_t step);
/* Sorts the rows of the cut; how many, or -1. */
int64_t table_cut_sort(mr_table *t);
/* Encodes rows from `from` of the cut on, up to n, one after another in records; their keys and where
 * each ends. Returns how many. */
size_t table_cut_encode(mr_table *t, size_t from, size_t n, uint64_t *keys, uint8_t *records,
                        size_t *ends);
/* The committing thread gives up: rows of the cut need not be kept as they were any more. */
void table_cut_abandon(mr_table *t);
/* The cut is durable, or (0) its rows are to be committed again. */
void table_cut_end(mr_table *t, int durable);
/* Nothing changed since the cut. */
int table_unchanged(const mr_table *t);

/* ---- records ---- */

/* The longest record of a row in the layout that is written. */
size_t table_record_most(const mr_table *t);

/* Writes the little-endian record of a row (runtime/table/README.md) and returns its length. */
size_t table_encode(const mr_table *t, const void *row, uint8_t *record);

/* Installs a clean row from its record: 0; 1: there is no place for it; -1 after fail(): it is not one
 * of this table's layouts. Several threads may install rows of one table. */
int table_install(mr_table *t, uint64_t key, const uint8_t *record, size_t len);

/* Whether a record is one of this table's layouts, whole, and its step; -1 after fail(). */
int table_record_check(const mr_table *t, uint64_t key, const uint8_t *record, size_t len,
                       uint64_t *step);

/* ---- what the store keeps of a table beside its rows ---- */

typedef struct table_state {
    uint64_t id;            /* the table's number */
    uint64_t rows;          /* rows made, less those dropped; expired ones are among them */
    uint64_t expired;       /* rows of this step and before are no more */
    uint64_t expiry_commit; /* the commit that said so */
    uint64_t forgotten;     /* drops of this step and before are not known any more */
} table_state;

void table_state_get(const mr_table *t, table_state *state);
/* Of the store that the table was attached to, whose last commit is at `step`. */
void table_state_set(mr_table *t, const table_state *state, uint64_t step);
/* Reads records by ascending keys: found(context, i, bytes, len), bytes NULL where there is none; it
 * returns -1 to end. Any thread, while the store is open. -1 after fail(). */
typedef int record_found(void *context, size_t i, const uint8_t *bytes, size_t len);

/* What a table asks of the store that its rows are in. */
typedef struct table_store {
    mr_store *store; /* NULL: they are in none */
    int (*read)(mr_store *s, uint32_t table, const keyed_row *rows, size_t n, record_found *found,
                void *context);
    int (*committing)(const mr_store *s); /* 1: a commit is under way; and waiting for it */
    int (*wait)(mr_store *s);
    /* The first of the store's tables. No commit holds the one that is leaving any more: one being
     * written is waited for, one being prepared is aborted. */
    mr_table **(*tables)(mr_store *s, const mr_table *leaving);
} table_store;

/* Its rows are in this store, which knows its tables until one of both is gone; NULL: in none. */
void table_attach(mr_table *t, const table_store *s);
mr_store *table_attached(const mr_table *t);
void table_resident(mr_table *t, int yes);
/* Microseconds that a row lives after its last gradient; 0: for good. */
uint64_t table_ttl(const mr_table *t);
void table_expire(mr_table *t, uint64_t step, uint64_t commit);
/* Bytes of memory that so many rows take. */
double table_bytes(const mr_table *t, double rows);

/* Pages of the admission filter (FILTER_PAGE bytes): the first from `from` on that changed since the
 * last cut, or SIZE_MAX; its bytes. Asking takes it into the cut. */
size_t table_filter_changed(mr_table *t, size_t from);
const uint8_t *table_filter_page(const mr_table *t, size_t page);
int table_filter_load(mr_table *t, size_t page, const void *bytes, size_t len);

/* ---- lookups, for tapes ---- */

typedef struct lookup_for {
    arena *arena;             /* whose memory lasts until the step is over */
    const double *generation; /* of the tape: counts its steps */
    uint64_t step;
    int training;
} lookup_for;

/* Looks the rows of a batch up (mr_table_pull): 0, -1, -2. Of a training step the table keeps the lookup
 * for the push, once the tape has it. */
int table_lookup(mr_table *t, const lookup_for *f, const mr_batch *batch, lookup **found);
void table_lookup_keep(mr_table *t, lookup *l, const double *generation);

#endif

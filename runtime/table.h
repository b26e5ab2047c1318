/* table.h - what the store sees of a table. */
#ifndef MR_TABLE_H
#define MR_TABLE_H

#include "moonrock.h"

/* One dirty row of a commit, in ascending order of key. */
typedef struct dirty_row {
    uint64_t key;
    const void *row;
} dirty_row;

uint32_t table_id(const mr_table *t);
const char *table_name(const mr_table *t);

/* Rows changed since the last commit, sorted by key; owned by the table until table_committed().
 * Returns how many, or -1. */
int64_t table_dirty(mr_table *t, const dirty_row **rows);

/* Bytes of an encoded row, the same for all rows of a table's layout. */
size_t table_record_len(const mr_table *t);

/* Writes the little-endian record of a row (runtime/README.md) and returns its length. */
size_t table_encode(const mr_table *t, const void *row, uint8_t *record);

/* Installs a clean row from its record; -1 after fail() if it is not one of this layout. */
int table_decode(mr_table *t, uint64_t key, const uint8_t *record, size_t len);

/* The rows of the last table_dirty() are durable. */
void table_committed(mr_table *t);

#endif

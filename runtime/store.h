/* store.h - the inside of a store, shared by store.c (opening, reading) and commit.c (writing).
 *
 * A store is a directory:
 *
 *   COMMIT     a few checksummed lines: format, database, commit number, step, time
 *   LOCK       held by the writer, with its pid
 *   db-N/      the RocksDB database that COMMIT names
 *   keep-X/    a checkpoint (hard links) of the state named X
 *   staging/   files of the commit under way
 *
 * Keys of the database, in one column family, by bytes:
 *
 *   00 "commit"                  number u64, step u64, wall time f64 of the last commit
 *   01 name                      a named record of state
 *   02 table u32 BE, key u64 BE  a row (record.c)
 *   03 table u32 BE, key u64 BE  a dropped row: the step of the drop, u64
 *
 * Numbers in values are little-endian. Invariant: the database is never older than COMMIT, and
 * newer at most by the commit under way. */
#ifndef MR_STORE_H
#define MR_STORE_H

#include <rocksdb/c.h>

#include "base.h"

enum { STORE_FORMAT = 1, STORE_DIR = 3072, STORE_PATH = 4096 };
enum { PREFIX_COMMIT = 0, PREFIX_STATE = 1, PREFIX_ROW = 2, PREFIX_DROP = 3, ROW_KEY = 13 };

typedef struct commit_log {
    uint64_t number, step;
    double time;
} commit_log;

typedef struct put_record {
    char *name;
    void *bytes;
    size_t len;
    size_t order;
} put_record;

struct mr_store {
    char dir[STORE_DIR];
    char database[64]; /* its directory's name in dir */
    int mode;
    int lock; /* descriptor, or -1 */
    commit_log last;
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_readoptions_t *read;
    rocksdb_cache_t *cache;
    void *value; /* of the last mr_store_get(), allocated by RocksDB */
    size_t value_len;
    /* the commit under way */
    int committing;
    put_record *put;
    size_t puts, put_room;
    rocksdb_sstfilewriter_t *rows; /* NULL until the first row */
    mr_table **tables;
    size_t tables_n, tables_room;
};

/* Path of `name` in the store, into a buffer of STORE_PATH. */
const char *store_path(const mr_store *s, const char *name, char *path);
/* Opens the current database for reading, or for writing; -1 after fail(). */
int store_database_open(mr_store *s, int writable);
void store_database_close(mr_store *s);
/* Replaces COMMIT: written beside, synced, renamed, the directory synced. */
int store_commit_write(const char *dir, const char *database, const commit_log *log);
/* The commit record of a database; 0 read, 1 there is none, -1 after fail(). */
int store_log_read(mr_store *s, rocksdb_t *db, commit_log *log);
int directory_sync(const char *dir);
int directory_remove(const char *dir);
/* Turns RocksDB's message into ours and frees it. */
int store_fail(const mr_store *s, const char *doing, char *message);

#endif

/* store.h - the inside of a store, shared by store.c (opening), commit_file.c (COMMIT),
 * database.c (RocksDB, reading), commit.c (writing) and checkpoint.c (kept states).
 *
 * A store is a directory:
 *
 *   COMMIT       checksummed lines: format, database, commit number, step, time
 *   LOCK         locked by the writer, whose pid it holds
 *   db-N/        the RocksDB database that COMMIT names
 *   kept/X.N/    the state kept as X: a COMMIT and a database db-1, by hard links; of several N
 *                the largest counts
 *   staging/     files of the commit, checkpoint or restore under way
 *
 * Keys of the database, one column family, in the order of bytes; numbers in keys are big-endian:
 *
 *   00 commit u64         the log of commits: step u64, wall time u64 (microseconds since 1970)
 *   01 name               a named record of state
 *   02 table u32 key u64  a row (record.c)
 *   03 table u32 key u64  a dropped row: layout u16 (1), flags u16 (0), step of the drop u64
 *
 * Numbers in values are little-endian. 00 and 01 of a commit stand in one file, 02 and 03 in
 * others, so that the two kinds do not overlap.
 *
 * Invariant: the last commit in the database's log is that of COMMIT, or the next one, which was
 * under way. Nothing is ever written to RocksDB but by ingesting the files of a commit. */
#ifndef MR_STORE_H
#define MR_STORE_H

#include <rocksdb/c.h>

#include "base.h"
#include "file.h"

enum { STORE_FORMAT = 1, COMMIT_KEY = 9, ROW_KEY = 13, DATABASE_NAME = 32 };
enum { PREFIX_COMMIT = 0, PREFIX_STATE = 1, PREFIX_ROW = 2, PREFIX_DROP = 3 };

/* A commit, as its log and COMMIT tell it. */
typedef struct commit_mark {
    uint64_t number, step;
    uint64_t time;                /* microseconds since 1970 */
    char database[DATABASE_NAME]; /* COMMIT: the directory's name */
} commit_mark;

typedef struct put_record {
    char *key; /* PREFIX_STATE and the name; in the commit's arena, as are the bytes */
    size_t key_len;
    const void *bytes;
    size_t len;
    size_t order;
} put_record;

struct mr_store {
    char dir[PATH_SIZE];
    int mode;
    int lock;          /* descriptor, or -1 */
    commit_mark last;  /* the last commit that COMMIT tells of; database: the one in use */
    commit_mark ahead; /* number > 0: a commit that the database has, but COMMIT has not yet */
    rocksdb_t *db;     /* NULL after an error: opened again by the next use */
    rocksdb_options_t *options;
    rocksdb_readoptions_t *read;
    rocksdb_cache_t *cache;
    void *value; /* of the last mr_store_get(), allocated by RocksDB */
    size_t value_len;
    double waited; /* seconds that commits waited for compaction */
    /* the commit under way */
    int committing;
    arena *bytes;
    put_record *put;
    size_t puts, put_room;
    mr_table **table;
    size_t tables, table_room;
};

/* ---- commit_file.c ---- */

/* Reads DIR/COMMIT; -1 after fail(), which changes nothing. */
int commit_file_read(const char *dir, commit_mark *mark);
/* Writes COMMIT.new and syncs it; then puts it in the place of COMMIT and syncs the directory. */
int commit_file_prepare(const char *dir, const commit_mark *mark);
int commit_file_replace(const char *dir);
int commit_file_write(const char *dir, const commit_mark *mark);

/* ---- database.c ---- */

void database_options(mr_store *s);
/* Keeps RocksDB's message, after what failed, and frees it. Returns -1. */
int database_fail(const mr_store *s, const char *doing, char *message);
/* Opens a database (its directory) read-only or for writing and reads its last commit into log;
 * NULL after fail(). */
rocksdb_t *database_open(const mr_store *s, const char *path, int writable, commit_mark *log);
/* Whether a log's last commit is what COMMIT says, or the next one. */
int database_check(const mr_store *s, rocksdb_t *db, const commit_mark *mark,
                   const commit_mark *log);
/* Opens the store's database for writing, looking at it read-only first. */
int store_database_open(mr_store *s);
/* The same, if it is not open. */
int store_database_need(mr_store *s);
void store_database_close(mr_store *s);

/* ---- commit.c ---- */

/* Writes the log of a commit and the named records put so far as a sorted file; returns RocksDB's
 * message, or NULL. */
char *state_file_write(mr_store *s, const char *path, const commit_mark *mark);
/* Adds sorted files to a database at once; returns RocksDB's message, or NULL. */
char *database_ingest(rocksdb_t *db, const char *const *files, size_t n);

/* ---- checkpoint.c ---- */

/* Removes kept states that a newer one of their name replaces. */
int kept_clean(const mr_store *s);

#endif

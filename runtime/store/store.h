/* store.h - the inside of a store, shared by store.c (opening), commit_file.c (COMMIT), database.c
 * (RocksDB), rows.c (reading), commit.c (writing), checkpoint.c (kept states and copies), follow.c
 * (readers that follow a writer) and what goes through all rows: verify.c, shrink.c, export.c.
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
 * others, so that the two kinds do not overlap. Named records that are the store's own: table/NAME
 * (table_state), filter/NAME/PAGE (a page of a table's admission filter).
 *
 * Invariant: the last commit in the database's log is that of COMMIT, or the next one, which was
 * under way. Nothing is ever written to RocksDB but by ingesting the files of a commit. */
#ifndef MR_STORE_H
#define MR_STORE_H

#include <rocksdb/c.h>

#include "base/base.h"
#include "base/file.h"
#include "table/table.h"

enum { STORE_FORMAT = 2, COMMIT_KEY = 9, ROW_KEY = 13, DATABASE_NAME = 32 };
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
    const void *bytes; /* NULL: the record is removed */
    size_t len;
    size_t order;
} put_record;

enum { COMMIT_FILES = 8 };

/* A record that must be found once its file was ingested; bytes NULL: not found. */
typedef struct witness {
    char key[64];
    size_t key_len;
    const void *bytes;
    size_t len;
    uint64_t hash; /* of the bytes, where these are elsewhere; 0: not found */
} witness;

/* A commit that is put together, or written by its own thread. */
typedef struct commit {
    mr_store *s;
    commit_mark mark;
    arena *bytes;
    put_record *put;
    size_t puts, put_room;
    mr_table **table; /* by number */
    size_t tables, table_room;
    table_state *state; /* [tables] */
    size_t files;       /* sorted files of rows, at most COMMIT_FILES - 2 made beforehand */
    char file[COMMIT_FILES][PATH_SIZE];
    witness seen[2 * COMMIT_FILES]; /* the first and the last record of each file */
    size_t seen_n;
    pthread_t thread;
    int failed;
    char error[1024];
    _Atomic int over; /* the thread is about to end */
} commit;

typedef struct database {
    rocksdb_t *db;
    rocksdb_column_family_handle_t *family;
} database;

struct mr_store {
    char dir[PATH_SIZE];
    int mode;
    int lock;               /* descriptor, or -1 */
    int made;               /* by this opening: 1, 2 in an empty directory that was there */
    commit_mark last;       /* the last commit that COMMIT tells of; database: the one in use */
    commit_mark ahead;      /* number > 0: a commit that the database has, but COMMIT has not yet */
    database base;          /* db NULL after an error: opened again by the next use */
    pthread_rwlock_t using; /* base: held for reading by its users, for writing to exchange it */
    rocksdb_options_t *options;
    rocksdb_readoptions_t *read;
    rocksdb_cache_t *cache;
    rocksdb_compactionfilter_t *filter;
    memory_client blocks, working;          /* the block cache; compactions and writers of files */
    _Atomic uint64_t expired[TABLES_MAX];   /* what the last durable commit says, by table */
    _Atomic uint64_t forgotten[TABLES_MAX]; /* the same of drops */
    void *value;                            /* of the last mr_store_get(), allocated by RocksDB */
    size_t value_len;
    double waited;       /* seconds that commits waited for compaction */
    double clock;        /* seconds since 1970 that the next commit is made at; 0: now */
    commit *preparing;   /* from mr_commit_begin to its end */
    commit *behind;      /* being written */
    mr_table *tables;    /* whose rows are here, linked by `attached` */
    char secondary[512]; /* the directory of a following reader's own files; "" of others */
};

/* ---- commit_file.c ---- */

/* Reads DIR/COMMIT; -1 after fail(), which changes nothing. */
int commit_file_read(const char *dir, commit_mark *mark);
/* Writes COMMIT.new and syncs it; then puts it in the place of COMMIT and syncs the directory. */
int commit_file_prepare(const char *dir, const commit_mark *mark);
int commit_file_replace(const char *dir);
int commit_file_write(const char *dir, const commit_mark *mark);

/* ---- database.c ---- */

int database_options(mr_store *s);
/* Keeps RocksDB's message, after what failed, and frees it. Returns -1. */
int database_fail(const mr_store *s, const char *doing, char *message);
/* Opens a database (its directory) as a mode of the store's and reads its last commit into log. */
int database_open(const mr_store *s, const char *path, int mode, database *d, commit_mark *log);
void database_close(database *d);
/* Whether a log's last commit is what COMMIT says, or the next one. */
int database_check(const mr_store *s, database d, const commit_mark *mark, const commit_mark *log);
/* Reads the last commit at or before `number` from the log: 0 read, 1 there is none, -1. */
int database_log(const mr_store *s, database d, uint64_t number, commit_mark *mark);
/* Opens the store's database for writing, looking at it read-only first. */
int store_database_open(mr_store *s);
/* The same, if it is not open. */
int store_database_need(mr_store *s);
void store_database_close(mr_store *s);

/* ---- damage.c ---- */

/* -1 after fail(): a file of a database is damaged in the way that RocksDB would not survive. */
int database_damage(const mr_store *s, const char *path);

/* ---- rescue.c: after database_open() of `path` read-only failed ---- */

/* When the syncing of its manifest failed in a commit: puts the commit's files back. */
int database_rescue_files(const mr_store *s, const char *path, database *d, commit_mark *log);
/* When the end of its manifest was never written: opens it without, if the last commit is there.
 * With `writes` the manifest is shortened, else only a copy of it. */
int database_rescue_tail(const mr_store *s, const char *path, int writes, database *d,
                         commit_mark *log);

/* ---- bounds.c ---- */

typedef struct key_bound {
    const char *key;
    size_t len;
} key_bound;

/* The first keys of a database's files, ascending; zero: none yet. */
typedef struct key_bounds {
    key_bound *at;
    size_t n, room;
    arena *bytes;
} key_bounds;

int bounds_add(key_bounds *b, database d); /* those there are now; -1 after fail() */
void bounds_free(key_bounds *b);
int key_reaches(const char *key, size_t len, const key_bound *b); /* 1: it is the bound, or above */

/* ---- store.c, follow.c ---- */

/* Opens the database that COMMIT names, as the writer goes on, in the place of the one in use. */
int store_open_reading(mr_store *s);
/* Removes what creations of this directory, and copies to it, left behind whose process is gone. */
void creations_clean(const char *dir);
/* A following reader's own directory. */
int follow_begin(mr_store *s);
void follow_end(mr_store *s);

/* ---- commit.c ---- */

/* The rows of a table are in this store from now on. */
void store_attach(mr_store *s, mr_table *t);

/* The place of a commit's i-th file. */
int commit_file_path(const commit *c, size_t i, char path[PATH_SIZE]);

/* ---- sorted_file.c ---- */

int is_sorted_file(const char *name); /* by how it ends */

/* Writes the log of a commit and its named records as a sorted file; returns RocksDB's message, or
 * NULL. */
char *state_file_write(commit *c, const char *path);
/* Writes the file of all tables' rows, if there are any. */
int commit_rows_write(commit *c);
/* Keeps RocksDB's message. Returns -1. */
int commit_fail(const commit *c, char *message);

/* ---- ingest.c ---- */

/* Adds sorted files to a database at once; returns RocksDB's message, or NULL. */
char *database_ingest(database d, const char *const *files, size_t n);
/* Copies of files that are small, for another try; then the ingest itself, which waits while compaction
 * is far behind, and after which all of the commit can be read; then the copies are removed. */
int commit_keep(const commit *c);
int commit_ingest(commit *c);
void commit_forget(const commit *c);

/* Of a commit that the database has but COMMIT has not: takes its files over once more, where there
 * are copies of them. -1 after fail() if it is not complete. */
int commit_repair(mr_store *s);

/* A file of rows, ascending by key, that becomes part of the commit being prepared. */
typedef struct rows_file rows_file;
rows_file *rows_file_new(mr_store *s);
int rows_file_put(rows_file *f, const void *key, size_t key_len, const void *bytes, size_t len);
int rows_file_drop(rows_file *f, const void *key, size_t key_len);
int rows_file_drop_range(rows_file *f, const void *from, const void *to, size_t len);
/* Finishes it; one without any record is left out. -1 after fail(), also of a put before. */
int rows_file_end(rows_file *f);

/* ---- rows.c ---- */

int store_read_rows(mr_store *s, uint32_t table, const keyed_row *rows, size_t n,
                    record_found *found, void *context);

/* Calls work for the records of [from, to), ascending, checksums verified and the block cache left
 * alone, until it returns other than 0; returns that, or -1 after fail(). Several threads may. */
typedef int scan_record(void *context, const char *key, size_t key_len, const char *value,
                        size_t len);
int store_scan(mr_store *s, const char *doing, const char *from, const char *to, size_t len,
               scan_record *work, void *context);
/* The same for the rows of a table (prefix PREFIX_ROW) or its drops (PREFIX_DROP). */
int store_scan_table(mr_store *s, const char *doing, int prefix, uint32_t table, scan_record *work,
                     void *context);

/* The same for the pages of a table's admission filter. */
int store_scan_pages(mr_store *s, const char *table, scan_record *work, void *context);

/* The key of a row (PREFIX_ROW) or a drop; and the number in a key. */
void row_key(char to[ROW_KEY], int prefix, uint32_t table, uint64_t key);
uint64_t big_endian(const char *p);

/* What the last commit says of expiry and drops; and forgetting it, so that no compaction goes by it. */
int store_states_read(mr_store *s);
void store_states_forget(mr_store *s);

/* The table_state of a record's value; -1 after fail(). */
int table_state_read(const mr_store *s, const char *name, const void *bytes, size_t len,
                     table_state *state);

/* ---- checkpoint.c, copy.c ---- */

/* What the store's last commit is must be known before it is copied. */
int state_settle(mr_store *s);

/* Removes kept states that a newer one of their name replaces. */
int kept_clean(const mr_store *s);

#endif

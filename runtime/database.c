/* database.c - RocksDB below a store: its settings, opening it, reading from it.
 *
 * A database is looked at read-only before it is opened for writing: a manifest that lost its tail
 * opens without complaint as an older state, and a writing open deletes the files that the tail
 * named. Objects are closed in the order iterator, database, options, cache. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "store.h"
#include "table.h"

enum { MIB = 1 << 20, LOG_NOTHING = 6 /* above all levels */ };

int database_fail(const mr_store *s, const char *doing, char *message)
{
    fail("store %s: %s: %s", s->dir, doing, message);
    rocksdb_free(message);
    return -1;
}

void database_options(mr_store *s)
{
    rocksdb_options_t *o = s->options = rocksdb_options_create();
    s->read = rocksdb_readoptions_create();
    /* A small cache that may overflow: a strict one turns pressure into errors of reading. */
    s->cache = rocksdb_cache_create_lru(8 * MIB);
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, s->cache);
    rocksdb_block_based_options_set_block_size(table, 16 << 10);
    rocksdb_block_based_options_set_format_version(table, 5);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_options_set_block_based_table_factory(o, table);
    rocksdb_block_based_options_destroy(table);
    /* Floats hardly compress, and writing is bound by the processor. */
    rocksdb_options_set_compression(o, rocksdb_no_compression);
    rocksdb_options_set_paranoid_checks(o, 1);
    rocksdb_options_set_max_open_files(o, -1);     /* a reader keeps what the writer removes */
    rocksdb_options_set_write_buffer_size(o, MIB); /* never used */
    rocksdb_options_set_max_background_jobs(o, 2);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(o, 1);
    rocksdb_options_set_level0_file_num_compaction_trigger(o, 8);
    rocksdb_options_set_target_file_size_base(o, 64 * MIB);
    rocksdb_options_set_max_bytes_for_level_base(o, 128 * MIB);
    rocksdb_options_compaction_readahead_size(o, 2 * MIB);
    rocksdb_options_set_bytes_per_sync(o, 4 * MIB);
    /* An empty LOG: an error in writing to it, as of a full disk, runs into an assertion at the
     * next line. What failed is in the messages of calls. (A limit of its size would write the
     * header whatever the level.) */
    rocksdb_options_set_info_log_level(o, LOG_NOTHING);
    rocksdb_options_set_keep_log_file_num(o, 1);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_stats_persist_period_sec(o, 0);
    rocksdb_options_set_manifest_preallocation_size(o, 64 << 10);
    rocksdb_readoptions_set_verify_checksums(s->read, 1);
}

/* ---- the log of commits ---- */

static uint64_t big_endian(const char *p)
{
    uint64_t x;
    memcpy(&x, p, 8);
    return __builtin_bswap64(x);
}

/* Reads the last commit at or before `number` from the log: 0 read, 1 there is none. */
static int log_read(const mr_store *s, rocksdb_t *db, uint64_t number, commit_mark *mark)
{
    char key[COMMIT_KEY] = {PREFIX_COMMIT}, *message = NULL;
    uint64_t big = __builtin_bswap64(number);
    memcpy(key + 1, &big, 8);
    size_t key_len = 0, len = 0;
    int found = 0;
    rocksdb_iterator_t *i = rocksdb_create_iterator(db, s->read);
    rocksdb_iter_seek_for_prev(i, key, sizeof key);
    if (rocksdb_iter_valid(i)) {
        const char *at = rocksdb_iter_key(i, &key_len);
        const char *value = rocksdb_iter_value(i, &len);
        found = key_len == COMMIT_KEY && at[0] == PREFIX_COMMIT && len == 16;
        if (found) {
            mark->number = big_endian(at + 1);
            memcpy(&mark->step, value, 8);
            memcpy(&mark->time, value + 8, 8);
        }
    }
    rocksdb_iter_get_error(i, &message);
    rocksdb_iter_destroy(i);
    if (message)
        return database_fail(s, "the log of commits could not be read", message);
    return !found;
}

int database_check(const mr_store *s, rocksdb_t *db, const commit_mark *mark,
                   const commit_mark *log)
{
    if (log->number < mark->number)
        return fail("store %s: the database %s is damaged: its manifest leads to commit %" PRIu64
                    ", COMMIT says %" PRIu64 ". Nothing was changed; restore the directory from a "
                    "copy",
                    s->dir, mark->database, log->number, mark->number);
    if (log->number > mark->number + 1)
        return fail("store %s: COMMIT says %" PRIu64 ", the database %s is at commit %" PRIu64
                    ": COMMIT is from an older copy. Nothing was changed; restore the directory "
                    "from a copy",
                    s->dir, mark->number, mark->database, log->number);
    commit_mark same = *log;
    int missing = log->number > mark->number ? log_read(s, db, mark->number, &same) : 0;
    if (missing < 0)
        return -1;
    if (missing || same.number != mark->number || same.step != mark->step ||
        same.time != mark->time)
        return fail("store %s: commit %" PRIu64 " of the database %s is not the one that COMMIT "
                    "tells of: they are from different stores. Nothing was changed; restore the "
                    "directory from a copy",
                    s->dir, mark->number, mark->database);
    return 0;
}

/* ---- opening ---- */

rocksdb_t *database_open(const mr_store *s, const char *path, int writable, commit_mark *log)
{
    char *message = NULL;
    rocksdb_t *db = writable ? rocksdb_open(s->options, path, &message)
                             : rocksdb_open_for_read_only(s->options, path, 0, &message);
    if (message) {
        fail("store %s: the database %s could not be opened: %s", s->dir, path, message);
        rocksdb_free(message);
        return NULL;
    }
    *log = (commit_mark){0, 0, 0, ""};
    int missing = log_read(s, db, UINT64_MAX, log);
    if (missing > 0)
        fail("store %s: the database %s is damaged: it holds no commit. Nothing was changed; "
             "restore the directory from a copy",
             s->dir, path);
    if (missing) {
        rocksdb_close(db);
        return NULL;
    }
    return db;
}

void store_database_close(mr_store *s)
{
    if (s->db)
        rocksdb_close(s->db);
    s->db = NULL;
}

/* The number of the file that RocksDB misses, by its message; 0: that is not what it says. */
static uint64_t missing_file(const char *message)
{
    const char *end = strstr(message, ".ldb");
    if (!end || !strstr(message, "No such file"))
        return 0;
    while (end > message && end[-1] >= '0' && end[-1] <= '9')
        end--;
    return strtoull(end, NULL, 10);
}

static int rescue_path(const mr_store *s, char path[PATH_SIZE], uint64_t number)
{
    return path_make(path, "%s/%s/%06" PRIu64 ".sst", s->dir, s->last.database, number);
}

/* When the syncing of its manifest fails, RocksDB removes the files of an ingest, though the
 * manifest may name them already: such a database does not open. The files are still in staging.
 * They had consecutive numbers in the database, of which one is known, so that there are as many
 * ways to put them back as there are files; the manifest tells by their sizes which one is
 * right. Returns the database, open read-only, or NULL with the message as it was. */
static rocksdb_t *database_rescue(const mr_store *s, const char *database, commit_mark *log)
{
    char why[1024], from[PATH_SIZE], to[PATH_SIZE];
    snprintf(why, sizeof why, "%s", mr_error());
    uint64_t missing = missing_file(why), n = 0;
    while (
        missing &&
        !path_make(from, "%s/staging/%" PRIu64 "-%" PRIu64 ".sst", s->dir, s->last.number + 1, n) &&
        !access(from, R_OK))
        n++;
    for (uint64_t first = missing >= n ? missing - n + 1 : 1; n && first <= missing; first++) {
        uint64_t linked = 0;
        for (; linked < n; linked++)
            if (path_make(from, "%s/staging/%" PRIu64 "-%" PRIu64 ".sst", s->dir,
                          s->last.number + 1, linked) ||
                rescue_path(s, to, first + linked) || link(from, to))
                break;
        rocksdb_t *db = linked == n ? database_open(s, database, 0, log) : NULL;
        if (db && log->number == s->last.number + 1) {
            if (!tree_sync(database))
                return db;
            rocksdb_close(db); /* the links stay */
            return NULL;
        }
        if (db)
            rocksdb_close(db);
        while (linked--)
            if (!rescue_path(s, to, first + linked))
                unlink(to);
    }
    return fail_null("%s", why);
}

int store_database_open(mr_store *s)
{
    char path[PATH_SIZE];
    struct stat st;
    commit_mark seen, log;
    if (path_make(path, "%s/%s", s->dir, s->last.database))
        return -1;
    if (stat(path, &st))
        return fail("store %s: the database %s, which COMMIT names, is missing. Restore the "
                    "directory from a copy",
                    s->dir, s->last.database);
    rocksdb_t *db = database_open(s, path, 0, &seen);
    if (!db && !(db = database_rescue(s, path, &seen)))
        return -1;
    int bad = database_check(s, db, &s->last, &seen);
    rocksdb_close(db);
    if (bad || !(s->db = database_open(s, path, 1, &log)))
        return -1;
    if (log.number != seen.number) {
        store_database_close(s);
        return fail("store %s: the database %s was changed by another program while it was opened",
                    s->dir, s->last.database);
    }
    s->ahead = (commit_mark){0, 0, 0, ""};
    if (log.number > s->last.number) {
        memcpy(log.database, s->last.database, sizeof log.database);
        s->ahead = log;
    }
    return 0;
}

int store_database_need(mr_store *s)
{
    return s->db                      ? 0
           : s->mode == MR_STORE_READ ? fail("store %s: the database is not open", s->dir)
                                      : store_database_open(s);
}

/* ---- records ---- */

int mr_store_get(mr_store *s, const char *name)
{
    char key[1024] = {PREFIX_STATE}, *message = NULL;
    size_t len = strlen(name);
    if (len >= sizeof key)
        return fail("store %s: the name of a record has %zu characters, at most %zu may be", s->dir,
                    len, sizeof key - 1);
    if (store_database_need(s))
        return -1;
    memcpy(key + 1, name, len);
    rocksdb_free(s->value);
    s->value = rocksdb_get(s->db, s->read, key, len + 1, &s->value_len, &message);
    if (message) {
        s->value = NULL;
        return database_fail(s, name, message);
    }
    return s->value != NULL;
}

const void *mr_store_value(const mr_store *s)
{
    return s->value;
}

double mr_store_value_len(const mr_store *s)
{
    return s->value ? (double)s->value_len : 0;
}

/* ---- scans: in the order of keys, checksums verified, the cache left alone ---- */

typedef int scan_record(void *context, const char *key, size_t key_len, const char *value,
                        size_t len);

/* Calls work for the records of [from, to) until it returns other than 0. */
static int scan(mr_store *s, const char *doing, const char *from, const char *to, size_t len,
                scan_record *work, void *context)
{
    if (store_database_need(s))
        return -1;
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(read, 1);
    rocksdb_readoptions_set_fill_cache(read, 0);
    rocksdb_readoptions_set_readahead_size(read, 2 * MIB);
    rocksdb_readoptions_set_iterate_upper_bound(read, to, len);
    rocksdb_iterator_t *i = rocksdb_create_iterator(s->db, read);
    int bad = 0;
    for (rocksdb_iter_seek(i, from, len); !bad && rocksdb_iter_valid(i); rocksdb_iter_next(i)) {
        size_t key_len, value_len;
        const char *key = rocksdb_iter_key(i, &key_len);
        const char *value = rocksdb_iter_value(i, &value_len);
        bad = work(context, key, key_len, value, value_len);
    }
    char *message = NULL;
    rocksdb_iter_get_error(i, &message);
    rocksdb_iter_destroy(i);
    rocksdb_readoptions_destroy(read);
    return message ? database_fail(s, doing, message) : bad;
}

static int scan_rows(mr_store *s, const char *doing, uint32_t table, scan_record *work,
                     void *context)
{
    char from[5] = {PREFIX_ROW}, to[5] = {PREFIX_ROW};
    uint32_t first = __builtin_bswap32(table), next = __builtin_bswap32(table + 1);
    memcpy(from + 1, &first, 4);
    memcpy(to + 1, &next, 4);
    if (table == UINT32_MAX)
        memcpy(to, (char[5]){PREFIX_DROP}, 5);
    return scan(s, doing, from, to, sizeof from, work, context);
}

typedef struct load {
    mr_store *s;
    mr_table *t;
} load;

static int load_row(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    const load *l = context;
    if (key_len != ROW_KEY)
        return fail("store %s: table %s: a row's key has %zu bytes, expected %d", l->s->dir,
                    table_name(l->t), key_len, ROW_KEY);
    return table_decode(l->t, big_endian(key + 5), (const uint8_t *)value, len);
}

int mr_store_load(mr_store *s, mr_table *t)
{
    char doing[256];
    snprintf(doing, sizeof doing, "table %s: its rows could not be read", table_name(t));
    return scan_rows(s, doing, table_id(t), load_row, &(load){s, t});
}

static int count_row(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    (void)key, (void)key_len, (void)value, (void)len;
    ++*(double *)context;
    return 0;
}

double mr_store_rows(mr_store *s, uint32_t table)
{
    double rows = 0;
    return scan_rows(s, "rows could not be counted", table, count_row, &rows) ? -1 : rows;
}

static int hash_record(void *context, const char *key, size_t key_len, const char *value,
                       size_t len)
{
    uint64_t lens[2] = {key_len, len};
    XXH3_128bits_update(context, lens, sizeof lens);
    XXH3_128bits_update(context, key, key_len);
    XXH3_128bits_update(context, value, len);
    return 0;
}

int mr_store_digest(mr_store *s, char *hex)
{
    _Alignas(64) XXH3_state_t state;
    XXH3_128bits_reset(&state);
    if (scan(s, "the digest could not be taken", (char[]){PREFIX_STATE}, (char[]){PREFIX_DROP}, 1,
             hash_record, &state))
        return -1;
    XXH128_hash_t h = XXH3_128bits_digest(&state);
    snprintf(hex, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64, (uint64_t)h.low64);
    return 0;
}

/* ---- figures ---- */

static double property(const mr_store *s, const char *name)
{
    char *text = s->db ? rocksdb_property_value(s->db, name) : NULL;
    double value = text ? strtod(text, NULL) : -1;
    rocksdb_free(text);
    return value;
}

double mr_store_number(const mr_store *s, const char *what)
{
    if (!strcmp(what, "commit"))
        return (double)s->last.number;
    if (!strcmp(what, "step"))
        return (double)s->last.step;
    if (!strcmp(what, "time"))
        return (double)s->last.time / 1e6;
    if (!strcmp(what, "waited"))
        return s->waited;
    if (!strcmp(what, "bytes"))
        return property(s, "rocksdb.live-sst-files-size");
    if (!strcmp(what, "level0"))
        return property(s, "rocksdb.num-files-at-level0");
    if (!strcmp(what, "errors"))
        return property(s, "rocksdb.background-errors");
    return -1;
}

const char *mr_store_database(const mr_store *s)
{
    return s->last.database;
}

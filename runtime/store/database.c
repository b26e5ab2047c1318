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

#include "store/store.h"

enum {
    MIB = 1 << 20,
    LOG_NOTHING = 6,  /* above all levels */
    BLOCKS_LEAST = 3, /* MiB */
    BLOCKS_MOST = 512
};

int database_fail(const mr_store *s, const char *doing, char *message)
{
    fail("store %s: %s: %s", s->dir, doing, message);
    rocksdb_free(message);
    return -1;
}

/* Rows that expired and drops that are not asked for any more, as the last durable commit has it: a
 * compaction leaves them out. */
static unsigned char filter_drops(void *state, int level, const char *key, size_t key_len,
                                  const char *value, size_t len, char **new_value, size_t *new_len,
                                  unsigned char *changed)
{
    const mr_store *s = state;
    uint32_t table;
    uint64_t step;
    (void)level, (void)new_value, (void)new_len, (void)changed;
    if (key_len != ROW_KEY || key[0] < PREFIX_ROW || len < 12)
        return 0;
    memcpy(&table, key + 1, 4);
    memcpy(&step, value + 4, 8);
    table = __builtin_bswap32(table);
    return table < TABLES_MAX &&
           step <= (key[0] == PREFIX_ROW ? s->expired[table] : s->forgotten[table]);
}

static const char *filter_name(void *state)
{
    (void)state;
    return "moonrock.expiry";
}

static void filter_end(void *state)
{
    (void)state;
}

int database_options(mr_store *s)
{
    rocksdb_options_t *o = s->options = rocksdb_options_create();
    /* for indexes and filters, 2 bytes a row and more; rows have a cache of their own */
    double eighth = mr_memory_limit() / 8;
    size_t blocks = (size_t)MIN(MAX(eighth, (double)BLOCKS_LEAST * MIB), (double)BLOCKS_MOST * MIB);
    s->read = rocksdb_readoptions_create();
    /* It may overflow: a strict one turns pressure into errors of reading. */
    rocksdb_lru_cache_options_t *lru = rocksdb_lru_cache_options_create();
    rocksdb_lru_cache_options_set_capacity(lru, blocks);
    rocksdb_lru_cache_options_set_num_shard_bits(lru, 0); /* the indexes of large files are large */
    s->cache = rocksdb_cache_create_lru_opts(lru);
    rocksdb_lru_cache_options_destroy(lru);
    memory_join(&s->blocks, "blocks", blocks);
    memory_join(&s->working, "compaction", 12 * MIB);
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, s->cache);
    rocksdb_block_based_options_set_block_size(table, 4 << 10);
    rocksdb_block_based_options_set_index_block_restart_interval(table, 8);
    rocksdb_block_based_options_set_format_version(table, 5);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_block_based_options_set_filter_policy(table,
                                                  rocksdb_filterpolicy_create_bloom_full(10));
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
    rocksdb_options_compaction_readahead_size(o, 512 << 10);
    rocksdb_options_set_bytes_per_sync(o, 4 * MIB);
    /* An empty LOG: an error in writing to it, as of a full disk, runs into an assertion at the
     * next line. What failed is in the messages of calls. (A limit of its size would write the
     * header whatever the level.) */
    rocksdb_options_set_info_log_level(o, LOG_NOTHING);
    rocksdb_options_set_keep_log_file_num(o, 1);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_stats_persist_period_sec(o, 0);
    rocksdb_options_set_manifest_preallocation_size(o, 64 << 10);
    s->filter = rocksdb_compactionfilter_create(s, filter_end, filter_drops, filter_name);
    rocksdb_options_set_compaction_filter(o, s->filter);
    rocksdb_readoptions_set_verify_checksums(s->read, 1);
    rocksdb_readoptions_set_fill_cache(s->read, 0); /* rows have a cache of their own */
    return 0;
}

/* ---- the log of commits ---- */

int database_log(const mr_store *s, database d, uint64_t number, commit_mark *mark)
{
    char key[COMMIT_KEY] = {PREFIX_COMMIT}, *message = NULL;
    uint64_t big = __builtin_bswap64(number);
    memcpy(key + 1, &big, 8);
    size_t key_len = 0, len = 0;
    int found = 0;
    rocksdb_iterator_t *i = rocksdb_create_iterator(d.db, s->read);
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

int database_check(const mr_store *s, database d, const commit_mark *mark, const commit_mark *log)
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
    int missing = log->number > mark->number ? database_log(s, d, mark->number, &same) : 0;
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

/* RocksDB 7.8 takes a file over, too, whose first or last key it could not read, with none in its place;
 * a seek backwards then never ends. So nothing seeks before this was looked at. */
static int bounds_check(const mr_store *s, database d, const char *path)
{
    const rocksdb_livefiles_t *files = rocksdb_livefiles(d.db);
    int bad = 0;
    for (int i = 0; i < rocksdb_livefiles_count(files) && !bad; i++) {
        size_t first_len, last_len;
        const char *first = rocksdb_livefiles_smallestkey(files, i, &first_len);
        const char *last = rocksdb_livefiles_largestkey(files, i, &last_len);
        int order = memcmp(first, last, MIN(first_len, last_len));
        if (!first_len || !last_len || order > 0 || (order == 0 && first_len > last_len))
            bad = fail("store %s: the database %s is damaged: its MANIFEST has the file %s without "
                       "its first and last key. Restore the directory from a copy",
                       s->dir, path, rocksdb_livefiles_name(files, i));
    }
    rocksdb_livefiles_destroy(files);
    return bad;
}

int database_open(const mr_store *s, const char *path, int mode, database *d, commit_mark *log)
{
    const char *name = "default";
    const rocksdb_options_t *options = s->options;
    char *message = NULL;
    *d = (database){NULL, NULL};
    if (database_damage(s, path))
        return -1;
    if (mode == MR_STORE_READ)
        d->db = rocksdb_open_for_read_only_column_families(s->options, path, 1, &name, &options,
                                                           &d->family, 0, &message);
    else if (mode == MR_STORE_FOLLOW)
        d->db = rocksdb_open_as_secondary_column_families(s->options, path, s->secondary, 1, &name,
                                                          &options, &d->family, &message);
    else
        d->db = rocksdb_open_column_families(s->options, path, 1, &name, &options, &d->family,
                                             &message);
    if (message) {
        *d = (database){NULL, NULL};
        fail("store %s: the database %s could not be opened: %s", s->dir, path, message);
        rocksdb_free(message);
        return -1;
    }
    *log = (commit_mark){0, 0, 0, ""};
    int missing = bounds_check(s, *d, path) ? -1 : database_log(s, *d, UINT64_MAX, log);
    if (missing > 0)
        fail("store %s: the database %s is damaged: it holds no commit. Nothing was changed; "
             "restore the directory from a copy",
             s->dir, path);
    if (missing)
        database_close(d);
    return missing ? -1 : 0;
}

void database_close(database *d)
{
    if (d->family)
        rocksdb_column_family_handle_destroy(d->family);
    if (d->db)
        rocksdb_close(d->db);
    *d = (database){NULL, NULL};
}

void store_database_close(mr_store *s)
{
    pthread_rwlock_wrlock(&s->using);
    database_close(&s->base);
    pthread_rwlock_unlock(&s->using);
}

static int database_open_writing(mr_store *s)
{
    char path[PATH_SIZE];
    struct stat st;
    commit_mark seen, log;
    database d;
    if (path_make(path, "%s/%s", s->dir, s->last.database))
        return -1;
    if (stat(path, &st))
        return fail("store %s: the database %s, which COMMIT names, is missing. Restore the "
                    "directory from a copy",
                    s->dir, s->last.database);
    if (database_open(s, path, MR_STORE_READ, &d, &seen) &&
        database_rescue_files(s, path, &d, &seen) && database_rescue_tail(s, path, 1, &d, &seen))
        return -1;
    int bad = database_check(s, d, &s->last, &seen);
    database_close(&d);
    if (bad || database_open(s, path, MR_STORE_WRITE, &s->base, &log))
        return -1;
    if (log.number != seen.number) {
        database_close(&s->base);
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

int store_database_open(mr_store *s)
{
    pthread_rwlock_wrlock(&s->using);
    database_close(&s->base);
    int bad = database_open_writing(s);
    pthread_rwlock_unlock(&s->using);
    return bad;
}

int store_database_need(mr_store *s)
{
    return s->base.db ? 0
           : s->mode == MR_STORE_WRITE || s->mode == MR_STORE_CREATE
               ? store_database_open(s)
               : fail("store %s: the database is not open", s->dir);
}

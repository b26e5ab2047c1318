/* commit.c - writing a store: commits, checkpoints, restoring; store.h has the layout.
 *
 * A commit is two sorted files, the rows and the rest, written and synced in staging/ and handed to
 * RocksDB in one atomic ingest (which links them into the database, syncs its directory and its
 * manifest); then COMMIT is replaced. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store.h"
#include "table.h"

enum { LEVEL0_SLOW = 40, LEVEL0_WAIT_MS = 30000 };

static const char *staging_path(const mr_store *s, const char *part, char *path)
{
    snprintf(path, STORE_PATH, "%s/staging/%s-%llu.sst", s->dir, part,
             (unsigned long long)s->last.number + 1);
    return path;
}

int mr_commit_begin(mr_store *s)
{
    if (s->mode == MR_STORE_READ)
        return fail("store %s: is open for reading only", s->dir);
    if (!s->db && store_database_open(s, 1))
        return -1;
    mr_commit_abort(s);
    s->committing = 1;
    return 0;
}

int mr_commit_put(mr_store *s, const char *name, const void *bytes, size_t len)
{
    if (memory_reserve((void **)&s->put, &s->put_room, s->puts + 1, sizeof *s->put))
        return -1;
    size_t name_len = strlen(name);
    char *copy = memory_new(name_len + 2 + len);
    if (!copy)
        return -1;
    copy[0] = PREFIX_STATE;
    memcpy(copy + 1, name, name_len + 1);
    memcpy(copy + name_len + 2, bytes, len);
    s->put[s->puts] = (put_record){copy, copy + name_len + 2, len, s->puts};
    s->puts++;
    return 0;
}

static rocksdb_sstfilewriter_t *writer_open(mr_store *s, const char *part)
{
    char path[STORE_PATH], *message = NULL;
    rocksdb_envoptions_t *env = rocksdb_envoptions_create();
    rocksdb_sstfilewriter_t *w = rocksdb_sstfilewriter_create(env, s->options);
    rocksdb_envoptions_destroy(env);
    rocksdb_sstfilewriter_open(w, staging_path(s, part, path), &message);
    if (message) {
        store_fail(s, "a commit could not be begun", message);
        rocksdb_sstfilewriter_destroy(w);
        return NULL;
    }
    return w;
}

int mr_commit_table(mr_store *s, mr_table *t)
{
    const dirty_row *rows;
    int64_t n = table_dirty(t, &rows);
    if (n < 0 ||
        memory_reserve((void **)&s->tables, &s->tables_room, s->tables_n + 1, sizeof(mr_table *)))
        return -1;
    s->tables[s->tables_n++] = t;
    if (!n)
        return 0;
    if (!s->rows && !(s->rows = writer_open(s, "rows")))
        return -1;
    uint8_t *record = memory_new(table_record_len(t));
    if (!record)
        return -1;
    uint32_t id = __builtin_bswap32(table_id(t));
    char key[ROW_KEY] = {PREFIX_ROW}, *message = NULL;
    memcpy(key + 1, &id, 4);
    for (int64_t i = 0; i < n && !message; i++) {
        uint64_t big = __builtin_bswap64(rows[i].key);
        memcpy(key + 5, &big, 8);
        size_t len = table_encode(t, rows[i].row, record);
        rocksdb_sstfilewriter_put(s->rows, key, ROW_KEY, (char *)record, len, &message);
    }
    memory_free(record);
    return message ? store_fail(s, "rows could not be written", message) : 0;
}

static int by_name(const void *a, const void *b)
{
    const put_record *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->order > y->order) - (x->order < y->order);
}

/* The second file: the commit record, then the named ones in order. */
static int state_write(mr_store *s, const commit_log *log)
{
    char *message = NULL;
    rocksdb_sstfilewriter_t *w = writer_open(s, "state");
    if (!w)
        return -1;
    rocksdb_sstfilewriter_put(w, "\0commit", 7, (const char *)log, sizeof *log, &message);
    if (s->puts)
        qsort(s->put, s->puts, sizeof *s->put, by_name);
    for (size_t i = 0; i < s->puts && !message; i++) {
        const put_record *p = &s->put[i];
        if (i + 1 < s->puts && !strcmp(p->name, s->put[i + 1].name))
            continue; /* the last of a name wins */
        rocksdb_sstfilewriter_put(w, p->name, strlen(p->name), p->bytes, p->len, &message);
    }
    if (!message)
        rocksdb_sstfilewriter_finish(w, &message);
    rocksdb_sstfilewriter_destroy(w);
    return message ? store_fail(s, "the state could not be written", message) : 0;
}

/* RocksDB never stalls an ingest: commits wait here while compaction is far behind. */
static void level0_wait(mr_store *s)
{
    for (int ms = 0; ms < LEVEL0_WAIT_MS && mr_store_number(s, "level0") >= LEVEL0_SLOW; ms += 10)
        usleep(10000);
}

static int ingest(mr_store *s)
{
    char rows[STORE_PATH], state[STORE_PATH], *message = NULL;
    const char *files[2] = {staging_path(s, "state", state), staging_path(s, "rows", rows)};
    if (s->rows) {
        rocksdb_sstfilewriter_finish(s->rows, &message);
        if (message)
            return store_fail(s, "rows could not be written", message);
    }
    level0_wait(s);
    rocksdb_ingestexternalfileoptions_t *o = rocksdb_ingestexternalfileoptions_create();
    rocksdb_ingestexternalfileoptions_set_move_files(o, 1);
    rocksdb_ingest_external_file(s->db, files, s->rows ? 2 : 1, o, &message);
    rocksdb_ingestexternalfileoptions_destroy(o);
    if (!message)
        return 0;
    store_fail(s, "the commit could not be taken over", message);
    store_database_close(s); /* opened again by the next use: 7.8 does not resume by itself */
    return -1;
}

int mr_commit_end(mr_store *s, uint64_t step)
{
    commit_log log = {s->last.number + 1, step, mr_clock_wall()};
    if (!s->committing)
        return fail("store %s: no commit was begun", s->dir);
    if (state_write(s, &log) || ingest(s) || store_commit_write(s->dir, s->database, &log)) {
        mr_commit_abort(s);
        return -1;
    }
    s->last = log;
    for (size_t i = 0; i < s->tables_n; i++)
        table_committed(s->tables[i]);
    mr_commit_abort(s);
    return 0;
}

void mr_commit_abort(mr_store *s)
{
    char path[STORE_PATH];
    if (s->rows)
        rocksdb_sstfilewriter_destroy(s->rows);
    s->rows = NULL;
    if (s->committing) { /* nothing is there after a commit that succeeded */
        unlink(staging_path(s, "rows", path));
        unlink(staging_path(s, "state", path));
    }
    for (size_t i = 0; i < s->puts; i++)
        memory_free(s->put[i].name);
    s->puts = s->tables_n = 0;
    s->committing = 0;
}

/* ---- kept states ---- */

/* A checkpoint of a database in a new directory of the store. */
static int checkpoint(mr_store *s, rocksdb_t *db, const char *path)
{
    char *message = NULL;
    if (directory_remove(path))
        return -1;
    rocksdb_checkpoint_t *c = rocksdb_checkpoint_object_create(db, &message);
    if (!message)
        rocksdb_checkpoint_create(c, path, 0, &message);
    if (c)
        rocksdb_checkpoint_object_destroy(c);
    return message ? store_fail(s, "the state could not be kept", message) : 0;
}

int mr_store_checkpoint(mr_store *s, const char *name)
{
    char kept[STORE_PATH], fresh[STORE_PATH + 8], old[STORE_PATH + 8], part[128];
    if (snprintf(part, sizeof part, "keep-%s", name) >= (int)sizeof part || strpbrk(name, "/."))
        return fail("store %s: a kept state cannot be called %s", s->dir, name);
    if (!s->db && store_database_open(s, 1))
        return -1;
    store_path(s, part, kept);
    snprintf(fresh, sizeof fresh, "%s.new", kept);
    snprintf(old, sizeof old, "%s.old", kept);
    if (directory_remove(old) || checkpoint(s, s->db, fresh))
        return -1;
    if (rename(kept, old) && errno != ENOENT)
        return fail("%s: could not be replaced: %s", kept, strerror(errno));
    if (rename(fresh, kept))
        return fail("%s: could not be made: %s", kept, strerror(errno));
    return directory_sync(s->dir) || directory_remove(old) ? -1 : 0;
}

int mr_store_restore(mr_store *s, const char *name)
{
    char part[128], kept[STORE_PATH], path[STORE_PATH], before[64], database[64], *message = NULL;
    snprintf(part, sizeof part, "keep-%s", name);
    snprintf(database, sizeof database, "db-%llu",
             strtoull(s->database + strlen("db-"), NULL, 10) + 1);
    store_path(s, part, kept);
    store_path(s, database, path);
    rocksdb_t *db = rocksdb_open(s->options, kept, &message);
    if (message)
        return store_fail(s, part, message);
    commit_log log;
    int found = store_log_read(s, db, &log);
    int bad = found ? fail("store %s: %s holds no commit", s->dir, part) : checkpoint(s, db, path);
    rocksdb_close(db);
    if (bad || store_commit_write(s->dir, database, &log))
        return -1;
    memcpy(before, s->database, sizeof before);
    memcpy(s->database, database, sizeof database);
    s->last = log;
    store_database_close(s);
    if (store_database_open(s, 1))
        return -1;
    return directory_remove(store_path(s, before, path));
}

/* import.c - binary exports into a store: a full one makes a store, deltas bring one up to date.
 *
 * Every file is first read from end to end, and whether they follow upon each other is checked, before
 * anything is made. Then a database of the store's own is made beside the one in use, by hard links,
 * and takes the files in, one after another; a new COMMIT that names it makes all of it the store's at
 * once. A store that did not exist is made as DIR.importing-PID, and renamed. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "exchange/export.h"

enum { FILE_BYTES = 256 << 20 }; /* of a sorted file of rows, about */

/* ---- what the files are ---- */

/* The commit before a delta, as its log tells of it: 1 found, 0 not, -1. */
static int delta_base(const char *path, const commit_mark *last)
{
    const block_head *h;
    const uint8_t *content;
    block_record record;
    int found = 0, more = 1;
    block_reader *r = block_open(path);
    while (r && !found && (more = block_next(r, &h, &content)) > 0 && h->kind == BLOCK_LOG) {
        size_t at = 0;
        while (!found && (more = block_record_next(r, h, content, &at, &record)) > 0)
            found = record.mark.number == last->number && record.mark.step == last->step &&
                    record.mark.time == last->time;
        if (more < 0)
            break;
    }
    int bad = !r || more < 0;
    block_close(r);
    return bad ? -1 : found;
}

static int head_read(const char *path, export_head *head)
{
    block_reader *r = block_open(path);
    if (r)
        *head = *block_file_head(r);
    block_close(r);
    return r ? 0 : -1;
}

/* Whether the files follow upon each other and, if given, upon a store's last commit. */
static int files_check(const char *dir, const char *const *files, size_t n, commit_mark *at)
{
    mr_exported exported;
    for (size_t i = 0; i < n; i++) {
        int is = mr_export_read(files[i], &exported);
        if (is < 0)
            return -1;
        if (!is)
            return fail("%s: is no export in the binary format", files[i]);
        export_head head;
        if (head_read(files[i], &head))
            return -1;
        if (exported.part)
            return fail("%s: holds some rows or tables only, which make no store", files[i]);
        if (!exported.since) {
            if (at->number || i)
                return fail(
                    "%s: is a full export, which makes a new store; store %s is there already, at "
                    "step %" PRIu64 ": a delta since that step is expected",
                    files[i], dir, at->step);
        } else if (!at->number && !i) {
            return fail("%s: is a delta since step %" PRIu64
                        "; store %s does not exist: the full export of "
                        "that step is expected first",
                        files[i], exported.since, dir);
        } else if (exported.since != at->step) {
            return fail("%s: is a delta since step %" PRIu64
                        ", but what is before it is at step %" PRIu64
                        ": a delta since step %" PRIu64 " is expected",
                        files[i], exported.since, at->step, at->step);
        } else {
            int base = delta_base(files[i], at);
            if (base < 0)
                return -1;
            if (!base)
                return fail("%s: is a delta of another store, or of another past: its step %" PRIu64
                            " was commit %" PRIu64 " of another time",
                            files[i], exported.since, at->number);
        }
        *at = (commit_mark){head.commit, head.step, head.time, ""};
    }
    return 0;
}

/* ---- sorted files ---- */

typedef struct sorted {
    mr_store *s;
    rocksdb_sstfilewriter_t *writer;
    char **path;
    size_t n, room;
    size_t bytes; /* of the last one */
    const char *what;
} sorted;

static int sorted_fail(const sorted *f, char *message)
{
    return database_fail(f->s, "the import could not be written", message);
}

static int sorted_end(sorted *f)
{
    char *message = NULL;
    if (!f->writer)
        return 0;
    rocksdb_sstfilewriter_finish(f->writer, &message);
    rocksdb_sstfilewriter_destroy(f->writer);
    f->writer = NULL;
    f->bytes = 0;
    return message ? sorted_fail(f, message) : 0;
}

static int sorted_need(sorted *f, size_t len)
{
    char path[PATH_SIZE], *message = NULL;
    if (f->bytes >= FILE_BYTES && sorted_end(f))
        return -1;
    f->bytes += len;
    if (f->writer)
        return 0;
    if (path_make(path, "%s/staging/%s-%zu.sst", f->s->dir, f->what, f->n) ||
        memory_reserve((void **)&f->path, &f->room, f->n + 1, sizeof *f->path) ||
        !(f->path[f->n] = memory_new(strlen(path) + 1)))
        return -1;
    strcpy(f->path[f->n++], path);
    unlink(path);
    rocksdb_envoptions_t *env = rocksdb_envoptions_create();
    f->writer = rocksdb_sstfilewriter_create(env, f->s->options);
    rocksdb_envoptions_destroy(env);
    rocksdb_sstfilewriter_open(f->writer, path, &message);
    return message ? sorted_fail(f, message) : 0;
}

static int sorted_put(sorted *f, const void *key, size_t key_len, const void *bytes, size_t len)
{
    char *message = NULL;
    if (sorted_need(f, key_len + len))
        return -1;
    rocksdb_sstfilewriter_put(f->writer, key, key_len, bytes, len, &message);
    return message ? sorted_fail(f, message) : 0;
}

static int sorted_delete(sorted *f, const void *key, size_t key_len)
{
    char *message = NULL;
    if (sorted_need(f, key_len))
        return -1;
    rocksdb_sstfilewriter_delete(f->writer, key, key_len, &message);
    return message ? sorted_fail(f, message) : 0;
}

static void sorted_free(sorted *f)
{
    if (f->writer)
        rocksdb_sstfilewriter_destroy(f->writer);
    for (size_t i = 0; i < f->n; i++) {
        unlink(f->path[i]);
        memory_free(f->path[i]);
    }
    memory_free(f->path);
    *f = (sorted){.s = f->s, .what = f->what};
}

static int sorted_ingest(sorted *f, database d)
{
    char *message = f->n ? database_ingest(d, (const char *const *)f->path, f->n) : NULL;
    return message ? database_fail(f->s, "the import could not be taken over", message) : 0;
}

/* ---- one file into a database ---- */

typedef struct importing {
    sorted states, deleted, dropped, rows;
    int full;
    uint64_t tables; /* bit i: the file tells of table number i */
} importing;

static int record_put(importing *m, const block_head *h, const block_record *r)
{
    char key[1200];
    if (h->kind == BLOCK_LOG) {
        uint64_t number = __builtin_bswap64(r->mark.number),
                 value[2] = {r->mark.step, r->mark.time};
        key[0] = PREFIX_COMMIT;
        memcpy(key + 1, &number, 8);
        return sorted_put(&m->states, key, COMMIT_KEY, value, sizeof value);
    }
    if (h->kind == BLOCK_NAME) {
        if (r->name_len >= sizeof key)
            return fail("a record's name has %zu characters", r->name_len);
        key[0] = PREFIX_STATE;
        memcpy(key + 1, r->name, r->name_len);
        return sorted_put(&m->states, key, 1 + r->name_len, r->bytes, r->len);
    }
    if (h->kind == BLOCK_TABLE)
        m->tables |= (uint64_t)1 << r->state.id;
    if (h->kind == BLOCK_ROW) {
        row_key(key, PREFIX_ROW, h->table, r->key);
        return sorted_put(&m->rows, key, ROW_KEY, r->bytes, r->len);
    }
    if (h->kind == BLOCK_DROP) {
        uint16_t head[2] = {1, 0};
        char value[12];
        memcpy(value, head, 4);
        memcpy(value + 4, &r->step, 8);
        row_key(key, PREFIX_ROW, h->table, r->key);
        if (!m->full && sorted_delete(&m->deleted, key, ROW_KEY))
            return -1;
        row_key(key, PREFIX_DROP, h->table, r->key);
        return sorted_put(&m->dropped, key, ROW_KEY, value, sizeof value);
    }
    return 0;
}

static int sorted_delete_range(sorted *f, const char *from, const char *to, size_t len)
{
    char *message = NULL;
    if (sorted_need(f, 2 * len))
        return -1;
    rocksdb_sstfilewriter_delete_range(f->writer, from, len, to, len, &message);
    return message ? sorted_fail(f, message) : 0;
}

/* A delta holds all named records, and names all tables: others there are no more. */
static int others_delete(importing *m)
{
    char from[ROW_KEY], to[ROW_KEY];
    if (sorted_delete_range(&m->deleted, "\1", "\2", 1))
        return -1;
    for (uint32_t id = 0; id < TABLES_MAX; id++)
        for (int prefix = PREFIX_ROW; prefix <= PREFIX_DROP; prefix++) {
            row_key(from, prefix, id, 0);
            row_key(to, prefix, id + 1, 0);
            if (!(m->tables >> id & 1) && sorted_delete_range(&m->deleted, from, to, ROW_KEY))
                return -1;
        }
    return 0;
}

static int file_write_sorted(importing *m, const char *path)
{
    const block_head *h;
    const uint8_t *content;
    block_record record;
    block_reader *r = block_open(path);
    if (!r)
        return -1;
    m->full = !block_file_head(r)->since;
    int more = 1, one = 0, bad = 0;
    while (!bad && (more = block_next(r, &h, &content)) > 0) {
        size_t at = 0;
        while (!bad && (one = block_record_next(r, h, content, &at, &record)) > 0)
            bad = record_put(m, h, &record);
        bad |= one < 0;
    }
    block_close(r);
    return bad || more < 0 || (!m->full && others_delete(m)) || sorted_end(&m->states) ||
                   sorted_end(&m->deleted) || sorted_end(&m->dropped) || sorted_end(&m->rows)
               ? -1
               : 0;
}

/* What is no more is deleted before the rest is put; nothing is the store's yet. */
static int file_import(mr_store *s, const char *path, database d)
{
    importing m = {.states = {.s = s, .what = "states"},
                   .deleted = {.s = s, .what = "deleted"},
                   .dropped = {.s = s, .what = "dropped"},
                   .rows = {.s = s, .what = "rows"}};
    int bad = file_write_sorted(&m, path) || sorted_ingest(&m.deleted, d) ||
              sorted_ingest(&m.dropped, d) || sorted_ingest(&m.rows, d) ||
              sorted_ingest(&m.states, d);
    sorted_free(&m.states);
    sorted_free(&m.deleted);
    sorted_free(&m.dropped);
    sorted_free(&m.rows);
    return bad ? -1 : 0;
}

/* ---- the database beside ---- */

static int database_copy(const mr_store *s, const char *path)
{
    char *message = NULL;
    if (tree_remove(path))
        return -1;
    rocksdb_checkpoint_t *c = rocksdb_checkpoint_object_create(s->base.db, &message);
    if (c) {
        rocksdb_checkpoint_create(c, path, 0, &message);
        rocksdb_checkpoint_object_destroy(c);
    }
    return message ? database_fail(s, "the database could not be copied", message) : 0;
}

static int files_import(mr_store *s, const char *const *files, size_t n, const commit_mark *end)
{
    char path[PATH_SIZE], before[PATH_SIZE];
    commit_mark mark = *end, log;
    database d = {NULL, NULL};
    snprintf(mark.database, sizeof mark.database, "db-%llu",
             strtoull(s->last.database + strlen("db-"), NULL, 10) + 1);
    if (path_make(path, "%s/%s", s->dir, mark.database) ||
        path_make(before, "%s/%s", s->dir, s->last.database))
        return -1;
    int bad = database_copy(s, path) || database_open(s, path, MR_STORE_WRITE, &d, &log);
    for (size_t i = 0; !bad && i < n; i++)
        bad = file_import(s, files[i], d);
    if (!bad)
        bad = database_log(s, d, UINT64_MAX, &log) || database_check(s, d, &mark, &log);
    database_close(&d);
    if (bad || tree_sync(path) || directory_sync(s->dir) || commit_file_write(s->dir, &mark)) {
        char why[900];
        commit_mark now;
        snprintf(why, sizeof why, "%s", mr_error());
        if (!commit_file_read(s->dir, &now) && strcmp(now.database, mark.database))
            tree_remove(path);
        return fail("%s", why);
    }
    store_database_close(s);
    s->last = mark;
    return tree_remove(before);
}

static int store_make(const char *dir, const char *const *files, size_t n, const commit_mark *end)
{
    char beside[PATH_SIZE], parent[PATH_SIZE];
    if (path_make(beside, "%s.importing-%d", dir, (int)getpid()) || tree_remove(beside))
        return -1;
    mr_store *s = mr_store_open(beside, MR_STORE_CREATE);
    int bad = !s || files_import(s, files, n, end);
    char why[900];
    snprintf(why, sizeof why, "%s", bad ? mr_error() : "");
    mr_store_close(s);
    if (!bad && rename(beside, dir))
        bad = snprintf(why, sizeof why, "store %s: could not be made: %s", dir, strerror(errno));
    if (bad) {
        tree_remove(beside);
        return fail("%s", why);
    }
    path_parent(dir, parent);
    return directory_sync(parent);
}

int mr_store_import(const char *dir, const char *const *files, size_t n)
{
    GIVEN(dir && files, -1);
    char path[PATH_SIZE];
    commit_mark at = {0, 0, 0, ""};
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    if (!n)
        return fail("store %s: no files to import", dir);
    if (path_make(path, "%.*s", (int)len, dir))
        return -1;
    int empty = directory_empty(path);
    if (empty < 0)
        return -1;
    if (empty)
        return files_check(path, files, n, &at) || store_make(path, files, n, &at) ? -1 : 0;
    mr_store *s = mr_store_open(path, MR_STORE_WRITE);
    if (!s)
        return -1;
    at = s->last;
    int bad = files_check(path, files, n, &at) || files_import(s, files, n, &at);
    char why[900];
    snprintf(why, sizeof why, "%s", bad ? mr_error() : "");
    mr_store_close(s);
    return bad ? fail("%s", why) : 0;
}

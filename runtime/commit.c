/* commit.c - a commit: the dirty rows of all tables and the named records, as sorted files that
 * RocksDB takes over in one atomic ingest, by a thread of its own while training goes on.
 *
 * The order of what becomes durable: the sorted files and COMMIT.new; then, by the ingest, the
 * files' names in the database and one record of its manifest, which is the commit; then COMMIT.
 * A crash before the manifest leaves the commit before, one after it leaves this one; the next
 * opening for writing brings COMMIT up to date. */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admission.h"
#include "store.h"

enum {
    CHUNK = 64,             /* rows that are encoded at once */
    LEVEL0_SLOW = 24,       /* files in level 0, from which on commits wait for compaction */
    LEVEL0_WAIT_MS = 20000, /* at most so long: later ones are slower to read, no more */
    NAME_MOST = 1000,       /* characters of a record's name */
    KEEP_MOST = 8 << 20,    /* bytes of a file that is copied before an ingest */
    READ_ENDS = 256 << 10   /* bytes that are read at both ends of a file before it */
};

/* ---- putting one together ---- */

static void commit_free(commit *c)
{
    if (!c)
        return;
    arena_free(c->bytes);
    memory_free(c->put);
    memory_free(c->table);
    memory_free(c);
}

int mr_commit_begin(mr_store *s)
{
    if (s->mode != MR_STORE_WRITE && s->mode != MR_STORE_CREATE)
        return fail("store %s: is open for reading only", s->dir);
    mr_commit_abort(s);
    if (mr_commit_wait(s) || store_database_need(s))
        return -1;
    if (s->ahead.number) { /* a commit whose COMMIT could not be replaced */
        if (commit_file_write(s->dir, &s->ahead))
            return -1;
        s->last = s->ahead;
        s->ahead.number = 0;
    }
    commit *c = memory_zero(sizeof *c);
    if (!c || !(c->bytes = arena_new())) {
        commit_free(c);
        return -1;
    }
    c->s = s;
    c->mark.number = s->last.number + 1;
    c->mark.time = (uint64_t)((s->clock > 0 ? s->clock : mr_clock_wall()) * 1e6);
    memcpy(c->mark.database, s->last.database, DATABASE_NAME);
    s->preparing = c;
    return 0;
}

void mr_commit_time(mr_store *s, double seconds)
{
    s->clock = seconds;
}

int mr_commit_put(mr_store *s, const char *name, const void *bytes, size_t len)
{
    commit *c = s->preparing;
    if (!c)
        return fail("store %s: record %s: no commit was begun", s->dir, name);
    size_t name_len = strlen(name);
    if (name_len > NAME_MOST)
        return fail("store %s: the name of a record has %zu characters, at most %d may be", s->dir,
                    name_len, NAME_MOST);
    if (memory_reserve((void **)&c->put, &c->put_room, c->puts + 1, sizeof *c->put))
        return -1;
    char *copy = arena_take(c->bytes, 1 + name_len + len);
    if (!copy)
        return -1;
    copy[0] = PREFIX_STATE;
    memcpy(copy + 1, name, name_len);
    if (len)
        memcpy(copy + 1 + name_len, bytes, len);
    c->put[c->puts] = (put_record){.key = copy,
                                   .key_len = 1 + name_len,
                                   .bytes = copy + 1 + name_len,
                                   .len = len,
                                   .order = c->puts};
    c->puts++;
    return 0;
}

int mr_commit_remove(mr_store *s, const char *name)
{
    if (mr_commit_put(s, name, "", 0))
        return -1;
    s->preparing->put[s->preparing->puts - 1].bytes = NULL;
    return 0;
}

/* Collects the names of a table's filter pages. */
static int page_remove(void *context, const char *key, size_t key_len, const char *value,
                       size_t len)
{
    char name[400];
    (void)value, (void)len;
    snprintf(name, sizeof name, "%.*s", (int)key_len - 1, key + 1);
    return mr_commit_remove(context, name);
}

int mr_commit_drop_table(mr_store *s, const char *name, uint32_t table)
{
    char from[400], to[400], low[ROW_KEY], high[ROW_KEY];
    int len = snprintf(from, sizeof from, "%cfilter/%.200s/", PREFIX_STATE, name);
    memcpy(to, from, (size_t)len + 1);
    to[len - 1]++;
    if (store_scan(s, "the admission filter could not be read", from, to, (size_t)len, page_remove,
                   s))
        return -1;
    snprintf(from, sizeof from, "table/%.200s", name);
    rows_file *f = mr_commit_remove(s, from) ? NULL : rows_file_new(s);
    if (!f)
        return -1;
    for (int prefix = PREFIX_ROW; prefix <= PREFIX_DROP; prefix++) {
        row_key(low, prefix, table, 0);
        row_key(high, prefix, table + 1, 0);
        rows_file_drop_range(f, low, high, ROW_KEY);
    }
    return rows_file_end(f);
}

int mr_commit_table(mr_store *s, mr_table *t)
{
    commit *c = s->preparing;
    if (!c)
        return fail("store %s: table %s: no commit was begun", s->dir, table_name(t));
    if (memory_reserve((void **)&c->table, &c->table_room, c->tables + 1, sizeof(mr_table *)))
        return -1;
    size_t at = c->tables;
    for (; at > 0 && table_id(c->table[at - 1]) >= table_id(t); at--)
        if (table_id(c->table[at - 1]) == table_id(t))
            return fail("store %s: table %s: number %" PRIu32 " is in the commit already", s->dir,
                        table_name(t), table_id(t));
    memmove(c->table + at + 1, c->table + at, (c->tables - at) * sizeof *c->table);
    c->table[at] = t;
    c->tables++;
    return 0;
}

/* Rows whose last gradient is older than the table's time to live, by the commits since. */
static int table_expiry(commit *c, mr_table *t)
{
    table_state state;
    commit_mark mark = {0, 0, 0, ""};
    if (!table_ttl(t) || c->mark.time < table_ttl(t))
        return 0;
    table_state_get(t, &state);
    for (uint64_t number = state.expiry_commit + 1; number < c->mark.number; number++) {
        int rc = database_log(c->s, c->s->base, number, &mark);
        if (rc < 0)
            return -1;
        if (rc || mark.number != number || mark.time > c->mark.time - table_ttl(t))
            break;
        table_expire(t, mark.step, number);
    }
    return 0;
}

/* What the store keeps of a table beside its rows. */
static int table_put(commit *c, mr_table *t, table_state *state)
{
    char name[300];
    if (table_expiry(c, t))
        return -1;
    table_state_get(t, state);
    snprintf(name, sizeof name, "table/%.200s", table_name(t));
    if (mr_commit_put(c->s, name, state, sizeof *state))
        return -1;
    for (size_t page = 0; (page = table_filter_changed(t, page)) != SIZE_MAX; page++) {
        snprintf(name, sizeof name, "filter/%.200s/%08zu", table_name(t), page);
        if (mr_commit_put(c->s, name, table_filter_page(t, page), FILTER_PAGE))
            return -1;
    }
    return 0;
}

/* ---- sorted files ---- */

static rocksdb_sstfilewriter_t *writer_open(const mr_store *s, const char *path, char **message)
{
    unlink(path); /* it could be a link of a file in use */
    rocksdb_envoptions_t *env = rocksdb_envoptions_create();
    rocksdb_sstfilewriter_t *w = rocksdb_sstfilewriter_create(env, s->options);
    rocksdb_envoptions_destroy(env);
    rocksdb_sstfilewriter_open(w, path, message);
    return w;
}

/* Finishes (which syncs the file) unless something went wrong before. */
static char *writer_close(rocksdb_sstfilewriter_t *w, char *message)
{
    if (!message)
        rocksdb_sstfilewriter_finish(w, &message);
    rocksdb_sstfilewriter_destroy(w);
    return message;
}

static int by_name(const void *a, const void *b)
{
    const put_record *x = a, *y = b;
    int order = memcmp(x->key, y->key, MIN(x->key_len, y->key_len));
    if (!order)
        order = (x->key_len > y->key_len) - (x->key_len < y->key_len);
    return order ? order : (x->order > y->order) - (x->order < y->order);
}

static int same_name(const put_record *a, const put_record *b)
{
    return a->key_len == b->key_len && !memcmp(a->key, b->key, a->key_len);
}

/* Notes a record of a file, to be looked for after the ingest; copies it. */
static void witness_add(commit *c, const void *key, size_t key_len, const void *bytes, size_t len)
{
    witness *w = &c->seen[c->seen_n];
    void *copy = bytes ? arena_take(c->bytes, len) : NULL;
    if (c->seen_n == 2 * COMMIT_FILES || key_len > sizeof w->key || (bytes && !copy))
        return;
    if (len)
        memcpy(copy, bytes, len);
    *w = (witness){.key_len = key_len, .bytes = copy, .len = len};
    memcpy(w->key, key, key_len);
    c->seen_n++;
}

char *state_file_write(commit *c, const char *path)
{
    char key[COMMIT_KEY] = {PREFIX_COMMIT}, *message = NULL;
    uint64_t number = __builtin_bswap64(c->mark.number), value[2] = {c->mark.step, c->mark.time};
    memcpy(key + 1, &number, 8);
    rocksdb_sstfilewriter_t *w = writer_open(c->s, path, &message);
    if (!message)
        rocksdb_sstfilewriter_put(w, key, sizeof key, (const char *)value, sizeof value, &message);
    if (c->puts)
        qsort(c->put, c->puts, sizeof *c->put, by_name);
    for (size_t i = 0; i < c->puts && !message; i++) {
        const put_record *p = &c->put[i];
        if (i + 1 < c->puts && same_name(p, p + 1))
            continue; /* the last of a name counts */
        if (p->bytes)
            rocksdb_sstfilewriter_put(w, p->key, p->key_len, p->bytes, p->len, &message);
        else
            rocksdb_sstfilewriter_delete(w, p->key, p->key_len, &message);
        if (i + 1 == c->puts && c->bytes)
            witness_add(c, p->key, p->key_len, p->bytes, p->len);
    }
    if (c->bytes)
        witness_add(c, key, sizeof key, value, sizeof value);
    return writer_close(w, message);
}

/* The rows of a table's cut. */
static char *table_write(commit *c, rocksdb_sstfilewriter_t *w, mr_table *t, size_t n,
                         uint8_t *records)
{
    char key[ROW_KEY], *message = NULL;
    uint64_t keys[CHUNK];
    size_t ends[CHUNK];
    for (size_t from = 0; from < n && !message;) {
        size_t got = table_cut_encode(t, from, CHUNK, keys, records, ends), at = 0;
        for (size_t i = 0; i < got && !message; i++) {
            row_key(key, PREFIX_ROW, table_id(t), keys[i]);
            rocksdb_sstfilewriter_put(w, key, sizeof key, (const char *)records + at, ends[i] - at,
                                      &message);
            if (from + i == 0 || from + i == n - 1)
                witness_add(c, key, sizeof key, records + at, ends[i] - at);
            at = ends[i];
        }
        from += got;
    }
    return message;
}

static int commit_fail(const commit *c, char *message)
{
    return database_fail(c->s, "the commit could not be written; the last one stays", message);
}

/* The file of all tables' rows, if there are any; -1 after fail(). */
static int rows_write(commit *c)
{
    size_t most = 0, *n = arena_take(c->bytes, (c->tables + 1) * sizeof *n), rows = 0;
    if (!n)
        return -1;
    for (size_t i = 0; i < c->tables; i++) {
        int64_t sorted = table_cut_sort(c->table[i]);
        n[i] = (size_t)sorted;
        rows += n[i];
        most = MAX(most, table_record_most(c->table[i]));
    }
    if (!rows)
        return 0;
    uint8_t *records = memory_new(most * CHUNK);
    if (!records)
        return -1;
    char *message = NULL;
    rocksdb_sstfilewriter_t *w = writer_open(c->s, c->file[c->files++], &message);
    for (size_t i = 0; i < c->tables && !message; i++)
        message = table_write(c, w, c->table[i], n[i], records);
    message = writer_close(w, message);
    memory_free(records);
    if (message)
        return commit_fail(c, message);
    /* The writer drops what it wrote from the page cache: a first read of each block would cost five
     * times as much. */
    int wanted = 0;
    for (size_t i = 0; i < c->tables; i++)
        wanted |= !mr_table_resident(c->table[i]);
    return wanted ? file_want(c->file[c->files - 1]) : 0;
}

/* ---- files that are made beforehand ---- */

struct rows_file {
    mr_store *s;
    rocksdb_sstfilewriter_t *writer;
    char *message;
    char path[PATH_SIZE];
    size_t n;
};

static int file_path(const commit *c, size_t i, char path[PATH_SIZE])
{
    return path_make(path, "%s/staging/%" PRIu64 "-%zu.sst", c->s->dir, c->mark.number, i);
}

rows_file *rows_file_new(mr_store *s)
{
    rows_file *f = memory_zero(sizeof *f);
    if (!f)
        return NULL;
    f->s = s;
    static unsigned turn;
    if (path_make(f->path, "%s/staging/rows-%u.sst", s->dir, turn++)) {
        memory_free(f);
        return NULL;
    }
    f->writer = writer_open(s, f->path, &f->message);
    return f;
}

int rows_file_put(rows_file *f, const void *key, size_t key_len, const void *bytes, size_t len)
{
    if (!f->message)
        rocksdb_sstfilewriter_put(f->writer, key, key_len, bytes, len, &f->message);
    f->n++;
    return f->message ? -1 : 0;
}

int rows_file_drop(rows_file *f, const void *key, size_t key_len)
{
    if (!f->message)
        rocksdb_sstfilewriter_delete(f->writer, key, key_len, &f->message);
    f->n++;
    return f->message ? -1 : 0;
}

int rows_file_drop_range(rows_file *f, const void *from, const void *to, size_t len)
{
    if (!f->message)
        rocksdb_sstfilewriter_delete_range(f->writer, from, len, to, len, &f->message);
    f->n++;
    return f->message ? -1 : 0;
}

int rows_file_end(rows_file *f)
{
    mr_store *s = f->s;
    commit *c = s->preparing;
    char path[PATH_SIZE], *message = f->message;
    int bad = 0;
    if (!f->n && !message) { /* RocksDB makes no empty files */
        rocksdb_sstfilewriter_destroy(f->writer);
        unlink(f->path);
    } else if ((message = writer_close(f->writer, message))) {
        bad = database_fail(s, "a file of rows could not be written", message);
    } else if (!c || c->files + 2 >= COMMIT_FILES) {
        bad = fail("store %s: there is no commit for a file of rows", s->dir);
    } else if (file_path(c, c->files, path)) {
        bad = -1;
    } else if (rename(f->path, path)) {
        bad = fail("store %s: %s could not be renamed: %s", s->dir, f->path, strerror(errno));
    } else {
        c->files++;
    }
    if (bad)
        unlink(f->path);
    memory_free(f);
    return bad;
}

/* ---- the ingest ---- */

char *database_ingest(database d, const char *const *files, size_t n)
{
    char *message = NULL;
    rocksdb_ingestexternalfileoptions_t *o = rocksdb_ingestexternalfileoptions_create();
    rocksdb_ingestexternalfileoptions_set_move_files(o, 1);
    rocksdb_ingest_external_file(d.db, files, n, o, &message);
    rocksdb_ingestexternalfileoptions_destroy(o);
    return message;
}

/* RocksDB never stalls an ingest, so commits wait here while compaction is far behind. */
static void level0_wait(mr_store *s)
{
    double begin = mr_clock();
    for (int ms = 0; ms < LEVEL0_WAIT_MS && mr_store_number(s, "level0") >= LEVEL0_SLOW &&
                     mr_store_number(s, "errors") == 0;
         ms += 5)
        usleep(5000);
    if (mr_clock() - begin > 0.001)
        s->waited += mr_clock() - begin;
}

static int keep_path(const commit *c, size_t i, char path[PATH_SIZE])
{
    return path_make(path, "%s.keep", c->file[i]);
}

/* Copies of files that are small (RocksDB writes into those it takes over), to take over once more
 * should it be needed; of large ones only the ends are read, where an ingest reads them. */
static int files_keep(const commit *c)
{
    char path[PATH_SIZE];
    for (size_t i = 0; i < c->files; i++) {
        int64_t size = file_ends(c->file[i], READ_ENDS);
        if (size < 0 || keep_path(c, i, path) || tree_remove(path))
            return -1;
        if (size <= KEEP_MOST && file_copy(c->file[i], path))
            return -1;
    }
    return 0;
}

static void files_forget(const commit *c)
{
    char path[PATH_SIZE];
    for (size_t i = 0; i < c->files; i++)
        if (!keep_path(c, i, path))
            unlink(path);
}

/* Puts copies in the places of the files, for another ingest: 0, 1: there are not all, -1. */
static int files_again(const commit *c)
{
    char path[PATH_SIZE];
    for (size_t i = 0; i < c->files; i++) {
        if (keep_path(c, i, path))
            return -1;
        if (access(path, R_OK))
            return 1;
    }
    for (size_t i = 0; i < c->files; i++)
        if (keep_path(c, i, path) || tree_remove(c->file[i]) || file_copy(path, c->file[i]) ||
            tree_sync(c->file[i]))
            return -1;
    return 0;
}

/* Whether what was ingested can be read. RocksDB 7.8 does not look at all errors of reading the files
 * it takes over: one whose first block it could not read is taken for one without records. */
static int files_seen(const commit *c)
{
    const mr_store *s = c->s;
    int good = 1;
    for (size_t i = 0; i < c->seen_n && good; i++) {
        const witness *w = &c->seen[i];
        char *message = NULL;
        size_t len = 0;
        char *found = rocksdb_get(s->base.db, s->read, w->key, w->key_len, &len, &message);
        good = !message &&
               (w->bytes ? found && len == w->len && !memcmp(found, w->bytes, len) : !found);
        rocksdb_free(message);
        rocksdb_free(found);
    }
    return good;
}

/* RocksDB takes no more after an error of writing, also one of compaction: the database is opened
 * anew, which tells what became of the commit, and it is tried once more. */
static int files_ingest(commit *c)
{
    mr_store *s = c->s;
    const char *files[COMMIT_FILES];
    for (size_t i = 0; i < c->files; i++)
        files[i] = c->file[i];
    for (int try = 1;; try++) {
        pthread_rwlock_rdlock(&s->using);
        char *message = database_ingest(s->base, files, c->files);
        int done = !message, seen = done && files_seen(c);
        pthread_rwlock_unlock(&s->using);
        char why[700];
        snprintf(why, sizeof why, "%s", message ? message : "what was ingested cannot be read");
        rocksdb_free(message);
        if (seen)
            return 0;
        if (store_database_open(s)) {
            char opening[300];
            snprintf(opening, sizeof opening, "%s", mr_error());
            return fail("store %s: the commit could not be made: %s; then: %s", s->dir, why,
                        opening);
        }
        done = s->ahead.number != 0;
        s->ahead.number = 0;
        if (done && files_seen(c))
            return 0;
        if (try == 3)
            return fail("store %s: the commit could not be made, the last one stays: %s", s->dir,
                        why);
        int again = files_again(c);
        if (again)
            return again < 0 ? -1 : fail("store %s: the commit could not be made: %s", s->dir, why);
    }
}

void commit_repair(mr_store *s)
{
    commit *c = memory_zero(sizeof *c);
    if (!c)
        return;
    const char *files[COMMIT_FILES];
    char path[PATH_SIZE];
    c->s = s;
    c->mark = s->ahead;
    for (; c->files < COMMIT_FILES; c->files++) {
        files[c->files] = c->file[c->files];
        if (file_path(c, c->files, c->file[c->files]) || keep_path(c, c->files, path) ||
            access(path, R_OK))
            break;
    }
    if (c->files && !files_again(c)) /* if it cannot be, nothing is worse than before */
        rocksdb_free(database_ingest(s->base, files, c->files));
    memory_free(c);
}

static int commit_write(commit *c)
{
    mr_store *s = c->s;
    if (rows_write(c))
        return -1;
    char *message = state_file_write(c, c->file[c->files++]);
    if (message)
        return commit_fail(c, message);
    if (commit_file_prepare(s->dir, &c->mark))
        return -1;
    level0_wait(s);
    if (files_keep(c) || files_ingest(c))
        return -1;
    for (size_t i = 0; i < c->tables; i++) { /* from now on compactions may drop what expired */
        s->expired[c->state[i].id] = c->state[i].expired;
        s->forgotten[c->state[i].id] = c->state[i].forgotten;
    }
    if (commit_file_replace(s->dir)) {
        s->ahead = c->mark;
        return -1;
    }
    files_forget(c);
    return 0;
}

/* ---- the thread ---- */

static void *commit_run(void *argument)
{
    commit *c = argument;
    c->failed = commit_write(c);
    if (c->failed) {
        snprintf(c->error, sizeof c->error, "%s", mr_error());
        for (size_t i = 0; i < c->tables; i++)
            table_cut_abandon(c->table[i]);
        /* A database that did not open again may need its files (database_rescue). */
        for (size_t i = 0; c->s->base.db && !c->s->ahead.number && i < COMMIT_FILES; i++)
            unlink(c->file[i]);
        if (c->s->base.db && !c->s->ahead.number)
            files_forget(c);
    }
    if (memory_left() < 0)
        malloc_trim(0); /* what RocksDB freed goes back to the system */
    c->over = 1;
    return NULL;
}

/* Cuts the tables: from here on the commit is what it will be. */
static int commit_cut(commit *c)
{
    c->state = arena_take(c->bytes, (c->tables + 1) * sizeof *c->state);
    if (!c->state)
        return -1;
    for (size_t i = 0; i < COMMIT_FILES; i++)
        if (file_path(c, i, c->file[i]))
            return -1;
    for (size_t i = 0; i < c->tables; i++)
        if (table_put(c, c->table[i], &c->state[i]) || table_cut(c->table[i], c->mark.step)) {
            for (size_t k = 0; k <= i; k++)
                table_cut_end(c->table[k], 0);
            return -1;
        }
    return 0;
}

int mr_commit_behind(mr_store *s, uint64_t step)
{
    commit *c = s->preparing;
    if (!c)
        return fail("store %s: no commit was begun", s->dir);
    c->mark.step = step;
    if (commit_cut(c)) {
        mr_commit_abort(s);
        return -1;
    }
    s->preparing = NULL;
    s->behind = c;
    if (thread_start(&c->thread, commit_run, c)) {
        commit_run(c);
        c->thread = pthread_self();
    }
    return 0;
}

int mr_commit_wait(mr_store *s)
{
    commit *c = s->behind;
    if (!c)
        return 0;
    if (!pthread_equal(c->thread, pthread_self()))
        pthread_join(c->thread, NULL);
    s->behind = NULL;
    for (size_t i = 0; i < c->tables; i++)
        table_cut_end(c->table[i], !c->failed);
    s->blocks.held = MIN(s->blocks.promise, rocksdb_cache_get_usage(s->cache));
    int failed = c->failed;
    if (failed)
        fail("%s", c->error);
    else
        s->last = c->mark;
    commit_free(c);
    return failed;
}

int mr_commit_poll(mr_store *s)
{
    if (s->behind && !s->behind->over)
        return 0;
    return mr_commit_wait(s) ? -1 : 1;
}

int store_committing(const mr_store *s)
{
    return s && s->behind != NULL;
}

int mr_commit_end(mr_store *s, uint64_t step)
{
    return mr_commit_behind(s, step) || mr_commit_wait(s) ? -1 : 0;
}

void mr_commit_abort(mr_store *s)
{
    commit *c = s->preparing;
    char path[PATH_SIZE];
    for (size_t i = 0; c && i < c->files; i++)
        if (!file_path(c, i, path))
            unlink(path);
    commit_free(c);
    s->preparing = NULL;
}

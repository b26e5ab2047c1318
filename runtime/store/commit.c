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

#include "base/profile.h"
#include "store/store.h"
#include "table/admission.h"

enum { NAME_MOST = 1000 }; /* characters of a record's name */

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

int commit_file_path(const commit *c, size_t i, char path[PATH_SIZE])
{
    return path_make(path, "%s/staging/%" PRIu64 "-%zu.sst", c->s->dir, c->mark.number, i);
}

int mr_commit_begin(mr_store *s)
{
    GIVEN(s, -1);
    PROFILE(PART_COMMIT);
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
    GIVEN(s, );
    s->clock = seconds;
}

int mr_commit_put(mr_store *s, const char *name, const void *bytes, size_t len)
{
    GIVEN(s && name, -1);
    PROFILE(PART_COMMIT);
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
    GIVEN(s && name, -1);
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
    GIVEN(s && name, -1);
    char record[300], low[ROW_KEY], high[ROW_KEY];
    if (store_scan_pages(s, name, page_remove, s))
        return -1;
    snprintf(record, sizeof record, "table/%.*s", TABLE_NAME_MOST, name);
    rows_file *f = mr_commit_remove(s, record) ? NULL : rows_file_new(s);
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
    GIVEN(s && t, -1);
    PROFILE(PART_COMMIT);
    commit *c = s->preparing;
    if (!c)
        return fail("store %s: table %s: no commit was begun", s->dir, table_name(t));
    if (table_attached(t) && table_attached(t) != s)
        return fail("store %s: table %s: its rows are in another store", s->dir, table_name(t));
    store_attach(s, t);
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
    snprintf(name, sizeof name, "table/%.*s", TABLE_NAME_MOST, table_name(t));
    if (mr_commit_put(c->s, name, state, sizeof *state))
        return -1;
    for (size_t page = 0; (page = table_filter_changed(t, page)) != SIZE_MAX; page++) {
        snprintf(name, sizeof name, "filter/%.*s/%08zu", TABLE_NAME_MOST, table_name(t), page);
        if (mr_commit_put(c->s, name, table_filter_page(t, page), FILTER_PAGE))
            return -1;
    }
    return 0;
}

static int commit_write(commit *c)
{
    mr_store *s = c->s;
    if (commit_rows_write(c))
        return -1;
    char *message = state_file_write(c, c->file[c->files++]);
    if (message)
        return commit_fail(c, message);
    if (commit_file_prepare(s->dir, &c->mark))
        return -1;
    if (commit_keep(c) || commit_ingest(c))
        return -1;
    for (size_t i = 0; i < c->tables; i++) { /* from now on compactions may drop what expired */
        s->expired[c->state[i].id] = c->state[i].expired;
        s->forgotten[c->state[i].id] = c->state[i].forgotten;
    }
    if (commit_file_replace(s->dir)) {
        s->ahead = c->mark;
        return -1;
    }
    commit_forget(c);
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
            commit_forget(c);
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
        if (commit_file_path(c, i, c->file[i]))
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
    GIVEN(s, -1);
    PROFILE(PART_COMMIT);
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
    GIVEN(s, -1);
    PROFILE(PART_COMMIT);
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
    GIVEN(s, -1);
    if (s->behind && !s->behind->over)
        return 0;
    return mr_commit_wait(s) ? -1 : 1;
}

/* ---- what tables ask of their store ---- */

static mr_table **tables_of(mr_store *s, const mr_table *leaving)
{
    if (leaving && s->behind)
        mr_commit_wait(s);
    for (size_t i = 0; leaving && s->preparing && i < s->preparing->tables; i++)
        if (s->preparing->table[i] == leaving) {
            mr_commit_abort(s);
            break;
        }
    return &s->tables;
}

static int committing(const mr_store *s)
{
    return s->behind != NULL;
}

void store_attach(mr_store *s, mr_table *t)
{
    table_attach(t, &(table_store){s, store_read_rows, committing, mr_commit_wait, tables_of});
}

int mr_commit_end(mr_store *s, uint64_t step)
{
    GIVEN(s, -1);
    PROFILE(PART_COMMIT);
    return mr_commit_behind(s, step) || mr_commit_wait(s) ? -1 : 0;
}

void mr_commit_abort(mr_store *s)
{
    GIVEN(s, );
    commit *c = s->preparing;
    char path[PATH_SIZE];
    for (size_t i = 0; c && i < c->files; i++)
        if (!commit_file_path(c, i, path))
            unlink(path);
    commit_free(c);
    s->preparing = NULL;
}

/* commit.c - a commit: the dirty rows of all tables and the named records, as sorted files that
 * RocksDB takes over in one atomic ingest.
 *
 * The order of what becomes durable: the sorted files and COMMIT.new; then, by the ingest, the
 * files' names in the database and one record of its manifest, which is the commit; then COMMIT.
 * A crash before the manifest leaves the commit before, one after it leaves this one; the next
 * opening for writing brings COMMIT up to date.
 *
 * Rows are counted through all tables in the order of their ids and cut into pieces of equal
 * count, a file each, written in parallel. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store.h"
#include "table.h"

enum {
    PIECES_MAX = 8,
    PIECE_BYTES = 64 << 20, /* a commit of half of this is one file */
    LEVEL0_SLOW = 24,       /* files in level 0, from which on commits wait for compaction */
    LEVEL0_WAIT_MS =
        20000, /* at most so long: later ones are slower to read, but nothing is lost */
    AHEAD = 12 /* rows to prefetch */
};

/* ---- what goes into a commit ---- */

int mr_commit_begin(mr_store *s)
{
    if (s->mode == MR_STORE_READ)
        return fail("store %s: is open for reading only", s->dir);
    mr_commit_abort(s);
    if (store_database_need(s))
        return -1;
    if (s->ahead.number) { /* a commit whose COMMIT could not be replaced */
        if (commit_file_write(s->dir, &s->ahead))
            return -1;
        s->last = s->ahead;
        s->ahead.number = 0;
    }
    if (!(s->bytes = arena_new()))
        return -1;
    s->committing = 1;
    return 0;
}

int mr_commit_put(mr_store *s, const char *name, const void *bytes, size_t len)
{
    if (!s->committing)
        return fail("store %s: record %s: no commit was begun", s->dir, name);
    size_t name_len = strlen(name);
    if (name_len > 1000)
        return fail("store %s: the name of a record has %zu characters, at most 1000 may be",
                    s->dir, name_len);
    if (memory_reserve((void **)&s->put, &s->put_room, s->puts + 1, sizeof *s->put))
        return -1;
    char *copy = arena_take(s->bytes, 1 + name_len + len);
    if (!copy)
        return -1;
    copy[0] = PREFIX_STATE;
    memcpy(copy + 1, name, name_len);
    if (len)
        memcpy(copy + 1 + name_len, bytes, len);
    s->put[s->puts] = (put_record){.key = copy,
                                   .key_len = 1 + name_len,
                                   .bytes = copy + 1 + name_len,
                                   .len = len,
                                   .order = s->puts};
    s->puts++;
    return 0;
}

int mr_commit_table(mr_store *s, mr_table *t)
{
    if (!s->committing)
        return fail("store %s: table %s: no commit was begun", s->dir, table_name(t));
    if (memory_reserve((void **)&s->table, &s->table_room, s->tables + 1, sizeof(mr_table *)))
        return -1;
    size_t at = s->tables;
    for (; at > 0 && table_id(s->table[at - 1]) >= table_id(t); at--)
        if (table_id(s->table[at - 1]) == table_id(t))
            return fail("store %s: table %s: number %" PRIu32 " is in the commit already", s->dir,
                        table_name(t), table_id(t));
    memmove(s->table + at + 1, s->table + at, (s->tables - at) * sizeof *s->table);
    s->table[at] = t;
    s->tables++;
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

char *state_file_write(mr_store *s, const char *path, const commit_mark *mark)
{
    char key[COMMIT_KEY] = {PREFIX_COMMIT}, *message = NULL;
    uint64_t number = __builtin_bswap64(mark->number), value[2] = {mark->step, mark->time};
    memcpy(key + 1, &number, 8);
    rocksdb_sstfilewriter_t *w = writer_open(s, path, &message);
    if (!message)
        rocksdb_sstfilewriter_put(w, key, sizeof key, (const char *)value, sizeof value, &message);
    if (s->puts)
        qsort(s->put, s->puts, sizeof *s->put, by_name);
    for (size_t i = 0; i < s->puts && !message; i++) {
        const put_record *p = &s->put[i];
        if (i + 1 == s->puts || !same_name(p, p + 1)) /* the last of a name */
            rocksdb_sstfilewriter_put(w, p->key, p->key_len, p->bytes, p->len, &message);
    }
    return writer_close(w, message);
}

typedef struct commit_table {
    mr_table *t;
    const dirty_row *rows;
    uint64_t first, n; /* its rows, counted through all tables */
    size_t record;     /* bytes */
} commit_table;

typedef struct commit_files {
    mr_store *s;
    commit_mark mark;
    commit_table *table;
    size_t tables;
    uint64_t rows;
    size_t pieces; /* files of rows; file[pieces] is the state's */
    char file[PIECES_MAX + 1][PATH_SIZE];
    char *message[PIECES_MAX + 1]; /* RocksDB's, or NULL */
    int failed[PIECES_MAX + 1];    /* out of memory */
} commit_files;

static char *rows_put(rocksdb_sstfilewriter_t *w, const commit_table *c, uint64_t from, uint64_t to,
                      uint8_t *record)
{
    char key[ROW_KEY] = {PREFIX_ROW}, *message = NULL;
    uint32_t id = __builtin_bswap32(table_id(c->t));
    memcpy(key + 1, &id, 4);
    for (uint64_t i = from; i < to && !message; i++) {
        if (i + AHEAD < to)
            for (size_t line = 0; line < c->record + 64; line += 64)
                __builtin_prefetch((const char *)c->rows[i + AHEAD].row + line);
        uint64_t big = __builtin_bswap64(c->rows[i].key);
        memcpy(key + 5, &big, 8);
        size_t len = table_encode(c->t, c->rows[i].row, record);
        rocksdb_sstfilewriter_put(w, key, sizeof key, (const char *)record, len, &message);
    }
    return message;
}

/* Writes the rows [from, to) of the commit. */
static void rows_file_write(commit_files *f, size_t piece, uint64_t from, uint64_t to)
{
    size_t longest = 0;
    for (size_t i = 0; i < f->tables; i++)
        longest = MAX(longest, f->table[i].record);
    uint8_t *record = memory_new(longest);
    if (!record) {
        f->failed[piece] = 1;
        return;
    }
    char *message = NULL;
    rocksdb_sstfilewriter_t *w = writer_open(f->s, f->file[piece], &message);
    for (size_t i = 0; i < f->tables && !message; i++) {
        const commit_table *c = &f->table[i];
        uint64_t begin = MAX(from, c->first), end = MIN(to, c->first + c->n);
        if (begin < end)
            message = rows_put(w, c, begin - c->first, end - c->first, record);
    }
    f->message[piece] = writer_close(w, message);
    memory_free(record);
}

static void file_piece(void *context, size_t piece)
{
    commit_files *f = context;
    if (piece == f->pieces)
        f->message[piece] = state_file_write(f->s, f->file[piece], &f->mark);
    else
        rows_file_write(f, piece, f->rows * piece / f->pieces, f->rows * (piece + 1) / f->pieces);
}

/* Takes the tables' dirty rows and cuts them into pieces. */
static int files_plan(commit_files *f)
{
    mr_store *s = f->s;
    size_t bytes = 0;
    f->table = arena_take(s->bytes, (s->tables + 1) * sizeof *f->table);
    if (!f->table)
        return -1;
    for (f->tables = 0; f->tables < s->tables; f->tables++) {
        commit_table *c = &f->table[f->tables];
        c->t = s->table[f->tables];
        int64_t n = table_dirty(c->t, &c->rows);
        if (n < 0)
            return -1;
        c->first = f->rows;
        c->n = (uint64_t)n;
        c->record = table_record_len(c->t);
        f->rows += c->n;
        bytes += c->n * (c->record + ROW_KEY);
    }
    if (f->rows)
        f->pieces =
            bytes < PIECE_BYTES / 2 ? 1 : MIN(PIECES_MAX, 2 * (bytes / PIECE_BYTES / 2 + 1));
    for (size_t i = 0; i <= f->pieces; i++)
        if (path_make(f->file[i], "%s/staging/%" PRIu64 "-%zu.sst", s->dir, f->mark.number, i))
            return -1;
    return 0;
}

static int files_write(commit_files *f)
{
    parallel(f->pieces + 1, file_piece, f);
    int bad = 0;
    for (size_t i = 0; i <= f->pieces; i++) {
        if (f->failed[i])
            bad = fail("store %s: out of memory for the rows of a commit", f->s->dir);
        if (f->message[i])
            bad = database_fail(f->s, "the commit could not be written; the last one stays",
                                f->message[i]);
    }
    return bad;
}

/* ---- the ingest ---- */

char *database_ingest(rocksdb_t *db, const char *const *files, size_t n)
{
    char *message = NULL;
    rocksdb_ingestexternalfileoptions_t *o = rocksdb_ingestexternalfileoptions_create();
    rocksdb_ingestexternalfileoptions_set_move_files(o, 1);
    rocksdb_ingest_external_file(db, files, n, o, &message);
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

/* RocksDB takes no more after an error of writing, also one of compaction: the database is opened
 * anew, which tells what became of the commit, and it is tried once more. */
static int files_ingest(commit_files *f)
{
    mr_store *s = f->s;
    const char *files[PIECES_MAX + 1];
    for (size_t i = 0; i <= f->pieces; i++)
        files[i] = f->file[i];
    for (int try = 1;; try++) {
        char *message = database_ingest(s->db, files, f->pieces + 1);
        if (!message)
            return 0;
        char why[700];
        snprintf(why, sizeof why, "%s", message);
        rocksdb_free(message);
        store_database_close(s);
        if (store_database_open(s)) {
            char opening[300];
            snprintf(opening, sizeof opening, "%s", mr_error());
            return fail("store %s: the commit could not be made: %s; then: %s", s->dir, why,
                        opening);
        }
        if (s->ahead.number) {
            s->ahead.number = 0;
            return 0;
        }
        if (try == 2)
            return fail("store %s: the commit could not be made, the last one stays: %s", s->dir,
                        why);
    }
}

static int commit_make(mr_store *s, commit_files *f)
{
    if (files_plan(f) || files_write(f) || commit_file_prepare(s->dir, &f->mark))
        return -1;
    level0_wait(s);
    if (files_ingest(f))
        return -1;
    if (commit_file_replace(s->dir)) {
        s->ahead = f->mark;
        return -1;
    }
    s->last = f->mark;
    return 0;
}

int mr_commit_end(mr_store *s, uint64_t step)
{
    if (!s->committing)
        return fail("store %s: no commit was begun", s->dir);
    commit_files *f = arena_take(s->bytes, sizeof *f);
    if (!f)
        return -1;
    memset(f, 0, sizeof *f);
    f->s = s;
    f->mark = (commit_mark){
        .number = s->last.number + 1, .step = step, .time = (uint64_t)(mr_clock_wall() * 1e6)};
    memcpy(f->mark.database, s->last.database, DATABASE_NAME);
    int bad = commit_make(s, f);
    /* A database that did not open again may need its files (database_rescue). */
    for (size_t i = 0; bad && s->db && !s->ahead.number && i <= f->pieces; i++)
        if (*f->file[i])
            unlink(f->file[i]);
    for (size_t i = 0; !bad && i < s->tables; i++)
        table_committed(s->table[i]);
    mr_commit_abort(s);
    return bad ? -1 : 0;
}

void mr_commit_abort(mr_store *s)
{
    if (s->bytes)
        arena_free(s->bytes);
    s->bytes = NULL;
    s->puts = s->tables = 0;
    s->committing = 0;
}

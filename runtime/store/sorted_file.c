/* sorted_file.c - the sorted files of a commit: of its named records, of the rows of its tables, and of
 * rows and drops that others put together (imports, shrinking). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/store.h"

enum { CHUNK = 64 }; /* rows that are encoded at once */

int is_sorted_file(const char *name)
{
    size_t len = strlen(name);
    return len > 4 && !strcmp(name + len - 4, ".sst");
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

int commit_fail(const commit *c, char *message)
{
    return database_fail(c->s, "the commit could not be written; the last one stays", message);
}

/* The file of all tables' rows, if there are any; -1 after fail(). */
int commit_rows_write(commit *c)
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
    /* A first read of a block that is not in the page cache costs five times as much. */
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
    } else if (commit_file_path(c, c->files, path)) {
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

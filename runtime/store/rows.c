/* rows.c - reading from a store: named records, single rows, and scans, which are ascending by key, with
 * checksums verified, and leave the block cache alone. */
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "store/store.h"
#include "table/admission.h"

enum { MIB = 1 << 20 };

uint64_t big_endian(const char *p)
{
    uint64_t x;
    memcpy(&x, p, 8);
    return __builtin_bswap64(x);
}

void row_key(char to[ROW_KEY], int prefix, uint32_t table, uint64_t key)
{
    uint32_t id = __builtin_bswap32(table);
    key = __builtin_bswap64(key);
    to[0] = (char)prefix;
    memcpy(to + 1, &id, 4);
    memcpy(to + 5, &key, 8);
}

/* ---- records ---- */

int mr_store_get(mr_store *s, const char *name)
{
    GIVEN(s && name, -1);
    char key[1024] = {PREFIX_STATE}, *message = NULL;
    size_t len = strlen(name);
    if (len >= sizeof key)
        return fail("store %s: the name of a record has %zu characters, at most %zu may be", s->dir,
                    len, sizeof key - 1);
    if (store_database_need(s))
        return -1;
    memcpy(key + 1, name, len);
    rocksdb_free(s->value);
    pthread_rwlock_rdlock(&s->using);
    s->value = rocksdb_get(s->base.db, s->read, key, len + 1, &s->value_len, &message);
    pthread_rwlock_unlock(&s->using);
    if (message) {
        s->value = NULL;
        return database_fail(s, name, message);
    }
    return s->value != NULL;
}

const void *mr_store_value(const mr_store *s)
{
    GIVEN(s, NULL);
    return s->value;
}

double mr_store_value_len(const mr_store *s)
{
    GIVEN(s, -1);
    return s->value ? (double)s->value_len : 0;
}

int table_state_read(const mr_store *s, const char *name, const void *bytes, size_t len,
                     table_state *state)
{
    if (len != sizeof *state)
        return fail("store %s: the record of table %s has %zu bytes, expected %zu", s->dir, name,
                    len, sizeof *state);
    memcpy(state, bytes, len);
    return state->id < TABLES_MAX
               ? 0
               : fail("store %s: table %s has number %" PRIu64 ", expected less than %d", s->dir,
                      name, state->id, TABLES_MAX);
}

/* ---- single rows ---- */

int store_read_rows(mr_store *s, uint32_t table, const keyed_row *rows, size_t n,
                    record_found *found, void *context)
{
    enum { MOST = 256 };
    char key[MOST][ROW_KEY], *message[MOST];
    const char *keys[MOST];
    size_t lens[MOST];
    rocksdb_pinnableslice_t *value[MOST];
    int bad = 0;
    for (size_t from = 0; from < n && !bad; from += MOST) {
        size_t count = MIN((size_t)MOST, n - from);
        for (size_t i = 0; i < count; i++) {
            row_key(key[i], PREFIX_ROW, table, rows[from + i].key);
            keys[i] = key[i];
            lens[i] = ROW_KEY;
            value[i] = NULL;
            message[i] = NULL;
        }
        pthread_rwlock_rdlock(&s->using);
        if (!s->base.db)
            bad = fail("store %s: the database is not open", s->dir);
        else
            rocksdb_batched_multi_get_cf(s->base.db, s->read, s->base.family, count, keys, lens,
                                         value, message, 1);
        for (size_t i = 0; i < count; i++) {
            size_t len = 0;
            if (message[i] && !bad)
                bad = fail("store %s: table %u: the row of key %" PRIu64 " could not be read: %s",
                           s->dir, table, rows[from + i].key, message[i]);
            rocksdb_free(message[i]);
            const char *bytes = value[i] ? rocksdb_pinnableslice_value(value[i], &len) : NULL;
            if (!bad)
                bad = found(context, from + i, (const uint8_t *)bytes, len);
            if (value[i])
                rocksdb_pinnableslice_destroy(value[i]);
        }
        pthread_rwlock_unlock(&s->using);
    }
    return bad;
}

/* ---- scans ---- */

static int iterator_fine(const rocksdb_iterator_t *i)
{
    char *message = NULL;
    rocksdb_iter_get_error(i, &message);
    int fine = !message;
    rocksdb_free(message);
    return fine;
}

static int by_bound(const key_bound *a, const key_bound *b)
{
    return a->len != b->len || memcmp(a->key, b->key, a->len);
}

int store_scan(mr_store *s, const char *doing, const char *from, const char *to, size_t len,
               scan_record *work, void *context)
{
    if (store_database_need(s))
        return -1;
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(read, 1);
    rocksdb_readoptions_set_fill_cache(read, 0);
    rocksdb_readoptions_set_readahead_size(read, 1 * MIB);
    rocksdb_readoptions_set_iterate_upper_bound(read, to, len);
    key_bounds bounds = {NULL, 0, 0, NULL};
    size_t next = 0;
    pthread_rwlock_rdlock(&s->using);
    int bad = bounds_add(&bounds, s->base);
    rocksdb_iterator_t *i = rocksdb_create_iterator(s->base.db, read);
    if (!bad) /* a compaction may have ended between the two */
        bad = bounds_add(&bounds, s->base);
    const key_bound first = {from, len}, last = {to, len};
    while (next < bounds.n && key_reaches(first.key, first.len, &bounds.at[next]))
        next++;
    rocksdb_iter_seek(i, from, len);
    while (!bad) {
        size_t key_len = 0, value_len;
        const char *key = rocksdb_iter_valid(i) ? rocksdb_iter_key(i, &key_len) : NULL;
        if (!key && !iterator_fine(i))
            break;
        if (next < bounds.n && (!key || key_reaches(key, key_len, &bounds.at[next]))) {
            const key_bound *b = &bounds.at[next++]; /* seeks at the start of every file */
            if (key_reaches(b->key, b->len, &last))
                next = bounds.n;
            else if (next == bounds.n || by_bound(b, &bounds.at[next]))
                rocksdb_iter_seek(i, b->key, b->len);
            continue;
        }
        if (!key)
            break;
        const char *value = rocksdb_iter_value(i, &value_len);
        bad = work(context, key, key_len, value, value_len);
        if (!bad)
            rocksdb_iter_next(i);
    }
    bounds_free(&bounds);
    char *message = NULL;
    rocksdb_iter_get_error(i, &message);
    rocksdb_iter_destroy(i);
    pthread_rwlock_unlock(&s->using);
    rocksdb_readoptions_destroy(read);
    return message ? database_fail(s, doing, message) : bad;
}

int store_scan_table(mr_store *s, const char *doing, int prefix, uint32_t table, scan_record *work,
                     void *context)
{
    char from[ROW_KEY], to[ROW_KEY];
    row_key(from, prefix, table, 0);
    row_key(to, prefix, table + 1, 0);
    return store_scan(s, doing, from, to, sizeof from, work, context);
}

static int read_state(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    mr_store *s = context;
    table_state state;
    char name[300];
    snprintf(name, sizeof name, "%.*s", (int)MIN(key_len - 7, sizeof name - 1), key + 7);
    if (table_state_read(s, name, value, len, &state))
        return -1;
    s->expired[state.id] = state.expired;
    s->forgotten[state.id] = state.forgotten;
    return 0;
}

void store_states_forget(mr_store *s)
{
    for (int i = 0; i < TABLES_MAX; i++)
        s->expired[i] = s->forgotten[i] = 0;
}

int store_states_read(mr_store *s)
{
    char from[] = "\1table/", to[] = "\1table0";
    store_states_forget(s);
    return store_scan(s, "the records of tables could not be read", from, to, 7, read_state, s);
}

/* ---- a table's rows into its cache ---- */

enum { LOAD_PIECES = 32, LOAD_ROWS = 256 };

typedef struct load {
    mr_store *s;
    mr_table *t;
    uint64_t first, last; /* keys */
    _Atomic int full;     /* the budget has no more */
    int failed[LOAD_PIECES];
    char error[512];
    pthread_mutex_t lock;
} load;

static int key_fail(const load *l, size_t len)
{
    return fail("store %s: table %s: a row's key has %zu bytes, expected %d", l->s->dir,
                table_name(l->t), len, ROW_KEY);
}

static int load_row(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    load *l = context;
    if (l->full)
        return 1;
    if (key_len != ROW_KEY)
        return key_fail(l, key_len);
    int rc = table_install(l->t, big_endian(key + 5), (const uint8_t *)value, len);
    if (rc > 0)
        l->full = 1;
    return rc;
}

/* The key at a piece's start, of the range between the first and the last. */
static uint64_t piece_key(const load *l, size_t piece)
{
    uint64_t step = (l->last - l->first) / LOAD_PIECES;
    return l->first + step * piece;
}

static void load_piece(void *context, size_t piece)
{
    load *l = context;
    char from[ROW_KEY], to[ROW_KEY];
    uint32_t id = table_id(l->t);
    row_key(from, PREFIX_ROW, id, piece_key(l, piece));
    row_key(to, PREFIX_ROW, id, piece_key(l, piece + 1));
    if (piece + 1 == LOAD_PIECES)
        row_key(to, PREFIX_ROW, id + 1, 0);
    l->failed[piece] = store_scan(l->s, "rows could not be read", from, to, ROW_KEY, load_row, l);
    if (l->failed[piece] < 0) {
        pthread_mutex_lock(&l->lock);
        snprintf(l->error, sizeof l->error, "%s", mr_error());
        pthread_mutex_unlock(&l->lock);
    }
}

/* The least and the largest key of a table: 0, 1: it has none, -1. */
static int load_range(load *l)
{
    char from[ROW_KEY], to[ROW_KEY], *message = NULL;
    size_t len;
    row_key(from, PREFIX_ROW, table_id(l->t), 0);
    row_key(to, PREFIX_ROW, table_id(l->t), UINT64_MAX);
    rocksdb_iterator_t *i = rocksdb_create_iterator(l->s->base.db, l->s->read);
    rocksdb_iter_seek(i, from, sizeof from);
    const char *key = rocksdb_iter_valid(i) ? rocksdb_iter_key(i, &len) : NULL;
    int none = !key || len != ROW_KEY || memcmp(key, from, 5) != 0;
    if (!none) {
        l->first = big_endian(key + 5);
        rocksdb_iter_seek_for_prev(i, to, sizeof to);
        key = rocksdb_iter_valid(i) ? rocksdb_iter_key(i, &len) : NULL;
        l->last = key && len == ROW_KEY ? big_endian(key + 5) : l->first;
    }
    rocksdb_iter_get_error(i, &message);
    rocksdb_iter_destroy(i);
    return message ? database_fail(l->s, "rows could not be read", message) : none;
}

static int load_rows(mr_store *s, mr_table *t)
{
    load *l = memory_zero(sizeof *l);
    if (!l)
        return -1;
    l->s = s;
    l->t = t;
    pthread_mutex_init(&l->lock, NULL);
    int rc = load_range(l);
    if (!rc) {
        parallel(LOAD_PIECES, load_piece, l);
        for (int i = 0; i < LOAD_PIECES; i++)
            if (l->failed[i] < 0)
                rc = fail("table %s: %s", table_name(t), l->error);
        if (!rc && l->full)
            table_resident(t, 0);
    }
    pthread_mutex_destroy(&l->lock);
    memory_free(l);
    return rc < 0 ? -1 : 0;
}

static int load_page(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    mr_table *t = context;
    char number[16] = "";
    memcpy(number, key + key_len - 8, 8);
    return table_filter_load(t, strtoull(number, NULL, 10), value, len);
}

typedef struct page_scan {
    size_t key_len;
    scan_record *work;
    void *context;
} page_scan;

/* Between the pages of a table there may be those of others, whose names go on where its name ends. */
static int one_page(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    const page_scan *p = context;
    return key_len == p->key_len ? p->work(p->context, key, key_len, value, len) : 0;
}

int store_scan_pages(mr_store *s, const char *table, scan_record *work, void *context)
{
    char from[400], to[400];
    int len = snprintf(from, sizeof from, "%cfilter/%.*s/0", PREFIX_STATE, TABLE_NAME_MOST, table);
    memcpy(to, from, (size_t)len + 1);
    to[len - 1] = '9' + 1;
    page_scan p = {(size_t)len + 7, work, context}; /* a page's number has eight digits */
    return store_scan(s, "the admission filter could not be read", from, to, (size_t)len, one_page,
                      &p);
}

int mr_store_attach(mr_store *s, mr_table *t)
{
    GIVEN(s && t, -1);
    char name[300];
    table_state state = {.id = table_id(t)};
    snprintf(name, sizeof name, "table/%.*s", TABLE_NAME_MOST, table_name(t));
    int rc = mr_store_get(s, name);
    if (rc < 0 || (rc && table_state_read(s, table_name(t), s->value, s->value_len, &state)))
        return -1;
    if (state.id != table_id(t))
        return fail("store %s: table %s has number %" PRIu64 " there, and %u in the model", s->dir,
                    table_name(t), state.id, table_id(t));
    store_attach(s, t);
    table_state_set(t, &state, s->last.step);
    table_resident(t, !state.rows);
    return store_scan_pages(s, table_name(t), load_page, t);
}

int mr_store_load(mr_store *s, mr_table *t)
{
    GIVEN(s && t, -1);
    if (mr_store_attach(s, t))
        return -1;
    if (mr_table_resident(t) || table_bytes(t, mr_table_rows(t)) > memory_left())
        return 0;
    table_resident(t, 1);
    return load_rows(s, t);
}

static int count_row(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    (void)key, (void)key_len, (void)value, (void)len;
    ++*(double *)context;
    return 0;
}

double mr_store_rows(mr_store *s, uint32_t table)
{
    GIVEN(s, -1);
    double rows = 0;
    return store_scan_table(s, "rows could not be counted", PREFIX_ROW, table, count_row, &rows)
               ? -1
               : rows;
}

/* ---- the digest ---- */

typedef struct digesting {
    mr_store *s;
    XXH3_state_t *state;
} digesting;

static const char FILES[] = "data_sets"; /* a record that is not a part of the digest */

static int hash_record(void *context, const char *key, size_t key_len, const char *value,
                       size_t len)
{
    /* PREFIX_STATE and names: where the data lies and who trained, not what was learned */
    static const char files[] = "\1files", signature[] = "\1signature";
    digesting *d = context;
    uint64_t lens[2] = {key_len, len}, step;
    uint32_t table;
    if (key[0] == PREFIX_ROW && key_len == ROW_KEY && len >= 12) {
        memcpy(&table, key + 1, 4);
        memcpy(&step, value + 4, 8);
        table = __builtin_bswap32(table);
        if (table < TABLES_MAX && step <= d->s->expired[table])
            return 0;
    } else if ((key_len == sizeof files - 1 && !memcmp(key, files, key_len)) ||
               (key_len == sizeof signature - 1 && !memcmp(key, signature, key_len))) {
        return 0;
    }
    if (key[0] == PREFIX_STATE && key_len == sizeof FILES && !memcmp(key + 1, FILES, key_len - 1))
        return 0; /* names, sizes and places of the data */
    XXH3_128bits_update(d->state, lens, sizeof lens);
    XXH3_128bits_update(d->state, key, key_len);
    XXH3_128bits_update(d->state, value, len);
    return 0;
}

int mr_store_digest(mr_store *s, char *hex)
{
    GIVEN(s && hex, -1);
    _Alignas(64) XXH3_state_t state;
    digesting d = {s, &state};
    XXH3_128bits_reset(&state);
    if (store_scan(s, "the digest could not be taken", (char[]){PREFIX_STATE},
                   (char[]){PREFIX_DROP}, 1, hash_record, &d))
        return -1;
    XXH128_hash_t h = XXH3_128bits_digest(&state);
    snprintf(hex, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64, (uint64_t)h.low64);
    return 0;
}

/* ---- figures ---- */

static double property(mr_store *s, const char *name)
{
    pthread_rwlock_rdlock(&s->using);
    char *text = s->base.db ? rocksdb_property_value(s->base.db, name) : NULL;
    pthread_rwlock_unlock(&s->using);
    double value = text ? strtod(text, NULL) : -1;
    rocksdb_free(text);
    return value;
}

static double database_files(mr_store *s)
{
    pthread_rwlock_rdlock(&s->using);
    const rocksdb_livefiles_t *files = s->base.db ? rocksdb_livefiles(s->base.db) : NULL;
    pthread_rwlock_unlock(&s->using);
    int n = files ? rocksdb_livefiles_count(files) : -1;
    if (files)
        rocksdb_livefiles_destroy(files);
    return n;
}

static _Thread_local double disk;

/* A file of several names counts in parts: once, if all of them are in the store. */
static int add_disk(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)path, (void)at;
    if (kind == FTW_F)
        disk += (double)st->st_blocks * 512 / (double)(st->st_nlink ? st->st_nlink : 1);
    return 0;
}

double mr_store_number(mr_store *s, const char *what)
{
    GIVEN(s && what, -1);
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
    if (!strcmp(what, "files"))
        return database_files(s);
    if (!strcmp(what, "disk")) {
        disk = 0;
        return nftw(s->dir, add_disk, 16, FTW_PHYS) ? -1 : disk;
    }
    if (!strcmp(what, "level0"))
        return property(s, "rocksdb.num-files-at-level0");
    if (!strcmp(what, "compacting"))
        return property(s, "rocksdb.compaction-pending") +
               property(s, "rocksdb.num-running-compactions");
    if (!strcmp(what, "errors"))
        return property(s, "rocksdb.background-errors");
    if (!strcmp(what, "blocks"))
        return (double)rocksdb_cache_get_usage(s->cache);
    return -1;
}

const char *mr_store_database(const mr_store *s)
{
    GIVEN(s, NULL);
    return s->last.database;
}

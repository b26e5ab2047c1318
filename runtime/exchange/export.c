/* export.c - the last commit of a store as a file: which rows, and the binary format, whose bytes
 * runtime/exchange/README.md has.
 *
 * The bytes are a function of the state of the store alone. A full export holds the log of commits, the
 * named records, the drops that a later delta may ask for, and the rows; a delta `since` N those rows
 * whose step is above N, and the drops of N and later: one of N itself may have come after the export
 * that the delta is applied to, and is harmless if it came before. A drop is left out where the state
 * tells that it does not matter any more: its key has a row again, or all rows of its step expired. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "exchange/export.h"

enum { BLOCK_SIZE = 64 << 10, DROPS = 256 };

/* ---- rows ---- */

typedef struct rows_work {
    exporting *e;
    export_row *work;
    void *context;
} rows_work;

static int row_wanted(const exporting *e, const mr_table *t, const row *r)
{
    uint32_t most = 0;
    for (uint32_t c = 0; c < t->columns; c++)
        most = MAX(most, r->count[c]);
    return r->step > e->o->since && r->step > e->o->after && most >= e->o->count;
}

static int rows_record(void *context, const char *key, size_t key_len, const char *value,
                       size_t len)
{
    rows_work *w = context;
    exporting *e = w->e;
    if (key_len != ROW_KEY)
        return fail("store %s: table %s: a row's key has %zu bytes, expected %d", e->s->dir,
                    e->now->name, key_len, ROW_KEY);
    row *r = e->row;
    uint64_t step = 0;
    r->key = big_endian(key + 5);
    if (len >= 12)
        memcpy(&step, value + 4, 8);
    if (step && step <= e->s->expired[e->now->id])
        return 0;
    if (record_decode(e->now, r, (const uint8_t *)value, len))
        return -1;
    if (!row_wanted(e, e->now, r))
        return 0;
    e->rows++;
    return w->work(w->context, e, r->key, value, len);
}

int export_rows(exporting *e, mr_table *t, export_row *work, void *context)
{
    rows_work w = {e, work, context};
    memory_free(e->row);
    e->now = t;
    e->row = memory_zero(t->open_bytes);
    return !e->row || store_scan_table(e->s, "rows could not be exported", PREFIX_ROW, t->id,
                                       rows_record, &w)
               ? -1
               : 0;
}

/* ---- blocks ---- */

typedef struct writing {
    exporting *e;
    mr_output *out;
    char *block; /* its head, and len bytes of content */
    size_t room, len;
    uint32_t kind, table, records;
    export_end end;
    XXH3_state_t *hash; /* of the hashes so far */
} writing;

static int block_flush(writing *w)
{
    if (!w->records)
        return 0;
    block_head h = {0, w->kind, w->table, w->records, (uint32_t)w->len};
    memcpy(w->block, &h, sizeof h);
    h.hash = XXH3_64bits_withSeed(w->block + 8, BLOCK_HEAD - 8 + w->len, w->end.records[0]);
    memcpy(w->block, &h, sizeof h);
    XXH3_64bits_update(w->hash, &h.hash, 8);
    w->end.records[0]++;
    if (w->kind < BLOCK_END)
        w->end.records[w->kind] += w->records;
    int bad = mr_output_write(w->out, w->block, BLOCK_HEAD + w->len);
    w->records = 0;
    w->len = 0;
    return bad;
}

/* Place for a record of len bytes; NULL after fail(). */
static char *block_take(writing *w, uint32_t kind, uint32_t table, size_t len)
{
    if (len > INT32_MAX) {
        fail("%s: a record has %zu bytes, too many for a block", w->e->path, len);
        return NULL;
    }
    int closed = kind != w->kind || table != w->table || w->len + len > BLOCK_SIZE;
    if ((closed && block_flush(w)) ||
        memory_reserve((void **)&w->block, &w->room, BLOCK_HEAD + w->len + len, 1))
        return NULL;
    char *at = w->block + BLOCK_HEAD + w->len;
    w->kind = kind;
    w->table = table;
    w->records++;
    w->len += len;
    return at;
}

static char *put(char *to, const void *from, size_t len)
{
    memcpy(to, from, len);
    return to + len;
}

static int write_log(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    writing *w = context;
    uint64_t mark[3] = {0, 0, 0};
    if (key_len != COMMIT_KEY || len != 16)
        return fail("store %s: the log of commits is damaged: an entry of %zu and %zu bytes",
                    w->e->s->dir, key_len, len);
    mark[0] = big_endian(key + 1);
    memcpy(mark + 1, value, 16);
    if (mark[1] < w->e->o->since)
        return 0;
    char *at = block_take(w, BLOCK_LOG, 0, sizeof mark);
    return at ? (put(at, mark, sizeof mark), 0) : -1;
}

static int write_name(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    writing *w = context;
    uint32_t lens[2] = {(uint32_t)key_len - 1, (uint32_t)len};
    if (w->e->o->part && (lens[0] != 5 || memcmp(key + 1, "model", 5)))
        return 0;
    char *at = block_take(w, BLOCK_NAME, 0, sizeof lens + key_len - 1 + len);
    return at ? (put(put(put(at, lens, sizeof lens), key + 1, key_len - 1), value, len), 0) : -1;
}

static int table_name_state(const exporting *e, const mr_table *t, table_state *state)
{
    char name[300];
    snprintf(name, sizeof name, "table/%.*s", TABLE_NAME_MOST, t->name);
    int found = mr_store_get(e->s, name);
    *state = (table_state){.id = t->id};
    return found <= 0 ? found
                      : table_state_read(e->s, t->name, e->s->value, e->s->value_len, state);
}

/* A delta needs the drops of its first step: none of them may be forgotten. */
static int delta_check(const exporting *e, const mr_table *t, const table_state *state)
{
    if (!e->o->since || e->o->part || !state->forgotten || e->o->since > state->forgotten)
        return 0;
    return fail("store %s: table %s: a delta since step %" PRIu64
                " cannot be made: the keys dropped "
                "at step %" PRIu64 " and before are not known any more; make a full export",
                e->s->dir, t->name, e->o->since, state->forgotten);
}

static int write_tables(writing *w)
{
    for (size_t i = 0; i < w->e->tables; i++) {
        const mr_table *t = w->e->table[i];
        table_state state;
        if (table_name_state(w->e, t, &state) || delta_check(w->e, t, &state))
            return -1;
        uint32_t len = (uint32_t)strlen(t->name);
        char *at = block_take(w, BLOCK_TABLE, 0, sizeof state + 4 + len);
        if (!at)
            return -1;
        put(put(put(at, &state, sizeof state), &len, 4), t->name, len);
    }
    return 0;
}

/* ---- drops, some at a time, to look whether their keys have rows ---- */

typedef struct dropping {
    writing *w;
    const mr_table *t;
    keyed_row key[DROPS];
    uint64_t step[DROPS];
    char live[DROPS];
    size_t n;
} dropping;

static int drop_found(void *context, size_t i, const uint8_t *bytes, size_t len)
{
    dropping *d = context;
    uint64_t step = 0;
    if (bytes && len >= 12)
        memcpy(&step, bytes + 4, 8);
    d->live[i] = bytes && step > d->w->e->s->expired[d->t->id];
    return 0;
}

static int drops_flush(dropping *d)
{
    if (store_read_rows(d->w->e->s, d->t->id, d->key, d->n, drop_found, d))
        return -1;
    for (size_t i = 0; i < d->n; i++) {
        if (d->live[i])
            continue;
        char *at = block_take(d->w, BLOCK_DROP, d->t->id, 16);
        if (!at)
            return -1;
        put(put(at, &d->key[i].key, 8), &d->step[i], 8);
        d->w->e->drops++;
    }
    d->n = 0;
    return 0;
}

static int write_drop(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    dropping *d = context;
    const exporting *e = d->w->e;
    uint64_t step;
    if (key_len != ROW_KEY || len != 12)
        return fail("store %s: table %s: a drop record has %zu and %zu bytes, expected %d and 12",
                    e->s->dir, d->t->name, key_len, len, ROW_KEY);
    memcpy(&step, value + 4, 8);
    if (step < e->o->since || step <= e->s->forgotten[d->t->id] || step <= e->s->expired[d->t->id])
        return 0;
    d->key[d->n].key = big_endian(key + 5);
    d->step[d->n++] = step;
    return d->n == DROPS ? drops_flush(d) : 0;
}

static int write_drops(writing *w)
{
    dropping *d = memory_zero(sizeof *d);
    int bad = !d;
    for (size_t i = 0; !bad && i < w->e->tables; i++) {
        d->w = w;
        d->t = w->e->table[i];
        bad = store_scan_table(w->e->s, "drops could not be exported", PREFIX_DROP, d->t->id,
                               write_drop, d) ||
              drops_flush(d);
    }
    memory_free(d);
    return bad ? -1 : 0;
}

static int write_row(void *context, exporting *e, uint64_t key, const char *record, size_t len)
{
    uint32_t record_len = (uint32_t)len;
    char *at = block_take(context, BLOCK_ROW, e->now->id, 12 + len);
    return at ? (put(put(put(at, &key, 8), &record_len, 4), record, len), 0) : -1;
}

static int write_end(writing *w)
{
    if (block_flush(w))
        return -1;
    w->end.bytes = output_len(w->out);
    w->end.hash = XXH3_64bits_digest(w->hash);
    export_end end = w->end;
    char *at = block_take(w, BLOCK_END, 0, sizeof end);
    return at ? (put(at, &end, sizeof end), block_flush(w)) : -1;
}

static int write_head(writing *w)
{
    const exporting *e = w->e;
    const commit_mark *m = &e->s->last;
    export_head h = {"moonrock",
                     EXPORT_VERSION,
                     e->o->part ? EXPORT_PART : 0,
                     m->number,
                     m->step,
                     m->time,
                     e->o->since,
                     0,
                     0};
    h.hash = XXH3_64bits(&h, EXPORT_HEAD - 8);
    XXH3_64bits_update(w->hash, &h.hash, 8);
    return mr_output_write(w->out, &h, sizeof h);
}

static int write_all(writing *w)
{
    exporting *e = w->e;
    if (write_head(w) ||
        (!e->o->part && store_scan(e->s, "the log of commits could not be exported", "\0", "\1", 1,
                                   write_log, w)) ||
        store_scan(e->s, "the named records could not be exported", "\1", "\2", 1, write_name, w) ||
        write_tables(w) || (!e->o->part && write_drops(w)))
        return -1;
    for (size_t i = 0; i < e->tables; i++)
        if (export_rows(e, e->table[i], write_row, w))
            return -1;
    return write_end(w);
}

static int export_bin(exporting *e)
{
    _Alignas(64) XXH3_state_t hash;
    XXH3_64bits_reset(&hash);
    writing w = {.e = e, .hash = &hash, .out = mr_output_open(e->path)};
    int bad = !w.out || write_all(&w);
    if (bad) {
        char why[900];
        snprintf(why, sizeof why, "%s", mr_error());
        mr_output_abort(w.out);
        fail("%s", why);
    } else {
        bad = mr_output_end(w.out);
    }
    memory_free(w.block);
    return bad ? -1 : 0;
}

/* ---- all formats ---- */

/* Rows of a table that is not among those given would be left out in silence. */
static int tables_check(const exporting *e)
{
    char from[ROW_KEY], to[ROW_KEY];
    for (size_t i = 0; i <= e->tables; i++) {
        uint32_t first = i ? e->table[i - 1]->id + 1 : 0;
        if (i < e->tables && e->table[i]->id < first)
            return fail("%s: tables are given by ascending number", e->path);
        row_key(from, PREFIX_ROW, first, 0);
        row_key(to, PREFIX_ROW, i < e->tables ? e->table[i]->id : UINT32_MAX, 0);
        rocksdb_iterator_t *it = rocksdb_create_iterator(e->s->base.db, e->s->read);
        size_t len = 0;
        rocksdb_iter_seek(it, from, sizeof from);
        const char *key = rocksdb_iter_valid(it) ? rocksdb_iter_key(it, &len) : NULL;
        int found = key && len == ROW_KEY && memcmp(key, to, ROW_KEY) < 0;
        uint32_t id = 0;
        if (found)
            memcpy(&id, key + 1, 4);
        rocksdb_iter_destroy(it);
        if (found)
            return fail("store %s: has rows of table number %u, which the model has not", e->s->dir,
                        __builtin_bswap32(id));
    }
    return 0;
}

int mr_store_export(mr_store *s, mr_table *const *tables, size_t n, mr_export *o, const char *path)
{
    GIVEN(s && tables && o && path, -1);
    exporting e = {.s = s, .table = tables, .tables = n, .o = o, .path = path};
    if (o->since > s->last.step)
        return fail("store %s: is at step %" PRIu64 ", a delta since step %" PRIu64
                    " is of later ones",
                    s->dir, s->last.step, o->since);
    if (mr_output_check(path, s->dir, "the store"))
        return -1;
    if (store_database_need(s) || (!o->part && tables_check(&e)))
        return -1;
    int bad = o->format == MR_EXPORT_TSV   ? export_text(&e)
              : o->format == MR_EXPORT_NPY ? export_npy(&e)
                                           : export_bin(&e);
    memory_free(e.row);
    o->rows = e.rows;
    o->drops = e.drops;
    return bad ? -1 : 0;
}

/* ---- times ---- */

typedef struct dating {
    uint64_t until, step; /* microseconds; the step found */
} dating;

static int date_entry(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    dating *d = context;
    uint64_t entry[2];
    (void)key;
    if (key_len != COMMIT_KEY || len != sizeof entry)
        return fail("the log of commits is damaged");
    memcpy(entry, value, sizeof entry);
    if (entry[1] <= d->until)
        d->step = MAX(d->step, entry[0]);
    return 0;
}

double mr_store_step_at(mr_store *s, double seconds)
{
    GIVEN(s, -1);
    dating d = {seconds > 0 ? (uint64_t)(seconds * 1e6) : 0, 0};
    return store_scan(s, "the log of commits could not be read", "\0", "\1", 1, date_entry, &d)
               ? -1
               : (double)d.step;
}

/* import_rows.c - rows of files into the tables of a store, as a part of the commit being prepared.
 *
 * Rows come in the order of their keys, a table at a time. Some at a time they are looked up in the
 * store: what a row has already, and the file does not tell, stays. A column that comes without its
 * optimizer's state begins with a fresh one. No row may be of a later step than the commit; and since
 * the rows may be of earlier ones, the deltas since those steps are refused from then on (forgotten). */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "exchange/export.h"

enum { ROWS = 128 };

typedef struct given {
    uint32_t columns, states;
} given;

struct adding {
    mr_store *s;
    mr_table *const *table;
    size_t tables;
    uint64_t step; /* of the commit */
    double rows;   /* so far */
    /* the table at hand */
    mr_table *t;
    rows_file *file;
    uint64_t seen; /* bit i: table number i came already */
    int64_t last_id;
    double fresh; /* rows that were not there */
    uint64_t last_key;
    int any;
    /* rows to be looked up */
    char *incoming; /* [ROWS] rows of t */
    keyed_row key[ROWS];
    given given[ROWS];
    size_t n;
    row *row;  /* the row that is put together */
    row *kept; /* the same, as it is kept */
    uint8_t *record;
};

mr_table *adding_table(const adding *a, const char *name)
{
    for (size_t i = 0; i < a->tables; i++)
        if (!strcmp(a->table[i]->name, name))
            return a->table[i];
    fail("table %.100s: the model has none of this name", name);
    return NULL;
}

/* ---- rows that are looked up and put together ---- */

static void overlay(const adding *a, row *to, const row *from, given g)
{
    mr_table *t = a->t;
    to->step = MAX(to->step, MIN(from->step ? from->step : a->step, a->step));
    for (uint32_t c = 0; c < t->columns; c++) {
        const table_column *column = &t->column[c];
        float *w = row_column(t, to, c);
        if (!(g.columns >> c & 1))
            continue;
        to->count[c] = MAX(1, from->count[c]);
        memcpy(w, row_column(t, (row *)from, c), 4 * (size_t)(column->dim + column->state));
        if (!(g.states >> c & 1))
            optimizer_begin(&column->optim, column->dim, w, w + column->dim);
    }
}

static int row_found(void *context, size_t i, const uint8_t *bytes, size_t len)
{
    adding *a = context;
    mr_table *t = a->t;
    const row *from = (const row *)(a->incoming + i * t->open_bytes);
    char key[ROW_KEY];
    uint64_t step = 0;
    row *r = a->row;
    row_fresh(t, from->key, r);
    if (bytes && len >= 12)
        memcpy(&step, bytes + 4, 8);
    int there = bytes && step > a->s->expired[t->id];
    if (there && record_decode(t, r, bytes, len) < 0)
        return -1;
    a->fresh += !there;
    overlay(a, r, from, a->given[i]);
    row_key(key, PREFIX_ROW, t->id, r->key);
    if (t->half) {
        *a->kept = *r;
        memset(a->kept->count, 0, 4 * t->columns);
        row_close(t, r, a->kept, UINT32_MAX);
        r = a->kept;
    }
    size_t record_len = table_encode(t, r, a->record);
    return rows_file_put(a->file, key, sizeof key, a->record, record_len) ? -1 : 0;
}

static int rows_flush(adding *a)
{
    size_t n = a->n;
    a->n = 0;
    return n ? store_read_rows(a->s, a->t->id, a->key, n, row_found, a) : 0;
}

/* ---- a table ---- */

static int table_end(adding *a)
{
    mr_table *t = a->t;
    char name[300];
    table_state state;
    if (!t)
        return 0;
    if (rows_flush(a))
        return -1;
    snprintf(name, sizeof name, "table/%.*s", TABLE_NAME_MOST, t->name);
    int found = mr_store_get(a->s, name);
    state = (table_state){.id = t->id};
    if (found < 0 ||
        (found && table_state_read(a->s, t->name, a->s->value, a->s->value_len, &state)))
        return -1;
    state.rows += (uint64_t)a->fresh;
    state.forgotten = MAX(state.forgotten, a->step);
    a->t = NULL;
    return mr_commit_put(a->s, name, &state, sizeof state);
}

int adding_begin(adding *a, mr_table *t)
{
    if (a->t == t)
        return 0;
    if (table_end(a))
        return -1;
    if (a->seen >> t->id & 1)
        return fail("table %s: its rows do not stand together", t->name);
    if (a->file && (int64_t)t->id < a->last_id) {
        rows_file *file = a->file;
        a->file = NULL;
        if (rows_file_end(file))
            return -1;
    }
    if (!a->file && !(a->file = rows_file_new(a->s)))
        return -1;
    a->seen |= (uint64_t)1 << t->id;
    a->last_id = t->id;
    memory_free(a->incoming);
    memory_free(a->row);
    memory_free(a->kept);
    memory_free(a->record);
    a->incoming = memory_zero((size_t)t->open_bytes * ROWS);
    a->row = memory_zero(t->open_bytes);
    a->kept = memory_zero(t->row_bytes);
    a->record = memory_new(table_record_most(t));
    if (!a->incoming || !a->row || !a->kept || !a->record)
        return -1;
    a->t = t;
    a->fresh = 0;
    a->any = 0;
    return 0;
}

row *adding_row(adding *a, uint32_t columns, uint32_t states)
{
    if (a->n == ROWS && rows_flush(a))
        return NULL;
    row *r = (row *)(a->incoming + a->n * a->t->open_bytes);
    memset(r, 0, a->t->open_bytes);
    a->given[a->n] = (given){columns, states};
    return r;
}

void adding_given(adding *a, uint32_t columns)
{
    a->given[a->n].columns = columns;
}

int adding_done(adding *a)
{
    mr_table *t = a->t;
    row *r = (row *)(a->incoming + a->n * t->open_bytes);
    given g = a->given[a->n];
    if (a->any && r->key <= a->last_key)
        return fail("table %s: key %" PRIu64 " comes after key %" PRIu64
                    ": keys have to ascend, each once",
                    t->name, r->key, a->last_key);
    if (!g.columns)
        return fail("table %s: key %" PRIu64 " has no numbers", t->name, r->key);
    for (uint32_t c = 0; c < t->columns; c++) {
        const float *w = row_column(t, r, c);
        uint32_t n = t->column[c].dim + (g.states >> c & 1 ? t->column[c].state : 0);
        for (uint32_t i = 0; g.columns >> c & 1 && i < n; i++)
            if (!isfinite(w[i]))
                return fail("table %s: key %" PRIu64 ": column %s holds %g", t->name, r->key,
                            t->column[c].name, (double)w[i]);
    }
    a->any = 1;
    a->last_key = r->key;
    a->key[a->n++].key = r->key;
    a->rows++;
    return 0;
}

/* ---- a binary export of some rows ---- */

static int record_add(adding *a, const block_record *record)
{
    mr_table *t = a->t;
    uint32_t columns = 0;
    row *r = adding_row(a, 0, 0);
    if (!r)
        return -1;
    r->key = record->key;
    if (record_decode(t, r, record->bytes, record->len) < 0)
        return -1;
    for (uint32_t c = 0; c < t->columns; c++)
        columns |= (uint32_t)(r->count[c] != 0) << c;
    a->given[a->n] = (given){columns, columns};
    return adding_done(a);
}

static int import_part(adding *a, const char *path)
{
    const block_head *h;
    const uint8_t *content;
    block_record record = {0};
    mr_table *table[TABLES_MAX] = {NULL};
    block_reader *r = block_open(path);
    int more = r ? 1 : -1, one = 0, bad = 0;
    while (more > 0 && !bad && (more = block_next(r, &h, &content)) > 0) {
        size_t at = 0;
        char name[256];
        while (!bad && (one = block_record_next(r, h, content, &at, &record)) > 0) {
            if (h->kind == BLOCK_TABLE) {
                snprintf(name, sizeof name, "%.*s", (int)record.name_len,
                         (const char *)record.name);
                bad = !(table[record.state.id] = adding_table(a, name));
            } else if (h->kind == BLOCK_ROW) {
                mr_table *t = h->table < TABLES_MAX ? table[h->table] : NULL;
                bad =
                    !t ? fail("%s: rows of table number %u, which it does not name", path, h->table)
                       : adding_begin(a, t) || record_add(a, &record);
            }
        }
        bad |= one < 0;
    }
    block_close(r);
    return bad || more < 0 ? -1 : 0;
}

/* ---- all formats ---- */

double mr_import_rows(mr_store *s, mr_table *const *tables, size_t n, const char *path, int format,
                      uint64_t step)
{
    GIVEN(s && tables && path, -1);
    if (!s->preparing)
        return fail("store %s: rows to import: no commit was begun", s->dir);
    adding *a = memory_zero(sizeof *a);
    if (!a)
        return -1;
    *a = (adding){.s = s, .table = tables, .tables = n, .step = step};
    int bad = format == MR_EXPORT_TSV   ? import_text(a, path)
              : format == MR_EXPORT_NPY ? import_npy(a, path, tables, n)
                                        : import_part(a, path);
    bad = bad || table_end(a);
    char why[900];
    snprintf(why, sizeof why, "%s", bad ? mr_error() : "");
    if (a->file && rows_file_end(a->file) && !bad) {
        bad = 1;
        snprintf(why, sizeof why, "%s", mr_error());
    }
    double rows = a->rows;
    memory_free(a->incoming);
    memory_free(a->row);
    memory_free(a->kept);
    memory_free(a->record);
    memory_free(a);
    return bad ? fail("%s", why) : rows;
}

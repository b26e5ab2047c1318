/* record.c - rows as the store keeps them, little-endian:
 *
 *   | layout number: u16 | flags, 0: u16 | step of the last update: u64 |
 *   | update count of each column: u32 | of each column whose count is not 0: weights, state |
 *
 * in the order of the layout's columns, f32 or, where the layout says so, bf16. A layout's number says
 * which columns those are: a table whose columns change writes a new one and still reads the old
 * (mr_table_layout). */
#include <string.h>

#include "table/table_room.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "records are little-endian"
#endif

enum { HEAD = 12 };

void record_begin(mr_table *t)
{
    record_layout *l = &t->record[t->record_now = 1];
    l->columns = t->columns;
    for (uint32_t c = 0; c < t->columns; c++)
        l->column[c] =
            (record_column){(int)c, t->column[c].dim, t->column[c].state, t->column[c].half, 1};
}

int mr_table_layout(mr_table *t, int number, const mr_kept_column *columns, size_t n)
{
    GIVEN(t && columns, -1);
    if (number < 1 || number >= LAYOUTS_MAX || n > COLUMNS_MAX)
        return fail("table %s: layout %d of %zu columns, expected 1 to %d of at most %d", t->name,
                    number, n, LAYOUTS_MAX - 1, COLUMNS_MAX);
    for (size_t i = 0; i < n; i++) {
        int32_t in_half = columns[i].half;
        if (!columns[i].name || (in_half != 0 && !(in_half & HALF_WEIGHTS)) ||
            in_half & ~(HALF_WEIGHTS | HALF_STATE))
            return fail(
                "table %s: layout %d, column %zu: it has no name, or a format that is not known",
                t->name, number, i + 1);
    }
    record_layout *l = &t->record[number];
    l->columns = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        record_column *c = &l->column[i];
        *c = (record_column){-1, columns[i].dim, columns[i].state, (uint32_t)columns[i].half, 0};
        for (uint32_t k = 0; k < t->columns; k++)
            if (!strcmp(t->column[k].name, columns[i].name) && t->column[k].dim == c->dim) {
                c->to = (int)k;
                c->keep =
                    t->column[k].optim.kind == columns[i].kind && t->column[k].state == c->state;
            }
    }
    return 0;
}

int mr_table_layout_now(mr_table *t, int number)
{
    GIVEN(t, -1);
    int same = number >= 1 && number < LAYOUTS_MAX && t->record[number].columns == t->columns;
    for (uint32_t c = 0; same && c < t->columns; c++)
        same = t->record[number].column[c].to == (int)c && t->record[number].column[c].keep &&
               t->record[number].column[c].half == t->column[c].half;
    if (!same)
        return fail("table %s: layout %d is not that of its columns", t->name, number);
    t->record_now = (uint32_t)number;
    return 0;
}

size_t table_record_most(const mr_table *t)
{
    size_t len = HEAD;
    for (uint32_t c = 0; c < t->columns; c++)
        len += 4 + column_bytes(t->column[c].dim, t->column[c].state, t->column[c].half);
    return len;
}

static uint8_t *put(uint8_t *to, const void *from, size_t len)
{
    memcpy(to, from, len);
    return to + len;
}

size_t table_encode(const mr_table *t, const void *stored, uint8_t *record)
{
    const row *r = stored;
    uint16_t head[2] = {(uint16_t)t->record_now, 0};
    uint8_t *at = put(record, head, sizeof head);
    at = put(at, &r->step, 8);
    at = put(at, r->count, 4 * t->columns);
    for (uint32_t c = 0; c < t->columns; c++)
        if (r->count[c])
            at = put(at, kept_column(t, r, c),
                     column_bytes(t->column[c].dim, t->column[c].state, t->column[c].half));
    return (size_t)(at - record);
}

static int record_fail(const mr_table *t, uint64_t key, size_t len, unsigned number)
{
    return fail(
        "table %s: the record of key %llu, %zu bytes of layout %u, is damaged or of another "
        "model",
        t->name, (unsigned long long)key, len, number);
}

/* The head of a record, checked against its layout; NULL after fail(). */
static const record_layout *record_head(const mr_table *t, uint64_t key, const uint8_t *record,
                                        size_t len, uint64_t *step, uint32_t *count)
{
    uint16_t head[2] = {0, 0};
    if (len >= HEAD)
        memcpy(head, record, sizeof head);
    const record_layout *l = &t->record[head[0] < LAYOUTS_MAX ? head[0] : 0];
    size_t expected = HEAD + 4 * (size_t)l->columns;
    if (!l->columns || head[1] || len < expected) {
        record_fail(t, key, len, head[0]);
        return NULL;
    }
    memcpy(step, record + 4, 8);
    memcpy(count, record + HEAD, 4 * l->columns);
    for (uint32_t c = 0; c < l->columns; c++)
        if (count[c])
            expected += column_bytes(l->column[c].dim, l->column[c].state, l->column[c].half);
    if (len != expected || !*step) {
        record_fail(t, key, len, head[0]);
        return NULL;
    }
    return l;
}

/* A column of a record, in the table's format. */
static void column_decode(const table_column *c, const record_column *from, const uint8_t *at,
                          float *w)
{
    column_open(at, from->dim, from->keep ? from->state : 0, from->half, w);
    if (!from->keep)
        optimizer_begin(&c->optim, c->dim, w, w + c->dim);
    if (from->half != c->half || !from->keep)
        column_nearest(c, w);
}

static __attribute__((noinline)) void
column_convert(const table_column *c, const record_column *from, const uint8_t *at, void *to)
{
    float w[HALF_DIM_MAX * (1 + VECTORS_MAX)];
    column_decode(c, from, at, w);
    column_close(c, w, 0, to); /* representable: nothing is drawn */
}

static void column_decode_kept(const table_column *c, const record_column *from, const uint8_t *at,
                               void *to)
{
    if (from->half == c->half && from->keep)
        memcpy(to, at, column_bytes(c->dim, c->state, c->half));
    else if (c->half)
        column_convert(c, from, at, to);
    else
        column_decode(c, from, at, to);
}

static int decode(const mr_table *t, row *r, int kept, const uint8_t *record, size_t len)
{
    uint64_t step = 0;
    uint32_t count[COLUMNS_MAX];
    const record_layout *l = record_head(t, r->key, record, len, &step, count);
    if (!l)
        return -1;
    if (step <= t->expired)
        return 1;
    uint32_t have = 0;
    const uint8_t *at = record + HEAD + 4 * l->columns;
    r->step = step;
    for (uint32_t i = 0; i < l->columns; i++) {
        const record_column *from = &l->column[i];
        if (!count[i])
            continue;
        if (from->to >= 0) {
            const table_column *c = &t->column[from->to];
            r->count[from->to] = count[i];
            have |= 1u << from->to;
            if (kept)
                column_decode_kept(c, from, at, kept_column(t, r, (uint32_t)from->to));
            else
                column_decode(c, from, at, row_column(t, r, (uint32_t)from->to));
        }
        at += column_bytes(from->dim, from->state, from->half);
    }
    for (uint32_t c = 0; c < t->columns; c++)
        if (!(have >> c & 1)) {
            r->count[c] = 0;
            if (!kept)
                row_unseen_column(t, r, c);
        }
    return 0;
}

int record_decode(const mr_table *t, row *r, const uint8_t *record, size_t len)
{
    return decode(t, r, 0, record, len);
}

int record_decode_kept(const mr_table *t, row *r, const uint8_t *record, size_t len)
{
    return decode(t, r, t->half, record, len);
}

int table_install(mr_table *t, uint64_t key, const uint8_t *record, size_t len)
{
    uint64_t hash = key_hash(key);
    shard *s = &t->shard[hash_shard(hash)];
    int starved = 0, rc = -1;
    pthread_mutex_lock(&s->lock);
    index_entry *at = shard_place(s, hash);
    row *r = at->slot == NO_SLOT ? shard_add(t, s, key, hash, 0, &at, &starved)
                                 : slot_row(t, s, at->slot);
    if (r && (rc = record_decode_kept(t, r, record, len)))
        shard_remove(t, s, r);
    pthread_mutex_unlock(&s->lock);
    return starved ? 1 : rc < 0 ? -1 : 0;
}

int table_record_check(const mr_table *t, uint64_t key, const uint8_t *record, size_t len,
                       uint64_t *step)
{
    uint32_t count[COLUMNS_MAX];
    return record_head(t, key, record, len, step, count) ? 0 : -1;
}

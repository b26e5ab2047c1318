/* table.c - making a table, what its rows look like, and looking at single ones. table_room.h has
 * the layout of a row. */
#include <stdio.h>
#include <string.h>

#include "table/table_room.h"

/* ---- making and freeing ---- */

static char *copy_text(const char *text)
{
    size_t len = strlen(text) + 1;
    char *copy = memory_new(len);
    return copy ? memcpy(copy, text, len) : NULL;
}

/* Narrow columns stand behind the header, wide ones on lines of their own; in kept rows that are not open
 * one follows another. */
static void layout_rows(mr_table *t)
{
    uint32_t at = sizeof(row) + 4 * t->columns;
    for (int wide = 0; wide <= 1; wide++)
        for (uint32_t c = 0; c < t->columns; c++) {
            table_column *column = &t->column[c];
            if ((column->dim >= 16) != wide)
                continue;
            if (wide)
                at = (at + 63) & ~63u;
            column->offset = at;
            at += 4 * (column->dim + column->state);
        }
    t->row_bytes = t->open_bytes = (at + 63) & ~63u;
    for (uint32_t c = 0; c < t->columns; c++)
        t->column[c].kept_offset = t->column[c].offset;
    at = sizeof(row) + 4 * t->columns;
    for (uint32_t c = 0; t->half && c < t->columns; c++) {
        table_column *column = &t->column[c];
        column->kept_offset = at;
        at += ((uint32_t)column_bytes(column->dim, column->state, column->half) + 3) & ~3u;
        t->row_bytes = (at + 63) & ~63u;
    }
    for (uint32_t c = 0; c < t->columns; c++) {
        t->layout[c] = (lookup_column){t->column[c].name, t->column[c].dim, t->column[c].offset / 4,
                                       t->grad_width};
        t->grad_width += t->column[c].dim;
    }
}

static int column_begin(mr_table *t, table_column *to, const mr_column *from, uint64_t seed)
{
    char subject[256];
    if (!from->name)
        return fail("table %s: a column has no name", t->name);
    snprintf(subject, sizeof subject, "table %s, column %s", t->name, from->name);
    if (from->dim < 1 || from->dim > 65535)
        return fail("%s: dim is %u, expected 1 to 65535", subject, from->dim);
    if (init_check(&from->init, subject) || optimizer_check(&from->optim, subject))
        return -1;
    to->name = copy_text(from->name);
    if (!to->name)
        return -1;
    to->init = from->init;
    to->optim = from->optim;
    to->admit = from->admit;
    to->dim = from->dim;
    to->state = optimizer_state(&from->optim, from->dim);
    if (from->half) {
        if (from->dim > HALF_DIM_MAX)
            return fail("%s: dim is %u, expected at most %d in bf16", subject, from->dim,
                        HALF_DIM_MAX);
        to->half = HALF_WEIGHTS | (to->state && optimizer_halves(&from->optim) ? HALF_STATE : 0);
        t->half = 1;
    }
    to->seed = mr_hash(from->name, strlen(from->name), mr_hash(t->name, strlen(t->name), seed));
    return idle_begin(t, t->columns);
}

mr_table *mr_table_new(const char *name, uint32_t id, uint64_t seed, const mr_column *columns,
                       size_t n)
{
    GIVEN(name && columns, NULL);
    if (n < 1 || n > COLUMNS_MAX)
        return fail_null("table %s: %zu columns, expected 1 to %d", name, n, COLUMNS_MAX);
    if (id >= TABLES_MAX)
        return fail_null("table %s: its number is %u, expected 0 to %d", name, id, TABLES_MAX - 1);
    if (!*name || strlen(name) > TABLE_NAME_MOST)
        return fail_null("table %.40s%s: its name has %zu bytes, expected 1 to %d", name,
                         *name ? "..." : "", strlen(name), TABLE_NAME_MOST);
    mr_table *t = memory_zero(sizeof *t);
    if (!t)
        return NULL;
    if (!(t->generation = generation_new())) {
        memory_free(t);
        return NULL;
    }
    double limit = mr_memory_limit();
    pthread_mutex_init(&t->cut_lock, NULL);
    memory_join(&t->memory, "rows", MAX((size_t)(limit / 32), (size_t)4 << 20));
    memory_join(&t->writing, "commits", 0);
    t->id = id;
    t->seed = seed;
    mr_table_drop(t);
    t->resident = 1;
    t->region = (size_t)(limit / SHARDS * 1.5) + ((size_t)4 << 20);
    t->name = copy_text(name);
    int bad = !t->name;
    for (size_t c = 0; c < n && !bad; c++) {
        bad = column_begin(t, &t->column[c], &columns[c], seed);
        t->columns++;
    }
    for (int s = 0; s < SHARDS && !bad; s++)
        bad = shard_begin(t, &t->shard[s]);
    if (bad) {
        mr_table_free(t);
        return NULL;
    }
    layout_rows(t);
    record_begin(t);
    return t;
}

void mr_table_free(mr_table *t)
{
    if (!t)
        return;
    table_attach(t, NULL);
    plans_free(t);
    for (int i = 0; i < SHARDS; i++)
        shard_end(t, &t->shard[i]);
    pthread_mutex_destroy(&t->cut_lock);
    memory_leave(&t->memory);
    memory_leave(&t->writing);
    admission_free(t->admission);
    for (uint32_t c = 0; c < t->columns; c++)
        memory_free(t->column[c].name);
    idle_end(t);
    memory_free(t->merged);
    memory_free(t->sorted);
    memory_free(t->name);
    generation_free(t->generation);
    memory_free(t);
}

void table_attach(mr_table *t, const table_store *s)
{
    if (t->store.store == (s ? s->store : NULL))
        return;
    if (t->store.store) {
        plans_drop(t); /* threads read rows of that store for them */
        mr_table **at = t->store.tables(t->store.store, t);
        while (*at != t)
            at = &(*at)->attached;
        *at = t->attached;
    }
    t->store = s ? *s : (table_store){0};
    if (s) {
        mr_table **first = s->tables(s->store, NULL);
        t->attached = *first;
        *first = t;
    }
}

mr_store *table_attached(const mr_table *t)
{
    return t->store.store;
}

uint32_t table_id(const mr_table *t)
{
    return t->id;
}

const char *table_name(const mr_table *t)
{
    return t->name;
}

double mr_table_rows(const mr_table *t)
{
    GIVEN(t, -1);
    double rows = t->kept;
    for (int s = 0; s < SHARDS; s++)
        rows += (double)t->shard[s].created;
    return rows;
}

double mr_table_cached(const mr_table *t)
{
    GIVEN(t, -1);
    double rows = 0;
    for (int s = 0; s < SHARDS; s++)
        rows += t->shard[s].used;
    return rows;
}

double mr_table_missed(const mr_table *t)
{
    GIVEN(t, -1);
    return t->missed;
}

int mr_table_holds(const mr_table *t, uint64_t key)
{
    GIVEN(t, -1);
    return table_find(t, key) != NULL;
}

int mr_table_resident(const mr_table *t)
{
    GIVEN(t, -1);
    return t->resident;
}

double mr_table_dirty(const mr_table *t)
{
    GIVEN(t, -1);
    double rows = 0;
    for (int s = 0; s < SHARDS; s++)
        rows += (double)t->shard[s].dirty_n;
    return rows;
}

int mr_table_pressed(const mr_table *t)
{
    GIVEN(t, -1);
    double dirty = mr_table_dirty(t), used = mr_table_cached(t);
    int full = 0;
    for (int s = 0; s < SHARDS; s++)
        full |= t->shard[s].refused != 0;
    return (full && dirty * 3 > used) ||
           dirty * (double)(t->row_bytes + 64) * 4 > mr_memory_limit();
}

int mr_table_expiry(mr_table *t, double seconds)
{
    GIVEN(t, -1);
    if (!(seconds >= 0 && seconds < 1e12))
        return fail("table %s: rows expire after %g seconds, expected 0 or more", t->name, seconds);
    t->ttl = (uint64_t)(seconds * 1e6);
    return 0;
}

mr_optim *mr_table_optim(mr_table *t, int c)
{
    GIVEN(t && c >= 0 && (uint32_t)c < t->columns, NULL);
    return &t->column[c].optim;
}

int mr_table_half(const mr_table *t, int c)
{
    GIVEN(t && c >= 0 && (uint32_t)c < t->columns, -1);
    return (int)t->column[c].half;
}

int mr_table_state(const mr_table *t, int c)
{
    GIVEN(t && c >= 0 && (uint32_t)c < t->columns, -1);
    return (int)(t->column[c].dim + t->column[c].state);
}

void mr_table_clear(mr_table *t)
{
    GIVEN(t, );
    mr_table_drop(t);
    ++*t->generation;
    plans_free(t);
    for (int i = 0; i < SHARDS; i++)
        shard_clear(t, &t->shard[i]);
    t->step = t->durable = t->cut_step = t->expired = 0;
    idle_clear(t);
    t->kept = 0;
    t->resident = 1;
    if (t->admission)
        admission_clear(t->admission);
}

/* ---- what the store keeps beside the rows ---- */

void table_state_get(const mr_table *t, table_state *state)
{
    *state = (table_state){.id = t->id,
                           .rows = (uint64_t)mr_table_rows(t),
                           .expired = t->expired,
                           .expiry_commit = t->expiry_commit,
                           .forgotten = t->forgotten};
}

void table_state_set(mr_table *t, const table_state *state, uint64_t step)
{
    t->kept = (double)state->rows;
    t->expired = state->expired;
    t->expiry_commit = state->expiry_commit;
    t->forgotten = state->forgotten;
    t->step = t->durable = t->cut_step = step;
}

void table_resident(mr_table *t, int yes)
{
    t->resident = yes;
}

uint64_t table_ttl(const mr_table *t)
{
    return t->ttl;
}

void table_expire(mr_table *t, uint64_t step, uint64_t commit)
{
    if (step > t->expired)
        plans_drop(t); /* they may hold rows that expire now */
    t->expired = MAX(t->expired, step);
    t->expiry_commit = commit;
}

double table_bytes(const mr_table *t, double rows)
{
    /* the index at its fullest and while it grows; what commits need (cache.c) */
    return rows * (t->row_bytes * 17 / 16.0 + 12 * 1.6 * 1.5 + 40);
}

/* ---- rows ---- */

void row_fresh_column(const mr_table *t, row *r, uint32_t c)
{
    const table_column *column = &t->column[c];
    float *w = row_column(t, r, c);
    init_fill(&column->init, mix64(column->seed ^ mix64(r->key)), column->dim, w);
    optimizer_begin(&column->optim, column->dim, w, w + column->dim);
    column_nearest(column, w);
}

void row_unseen_column(const mr_table *t, row *r, uint32_t c)
{
    if (t->column[c].admit > 1 && admission_zero(t->admission))
        memset(row_column(t, r, c), 0, 4 * (size_t)(t->column[c].dim + t->column[c].state));
    else
        row_fresh_column(t, r, c);
}

void row_fresh(const mr_table *t, uint64_t key, row *r)
{
    r->key = key;
    r->step = 0;
    r->admitted = 0;
    for (uint32_t c = 0; c < t->columns; c++) {
        r->count[c] = 0;
        row_unseen_column(t, r, c);
    }
}

static int peek_found(void *context, size_t i, const uint8_t *bytes, size_t len)
{
    (void)i;
    read_set *s = context;
    return bytes && record_decode(s->t, s->rows[0].row, bytes, len) < 0 ? -1 : 0;
}

double mr_table_peek(mr_table *t, int c, uint64_t key, float *out)
{
    GIVEN(t && out && c >= 0 && (uint32_t)c < t->columns, -1);
    plans_drop(t);
    for (plan *p = t->plans; p; p = p->next)
        if (reads_wait(&p->reads))
            return -1;
    if (!t->resident && !t->store.store)
        return fail("table %s: the store that its rows are in was closed", t->name);
    row *r = table_find(t, key), *spare = NULL;
    int absent = !r || row_expired(t, r);
    if (absent || t->owing || t->half) {
        spare = memory_zero(t->open_bytes);
        if (!spare)
            return -1;
        row_fresh(t, key, spare);
        keyed_row one = {key, spare};
        read_set s = {.t = t, .rows = &one, .n = 1};
        if (!r && !t->resident && t->store.read(t->store.store, t->id, &one, 1, peek_found, &s)) {
            memory_free(spare);
            return -1;
        }
        if (!absent)
            row_open(t, r, spare);
        r = spare;
        row_replay(t, r);
    }
    memcpy(out, row_column(t, r, (uint32_t)c), 4 * (size_t)mr_table_state(t, c));
    double count = r->step ? r->count[c] : 0;
    memory_free(spare);
    return count;
}

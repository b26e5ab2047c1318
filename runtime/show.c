/* show.c - rows as lookups have them, where the table's own will not do: their columns are in half
 * precision, or they owe the steps that they idled (idle.c). Such a row is copied into the tape's arena,
 * with floats that are up to date. A push updates the copy and puts it back; evaluation forgets it. */
#include <string.h>

#include "half.h"
#include "kernel.h"
#include "table_room.h"

enum { SHOW_PIECE = 512 }; /* uniques */

KERNEL_PICK(half_functions, half_functions)

const half_functions *half(void)
{
    return half_functions_pick();
}

/* ---- a column ---- */

size_t column_bytes(uint32_t dim, uint32_t state, uint32_t in_half)
{
    return (size_t)dim * (in_half & HALF_WEIGHTS ? 2 : 4) +
           (size_t)state * (in_half & HALF_STATE ? 2 : 4);
}

static const uint8_t *open_some(const uint8_t *from, size_t n, uint32_t in_half, float *to)
{
    if (in_half)
        half()->open(from, n, to);
    else
        memcpy(to, from, 4 * n);
    return from + (in_half ? 2 : 4) * n;
}

static uint8_t *close_some(const float *from, size_t n, uint32_t in_half, uint64_t seed,
                           uint8_t *to)
{
    if (in_half)
        half()->close(from, n, seed, to);
    else
        memcpy(to, from, 4 * n);
    return to + (in_half ? 2 : 4) * n;
}

void column_open(const void *from, uint32_t dim, uint32_t state, uint32_t in_half, float *to)
{
    from = open_some(from, dim, in_half & HALF_WEIGHTS, to);
    open_some(from, state, in_half & HALF_STATE, to + dim);
}

void column_close(const table_column *c, const float *w, uint64_t seed, void *to)
{
    to = close_some(w, c->dim, c->half & HALF_WEIGHTS, mix64(seed), to);
    close_some(w + c->dim, c->state, c->half & HALF_STATE, mix64(~seed), to);
}

void column_nearest(const table_column *c, float *w)
{
    for (uint32_t i = 0; c->half & HALF_WEIGHTS && i < c->dim; i++)
        w[i] = half_nearest(w[i]);
    for (uint32_t i = 0; c->half & HALF_STATE && i < c->state; i++)
        w[c->dim + i] = half_nearest(w[c->dim + i]);
}

/* ---- a row ---- */

void row_open(const mr_table *t, const row *kept, row *open)
{
    if (!t->half) {
        memcpy(open, kept, t->row_bytes);
        return;
    }
    memcpy(open, kept, sizeof(row) + 4 * t->columns);
    for (uint32_t c = 0; c < t->columns; c++) {
        const table_column *column = &t->column[c];
        if (kept->count[c])
            column_open(kept_column(t, kept, c), column->dim, column->state, column->half,
                        row_column(t, open, c));
        else if (kept->admitted >> c & 1)
            row_fresh_column(t, open, c);
        else
            row_unseen_column(t, open, c);
    }
}

void row_close(const mr_table *t, const row *open, row *kept, uint32_t columns)
{
    for (uint32_t c = 0; c < t->columns; c++)
        if (columns >> c & 1 && open->count[c]) {
            const table_column *column = &t->column[c];
            const float *w = row_column(t, (row *)open, c);
            kept->count[c] = open->count[c];
            column_close(column, w, random_at(column->seed ^ mix64(kept->key), kept->step),
                         kept_column(t, kept, c));
        }
}

void kept_fresh(const mr_table *t, uint64_t key, row *r)
{
    if (!t->half) {
        row_fresh(t, key, r);
        return;
    }
    r->key = key;
    r->step = 0;
    r->admitted = 0;
    memset(r->count, 0, 4 * t->columns);
}

/* ---- the rows of a lookup ---- */

typedef struct showing {
    const mr_table *t;
    lookup *l;
    void **shown;
    char *copies;
    uint32_t *begin; /* [pieces + 1]: copies before those of a piece */
} showing;

static int row_owes(const mr_table *t, const row *r)
{
    return t->owing && r->step && r->step < t->step;
}

static void show_count(void *context, size_t piece)
{
    const showing *s = context;
    uint32_t n = 0, end = MIN((uint32_t)(piece + 1) * SHOW_PIECE, s->l->unique);
    for (uint32_t u = (uint32_t)piece * SHOW_PIECE; u < end; u++)
        n += (uint32_t)(s->t->half || row_owes(s->t, s->l->home[u]));
    s->begin[piece + 1] = n;
}

static void show_piece(void *context, size_t piece)
{
    const showing *s = context;
    const mr_table *t = s->t;
    uint32_t end = MIN((uint32_t)(piece + 1) * SHOW_PIECE, s->l->unique);
    char *copy = s->copies + (size_t)s->begin[piece] * t->open_bytes;
    for (uint32_t u = (uint32_t)piece * SHOW_PIECE; u < end; u++) {
        row *r = s->l->home[u];
        int owes = row_owes(t, r);
        s->shown[u] = r;
        if (!t->half && !owes)
            continue;
        s->shown[u] = copy;
        row_open(t, r, s->shown[u]);
        if (owes)
            row_replay(t, s->shown[u]);
        copy += t->open_bytes;
    }
}

int rows_show(const mr_table *t, lookup *l, arena *a)
{
    if (!t->half && !t->owing)
        return 0;
    size_t pieces = (l->unique + SHOW_PIECE - 1) / SHOW_PIECE;
    showing s = {.t = t,
                 .l = l,
                 .shown = arena_take(a, l->unique * sizeof *s.shown),
                 .begin = arena_take(a, (pieces + 1) * sizeof *s.begin)};
    if (!s.shown || !s.begin)
        return -1;
    parallel(pieces, show_count, &s);
    s.begin[0] = 0;
    for (size_t i = 0; i < pieces; i++)
        s.begin[i + 1] += s.begin[i];
    s.copies = arena_take(a, (size_t)s.begin[pieces] * t->open_bytes);
    if (!s.copies)
        return -1;
    parallel(pieces, show_piece, &s);
    l->row = s.shown;
    return 0;
}

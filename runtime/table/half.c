/* half.c - columns and rows as a table keeps them, and open, with floats (table_room.h). They differ where a
 * column is in half precision. */
#include "kernel/half.h"

#include <string.h>

#include "kernel/kernel.h"
#include "table/table_room.h"

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

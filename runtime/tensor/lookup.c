/* lookup.c - lookups on a tape: of a table, and from rows that are given as they are, as gradcheck
 * needs it: what a table's pull leaves (lookup.h), made by sorting the keys of the batch. */
#include "table/lookup.h"

#include "base/profile.h"
#include "table/table.h"
#include "tensor/tape.h"

int mr_table_pull(mr_table *t, mr_tape *tape, const mr_batch *batch)
{
    GIVEN(t && tape && batch, -1);
    PROFILE(PART_PULL);
    lookup *l = NULL;
    lookup_for step = {tape_arena(tape), mr_tape_generation(tape), tape_step(tape),
                       tape_training(tape)};
    int rc = table_lookup(t, &step, batch, &l);
    if (rc)
        return rc;
    int number = tape_lookup_add(tape, l);
    if (number < 0)
        lookup_forget(l);
    else if (step.training)
        table_lookup_keep(t, l, step.generation);
    return number;
}

/* ---- from rows ---- */

typedef struct keyed {
    uint64_t key;
    uint32_t entry;
} keyed;

static int keyed_compare(const void *pa, const void *pb)
{
    const keyed *a = pa, *b = pb;
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    return (a->entry > b->entry) - (a->entry < b->entry);
}

static void sort(keyed *k, size_t n) /* shell sort: qsort may call malloc, and n is small */
{
    for (size_t gap = n / 2; gap; gap = gap == 2 ? 1 : gap * 5 / 11)
        for (size_t i = gap; i < n; i++) {
            keyed moving = k[i];
            size_t j = i;
            for (; j >= gap && keyed_compare(&k[j - gap], &moving) > 0; j -= gap)
                k[j] = k[j - gap];
            k[j] = moving;
        }
}

int mr_tape_lookup(mr_tape *t, const mr_batch *b, const int32_t *dims, int columns,
                   const double *rows, int unique)
{
    GIVEN(t && b && dims && rows, -1);
    if (columns < 1 || columns > 32)
        return fail("lookup: %d columns, expected 1 to 32", columns);
    arena *a = tape_arena(t);
    size_t width = 0, entries = (size_t)b->entries;
    for (int c = 0; c < columns; c++)
        width += (size_t)dims[c];
    lookup *l = arena_take(a, sizeof *l);
    lookup_column *column = arena_take(a, sizeof *column * (size_t)columns);
    keyed *order = arena_take(a, sizeof *order * entries);
    uint32_t *at = arena_take(a, sizeof *at * entries);
    uint32_t *start = arena_take(a, sizeof *start * ((size_t)unique + 1));
    occurrence *o = arena_take(a, sizeof *o * entries);
    void **row = arena_take(a, sizeof *row * (size_t)unique);
    char *copy = arena_take(a, width * (size_t)unique * tape_real(t));
    if (!l || !column || !order || !at || !start || !o || !row || !copy)
        return -1;
    for (size_t e = 0; e < entries; e++)
        order[e] = (keyed){b->keys[e], (uint32_t)e};
    sort(order, entries);
    size_t u = 0;
    for (size_t i = 0; i < entries; i++) {
        if (i == 0 || order[i].key != order[i - 1].key) {
            if (u == (size_t)unique)
                return fail("lookup: the batch has more than %d distinct keys", unique);
            start[u++] = (uint32_t)i;
        }
        at[order[i].entry] = (uint32_t)u - 1;
        o[i].entry = order[i].entry;
    }
    if (u != (size_t)unique)
        return fail("lookup: the batch has %zu distinct keys, expected %d", u, unique);
    start[u] = (uint32_t)entries;
    for (size_t i = 0; i < entries; i++)
        for (int32_t s = 0; s < b->n; s++)
            if (o[i].entry >= b->offsets[s] && o[i].entry < b->offsets[s + 1])
                o[i].sample = (uint32_t)s;
    for (size_t i = 0, offset = 0; i < (size_t)columns; offset += (size_t)dims[i++])
        column[i] = (lookup_column){"", (uint32_t)dims[i], (uint32_t)offset, (uint32_t)offset};
    for (size_t i = 0; i < width * (size_t)unique; i++)
        if (tape_real(t) == sizeof(double))
            ((double *)copy)[i] = rows[i];
        else
            ((float *)copy)[i] = (float)rows[i];
    for (size_t i = 0; i < (size_t)unique; i++)
        row[i] = copy + i * width * tape_real(t);
    *l = (lookup){.batch = b,
                  .table = "given",
                  .column = column,
                  .columns = (uint32_t)columns,
                  .unique = (uint32_t)unique,
                  .grad_width = (uint32_t)width,
                  .at = at,
                  .row = row,
                  .start = tape_training(t) ? start : NULL,
                  .occurrence = tape_training(t) ? o : NULL};
    return tape_lookup_add(t, l);
}

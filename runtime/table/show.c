/* show.c - rows as lookups have them, where the table's own will not do: their columns are in half
 * precision, or they owe the steps that they idled (idle.c). Such a row is copied into the tape's arena,
 * with floats that are up to date. A push updates the copy and puts it back; evaluation forgets it. */
#include "table/table_room.h"

enum { SHOW_PIECE = 512 }; /* uniques */

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

/* generation.c - counters that outlive what they count. A tape counts its steps in one, a reader its batches;
 * whoever keeps a pointer into their memory keeps the counter and its value, and knows by comparing both
 * whether that memory is still what it was, also when the tape or the reader is long gone.
 *
 * Counters are never freed and never counted down: one that is given back goes on where it stood. They are
 * doubles, as Lua reads them. One thread calls. */
#include "base/base.h"

enum { CELLS = 64 };

typedef struct cells {
    double value[CELLS];
    struct cells *next;
} cells;

static struct {
    cells *all;
    double **spare; /* [spares], with room for every counter there is */
    size_t spares, room, made;
} counters;

double *generation_new(void)
{
    if (!counters.spares) {
        if (memory_reserve((void **)&counters.spare, &counters.room, counters.made + CELLS,
                           sizeof *counters.spare))
            return NULL;
        cells *more = memory_zero(sizeof *more);
        if (!more)
            return NULL;
        more->next = counters.all;
        counters.all = more;
        counters.made += CELLS;
        for (int i = CELLS; i-- > 0;)
            counters.spare[counters.spares++] = &more->value[i];
    }
    double *counter = counters.spare[--counters.spares];
    ++*counter;
    return counter;
}

void generation_free(double *counter)
{
    if (!counter)
        return;
    ++*counter;
    counters.spare[counters.spares++] = counter;
}

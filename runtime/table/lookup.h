/* lookup.h - what a pull of a table leaves for the operations of a tape: which row each entry of
 * the batch means, and the other way round, which entries mean a row.
 *
 * "Unique u" is the u-th distinct key of the batch. Rows are read in place: row[u] points at the
 * row in the table's slab (or at a copy in the tape's arena: fresh, replayed, or with floats for what is
 * kept in half precision), and the weights of column c start `column[c].offset` reals behind it. Gradients of unique u stand in grad + u * grad_width,
 * those of column c at column[c].grad_offset. All of it lives in the tape's arena. */
#ifndef MR_LOOKUP_H
#define MR_LOOKUP_H

#include "moonrock.h"

typedef struct lookup_column {
    const char *name;
    uint32_t dim;
    uint32_t offset;      /* in reals, from the row's pointer */
    uint32_t grad_offset; /* in reals */
} lookup_column;

/* One entry of the batch and the sample that owns it. */
typedef struct occurrence {
    uint32_t entry;
    uint32_t sample;
} occurrence;

typedef struct lookup {
    const mr_batch *batch;
    /* The batch is what it was while *batch_now is batch_then, and so are the rows of the table. NULL: they
     * stay. */
    const double *batch_now, *table_now;
    double batch_then, table_then;
    const char *table; /* name, for messages */
    const lookup_column *column;
    uint32_t columns;
    uint32_t unique;     /* number of distinct keys */
    uint32_t grad_width; /* reals a unique */
    const uint32_t *at;  /* [entries]: the unique of each entry */
    void **row;          /* [unique] */
    void **home;         /* [unique]: the table's own, which row[u] may be a copy of (show.c) */
    /* Only on a training tape: the occurrences of unique u, in the order of the samples, are
     * occurrence[start[u]] .. occurrence[start[u + 1]). */
    const uint32_t *start;
    const occurrence *occurrence;
    /* [unique, grad_width] reals, or NULL until a backward pass adds to it (lookup_grad()). After
     * a pass every column is set, to 0 where there was no gradient. */
    void *grad;
    uint32_t touched;      /* bit c: column c got a gradient */
    uint32_t set;          /* bit c: column c of grad is not undefined */
    const uint32_t *shard; /* [SHARDS + 1]: the uniques of a table's shard (table_room.h) */
    struct lookup *next;   /* the table's, in the order of the pulls of this step */
    int *in_use;           /* NULL, or set to 0 when the tape forgets the lookup */
} lookup;

/* It is on no tape (any more): its rows may go. */
static inline void lookup_forget(lookup *l)
{
    if (l->in_use)
        *l->in_use = 0;
}

#endif

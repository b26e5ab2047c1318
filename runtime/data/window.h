/* window.h - samples in the order in which they are given out: an epoch is cut into windows of a
 * fixed number of records, and each one is shuffled by itself.
 *
 * Two windows take turns: one is drained while the next is filled, a little with each batch, so
 * that no batch waits for a whole window. With samples kept in memory, windows are ranges of
 * them and filling costs nothing. */
#ifndef MR_WINDOW_H
#define MR_WINDOW_H

#include "data/scan.h"

typedef struct window {
    samples own;
    const samples *from; /* own, or what is kept in memory */
    size_t low, n;       /* the samples from->[low..low + n) */
    uint32_t *order;     /* [n] when shuffled: the first `given` are given out, or swapped in */
    size_t order_room;
    size_t given;
    int64_t epoch;
    int64_t first; /* number of its first record */
    int64_t index; /* within the epoch, when shuffled */
    int complete;  /* all its samples are there */
    int last;      /* and none of the epoch come after */
} window;

typedef struct windows {
    mr_reader_options options;
    scan scan;
    window pair[2];
    int current;  /* pair[current] is drained, the other one filled */
    int64_t span; /* records of a window */
    int shuffled;
    samples kept; /* in memory */
    int in_memory;
    int in_place;         /* batches are views of it */
    int64_t kept_records; /* records of an epoch; 0: not known yet */
    /* the filling end */
    int64_t fill_epoch, fill_record, fill_index;
    size_t fill_give; /* samples of the first window that were given out before */
    int filling;      /* the other one was begun */
    int exhausted;    /* no epoch is left to begin */
} windows;

int windows_open(windows *w, const mr_reader_options *o, const atomic_int *stop);
void windows_close(windows *w);

/* Starts at a position. Reads what is to be kept in memory first. Codes of scan.h. */
int windows_seek(windows *w, mr_position from);

/* The window to take samples from, advanced if it is used up and not its epoch's last one.
 * Fills it first, as far as is needed: SCAN_MORE, SCAN_END when all epochs are over, ... */
int windows_ready(windows *w, int64_t wanted);

/* Goes on to the next epoch. */
int windows_next_epoch(windows *w, int64_t wanted);

/* Fills the next window by up to n records. */
int windows_ahead(windows *w, int64_t n);

/* Moves up to n samples of the current window to `out`, which they replace where they are kept in place; how
 * many, or -1. */
int64_t windows_take(windows *w, size_t n, samples *out);

/* Samples left in the current window. */
static inline size_t window_left(const window *v)
{
    return v->n - v->given;
}

#endif

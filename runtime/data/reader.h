/* reader.h - the reader's own half; mr_reader is declared in moonrock.h. */
#ifndef MR_READER_H
#define MR_READER_H

#include <pthread.h>
#include <stdatomic.h>

#include "data/window.h"

/* A full ring wakes its thread when BURST slots are free. Beside the consumer's batch three are there then, which
 * is enough for those that tables look up ahead. */
enum { RING = 6, BURST = 2 };

typedef struct slot {
    samples samples;
    mr_batch batch;
    double progress;
} slot;

struct mr_reader {
    mr_batch batch;     /* what the consumer sees */
    double *generation; /* counts them */
    double progress;
    mr_reader_options options;
    windows windows; /* the thread's */
    pthread_t thread;
    int started;
    atomic_int stop;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    slot ring[RING];
    uint64_t made, taken; /* batches; slot i % RING */
    int holding;          /* the consumer has one of them */
    int ended;            /* no more will be made */
    int failed;           /* because of: */
    char error[1024];
    char where[1024]; /* of mr_reader_where */
    double bad;
    char first_bad[1024];
};

#endif

/* place.h - which file and line a record came from. Lines mostly go on by one from record to
 * record, so only the records are kept at which they do not. */
#ifndef MR_PLACE_H
#define MR_PLACE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

typedef struct place {
    int64_t record;
    uint64_t line; /* in its file, from 1 */
    size_t file;   /* number of the source's file */
} place;

typedef struct places {
    place last;           /* the record noted last */
    int64_t most;         /* the highest one noted before a jump */
    pthread_mutex_t lock; /* of what follows: one thread notes, another one asks */
    place *at;            /* [n] by record */
    size_t n, room;
} places;

void places_open(places *p);
void places_close(places *p);

int places_jump(places *p, place here);

/* Notes where a record is, each one in the order of reading. 0, or -1. */
static inline int places_note(places *p, place here)
{
    if (here.record == p->last.record + 1 && here.line == p->last.line + 1 &&
        here.file == p->last.file) {
        p->last = here;
        return 0;
    }
    return places_jump(p, here);
}

/* Where a record is: 1, or 0 if that is not known any more. */
int places_find(places *p, int64_t record, place *out);

#endif

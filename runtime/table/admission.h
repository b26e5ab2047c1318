/* admission.h - which keys are worth a row; the inside of moonrock.h's mr_admission. */
#ifndef MR_ADMISSION_H
#define MR_ADMISSION_H

#include "moonrock.h"

enum { FILTER_PAGE = 4096, FILTER_PARTS = 16 };

typedef struct admission {
    mr_admission options;
    uint64_t seed;
    /* The counting Bloom filter, where keys are counted: FILTER_PARTS parts, one for each shard, so that
     * threads that have a shard each share nothing. */
    uint8_t *bytes; /* two counters of 4 bits each */
    size_t len;     /* a multiple of FILTER_PAGE */
    size_t part;    /* counters of a part */
    int hashes;
    uint8_t *changed; /* [len / FILTER_PAGE]: 1 since the last cut, 2 in it */
} admission;

admission *admission_new(const mr_admission *options, uint64_t seed);
void admission_free(admission *a);
/* Forgets all sightings, before those of another state are loaded. */
void admission_clear(admission *a);

/* Counts a sighting of the key of a hash and returns how often it has been seen, at most 15. It never
 * tells too few. */
unsigned admission_count(admission *a, unsigned part, uint64_t hash);
/* The same without counting. */
unsigned admission_seen(const admission *a, unsigned part, uint64_t hash);

/* The pages of the last cut are durable, or (0) to be committed again. */
void admission_cut_end(admission *a, int durable);

/* Whether columns are 0 until they are admitted, not what they will begin with. a may be NULL. */
static inline int admission_zero(const admission *a)
{
    return a && !a->options.initial;
}

#endif

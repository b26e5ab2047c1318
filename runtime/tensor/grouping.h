/* grouping.h - samples that have a key in common. */
#ifndef MR_GROUPING_H
#define MR_GROUPING_H

#include "base/base.h"

/* Groups are numbered in the order in which their keys come first. */
typedef struct grouping {
    size_t groups;
    uint32_t *of;     /* [n]: the group of each sample */
    uint32_t *start;  /* [groups + 1] */
    uint32_t *member; /* [n]: samples start[g] .. start[g + 1) of group g, ascending */
} grouping;

/* Groups n samples by their keys, in the arena; -1 after fail(). */
int grouping_make(arena *a, const uint64_t *keys, size_t n, grouping *out);

#endif

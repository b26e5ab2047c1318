/* profile.h - marks around what a profile tells apart; they cost a comparison while nobody asks. */
#ifndef MR_PROFILE_H
#define MR_PROFILE_H

/* Parts of a step; the operations follow, forward and then backward, in the order of op_code. */
enum {
    PART_OTHER,
    PART_READ,
    PART_AHEAD,
    PART_PULL,
    PART_DEDUPE,
    PART_CLIP,
    PART_PUSH,
    PART_PARAMS,
    PART_COMMIT,
    PART_OPERATIONS
};

enum { PROFILE_OPERATIONS = 128 }; /* there are at most */

/* The operations register their names: name(code), code below n. */
void profile_operations(const char *(*name)(int code), int n);

extern int profiling;
void profile_begin(int part);
void profile_end(void);

static inline int profile_enter(int part)
{
    if (profiling)
        profile_begin(part);
    return profiling;
}

static inline void profile_leave(const int *on)
{
    if (*on)
        profile_end();
}

/* The time from here to the end of the block is the part's. */
#define PROFILE(part)                                                                              \
    __attribute__((cleanup(profile_leave), unused)) const int profile_on = profile_enter(part)

#endif

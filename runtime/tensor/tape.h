/* tape.h - what the rooms next to the tape see of it. */
#ifndef MR_TAPE_H
#define MR_TAPE_H

#include "base/base.h"
#include "table/lookup.h"

/* The arena whose memory lasts until the tape is reset. */
arena *tape_arena(mr_tape *t);

/* 1 while the tape records for training, 0 for evaluation. */
int tape_training(const mr_tape *t);

/* The step under way, from 1. */
uint64_t tape_step(const mr_tape *t);

/* Bytes of a real on this tape: 4, or 8 on one that checks gradients. */
size_t tape_real(const mr_tape *t);

/* Hands a lookup (in the tape's arena) to the tape; returns its number on it, or -1. */
int tape_lookup_add(mr_tape *t, lookup *l);

#endif

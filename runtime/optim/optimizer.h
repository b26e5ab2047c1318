/* optimizer.h - the update rules, for rows and for dense weights alike. */
#ifndef MR_OPTIMIZER_H
#define MR_OPTIMIZER_H

#include "moonrock.h"

enum { VECTORS_MAX = 8 };

/* State: so many floats for each weight, a vector after another, then so many for the row. */
uint32_t optimizer_vectors(const mr_optim *o); /* 0 to VECTORS_MAX */
uint32_t optimizer_floats(const mr_optim *o);  /* 0 or 1 */

/* Floats of state of a row of n weights. */
uint32_t optimizer_state(const mr_optim *o, uint32_t n);

/* 1 if the update of a weight depends on the others of its row, so that dense weights must come by
 * rows too: those of the last axis. */
int optimizer_by_row(const mr_optim *o);

/* 1 if the state may be in half precision: it is a mean or a sum, whose mean rounding by chance leaves as it
 * is. Not so a maximum, one float for a row is not worth it, and a caller's rule is not known. */
int optimizer_halves(const mr_optim *o);

/* Sets up the state of n fresh weights w. */
void optimizer_begin(const mr_optim *o, size_t n, const float *w, float *state);

/* One update of w[0..n) by the gradient g. t is the update's number, from 1: the row's own, or the
 * model's for dense weights and where o->global_step says so. */
typedef void optimizer_rule(const mr_optim *o, uint64_t t, size_t n, const float *g, float *w,
                            float *state);

/* The rule of o->kind, in the variant for this processor; NULL: it is the caller's. */
optimizer_rule *optimizer_of(const mr_optim *o);

/* -1 after fail() if a setting is out of range; `subject` starts the message. */
int optimizer_check(const mr_optim *o, const char *subject);

/* So many updates, at most IDLE_STEPS, of idle weights: by l2 w alone, t from the first on, lr of each. */
enum { IDLE_STEPS = 256 };
typedef void idle_rule(const mr_optim *o, uint64_t t, size_t steps, const double *lr, size_t n,
                       float *w, float *state);

/* Those of kernel_idle.c, by mr_optim_kind; NULL: the rule itself does it. */
typedef struct idle_rules {
    idle_rule *rule[MR_ADAMW + 1];
} idle_rules;

/* clip.c: g *= scale; then, if value is not 0, each is held within -value .. value. Returns the sum of
 * their squares. */
double gradient_squares(float *g, size_t n, float scale, float value);

/* The rules, by mr_optim_kind: one such table for each instruction set (kernel.h). */
typedef struct optimizer_rules {
    optimizer_rule *rule[MR_CENTERED_RMSPROP + 1];
} optimizer_rules;

#endif

/* optimizer.c - which rule an optimizer means, the state it needs, and the settings it takes. */
#include "optim/optimizer.h"

#include <math.h>

#include "kernel/kernel.h"

KERNEL_PICK(optimizer_rules, optimizer_rules)

uint32_t optimizer_vectors(const mr_optim *o)
{
    switch (o->kind) {
    case MR_SGD:
        return o->momentum != 0;
    case MR_ROW_ADAGRAD:
        return 0;
    case MR_ADAGRAD:
    case MR_LION:
        return 1;
    case MR_RMSPROP:
        return 1 + (o->momentum != 0);
    case MR_CENTERED_RMSPROP:
        return 2 + (o->momentum != 0);
    case MR_AMSGRAD:
        return 3;
    default:
        return o->kind >= MR_USER ? (uint32_t)o->vectors : 2;
    }
}

uint32_t optimizer_floats(const mr_optim *o)
{
    return o->kind == MR_ROW_ADAGRAD;
}

uint32_t optimizer_state(const mr_optim *o, uint32_t n)
{
    return optimizer_vectors(o) * n + optimizer_floats(o);
}

int optimizer_by_row(const mr_optim *o)
{
    return o->group > 0 || optimizer_floats(o);
}

int optimizer_halves(const mr_optim *o)
{
    return o->kind != MR_AMSGRAD && o->kind != MR_ROW_ADAGRAD && o->kind < MR_USER;
}

void optimizer_begin(const mr_optim *o, size_t n, const float *w, float *state)
{
    int adagrad = o->kind == MR_ADAGRAD || o->kind == MR_ROW_ADAGRAD;
    size_t floats = optimizer_state(o, (uint32_t)n);
    for (size_t i = 0; i < floats; i++)
        state[i] = adagrad || o->kind >= MR_USER ? (float)o->init : 0;
    if (o->kind != MR_FTRL)
        return;
    double squares = 0; /* z such that w(z, n = 0) is the fresh weight */
    for (size_t i = 0; i < n; i++)
        squares += (double)w[i] * w[i];
    double h =
        o->beta / o->lr + o->l2 + (o->group > 0 && squares > 0 ? o->group / sqrt(squares) : 0);
    for (size_t i = 0; i < n; i++)
        if (w[i] != 0)
            state[i] = (float)(-w[i] * h - copysign(o->l1, w[i]));
}

optimizer_rule *optimizer_of(const mr_optim *o)
{
    return o->kind >= MR_USER ? NULL : optimizer_rules_pick()->rule[o->kind];
}

int optimizer_check(const mr_optim *o, const char *subject)
{
    if (o->kind < MR_SGD || (o->kind > MR_CENTERED_RMSPROP && o->kind < MR_USER))
        return fail("%s: optimizer kind %d is unknown", subject, o->kind);
    if (o->vectors < 0 || o->vectors > VECTORS_MAX)
        return fail("%s: %d vectors of state, expected 0 to %d", subject, o->vectors, VECTORS_MAX);
    const struct {
        const char *name;
        double value;
        double below; /* the value's upper bound, not reached */
    } setting[] = {
        {"lr", o->lr, INFINITY},       {"l1", o->l1, INFINITY},      {"l2", o->l2, INFINITY},
        {"group", o->group, INFINITY}, {"beta", o->beta, INFINITY},  {"beta1", o->beta1, 1},
        {"beta2", o->beta2, 1},        {"eps", o->eps, INFINITY},    {"init", o->init, INFINITY},
        {"fade", o->fade, 1},          {"momentum", o->momentum, 1}, {"decay", o->decay, INFINITY},
    };
    for (size_t i = 0; i < sizeof setting / sizeof *setting; i++)
        if (!(setting[i].value >= 0 && setting[i].value < setting[i].below))
            return fail("%s: %s is %g, expected a number from 0 to below %g", subject,
                        setting[i].name, setting[i].value, setting[i].below);
    if (o->fade_every < 0)
        return fail("%s: fade_every is %d, expected a whole number from 0", subject, o->fade_every);
    if (o->nesterov && o->momentum == 0)
        return fail("%s: nesterov looks ahead along the momentum, which is 0", subject);
    if ((o->l2_table || o->decay_table) && !(o->idle_steps >= 1 && o->idle_steps <= 1 << 20))
        return fail("%s: idle_steps is %d, expected 1 to %d", subject, o->idle_steps, 1 << 20);
    if (o->kind == MR_FTRL && o->l2_table)
        return fail("%s: FTRL keeps its l2 within the weights; it has none by table", subject);
    if (o->kind == MR_FTRL && !(o->lr > 0))
        return fail("%s: lr of FTRL is %g, expected more than 0", subject, o->lr);
    return 0;
}

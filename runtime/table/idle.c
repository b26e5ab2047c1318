/* idle.c - rows that shrink in every step, also in those whose batch has not got them.
 *
 * Where a column's l2 or decay is of the whole table, a row that was updated in step s owes the steps
 * s + 1 .. t - 1 when it is looked up in step t. They are replayed then, on a copy that the lookup shows
 * instead of the row (show.c). So rows change in pushes only, and what is committed or evicted is a row as
 * its last update left it. With the gradient l2 w:
 *
 *     sgd without momentum    w *= prod_i (1 - lr_i l2)
 *     decay alone             w *= prod_i (1 - lr_i decay)
 *     any other               the rule itself, step by step, which counts as an update each
 *
 * Of the last kind, the last idle_steps steps are replayed: all if there were no more. The learning rates
 * are kept by step, as change points: exactly for that many steps, and as one mean for those before. Steps
 * before the first point are owed by nobody: the setting was not there yet. A column that is absent from a
 * row, and a key without a row, owe nothing: they hold fresh values. */
#include <math.h>
#include <string.h>

#include "kernel/kernel.h"
#include "table/table_room.h"

static float zero[65536]; /* a gradient; never written */

KERNEL_PICK(idle_rules, idle_rules)

int idle_begin(mr_table *t, uint32_t c)
{
    table_column *column = &t->column[c];
    const mr_optim *o = &column->optim;
    if (!o->l2_table && !o->decay_table)
        return 0;
    t->owing |= 1u << c;
    column->rates.room = 2 * (size_t)o->idle_steps + 2;
    column->rates.rate = memory_new(column->rates.room * sizeof(rate));
    return column->rates.rate ? 0 : -1;
}

void idle_end(mr_table *t)
{
    for (uint32_t c = 0; c < COLUMNS_MAX; c++)
        memory_free(t->column[c].rates.rate);
}

void idle_clear(mr_table *t)
{
    for (uint32_t c = 0; c < t->columns; c++)
        t->column[c].rates.n = 0;
}

/* ---- learning rates ---- */

/* Leaves the last `stay` points, and their predecessors as one. */
static void rates_forget(rates *r, size_t stay)
{
    size_t old = r->n - stay;
    double sum = 0;
    for (size_t i = 0; i < old; i++)
        sum += r->rate[i].lr * (double)(r->rate[i + 1].from - r->rate[i].from);
    r->rate[0].lr = sum / (double)(r->rate[old].from - r->rate[0].from);
    memmove(r->rate + 1, r->rate + old, stay * sizeof *r->rate);
    r->n = stay + 1;
}

void idle_note(mr_table *t, uint64_t step)
{
    t->step = step;
    for (uint32_t c = 0; c < t->columns; c++) {
        rates *r = &t->column[c].rates;
        double lr = (double)t->column[c].optim.lr;
        if (!(t->owing >> c & 1) || (r->n && r->rate[r->n - 1].lr == lr))
            continue;
        if (r->n == r->room)
            rates_forget(r, (size_t)t->column[c].optim.idle_steps);
        r->rate[r->n++] = (rate){step, lr};
    }
}

/* The point that holds in a step, which is not before the first. */
static size_t rates_at(const rates *r, uint64_t step)
{
    size_t low = 0, high = r->n;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (r->rate[middle].from <= step)
            low = middle;
        else
            high = middle;
    }
    return low;
}

const void *mr_table_rates(const mr_table *t, int c, size_t *len)
{
    GIVEN(t && len && c >= 0 && (uint32_t)c < t->columns, NULL);
    const rates *r = &t->column[c].rates;
    *len = r->n * sizeof *r->rate;
    return r->rate;
}

int mr_table_rates_load(mr_table *t, int c, const void *bytes, size_t len)
{
    GIVEN(t && bytes && c >= 0 && (uint32_t)c < t->columns, -1);
    table_column *column = &t->column[c];
    rates *r = &column->rates;
    size_t n = len / sizeof(rate), from = 0;
    if (!r->rate)
        return 0;
    const rate *kept = bytes;
    int bad = len % sizeof(rate) != 0;
    for (size_t i = 0; i < n && !bad; i++)
        bad = !(kept[i].lr >= 0 && isfinite(kept[i].lr)) || (i && kept[i].from <= kept[i - 1].from);
    if (bad)
        return fail(
            "table %s, column %s: the learning rates that were kept, %zu bytes, are damaged",
            t->name, column->name, len);
    if (n > r->room) /* idle_steps was larger */
        from = n - r->room;
    memcpy(r->rate, kept + from, (n - from) * sizeof(rate));
    r->n = n - from;
    return 0;
}

/* ---- replaying ---- */

/* prod_i (1 - lr_i lambda) over steps. */
static double kept_part(const rates *r, double lambda, uint64_t first, uint64_t through)
{
    double part = 1;
    for (size_t i = rates_at(r, first); first <= through; i++) {
        uint64_t end = i + 1 < r->n ? MIN(r->rate[i + 1].from, through + 1) : through + 1;
        double keep = 1 - r->rate[i].lr * lambda;
        part *= end - first == 1 ? keep : pow(keep, (double)(end - first));
        first = end;
    }
    return part;
}

/* The updates of some steps, the first of which is number t of the row's. */
static void replay_some(mr_optim *o, const rates *r, uint64_t step, size_t steps, uint64_t t,
                        uint32_t dim, float *w)
{
    double lr[IDLE_STEPS];
    size_t at = rates_at(r, step);
    for (size_t i = 0; i < steps; i++) {
        while (at + 1 < r->n && r->rate[at + 1].from <= step + i)
            at++;
        lr[i] = r->rate[at].lr;
    }
    idle_rule *many = o->kind <= MR_ADAMW ? idle_rules_pick()->rule[o->kind] : NULL;
    if (many) {
        many(o, t, steps, lr, dim, w, w + dim);
        return;
    }
    optimizer_rule *rule = optimizer_of(o);
    for (size_t i = 0; i < steps; i++) {
        o->lr = lr[i];
        rule(o, t + i, dim, zero, w, w + dim);
    }
}

void idle_replay(const mr_table *t, uint32_t c, row *r, uint64_t last, uint64_t through)
{
    const table_column *column = &t->column[c];
    const rates *rates = &column->rates;
    if (!r->count[c] || !rates->n)
        return;
    uint64_t first = MAX(last + 1, rates->rate[0].from);
    if (first > through)
        return;
    mr_optim o = column->optim;
    float *w = row_column(t, r, c);
    uint32_t dim = column->dim;
    if (!o.l2_table || (o.kind == MR_SGD && o.momentum == 0 && o.l1 == 0)) {
        double lambda = (double)(o.l2_table ? o.l2 : o.decay);
        float keep = (float)kept_part(rates, lambda, first, through);
        for (uint32_t i = 0; i < dim; i++)
            w[i] *= keep;
        return;
    }
    if (!o.decay_table)
        o.decay = 0;
    uint64_t owed = through - first + 1, skipped = owed - MIN(owed, (uint64_t)o.idle_steps);
    uint64_t count = r->count[c] + skipped;
    for (uint64_t step = first + skipped; step <= through; step += IDLE_STEPS) {
        size_t steps = MIN(through - step + 1, (uint64_t)IDLE_STEPS);
        replay_some(&o, rates, step, steps, o.global_step ? step : count + 1, dim, w);
        count += steps;
    }
    r->count[c] = (uint32_t)MIN(count, (uint64_t)UINT32_MAX);
}

void row_replay(const mr_table *t, row *r)
{
    for (uint32_t c = 0; r->step && c < t->columns; c++)
        if (t->owing >> c & 1)
            idle_replay(t, c, r, r->step, t->step);
}

/* push.c - one update of every row that got a gradient: the gradients of all lookups of a step are
 * summed by row, in the order of lookups and samples, and the optimizers run on the rows, or on the copies that
 * lookups have of them. */
#include <string.h>

#include "base/profile.h"
#include "table/table_room.h"

typedef struct push {
    mr_table *t;
    uint64_t step;
    float value; /* that coordinates are held within, or 0 */
    optimizer_rule *rule[COLUMNS_MAX];
    size_t updated[SHARDS];
    double squares[SHARDS];
    int failed[SHARDS];
} push;

static int gradients_finite(const lookup *l, uint32_t from, uint32_t to)
{
    const float *g = l->grad;
    float sum = 0; /* 0 unless one is not finite: then NaN */
    size_t end = (size_t)to * l->grad_width;
#pragma omp simd reduction(+ : sum)
    for (size_t i = (size_t)from * l->grad_width; i < end; i++)
        sum += g[i] * 0.0f;
    return sum == 0;
}

static void push_check(void *context, size_t number)
{
    push *p = context;
    for (const lookup *l = p->t->first; l; l = l->next)
        if (l->grad && !gradients_finite(l, l->shard[number], l->shard[number + 1]))
            p->failed[number] = -1;
}

int mr_table_finite(mr_table *t)
{
    GIVEN(t, -1);
    lookups_check(t);
    push p = {.t = t};
    parallel(SHARDS, push_check, &p);
    for (int s = 0; s < SHARDS; s++)
        if (p.failed[s])
            return fail("table %s: a gradient is not finite", t->name);
    return 0;
}

/* Adds the gradients of all lookups of one shard by row, in the order of the lookups. */
static void push_merge(void *context, size_t number)
{
    push *p = context;
    mr_table *t = p->t;
    merged_row *merged = t->merged + t->begin[number];
    uint32_t n = 0;
    for (const lookup *l = t->first; l; l = l->next) {
        if (!l->grad)
            continue;
        for (uint32_t u = l->shard[number]; u < l->shard[number + 1]; u++) {
            row *r = l->home[u];
            float *g = (float *)l->grad + (size_t)u * l->grad_width;
            if (r->mark < n && merged[r->mark].row == r) {
                merged_row *m = &merged[r->mark];
                for (uint32_t k = 0; k < l->grad_width; k++)
                    m->grad[k] += g[k];
                m->touched |= l->touched;
            } else {
                r->mark = n;
                merged[n++] = (merged_row){r, l->row[u], g, l->touched};
            }
        }
    }
    t->end[number] = t->begin[number] + n;
}

/* Sums the gradients by row, unless that is done. -1 after fail(). */
static int gradients_sum(mr_table *t)
{
    if (t->summed)
        return 0;
    push p = {.t = t};
    size_t lookups = 0, uniques = 0;
    t->only = NULL;
    for (const lookup *l = t->first; l; l = l->next)
        if (l->grad) {
            lookups++;
            uniques += l->unique;
            t->only = l;
        }
    if (mr_table_finite(t))
        return -1;
    uint32_t at = 0;
    for (int s = 0; s < SHARDS; s++) {
        t->begin[s] = at;
        for (const lookup *l = t->first; l; l = l->next)
            if (l->grad)
                at += l->shard[s + 1] - l->shard[s];
        t->end[s] = at;
    }
    if (lookups > 1) {
        t->only = NULL;
        if (memory_reserve((void **)&t->merged, &t->merged_room, uniques, sizeof *t->merged))
            return -1;
        parallel(SHARDS, push_merge, &p);
    }
    t->summed = 1;
    return 0;
}

/* The u-th row of those sums. */
static inline merged_row sum_at(const mr_table *t, uint32_t u)
{
    const lookup *l = t->only;
    return l ? (merged_row){l->home[u], l->row[u], (float *)l->grad + (size_t)u * t->grad_width,
                            l->touched}
             : t->merged[u];
}

static void push_squares(void *context, size_t number)
{
    push *p = context;
    const mr_table *t = p->t;
    double sum = 0;
    for (uint32_t u = t->begin[number]; u < t->end[number]; u++) {
        merged_row m = sum_at(t, u);
        uint32_t trained = t->admission ? row_admitted(t, m.row) : UINT32_MAX;
        if (trained == UINT32_MAX) {
            sum += gradient_squares(m.grad, t->grad_width, t->scale, p->value);
            continue;
        }
        for (uint32_t c = 0; c < t->columns; c++)
            if (trained >> c & 1)
                sum += gradient_squares(m.grad + t->layout[c].grad_offset, t->column[c].dim,
                                        t->scale, p->value);
    }
    p->squares[number] = sum;
}

double mr_table_squares(mr_table *t, double value)
{
    GIVEN(t, -1);
    lookups_check(t);
    PROFILE(PART_CLIP);
    push p = {.t = t, .value = (float)value};
    double sum = 0;
    if (gradients_sum(t))
        return -1;
    parallel(SHARDS, push_squares, &p);
    for (int s = 0; s < SHARDS; s++)
        sum += p.squares[s];
    t->scale = 1;
    return sum;
}

void mr_table_scale(mr_table *t, double factor)
{
    GIVEN(t, );
    t->scale *= (float)factor;
}

/* Enters a row's first update since the last cut. */
static int row_begin(const push *p, shard *s, row *r)
{
    if (r->step > p->t->durable && cut_keep(p->t, s, r, p->step))
        return -1;
    if (row_expired(p->t, r)) /* since it was looked up: a commit came in between */
        kept_fresh(p->t, r->key, r);
    s->dirty[s->dirty_n++] = r;
    s->created += r->step == 0;
    return 0;
}

/* One update of a row, as its lookups have seen it: of the columns that got a gradient, g [grad_width],
 * and of those that shrink without one. A copy that they saw is updated and put back. */
static int row_update(const push *p, shard *s, row *r, row *seen, float *g, uint32_t touched)
{
    const mr_table *t = p->t;
    if (t->scale != 1)
        for (uint32_t k = 0; k < t->grad_width; k++)
            g[k] *= t->scale;
    if (t->admission && !(touched &= row_admitted(t, r)))
        return 0; /* no row */
    if (r->step <= t->cut_step && row_begin(p, s, r))
        return -1;
    if (seen != r && seen->step && !r->step)
        row_open(t, r, seen); /* it expired since */
    __atomic_store_n(&r->step, p->step, __ATOMIC_RELAXED);
    for (uint32_t c = 0; c < t->columns; c++) {
        const table_column *column = &t->column[c];
        if (touched >> c & 1) {
            float *w = row_column(t, seen, c);
            if (t->admission && !seen->count[c] && !(seen->admitted >> c & 1))
                row_fresh_column(t, seen, c); /* admitted by a later lookup, or expired since */
            if (seen->count[c] != UINT32_MAX)
                seen->count[c]++;
            if (p->rule[c])
                p->rule[c](&column->optim, column->optim.global_step ? p->step : seen->count[c],
                           column->dim, g, w, w + column->dim);
        } else if (t->owing >> c & 1) {
            idle_replay(t, c, seen, p->step - 1, p->step);
        }
        g += column->dim;
    }
    if (seen != r)
        row_close(t, seen, r, touched | t->owing);
    return 0;
}

/* With admission: what was admitted but not trained is absent again, and a key without any trained
 * column holds no memory while the table is resident: its row goes with the batch. */
static void rows_settle(const push *p, shard *s, size_t number)
{
    for (const lookup *l = p->t->first; l; l = l->next)
        for (uint32_t u = l->shard[number]; u < l->shard[number + 1]; u++) {
            row *r = l->home[u];
            if (r->free)
                continue;
            row_settle(p->t, r);
            if (!r->step && p->t->resident)
                shard_remove(p->t, s, r);
        }
}

enum { PUSH_AHEAD = 8 };

static void push_shard(void *context, size_t number)
{
    push *p = context;
    mr_table *t = p->t;
    shard *s = &t->shard[number];
    uint32_t from = t->begin[number], to = t->end[number];
    /* with room for the rows of the cut, should they have to be committed again */
    if (memory_reserve((void **)&s->dirty, &s->dirty_room, s->dirty_n + (to - from) + s->cut_n,
                       sizeof *s->dirty)) {
        p->failed[number] = -1;
        return;
    }
    int failed = 0;
    for (uint32_t u = from; u < to; u++) {
        merged_row m = sum_at(t, u);
        if (u + PUSH_AHEAD < to)
            row_prefetch(t,
                         t->only ? t->only->home[u + PUSH_AHEAD] : t->merged[u + PUSH_AHEAD].row);
        failed |= row_update(p, s, m.row, m.seen, m.grad, m.touched);
    }
    p->failed[number] = failed;
    if (t->admission)
        rows_settle(p, s, number);
    p->updated[number] = to - from;
}

int mr_table_push(mr_table *t, uint64_t step)
{
    GIVEN(t, -1);
    lookups_check(t);
    PROFILE(PART_PUSH);
    push p = {.t = t, .step = step};
    int any = 0;
    for (const lookup *l = t->first; l; l = l->next)
        any |= l->grad != NULL;
    if (any && gradients_sum(t))
        return -1;
    idle_note(t, step);
    if (!any) {
        mr_table_drop(t);
        return 0;
    }
    for (uint32_t c = 0; c < t->columns; c++)
        p.rule[c] = optimizer_of(&t->column[c].optim);
    parallel(SHARDS, push_shard, &p);
    int updated = 0;
    for (int s = 0; s < SHARDS; s++) {
        if (p.failed[s])
            return fail("table %s: out of memory for the list of changed rows", t->name);
        updated += (int)p.updated[s];
    }
    int all = 1;
    for (uint32_t c = 0; c < t->columns; c++)
        all &= p.rule[c] != NULL;
    if (all)
        mr_table_drop(t);
    return updated;
}

double mr_table_updated(mr_table *t, int c, float *w, float *g, float *state)
{
    GIVEN(t && w && g && state && c >= 0 && (uint32_t)c < t->columns, -1);
    lookups_check(t);
    const table_column *column = &t->column[c];
    size_t bytes = sizeof(float) * column->dim, more = sizeof(float) * column->state;
    if (t->handed_row) {
        float *to = row_column(t, t->handed_seen, (uint32_t)c);
        memcpy(to, w, bytes);
        memcpy(to + column->dim, state, more);
        if (t->handed_seen != t->handed_row)
            row_close(t, t->handed_seen, t->handed_row, 1u << c);
    }
    for (int s = 0; t->summed && s < SHARDS; s++)
        for (uint32_t u = MAX(t->begin[s], t->handed); u < t->end[s]; u++) {
            merged_row m = sum_at(t, u);
            row *r = m.row;
            if (r->free || r->step != t->step || !(m.touched >> c & 1) || !r->count[c])
                continue; /* not admitted, or not touched */
            const float *from = row_column(t, m.seen, (uint32_t)c);
            memcpy(w, from, bytes);
            memcpy(state, from + column->dim, more);
            memcpy(g, m.grad + t->layout[c].grad_offset, bytes);
            t->handed_row = r;
            t->handed_seen = m.seen;
            t->handed = u + 1;
            return r->count[c];
        }
    t->handed_row = NULL;
    t->handed = 0;
    return 0;
}

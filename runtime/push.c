/* push.c - one update of every row that got a gradient: the gradients of all lookups of a step are
 * summed by row, in the order of lookups and samples, and the optimizers run in place. */
#include "table_room.h"

typedef struct push {
    mr_table *t;
    uint64_t step;
    optimizer_rule *rule[COLUMNS_MAX];
    const lookup *only; /* the step's one lookup, or NULL: rows are in t->merged */
    uint32_t begin[SHARDS], end[SHARDS];
    size_t updated[SHARDS];
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
    push p = {.t = t};
    parallel(SHARDS, push_check, &p);
    for (int s = 0; s < SHARDS; s++)
        if (p.failed[s])
            return fail("table %s: a gradient is not finite", t->name);
    return 0;
}

void mr_table_scale(mr_table *t, double factor)
{
    for (const lookup *l = t->first; l; l = l->next) {
        float *g = l->grad;
        for (size_t i = 0, n = (size_t)l->unique * l->grad_width; g && i < n; i++)
            g[i] *= (float)factor;
    }
}

/* Adds the gradients of all lookups of one shard by row, in the order of the lookups. */
static void push_merge(void *context, size_t number)
{
    push *p = context;
    mr_table *t = p->t;
    merged_row *merged = t->merged + p->begin[number];
    uint32_t n = 0;
    for (const lookup *l = t->first; l; l = l->next) {
        if (!l->grad)
            continue;
        for (uint32_t u = l->shard[number]; u < l->shard[number + 1]; u++) {
            row *r = l->row[u];
            float *g = (float *)l->grad + (size_t)u * l->grad_width;
            if (r->mark < n && merged[r->mark].row == r) {
                merged_row *m = &merged[r->mark];
                for (uint32_t k = 0; k < l->grad_width; k++)
                    m->grad[k] += g[k];
                m->touched |= l->touched;
            } else {
                r->mark = n;
                merged[n++] = (merged_row){r, g, l->touched};
            }
        }
    }
    p->end[number] = p->begin[number] + n;
}

/* Enters a row's first update since the last cut. */
static int row_begin(const push *p, shard *s, row *r)
{
    if (r->step > p->t->durable && cut_keep(p->t, s, r, p->step))
        return -1;
    if (row_expired(p->t, r)) /* since it was looked up: a commit came in between */
        row_fresh(p->t, r->key, r);
    s->dirty[s->dirty_n++] = r;
    s->created += r->step == 0;
    return 0;
}

/* One update of a row: of the columns that got a gradient, g [grad_width]. */
static int row_update(const push *p, shard *s, row *r, const float *g, uint32_t touched)
{
    const mr_table *t = p->t;
    if (t->admission && !(touched &= row_admitted(t, r)))
        return 0; /* no row */
    if (r->step <= t->cut_step && row_begin(p, s, r))
        return -1;
    __atomic_store_n(&r->step, p->step, __ATOMIC_RELAXED);
    for (uint32_t c = 0; c < t->columns; c++) {
        const table_column *column = &t->column[c];
        if (touched >> c & 1) {
            float *w = row_column(t, r, c);
            if (r->count[c] != UINT32_MAX)
                r->count[c]++;
            p->rule[c](&column->optim, column->optim.global_step ? p->step : r->count[c],
                       column->dim, g, w, w + column->dim);
        }
        g += column->dim;
    }
    return 0;
}

/* With admission: what was admitted but not trained is absent again, and a key without any trained
 * column holds no memory while the table is resident: its row goes with the batch. */
static void rows_settle(const push *p, shard *s, size_t number)
{
    for (const lookup *l = p->t->first; l; l = l->next)
        for (uint32_t u = l->shard[number]; u < l->shard[number + 1]; u++) {
            row *r = l->row[u];
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
    const lookup *l = p->only;
    uint32_t from = p->begin[number], to = p->end[number];
    /* with room for the rows of the cut, should they have to be committed again */
    if (memory_reserve((void **)&s->dirty, &s->dirty_room, s->dirty_n + (to - from) + s->cut_n,
                       sizeof *s->dirty)) {
        p->failed[number] = -1;
        return;
    }
    for (uint32_t u = from; u < to; u++)
        if (l) {
            if (u + PUSH_AHEAD < to)
                row_prefetch(t, l->row[u + PUSH_AHEAD]);
            p->failed[number] |= row_update(
                p, s, l->row[u], (const float *)l->grad + (size_t)u * t->grad_width, l->touched);
        } else {
            const merged_row *m = &t->merged[u];
            if (u + PUSH_AHEAD < to)
                row_prefetch(t, m[PUSH_AHEAD].row);
            p->failed[number] |= row_update(p, s, m->row, m->grad, m->touched);
        }
    if (t->admission)
        rows_settle(p, s, number);
    p->updated[number] = to - from;
}

int mr_table_push(mr_table *t, uint64_t step)
{
    push p = {.t = t, .step = step};
    size_t lookups = 0, uniques = 0;
    for (const lookup *l = t->first; l; l = l->next)
        if (l->grad) {
            lookups++;
            uniques += l->unique;
            p.only = l;
        }
    if (!lookups) {
        mr_table_drop(t);
        return 0;
    }
    for (uint32_t c = 0; c < t->columns; c++)
        p.rule[c] = optimizer_of(&t->column[c].optim);
    if (mr_table_finite(t))
        return -1;
    uint32_t at = 0;
    for (int s = 0; s < SHARDS; s++) {
        p.begin[s] = at;
        for (const lookup *l = t->first; l; l = l->next)
            if (l->grad)
                at += l->shard[s + 1] - l->shard[s];
        p.end[s] = at;
    }
    if (lookups > 1) {
        p.only = NULL;
        if (memory_reserve((void **)&t->merged, &t->merged_room, uniques, sizeof *t->merged))
            return -1;
        parallel(SHARDS, push_merge, &p);
    }
    parallel(SHARDS, push_shard, &p);
    int updated = 0;
    for (int s = 0; s < SHARDS; s++) {
        if (p.failed[s])
            return fail("table %s: out of memory for the list of changed rows", t->name);
        updated += (int)p.updated[s];
    }
    mr_table_drop(t);
    return updated;
}

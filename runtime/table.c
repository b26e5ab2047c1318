/* table.c - the row cache: pull finds the rows of a batch, push updates them. table_room.h has
 * the layout. A pull walks in three forks: pieces of the batch sort their entries by shard, each
 * shard finds its distinct keys, and each entry learns its unique while each unique learns its
 * entries. The order of the uniques (by shard, then by first occurrence) depends on the batch
 * alone. */
#include "table_room.h"

#include <stdio.h>
#include <string.h>

#include "tape.h"

/* ---- making and freeing ---- */

static char *copy_text(const char *text)
{
    size_t len = strlen(text) + 1;
    char *copy = memory_new(len);
    return copy ? memcpy(copy, text, len) : NULL;
}

/* Narrow columns stand behind the header, wide ones on lines of their own. */
static void layout_rows(mr_table *t)
{
    uint32_t at = sizeof(row) + 4 * t->columns;
    for (int wide = 0; wide <= 1; wide++)
        for (uint32_t c = 0; c < t->columns; c++) {
            table_column *column = &t->column[c];
            if ((column->dim >= 16) != wide)
                continue;
            if (wide)
                at = (at + 63) & ~63u;
            column->offset = at;
            at += 4 * (column->dim + column->state);
        }
    t->row_bytes = (at + 63) & ~63u;
    for (uint32_t c = 0; c < t->columns; c++) {
        t->layout[c] = (lookup_column){t->column[c].name, t->column[c].dim, t->column[c].offset / 4,
                                       t->grad_width};
        t->grad_width += t->column[c].dim;
    }
}

static int column_begin(mr_table *t, table_column *to, const mr_column *from, uint64_t seed)
{
    char subject[256];
    snprintf(subject, sizeof subject, "table %s, column %s", t->name, from->name);
    if (from->dim < 1 || from->dim > 65535)
        return fail("%s: dim is %u, expected 1 to 65535", subject, from->dim);
    if (optimizer_check(&from->optim, subject))
        return -1;
    to->name = copy_text(from->name);
    if (!to->name)
        return -1;
    to->init = from->init;
    to->optim = from->optim;
    to->dim = from->dim;
    to->state = optimizer_state(&from->optim) * from->dim;
    to->seed = mr_hash(from->name, strlen(from->name), mr_hash(t->name, strlen(t->name), seed));
    return 0;
}

mr_table *mr_table_new(const char *name, uint32_t id, uint64_t seed, const mr_column *columns,
                       size_t n)
{
    if (n < 1 || n > COLUMNS_MAX)
        return fail_null("table %s: %zu columns, expected 1 to %d", name, n, COLUMNS_MAX);
    mr_table *t = memory_zero(sizeof *t);
    if (!t)
        return NULL;
    pthread_mutex_init(&t->slab_lock, NULL);
    t->id = id;
    t->last = &t->first;
    t->name = copy_text(name);
    int bad = !t->name;
    for (size_t c = 0; c < n && !bad; c++) {
        bad = column_begin(t, &t->column[c], &columns[c], seed);
        t->columns++;
    }
    for (int s = 0; s < SHARDS && !bad; s++)
        bad = shard_reserve(&t->shard[s], 1);
    if (bad) {
        mr_table_free(t);
        return NULL;
    }
    layout_rows(t);
    return t;
}

void mr_table_free(mr_table *t)
{
    if (!t)
        return;
    for (int i = 0; i < SHARDS; i++) {
        shard *s = &t->shard[i];
        memory_free(s->index);
        memory_free(s->dirty);
    }
    for (char *block = t->slab, *next; block; block = next) {
        next = *(char **)block;
        memory_free(block);
    }
    pthread_mutex_destroy(&t->slab_lock);
    for (uint32_t c = 0; c < t->columns; c++)
        memory_free(t->column[c].name);
    memory_free(t->merged);
    memory_free(t->sorted);
    memory_free(t->name);
    memory_free(t);
}

double mr_table_rows(const mr_table *t)
{
    size_t rows = 0;
    for (int s = 0; s < SHARDS; s++)
        rows += t->shard[s].rows;
    return (double)rows;
}

mr_optim *mr_table_optim(mr_table *t, int c)
{
    return &t->column[c].optim;
}

int mr_table_state(const mr_table *t, int c)
{
    return (int)(t->column[c].dim + t->column[c].state);
}

/* ---- shards ---- */

index_entry *shard_place(const shard *s, uint64_t hash)
{
    size_t i = hash & (s->index_size - 1);
    while (s->index[i].slot != NO_SLOT && s->index[i].hash != hash)
        i = (i + 1) & (s->index_size - 1);
    return &s->index[i];
}

int shard_reserve(shard *s, size_t more)
{
    size_t need = s->slots + more, size = s->index_size ? s->index_size : 64;
    while (need * 8 > size * 5)
        size *= 2;
    if (size == s->index_size)
        return 0;
    index_entry *index = memory_new(size * sizeof *index);
    if (!index)
        return -1;
    memset(index, 0xff, size * sizeof *index);
    index_entry *old = s->index;
    size_t old_size = s->index_size;
    s->index = index;
    s->index_size = size;
    for (size_t i = 0; i < old_size; i++)
        if (old[i].slot != NO_SLOT)
            *shard_place(s, old[i].hash) = old[i];
    memory_free(old);
    return 0;
}

/* Memory for rows, 64-byte aligned, from blocks that are large enough for huge pages. */
static char *slab_take(mr_table *t, size_t len)
{
    pthread_mutex_lock(&t->slab_lock); /* shards grow side by side */
    char *taken = NULL;
    if (len > t->slab_left) {
        size_t size = MAX(len + ALIGNMENT, SLAB_BLOCK);
        char *block = memory_new(size);
        if (!block)
            goto out;
        *(char **)block = t->slab;
        t->slab = block;
        t->slab_left = size - ALIGNMENT;
        t->slab_next = block + ALIGNMENT;
    }
    taken = t->slab_next;
    t->slab_next += len;
    t->slab_left -= len;
out:
    pthread_mutex_unlock(&t->slab_lock);
    return taken;
}

void row_fresh(const mr_table *t, uint64_t key, row *r)
{
    *r = (row){.key = key};
    for (uint32_t c = 0; c < t->columns; c++) {
        const table_column *column = &t->column[c];
        float *w = row_column(t, r, c);
        r->count[c] = 0;
        init_fill(&column->init, mix64(column->seed ^ mix64(key)), column->dim, w);
        optimizer_begin(&column->optim, column->dim, w, w + column->dim);
    }
}

row *shard_add(mr_table *t, shard *s, index_entry *e, uint64_t key, uint64_t hash)
{
    unsigned k = 63 - (unsigned)__builtin_clzll((uint64_t)s->slots + SEGMENT_FIRST) - 6;
    if (k >= s->segments) {
        if (k >= SEGMENTS_MAX || s->slots >= NO_SLOT - 1)
            return fail_null("table %s: a shard is full at %u rows", t->name, s->slots);
        s->segment[k] = slab_take(t, ((size_t)SEGMENT_FIRST << k) * t->row_bytes);
        if (!s->segment[k])
            return NULL;
        s->segments++;
    }
    *e = (index_entry){hash, s->slots++, NO_SLOT};
    row *r = slot_row(t, s, e->slot);
    row_fresh(t, key, r);
    return r;
}

row *table_find(const mr_table *t, uint64_t key)
{
    uint64_t hash = key_hash(key);
    const shard *s = &t->shard[hash_shard(hash)];
    const index_entry *e = shard_place(s, hash);
    return e->slot == NO_SLOT ? NULL : slot_row(t, s, e->slot);
}

/* ---- pull ---- */

enum { PIECE = 8192, AHEAD = 24 };

/* Where the entries of each shard begin within a piece. */
typedef struct piece_shards {
    uint16_t begin[SHARDS + 1];
} piece_shards;

/* Entries are kept by piece, and by shard within a piece: that is the order of what is called
 * [entries] here, but for `at`. */
typedef struct pull {
    mr_table *t;
    lookup *l;
    int training;
    arena *arena;
    const uint64_t *keys;
    uint32_t entries;
    uint32_t pieces;
    uint32_t *at;               /* [entries], in the batch's order: the unique of each */
    piece_shards *shards;       /* [pieces] */
    uint64_t *hash;             /* [entries]: of its key */
    uint16_t *entry;            /* [entries]: its number within the piece */
    uint32_t *local;            /* [entries]: its unique within the shard */
    uint32_t begin[SHARDS + 1]; /* where a shard's begin in the next two */
    uint32_t *slot;             /* [entries]: of a shard's uniques; NO_SLOT: there is no row */
    uint32_t *count; /* [entries]: in training the occurrences of a unique, else its first */
    uint32_t unique[SHARDS];   /* uniques of a shard */
    uint32_t base[SHARDS + 1]; /* number of its first */
    uint32_t missing[SHARDS];  /* uniques without a row */
    char *fresh[SHARDS];       /* where theirs go */
    occurrence *occurrence;    /* [entries], by unique */
    const uint32_t *sample;    /* [entries of the batch], or NULL: entry / fields */
    int failed[SHARDS];
} pull;

static uint32_t piece_len(const pull *p, size_t piece)
{
    return MIN(p->entries - (uint32_t)piece * PIECE, (uint32_t)PIECE);
}

static uint64_t entry_key(const pull *p, uint32_t i)
{
    return p->keys[i / PIECE * PIECE + p->entry[i]];
}

static void pull_sort(void *context, size_t piece)
{
    pull *p = context;
    uint32_t n = piece_len(p, piece), at[SHARDS] = {0};
    const uint64_t *keys = p->keys + piece * PIECE;
    uint64_t *hash = p->hash + piece * PIECE;
    uint16_t *entry = p->entry + piece * PIECE, *begin = p->shards[piece].begin;
    uint64_t hashed[PIECE];
    for (uint32_t e = 0; e < n; e++) {
        hashed[e] = key_hash(keys[e]);
        at[hash_shard(hashed[e])]++;
    }
    begin[0] = 0;
    for (int s = 0; s < SHARDS; s++) {
        begin[s + 1] = (uint16_t)(begin[s] + at[s]);
        at[s] = begin[s];
    }
    for (uint32_t e = 0; e < n; e++) {
        uint32_t to = at[hash_shard(hashed[e])]++;
        hash[to] = hashed[e];
        entry[to] = (uint16_t)e;
    }
}

/* Finds the distinct keys of one shard. On a tape without training a key that has no row gets a
 * unique for each occurrence, with no row as yet. */
static void pull_shard(void *context, size_t number)
{
    pull *p = context;
    mr_table *t = p->t;
    shard *s = &t->shard[number];
    uint32_t *count = p->count + p->begin[number];
    uint32_t *slots = p->slot + p->begin[number];
    uint32_t unique = 0, missing = 0;
    if (p->training && shard_reserve(s, p->begin[number + 1] - p->begin[number])) {
        p->failed[number] = -1;
        return;
    }
    for (uint32_t piece = 0; piece < p->pieces; piece++) {
        const uint16_t *begin = p->shards[piece].begin;
        uint32_t first = piece * PIECE;
        for (uint32_t i = first + begin[number]; i < first + begin[number + 1]; i++) {
            __builtin_prefetch(&s->index[p->hash[i + AHEAD] & (s->index_size - 1)]);
            index_entry *e = shard_place(s, p->hash[i]);
            if (e->slot == NO_SLOT && p->training &&
                !shard_add(t, s, e, entry_key(p, i), p->hash[i])) {
                p->failed[number] = -1;
                return;
            }
            if (e->slot == NO_SLOT) {
                missing++;
            } else if (e->mark < unique && slots[e->mark] == e->slot) {
                p->local[i] = e->mark;
                count[e->mark] += (uint32_t)p->training;
                continue;
            } else {
                e->mark = unique;
                const row *r = slot_row(t, s, e->slot);
                for (uint32_t line = 0; line < t->row_bytes; line += 64)
                    __builtin_prefetch((const char *)r + line);
            }
            slots[unique] = e->slot;
            count[unique] = p->training ? 1 : i;
            p->local[i] = unique++;
        }
    }
    p->unique[number] = unique;
    p->missing[number] = missing;
}

/* The uniques of a shard take their places among all, and list their occurrences. */
static void pull_list(pull *p, size_t number)
{
    uint32_t unique = p->unique[number], at = p->begin[number];
    uint32_t *count = p->count + at;
    const uint32_t *slots = p->slot + at;
    const shard *s = &p->t->shard[number];
    char *fresh = p->fresh[number];
    void **row_at = p->l->row + p->base[number];
    for (uint32_t u = 0; u < unique; u++) {
        if (slots[u] != NO_SLOT) {
            row_at[u] = slot_row(p->t, s, slots[u]);
        } else {
            row_fresh(p->t, entry_key(p, count[u]), (row *)fresh);
            row_at[u] = fresh;
            fresh += p->t->row_bytes;
        }
    }
    if (!p->training)
        return;
    uint32_t *start = (uint32_t *)p->l->start + p->base[number];
    for (uint32_t u = 0; u < unique; u++) {
        uint32_t c = count[u];
        start[u] = count[u] = at;
        at += c;
    }
    uint32_t fields = (uint32_t)p->l->batch->fields;
    for (uint32_t piece = 0; piece < p->pieces; piece++) {
        const uint16_t *begin = p->shards[piece].begin;
        uint32_t first = piece * PIECE;
        for (uint32_t i = first + begin[number]; i < first + begin[number + 1]; i++) {
            uint32_t e = first + p->entry[i];
            p->occurrence[count[p->local[i]]++] =
                (occurrence){e, p->sample ? p->sample[e] : e / fields};
        }
    }
}

/* Each entry of a piece learns its unique. */
static void pull_spread(pull *p, size_t piece)
{
    const uint16_t *begin = p->shards[piece].begin;
    uint32_t first = (uint32_t)piece * PIECE;
    for (int s = 0; s < SHARDS; s++)
        for (uint32_t i = first + begin[s]; i < first + begin[s + 1]; i++)
            p->at[first + p->entry[i]] = p->base[s] + p->local[i];
}

static void pull_finish(void *context, size_t part)
{
    if (part < SHARDS)
        pull_list(context, part);
    else
        pull_spread(context, part - SHARDS);
}

static uint32_t *samples_of(arena *a, const mr_batch *b)
{
    uint32_t *sample = arena_take(a, (size_t)b->entries * sizeof *sample);
    if (sample)
        for (int32_t s = 0; s < b->n; s++)
            for (uint32_t e = b->offsets[s]; e < b->offsets[s + 1]; e++)
                sample[e] = (uint32_t)s;
    return sample;
}

/* Where the entries of each shard, of all pieces, begin. */
static void pull_places(pull *p)
{
    for (int s = 0; s < SHARDS; s++) {
        p->begin[s + 1] = p->begin[s];
        for (uint32_t piece = 0; piece < p->pieces; piece++)
            p->begin[s + 1] +=
                (uint32_t)(p->shards[piece].begin[s + 1] - p->shards[piece].begin[s]);
    }
}

static int pull_run(pull *p)
{
    arena *a = p->arena;
    size_t n = p->entries;
    p->pieces = (uint32_t)((n + PIECE - 1) / PIECE);
    p->at = arena_take(a, n * sizeof *p->at);
    p->shards = arena_take(a, p->pieces * sizeof *p->shards);
    p->hash = arena_take(a, (n + AHEAD) * sizeof *p->hash);
    p->entry = arena_take(a, n * sizeof *p->entry);
    p->local = arena_take(a, n * sizeof *p->local);
    p->slot = arena_take(a, n * sizeof *p->slot);
    p->count = arena_take(a, n * sizeof *p->count);
    if (!p->at || !p->shards || !p->hash || !p->entry || !p->local || !p->slot || !p->count)
        return -1;
    parallel(p->pieces, pull_sort, p);
    pull_places(p);
    parallel(SHARDS, pull_shard, p);
    size_t missing = 0;
    for (int s = 0; s < SHARDS; s++) {
        if (p->failed[s])
            return fail("table %s: out of memory for %zu more keys", p->t->name, n);
        p->base[s + 1] = p->base[s] + p->unique[s];
        missing += p->missing[s];
    }
    char *fresh = arena_take(a, missing * p->t->row_bytes);
    uint32_t unique = p->base[SHARDS], *start = NULL, *shard = arena_take(a, sizeof p->base);
    p->l->row = arena_take(a, unique * sizeof *p->l->row);
    if (!fresh || !p->l->row || !shard)
        return -1;
    if (p->training) {
        start = arena_take(a, (unique + 1) * sizeof *start);
        p->occurrence = arena_take(a, n * sizeof *p->occurrence);
        int fixed = p->l->batch->fields > 0 && !p->l->batch->field;
        if (!start || !p->occurrence || (!fixed && !(p->sample = samples_of(a, p->l->batch))))
            return -1;
        start[unique] = p->entries;
    }
    for (int s = 0; s < SHARDS; s++) {
        p->fresh[s] = fresh;
        fresh += (size_t)p->missing[s] * p->t->row_bytes;
    }
    memcpy(shard, p->base, sizeof p->base);
    p->l->shard = shard;
    p->l->start = start;
    p->l->occurrence = p->occurrence;
    p->l->unique = unique;
    p->l->at = p->at;
    parallel(SHARDS + p->pieces, pull_finish, p);
    return 0;
}

int mr_table_pull(mr_table *t, mr_tape *tape, const mr_batch *batch)
{
    arena *a = tape_arena(tape);
    lookup *l = arena_take(a, sizeof *l);
    if (!l)
        return -1;
    *l = (lookup){.batch = batch,
                  .table = t->name,
                  .column = t->layout,
                  .columns = t->columns,
                  .grad_width = t->grad_width};
    pull p = {.t = t,
              .l = l,
              .training = tape_training(tape),
              .arena = a,
              .keys = batch->keys,
              .entries = (uint32_t)batch->entries};
    if (pull_run(&p))
        return -1;
    int number = tape_lookup_add(tape, l);
    if (number >= 0 && p.training) {
        *t->last = l;
        t->last = &l->next;
    }
    return number;
}

/* ---- push ---- */

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

/* One update of a row: of the columns that got a gradient, g [grad_width]. */
static void row_update(const push *p, shard *s, row *r, const float *g, uint32_t touched)
{
    const mr_table *t = p->t;
    if (r->step <= t->committed)
        s->dirty[s->dirty_n++] = r;
    s->rows += r->step == 0;
    r->step = p->step;
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
}

enum { PUSH_AHEAD = 8 };

static void row_prefetch(const mr_table *t, const row *r)
{
    for (uint32_t line = 0; line < t->row_bytes; line += 64)
        __builtin_prefetch((const char *)r + line, 1);
}

static void push_shard(void *context, size_t number)
{
    push *p = context;
    mr_table *t = p->t;
    shard *s = &t->shard[number];
    const lookup *l = p->only;
    uint32_t from = p->begin[number], to = p->end[number];
    if (memory_reserve((void **)&s->dirty, &s->dirty_room, s->dirty_n + (to - from),
                       sizeof *s->dirty)) {
        p->failed[number] = -1;
        return;
    }
    for (uint32_t u = from; u < to; u++)
        if (l) {
            if (u + PUSH_AHEAD < to)
                row_prefetch(t, l->row[u + PUSH_AHEAD]);
            row_update(p, s, l->row[u], (const float *)l->grad + (size_t)u * t->grad_width,
                       l->touched);
        } else {
            const merged_row *m = &t->merged[u];
            if (u + PUSH_AHEAD < to)
                row_prefetch(t, m[PUSH_AHEAD].row);
            row_update(p, s, m->row, m->grad, m->touched);
        }
    p->updated[number] = to - from;
}

void mr_table_clear(mr_table *t)
{
    mr_table_drop(t);
    for (int i = 0; i < SHARDS; i++) {
        shard *s = &t->shard[i];
        memset(s->index, 0xff, s->index_size * sizeof *s->index);
        s->slots = 0;
        s->dirty_n = s->rows = 0;
    }
    t->committed = 0;
}

void mr_table_drop(mr_table *t)
{
    t->first = NULL;
    t->last = &t->first;
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
    parallel(SHARDS, push_check, &p);
    for (int s = 0; s < SHARDS; s++)
        if (p.failed[s])
            return fail("table %s: a gradient is not finite", t->name);
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

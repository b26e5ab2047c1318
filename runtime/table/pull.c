/* pull.c - finding the rows of a batch. A pull walks in three forks: pieces of the batch sort their
 * entries by shard, each shard finds its distinct keys, and each entry learns its unique while each
 * unique learns its entries. The order of the uniques (by shard, then by first occurrence) depends on
 * the batch alone.
 *
 * While a table is resident, a key that the cache has not is a new one. Otherwise the lookup is a
 * plan: missing keys get their slots at once, their rows are read by other threads (ahead.c), and all
 * rows of the batch are pinned until the tape forgets the lookup. A plan can be made before its
 * batch's turn: then reading goes on while others are trained. */
#include <stdio.h>
#include <string.h>

#include "base/profile.h"
#include "kernel/kernel.h"
#include "table/table_room.h"

KERNEL_PICK(key_functions, key_functions)

enum { PIECE = 4096, AHEAD = 24, NEAR = 10, PLANS_AHEAD = 2 };

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
    int resident;
    uint32_t serial; /* of the plan */
    arena *arena;
    const uint64_t *keys;
    uint32_t entries;
    uint32_t pieces;
    uint32_t *at;               /* [entries], in the batch's order: the unique of each */
    piece_shards *shards;       /* [pieces] */
    uint64_t *hash;             /* [entries]: of its key */
    uint16_t *entry;            /* [entries]: its number within the piece */
    uint32_t *local;            /* [entries]: its unique within the shard */
    uint32_t *place[SHARDS];    /* [places] */
    uint32_t places[SHARDS];    /* a power of two, more than the shard's entries */
    uint32_t begin[SHARDS + 1]; /* where a shard's begin in the next three */
    uint64_t *distinct;         /* [entries]: hashes of a shard's uniques */
    uint32_t *slot;             /* [entries]: theirs; NO_SLOT: there is no row */
    uint32_t *count;            /* [entries]: their occurrences; of one without a row the first */
    uint32_t unique[SHARDS];    /* uniques of a shard */
    uint32_t base[SHARDS + 1];  /* number of its first */
    uint32_t missing[SHARDS];   /* uniques without a row */
    char *fresh[SHARDS];        /* where theirs go */
    occurrence *occurrence;     /* [entries], by unique */
    const uint32_t *sample;     /* [entries of the batch], or NULL: entry / fields */
    keyed_row *wanted;          /* [entries]: rows of a shard that are to be read, from begin on */
    uint32_t wants[SHARDS];
    int failed[SHARDS];
    int starved[SHARDS];
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
    key_functions_pick()->hash(keys, n, hashed);
    for (uint32_t e = 0; e < n; e++)
        at[hash_shard(hashed[e])]++;
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

/* The row of a key that has none yet, or none that is left. */
static row *pull_add(pull *p, size_t number, uint64_t key, uint64_t hash, index_entry **at)
{
    mr_table *t = p->t;
    row *r = shard_add(t, &t->shard[number], key, hash, !p->resident, at, &p->starved[number]);
    if (!r) {
        p->failed[number] = !p->starved[number];
        return NULL;
    }
    if (p->resident)
        kept_fresh(t, key, r);
    else
        p->wanted[p->begin[number] + p->wants[number]++] = (keyed_row){key, r};
    return r;
}

/* Notes that a row was found, and makes it a fresh one if it expired. */
static void pull_found(const pull *p, row *r)
{
    if (!p->resident) {
        r->pin = p->serial;
        r->heat += r->heat < HEAT_MAX;
    }
    if (row_expired(p->t, r))
        kept_fresh(p->t, r->key, r);
}

/* The distinct hashes of a shard's entries, in the order of the entries, into distinct; how often each
 * occurs, and the first entry that has it. The places that they are found at are few enough, in batches of usual
 * sizes, to stay in the nearest cache, which the index is too large for. */
static uint32_t pull_distinct(pull *p, size_t number, uint64_t *distinct, uint32_t *first)
{
    uint32_t *count = p->count + p->begin[number], unique = 0, mask = p->places[number] - 1;
    uint32_t *place = p->place[number]; /* of a unique: its number, from 1 */
    memset(place, 0, p->places[number] * sizeof *place);
    for (uint32_t piece = 0; piece < p->pieces; piece++) {
        const uint16_t *begin = p->shards[piece].begin;
        uint32_t end = piece * PIECE + begin[number + 1];
        for (uint32_t i = piece * PIECE + begin[number]; i < end; i++) {
            uint64_t hash = p->hash[i];
            uint32_t at = (uint32_t)hash & mask, u;
            while ((u = place[at]) && distinct[u - 1] != hash)
                at = (at + 1) & mask;
            if (!u) {
                distinct[unique] = hash;
                first[unique] = i;
                count[unique] = 0;
                place[at] = u = ++unique;
            }
            count[u - 1]++;
            p->local[i] = u - 1;
        }
    }
    return unique;
}

/* Finds the rows of the distinct keys of one shard. Where nothing may be added, some have none. */
static void pull_shard(void *context, size_t number)
{
    pull *p = context;
    mr_table *t = p->t;
    shard *s = &t->shard[number];
    uint64_t *distinct = p->distinct + p->begin[number];
    uint32_t *slots = p->slot + p->begin[number]; /* at first, the first entry */
    uint32_t unique = pull_distinct(p, number, distinct, slots), missing = 0;
    int adds = p->training || !p->resident;
    int looks = !p->resident || t->expired; /* at rows, not only at the index */
    for (uint32_t u = 0; u < unique; u++) {
        if (u + AHEAD < unique)
            __builtin_prefetch(&s->index[shard_home(s, distinct[u + AHEAD])]);
        if (looks && u + NEAR < unique) {
            const index_entry *near = &s->index[shard_home(s, distinct[u + NEAR])];
            if (near->hash == distinct[u + NEAR] && near->slot != NO_SLOT)
                __builtin_prefetch(slot_row(t, s, near->slot), 1);
        }
        index_entry *e = shard_place(s, distinct[u]);
        row *r = NULL;
        if (e->slot != NO_SLOT) {
            r = slot_row(t, s, e->slot);
            row_prefetch(t, r);
            if (looks && adds)
                pull_found(p, r);
            else if (looks && row_expired(t, r))
                r = NULL;
        } else if (adds) {
            r = pull_add(p, number, entry_key(p, slots[u]), distinct[u], &e);
            if (!r)
                return;
            r->pin = p->serial;
        }
        if (!r) {
            missing++;
            p->count[p->begin[number] + u] = slots[u];
        }
        slots[u] = r ? e->slot : NO_SLOT;
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
            kept_fresh(p->t, entry_key(p, count[u]), (row *)fresh);
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
    double inverse = 1.0 / p->l->batch->fields; /* a division takes longer, and gives the same */
    for (uint32_t piece = 0; piece < p->pieces; piece++) {
        const uint16_t *begin = p->shards[piece].begin;
        uint32_t first = piece * PIECE;
        for (uint32_t i = first + begin[number]; i < first + begin[number + 1]; i++) {
            uint32_t e = first + p->entry[i];
            p->occurrence[count[p->local[i]]++] =
                (occurrence){e, p->sample ? p->sample[e] : (uint32_t)((e + 0.5) * inverse)};
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

/* Where the entries of each shard, of all pieces, begin; and room to find the distinct ones. */
static int pull_places(pull *p)
{
    const uint32_t most = 1u << 31;
    size_t all = 0;
    for (int s = 0; s < SHARDS; s++) {
        p->begin[s + 1] = p->begin[s];
        for (uint32_t piece = 0; piece < p->pieces; piece++)
            p->begin[s + 1] +=
                (uint32_t)(p->shards[piece].begin[s + 1] - p->shards[piece].begin[s]);
        size_t entries = p->begin[s + 1] - p->begin[s];
        p->places[s] = 64;
        while (p->places[s] < entries + entries / 4 && p->places[s] < most)
            p->places[s] *= 2;
        all += p->places[s];
    }
    uint32_t *place = arena_take(p->arena, all * sizeof *place);
    if (!place)
        return -1;
    for (int s = 0; s < SHARDS; s++) {
        p->place[s] = place;
        place += p->places[s];
    }
    return 0;
}

/* 0; 1: some shard has no place for its rows (those it got stay); -1 after fail(). */
static int pull_find(pull *p)
{
    PROFILE(PART_DEDUPE);
    arena *a = p->arena;
    size_t n = p->entries;
    p->pieces = (uint32_t)((n + PIECE - 1) / PIECE);
    p->at = arena_take(a, n * sizeof *p->at);
    p->shards = arena_take(a, p->pieces * sizeof *p->shards);
    p->hash = arena_take(a, n * sizeof *p->hash);
    p->distinct = arena_take(a, n * sizeof *p->distinct);
    p->entry = arena_take(a, n * sizeof *p->entry);
    p->local = arena_take(a, n * sizeof *p->local);
    p->slot = arena_take(a, n * sizeof *p->slot);
    p->count = arena_take(a, n * sizeof *p->count);
    p->wanted = p->resident ? NULL : arena_take(a, n * sizeof *p->wanted);
    if (!p->at || !p->shards || !p->hash || !p->distinct || !p->entry || !p->local || !p->slot ||
        !p->count || (!p->resident && !p->wanted))
        return -1;
    parallel(p->pieces, pull_sort, p);
    if (pull_places(p))
        return -1;
    parallel(SHARDS, pull_shard, p);
    int starved = 0;
    for (int s = 0; s < SHARDS; s++) {
        if (p->failed[s])
            return fail("table %s: out of memory for %zu more keys", p->t->name, n);
        starved |= p->starved[s];
    }
    return starved;
}

/* The lookup of what was found. */
static int pull_lookup(pull *p)
{
    arena *a = p->arena;
    size_t n = p->entries, missing = 0;
    for (int s = 0; s < SHARDS; s++) {
        p->base[s + 1] = p->base[s] + p->unique[s];
        missing += p->missing[s];
    }
    char *fresh = arena_take(a, missing * p->t->row_bytes);
    uint32_t unique = p->base[SHARDS], *start = NULL, *shard = arena_take(a, sizeof p->base);
    p->l->row = p->l->home = arena_take(a, unique * sizeof *p->l->row);
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

static pull pull_of(mr_table *t, lookup *l, arena *a, const mr_batch *batch, int training)
{
    *l = (lookup){.batch = batch,
                  .table = t->name,
                  .column = t->layout,
                  .columns = t->columns,
                  .grad_width = t->grad_width};
    return (pull){.t = t,
                  .l = l,
                  .training = training,
                  .resident = t->resident,
                  .arena = a,
                  .keys = batch->keys,
                  .entries = (uint32_t)batch->entries};
}

/* ---- plans ---- */

static plan *plan_new(mr_table *t)
{
    plan *p = t->spare;
    if (p) {
        t->spare = p->next;
        arena_reset(p->arena);
    } else {
        p = memory_zero(sizeof *p);
        if (p && !(p->arena = arena_new())) {
            memory_free(p);
            p = NULL;
        }
    }
    if (!p)
        return NULL;
    *p = (plan){.arena = p->arena, .serial = ++t->serial ? t->serial : ++t->serial};
    plan **at = &t->plans;
    while (*at)
        at = &(*at)->next;
    return *at = p;
}

static void plan_release(mr_table *t, plan *p)
{
    plan **at = &t->plans;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    p->next = t->spare;
    t->spare = p;
}

/* Takes the rows out that could not be read. */
static void plan_undo(mr_table *t, const plan *p)
{
    for (size_t i = 0; i < p->reads.n; i++) {
        row *r = p->reads.rows[i].row;
        uint64_t hash = key_hash(p->reads.rows[i].key);
        shard *s = &t->shard[hash_shard(hash)];
        if (!r->free && r->key == p->reads.rows[i].key)
            shard_remove(t, s, r);
    }
}

/* Ends what the tapes no longer use. */
static void plans_sweep(mr_table *t)
{
    for (plan *p = t->plans, *next; p; p = next) {
        next = p->next;
        if (p->taken && !p->in_use)
            plan_release(t, p);
    }
}

int plans_drop(mr_table *t)
{
    int dropped = 0;
    for (plan *p = t->plans, *next; p; p = next) {
        next = p->next;
        if (p->taken)
            continue;
        if (reads_wait(&p->reads))
            plan_undo(t, p);
        plan_release(t, p);
        dropped = 1;
    }
    return dropped;
}

void plans_free(mr_table *t)
{
    plans_drop(t);
    for (int list = 0; list < 2; list++)
        for (plan *p = list ? t->spare : t->plans, *next; p; p = next) {
            next = p->next;
            arena_free(p->arena);
            memory_free(p);
        }
    t->plans = t->spare = NULL;
}

/* Looks a batch up, and starts to read what is missing. NULL after fail(). */
static plan *plan_make(mr_table *t, const mr_batch *batch, int training)
{
    plan *p = plan_new(t);
    if (!p)
        return NULL;
    pull find = pull_of(t, &p->lookup, p->arena, batch, training);
    find.serial = p->serial;
    p->batch = batch->number;
    p->training = training;
    p->lookup.in_use = &p->in_use;
    int rc = pull_find(&find);
    if (rc >= 0) {
        size_t n = 0;
        for (int s = 0; s < SHARDS; s++)
            n += find.wants[s];
        keyed_row *rows = arena_take(p->arena, 2 * n * sizeof *rows);
        if (!rows) {
            rc = -1;
        } else {
            for (int s = 0, to = 0; s < SHARDS; to += (int)find.wants[s++])
                memcpy(rows + to, find.wanted + find.begin[s], find.wants[s] * sizeof *rows);
            sort_rows(rows, rows + n, n);
            p->reads = (read_set){.t = t, .rows = rows, .n = n};
            t->missed += (double)n;
        }
    }
    p->starved = rc == 1;
    if (rc == 0)
        rc = pull_lookup(&find);
    if (rc < 0) { /* rows that were added are not read: none of them may stay */
        for (int s = 0; s < SHARDS && find.wanted; s++)
            for (uint32_t i = 0; i < find.wants[s]; i++)
                shard_remove(t, &t->shard[s], find.wanted[find.begin[s] + i].row);
        plan_release(t, p);
        return NULL;
    }
    reads_start(&p->reads);
    return p;
}

/* Waits for the rows of a plan, some of which earlier ones are reading. */
static int plan_wait(mr_table *t, plan *p)
{
    for (plan *q = t->plans;; q = q->next) {
        if (reads_wait(&q->reads)) {
            char why[sizeof q->reads.error];
            snprintf(why, sizeof why, "%s", mr_error());
            plans_drop(t);
            return fail("%s", why);
        }
        if (q == p)
            return 0;
    }
}

enum { STARVED = -2 };

/* The plan of a batch, its rows read. -1 or STARVED after fail(). */
static int plan_take(mr_table *t, const mr_batch *batch, int training, lookup **l)
{
    plans_sweep(t);
    plan *p = NULL;
    for (plan *q = t->plans; q && batch->number; q = q->next)
        if (!q->taken && q->batch == batch->number && q->training == training)
            p = q;
    for (;;) {
        plan *before = p; /* NULL, or starved */
        if ((!p || p->starved) && !(p = plan_make(t, batch, training)))
            return -1;
        if (plan_wait(t, p))
            return -1;
        if (before && before != p) /* its rows stayed until this one had them */
            plan_release(t, before);
        if (!p->starved)
            break;
        p->taken = p->in_use = 1;
        int dropped = plans_drop(t);
        p->taken = p->in_use = 0;
        if (dropped)
            continue;
        if (!t->store.committing(t->store.store)) {
            plans_drop(t);
            fail("table %s: its share of the memory holds %.0f rows, of which %.0f changed since "
                 "the last commit: take smaller batches, or give it more memory (--memory)",
                 t->name, mr_table_cached(t), mr_table_dirty(t));
            return STARVED;
        }
        if (t->store.wait(t->store.store))
            return -1;
    }
    p->taken = p->in_use = 1;
    p->lookup.batch = batch;
    *l = &p->lookup;
    return 0;
}

/* Whether the cache has room for another plan: rows that are pinned, changed or being committed must
 * stay. */
static int plans_fit(const mr_table *t, const mr_batch *batch)
{
    double stay = batch->entries + mr_table_dirty(t);
    for (int i = 0; i < SHARDS; i++)
        stay += (double)t->shard[i].cut_n;
    for (const plan *p = t->plans; p; p = p->next)
        stay += p->lookup.unique;
    return stay < mr_table_cached(t);
}

int mr_table_ahead(mr_table *t, const mr_batch *batch)
{
    GIVEN(t && batch, -1);
    PROFILE(PART_AHEAD);
    if (t->resident || !t->store.store)
        return 0;
    plans_sweep(t);
    int ahead = 0;
    for (const plan *p = t->plans; p; p = p->next) {
        if (p->batch == batch->number)
            return 1;
        ahead += !p->taken;
    }
    if (ahead > PLANS_AHEAD || !plans_fit(t, batch))
        return 0;
    const plan *p = plan_make(t, batch, 1);
    return !p ? -1 : !p->starved; /* its turn comes when there is room */
}

void mr_table_ahead_drop(mr_table *t)
{
    GIVEN(t, );
    plans_drop(t);
}

/* ---- pull ---- */

/* Of a table that is resident: as plan_take, but 1 when it no longer fits. */
static int pull_resident(mr_table *t, arena *a, const mr_batch *batch, int training, lookup **l)
{
    if (!(*l = arena_take(a, sizeof **l)))
        return -1;
    pull p = pull_of(t, *l, a, batch, training);
    int rc = pull_find(&p);
    return rc ? rc : pull_lookup(&p);
}

/* The table no longer fits: what this step looked up before stays until the step is over. */
static int lookups_pin(mr_table *t)
{
    plan *p = t->first ? plan_new(t) : NULL;
    if (!p)
        return t->first ? -1 : 0;
    p->taken = p->in_use = 1;
    for (lookup *l = t->first; l; l = l->next) {
        l->in_use = &p->in_use;
        for (uint32_t u = 0; u < l->unique; u++)
            ((row *)l->home[u])->pin = p->serial;
    }
    return 0;
}

int table_lookup(mr_table *t, const lookup_for *f, const mr_batch *batch, lookup **found)
{
    lookup *l = NULL;
    lookups_check(t);
    if (f->training && t->first && t->tape_now != f->generation)
        return fail("table %s: it was looked up for another step, which is not over yet", t->name);
    if (t->resident) {
        int rc = pull_resident(t, f->arena, batch, f->training, &l);
        if (rc < 0)
            return -1;
        if (rc && !t->store.store)
            return fail("table %s: %.0f rows fill the memory it was given (--memory), and there is "
                        "no store to put them into",
                        t->name, mr_table_cached(t));
        t->resident = !rc;
        if (rc && lookups_pin(t))
            return -1;
    }
    if (!t->resident) {
        if (!t->store.store)
            return fail("table %s: the store that its rows are in was closed", t->name);
        int rc = plan_take(t, batch, f->training, &l);
        if (rc)
            return rc;
    }
    l->batch_now = batch->generation;
    l->batch_then = batch->generation ? *batch->generation : 0;
    l->table_now = t->generation;
    l->table_then = *t->generation;
    if (f->training && t->admission)
        admit(t, l, f->step);
    *found = l;
    if (!rows_show(t, l, f->arena))
        return 0;
    lookup_forget(l);
    return -1;
}

void table_lookup_keep(mr_table *t, lookup *l, const double *generation)
{
    t->tape_now = generation;
    t->tape_then = *generation;
    *t->last = l;
    t->last = &l->next;
}

void mr_table_drop(mr_table *t)
{
    GIVEN(t, );
    t->first = NULL;
    t->last = &t->first;
    t->summed = 0;
    t->scale = 1;
    t->handed = 0;
    t->handed_row = NULL;
}

/* admission.c - which keys are worth a row.
 *
 * By count: a counting Bloom filter (Bonomi et al., 2006) with saturating counters of 4 bits, of which
 * a sighting raises only the smallest (Estan and Varghese's conservative update, 2002). For n keys and
 * a chance p that an unseen key looks seen: n ln(1/p) / ln^2 2 counters and (m/n) ln 2 hashes. By
 * chance: a draw from (seed, key, step). */
#include "table/admission.h"

#include <math.h>
#include <string.h>

#include "table/table_room.h"

enum { SATURATED = 15 };

admission *admission_new(const mr_admission *o, uint64_t seed)
{
    if (o->chance != 0 && !(o->chance > 0 && o->chance <= 1))
        return fail_null("admission: chance is %g, expected more than 0 and at most 1", o->chance);
    if (o->chance == 0 && !(o->keys >= 1 && o->keys < 1e12))
        return fail_null("admission: keys is %g, expected how many there may be", o->keys);
    if (o->chance == 0 && !(o->error > 0 && o->error < 1))
        return fail_null("admission: error is %g, expected a number between 0 and 1", o->error);
    admission *a = memory_zero(sizeof *a);
    if (!a || o->chance > 0) {
        if (a)
            a->options = *o;
        return a;
    }
    double per_key = log(1 / o->error) / (log(2) * log(2));
    double counters = fmax(o->keys * per_key, 2.0 * FILTER_PAGE * FILTER_PARTS);
    size_t pages = (size_t)ceil(counters / 2 / FILTER_PAGE / FILTER_PARTS) * FILTER_PARTS;
    *a = (admission){.options = *o,
                     .seed = mix64(seed ^ 0x61646d6974ull),
                     .len = pages * FILTER_PAGE,
                     .part = pages * FILTER_PAGE * 2 / FILTER_PARTS,
                     .hashes = (int)fmax(1, ceil(per_key * log(2)))};
    a->bytes = memory_zero(a->len);
    a->changed = memory_zero(pages);
    if (!a->bytes || !a->changed) {
        admission_free(a);
        return NULL;
    }
    return a;
}

void admission_free(admission *a)
{
    if (!a)
        return;
    memory_free(a->bytes);
    memory_free(a->changed);
    memory_free(a);
}

void admission_clear(admission *a)
{
    if (!a->len)
        return;
    memset(a->bytes, 0, a->len);
    memset(a->changed, 0, a->len / FILTER_PAGE);
}

/* The i-th counter of a key, numbered through all parts. */
static size_t counter_at(const admission *a, unsigned part, uint64_t hash, int i)
{
    uint64_t h = random_at(a->seed ^ hash, (uint64_t)i);
    return part * a->part + (size_t)(((h >> 32) * (uint64_t)a->part) >> 32);
}

static unsigned counter(const admission *a, size_t at)
{
    return a->bytes[at / 2] >> (at & 1) * 4 & 15;
}

unsigned admission_seen(const admission *a, unsigned part, uint64_t hash)
{
    unsigned least = SATURATED;
    for (int i = 0; i < a->hashes; i++)
        least = MIN(least, counter(a, counter_at(a, part, hash, i)));
    return least;
}

unsigned admission_count(admission *a, unsigned part, uint64_t hash)
{
    unsigned seen = admission_seen(a, part, hash);
    if (seen == SATURATED)
        return seen;
    for (int i = 0; i < a->hashes; i++) {
        size_t at = counter_at(a, part, hash, i);
        if (counter(a, at) == seen) {
            a->bytes[at / 2] = (uint8_t)(a->bytes[at / 2] + (1u << (at & 1) * 4));
            a->changed[at / 2 / FILTER_PAGE] |= 1;
        }
    }
    return seen + 1;
}

/* ---- the rows of a batch ---- */

typedef struct admitting {
    mr_table *t;
    lookup *l;
    uint64_t step;
    int counts; /* the batch was not counted yet */
} admitting;

/* How often the key of a row was seen, this sighting included; by chance: 0, or often enough. */
static unsigned sightings(const admitting *a, unsigned number, uint64_t key)
{
    admission *f = a->t->admission;
    uint64_t hash = key_hash(key);
    if (f->options.chance > 0) {
        uint64_t draw = random_at(mix64(a->t->seed ^ hash), a->step);
        return (double)(draw >> 11) * 0x1p-53 < f->options.chance ? SATURATED : 0;
    }
    return a->counts ? admission_count(f, number, hash) : admission_seen(f, number, hash);
}

static void admit_shard(void *context, size_t number)
{
    const admitting *a = context;
    const mr_table *t = a->t;
    for (uint32_t u = a->l->shard[number]; u < a->l->shard[number + 1]; u++) {
        row *r = a->l->row[u];
        uint32_t all = (1u << t->columns) - 1;
        r->admitted = 0;
        if (row_admitted(t, r) == all)
            continue;
        unsigned seen = sightings(a, (unsigned)number, r->key);
        for (uint32_t c = 0; c < t->columns; c++)
            if (t->column[c].admit > 1 && !r->count[c]) {
                int yes = seen >= t->column[c].admit;
                r->admitted |= (uint16_t)((unsigned)yes << c);
                if (t->half) /* filled in when it is opened */
                    continue;
                if (yes)
                    row_fresh_column(t, r, c);
                else
                    row_unseen_column(t, r, c);
            }
    }
}

void admit(mr_table *t, lookup *l, uint64_t step)
{
    uint64_t batch = l->batch->number;
    admitting a = {t, l, step, !batch || t->counted != batch};
    t->counted = batch;
    parallel(SHARDS, admit_shard, &a);
}

int mr_table_admission(mr_table *t, const mr_admission *options)
{
    GIVEN(t && options, -1);
    for (uint32_t c = 0; c < t->columns; c++)
        if (t->column[c].admit > SATURATED)
            return fail("table %s, column %s: admitted at its sighting %u, expected at most %d",
                        t->name, t->column[c].name, t->column[c].admit, SATURATED);
    admission *a = admission_new(options, t->seed);
    if (!a)
        return -1;
    admission_free(t->admission);
    t->admission = a;
    return 0;
}

/* ---- pages, for the store ---- */

size_t table_filter_changed(mr_table *t, size_t from)
{
    admission *a = t->admission;
    for (size_t i = from; a && i < a->len / FILTER_PAGE; i++)
        if (a->changed[i] & 1) {
            a->changed[i] = 2;
            return i;
        }
    return SIZE_MAX;
}

const uint8_t *table_filter_page(const mr_table *t, size_t page)
{
    return t->admission->bytes + page * FILTER_PAGE;
}

void admission_cut_end(admission *a, int durable)
{
    for (size_t i = 0; i < a->len / FILTER_PAGE; i++)
        a->changed[i] = (a->changed[i] & 1) | (!durable && a->changed[i] & 2);
}

int table_filter_load(mr_table *t, size_t page, const void *bytes, size_t len)
{
    admission *a = t->admission;
    if (!a) /* nothing of it waits for a row: it is opened without its model's code */
        return 0;
    if (len != FILTER_PAGE || page >= a->len / FILTER_PAGE)
        return fail("table %s: page %zu of its admission filter is of another one; use the options "
                    "that the store was made with",
                    t->name, page);
    memcpy(a->bytes + page * FILTER_PAGE, bytes, len);
    a->changed[page] = 0;
    return 0;
}

/* shrink.c - dropping the rows that are worth least, in one commit.
 *
 * The rows of a table are scanned in the order of their keys, once to count what is below a minimum
 * and, if there are still too many, once or twice more for the worth from which on rows stay: a radix
 * selection on 32 bits, by 65536 counters of the upper half and then of the lower. Of the rows
 * that are worth exactly that, those of the least keys stay, so that the result is a function of the
 * rows alone. The last scan writes the commit's two files: deletions and drop records. Memory does not
 * grow with the table, but for the filters of those files.
 *
 * The cache drops the same rows once the commit is made: it holds what the store does, so that the
 * same function decides. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "store/store.h"
#include "table/table_room.h"

enum { BINS = 1 << 16 };

typedef struct shrinking {
    mr_shrink *what;
    mr_table *t;
    row *r; /* the row at hand */
    uint32_t norm_column;
    uint64_t step;   /* of the last commit */
    uint64_t rows;   /* that did not expire */
    uint64_t passed; /* of these, not below a minimum */
    /* what stays of those that passed: all, or the rows worth more than `least`, and `ties` of those
     * worth as much */
    int limited;
    uint32_t least;
    uint64_t ties, ties_met;
    uint64_t edge; /* ties from this key on are dropped */
    uint64_t *bin; /* [BINS]: rows by the upper half of their worth, or by the lower */
    int lower;     /* of those whose upper half is that of least */
    rows_file *deletions, *drops;
} shrinking;

/* ---- what a row is worth ---- */

static double row_count(const shrinking *s, const row *r)
{
    if (s->what->column >= 0)
        return r->count[s->what->column];
    uint32_t most = 0;
    for (uint32_t c = 0; c < s->t->columns; c++)
        most = MAX(most, r->count[c]);
    return most;
}

/* Of an absent column 0; of one that is not a number too, so that it is worth least. */
static double row_norm(const shrinking *s, const row *r)
{
    if (!r->count[s->norm_column])
        return 0;
    const float *w = row_column(s->t, (row *)r, s->norm_column);
    double sum = 0;
    for (uint32_t k = 0; k < s->t->column[s->norm_column].dim; k++)
        sum += (double)w[k] * w[k];
    return sum == sum ? sqrt(sum) : 0;
}

static double row_score(const shrinking *s, const row *r)
{
    return row_count(s, r) * exp2(-(double)(s->step - r->step) / s->what->half_life);
}

/* In the order of the worth: whole numbers as they are, others as a float's bits. */
static uint32_t row_worth(const shrinking *s, const row *r)
{
    float worth = 0;
    uint32_t bits;
    switch (s->what->by) {
    case MR_BY_STEP:
        return (uint32_t)MIN(r->step, (uint64_t)UINT32_MAX);
    case MR_BY_COUNT:
        return (uint32_t)row_count(s, r);
    case MR_BY_NORM:
        worth = (float)row_norm(s, r);
        break;
    default:
        worth = (float)row_score(s, r);
    }
    memcpy(&bits, &worth, sizeof bits);
    return bits;
}

static int row_passes(const shrinking *s, const row *r)
{
    const mr_shrink *w = s->what;
    return (w->min_count <= 0 || row_count(s, r) >= w->min_count) &&
           (w->min_norm <= 0 || row_norm(s, r) >= w->min_norm) &&
           (w->min_score <= 0 || row_score(s, r) >= w->min_score);
}

/* ---- scans ---- */

/* The row of a record into s->r: 0, 1: it expired, -1 after fail(). */
static int scanned(const shrinking *s, const char *key, size_t key_len, const char *value,
                   size_t len)
{
    if (key_len != ROW_KEY)
        return fail("table %s: a row's key has %zu bytes, expected %d", s->t->name, key_len,
                    ROW_KEY);
    s->r->key = big_endian(key + 5);
    return record_decode(s->t, s->r, (const uint8_t *)value, len);
}

static int count_row(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    shrinking *s = context;
    int rc = scanned(s, key, key_len, value, len);
    if (rc)
        return rc < 0 ? -1 : 0;
    s->rows += (uint64_t)!s->lower;
    if (!row_passes(s, s->r))
        return 0;
    s->passed += (uint64_t)!s->lower;
    if (s->what->max_rows < 0)
        return 0;
    uint32_t worth = row_worth(s, s->r);
    if (!s->lower)
        s->bin[worth >> 16]++;
    else if (worth >> 16 == s->least >> 16)
        s->bin[worth & (BINS - 1)]++;
    return 0;
}

/* The bin in which the `keep` best end, of more than these; *keep is what is left for that one. */
static uint32_t last_bin(const uint64_t *bin, uint64_t *keep)
{
    uint32_t b = BINS - 1;
    for (; b > 0 && bin[b] <= *keep; b--)
        *keep -= bin[b];
    return b;
}

/* Finds out what is to be dropped. */
static int decide(mr_store *store, shrinking *s)
{
    const char *doing = "rows could not be read to shrink their table";
    memset(s->bin, 0, BINS * sizeof *s->bin);
    if (store_scan_table(store, doing, PREFIX_ROW, s->t->id, count_row, s))
        return -1;
    uint64_t keep = s->passed;
    if (s->what->max_rows >= 0 && s->what->max_rows < (double)s->passed) {
        keep = (uint64_t)s->what->max_rows;
        s->limited = 1;
    }
    s->what->rows = (double)s->rows;
    s->what->dropped = (double)(s->rows - keep);
    if (!s->limited)
        return 0;
    s->least = last_bin(s->bin, &keep) << 16;
    memset(s->bin, 0, BINS * sizeof *s->bin);
    s->lower = 1;
    if (store_scan_table(store, doing, PREFIX_ROW, s->t->id, count_row, s))
        return -1;
    s->least |= last_bin(s->bin, &keep);
    s->ties = keep;
    return 0;
}

static int drop_row(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    shrinking *s = context;
    int rc = scanned(s, key, key_len, value, len);
    if (rc)
        return rc < 0 ? -1 : 0;
    int drops = !row_passes(s, s->r);
    if (!drops && s->limited) {
        uint32_t worth = row_worth(s, s->r);
        drops = worth < s->least;
        if (worth == s->least && ++s->ties_met > s->ties) {
            drops = 1;
            if (s->ties_met == s->ties + 1)
                s->edge = s->r->key;
        }
    }
    if (!drops)
        return 0;
    char drop_key[ROW_KEY], record[12] = {1, 0, 0, 0};
    row_key(drop_key, PREFIX_DROP, s->t->id, s->r->key);
    memcpy(record + 4, &s->step, 8);
    rows_file_drop(s->deletions, key, key_len); /* what fails is told at the end */
    return rows_file_put(s->drops, drop_key, sizeof drop_key, record, sizeof record) ? 1 : 0;
}

/* The commit's files, of all tables in the order of their numbers. */
static int files_write(mr_store *store, shrinking *s, size_t n)
{
    int bad = 0;
    rows_file *deletions = rows_file_new(store);
    rows_file *drops = deletions ? rows_file_new(store) : NULL;
    for (size_t i = 0; i < n && drops && bad >= 0; i++) {
        s[i].deletions = deletions;
        s[i].drops = drops;
        if (s[i].what->dropped > 0)
            bad = store_scan_table(store, "rows could not be read to shrink their table",
                                   PREFIX_ROW, s[i].t->id, drop_row, &s[i]);
    }
    char why[900] = "";
    if (bad < 0 || !drops)
        snprintf(why, sizeof why, "%s", mr_error());
    if (deletions && rows_file_end(deletions) && !*why)
        snprintf(why, sizeof why, "%s", mr_error());
    if (drops && rows_file_end(drops) && !*why)
        snprintf(why, sizeof why, "%s", mr_error());
    return *why ? fail("%s", why) : 0;
}

/* ---- the cache ---- */

static void cache_drop(void *context, size_t number)
{
    const shrinking *s = context;
    shard *part = &s->t->shard[number];
    for (uint32_t slot = 0; slot < part->slots; slot++) {
        row *r = slot_row(s->t, part, slot);
        if (r->free || !r->step || row_expired(s->t, r))
            continue;
        int drops = !row_passes(s, r);
        if (!drops && s->limited) {
            uint32_t worth = row_worth(s, r);
            drops = worth < s->least || (worth == s->least && r->key >= s->edge);
        }
        if (drops)
            shard_remove(s->t, part, r);
    }
}

/* ---- the whole ---- */

static int what_check(const mr_store *store, const mr_shrink *w, int dry)
{
    const mr_table *t = w->table;
    int score = w->min_score > 0 || (w->max_rows >= 0 && w->by == MR_BY_SCORE);
    if (t->store.store != store)
        return fail("table %s: its rows are not those of store %s", t->name, store->dir);
    if (w->column >= (int32_t)t->columns)
        return fail("table %s: has no column %d", t->name, w->column);
    if (score && !(w->half_life > 0))
        return fail("table %s: the score of its rows needs a half-life, in steps", t->name);
    if (w->forget > (double)store->last.step)
        return fail(
            "table %s: drops up to step %.0f cannot be forgotten, the last commit is of step "
            "%.0f",
            t->name, w->forget, (double)store->last.step);
    if (dry)
        return 0;
    int in_use = t->first != NULL;
    for (const plan *p = t->plans; p; p = p->next)
        in_use |= p->taken && p->in_use;
    if (in_use)
        return fail("table %s: it shrinks between steps, not within one", t->name);
    if (!table_unchanged(t))
        return fail("table %s: its rows are to be committed before it shrinks", t->name);
    return 0;
}

static int shrinking_begin(mr_store *store, shrinking *s, mr_shrink *what, uint64_t *bin)
{
    mr_table *t = what->table;
    *s =
        (shrinking){.what = what, .t = t, .bin = bin, .step = store->last.step, .edge = UINT64_MAX};
    s->norm_column = what->column >= 0 ? (uint32_t)what->column : 0;
    for (uint32_t c = 1; c < t->columns && what->column < 0; c++)
        if (t->column[c].dim > t->column[s->norm_column].dim)
            s->norm_column = c;
    s->r = memory_zero(t->open_bytes);
    return s->r ? 0 : -1;
}

/* Makes the commit that was begun. What a table is said to hold is what it will hold. */
static int shrinkings_commit(mr_store *store, shrinking *s, size_t n)
{
    uint64_t forgotten[TABLES_MAX], number = store->preparing->mark.number;
    if (files_write(store, s, n)) {
        mr_commit_abort(store);
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        mr_table *t = s[i].t;
        forgotten[i] = t->forgotten;
        t->kept -= s[i].what->dropped;
        if (s[i].what->forget > (double)t->forgotten)
            t->forgotten = (uint64_t)s[i].what->forget;
    }
    int bad = 0;
    for (size_t i = 0; i < n && !bad; i++)
        bad = mr_commit_table(store, s[i].t);
    bad = bad ? bad : mr_commit_end(store, store->last.step);
    mr_commit_abort(store);
    /* one that failed after all but COMMIT was written is made */
    int made = !bad || store->ahead.number == number;
    for (size_t i = 0; i < n; i++)
        if (made) {
            parallel(SHARDS, cache_drop, &s[i]);
        } else {
            s[i].t->kept += s[i].what->dropped;
            s[i].t->forgotten = forgotten[i];
        }
    return bad;
}

int mr_store_shrink(mr_store *store, mr_shrink *what, size_t n, int dry_run)
{
    GIVEN(store && what, -1);
    uint64_t *bin = NULL;
    shrinking *s = NULL;
    int bad = 0;
    if (n < 1 || n > TABLES_MAX)
        return fail("store %s: %zu tables to shrink, expected 1 to %d", store->dir, n, TABLES_MAX);
    if (!dry_run && store->preparing)
        return fail("store %s: a commit is under way", store->dir);
    if (!dry_run && mr_commit_begin(store))
        return -1;
    for (size_t i = 0; i < n && !bad; i++) {
        int ordered = i == 0 || what[i - 1].table->id < what[i].table->id;
        bad = ordered
                  ? what_check(store, &what[i], dry_run)
                  : fail("store %s: tables to shrink are given once, in the order of their numbers",
                         store->dir);
        if (!bad && !dry_run)
            plans_drop(what[i].table);
    }
    if (!bad && (!(bin = memory_new(BINS * sizeof *bin)) || !(s = memory_zero(n * sizeof *s))))
        bad = -1;
    int changes = 0;
    for (size_t i = 0; i < n && !bad; i++) {
        bad = shrinking_begin(store, &s[i], &what[i], bin) || decide(store, &s[i]);
        changes |= what[i].dropped > 0 || what[i].forget > (double)what[i].table->forgotten;
    }
    if (!bad && !dry_run && changes)
        bad = shrinkings_commit(store, s, n);
    if (!dry_run)
        mr_commit_abort(store);
    for (size_t i = 0; s && i < n; i++)
        memory_free(s[i].r);
    memory_free(s);
    memory_free(bin);
    return bad ? -1 : 0;
}

/* shrink_test.c - which rows a table loses when it shrinks, against a sort of all of them. */
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store.h"
#include "support/check.h"
#include "support/store.h"

enum { KEYS = 4000, STEPS = 60 };

static int check_key(int good, const char *what, uint64_t key)
{
    return check(good, "%s (%llu)", what, (unsigned long long)key);
}

/* ---- what a row is, kept beside the table ---- */

typedef struct mirror {
    uint64_t key, step;
    double count, norm;
    double worth; /* as a float, or a whole number */
    int stays;
} mirror;

static mirror rows[KEYS];

static uint64_t key_of(int i)
{
    return mix64((uint64_t)i * 7919);
}

/* Step after step, keys of which some are much more frequent. */
static mr_store *store_made(const char *name, mr_table **table)
{
    must(!tree_remove(at(name)), "remove");
    mr_store *s = mr_store_open(at(name), MR_STORE_CREATE);
    mr_table *t = table_make();
    must(s && !mr_store_load(s, t), "create");
    memset(rows, 0, sizeof rows);
    for (uint64_t step = 1; step <= STEPS; step++) {
        uint64_t keys[200];
        for (uint64_t i = 0; i < 200; i++) {
            double u = (double)(random_at(step, i) >> 11) * 0x1p-53;
            int k = (int)(u * u * u * KEYS);
            keys[i] = key_of(k);
            if (rows[k].step != step)
                rows[k].count++;
            rows[k].key = keys[i];
            rows[k].step = step;
        }
        push(t, keys, 200, step);
        if (step % 7 == 0 || step == STEPS)
            must(!commit_all(s, t, step), "commit");
    }
    float v[2 * DIM];
    for (int k = 0; k < KEYS; k++)
        if (rows[k].count > 0) {
            must(mr_table_peek(t, 0, rows[k].key, v) == rows[k].count, "count");
            double sum = 0;
            for (int i = 0; i < DIM; i++)
                sum += (double)v[i] * v[i];
            rows[k].norm = sqrt(sum);
        }
    *table = t;
    return s;
}

static int best_first(const void *a, const void *b)
{
    const mirror *x = a, *y = b;
    if (x->worth != y->worth)
        return x->worth < y->worth ? 1 : -1;
    return (x->key > y->key) - (x->key < y->key);
}

static double score(const mirror *m, double half_life)
{
    return m->count * pow(0.5, (double)(STEPS - m->step) / half_life);
}

/* The same rule by sorting. Returns how many are dropped. */
static double expected(const mr_shrink *w)
{
    double stay = 0, had = 0;
    for (int k = 0; k < KEYS; k++) {
        mirror *m = &rows[k];
        m->worth = w->by == MR_BY_STEP    ? (double)m->step
                   : w->by == MR_BY_COUNT ? m->count
                   : w->by == MR_BY_NORM  ? (double)(float)m->norm
                                          : (double)(float)score(m, w->half_life);
        m->stays = m->count > 0 && m->count >= w->min_count && m->norm >= w->min_norm &&
                   (w->min_score <= 0 || score(m, w->half_life) >= w->min_score);
        had += m->count > 0;
    }
    qsort(rows, KEYS, sizeof *rows, best_first);
    for (int k = 0; k < KEYS; k++)
        if (rows[k].stays && (rows[k].stays = w->max_rows < 0 || stay < w->max_rows))
            stay++;
    return had - stay;
}

static int found(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    (void)key_len, (void)value, (void)len;
    ((uint64_t *)context)[big_endian(key + 5) % 65521]++;
    return 0;
}

/* Whether table and store hold the rows that stay, and no others. */
static void compare(mr_store *s, mr_table *t, uint64_t number)
{
    static uint64_t in_store[65521];
    double stay = 0;
    memset(in_store, 0, sizeof in_store);
    must(!store_scan_table(s, "scan", PREFIX_ROW, 7, found, in_store), "scan");
    float v[2 * DIM];
    for (int k = 0; k < KEYS; k++) {
        const mirror *m = &rows[k];
        if (!m->count)
            continue;
        stay += m->stays;
        in_store[m->key % 65521] -= (uint64_t)m->stays;
        check_key(mr_table_peek(t, 0, m->key, v) == (m->stays ? m->count : 0), "a row of the table",
                  number);
    }
    for (int i = 0; i < 65521; i++)
        check_key(!in_store[i], "a row of the store", number);
    check_key(mr_table_rows(t) == stay && mr_store_rows(s, 7) == stay, "the number of rows",
              number);
}

static void rules_test(void)
{
    int before = failures;
    const mr_shrink all = {.max_rows = -1, .forget = -1, .column = -1};
    mr_shrink w[12];
    for (int i = 0; i < 12; i++)
        w[i] = all;
    w[0].min_count = 3;
    w[1].min_norm = 3;
    w[2].min_score = 1;
    w[2].half_life = 10;
    for (int by = MR_BY_STEP; by <= MR_BY_SCORE; by++) {
        w[3 + by].by = w[7 + by].by = by;
        w[3 + by].half_life = w[7 + by].half_life = 7.5;
        w[3 + by].max_rows = 500;
        w[7 + by].max_rows = 101;
        w[7 + by].min_count = 2;
        w[7 + by].column = 0;
    }
    w[11].max_rows = 0;
    for (uint64_t i = 0; i < 12; i++) {
        mr_table *t;
        mr_store *s = store_made("rules", &t);
        double drops = expected(&w[i]), had = mr_table_rows(t);
        char digest[2][33];
        w[i].table = t;
        must(!mr_store_digest(s, digest[0]), "digest");
        check_key(!mr_store_shrink(s, &w[i], 1, 1) && w[i].dropped == drops && w[i].rows == had,
                  "dry run", i);
        must(!mr_store_digest(s, digest[1]), "digest");
        check_key(!strcmp(digest[0], digest[1]) && mr_table_rows(t) == had,
                  "a dry run changed something", i);
        w[i].dropped = 0;
        check_key(!mr_store_shrink(s, &w[i], 1, 0) && w[i].dropped == drops && drops > 0, "dropped",
                  i);
        check_key(mr_store_number(s, "step") == STEPS, "the step", i);
        compare(s, t, i);
        must(!mr_store_digest(s, digest[0]), "digest");
        double commits = mr_store_number(s, "commit");
        check_key(!mr_store_shrink(s, &w[i], 1, 0) && w[i].dropped == 0, "a second time", i);
        check_key(mr_store_number(s, "commit") == commits, "a commit of nothing", i);
        mr_store_close(s);
        mr_table_free(t);
        s = mr_store_open(at("rules"), MR_STORE_WRITE);
        t = table_make();
        must(s && !mr_store_load(s, t) && !mr_store_digest(s, digest[1]), "reopen");
        check_key(!strcmp(digest[0], digest[1]), "after reopening", i);
        compare(s, t, i);
        mr_store_close(s);
        mr_table_free(t);
    }
    report("a table that shrinks loses the rows that a sort says, in the cache and in the store",
           before);
}

static void fresh_test(void)
{
    int before = failures;
    mr_table *t;
    mr_store *s = store_made("fresh", &t);
    mr_shrink w = {.table = t, .max_rows = 10, .by = MR_BY_STEP, .forget = -1, .column = -1};
    expected(&w);
    must(!mr_store_shrink(s, &w, 1, 0), "shrink");
    const mirror *gone = NULL;
    for (int k = 0; k < KEYS; k++)
        if (rows[k].count > 1 && !rows[k].stays)
            gone = &rows[k];
    mr_table *other = table_make();
    float v[2][2 * DIM];
    must(gone && mr_table_peek(t, 0, gone->key, v[0]) == 0, "peek");
    mr_table_peek(other, 0, gone->key, v[1]);
    check_key(!memcmp(v[0], v[1], sizeof v[0]), "a dropped key has another fresh row", 0);
    push(t, &gone->key, 1, STEPS + 1);
    push(other, &gone->key, 1, STEPS + 1);
    must(!commit_all(s, t, STEPS + 1), "commit");
    check_key(mr_table_peek(t, 0, gone->key, v[0]) == 1 &&
                  mr_table_peek(other, 0, gone->key, v[1]) == 1 && !memcmp(v[0], v[1], sizeof v[0]),
              "a dropped key begins otherwise than a new one", 0);
    check_key(mr_table_rows(t) == 11 && mr_store_rows(s, 7) == 11, "rows", 0);
    mr_table_free(other);
    push(t, &gone->key, 1, STEPS + 2);
    check_key(mr_store_shrink(s, &w, 1, 0) == -1 && strstr(mr_error(), "to be committed"),
              "dirty rows", 0);
    must(!commit_all(s, t, STEPS + 2), "commit");
    w.half_life = 0;
    w.by = MR_BY_SCORE;
    check_key(mr_store_shrink(s, &w, 1, 0) == -1 && strstr(mr_error(), "half-life"), "no half-life",
              0);
    w.by = MR_BY_STEP;
    w.forget = STEPS + 3;
    check_key(mr_store_shrink(s, &w, 1, 0) == -1 && strstr(mr_error(), "forgotten"),
              "forget the future", 0);
    mr_store_close(s);
    mr_table_free(t);
    report("a dropped key is a new one when it is seen again", before);
}

/* A commit that fails: COMMIT cannot be prepared. */
static void failed_test(void)
{
    int before = failures;
    mr_table *t;
    char in_the_way[400];
    mr_store *s = store_made("failed", &t);
    mr_shrink w = {.table = t, .max_rows = 100, .by = MR_BY_COUNT, .forget = STEPS, .column = -1};
    snprintf(in_the_way, sizeof in_the_way, "%s/COMMIT.new", at("failed"));
    double had = mr_table_rows(t);
    must(!mkdir(in_the_way, 0777), "mkdir");
    check_key(mr_store_shrink(s, &w, 1, 0) == -1, "a shrinking that cannot be committed is made",
              0);
    must(!rmdir(in_the_way), "rmdir");
    check_key(mr_table_rows(t) == had && mr_store_rows(s, 7) == had, "its rows", 0);
    expected(&w);
    check_key(!mr_store_shrink(s, &w, 1, 0), "a shrinking after one that failed", 0);
    compare(s, t, 0);
    mr_store_close(s);
    mr_table_free(t);
    report("a shrinking that fails leaves the table, and its count of rows, as they were", before);
}

static int count_drop(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    uint16_t head[2];
    uint64_t step;
    memcpy(head, value, 4);
    memcpy(&step, value + 4, 8);
    check_key(key_len == ROW_KEY && key[0] == PREFIX_DROP && len == 12 && head[0] == 1 &&
                  !head[1] && step == STEPS,
              "a drop record", step);
    ++*(double *)context;
    return 0;
}

static double drops(mr_store *s)
{
    double n = 0;
    must(!store_scan_table(s, "scan", PREFIX_DROP, 7, count_drop, &n), "scan");
    return n;
}

static void forget_test(void)
{
    int before = failures;
    mr_table *t;
    mr_store *s = store_made("forget", &t);
    mr_shrink w = {.table = t, .max_rows = 10, .by = MR_BY_NORM, .forget = -1, .column = -1};
    must(!mr_store_shrink(s, &w, 1, 0), "shrink");
    check_key(drops(s) == w.dropped, "one drop record a row", 0);
    rocksdb_compact_range(s->base.db, NULL, 0, NULL, 0);
    check_key(drops(s) == w.dropped, "a compaction forgot drops", 0);
    w = (mr_shrink){.table = t, .max_rows = -1, .forget = STEPS - 1, .column = -1};
    check_key(!mr_store_shrink(s, &w, 1, 0), "forget", 1);
    rocksdb_compact_range(s->base.db, NULL, 0, NULL, 0);
    check_key(drops(s) > 0, "later drops were forgotten", 0);
    w.forget = STEPS;
    double commits = mr_store_number(s, "commit");
    check_key(!mr_store_shrink(s, &w, 1, 0) && mr_store_number(s, "commit") == commits + 1,
              "forget", 2);
    rocksdb_compact_range(s->base.db, "", 0, "\xff", 1);
    check_key(drops(s) == 0 && mr_store_rows(s, 7) == 10, "drops are not forgotten", 0);
    mr_store_close(s);
    s = mr_store_open(at("forget"), MR_STORE_READ);
    check_key(s && s->forgotten[7] == STEPS, "what is forgotten is not kept", 0);
    mr_store_close(s);
    mr_table_free(t);
    report("drop records are kept until they are forgotten, then a compaction removes them",
           before);
}

int main(void)
{
    tape = mr_tape_new(1, 4);
    must(tape != NULL, "tape");
    snprintf(root, sizeof root, "%s/moonrock-shrink-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    must(mkdtemp(root) != NULL, "temporary directory");
    RUN(rules_test);
    RUN(fresh_test);
    RUN(failed_test);
    RUN(forget_test);
    mr_tape_free(tape);
    tree_remove(root);
    return failures != 0;
}

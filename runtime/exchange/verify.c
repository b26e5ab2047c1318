/* verify.c - reads everything of a store and says what is wrong.
 *
 * The whole database is scanned once, in the order of its keys, with checksums verified: the log of
 * commits without gaps and ascending, up to the store's last; named records of the store's own; rows
 * and drops by table. Where RocksDB cannot read on, its message (which names the file) is kept, and the
 * scan goes on from the next file that begins or ends behind. */
#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/export.h"
#include "table/admission.h"

enum { PROBLEMS_MOST = 1000, KEY_MOST = 1200 };

typedef struct texts {
    char **text;
    size_t n, room;
} texts;

struct mr_verification {
    mr_store *s;
    mr_table *table[TABLES_MAX]; /* by number, or NULL */
    double rows[TABLES_MAX];     /* found, those that expired left out */
    table_state state[TABLES_MAX];
    char has_state[TABLES_MAX];
    uint64_t commits;
    commit_mark mark; /* the last of the log */
    texts problem, name;
    size_t untold;      /* problems beyond PROBLEMS_MOST */
    int full;           /* out of memory */
    char key[KEY_MOST]; /* the last that was read */
    size_t key_len;
};

static void texts_add(mr_verification *v, texts *t, const char *text, size_t len)
{
    char *copy = memory_new(len + 1);
    if (!copy || memory_reserve((void **)&t->text, &t->room, t->n + 1, sizeof *t->text)) {
        memory_free(copy);
        v->full = 1;
        return;
    }
    memcpy(copy, text, len);
    copy[len] = 0;
    t->text[t->n++] = copy;
}

static void texts_free(texts *t)
{
    for (size_t i = 0; i < t->n; i++)
        memory_free(t->text[i]);
    memory_free(t->text);
}

__attribute__((format(printf, 2, 3))) static void problem(mr_verification *v, const char *format,
                                                          ...)
{
    char text[1200];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (v->problem.n < PROBLEMS_MOST)
        texts_add(v, &v->problem, text, MIN((size_t)len, sizeof text - 1));
    else
        v->untold++;
}

/* ---- records, by prefix ---- */

static void log_check(mr_verification *v, const char *key, size_t key_len, const char *value,
                      size_t len)
{
    uint64_t entry[2];
    if (key_len != COMMIT_KEY || len != sizeof entry) {
        problem(v,
                "store %s: the log of commits: an entry of %zu and %zu bytes, expected %d and %zu",
                v->s->dir, key_len, len, COMMIT_KEY, sizeof entry);
        return;
    }
    memcpy(entry, value, sizeof entry);
    uint64_t number = big_endian(key + 1);
    if (v->commits && number != v->mark.number + 1)
        problem(v, "store %s: the log of commits: %" PRIu64 " follows %" PRIu64, v->s->dir, number,
                v->mark.number);
    if (v->commits && entry[0] < v->mark.step)
        problem(v,
                "store %s: the log of commits: commit %" PRIu64 " is of step %" PRIu64
                ", the one before of step %" PRIu64,
                v->s->dir, number, entry[0], v->mark.step);
    v->mark = (commit_mark){number, entry[0], entry[1], ""};
    v->commits++;
}

static mr_table *table_named(const mr_verification *v, const char *name, size_t len)
{
    for (int i = 0; i < TABLES_MAX; i++)
        if (v->table[i] && strlen(v->table[i]->name) == len &&
            !memcmp(v->table[i]->name, name, len))
            return v->table[i];
    return NULL;
}

static void filter_check(mr_verification *v, const char *name, size_t name_len, size_t len)
{
    const char *slash = name + name_len;
    while (slash > name + 7 && slash[-1] != '/')
        slash--;
    size_t digits = (size_t)(name + name_len - slash);
    if (slash == name + 7 || digits < 8 || strspn(slash, "0123456789") < digits)
        problem(v, "store %s: record %.*s: is no page of a filter", v->s->dir, (int)name_len, name);
    else if (!table_named(v, name + 7, (size_t)(slash - 1 - (name + 7))))
        problem(v, "store %s: record %.*s: belongs to no table of the model", v->s->dir,
                (int)name_len, name);
    if (len != FILTER_PAGE)
        problem(v, "store %s: record %.*s: a page of a filter of %zu bytes, expected %d", v->s->dir,
                (int)name_len, name, len, FILTER_PAGE);
}

static void state_check(mr_verification *v, const char *key, size_t key_len, const char *value,
                        size_t len)
{
    const char *name = key + 1;
    size_t name_len = key_len - 1;
    char text[300];
    snprintf(text, sizeof text, "%.*s", (int)MIN(name_len, sizeof text - 1), name);
    if (!strncmp(text, "table/", 6)) {
        table_state state;
        if (table_state_read(v->s, text + 6, value, len, &state)) {
            problem(v, "%s", mr_error());
            return;
        }
        mr_table *t = table_named(v, text + 6, strlen(text + 6));
        if (!t)
            problem(v, "store %s: record %s: belongs to no table of the model", v->s->dir, text);
        else if (t->id != state.id)
            problem(v, "store %s: record %s: says number %" PRIu64 ", the model %u", v->s->dir,
                    text, state.id, t->id);
        v->state[state.id] = state;
        v->has_state[state.id] = 1;
        if (state.expired > v->s->last.step)
            problem(v,
                    "store %s: record %s: rows up to step %" PRIu64
                    " expired, the last commit is of step %" PRIu64,
                    v->s->dir, text, state.expired, v->s->last.step);
    } else if (!strncmp(text, "filter/", 7)) {
        char copy[KEY_MOST];
        snprintf(copy, sizeof copy, "%.*s", (int)name_len, name);
        filter_check(v, copy, strlen(copy), len);
    } else {
        texts_add(v, &v->name, name, name_len);
        if (!strncmp(text, "param/", 6) && mr_param_check(text + 6, value, len))
            problem(v, "store %s: %s", v->s->dir, mr_error());
    }
}

static void row_check(mr_verification *v, const char *key, size_t key_len, const char *value,
                      size_t len)
{
    uint32_t id;
    uint64_t step = 0;
    const char *what = key[0] == PREFIX_ROW ? "row" : "drop";
    if (key_len != ROW_KEY) {
        problem(v, "store %s: the key of a %s has %zu bytes, expected %d", v->s->dir, what, key_len,
                ROW_KEY);
        return;
    }
    memcpy(&id, key + 1, 4);
    id = __builtin_bswap32(id);
    uint64_t number = big_endian(key + 5);
    mr_table *t = id < TABLES_MAX ? v->table[id] : NULL;
    if (!t) {
        problem(v,
                "store %s: a %s of key %" PRIu64
                " belongs to table number %u, which the model has not",
                v->s->dir, what, number, id);
        return;
    }
    if (key[0] == PREFIX_DROP) {
        if (len != 12)
            problem(v, "store %s: table %s: the drop of key %" PRIu64 " has %zu bytes, expected 12",
                    v->s->dir, t->name, number, len);
        return;
    }
    if (table_record_check(t, number, (const uint8_t *)value, len, &step)) {
        problem(v, "store %s: %s", v->s->dir, mr_error());
        return;
    }
    if (step > v->s->last.step)
        problem(v,
                "store %s: table %s: the row of key %" PRIu64 " is of step %" PRIu64
                ", the last commit of step %" PRIu64,
                v->s->dir, t->name, number, step, v->s->last.step);
    v->rows[id] += step > v->s->expired[id];
}

static int record_check(void *context, const char *key, size_t key_len, const char *value,
                        size_t len)
{
    mr_verification *v = context;
    v->key_len = MIN(key_len, (size_t)KEY_MOST);
    memcpy(v->key, key, v->key_len);
    if (!key_len)
        problem(v, "store %s: a record without a key", v->s->dir);
    else if (key[0] == PREFIX_COMMIT)
        log_check(v, key, key_len, value, len);
    else if (key[0] == PREFIX_STATE)
        state_check(v, key, key_len, value, len);
    else if (key[0] == PREFIX_ROW || key[0] == PREFIX_DROP)
        row_check(v, key, key_len, value, len);
    else
        problem(v, "store %s: a record whose key begins with %d, expected 0 to 3", v->s->dir,
                (unsigned char)key[0]);
    return v->full ? fail("store %s: no memory to verify it", v->s->dir) : 0;
}

/* ---- going on behind damage ---- */

static int key_above(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int order = memcmp(a, b, MIN(a_len, b_len));
    return order ? order > 0 : a_len > b_len;
}

/* The least bound of a file above the key at hand becomes it: 1, or 0: there is none. */
static int next_bound(mr_verification *v)
{
    char best[KEY_MOST] = "";
    size_t best_len = 0;
    const rocksdb_livefiles_t *files = rocksdb_livefiles(v->s->base.db);
    for (int i = 0; i < rocksdb_livefiles_count(files); i++)
        for (int end = 0; end < 2; end++) {
            size_t len = 0;
            const char *key = end ? rocksdb_livefiles_largestkey(files, i, &len)
                                  : rocksdb_livefiles_smallestkey(files, i, &len);
            if (len && len <= KEY_MOST && key_above(key, len, v->key, v->key_len) &&
                (!best_len || key_above(best, best_len, key, len))) {
                memcpy(best, key, len);
                best_len = len;
            }
        }
    rocksdb_livefiles_destroy(files);
    memcpy(v->key, best, best_len);
    v->key_len = best_len;
    return best_len > 0;
}

static int is_told(const mr_verification *v, const char *text)
{
    return v->problem.n && !strcmp(v->problem.text[v->problem.n - 1], text);
}

static void scan_all(mr_verification *v)
{
    char from[KEY_MOST] = {PREFIX_COMMIT}, to[KEY_MOST];
    size_t len = 1;
    memset(to, 0xff, sizeof to);
    while (store_scan(v->s, "is damaged", from, to, len, record_check, v) && !v->full) {
        if (!is_told(v, mr_error()))
            problem(v, "%s", mr_error());
        if (!next_bound(v))
            break;
        memcpy(from, v->key, v->key_len);
        len = v->key_len;
    }
}

/* ---- what all records together must be ---- */

static void counts_check(mr_verification *v, int whole)
{
    const commit_mark *last = &v->s->last;
    if (whole && (!v->commits || v->mark.number != last->number || v->mark.step != last->step ||
                  v->mark.time != last->time))
        problem(v,
                "store %s: the log of commits ends with commit %" PRIu64 " of step %" PRIu64
                ", expected %" PRIu64 " of step %" PRIu64,
                v->s->dir, v->mark.number, v->mark.step, last->number, last->step);
    for (int i = 0; whole && i < TABLES_MAX; i++) {
        double told = v->has_state[i] ? (double)v->state[i].rows : 0;
        int expires = v->has_state[i] && v->state[i].expired;
        if (v->table[i] && (expires ? told < v->rows[i] : told != v->rows[i]))
            problem(v, "store %s: table %s: has %.0f rows, its record says %.0f", v->s->dir,
                    v->table[i]->name, v->rows[i], told);
    }
}

mr_verification *mr_store_verify(mr_store *s, mr_table *const *tables, size_t n)
{
    GIVEN(s && tables, NULL);
    mr_verification *v = memory_zero(sizeof *v);
    if (!v)
        return NULL;
    v->s = s;
    for (size_t i = 0; i < n; i++)
        v->table[tables[i]->id] = tables[i];
    scan_all(v);
    counts_check(v, !v->problem.n);
    if (v->untold)
        texts_add(v, &v->problem, "and more", 8);
    if (!v->full)
        return v;
    mr_verification_free(v);
    return fail_null("store %s: no memory to verify it", s->dir);
}

void mr_verification_free(mr_verification *v)
{
    if (!v)
        return;
    texts_free(&v->problem);
    texts_free(&v->name);
    memory_free(v);
}

const char *mr_verification_problem(const mr_verification *v, int i)
{
    GIVEN(v, NULL);
    return i >= 0 && (size_t)i < v->problem.n ? v->problem.text[i] : NULL;
}

const char *mr_verification_name(const mr_verification *v, int i)
{
    GIVEN(v, NULL);
    return i >= 0 && (size_t)i < v->name.n ? v->name.text[i] : NULL;
}

double mr_verification_rows(const mr_verification *v, uint32_t table)
{
    GIVEN(v, -1);
    return table < TABLES_MAX ? v->rows[table] : 0;
}

double mr_verification_commits(const mr_verification *v)
{
    GIVEN(v, -1);
    return (double)v->commits;
}

/* ---- kept states ---- */

const char *mr_store_kept(const char *dir, int i)
{
    GIVEN(dir, NULL);
    static _Thread_local char path[PATH_SIZE];
    char kept[PATH_SIZE];
    struct dirent **entry;
    if (path_make(kept, "%s/kept", dir))
        return NULL;
    int n = scandir(kept, &entry, NULL, alphasort), found = 0;
    *path = 0;
    for (int k = 0; k < n; k++) {
        if (entry[k]->d_name[0] != '.' && found++ == i &&
            path_make(path, "%s/%s", kept, entry[k]->d_name))
            *path = 0;
        free(entry[k]);
    }
    if (n >= 0)
        free(entry);
    return *path ? path : NULL;
}

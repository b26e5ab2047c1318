/* ahead_test.c - rows that are read from the store, for a lookup and ahead of it: what cannot be read is
 * an error, never a new row, and once the disk is well again the rows are what they were; how many rows a
 * table says it has; what a restored state knows of sightings. */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store.h"
#include "support/check.h"
#include "support/store.h"
#include "table/table_room.h"

enum { KEYS = 900, SIZE = 60, TRAINED = 7 };

static uint64_t key_of(int i)
{
    return mix64((uint64_t)i) >> 1; /* files of records hold int64 */
}

static void train_all(mr_table *t, uint64_t step)
{
    uint64_t keys[KEYS];
    for (int i = 0; i < KEYS; i++)
        keys[i] = key_of(i);
    push(t, keys, KEYS, step);
}

/* Makes a store of KEYS rows; what they are. */
static void made(const char *name, float (*rows)[2 * DIM + 1])
{
    must(!tree_remove(at(name)), "remove");
    mr_store *s = mr_store_open(at(name), MR_STORE_CREATE);
    mr_table *t = table_make();
    must(s && !mr_store_load(s, t), "create");
    train_all(t, TRAINED);
    must(!commit_all(s, t, TRAINED), "commit");
    for (int i = 0; i < KEYS; i++) {
        double count = mr_table_peek(t, 0, key_of(i), rows[i]);
        rows[i][2 * DIM] = (float)count;
    }
    mr_store_close(s);
    mr_table_free(t);
}

/* Turns bytes of all sorted files around, between their parts `from` and `to` of 100; the same again
 * mends them. */
static void files_turn(const char *name, int from, int to)
{
    char dir[300], path[600];
    snprintf(dir, sizeof dir, "%s/db-1", at(name));
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        size_t len = strlen(e->d_name);
        if (len < 4 || strcmp(e->d_name + len - 4, ".sst"))
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        int fd = open(path, O_RDWR);
        must(fd >= 0 && !fstat(fd, &st), path);
        for (off_t i = st.st_size / 100 * from; st.st_size > 20000 && i < st.st_size / 100 * to;
             i += 50) {
            uint8_t byte;
            must(pread(fd, &byte, 1, i) == 1, "read");
            byte ^= 0x55;
            must(pwrite(fd, &byte, 1, i) == 1, "write");
            n++;
        }
        close(fd);
    }
    closedir(d);
    must(n > 0, "there is a file of rows");
}

/* A table of the store of which the cache has no rows. */
static mr_store *cold(const char *name, mr_table **t)
{
    mr_store *s = mr_store_open(at(name), MR_STORE_WRITE);
    *t = table_make();
    must(s && !mr_store_attach(s, *t), "attach");
    table_resident(*t, 0);
    return s;
}

/* The first k keys looked up for a training step, which is not made. */
static int look_up(mr_table *t, int first, int k)
{
    uint64_t keys[KEYS];
    uint32_t offsets[KEYS + 1];
    for (int i = 0; i < k; i++)
        keys[i] = key_of(first + i);
    for (int i = 0; i <= k; i++)
        offsets[i] = (uint32_t)i;
    mr_batch batch = {.n = k, .entries = k, .fields = 1, .keys = keys, .offsets = offsets};
    mr_tape_begin(tape, 1, TRAINED + 1);
    int found = mr_table_pull(t, tape, &batch);
    mr_table_drop(t);
    mr_tape_reset(tape);
    return found;
}

static int all_as_before(mr_table *t, float (*rows)[2 * DIM + 1])
{
    int wrong = 0;
    for (int i = 0; i < KEYS; i++) {
        float v[2 * DIM];
        double count = mr_table_peek(t, 0, key_of(i), v);
        wrong += (float)count != rows[i][2 * DIM] || memcmp(v, rows[i], sizeof v) != 0;
    }
    return !wrong;
}

static float rows[KEYS][2 * DIM + 1];

static void lookup_test(void)
{
    int before = failures;
    made("damaged", rows);
    for (int threads = 1; threads <= 3; threads += 2)
        for (int part = 10; part < 90; part += 20) { /* the first chunk of rows, or a later one */
            mr_table *t;
            mr_threads_set(threads);
            mr_store *s = cold("damaged", &t);
            files_turn("damaged", part, part + 10);
            for (int times = 0; times < 2; times++)
                check(look_up(t, 0, KEYS) < 0 && strstr(mr_error(), "could not be read") &&
                          strstr(mr_error(), at("damaged")),
                      "%d threads, part %d: rows that cannot be read are looked up", threads, part);
            files_turn("damaged", part, part + 10);
            for (int first = 0; first < KEYS; first += SIZE)
                check(look_up(t, first, SIZE) >= 0, "%d threads, part %d: it stays unreadable",
                      threads, part);
            check(all_as_before(t, rows), "%d threads, part %d: another row than before", threads,
                  part);
            check(mr_table_rows(t) == KEYS && mr_table_dirty(t) == 0, "the count of rows");
            mr_store_close(s);
            mr_table_free(t);
        }
    report("rows that cannot be read are an error of their lookup, and are what they were once "
           "they can",
           before);
}

/* Records of one key each: KEYS of them. */
static void records_write(void)
{
    static int64_t record[KEYS][2];
    for (int i = 0; i < KEYS; i++) {
        record[i][0] = (int64_t)key_of(i);
        record[i][1] = i & 1;
    }
    must(!file_write(at("records.bin"), record, sizeof record), "records");
}

static mr_reader *records_open(void)
{
    static char path[300];
    static const char *files[1] = {path};
    snprintf(path, sizeof path, "%s", at("records.bin"));
    mr_reader_options o = {.files = files,
                           .files_n = 1,
                           .format = "bin",
                           .fields = 1,
                           .size = SIZE,
                           .epochs = 1,
                           .memory = 1};
    mr_reader *r = mr_reader_open(&o);
    must(r != NULL, "reader");
    return r;
}

/* One step by the reader's batch. */
static int step_by(mr_table *t, const mr_batch *b, uint64_t step)
{
    mr_tape_begin(tape, 1, (double)step);
    int found = mr_table_pull(t, tape, b);
    if (found >= 0) {
        int pooled = mr_tape_pool(tape, found, 0, MR_POOL_SUM, 0);
        must(pooled >= 0 &&
                 mr_tape_backward(tape, mr_tape_sum(tape, mr_tape_mul(tape, pooled, pooled))) == -2,
             "gradient");
        must(mr_table_push(t, step) >= 0, "push");
    }
    mr_table_drop(t);
    mr_tape_reset(tape);
    return found;
}

/* Begins to read the rows of the batch at hand, and of those that come. */
static int look_ahead(mr_table *t, mr_reader *r)
{
    const mr_batch *batch;
    int more = 1;
    for (int i = 0; more == 1 && (batch = mr_reader_coming(r, i)); i++)
        more = mr_table_ahead(t, batch);
    return more < 0 ? -1 : 0;
}

/* A pass over the records, read ahead or not, with commits behind it; the digest. */
static void pass(const char *name, int ahead, char digest[33])
{
    mr_table *t;
    mr_store *s = cold(name, &t);
    mr_reader *r = records_open();
    uint64_t step = TRAINED;
    while (mr_reader_next(r) > 0) {
        must(!ahead || !look_ahead(t, r), "ahead");
        must(step_by(t, mr_reader_batch(r), ++step) >= 0, "step");
        if (step % 4 == 0)
            must(!mr_commit_begin(s) && !mr_commit_table(s, t) && !mr_commit_behind(s, step),
                 "commit");
    }
    must(!mr_commit_wait(s) && !commit_all(s, t, step) && !mr_store_digest(s, digest), "digest");
    mr_reader_close(r);
    mr_store_close(s);
    mr_table_free(t);
}

static void ahead_test(void)
{
    int before = failures;
    char digest[2][33];
    made("ahead", rows);
    for (int part = 5; part < 95; part += 15) {
        mr_table *t;
        mr_threads_set(part % 2 ? 3 : 1);
        mr_store *s = cold("ahead", &t);
        mr_reader *r = records_open();
        files_turn("ahead", part, part + 15);
        int failed = 0;
        uint64_t step = TRAINED;
        while (!failed && mr_reader_next(r) > 0) {
            failed = look_ahead(t, r);
            if (!failed && step_by(t, mr_reader_batch(r), ++step) < 0)
                failed = 1;
        }
        check(failed && strstr(mr_error(), "could not be read"),
              "part %d: rows that could not be read ahead are trained", part);
        files_turn("ahead", part, part + 15);
        mr_reader_close(r);
        mr_table_ahead_drop(t);
        mr_table_clear(t);
        must(!mr_store_attach(s, t), "attach");
        table_resident(t, 0);
        check(all_as_before(t, rows), "part %d: another row than before", part);
        mr_store_close(s);
        mr_table_free(t);
    }
    mr_threads_set(2);
    made("ahead", rows);
    pass("ahead", 0, digest[0]);
    made("ahead", rows);
    pass("ahead", 1, digest[1]);
    /* times of commits are not in a digest */
    check(!strcmp(digest[0], digest[1]), "another digest, read ahead");
    report("rows that cannot be read ahead are an error of their step, and reading ahead changes "
           "nothing",
           before);
}

/* A table that shrinks while rows of the batches to come are read: they are new ones then. */
static void shrink_test(void)
{
    int before = failures;
    made("shrunk", rows);
    mr_table *t;
    mr_threads_set(3);
    mr_store *s = cold("shrunk", &t);
    mr_reader *r = records_open();
    uint64_t step = TRAINED;
    mr_shrink w = {.table = t, .forget = -1, .column = -1};
    for (int i = 0; i < TRAINED; i++) /* so many rows may be in the cache, then */
        must(mr_reader_next(r) > 0 && step_by(t, mr_reader_batch(r), ++step) >= 0, "step");
    must(!commit_all(s, t, step) && mr_reader_next(r) > 0, "commit");
    for (int i = 0; i < 200 && !mr_reader_coming(r, 2); i++)
        usleep(10000);
    must(!look_ahead(t, r) && t->plans && !t->plans->taken, "ahead");
    must(!mr_store_shrink(s, &w, 1, 0) && w.dropped == KEYS, "shrink");
    do {
        must(!look_ahead(t, r), "ahead");
        check(step_by(t, mr_reader_batch(r), ++step) >= 0, "step");
    } while (mr_reader_next(r) > 0);
    for (int i = 0; i < KEYS; i++) {
        float v[2 * DIM];
        double count = mr_table_peek(t, 0, key_of(i), v);
        if (!check(count == (i >= TRAINED * SIZE), "key %d has %g updates", i, count))
            break;
    }
    must(!commit_all(s, t, step), "commit");
    check(mr_table_rows(t) == KEYS - TRAINED * SIZE && mr_store_rows(s, 7) == mr_table_rows(t),
          "%g rows", mr_table_rows(t));
    mr_reader_close(r);
    mr_store_close(s);
    mr_table_free(t);
    report("rows that were read ahead of a shrinking are gone with it", before);
}

/* ---- what failed commits and restored states leave ---- */

static mr_table *counting(void)
{
    mr_column column = {.name = "v", .dim = DIM, .admit = 3};
    mr_admission rules = {.keys = 40000, .error = 0.001};
    column.init = (mr_init){.kind = MR_UNIFORM, .a = 0.5, .b = 1};
    column.optim = (mr_optim){.kind = MR_ADAGRAD, .lr = 0.1f, .eps = 1e-8f};
    mr_table *t = mr_table_new("t", 7, 42, &column, 1);
    must(t && !mr_table_admission(t, &rules), "table");
    return t;
}

/* Commits that fail, since there is no place for their files. */
static void commit_fails(mr_store *s, mr_table *t, const char *name, uint64_t step)
{
    char staging[300], aside[300];
    snprintf(staging, sizeof staging, "%s/staging", at(name));
    snprintf(aside, sizeof aside, "%s/aside", at(name));
    must(!rename(staging, aside), "rename");
    check(commit_all(s, t, step) != 0, "a commit without a place for its files is made");
    must(!rename(aside, staging), "rename");
}

static void sightings_test(void)
{
    int before = failures;
    uint64_t key = key_of(1), other = key_of(2);
    float v[2 * DIM];
    must(!tree_remove(at("counted")), "remove");
    mr_store *s = mr_store_open(at("counted"), MR_STORE_CREATE);
    mr_table *t = counting();
    must(s && !mr_store_load(s, t), "create");
    must(!commit_all(s, t, 0) && !mr_store_checkpoint(s, "none"),
         "keep"); /* nothing was seen yet */
    push(t, &key, 1, 1);
    commit_fails(s, t, "counted", 1);
    must(!commit_all(s, t, 1), "commit");
    push(t, &other, 1, 2);
    commit_fails(s, t, "counted", 2);
    push(t, &key, 1, 3);
    must(!commit_all(s, t, 3), "commit");
    mr_store_close(s);
    mr_table_free(t);
    s = mr_store_open(at("counted"), MR_STORE_WRITE);
    t = counting();
    must(s && !mr_store_load(s, t), "load");
    push(t, &other, 1, 4);
    push(t, &key, 1, 4);
    check(mr_table_peek(t, 0, key, v) == 1, "sightings of failed commits are lost");
    check(mr_table_peek(t, 0, other, v) == 0, "a sighting too many");
    push(t, &other, 1, 5);
    check(mr_table_peek(t, 0, other, v) == 1, "a sighting of a failed commit is lost");
    check(mr_table_rows(t) == 2, "%g rows", mr_table_rows(t));
    must(!commit_all(s, t, 5) && !mr_store_restore(s, "none"), "restore");
    mr_table_clear(t);
    must(!mr_store_load(s, t), "load");
    check(mr_table_rows(t) == 0 && mr_store_rows(s, 7) == 0, "rows of the restored state");
    for (uint64_t step = 1; step <= 3; step++) {
        check(mr_table_rows(t) == 0, "step %d: sightings after the restored state count",
              (int)step);
        push(t, &key, 1, step);
    }
    check(mr_table_rows(t) == 1 && mr_table_peek(t, 0, key, v) == 1, "admitted");
    uint64_t third = key_of(3);
    uint32_t offsets[2] = {0, 1};
    for (uint64_t step = 4; step <= 5; step++) { /* two lookups of a batch, one sighting */
        mr_batch batch = {
            .n = 1, .entries = 1, .fields = 1, .keys = &third, .offsets = offsets, .number = step};
        mr_tape_begin(tape, 1, (double)step);
        int one = mr_table_pull(t, tape, &batch), two = mr_table_pull(t, tape, &batch);
        must(one >= 0 && two >= 0, "pull");
        int sum = mr_tape_sum(tape, mr_tape_add(tape, mr_tape_pool(tape, one, 0, MR_POOL_SUM, 0),
                                                mr_tape_pool(tape, two, 0, MR_POOL_SUM, 0)));
        must(mr_tape_backward(tape, sum) == -2 && mr_table_push(t, step) >= 0, "step");
        mr_tape_reset(tape);
    }
    check(mr_table_peek(t, 0, third, v) == 0, "two lookups of a batch are two sightings");
    must(!commit_all(s, t, 3), "commit");
    check(mr_store_rows(s, 7) == 1, "rows in the store");
    mr_store_close(s);
    mr_table_free(t);
    report("sightings are kept through commits that fail, and forgotten by a restored state before "
           "them",
           before);
}

/* ---- counts of rows ---- */

/* Rows in the table, by the store's record of it, and by a scan. */
static int counts_are(mr_store *s, mr_table *t, double rows_n, const char *when)
{
    table_state state = {0};
    return check(mr_table_rows(t) == rows_n, "%s: the table says %g rows, expected %g", when,
                 mr_table_rows(t), rows_n) &&
           check(mr_store_get(s, "table/t") == 1 &&
                     !table_state_read(s, "t", mr_store_value(s), (size_t)mr_store_value_len(s),
                                       &state) &&
                     (double)state.rows == rows_n,
                 "%s: the store's record says %g", when, (double)state.rows) &&
           check(mr_store_rows(s, 7) == rows_n, "%s: the store has %g", when, mr_store_rows(s, 7));
}

static void counts_test(void)
{
    int before = failures;
    for (int resident = 0; resident <= 1; resident++) {
        uint64_t keys[40];
        for (int i = 0; i < 40; i++)
            keys[i] = key_of(i);
        must(!tree_remove(at("counts")), "remove");
        mr_store *s = mr_store_open(at("counts"), MR_STORE_CREATE);
        mr_table *t = table_make();
        must(s && !mr_store_load(s, t), "create");
        table_resident(t, resident);
        push(t, keys, 10, 1);
        commit_fails(s, t, "counts", 1);
        must(!commit_all(s, t, 1), "commit");
        counts_are(s, t, 10, "after a failed commit");
        must(!mr_store_checkpoint(s, "ten"), "keep");
        push(t, keys, 25, 2);
        commit_fails(s, t, "counts", 2);
        push(t, keys + 5, 30, 3);
        must(!commit_all(s, t, 3), "commit");
        counts_are(s, t, 35, "rows that changed twice around a failed commit");
        must(!mr_store_restore(s, "ten"), "restore");
        mr_table_clear(t);
        must(!mr_store_load(s, t), "load");
        counts_are(s, t, 10, "restored");
        table_resident(t, resident);
        push(t, keys, 20, 2);
        must(!commit_all(s, t, 2), "commit");
        counts_are(s, t, 20, "after the restored state");
        mr_store_close(s);
        mr_table_free(t);
        s = mr_store_open(at("counts"), MR_STORE_WRITE);
        t = table_make();
        must(s && !mr_store_load(s, t), "reopen");
        counts_are(s, t, 20, "reopened");
        push(t, keys, 20, 3);
        must(!commit_all(s, t, 3), "commit");
        counts_are(s, t, 20, "rows that were there");
        mr_store_close(s);
        mr_table_free(t);
    }
    static uint64_t small[200]; /* keys that differ in one byte alone */
    must(!tree_remove(at("small")), "remove");
    mr_store *s = mr_store_open(at("small"), MR_STORE_CREATE);
    mr_table *t = table_make();
    must(s && !mr_store_load(s, t), "create");
    for (uint64_t i = 0; i < 200; i++)
        small[i] = 199 - i;
    push(t, small, 200, 1);
    must(!commit_all(s, t, 1), "commit");
    counts_are(s, t, 200, "small keys");
    mr_store_close(s);
    mr_table_free(t);
    report("a table counts its rows right, through failed commits, restores and reopening", before);
}

/* ---- expiry between a lookup and its update, of copies ---- */

static mr_table *copied(int half, int idle)
{
    mr_column column = {.name = "v", .dim = DIM, .half = half};
    column.init = (mr_init){.kind = MR_UNIFORM, .a = 0.5, .b = 1};
    column.optim = (mr_optim){.kind = MR_ADAGRAD,
                              .lr = 0.1f,
                              .eps = 1e-8f,
                              .l2 = idle ? 0.01 : 0,
                              .l2_table = idle,
                              .idle_steps = 20};
    mr_table *t = mr_table_new("t", 7, 42, &column, 1);
    must(t && !mr_table_expiry(t, 86400), "table");
    return t;
}

static void expiry_of_copies_test(void)
{
    int before = failures;
    for (int way = 0; way < 8; way++) { /* bf16, idle rows; resident or not */
        uint64_t key = key_of(3);
        float v[2][2 * DIM];
        mr_table *t = copied(way & 1, way & 2), *other = copied(way & 1, way & 2);
        must(!tree_remove(at("copies")), "remove");
        mr_store *s = mr_store_open(at("copies"), MR_STORE_CREATE);
        must(s && !mr_store_load(s, t), "create");
        table_resident(t, !(way & 4));
        mr_commit_time(s, 1e9);
        push(t, &key, 1, 1);
        must(!commit_all(s, t, 1), "commit");
        mr_commit_time(s, 1e9 + 86400 * 3);
        uint32_t offsets[2] = {0, 1};
        mr_batch batch = {.n = 1, .entries = 1, .fields = 1, .keys = &key, .offsets = offsets};
        mr_tape_begin(tape, 1, 5);
        int found = mr_table_pull(t, tape, &batch);
        must(found >= 0 && !commit_all(s, t, 4), "commit");
        int pooled = mr_tape_pool(tape, found, 0, MR_POOL_SUM, 0);
        must(mr_tape_backward(tape, mr_tape_sum(tape, mr_tape_mul(tape, pooled, pooled))) == -2,
             "gradient");
        must(mr_table_push(t, 5) >= 0, "push");
        mr_tape_reset(tape);
        check(mr_table_peek(t, 0, key, v[0]) == 1, "way %d: its updates go on being counted", way);
        /* fresh weights, and the gradient that the lookup saw, move by the learning rate at most: the old
         * row's sum of squares would show */
        push(other, &key, 1, 5);
        must(mr_table_peek(other, 0, key, v[1]) == 1, "peek");
        for (int k = 0; k < DIM; k++)
            if (!check(v[0][k] - v[1][k] < 0.02f && v[1][k] - v[0][k] < 0.02f,
                       "way %d: weight %d is %g, of a key never seen %g", way, k, (double)v[0][k],
                       (double)v[1][k]))
                break;
        check(mr_table_rows(t) == 2, "way %d: %g rows made", way, mr_table_rows(t));
        mr_store_close(s);
        mr_table_free(t);
        mr_table_free(other);
    }
    report("a row that expires between its lookup and its update begins anew, copies of it too",
           before);
}

/* ---- commits behind training ---- */

enum { COMMITS = 60 };

static void behind_test(void)
{
    int before = failures, wrong = 0;
    static char digest[COMMITS + 1][33];
    for (int behind = 0; behind <= 1; behind++) {
        must(!tree_remove(at("behind")), "remove");
        mr_store *s = mr_store_open(at("behind"), MR_STORE_CREATE);
        mr_table *t = table_make();
        must(s && !mr_store_load(s, t), "create");
        train_all(t, 1);
        for (uint64_t step = 1; step <= COMMITS; step++) {
            must(!mr_commit_begin(s) && !mr_commit_table(s, t) && !mr_commit_behind(s, step),
                 "commit");
            must(behind || !mr_commit_wait(s), "wait");
            train_all(t, step + 1); /* while the commit is written */
            char now[33];
            must(!mr_commit_wait(s) && !mr_store_digest(s, now), "digest");
            if (!behind)
                memcpy(digest[step], now, sizeof now);
            else
                wrong += strcmp(digest[step], now) != 0;
        }
        mr_store_close(s);
        mr_table_free(t);
    }
    check(!wrong, "%d of %d commits hold rows of another step", wrong, (int)COMMITS);
    report("a commit behind training holds the rows as they were at its step", before);
}

/* ---- large batches, many sightings, damaged rows ---- */

/* The rows of more new keys than a piece of the lookup holds are theirs. */
static void large_batch_test(void)
{
    enum { MANY = 10000 };
    int before = failures;
    static uint64_t keys[MANY];
    for (int i = 0; i < MANY; i++)
        keys[i] = mix64((uint64_t)i + 77);
    for (int resident = 0; resident <= 1; resident++) {
        must(!tree_remove(at("large")), "remove");
        mr_store *s = mr_store_open(at("large"), MR_STORE_CREATE);
        mr_table *t = table_make(), *other = table_make();
        must(s && !mr_store_load(s, t), "create");
        table_resident(t, resident);
        push(t, keys, MANY, 1);
        for (int i = 0; i < MANY; i += 1000)
            push(other, keys + i, 1000, 1);
        must(!commit_all(s, t, 1), "commit");
        for (int i = 0; i < MANY; i++) {
            float v[2][2 * DIM];
            double count = mr_table_peek(t, 0, keys[i], v[0]);
            if (!check(count == 1 && mr_table_peek(other, 0, keys[i], v[1]) == 1 &&
                           !memcmp(v[0], v[1], sizeof v[0]),
                       "key %d has %g updates, or another's row", i, count))
                break;
        }
        check(mr_store_rows(s, 7) == MANY, "%g rows in the store", mr_store_rows(s, 7));
        mr_store_close(s);
        mr_table_free(t);
        mr_table_free(other);
    }
    report("new keys of a large batch have rows of their own", before);
}

/* Sightings of many keys, in all pages of the filter, are there after the store was opened again. */
static void pages_test(void)
{
    enum { MANY = 400 };
    int before = failures, admitted = 0;
    uint64_t keys[MANY];
    for (int i = 0; i < MANY; i++)
        keys[i] = key_of(i);
    must(!tree_remove(at("pages")), "remove");
    for (uint64_t step = 1; step <= 3; step++) {
        mr_store *s = mr_store_open(at("pages"), step == 1 ? MR_STORE_CREATE : MR_STORE_WRITE);
        mr_table *t = counting();
        must(s && !mr_store_load(s, t), "load");
        push(t, keys, MANY, step);
        must(!commit_all(s, t, step), "commit");
        float v[2 * DIM];
        for (int i = 0; i < MANY; i++)
            admitted += mr_table_peek(t, 0, keys[i], v) == 1;
        check(admitted == (step == 3 ? MANY : 0), "step %d: %d keys are admitted", (int)step,
              admitted);
        mr_store_close(s);
        mr_table_free(t);
    }
    report("sightings of all keys come back from the store", before);
}

/* A row that is none is an error when the table is loaded, not left out. */
static void damaged_row_test(void)
{
    int before = failures;
    char key[ROW_KEY];
    made("misshapen", rows);
    mr_store *s = mr_store_open(at("misshapen"), MR_STORE_WRITE);
    must(s && !mr_commit_begin(s), "open");
    rows_file *f = rows_file_new(s);
    row_key(key, PREFIX_ROW, 7, key_of(11));
    must(f && !rows_file_put(f, key, sizeof key, "\1\0\0\0\7\0\0\0\0\0\0\0\1", 13) &&
             !rows_file_end(f) && !mr_commit_end(s, TRAINED),
         "commit");
    for (int threads = 1; threads <= 2; threads++) {
        mr_table *t = table_make();
        mr_threads_set(threads);
        check(mr_store_load(s, t) == -1 && strstr(mr_error(), "is damaged"),
              "%d threads: a row that cannot be read is left out", threads);
        mr_table_free(t);
    }
    mr_store_close(s);
    report("a row that is damaged is an error when its table is loaded", before);
}

/* Of more learning rates than there is room for, the last are kept. */
static void rates_test(void)
{
    int before = failures;
    mr_table *t = copied(0, 1);
    mr_column column = {.name = "v", .dim = DIM};
    column.optim = (mr_optim){
        .kind = MR_ADAGRAD, .lr = 0.1f, .eps = 1e-8f, .l2 = 0.01, .l2_table = 1, .idle_steps = 3};
    mr_table *less = mr_table_new("t", 7, 42, &column, 1);
    uint64_t key = key_of(1);
    must(less != NULL, "table");
    for (uint64_t step = 1; step <= 30; step++) {
        mr_table_optim(t, 0)->lr = 0.1 / (double)step;
        push(t, &key, 1, step);
    }
    size_t len = 0, had = 0;
    const rate *all = mr_table_rates(t, 0, &len);
    size_t n = len / sizeof(rate);
    must(n > 10 && !mr_table_rates_load(less, 0, all, len), "rates");
    const rate *some = mr_table_rates(less, 0, &had);
    size_t m = had / sizeof(rate);
    check(m > 3 && m < n && !memcmp(some, all + n - m, had), "%zu of %zu rates, not the last", m,
          n);
    mr_table_free(t);
    mr_table_free(less);
    report("of too many learning rates the last come back from the store", before);
}

/* What a lookup in training shows: the sum of the rows of its batch. */
static double shown(mr_table *t, const mr_batch *b, uint64_t step)
{
    mr_tape_begin(tape, 1, (double)step);
    int found = mr_table_pull(t, tape, b);
    must(found >= 0, "pull");
    int sum = mr_tape_sum(tape, mr_tape_pool(tape, found, 0, MR_POOL_SUM, 0));
    double value = mr_tape_scalar(tape, sum, 0);
    mr_table_drop(t);
    mr_tape_reset(tape);
    return value;
}

/* Rows that were read ahead and expire then are shown as new ones. */
static void expiry_ahead_test(void)
{
    int before = failures;
    mr_table *t = copied(0, 0), *other = copied(0, 0);
    must(!tree_remove(at("expires")), "remove");
    mr_store *s = mr_store_open(at("expires"), MR_STORE_CREATE);
    must(s && !mr_store_load(s, t), "create");
    mr_commit_time(s, 1e9);
    train_all(t, 1);
    must(!commit_all(s, t, 1), "commit");
    mr_table_free(t);
    t = copied(0, 0);
    must(!mr_store_attach(s, t), "attach");
    table_resident(t, 0);
    mr_reader *r = records_open();
    uint64_t step = 1;
    for (int i = 0; i < TRAINED; i++)
        must(mr_reader_next(r) > 0 && step_by(t, mr_reader_batch(r), ++step) >= 0, "step");
    must(!commit_all(s, t, step) && mr_reader_next(r) > 0, "commit");
    must(!look_ahead(t, r) && t->plans && !t->plans->taken, "ahead");
    mr_commit_time(s, 1e9 + 86400 * 3);
    must(!commit_all(s, t, step), "commit");
    double now = shown(t, mr_reader_batch(r), step + 1);
    double fresh = shown(other, mr_reader_batch(r), step + 1);
    check(now == fresh, "%g is shown, of keys never seen %g", now, fresh);
    mr_table_ahead_drop(t);
    mr_reader_close(r);
    mr_store_close(s);
    mr_table_free(t);
    mr_table_free(other);
    report("rows that expire after they were read ahead are shown as new ones", before);
}

int main(void)
{
    tape = mr_tape_new(1, 4);
    must(tape != NULL, "tape");
    snprintf(root, sizeof root, "%s/moonrock-ahead-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    must(mkdtemp(root) != NULL, "temporary directory");
    records_write();
    RUN(lookup_test);
    RUN(ahead_test);
    RUN(shrink_test);
    RUN(sightings_test);
    RUN(counts_test);
    RUN(expiry_of_copies_test);
    RUN(behind_test);
    RUN(large_batch_test);
    RUN(pages_test);
    RUN(damaged_row_test);
    RUN(rates_test);
    RUN(expiry_ahead_test);
    mr_tape_free(tape);
    tree_remove(root);
    return failures != 0;
}

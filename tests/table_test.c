/* table_test.c - expiry and admission of rows: through commits, reopening, kills, another number of
 * threads and another memory budget. Whatever a case does, it is a function of steps and of the times that
 * commits are given. */
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "kernel/half.h"
#include "kernel/kernel.h"
#include "store/store.h"
#include "support/check.h"
#include "support/store.h"
#include "table/admission.h"
#include "table/table_room.h"

/* A batch of one key a sample, with a number of its own. */
typedef struct keys_batch {
    mr_batch b;
    uint32_t offsets[4096];
} keys_batch;

static keys_batch *batch_of(const uint64_t *keys, int n)
{
    static keys_batch ring[4];
    static uint64_t number;
    keys_batch *k = &ring[number % 4];
    for (int i = 0; i <= n; i++)
        k->offsets[i] = (uint32_t)i;
    k->b = (mr_batch){
        .n = n, .entries = n, .fields = 1, .keys = keys, .offsets = k->offsets, .number = ++number};
    return k;
}

/* One training step by columns of the table, of which `columns` are looked at. */
static void train(mr_table *t, const uint64_t *keys, int n, uint64_t step, int columns)
{
    keys_batch *k = batch_of(keys, n);
    mr_tape_begin(tape, 1, (double)step);
    int lookup = mr_table_pull(t, tape, &k->b), loss = -1;
    for (int c = 0; c < columns && lookup >= 0; c++) {
        int rows = mr_tape_affine(tape, mr_tape_pool(tape, lookup, c, MR_POOL_SUM, 0), 1, 0.5);
        int sum = mr_tape_sum(tape, mr_tape_mul(tape, rows, rows));
        loss = loss < 0 ? sum : mr_tape_add(tape, loss, sum);
    }
    must(loss >= 0 && mr_tape_backward(tape, loss) == -2, "gradient");
    must(mr_table_push(t, step) >= 0, "push");
    mr_tape_reset(tape);
}

/* What evaluation sees of a key's column. */
static void seen(mr_table *t, uint64_t key, int c, int dim, float *out)
{
    keys_batch *k = batch_of(&key, 1);
    mr_tape_begin(tape, 0, 1);
    int lookup = mr_table_pull(t, tape, &k->b);
    int rows = lookup < 0 ? -1 : mr_tape_pool(tape, lookup, c, MR_POOL_SUM, 0);
    must(rows >= 0, "evaluation");
    memcpy(out, mr_tape_floats(tape, rows), 4 * (size_t)dim);
    mr_tape_reset(tape);
}

static double updates(mr_table *t, int c, uint64_t key)
{
    float v[2 * DIM];
    return mr_table_peek(t, c, key, v);
}

/* ---- expiry ---- */

enum { DAY = 86400, START = 1000000000, TTL = 3 * DAY, ALIVE = 7, OLD = 100, OLDS = 300 };

static mr_table *expiring(void)
{
    mr_table *t = table_make();
    must(!mr_table_expiry(t, TTL), "expiry");
    return t;
}

static int commit_at(mr_store *s, mr_table *t, uint64_t step, double day)
{
    mr_commit_time(s, START + day * DAY);
    return commit_all(s, t, step);
}

static uint64_t old_key(int i)
{
    return mix64(OLD + (uint64_t)i);
}

/* Day after day one step: OLDS keys on the first, one key that lives on every day. */
static mr_store *aged(const char *name, mr_table **table, int days, int reopen)
{
    uint64_t keys[OLDS + 1] = {mix64(ALIVE)};
    for (int i = 0; i < OLDS; i++)
        keys[i + 1] = old_key(i);
    must(!tree_remove(at(name)), "remove");
    mr_store *s = mr_store_open(at(name), MR_STORE_CREATE);
    mr_table *t = expiring();
    must(s && !mr_store_load(s, t), "create");
    for (int day = 0; day <= days; day++) {
        train(t, keys, day ? 1 : OLDS + 1, (uint64_t)day + 1, 1);
        must(!commit_at(s, t, (uint64_t)day + 1, day), "commit");
        if (reopen) {
            mr_store_close(s);
            mr_table_free(t);
            s = mr_store_open(at(name), MR_STORE_WRITE);
            t = expiring();
            must(s && !mr_store_load(s, t), "reopen");
        }
    }
    *table = t;
    return s;
}

static int is_fresh(mr_table *t, uint64_t key)
{
    float v[DIM], fresh[2 * DIM];
    mr_table *other = table_make();
    must(mr_table_peek(other, 0, key, fresh) == 0, "peek");
    seen(t, key, 0, DIM, v);
    mr_table_free(other);
    return !memcmp(v, fresh, sizeof v);
}

static void expiry_test(void)
{
    int before = failures;
    char digest[4][33];
    for (int way = 0; way < 4; way++) { /* reopened each day or not; resident or not */
        mr_table *t;
        mr_store *s = aged("aged", &t, 2, way & 1);
        table_resident(t, way < 2);
        check(updates(t, 0, old_key(5)) == 1 && !is_fresh(t, old_key(5)), "way %d: gone too early",
              way);
        uint64_t alive = mix64(ALIVE);
        train(t, &alive, 1, 4, 1);
        must(!commit_at(s, t, 4, 3), "commit");
        check(updates(t, 0, old_key(5)) == 0, "way %d: a row of three days is left", way);
        check(is_fresh(t, old_key(5)), "way %d: evaluation sees an expired row", way);
        check(updates(t, 0, alive) == 4, "way %d: a row that got gradients is gone", way);
        check(mr_store_number(s, "step") == 4 && s->expired[7] == 1, "way %d: the bound", way);
        /* it begins anew, as a key that was never seen */
        uint64_t key = old_key(9);
        mr_table *other = table_make();
        float v[2][2 * DIM];
        train(t, &key, 1, 5, 1);
        train(other, &key, 1, 5, 1);
        check(mr_table_peek(t, 0, key, v[0]) == 1 && mr_table_peek(other, 0, key, v[1]) == 1 &&
                  !memcmp(v[0], v[1], sizeof v[0]),
              "way %d: an expired row is revived", way);
        mr_table_free(other);
        must(!commit_at(s, t, 5, 3.5), "commit");
        must(!mr_store_digest(s, digest[way]), "digest");
        check(!strcmp(digest[0], digest[way]), "way %d: another digest", way);
        check(mr_store_rows(s, 7) == OLDS + 1, "way %d: the rows are gone before a compaction",
              way);
        rocksdb_compact_range(s->base.db, NULL, 0, NULL, 0);
        check(mr_store_rows(s, 7) == 2, "way %d: a compaction left %g rows", way,
              mr_store_rows(s, 7));
        char after[33];
        must(!mr_store_digest(s, after), "digest");
        check(!strcmp(after, digest[way]), "way %d: a compaction changed the digest", way);
        mr_store_close(s);
        mr_table_free(t);
        s = mr_store_open(at("aged"), MR_STORE_READ);
        t = table_make(); /* a reader needs not know the time to live */
        must(s && !mr_store_load(s, t), "read");
        check(updates(t, 0, old_key(5)) == 0 && updates(t, 0, key) == 1,
              "way %d: what a reader sees", way);
        mr_store_close(s);
        mr_table_free(t);
    }
    report("a row without a gradient for its time to live is a fresh one, resident or not, "
           "reopened or not",
           before);
}

/* A lookup made before the commit that lets its row expire. */
static void expiry_within_test(void)
{
    int before = failures;
    mr_table *t, *other = table_make();
    mr_store *s = aged("within", &t, 2, 0);
    uint64_t key = old_key(3);
    float v[2][2 * DIM];
    keys_batch *k = batch_of(&key, 1);
    mr_tape_begin(tape, 1, 4);
    int lookup = mr_table_pull(t, tape, &k->b);
    must(!commit_at(s, t, 3, 30), "commit");
    int rows = mr_tape_affine(tape, mr_tape_pool(tape, lookup, 0, MR_POOL_SUM, 0), 1, 0.5);
    must(mr_tape_backward(tape, mr_tape_sum(tape, mr_tape_mul(tape, rows, rows))) == -2,
         "gradient");
    must(mr_table_push(t, 4) >= 0, "push");
    mr_tape_reset(tape);
    check(mr_table_peek(t, 0, key, v[0]) == 1, "the row was revived");
    mr_store_close(s);
    mr_table_free(t);
    mr_table_free(other);
    report("a row that expires between its lookup and its update begins anew", before);
}

/* Restoring an earlier state brings back what had not expired then, compactions or not. */
static void expiry_restored_test(void)
{
    int before = failures;
    mr_table *t;
    mr_store *s = aged("restored", &t, 2, 0);
    must(!mr_store_checkpoint(s, "early"), "keep");
    uint64_t alive = mix64(ALIVE);
    train(t, &alive, 1, 4, 1);
    must(!commit_at(s, t, 4, 30), "commit");
    check(updates(t, 0, old_key(5)) == 0, "a row of 30 days is left");
    char digest[2][33];
    must(!mr_store_checkpoint(s, "late") && !mr_store_digest(s, digest[0]), "keep");
    must(!mr_store_restore(s, "late") && !mr_store_digest(s, digest[1]), "restore");
    check(!strcmp(digest[0], digest[1]), "rows that expired are of the restored state");
    must(!mr_store_restore(s, "early"), "restore");
    rocksdb_compact_range(s->base.db, NULL, 0, NULL, 0);
    mr_table_clear(t);
    must(!mr_store_load(s, t), "load");
    check(updates(t, 0, old_key(5)) == 1 && mr_store_rows(s, 7) == OLDS + 1,
          "rows of the restored state");
    mr_store_close(s);
    mr_table_free(t);
    report("a restored state has its own bound of expiry", before);
}

/* The child commits, day after day, until it is killed; what is found must be what a run without
 * kills had after as many steps. */
static void child_ages(void)
{
    mr_store *s = mr_store_open(at("killed"), MR_STORE_CREATE);
    mr_table *t = expiring();
    if (!s || mr_store_load(s, t))
        _exit(4);
    for (uint64_t step = (uint64_t)mr_store_number(s, "step") + 1;; step++) {
        uint64_t keys[20];
        for (uint64_t i = 0; i < 20; i++)
            keys[i] = mix64(random_at(step, i) % 200);
        train(t, keys, 20, step, 1);
        if (commit_at(s, t, step, (double)step / 2))
            _exit(5);
    }
}

static void expiry_kill_test(uint64_t seed)
{
    enum { KILLS = 100 };
    int before = failures;
    uint64_t at_step[KILLS], n = 0, most = 0;
    char digest[KILLS][33], now[33];
    must(!tree_remove(at("killed")) && !tree_remove(at("whole")), "remove");
    for (uint64_t k = 0; k < KILLS && (k < 12 || most <= 20); k++) {
        pid_t pid = fork();
        if (!pid) {
            execl("/proc/self/exe", "table_test", "ages", root, NULL);
            _exit(9);
        }
        int status;
        usleep(60000 + (unsigned)(random_at(seed, k) % 100000));
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        check(WIFSIGNALED(status), "the child ended with %d", WEXITSTATUS(status));
        if (access(at("killed/COMMIT"), R_OK))
            continue;
        mr_store *s = mr_store_open(at("killed"), k & 1 ? MR_STORE_WRITE : MR_STORE_READ);
        must(s && !mr_store_digest(s, digest[n]), "open");
        if (k & 1)
            rocksdb_compact_range(s->base.db, NULL, 0, NULL, 0);
        must(!mr_store_digest(s, now), "digest");
        check(!strcmp(now, digest[n]), "a compaction changed the digest");
        most = at_step[n++] = (uint64_t)mr_store_number(s, "step");
        mr_store_close(s);
    }
    check(most > 20, "only %d steps", (int)most);
    mr_store *s = mr_store_open(at("whole"), MR_STORE_CREATE);
    mr_table *t = expiring();
    must(s && !mr_store_load(s, t), "create");
    for (uint64_t step = 1; step <= most; step++) {
        uint64_t keys[20];
        for (uint64_t i = 0; i < 20; i++)
            keys[i] = mix64(random_at(step, i) % 200);
        train(t, keys, 20, step, 1);
        must(!commit_at(s, t, step, (double)step / 2) && !mr_store_digest(s, now), "commit");
        for (uint64_t k = 0; k < n; k++)
            check(at_step[k] != step || !strcmp(digest[k], now),
                  "seed %llu: another state at step %d", (unsigned long long)seed, (int)step);
    }
    mr_store_close(s);
    mr_table_free(t);
    report("after SIGKILL exactly the committed bound of expiry is found", before);
}

/* ---- admission ---- */

static mr_table *admitting(uint32_t w, uint32_t v, const mr_admission *rules)
{
    mr_column column[2] = {{.name = "v", .dim = DIM, .admit = v},
                           {.name = "w", .dim = 1, .admit = w}};
    for (int c = 0; c < 2; c++) {
        column[c].init = (mr_init){.kind = MR_UNIFORM, .a = 0.5, .b = 1};
        column[c].optim = (mr_optim){.kind = MR_ADAGRAD, .lr = 0.1f, .eps = 1e-8f};
    }
    mr_table *t = mr_table_new("t", 7, 42, column, 2);
    must(t && !mr_table_admission(t, rules), "table");
    return t;
}

static const mr_admission by_count = {.keys = 10000, .error = 0.001};

static void sightings_test(void)
{
    int before = failures;
    for (int initial = 0; initial <= 1; initial++) {
        mr_admission rules = by_count;
        rules.initial = initial;
        mr_table *t = admitting(3, 3, &rules);
        uint64_t keys[3] = {77, 77, 78};
        float v[DIM], fresh[2 * DIM];
        mr_table *plain = admitting(1, 1, &by_count);
        must(mr_table_peek(plain, 0, 77, fresh) == 0, "peek");
        mr_table_free(plain);
        for (uint64_t step = 1; step <= 4; step++) {
            for (int i = 0; i < 5; i++) { /* evaluation counts nothing */
                seen(t, 77, 0, DIM, v);
                int zero = 1;
                for (int k = 0; k < DIM; k++)
                    zero &= v[k] == 0;
                if (step <= 3)
                    check(initial ? !memcmp(v, fresh, sizeof v) : zero,
                          "a key without a row, step %d", (int)step);
            }
            check(mr_table_rows(t) == (step > 3 ? 1 : 0), "rows before step %d", (int)step);
            train(t, keys, step == 4 ? 3 : 2, step, 2); /* twice in a batch counts once */
        }
        check(updates(t, 0, 77) == 2 && updates(t, 1, 77) == 2 && updates(t, 0, 78) == 0,
              "updates");
        check(mr_table_rows(t) == 1 && mr_table_cached(t) == 1, "rows in the cache");
        mr_table_free(t);
    }
    mr_table *t = admitting(1, 3, &by_count);
    uint64_t key = 5;
    float v[2 * DIM];
    for (uint64_t step = 1; step <= 4; step++) {
        train(t, &key, 1, step, 2);
        check(updates(t, 1, 5) == (double)step, "w at step %d", (int)step);
        check(mr_table_peek(t, 0, 5, v) == (step < 3 ? 0 : (double)step - 2), "v at step %d",
              (int)step);
        check((v[0] == 0) == (step < 3), "v is 0 until it is admitted, step %d", (int)step);
    }
    mr_table_free(t);
    report("a key has no row until its n-th training batch, and a column none until its own",
           before);
}

static void filter_test(void)
{
    int before = failures;
    mr_admission rules = {.keys = 50000, .error = 0.01};
    admission *a = admission_new(&rules, 9);
    must(a != NULL, "filter");
    for (uint64_t i = 0; i < 50000; i++)
        admission_count(a, mix64(i) >> 60, mix64(i));
    int wrong = 0, few = 0;
    for (uint64_t i = 50000; i < 150000; i++)
        wrong += admission_seen(a, mix64(i) >> 60, mix64(i)) > 0;
    check(wrong <= 2 * 1000, "%d of 100000 unseen keys look seen", wrong);
    for (uint64_t i = 0; i < 50000; i++)
        few += admission_seen(a, mix64(i) >> 60, mix64(i)) < 1;
    check(!few, "%d keys look seen too rarely", few);
    for (unsigned i = 0; i < 40; i++) {
        unsigned n = admission_count(a, mix64(1) >> 60, mix64(1));
        check(n == MIN(i + 2, 15u) || n > i + 2, "sighting %d is %u", (int)i + 2, n);
    }
    check(admission_seen(a, mix64(1) >> 60, mix64(1)) == 15, "it does not saturate");
    check(a->len <= 4.8 * 50000 * 1.1, "%zu bytes", a->len);
    admission_free(a);
    report("the filter errs as often as it was told to, never counts too few, and saturates",
           before);
}

static void skewed(uint64_t step, uint64_t *keys, int n)
{
    for (int i = 0; i < n; i++) {
        double u = (double)(random_at(step, (uint64_t)i) >> 11) * 0x1p-53;
        keys[i] = mix64((uint64_t)(u * u * u * 5000));
    }
}

/* The digest after 60 steps: way & 1 reopened after each commit, & 2 restored in between, & 4 not
 * resident, & 8 four threads. */
static void admission_run(const mr_admission *rules, int way, char digest[33])
{
    must(!tree_remove(at("admits")), "remove");
    mr_store *s = mr_store_open(at("admits"), MR_STORE_CREATE);
    mr_table *t = admitting(2, 4, rules);
    must(s && !mr_store_load(s, t), "create");
    mr_commit_time(s, START);
    mr_threads_set(way & 8 ? 4 : 1);
    table_resident(t, !(way & 4));
    for (uint64_t step = 1; step <= 60; step++) {
        uint64_t keys[300];
        skewed(step, keys, 300);
        train(t, keys, 300, step, 2);
        if (step % 10)
            continue;
        must(!commit_all(s, t, step), "commit");
        if (way & 2 && step == 20)
            must(!mr_store_checkpoint(s, "kept"), "keep");
        if (way & 2 && step == 40) {
            must(!mr_store_restore(s, "kept"), "restore");
            mr_table_clear(t);
            must(!mr_store_load(s, t), "load");
            step = 20;
            way &= ~2;
        }
        if (way & 1) {
            mr_store_close(s);
            mr_table_free(t);
            s = mr_store_open(at("admits"), MR_STORE_WRITE);
            t = admitting(2, 4, rules);
            must(s && !mr_store_load(s, t), "reopen");
        }
        table_resident(t, !(way & 4));
        mr_commit_time(s, START);
    }
    must(!mr_store_digest(s, digest), "digest");
    mr_store_close(s);
    mr_table_free(t);
    mr_threads_set(2);
}

static void admission_same_test(void)
{
    int before = failures;
    mr_admission by_chance = {.chance = 0.2};
    for (int chance = 0; chance <= 1; chance++) {
        char digest[2][33];
        const mr_admission *rules = chance ? &by_chance : &by_count;
        admission_run(rules, 0, digest[0]);
        for (int way = 1; way < 16; way++) {
            admission_run(rules, way, digest[1]);
            check(!strcmp(digest[0], digest[1]), "%s, way %d: another digest",
                  chance ? "chance" : "count", way);
        }
    }
    report("admission is the same reopened, restored, not resident and on four threads", before);
}

static void chance_test(void)
{
    int before = failures;
    enum { KEYS = 4000, TIMES = 5 };
    mr_admission rules = {.chance = 0.25};
    mr_table *t = admitting(2, 2, &rules);
    static uint64_t keys[KEYS];
    for (uint64_t i = 0; i < KEYS; i++)
        keys[i] = mix64(i);
    double stays = 1;
    for (uint64_t step = 1; step <= TIMES; step++) {
        train(t, keys, KEYS, step, 2);
        stays *= 0.75;
        double share = mr_table_rows(t) / KEYS, deviation = sqrt(stays * (1 - stays) / KEYS);
        check(fabs(share - (1 - stays)) < 5 * deviation, "%g of the keys are admitted, not %g",
              share, 1 - stays);
    }
    mr_table_free(t);
    report("by chance, 1 - (1 - p)^k of the keys are admitted after k sightings", before);
}

/* ---- half precision ---- */

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void half_test(void)
{
    int before = failures;
    enum { N = 65536, DRAWS = 20000 };
    static uint16_t all[N], again[N];
    static float x[N], y[N];
    for (int i = 0; i < N; i++)
        all[i] = (uint16_t)i;
    half()->open(all, N, x);
    for (uint64_t seed = 0; seed < 5; seed++) {
        half()->close(x, N, mix64(seed), again);
        for (int i = 0; i < N; i++)
            check(isnan(x[i]) ? (again[i] & 0x7fff) > 0x7f80 : again[i] == i,
                  "%x becomes %x though it is representable", (unsigned)i, again[i]);
    }
    /* any float becomes one of its two neighbours, a finite one stays finite */
    for (uint32_t i = 0; i < N; i++)
        x[i] = float_of((uint32_t)mix64(i));
    half()->close(x, N, 7, again);
    half()->open(again, N, y);
    for (int i = 0; i < N; i++)
        if (isfinite(x[i])) {
            double step = ldexp(1, MAX(ilogb(x[i]), -126) - 7);
            check(isfinite(y[i]) && fabs((double)y[i] - x[i]) < step, "%g becomes %g", (double)x[i],
                  (double)y[i]);
            check(fabs((double)half_nearest(x[i]) - x[i]) <= step / 2 || fabsf(x[i]) > 3.38e38f,
                  "%g is rounded to %g", (double)x[i], (double)half_nearest(x[i]));
        }
    check(half_nearest(float_of(0x3f808000)) == 1 &&
              half_nearest(float_of(0x3f818000)) == float_of(0x3f820000),
          "of two that are as near, the even one");
    /* which one: by chance, so that the mean is right, at an odd address too */
    for (int part = 1; part < 16; part++) {
        float from[4] = {1, -1, 3e-20f, -6e10f};
        for (int k = 0; k < 4; k++) {
            uint32_t bits;
            memcpy(&bits, &from[k], 4);
            from[k] = float_of((bits & 0xffff0000) + (uint32_t)part * 4096);
        }
        double sum[4] = {0};
        for (uint64_t seed = 0; seed < DRAWS; seed++) {
            char to[9];
            float back[4];
            half()->close(from, 4, mix64(seed), to + 1);
            half()->open(to + 1, 4, back);
            for (int k = 0; k < 4; k++)
                sum[k] += (double)back[k];
        }
        for (int k = 0; k < 4; k++) {
            double p = part / 16.0, step = ldexp(1, ilogb(from[k]) - 7);
            check(fabs(sum[k] / DRAWS - (double)from[k]) < 5 * step * sqrt(p * (1 - p) / DRAWS),
                  "the mean of %.9g is %.9g", (double)from[k], sum[k] / DRAWS);
        }
    }
    report("half precision: the nearest, and the mean of chance, of any float", before);
}

/* Keys are hashed many at once when a batch is looked up, and one by one everywhere else. */
static void hash_test(uint64_t seed)
{
    enum { MOST = 70 };
    extern const key_functions key_functions_base;
    const key_functions *levels[] = {&key_functions_base, NULL, NULL};
#if defined(__x86_64__)
    extern const key_functions key_functions_v3, key_functions_v4;
    levels[KERNEL_V3] = &key_functions_v3;
    levels[KERNEL_V4] = &key_functions_v4;
#endif
    int before = failures;
    for (int level = KERNEL_BASE; level <= (int)kernel_variant(); level++)
        for (size_t n = 0; n <= MOST; n++) {
            uint64_t keys[MOST], hash[MOST + 1];
            for (size_t i = 0; i < n; i++)
                keys[i] = random_at(seed + n, i);
            hash[n] = 1;
            levels[level]->hash(keys, n, hash);
            for (size_t i = 0; i < n; i++)
                check(hash[i] == key_hash(keys[i]), "level %d: key %zu of %zu", level, i, n);
            check(hash[n] == 1, "level %d: written behind the %zu hashes", level, n);
        }
    report("hashes of many keys at once are those of each, with every instruction set", before);
}

int main(int argc, char **argv)
{
    tape = mr_tape_new(1, 4);
    must(tape != NULL, "tape");
    if (argc == 3 && !strcmp(argv[1], "ages")) {
        snprintf(root, sizeof root, "%s", argv[2]);
        child_ages();
    }
    snprintf(root, sizeof root, "%s/moonrock-table-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    must(mkdtemp(root) != NULL, "temporary directory");
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)(mr_clock_wall() * 1e6);
    printf("seed %llu\n", (unsigned long long)seed);
    RUN(expiry_test);
    RUN(expiry_within_test);
    RUN(expiry_restored_test);
    RUN(expiry_kill_test, seed);
    RUN(sightings_test);
    RUN(filter_test);
    RUN(admission_same_test);
    RUN(chance_test);
    RUN(half_test);
    RUN(hash_test, seed);
    mr_tape_free(tape);
    tree_remove(root);
    return failures != 0;
}

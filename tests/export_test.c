/* export_test.c - binary exports: `export_test [SEED]`. A base and a hundred deltas, with rows that are
 * updated, made, dropped and expired, give the store that they are of, byte for byte; a file that was cut
 * or altered is refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "exchange/export.h"

#include "support/check.h"
#include "support/store.h"

enum { DELTAS = 100, KEYS = 60, FLIPS = 400 };

static uint64_t seed;
/* ---- what happens to a store ---- */

static uint64_t key_of(uint64_t i)
{
    return i == 0 ? 0 : i == 1 ? UINT64_MAX : mix64(i);
}

/* Some keys of those there may be so far. */
static void advance(mr_store *s, mr_table *t, uint64_t step)
{
    uint64_t keys[KEYS], among = 50 + 3 * step;
    for (uint64_t i = 0; i < KEYS; i++)
        keys[i] = key_of(random_at(seed ^ step, i) % among);
    push(t, keys, KEYS, step);
    mr_commit_time(s, 1e9 + 10.0 * (double)step);
    must(!commit_all(s, t, step), "commit");
}

static int by_key(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int collect(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    uint64_t **next = context;
    (void)key_len, (void)value, (void)len;
    uint64_t k = big_endian(key + 5);
    if (mix64(k ^ seed) % 13 == 0)
        *(*next)++ = k;
    return 0;
}

/* Drops a 13th of the rows, as a commit of the same step. */
static void drop(mr_store *s, mr_table *t, uint64_t step)
{
    static uint64_t keys[100000];
    uint64_t *end = keys;
    char key[ROW_KEY], value[12] = {1};
    table_state state;
    must(!store_scan_table(s, "scan", PREFIX_ROW, 7, collect, &end), "scan");
    qsort(keys, (size_t)(end - keys), sizeof *keys, by_key);
    must(!mr_commit_begin(s), "begin");
    rows_file *f = rows_file_new(s);
    memcpy(value + 4, &step, 8);
    for (const uint64_t *k = keys; k < end; k++) {
        row_key(key, PREFIX_ROW, 7, *k);
        must(!rows_file_drop(f, key, ROW_KEY), "drop");
    }
    for (const uint64_t *k = keys; k < end; k++) {
        row_key(key, PREFIX_DROP, 7, *k);
        must(!rows_file_put(f, key, ROW_KEY, value, sizeof value), "drop");
    }
    table_state_get(t, &state);
    state.rows -= (uint64_t)(end - keys);
    must(!rows_file_end(f) && !mr_commit_put(s, "table/t", &state, sizeof state) &&
             !mr_commit_end(s, step),
         "commit of drops");
    mr_table_clear(t);
    must(!mr_store_load(s, t), "load");
}

static mr_table *expiring(void)
{
    mr_table *t = table_make();
    must(!mr_table_expiry(t, 300), "expiry");
    return t;
}

/* ---- exports ---- */

static int export(mr_store *s, mr_table *t, uint64_t since, const char *path)
{
    mr_export o = {.format = MR_EXPORT_BIN, .since = since};
    return mr_store_export(s, &t, 1, &o, path);
}

static int same_file(const char *a, const char *b)
{
    char command[700];
    snprintf(command, sizeof command, "cmp -s %s %s", a, b);
    return !system(command);
}

static void digest_of(const char *dir, char hex[33])
{
    mr_store *s = mr_store_open(dir, MR_STORE_READ);
    must(s && !mr_store_digest(s, hex), "digest");
    mr_store_close(s);
}

static void full_export(const char *dir, const char *path)
{
    mr_store *s = mr_store_open(dir, MR_STORE_READ);
    mr_table *t = table_make();
    must(s && !export(s, t, 0, path), "export");
    mr_table_free(t);
    mr_store_close(s);
}

static char path[DELTAS + 1][300];
static const char *paths[DELTAS + 1];

static void deltas_make(void)
{
    mr_store *s = mr_store_open(at("store"), MR_STORE_CREATE);
    mr_table *t = expiring();
    uint64_t step = 0, since = 0;
    must(s != NULL, "create");
    for (int i = 0; i <= DELTAS; i++) {
        uint64_t before = step;
        while (step < before + 1 + random_at(seed, (uint64_t)i) % 3) {
            advance(s, t, ++step);
            if (step % 5 == 0)
                drop(s, t, step);
        }
        snprintf(path[i], sizeof path[i], "%s/delta-%d.bin", root, i);
        paths[i] = path[i];
        must(!export(s, t, since, path[i]), "export");
        since = step;
        if (i % 9 == 0) /* after the export, at its step */
            drop(s, t, step);
    }
    /* the last export is of the last commit */
    must(!export(s, t, step, at("last.bin")), "export");
    mr_table_free(t);
    mr_store_close(s);
}

static void equal_test(void)
{
    int before = failures;
    char hex[33], other[33];
    deltas_make();
    full_export(at("store"), at("full.bin"));
    digest_of(at("store"), hex);

    if (!check(!mr_store_import(at("whole"), paths, DELTAS + 1), "all at once"))
        return;
    for (int i = 0; i <= DELTAS; i++)
        if (!check(!mr_store_import(at("single"), &paths[i], 1), "one by one"))
            return;
    const char *full = at("full.bin");
    check(!mr_store_import(at("one"), &full, 1), "the full one");
    const char *dirs[] = {"whole", "single", "one"};
    for (int i = 0; i < 3; i++) {
        digest_of(at(dirs[i]), other);
        check(!strcmp(hex, other), "another digest");
        full_export(at(dirs[i]), at("again.bin"));
        check(same_file(at("full.bin"), at("again.bin")), "another full export");
    }
    report("a base and a hundred deltas give the full export and the digest of the store, byte for "
           "byte",
           before);

    before = failures;
    const char *all[] = {"store", "whole", "single", "one"};
    mr_exported about;
    check(mr_export_read(at("full.bin"), &about) == 1 && about.drops > 0, "no drops to know of");
    uint64_t step = about.step;
    char digests[4][33];
    for (int i = 0; i < 4; i++) {
        char file[300];
        mr_store *s = mr_store_open(at(all[i]), MR_STORE_WRITE);
        mr_table *t = expiring();
        must(s && !mr_store_load(s, t), "load");
        snprintf(file, sizeof file, "%s/later-%d.bin", root, i);
        for (uint64_t k = 1; k <= 20; k++) {
            advance(s, t, step + k);
            if (k % 7 == 0)
                drop(s, t, step + k);
        }
        must(!mr_store_digest(s, digests[i]) && !export(s, t, step / 2, file), "later");
        check(!strcmp(digests[0], digests[i]), "another digest later");
        snprintf(other, sizeof other, "later-%d.bin", i);
        check(same_file(at("later-0.bin"), at(other)), "another delta later");
        mr_verification *v = mr_store_verify(s, &t, 1);
        check(v && !mr_verification_problem(v, 0), "problems");
        mr_verification_free(v);
        mr_table_free(t);
        mr_store_close(s);
    }
    report("what was imported goes on as the store itself, expiry and later deltas included",
           before);
}

/* ---- what is refused ---- */

static int refused(const char *const *files, size_t n, const char *dir, const char *why)
{
    int good = mr_store_import(at(dir), files, n) < 0 && strstr(mr_error(), why) != NULL;
    return check(good, why);
}

static void order_test(void)
{
    int before = failures;
    char hex[33], other[33];
    const char *gap[] = {paths[0], paths[2]}, *turned[] = {paths[1], paths[0]};
    const char *twice[] = {paths[0], paths[0]};
    refused(gap, 2, "refused", "is expected");
    refused(turned, 2, "refused", "is expected first");
    refused(twice, 2, "refused", "makes a new store");
    must(!mr_store_import(at("ordered"), paths, 3), "import");
    digest_of(at("ordered"), hex);
    refused(&paths[2], 1, "ordered", "is expected");
    refused(&paths[4], 1, "ordered", "is expected");
    refused(&paths[0], 1, "ordered", "makes a new store");
    digest_of(at("ordered"), other);
    check(!strcmp(hex, other), "it changed");
    check(!mr_store_import(at("ordered"), &paths[3], 1), "the right one");
    check(access(at("refused"), F_OK), "a store was made");

    /* the same steps of another store */
    mr_store *s = mr_store_open(at("stranger"), MR_STORE_CREATE);
    mr_table *t = expiring();
    must(s != NULL, "create");
    seed++;
    for (uint64_t step = 1; step <= 3; step++)
        advance(s, t, step);
    mr_commit_time(s, 5);
    must(!commit_all(s, t, 4), "commit");
    must(!export(s, t, 0, at("base.bin")), "export");
    mr_table_free(t);
    mr_store_close(s);
    seed--;
    s = mr_store_open(at("another"), MR_STORE_CREATE);
    t = expiring();
    must(s != NULL, "create");
    for (uint64_t step = 1; step <= 6; step++)
        advance(s, t, step);
    must(!export(s, t, 4, at("foreign.bin")), "export");
    mr_table_free(t);
    mr_store_close(s);
    const char *mixed[] = {at("base.bin"), at("foreign.bin")};
    refused(mixed, 2, "refused", "of another store");
    report("deltas that leave a gap, come in another order or are of another store are refused",
           before);
}

static char *slurp(const char *file, size_t *len)
{
    FILE *f = fopen(file, "rb");
    must(f && !fseek(f, 0, SEEK_END), "open");
    *len = (size_t)ftell(f);
    rewind(f);
    char *bytes = memory_new(*len + 1);
    must(bytes && fread(bytes, 1, *len, f) == *len && !fclose(f), "read");
    return bytes;
}

static void spill(const char *file, const char *bytes, size_t len)
{
    FILE *f = fopen(file, "wb");
    must(f && fwrite(bytes, 1, len, f) == len && !fclose(f), "write");
}

static void damage_test(void)
{
    int before = failures;
    size_t len, delta_len;
    char hex[33], other[33], file[300], *bytes = slurp(path[0], &len),
                                        *delta = slurp(path[3], &delta_len);
    snprintf(file, sizeof file, "%s", at("damaged.bin"));
    const char *one = file;
    digest_of(at("ordered"), hex); /* at the end of delta 3 */
    must(!mr_store_import(at("damaged-base"), paths, 3), "import");
    digest_of(at("damaged-base"), hex);
    for (int i = 0; i < FLIPS && failures == before; i++) {
        char *from = i & 1 ? delta : bytes;
        size_t n = i & 1 ? delta_len : len, bit = random_at(seed, 9000 + (uint64_t)i) % (8 * n);
        if (i < 64) /* each of the head's first bits */
            bit = (size_t)i;
        from[bit / 8] ^= (char)(1 << bit % 8);
        spill(file, from, n);
        check(mr_store_import(at(i & 1 ? "damaged-base" : "refused"), &one, 1) < 0 &&
                  strstr(mr_error(), file),
              "a flipped bit was taken");
        from[bit / 8] ^= (char)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < len && failures == before;
         cut += cut < 2000 || len - cut < 2000 ? 1 : 997) {
        spill(file, bytes, cut);
        check(mr_store_import(at("refused"), &one, 1) < 0, "a truncated file was taken");
    }
    bytes[len] = 0;
    spill(file, bytes, len + 1);
    check(mr_store_import(at("refused"), &one, 1) < 0, "a longer file was taken");
    check(access(at("refused"), F_OK), "a store was made");
    digest_of(at("damaged-base"), other);
    check(!strcmp(hex, other), "it changed");
    memory_free(bytes);
    memory_free(delta);
    report("a file that was cut, or of which any bit was flipped, is refused and changes nothing",
           before);
}

static void forgotten_test(void)
{
    int before = failures;
    mr_store *s = mr_store_open(at("one"), MR_STORE_WRITE);
    mr_table *t = expiring();
    table_state state;
    must(s && !mr_store_load(s, t), "load");
    table_state_get(t, &state);
    state.forgotten = 50;
    must(!mr_commit_begin(s) && !mr_commit_put(s, "table/t", &state, sizeof state) &&
             !mr_commit_end(s, (uint64_t)mr_store_number(s, "step")),
         "commit");
    check(export(s, t, 50, at("early.bin")) < 0 && strstr(mr_error(), "not known any more") &&
              access(at("early.bin"), F_OK),
          "a delta whose drops were forgotten");
    check(!export(s, t, 51, at("early.bin")), "a delta whose drops are known");
    check(export(s, t, 100000, at("late.bin")) < 0, "a delta since a step to come");
    mr_table_free(t);
    mr_store_close(s);
    report("a delta is refused whose drops are not known any more", before);
}

int main(int argc, char **argv)
{
    tape = mr_tape_new(1, 4);
    must(tape != NULL, "tape");
    snprintf(root, sizeof root, "%s/moonrock-export-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    must(mkdtemp(root) != NULL, "temporary directory");
    seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)(mr_clock_wall() * 1e6);
    printf("seed %llu\n", (unsigned long long)seed);
    RUN(equal_test);
    RUN(order_test);
    RUN(damage_test);
    RUN(forgotten_test);
    mr_tape_free(tape);
    tree_remove(root);
    return failures != 0;
}

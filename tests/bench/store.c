/* store.c - how fast the store commits, opens and loads:
 *
 *   make build/tests/bench/store && build/tests/bench/store DIR [ROWS]       (1500000)
 *   build/tests/bench/store DIR seconds N       a commit of 3000 rows each second: does it keep up? */
#include <stdlib.h>
#include <time.h>

#include "../support/store.h"

/* Processor seconds of all threads. */
static double cpu(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A hundred commits of 3000 rows each, with a pause before each. */
static void small_commits(mr_store *s, mr_table *t, uint64_t *keys, int rows, unsigned pause_ms)
{
    double took[100], waited = mr_store_number(s, "waited");
    for (uint64_t i = 0; i < 100; i++) {
        uint64_t step = (uint64_t)mr_store_number(s, "step") + 1;
        for (int k = 0; k < 3000; k++)
            keys[k] = mix64(random_at(step, (uint64_t)k) % (uint64_t)rows);
        push(t, keys, 3000, step);
        usleep(pause_ms * 1000);
        double begin = mr_clock();
        must(!commit_all(s, t, step), "commit");
        took[i] = mr_clock() - begin;
    }
    qsort(took, 100, sizeof *took, by_size);
    printf("100 commits of 3000 rows, every %u ms: median %.1f ms, 90 %% %.1f ms, slowest %.1f ms; "
           "level 0: %.0f files, waited %.2f s\n",
           pause_ms, took[50] * 1e3, took[90] * 1e3, took[99] * 1e3, mr_store_number(s, "level0"),
           mr_store_number(s, "waited") - waited);
}

/* A commit of 3000 rows of a table of a million each second, for n seconds. Returns 0 if none waited for
 * compaction, and their median is at most 30 ms. */
static int every_second(const char *dir, int n)
{
    snprintf(root, sizeof root, "%s", dir);
    mr_table *t = table_make();
    must(!tree_remove(at("seconds")), "remove");
    mr_store *s = mr_store_open(at("seconds"), MR_STORE_CREATE);
    uint64_t keys[3000];
    double *took = memory_new((size_t)n * sizeof *took), level0 = 0;
    must(s && took, "create");
    for (int i = 0; i < n; i++) {
        double began = mr_clock();
        for (int k = 0; k < 3000; k++)
            keys[k] = mix64(random_at((uint64_t)i, (uint64_t)k) % 1000000);
        push(t, keys, 3000, (uint64_t)i + 1);
        double begin = mr_clock();
        must(!commit_all(s, t, (uint64_t)i + 1), "commit");
        took[i] = mr_clock() - begin;
        level0 = MAX(level0, mr_store_number(s, "level0"));
        if ((i + 1) % 300 == 0) {
            printf("  %d commits, at most %.0f files in level 0, waited %.2f s\n", i + 1, level0,
                   mr_store_number(s, "waited"));
            fflush(stdout);
        }
        double left = 1 - (mr_clock() - began);
        if (left > 0)
            usleep((unsigned)(left * 1e6));
    }
    double waited = mr_store_number(s, "waited");
    qsort(took, (size_t)n, sizeof *took, by_size);
    printf("%d commits of 3000 rows, one a second: median %.1f ms, 99 %% %.1f ms, slowest %.1f ms; "
           "at most "
           "%.0f files in level 0; waited %.2f s for compaction\n",
           n, took[n / 2] * 1e3, took[n * 99 / 100] * 1e3, took[n - 1] * 1e3, level0, waited);
    int good = took[n / 2] <= 0.030 && waited == 0;
    mr_store_close(s);
    mr_table_free(t);
    memory_free(took);
    return good ? 0 : 1;
}

static void bench(const char *dir, int rows)
{
    snprintf(root, sizeof root, "%s", dir);
    mr_threads_set(2);
    mr_table *t = table_make();
    must(!tree_remove(at("bench")), "remove");
    mr_store *s = mr_store_open(at("bench"), MR_STORE_CREATE);
    must(s != NULL, "create");
    enum { BATCH = 50000 };
    uint64_t *keys = memory_new(BATCH * sizeof *keys);
    for (uint64_t round = 0; round < 3; round++) {
        for (int from = 0; from < rows; from += BATCH) {
            int n = MIN(BATCH, rows - from);
            for (int i = 0; i < n; i++)
                keys[i] = mix64((uint64_t)(from + i));
            push(t, keys, n, round + 1);
        }
        double begin = mr_clock(), used = cpu();
        must(!commit_all(s, t, round + 1), "commit");
        double took = mr_clock() - begin;
        printf(
            "commit of %d rows of 200 bytes: %.3f s (%.2f of a processor's), %.2f M rows/s, level "
            "0: %.0f files\n",
            rows, took, cpu() - used, rows / took / 1e6, mr_store_number(s, "level0"));
    }
    small_commits(s, t, keys, rows, 0);
    small_commits(s, t, keys, rows, 200);
    double begin = mr_clock();
    mr_store_close(s);
    printf("close: %.1f ms\n", (mr_clock() - begin) * 1e3);
    mr_table_clear(t);
    begin = mr_clock();
    s = mr_store_open(at("bench"), MR_STORE_WRITE);
    must(s != NULL, "open");
    double opened = mr_clock(), used = cpu();
    must(!mr_store_load(s, t), "load");
    double took = mr_clock() - opened;
    printf("open: %.1f ms; load of %.0f rows: %.3f s (%.2f of a processor's), %.2f M rows/s\n",
           (opened - begin) * 1e3, mr_table_rows(t), took, cpu() - used,
           mr_table_rows(t) / took / 1e6);
    char hex[33];
    begin = mr_clock();
    used = cpu();
    must(!mr_store_digest(s, hex), "digest");
    printf("digest: %.3f s (%.2f of a processor's)\n", mr_clock() - begin, cpu() - used);
    begin = mr_clock();
    must(!mr_store_checkpoint(s, "best"), "keep");
    double kept = mr_clock();
    must(!mr_store_restore(s, "best"), "restore");
    printf("checkpoint: %.1f ms, restore: %.1f ms; peak %.0f MB\n", (kept - begin) * 1e3,
           (mr_clock() - kept) * 1e3, mr_memory_peak() / 1e6);
    mr_store_close(s);
    mr_table_free(t);
    memory_free(keys);
    tree_remove(at("bench"));
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: store DIR [ROWS]\n");
        return 2;
    }
    tape = mr_tape_new(1, 4);
    must(tape != NULL, "tape");
    int bad = 0;
    if (argc > 3 && !strcmp(argv[2], "seconds"))
        bad = every_second(argv[1], atoi(argv[3]));
    else
        bench(argv[1], argc > 2 ? atoi(argv[2]) : 1500000);
    mr_tape_free(tape);
    return bad;
}

/* rocksdb.c - what RocksDB's settings cost a store: reading, writing and compacting rows.
 *
 *   make build/tests/bench/rocksdb && build/tests/bench/rocksdb DIR CASE...
 *
 * A case is a string of words. Words of `words` below are the program's own, `t.NAME=VALUE` is an
 * option of the block-based table, any other NAME=VALUE one of RocksDB; all stand upon the
 * defaults below. To compare two sizes of blocks, or two ways of compaction:
 *
 *   rocksdb DIR 'runs=8 t.block_size=4096' 'runs=8 t.block_size=16384'
 *   rocksdb DIR 'runs=24 compact=1 rounds=0' \
 *     'runs=24 compact=1 rounds=0 compaction_style=kCompactionStyleUniversal'
 *
 * Every case makes a database in DIR: `rows` rows as the base, then `runs` commits. Then the cases
 * are read in turn, `rounds` times, so that figures of one run can be compared; the median round
 * counts. With compact=1 each commit waits until compaction has come to rest, and is followed by a
 * few reads. Times are of the processor: reads and writes of the thread that does them, compaction
 * that of the process without it. DB=NAME lets a case read what an earlier one of that name wrote.
 *
 * Row i has the key i * width + (a number below width): sorted, as a hash spreads them; key + 1
 * has no row. A commit takes `hot` % of its rows from every 16th of the base's rows. */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <rocksdb/c.h>

#include "base/base.h"
#include "base/file.h"

enum { KEY = 13, VALUE_MAX = 1024, HOT_EVERY = 16, FILE_BYTES = 64 << 20, CASES = 24, ROUNDS = 32 };

typedef struct settings {
    double rows, value, runs, commit, hot, compact, keys, batches, rounds, chunk, threads, fill,
        readahead, cache, late, state, warm, shards;
} settings;

static const settings settings_default = {.rows = 5e6,
                                          .value = 156,
                                          .runs = 4,
                                          .commit = 300e3,
                                          .hot = 70,
                                          .keys = 2000,
                                          .batches = 20,
                                          .rounds = 5,
                                          .chunk = 512,
                                          .threads = 1,
                                          .cache = 32,
                                          .state = 1,
                                          .warm = 1,
                                          .shards = 2};

typedef struct word {
    const char *name;
    size_t at;
    const char *what;
} word;

#define WORD(name, what)                                                                           \
    {                                                                                              \
#name, offsetof(settings, name), what                                                      \
    }
static const word words[] = {
    WORD(rows, "rows of the base"),
    WORD(value, "bytes of a value"),
    WORD(runs, "commits after the base"),
    WORD(commit, "rows of a commit"),
    WORD(hot, "% of them from a sixteenth of the rows"),
    WORD(compact, "1: compaction runs, and is waited for after each commit"),
    WORD(late, "commits before those that are measured"),
    WORD(state, "0: no second file with a commit"),
    WORD(warm, "1: all files are read once before"),
    WORD(keys, "keys of a batch of reads"),
    WORD(batches, "batches of a round"),
    WORD(rounds, "rounds of reading"),
    WORD(chunk, "keys of a call"),
    WORD(threads, "threads that read at once"),
    WORD(fill, "1: blocks read go into the cache"),
    WORD(readahead, "KiB"),
    WORD(cache, "MiB of the block cache"),
    WORD(shards, "log2 of the number of its parts; -1: as RocksDB chooses"),
};

typedef struct bench {
    const char *text;
    settings s;
    char db_name[64], path[PATH_SIZE], options[1024], table[1024];
    rocksdb_options_t *o;
    rocksdb_readoptions_t *read;
    rocksdb_cache_t *cache;
    rocksdb_t *db;
    rocksdb_column_family_handle_t *cf;
    double found[ROUNDS], absent[ROUNDS]; /* µs a key */
    uint64_t seed;                        /* of the next read */
    /* sums over the commits measured */
    double written, write_cpu, write_wall, compact_cpu, ingest_wall, met, met_files, reads, space;
} bench;

static void must(const char *message)
{
    if (!message)
        return;
    fprintf(stderr, "rocksdb: %s\n", message);
    _exit(1);
}

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- keys and values ---- */

static uint64_t row_key(const bench *b, uint64_t i)
{
    uint64_t width = UINT64_MAX / (uint64_t)b->s.rows;
    return i * width + mix64(i + 1) % (width - 1);
}

static void key_write(char key[KEY], uint64_t id)
{
    uint64_t big = __builtin_bswap64(id);
    memcpy(key, (char[]){2, 0, 0, 0, 7}, 5);
    memcpy(key + 5, &big, 8);
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, size_t n)
{
    qsort(x, n, sizeof *x, by_size);
    return n ? x[n / 2] : 0;
}

/* ---- a case ---- */

static void case_parse(bench *b, const char *text)
{
    char copy[2048], *rest = copy;
    *b = (bench){.text = text, .s = settings_default};
    snprintf(copy, sizeof copy, "%s", text);
    for (char *w; (w = strsep(&rest, " "));) {
        char *equals = strchr(w, '=');
        if (!equals)
            continue;
        size_t k = 0, n = sizeof words / sizeof *words, len = (size_t)(equals - w);
        while (k < n && (strncmp(words[k].name, w, len) || words[k].name[len]))
            k++;
        if (k < n)
            memcpy((char *)&b->s + words[k].at, &(double){atof(equals + 1)}, sizeof(double));
        else if (!strncmp(w, "DB=", 3))
            snprintf(b->db_name, sizeof b->db_name, "%s", w + 3);
        else {
            char *to = strncmp(w, "t.", 2) ? b->options : b->table;
            size_t used = strlen(to);
            snprintf(to + used, sizeof b->options - used, "%s;", to == b->table ? w + 2 : w);
        }
    }
}

static void case_options(bench *b)
{
    char all[4096], *message = NULL;
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();
    rocksdb_lru_cache_options_t *c = rocksdb_lru_cache_options_create();
    rocksdb_lru_cache_options_set_capacity(c, (size_t)(b->s.cache * (1 << 20)));
    rocksdb_lru_cache_options_set_num_shard_bits(c, (int)b->s.shards);
    b->cache = rocksdb_cache_create_lru_opts(c);
    rocksdb_lru_cache_options_destroy(c);
    rocksdb_block_based_options_set_block_cache(t, b->cache);
    rocksdb_options_set_block_based_table_factory(o, t);
    rocksdb_block_based_options_destroy(t);
    rocksdb_options_set_info_log_level(o, 6);
    snprintf(all, sizeof all,
             "create_if_missing=1;compression=kNoCompression;max_open_files=-1;"
             "write_buffer_size=1048576;max_background_jobs=2;disable_auto_compactions=%d;"
             "level_compaction_dynamic_level_bytes=1;target_file_size_base=67108864;"
             "max_bytes_for_level_base=134217728;level0_file_num_compaction_trigger=8;"
             "compaction_readahead_size=2097152;bytes_per_sync=4194304;stats_dump_period_sec=0;"
             "stats_persist_period_sec=0;%sblock_based_table_factory={format_version=5;"
             "cache_index_and_filter_blocks=1;block_size=4096;filter_policy=bloomfilter:10:false;"
             "%s}",
             !b->s.compact, b->options, b->table);
    b->o = rocksdb_options_create();
    rocksdb_get_options_from_string(o, all, b->o, &message);
    must(message);
    rocksdb_options_destroy(o);
    b->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(b->read, 1);
    rocksdb_readoptions_set_fill_cache(b->read, b->s.fill > 0);
    rocksdb_readoptions_set_readahead_size(b->read, (size_t)(b->s.readahead * 1024));
}

static void case_open(bench *b, int writable)
{
    const char *name = "default";
    char *message = NULL;
    const rocksdb_options_t *o = b->o;
    b->db = writable ? rocksdb_open_column_families(b->o, b->path, 1, &name, &o, &b->cf, &message)
                     : rocksdb_open_for_read_only_column_families(b->o, b->path, 1, &name, &o,
                                                                  &b->cf, 0, &message);
    must(message);
}

static void case_close(bench *b)
{
    rocksdb_column_family_handle_destroy(b->cf);
    rocksdb_close(b->db);
    b->db = NULL;
}

/* ---- writing ---- */

typedef struct file_out {
    rocksdb_sstfilewriter_t *w;
    char path[PATH_SIZE];
} file_out;

static void file_open(const bench *b, file_out *f, size_t number)
{
    char *message = NULL;
    path_make(f->path, "%s-%zu.sst", b->path, number);
    rocksdb_envoptions_t *env = rocksdb_envoptions_create();
    f->w = rocksdb_sstfilewriter_create(env, b->o);
    rocksdb_envoptions_destroy(env);
    rocksdb_sstfilewriter_open(f->w, f->path, &message);
    must(message);
}

static void file_put(const bench *b, file_out *f, uint64_t id, uint64_t seed)
{
    char key[KEY], *message = NULL;
    uint64_t value[VALUE_MAX / 8], n = (uint64_t)b->s.value;
    for (uint64_t k = 0; k < (n + 7) / 8; k++)
        value[k] = random_at(id ^ seed, k);
    key_write(key, id);
    rocksdb_sstfilewriter_put(f->w, key, KEY, (const char *)value, n, &message);
    must(message);
}

static void file_close(file_out *f)
{
    char *message = NULL;
    rocksdb_sstfilewriter_finish(f->w, &message);
    must(message);
    rocksdb_sstfilewriter_destroy(f->w);
}

static void ingest(bench *b, file_out *f, size_t n)
{
    char *message = NULL;
    const char *path[1024];
    for (size_t i = 0; i < n; i++)
        path[i] = f[i].path;
    rocksdb_ingestexternalfileoptions_t *o = rocksdb_ingestexternalfileoptions_create();
    rocksdb_ingestexternalfileoptions_set_move_files(o, 1);
    rocksdb_ingest_external_file(b->db, path, n, o, &message);
    rocksdb_ingestexternalfileoptions_destroy(o);
    must(message);
}

/* The base, in files of FILE_BYTES: 0 rows are left out, so that any row is in it. */
static void base_write(bench *b)
{
    file_out f[1024];
    uint64_t rows = (uint64_t)b->s.rows, piece = FILE_BYTES / (uint64_t)(b->s.value + KEY);
    size_t n = 0;
    for (uint64_t i = 0; i < rows; i++) {
        if (i % piece == 0) {
            if (i)
                file_close(&f[n++]);
            file_open(b, &f[n], n);
        }
        file_put(b, &f[n], row_key(b, i), 0);
    }
    file_close(&f[n++]);
    ingest(b, f, n);
}

/* Until none has run for a while: with universal compaction one can be pending forever. */
static void compaction_wait(const bench *b)
{
    for (int quiet = 0; quiet < 20; usleep(3000)) {
        uint64_t running = 0;
        rocksdb_property_int(b->db, "rocksdb.num-running-compactions", &running);
        quiet = running ? 0 : quiet + 1;
    }
}

static void files_warm(const bench *b);
static void read_round(bench *b, double *found, double *absent);

/* How many files a key of a row falls into, on the average; and the bytes of all. */
static double runs_met(const bench *b, double *bytes, double *files)
{
    const rocksdb_livefiles_t *live = rocksdb_livefiles(b->db);
    double met = 0;
    *bytes = 0, *files = rocksdb_livefiles_count(live);
    for (int i = 0; i < rocksdb_livefiles_count(live); i++) {
        size_t len;
        uint64_t end[2];
        const char *first = rocksdb_livefiles_smallestkey(live, i, &len);
        *bytes += (double)rocksdb_livefiles_size(live, i);
        if (len != KEY)
            continue;
        memcpy(&end[0], first + 5, 8);
        memcpy(&end[1], rocksdb_livefiles_largestkey(live, i, &len) + 5, 8);
        met += ((double)__builtin_bswap64(end[1]) - (double)__builtin_bswap64(end[0])) / 0x1p64;
    }
    rocksdb_livefiles_destroy(live);
    return met;
}

static void commit_write(bench *b, uint64_t number, uint64_t *rows)
{
    uint64_t n = (uint64_t)b->s.commit, all = (uint64_t)b->s.rows, kept = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t r = random_at(number, 2 * i), s = random_at(number, 2 * i + 1);
        rows[i] = (double)(r % 100) < b->s.hot ? s % (all / HOT_EVERY) * HOT_EVERY : s % all;
    }
    qsort(rows, n, sizeof *rows, by_number);
    for (uint64_t i = 0; i < n; i++)
        if (!kept || rows[i] != rows[kept - 1])
            rows[kept++] = rows[i];
    double process = seconds(CLOCK_PROCESS_CPUTIME_ID), begin = seconds(CLOCK_MONOTONIC);
    double own = seconds(CLOCK_THREAD_CPUTIME_ID);
    file_out f[2];
    file_open(b, &f[0], 0);
    for (uint64_t i = 0; i < kept; i++)
        file_put(b, &f[0], row_key(b, rows[i]), number);
    file_close(&f[0]);
    double wrote = seconds(CLOCK_MONOTONIC), wrote_cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
    if (b->s.state) {
        char *message = NULL, key[2][9] = {{0}, "\1params"};
        uint64_t big = __builtin_bswap64(number);
        memcpy(key[0] + 1, &big, 8);
        file_open(b, &f[1], 1);
        rocksdb_sstfilewriter_put(f[1].w, key[0], 9, key[1], 9, &message);
        rocksdb_sstfilewriter_put(f[1].w, key[1], 9, key[0], 9, &message);
        must(message);
        file_close(&f[1]);
    }
    double ingesting = seconds(CLOCK_MONOTONIC);
    ingest(b, f, b->s.state ? 2 : 1);
    double ingested = seconds(CLOCK_MONOTONIC);
    if (b->s.compact)
        compaction_wait(b);
    if ((double)number <= b->s.late)
        return;
    b->written += (double)kept;
    b->write_wall += wrote - begin;
    b->write_cpu += wrote_cpu - own;
    b->ingest_wall += ingested - ingesting;
    b->compact_cpu +=
        seconds(CLOCK_PROCESS_CPUTIME_ID) - process - (seconds(CLOCK_THREAD_CPUTIME_ID) - own);
    double bytes, files, cost = 0, absent = 0;
    b->met += runs_met(b, &bytes, &files);
    b->met_files += files;
    b->space += bytes / (b->s.rows * (b->s.value + KEY));
    if (b->s.compact && b->s.batches > 0) {
        files_warm(b);
        read_round(b, &cost, &absent);
    }
    b->reads += cost;
}

static void case_write(bench *b)
{
    tree_remove(b->path);
    case_open(b, 1);
    base_write(b);
    uint64_t *rows = memory_new((size_t)b->s.commit * sizeof *rows + 8);
    for (uint64_t c = 1; c <= (uint64_t)b->s.runs; c++)
        commit_write(b, c, rows);
    memory_free(rows);
    case_close(b);
}

/* ---- reading ---- */

/* Brings the files of a database into the page cache: the sorted-file writer drops what it wrote. */
static void files_warm(const bench *b)
{
    char path[PATH_SIZE], *part = memory_new(1 << 20);
    DIR *dir = opendir(b->path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        path_make(path, "%s/%s", b->path, e->d_name);
        int fd = open(path, O_RDONLY);
        while (fd >= 0 && read(fd, part, 1 << 20) > 0)
            ;
        close(fd);
    }
    closedir(dir);
    memory_free(part);
}

typedef struct reader {
    bench *b;
    uint64_t seed, absent, found;
    double cpu;
} reader;

/* Reads `batches` batches of sorted keys, all of them with a row or all of them without. */
static void *reader_run(void *context)
{
    reader *r = context;
    const bench *b = r->b;
    size_t n = (size_t)b->s.keys, chunk = (size_t)b->s.chunk;
    uint64_t *row = memory_new(n * sizeof *row);
    char(*key)[KEY] = memory_new(n * KEY), *out = memory_new(n * VALUE_MAX);
    const char **keys = memory_new(n * sizeof *keys);
    size_t *lens = memory_new(n * sizeof *lens);
    rocksdb_pinnableslice_t **slices = memory_new(n * sizeof *slices);
    char **messages = memory_new(n * sizeof *messages);
    for (size_t batch = 0; batch < (size_t)b->s.batches; batch++) {
        for (size_t i = 0; i < n; i++)
            row[i] = random_at(r->seed + batch, i) % (uint64_t)b->s.rows;
        qsort(row, n, sizeof *row, by_number);
        for (size_t i = 0; i < n; i++) {
            key_write(key[i], row_key(b, row[i]) + r->absent);
            keys[i] = key[i];
            lens[i] = KEY;
        }
        double begin = seconds(CLOCK_THREAD_CPUTIME_ID);
        for (size_t from = 0; from < n; from += chunk) {
            size_t count = MIN(chunk, n - from);
            rocksdb_batched_multi_get_cf(b->db, b->read, b->cf, count, keys + from, lens + from,
                                         slices, messages, 1);
            for (size_t i = 0; i < count; i++) {
                must(messages[i]);
                if (!slices[i])
                    continue;
                size_t len;
                const char *value = rocksdb_pinnableslice_value(slices[i], &len);
                memcpy(out + (from + i) * VALUE_MAX, value, len);
                rocksdb_pinnableslice_destroy(slices[i]);
                r->found++;
            }
        }
        r->cpu += seconds(CLOCK_THREAD_CPUTIME_ID) - begin;
    }
    void *mine[] = {row, key, out, keys, lens, slices, messages};
    for (size_t i = 0; i < sizeof mine / sizeof *mine; i++)
        memory_free(mine[i]);
    return NULL;
}

/* µs of the processor for a key that has a row, and for one that has none. */
static void read_round(bench *b, double *found, double *absent)
{
    enum { THREADS = 16 };
    size_t threads = MIN(THREADS, (size_t)b->s.threads);
    double all = b->s.keys * b->s.batches * (double)threads;
    for (uint64_t kind = 0; kind < 2; kind++) {
        pthread_t thread[THREADS];
        reader r[THREADS];
        double cpu = 0, had = 0;
        for (size_t i = 0; i < threads; i++) {
            r[i] = (reader){.b = b, .seed = mix64(++b->seed), .absent = kind};
            pthread_create(&thread[i], NULL, reader_run, &r[i]);
        }
        for (size_t i = 0; i < threads; i++) {
            pthread_join(thread[i], NULL);
            cpu += r[i].cpu, had += (double)r[i].found;
        }
        if (had != (kind ? 0 : all))
            must("a row is missing, or one is there that should not be");
        *(kind ? absent : found) = cpu / all * 1e6;
    }
}

/* ---- the program ---- */

static void usage(void)
{
    fprintf(stderr, "usage: rocksdb DIR CASE...\n\nwords of a case:\n");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        fprintf(stderr, "  %-10s %s (%g)\n", words[i].name, words[i].what,
                *(const double *)((const char *)&settings_default + words[i].at));
    exit(2);
}

static void report_commits(const bench *b)
{
    double measured = MAX(b->s.runs - b->s.late, 1), n = MAX(b->written, 1);
    printf("commits of %s\n  written at %.2f M rows/s (%.2f by the wall clock), ingest %.1f ms, "
           "compaction %.2f µs/row; space %.2f, files %.0f, runs met %.1f, reads %.2f µs\n",
           b->text, n / b->write_cpu / 1e6, n / b->write_wall / 1e6,
           b->ingest_wall / measured * 1e3, b->compact_cpu / n * 1e6, b->space / measured,
           b->met_files / measured, b->met / measured, b->reads / measured);
    fflush(stdout);
}

static void report_reads(bench *b)
{
    size_t rounds = MIN(ROUNDS, (size_t)b->s.rounds);
    printf("found %5.2f, absent %5.2f µs a key, cache %.2f MB/M rows: %s\n",
           median(b->found, rounds), median(b->absent, rounds),
           (double)rocksdb_cache_get_usage(b->cache) / b->s.rows, b->text);
}

int main(int argc, char **argv)
{
    static bench b[CASES];
    size_t n = (size_t)argc - 2, rounds = 0;
    if (argc < 3 || n > CASES)
        usage();
    for (size_t i = 0; i < n; i++) {
        case_parse(&b[i], argv[i + 2]);
        case_options(&b[i]);
        int made = 0;
        for (size_t k = 0; k < i; k++)
            made |= *b[i].db_name && !strcmp(b[k].db_name, b[i].db_name);
        path_make(b[i].path, "%s/%s%zu", argv[1], *b[i].db_name ? b[i].db_name : "case",
                  *b[i].db_name ? 0 : i);
        if (!made)
            case_write(&b[i]);
        if (!made && b[i].s.runs > 0)
            report_commits(&b[i]);
        rounds = MAX(rounds, MIN(ROUNDS, (size_t)b[i].s.rounds));
    }
    for (size_t i = 0; i < n; i++)
        case_open(&b[i], 0);
    for (size_t round = 0; round < rounds; round++)
        for (size_t i = 0; i < n; i++)
            if (round < (size_t)b[i].s.rounds && (round || !b[i].s.warm || (files_warm(&b[i]), 1)))
                read_round(&b[i], &b[i].found[round], &b[i].absent[round]);
    for (size_t i = 0; i < n; i++)
        report_reads(&b[i]);
    printf("peak %.0f MB\n", mr_memory_peak() / 1e6);
    for (size_t i = 0; i < n; i++) {
        case_close(&b[i]);
        rocksdb_readoptions_destroy(b[i].read);
        rocksdb_options_destroy(b[i].o);
        rocksdb_cache_destroy(b[i].cache);
    }
    for (size_t i = 0; i < n; i++)
        tree_remove(b[i].path);
    return 0;
}

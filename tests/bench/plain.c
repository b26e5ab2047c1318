/* plain.c - what RocksDB alone takes for the rows that a run had to read, without any of our code:
 *
 *   plain DATABASE KEYS TABLE THREADS
 *
 * reads the rows of KEYS (batch after batch: a u64 count, and as many u64 keys, ascending) by sorted
 * batched reads on so many threads, copies them out, and prints processor seconds a row, found and
 * not. Twice over the file: the first pass warms caches, the second one counts. */
#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KEY = 13, MOST = 256, MIB = 1 << 20 };

static double cpu(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void must(const char *message)
{
    if (!message)
        return;
    fprintf(stderr, "plain: %s\n", message);
    exit(1);
}

/* A batch, which the threads read part by part. */
typedef struct batch {
    rocksdb_t *db;
    rocksdb_column_family_handle_t *family;
    rocksdb_readoptions_t *read;
    uint32_t table; /* big-endian */
    const uint64_t *numbers;
    size_t n;
    atomic_size_t taken, found;
} batch;

static void read_part(batch *b, size_t from, size_t count)
{
    char key[MOST][KEY], copy[1 << 12];
    const char *keys[MOST];
    char *errors[MOST];
    size_t lens[MOST], found = 0;
    rocksdb_pinnableslice_t *value[MOST] = {NULL};
    for (size_t i = 0; i < count; i++) {
        uint64_t number = __builtin_bswap64(b->numbers[from + i]);
        key[i][0] = 2;
        memcpy(key[i] + 1, &b->table, 4);
        memcpy(key[i] + 5, &number, 8);
        keys[i] = key[i];
        lens[i] = KEY;
    }
    rocksdb_batched_multi_get_cf(b->db, b->read, b->family, count, keys, lens, value, errors, 1);
    for (size_t i = 0; i < count; i++) {
        must(errors[i]);
        size_t len = 0;
        const char *bytes = value[i] ? rocksdb_pinnableslice_value(value[i], &len) : NULL;
        if (bytes)
            memcpy(copy, bytes, len < sizeof copy ? len : sizeof copy);
        found += bytes != NULL;
        if (value[i])
            rocksdb_pinnableslice_destroy(value[i]);
    }
    b->found += found;
}

static void *read_parts(void *context)
{
    batch *b = context;
    size_t from;
    while ((from = atomic_fetch_add(&b->taken, MOST)) < b->n)
        read_part(b, from, b->n - from < MOST ? b->n - from : MOST);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        must("usage: plain DATABASE KEYS TABLE THREADS");
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, rocksdb_cache_create_lru(64 * MIB));
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_block_based_options_set_filter_policy(table,
                                                  rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_options_set_block_based_table_factory(options, table);
    rocksdb_options_set_max_open_files(options, -1);
    const char *name = "default";
    char *error = NULL;
    batch b = {.table = __builtin_bswap32((uint32_t)atoi(argv[3]))};
    const rocksdb_options_t *all = options;
    b.db = rocksdb_open_for_read_only_column_families(options, argv[1], 1, &name, &all, &b.family, 0,
                                                      &error);
    must(error);
    b.read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_fill_cache(b.read, 0);
    FILE *f = fopen(argv[2], "rb");
    if (!f)
        must("the file of keys could not be opened");
    int threads = atoi(argv[4]);
    if (threads < 1 || threads > 64)
        must("1 to 64 threads");
    uint64_t n, rows = 0;
    double used = 0;
    for (int pass = 0; pass < 2; pass++) {
        rewind(f);
        rows = b.found = 0;
        double began = cpu();
        while (fread(&n, 8, 1, f) == 1) {
            uint64_t *numbers = malloc(8 * n + 8);
            if (!numbers || fread(numbers, 8, n, f) != n)
                must("the file of keys ends early");
            b.numbers = numbers;
            b.n = n;
            b.taken = 0;
            pthread_t thread[64];
            for (int i = 1; i < threads; i++)
                if (pthread_create(&thread[i], NULL, read_parts, &b))
                    must("a thread could not be started");
            read_parts(&b);
            for (int i = 1; i < threads; i++)
                pthread_join(thread[i], NULL);
            rows += n;
            free(numbers);
        }
        used = cpu() - began;
    }
    fclose(f);
    printf("{\"found\":%llu,\"absent\":%llu,\"microseconds\":%.3f}\n", (unsigned long long)b.found,
           (unsigned long long)(rows - b.found), used * 1e6 / (double)rows);
    rocksdb_column_family_handle_destroy(b.family);
    rocksdb_close(b.db);
    return 0;
}

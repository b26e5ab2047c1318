/* plain.c - what RocksDB alone takes for the rows that a run had to read, without any of our code:
 *
 *   plain DATABASE KEYS TABLE
 *
 * reads the rows of KEYS (batch after batch: a u64 count, and as many u64 keys, ascending) by sorted
 * batched reads, copies them out, and prints processor seconds a row, found and not. Twice over the
 * file: the first pass warms caches, the second one counts. */
#include <rocksdb/c.h>
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

int main(int argc, char **argv)
{
    if (argc != 4)
        must("usage: plain DATABASE KEYS TABLE");
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_cache_t *cache = rocksdb_cache_create_lru(64 * MIB);
    rocksdb_block_based_options_set_block_cache(table, cache);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_block_based_options_set_filter_policy(table,
                                                  rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_options_set_block_based_table_factory(options, table);
    rocksdb_options_set_max_open_files(options, -1);
    const char *name = "default", *keys[MOST];
    char *error = NULL, *errors[MOST], key[MOST][KEY];
    size_t lens[MOST];
    rocksdb_column_family_handle_t *family;
    const rocksdb_options_t *all = options;
    rocksdb_t *db = rocksdb_open_for_read_only_column_families(options, argv[1], 1, &name, &all,
                                                               &family, 0, &error);
    must(error);
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_fill_cache(read, 0);
    uint32_t id = __builtin_bswap32((uint32_t)atoi(argv[3]));
    FILE *f = fopen(argv[2], "rb");
    if (!f)
        must("the file of keys could not be opened");
    uint64_t found = 0, absent = 0, n, number;
    static char copy[1 << 16];
    double used = 0;
    for (int pass = 0; pass < 2; pass++) {
        rewind(f);
        found = absent = 0;
        double began = cpu();
        while (fread(&n, 8, 1, f) == 1)
            while (n) {
                size_t count = n < MOST ? (size_t)n : MOST;
                for (size_t i = 0; i < count; i++) {
                    if (fread(&number, 8, 1, f) != 1)
                        must("the file of keys ends early");
                    number = __builtin_bswap64(number);
                    key[i][0] = 2;
                    memcpy(key[i] + 1, &id, 4);
                    memcpy(key[i] + 5, &number, 8);
                    keys[i] = key[i];
                    lens[i] = KEY;
                }
                rocksdb_pinnableslice_t *value[MOST] = {NULL};
                rocksdb_batched_multi_get_cf(db, read, family, count, keys, lens, value, errors, 1);
                for (size_t i = 0; i < count; i++) {
                    must(errors[i]);
                    size_t len = 0;
                    const char *bytes =
                        value[i] ? rocksdb_pinnableslice_value(value[i], &len) : NULL;
                    if (bytes)
                        memcpy(copy, bytes, len < sizeof copy ? len : sizeof copy);
                    found += bytes != NULL;
                    absent += bytes == NULL;
                    if (value[i])
                        rocksdb_pinnableslice_destroy(value[i]);
                }
                n -= count;
            }
        used = cpu() - began;
    }
    printf("{\"found\":%llu,\"absent\":%llu,\"microseconds\":%.3f}\n", (unsigned long long)found,
           (unsigned long long)absent, used * 1e6 / (double)(found + absent));
    rocksdb_column_family_handle_destroy(family);
    rocksdb_close(db);
    return 0;
}

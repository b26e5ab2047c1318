/* bounds.c - where the files of a database begin. An iterator of RocksDB 7.8 that comes to a file of a
 * level whose first block is damaged takes the level for ended, and tells of no error; one that seeks
 * the file's first key does tell. So whoever must not miss anything seeks at each of these keys. */
#include <stdlib.h>
#include <string.h>

#include "store/store.h"

static int by_key(const void *a, const void *b)
{
    const key_bound *x = a, *y = b;
    int order = memcmp(x->key, y->key, MIN(x->len, y->len));
    return order ? order : (x->len > y->len) - (x->len < y->len);
}

int key_reaches(const char *key, size_t len, const key_bound *b)
{
    int order = memcmp(key, b->key, MIN(len, b->len));
    return order ? order > 0 : len >= b->len;
}

int bounds_add(key_bounds *b, database d)
{
    const rocksdb_livefiles_t *files = rocksdb_livefiles(d.db);
    int bad = 0, n = rocksdb_livefiles_count(files);
    if (!b->bytes && !(b->bytes = arena_new()))
        bad = -1;
    for (int i = 0; i < n && !bad; i++) {
        size_t len;
        const char *key = rocksdb_livefiles_smallestkey(files, i, &len);
        char *copy = arena_take(b->bytes, len + 1);
        if (!copy || memory_reserve((void **)&b->at, &b->room, b->n + 1, sizeof *b->at)) {
            bad = -1;
        } else {
            memcpy(copy, key, len);
            b->at[b->n++] = (key_bound){copy, len};
        }
    }
    rocksdb_livefiles_destroy(files);
    if (b->n)
        qsort(b->at, b->n, sizeof *b->at, by_key);
    return bad;
}

void bounds_free(key_bounds *b)
{
    arena_free(b->bytes);
    memory_free(b->at);
}

/* damage.c - damage to a sorted file that RocksDB 7.8 does not survive to tell of.
 *
 * It takes a file's properties apart before it compares their checksum, since some versions changed them
 * in place; where the highest bit of their number of restarts is set, an assertion of the distribution's
 * build ends the process. So that one bit is looked at before RocksDB does; all else it reports.
 *
 * The end of a file: | ... | properties | metaindex | ... | footer 53 |, a footer | checksum kind 1 |
 * offset and size of the metaindex, varints | ... |, the metaindex entries | key bytes shared with the one
 * before, own key bytes, value bytes, varints | key | value |, the value of "rocksdb.properties" their
 * offset and size, a block | ... | number of restarts 4 |. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/store.h"

enum { FOOTER = 53, METAINDEX_MAX = 4096 };
#define PROPERTIES "rocksdb.properties"

typedef struct bytes {
    const uint8_t *at, *end;
} bytes;

/* 0, and stands at the end, if there is none. */
static uint64_t varint(bytes *b)
{
    uint64_t value = 0;
    for (unsigned shift = 0; b->at < b->end && shift < 64; shift += 7) {
        uint8_t byte = *b->at++;
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return value;
    }
    b->at = b->end;
    return 0;
}

/* Finds the properties in the metaindex: 1 found. */
static int properties_find(bytes b, uint64_t *offset, uint64_t *size)
{
    while (b.at < b.end) {
        uint64_t shared = varint(&b), own = varint(&b), len = varint(&b);
        size_t left = (size_t)(b.end - b.at);
        if (own > left || len > left - own)
            return 0;
        bytes value = {b.at + own, b.at + own + len};
        if (!shared && own == sizeof PROPERTIES - 1 && !memcmp(b.at, PROPERTIES, own)) {
            *offset = varint(&value);
            *size = varint(&value);
            return 1;
        }
        b.at = value.end;
    }
    return 0;
}

/* 1: damaged so; 0: not, or RocksDB tells; -1: errno. */
static int damaged(int fd)
{
    uint8_t footer[FOOTER], metaindex[METAINDEX_MAX], restarts[4];
    off_t end = lseek(fd, 0, SEEK_END);
    if (end < FOOTER)
        return end < 0 ? -1 : 0;
    ssize_t n = pread(fd, footer, FOOTER, end - FOOTER);
    if (n != FOOTER)
        return n < 0 ? -1 : 0;
    bytes b = {footer + 1, footer + FOOTER};
    uint64_t offset = varint(&b), size = varint(&b), file = (uint64_t)end;
    if (size > METAINDEX_MAX || size > file || offset > file - size)
        return 0;
    n = pread(fd, metaindex, size, (off_t)offset);
    if (n != (ssize_t)size)
        return n < 0 ? -1 : 0;
    if (!properties_find((bytes){metaindex, metaindex + size}, &offset, &size) || size < 4 ||
        size > file || offset > file - size)
        return 0;
    n = pread(fd, restarts, 4, (off_t)(offset + size - 4));
    return n < 0 ? -1 : n == 4 && restarts[3] >> 7;
}

int database_damage(const mr_store *s, const char *path)
{
    char file[PATH_SIZE];
    DIR *d = opendir(path);
    int bad = 0;
    for (struct dirent *e; d && !bad && (e = readdir(d));) {
        if (!is_sorted_file(e->d_name))
            continue;
        if (path_make(file, "%s/%s", path, e->d_name)) {
            bad = -1;
            break;
        }
        int fd = open(file, O_RDONLY | O_CLOEXEC);
        int found = fd < 0 ? -1 : damaged(fd);
        if (found < 0 && errno != ENOENT) /* a file of a writer's may go meanwhile */
            bad = fail("store %s: %s could not be read: %s", s->dir, file, strerror(errno));
        if (found > 0)
            bad = fail("store %s: %s is damaged: its properties are not what was written. Nothing "
                       "was changed; restore the directory from a copy",
                       s->dir, file);
        if (fd >= 0)
            close(fd);
    }
    if (d)
        closedir(d);
    return bad;
}

/* files.c - the files that a list of paths stands for, and what tells one of them from another.
 *
 * A file is known by its path, its size and the hash of its first and last bytes. One that was only
 * appended to has the same hash over the bytes that it had before; one that was truncated and
 * written again in place has the same identity, but another hash. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/base.h"
#include "base/file.h"
#include "data/source.h"

enum { HASHED = 64 << 10 }; /* bytes at either end */

struct mr_files {
    mr_file *at;
    size_t n, room;
    char *left_out;
};

void mr_files_free(mr_files *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->n; i++) {
        free((char *)f->at[i].name);
        free((char *)f->at[i].path);
    }
    memory_free(f->at);
    free(f->left_out);
    memory_free(f);
}

size_t mr_files_count(const mr_files *f)
{
    return f->n;
}

const char *mr_files_left_out(const mr_files *f)
{
    return f->left_out ? f->left_out : "";
}

const mr_file *mr_files_get(const mr_files *f, size_t i)
{
    return i < f->n ? &f->at[i] : NULL;
}

static int add_file(mr_files *f, const char *name)
{
    if (memory_reserve((void **)&f->at, &f->room, f->n + 1, sizeof *f->at))
        return -1;
    struct stat st;
    int regular = strcmp(name, "-") && !stat(name, &st) && S_ISREG(st.st_mode);
    char *real = regular ? realpath(name, NULL) : NULL;
    mr_file *m = &f->at[f->n];
    *m = (mr_file){.name = strdup(name), .path = real ? real : strdup(name), .size = -1};
    f->n++;
    if (!m->name || !m->path)
        return fail("%s: out of memory", name);
    if (!regular)
        return 0;
    m->size = (double)st.st_size;
    m->changed = (double)st.st_mtim.tv_sec + 1e-9 * (double)st.st_mtim.tv_nsec;
    uint64_t born = 0;
#ifdef STATX_BTIME
    struct statx x;
    if (!statx(AT_FDCWD, name, 0, STATX_BTIME, &x) && x.stx_mask & STATX_BTIME)
        born = (uint64_t)x.stx_btime.tv_sec * 1000000000u + x.stx_btime.tv_nsec;
#endif
    snprintf(m->identity, sizeof m->identity, "%" PRIx64 "-%" PRIx64, (uint64_t)st.st_ino, born);
    return 0;
}

mr_files *mr_files_find(const char *const *paths, size_t n, int grows)
{
    source *s = source_open(paths, n, grows, NULL);
    if (!s)
        return NULL;
    mr_files *f = memory_zero(sizeof *f);
    int bad = !f;
    for (size_t i = 0; !bad && i < source_count(s); i++)
        bad = add_file(f, source_path(s, i));
    if (!bad && !(f->left_out = strdup(source_left_out(s))))
        bad = fail("reader: out of memory");
    source_close(s);
    if (!bad)
        return f;
    mr_files_free(f);
    return NULL;
}

mr_files *mr_files_beside(const char *path)
{
    char parent[PATH_SIZE], beside[PATH_SIZE];
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    mr_files *f = memory_zero(sizeof *f);
    if (!f)
        return NULL;
    path_parent(path, parent);
    DIR *d = opendir(parent);
    int bad = 0;
    for (struct dirent *e; !bad && d && (e = readdir(d));)
        if (!strncmp(e->d_name, base, strlen(base)) && strcmp(e->d_name, base))
            bad = path_make(beside, "%s/%s", parent, e->d_name) || add_file(f, beside);
    if (d)
        closedir(d);
    if (!bad)
        return f;
    mr_files_free(f);
    return NULL;
}

static int hash_range(XXH3_state_t *state, int fd, const char *path, off_t from, size_t len)
{
    char buffer[16 << 10];
    while (len) {
        ssize_t got = pread(fd, buffer, MIN(len, sizeof buffer), from);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail("%s: at byte %lld: %s", path, (long long)from, strerror(errno));
        if (!got)
            return 0;
        XXH3_64bits_update(state, buffer, (size_t)got);
        from += got;
        len -= (size_t)got;
    }
    return 1;
}

int mr_file_hash(const char *path, double bytes, char *hex)
{
    _Alignas(64) XXH3_state_t state;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? 0 : fail("%s: cannot be read: %s", path, strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || (double)st.st_size < bytes) {
        close(fd);
        return 0;
    }
    XXH3_64bits_reset(&state);
    size_t first = (size_t)MIN(bytes, (double)HASHED);
    size_t last = (size_t)MIN(bytes - (double)first, (double)HASHED);
    int rc = hash_range(&state, fd, path, 0, first);
    if (rc == 1)
        rc = hash_range(&state, fd, path, (off_t)(bytes - (double)last), last);
    close(fd);
    snprintf(hex, 17, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(&state));
    return rc;
}

/* What of a chunk of `len` bytes at `at` lies in [from, to): its place in the chunk, and how much. */
static size_t overlap(double at, size_t len, double from, double to, size_t *n)
{
    double begin = MAX(at, from), end = MIN(at + (double)len, to);
    *n = end > begin ? (size_t)(end - begin) : 0;
    return *n ? (size_t)(begin - at) : 0;
}

int mr_file_hash_unpacked(const char *path, double bytes, char *hex, double *size)
{
    _Alignas(64) XXH3_state_t state;
    char buffer[16 << 10], *end = memory_new(HASHED); /* the last bytes */
    source *s = end ? source_open(&path, 1, 0, NULL) : NULL;
    int rc = s ? source_next(s) : -1;
    double first = MIN(bytes, (double)HASHED);
    double last = bytes - MIN(bytes - first, (double)HASHED);
    size_t n;
    *size = 0;
    XXH3_64bits_reset(&state);
    while (rc == 1) {
        ssize_t got = source_read(s, buffer, sizeof buffer, 0);
        if (got < 0)
            rc = got == SOURCE_STOPPED ? fail("%s: interrupted while it was unpacked", path) : -1;
        if (got <= 0)
            break;
        size_t from = overlap(*size, (size_t)got, 0, first, &n);
        XXH3_64bits_update(&state, buffer + from, n);
        from = overlap(*size, (size_t)got, last, bytes, &n);
        if (n)
            memcpy(end + (size_t)(*size + (double)from - last), buffer + from, n);
        *size += (double)got;
    }
    if (rc == 1 && *size < bytes)
        rc = 0;
    if (rc == 1)
        XXH3_64bits_update(&state, end, (size_t)(bytes - last));
    snprintf(hex, 17, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(&state));
    source_close(s);
    memory_free(end);
    return rc;
}

/* rescue.c - databases that do not open though what was committed is there.
 *
 * Both ways end in a look at the log of commits: only a database whose last commit is that of COMMIT, or
 * the one that was under way, is taken. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/store.h"

/* ---- files that RocksDB removed though its manifest names them ---- */

/* The number of the file that RocksDB misses, by its message; 0: that is not what it says. */
static uint64_t missing_file(const char *message)
{
    const char *end = strstr(message, ".ldb");
    if (!end || !strstr(message, "No such file"))
        return 0;
    while (end > message && end[-1] >= '0' && end[-1] <= '9')
        end--;
    return strtoull(end, NULL, 10);
}

static int rescue_path(const mr_store *s, char path[PATH_SIZE], uint64_t number)
{
    return path_make(path, "%s/%s/%06" PRIu64 ".sst", s->dir, s->last.database, number);
}

/* When the syncing of its manifest fails, RocksDB removes the files of an ingest, though the
 * manifest may name them already: such a database does not open. The files are still in staging.
 * They had consecutive numbers in the database, of which one is known, so that there are as many
 * ways to put them back as there are files; the manifest tells by their sizes which one is
 * right. Opens the database read-only; -1 with the message as it was. */
int database_rescue_files(const mr_store *s, const char *path, database *d, commit_mark *log)
{
    char why[1024], from[PATH_SIZE], to[PATH_SIZE];
    snprintf(why, sizeof why, "%s", mr_error());
    uint64_t missing = missing_file(why), n = 0;
    while (
        missing &&
        !path_make(from, "%s/staging/%" PRIu64 "-%" PRIu64 ".sst", s->dir, s->last.number + 1, n) &&
        !access(from, R_OK))
        n++;
    for (uint64_t first = missing >= n ? missing - n + 1 : 1; n && first <= missing; first++) {
        uint64_t linked = 0;
        for (; linked < n; linked++)
            if (path_make(from, "%s/staging/%" PRIu64 "-%" PRIu64 ".sst", s->dir,
                          s->last.number + 1, linked) ||
                rescue_path(s, to, first + linked) || link(from, to))
                break;
        int bad = linked < n || database_open(s, path, MR_STORE_READ, d, log);
        if (!bad && log->number == s->last.number + 1) {
            if (!tree_sync(path))
                return 0;
            database_close(d); /* the links stay */
            return -1;
        }
        if (!bad)
            database_close(d);
        while (linked--)
            if (!rescue_path(s, to, first + linked))
                unlink(to);
    }
    return fail("%s", why);
}

/* ---- a manifest whose end was being written when the power went ---- */

enum { BLOCK = 32768, HEADER = 7, CUTS = 12 }; /* RocksDB's format of logs */

/* Where a manifest may be cut, the longest first: behind its last whole record, and before each of the
 * last ones. How many. */
static size_t manifest_cuts(const uint8_t *bytes, size_t len, size_t cut[CUTS])
{
    size_t n = 0, at = 0;
    for (int whole = 1; whole;) {
        size_t left = BLOCK - at % BLOCK;
        if (left < HEADER) { /* filled up with zeros */
            at += left;
            left = BLOCK;
        }
        memmove(cut + 1, cut, (CUTS - 1) * sizeof *cut);
        cut[0] = at;
        n = MIN(n + 1, (size_t)CUTS);
        whole = at + HEADER <= len && bytes[at + 6];
        size_t size = whole ? bytes[at + 4] | (size_t)bytes[at + 5] << 8 : 0;
        whole = whole && HEADER + size <= left && at + HEADER + size <= len;
        at += HEADER + size;
    }
    return n;
}

/* The manifest that CURRENT names. */
static int manifest_path(const char *path, char to[PATH_SIZE], char name[64])
{
    char current[PATH_SIZE];
    *name = 0;
    if (path_make(current, "%s/CURRENT", path))
        return -1;
    FILE *f = fopen(current, "r");
    int good = f && fscanf(f, "%63s", name) == 1 && !strchr(name, '/');
    if (f)
        fclose(f);
    return good ? path_make(to, "%s/%s", path, name) : -1;
}

/* A directory that looks like a database, but for its manifest. */
static int stand_in(const char *path, const char *dir, const char *name, const void *bytes,
                    size_t len)
{
    char from[PATH_SIZE], to[PATH_SIZE], current[80], real[PATH_SIZE];
    if (!realpath(path, real) || path_make(to, "%s/%s", dir, name) || file_write(to, bytes, len) ||
        path_make(to, "%s/CURRENT", dir))
        return -1;
    int text = snprintf(current, sizeof current, "%s\n", name);
    if (file_write(to, current, (size_t)text))
        return -1;
    DIR *d = opendir(path);
    int bad = !d;
    for (struct dirent *e; d && !bad && (e = readdir(d));)
        if (strstr(e->d_name, ".sst"))
            bad = path_make(from, "%s/%s", real, e->d_name) ||
                  path_make(to, "%s/%s", dir, e->d_name) || (symlink(from, to) && errno != EEXIST);
    if (d)
        closedir(d);
    return bad ? -1 : 0;
}

/* Writes the shortened manifest in the place of the whole. */
static int manifest_replace(const char *path, const char *manifest, const void *bytes, size_t len)
{
    char beside[PATH_SIZE];
    if (path_make(beside, "%s.cut", manifest) || file_write(beside, bytes, len))
        return -1;
    return rename(beside, manifest) ? fail("%s: %s", manifest, strerror(errno))
                                    : directory_sync(path);
}

int database_rescue_tail(const mr_store *s, const char *path, int writes, database *d,
                         commit_mark *log)
{
    char why[1024], manifest[PATH_SIZE], name[64], dir[64];
    const char *parent = getenv("TMPDIR");
    snprintf(why, sizeof why, "%s", mr_error());
    size_t cut[CUTS], n = 0, len = 0;
    uint8_t *bytes = NULL;
    int found = 0;
    commit_mark mark;
    snprintf(dir, sizeof dir, "%s/moonrock-XXXXXX", parent && *parent ? parent : "/tmp");
    if (!strstr(why, "MANIFEST") || commit_file_read(s->dir, &mark) ||
        manifest_path(path, manifest, name) || !(bytes = file_read(manifest, &len)) ||
        !mkdtemp(dir))
        goto out;
    n = manifest_cuts(bytes, len, cut);
    for (size_t i = 0; i < n && !found; i++) {
        if (!cut[i] || stand_in(path, dir, name, bytes, cut[i]) ||
            database_open(s, dir, MR_STORE_READ, d, log))
            continue;
        found = log->number == mark.number && !database_check(s, *d, &mark, log);
        if (!found)
            database_close(d);
        else if (writes && manifest_replace(path, manifest, bytes, cut[i])) {
            database_close(d);
            break;
        }
    }
    tree_remove(dir);
out:
    memory_free(bytes);
    return found && d->db ? 0 : fail("%s", why);
}

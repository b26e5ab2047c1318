/* commit_file.c - the file COMMIT, which says what the last commit of a store was:
 *
 *   moonrock store 2
 *   database db-1
 *   commit 12
 *   step 3400
 *   time 1760000000.123456
 *   check 0123456789abcdef
 *
 * check is the XXH64 of all before it, in every format. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "store/store.h"

enum { TEXT_SIZE = 512, CHECK_LEN = 23 };

static int mark_write(const commit_mark *m, char text[TEXT_SIZE])
{
    int len = snprintf(text, TEXT_SIZE,
                       "moonrock store %d\ndatabase %s\ncommit %" PRIu64 "\nstep %" PRIu64
                       "\ntime %" PRIu64 ".%06d\n",
                       STORE_FORMAT, m->database, m->number, m->step, m->time / 1000000,
                       (int)(m->time % 1000000));
    uint64_t check = XXH64(text, (size_t)len, 0);
    return len + snprintf(text + len, (size_t)(TEXT_SIZE - len), "check %016" PRIx64 "\n", check);
}

static int text_checks(const char *text, size_t len)
{
    char check[CHECK_LEN + 1];
    if (len < CHECK_LEN)
        return 0;
    snprintf(check, sizeof check, "check %016" PRIx64 "\n",
             (uint64_t)XXH64(text, len - CHECK_LEN, 0));
    return !memcmp(text + len - CHECK_LEN, check, CHECK_LEN);
}

int commit_file_read(const char *dir, commit_mark *mark)
{
    char path[PATH_SIZE], text[TEXT_SIZE], again[TEXT_SIZE];
    if (path_make(path, "%s/COMMIT", dir))
        return -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return fail("store %s: COMMIT is missing, and with it the record of which state was the "
                    "last. Nothing was changed; restore the directory from a copy",
                    dir);
    ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    int why = errno;
    if (fd >= 0)
        close(fd);
    if (len < 0)
        return fail("store %s: COMMIT could not be read: %s", dir, strerror(why));
    text[len] = 0;
    if (!text_checks(text, (size_t)len))
        return fail(
            "store %s: COMMIT is damaged: its %zd bytes do not match their checksum. Nothing "
            "was changed; restore the directory from a copy",
            dir, len);
    int format = 0;
    if (sscanf(text, "moonrock store %d\n", &format) == 1 && format != STORE_FORMAT)
        return fail(
            "store %s: COMMIT is of format %d, this program reads format %d; use the version "
            "of moonrock that wrote it",
            dir, format, STORE_FORMAT);
    uint64_t second = 0, micro = 0;
    commit_mark m = {0, 0, 0, ""};
    int got = sscanf(text,
                     "moonrock store %d\ndatabase %31s\ncommit %" SCNu64 "\nstep %" SCNu64
                     "\ntime %" SCNu64 ".%" SCNu64,
                     &format, m.database, &m.number, &m.step, &second, &micro);
    m.time = second * 1000000 + micro;
    if (got != 6 || mark_write(&m, again) != len || memcmp(text, again, (size_t)len) ||
        strchr(m.database, '/'))
        return fail(
            "store %s: COMMIT is not as this program writes it, though its checksum is right", dir);
    *mark = m;
    return 0;
}

int commit_file_prepare(const char *dir, const commit_mark *mark)
{
    char path[PATH_SIZE], text[TEXT_SIZE];
    int len = mark_write(mark, text);
    return path_make(path, "%s/COMMIT.new", dir) || file_write(path, text, (size_t)len) ? -1 : 0;
}

int commit_file_replace(const char *dir)
{
    char path[PATH_SIZE], beside[PATH_SIZE];
    if (path_make(path, "%s/COMMIT", dir) || path_make(beside, "%s/COMMIT.new", dir))
        return -1;
    if (rename(beside, path))
        return fail("store %s: COMMIT could not be replaced: %s", dir, strerror(errno));
    return directory_sync(dir);
}

int commit_file_write(const char *dir, const commit_mark *mark)
{
    return commit_file_prepare(dir, mark) || commit_file_replace(dir) ? -1 : 0;
}

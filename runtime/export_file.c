/* export_file.c - the files of exports and imports. One that is written stands beside its place, as
 * NAME.writing-PID, until it is whole and synced: there is never half of one. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "export.h"

enum { BUFFER = 1 << 18 };

struct out_file {
    int fd, standard, beside, failed;
    char path[PATH_SIZE], target[PATH_SIZE];
    char *buffer;
    size_t n;
    uint64_t len;
};

static int out_fail(out_file *f, int why)
{
    f->failed = 1;
    return fail("%s: could not be written: %s", f->standard ? "standard output" : f->target,
                strerror(why));
}

out_file *out_open(const char *path, int beside)
{
    out_file *f = memory_zero(sizeof *f);
    if (!f)
        return NULL;
    f->standard = !strcmp(path, "-");
    f->beside = beside && !f->standard;
    f->fd = -1;
    f->buffer = memory_new(BUFFER);
    int bad = !f->buffer || path_make(f->target, "%s", path) ||
              (f->beside ? path_make(f->path, "%s.writing-%d", path, (int)getpid())
                         : path_make(f->path, "%s", path));
    if (!bad) {
        f->fd = f->standard ? STDOUT_FILENO
                            : open(f->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        bad = f->fd < 0 ? out_fail(f, errno) : 0;
    }
    if (bad) {
        memory_free(f->buffer);
        memory_free(f);
        return NULL;
    }
    return f;
}

static int write_all(out_file *f, const char *bytes, size_t len)
{
    while (len) {
        ssize_t n = write(f->fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return out_fail(f, n ? errno : ENOSPC);
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

static int out_flush(out_file *f)
{
    size_t n = f->n;
    f->n = 0;
    return f->failed ? -1 : write_all(f, f->buffer, n);
}

int out_write(out_file *f, const void *bytes, size_t len)
{
    if (f->n + len > BUFFER && out_flush(f))
        return -1;
    f->len += len;
    if (len > BUFFER)
        return write_all(f, bytes, len);
    memcpy(f->buffer + f->n, bytes, len);
    f->n += len;
    return 0;
}

int out_over(out_file *f, uint64_t at, const void *bytes, size_t len)
{
    if (out_flush(f))
        return -1;
    ssize_t n = pwrite(f->fd, bytes, len, (off_t)at);
    return n == (ssize_t)len ? 0 : out_fail(f, n < 0 ? errno : ENOSPC);
}

uint64_t out_len(const out_file *f)
{
    return f->len;
}

static void out_free(out_file *f)
{
    if (f->fd >= 0 && !f->standard)
        close(f->fd);
    memory_free(f->buffer);
    memory_free(f);
}

void out_abort(out_file *f)
{
    if (!f)
        return;
    if (!f->standard)
        unlink(f->path);
    out_free(f);
}

int out_end(out_file *f)
{
    char parent[PATH_SIZE];
    int bad = out_flush(f);
    if (!bad && !f->standard && fsync(f->fd))
        bad = out_fail(f, errno);
    if (!bad && f->beside) {
        if (rename(f->path, f->target))
            bad = out_fail(f, errno);
        path_parent(f->target, parent);
        if (!bad)
            bad = directory_sync(parent);
    } else if (bad && !f->standard) {
        unlink(f->path);
    }
    out_free(f);
    return bad ? -1 : 0;
}

/* ---- reading ---- */

enum { LINE_MOST = 64 << 20 };

in_file *in_open(const char *path)
{
    in_file *f = memory_zero(sizeof *f);
    if (!f)
        return NULL;
    f->fd = -1;
    if (path_make(f->path, "%s", path) || !(f->buffer = memory_new(BUFFER))) {
        in_close(f);
        return NULL;
    }
    f->fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : dup(STDIN_FILENO);
    if (f->fd < 0) {
        fail("%s: %s", path, strerror(errno));
        in_close(f);
        return NULL;
    }
    return f;
}

/* Fills the buffer, which is empty: 1, 0 at the end, -1. */
static int in_fill(in_file *f)
{
    ssize_t n;
    do
        n = read(f->fd, f->buffer, BUFFER);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return fail("%s: could not be read: %s", f->path, strerror(errno));
    f->from = 0;
    f->to = (size_t)n;
    return n > 0;
}

int64_t in_read(in_file *f, void *bytes, size_t len)
{
    size_t got = 0;
    while (got < len) {
        if (f->from == f->to) {
            int more = in_fill(f);
            if (more < 0)
                return -1;
            if (!more)
                break;
        }
        size_t n = MIN(len - got, f->to - f->from);
        memcpy((char *)bytes + got, f->buffer + f->from, n);
        f->from += n;
        f->at += n;
        got += n;
    }
    return (int64_t)got;
}

int in_line(in_file *f, char **line, size_t *len)
{
    size_t n = 0;
    for (;;) {
        if (f->from == f->to) {
            int more = in_fill(f);
            if (more < 0)
                return -1;
            if (!more && !n)
                return 0;
            if (!more)
                break;
        }
        char *start = f->buffer + f->from, *end = memchr(start, '\n', f->to - f->from);
        size_t part = end ? (size_t)(end - start) : f->to - f->from;
        if (n + part > LINE_MOST)
            return fail("%s: a line has more than %d bytes", f->path, LINE_MOST);
        if (memory_reserve((void **)&f->line, &f->line_room, n + part + 1, 1))
            return -1;
        memcpy(f->line + n, start, part);
        n += part;
        f->from += part + (end != NULL);
        f->at += part + (end != NULL);
        if (end)
            break;
    }
    if (n && f->line[n - 1] == '\r')
        n--;
    f->line[n] = 0;
    *line = f->line;
    *len = n;
    return 1;
}

void in_close(in_file *f)
{
    if (!f)
        return;
    memory_free(f->line);
    if (f->fd >= 0)
        close(f->fd);
    memory_free(f->buffer);
    memory_free(f);
}

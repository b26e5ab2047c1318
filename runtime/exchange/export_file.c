/* export_file.c - files that imports read in order. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "exchange/export.h"

enum { BUFFER = 1 << 18, LINE_MOST = 64 << 20 };

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

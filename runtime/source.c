/* source.c - bytes from plain, gzip and zstd files, pipes and files that grow.
 *
 * What a file is packed with is told by its first bytes, not by its name. Stored bytes pass
 * through `raw`; a plain file's are read straight to where they are wanted once those that
 * were looked at are handed out. A packed file may hold several members or frames, and must
 * end with the end of one. Waiting is done in short polls, so that `stop`, an interrupt or a
 * deadline ends it within POLL_MS. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base.h"
#include "source.h"

enum { RAW = 256 << 10, POLL_MS = 20 };
enum packing { PLAIN, GZIP, ZSTD };

typedef struct file {
    char *name;
    double size; /* bytes, -1: not known */
    int regular;
} file;

struct source {
    file *files;
    size_t n, files_room;
    size_t next; /* number of the file to open next */
    int follow, has_stdin, used_stdin;
    const atomic_int *stop;

    int fd;            /* of the open file, -1: none */
    int packing;       /* enum packing */
    int inside;        /* in the middle of a member or frame */
    int at_end;        /* the stored bytes have ended */
    double bytes;      /* stored bytes read of all files since the rewind */
    double offset;     /* and of the open one */
    double out;        /* unpacked bytes handed out of the open one */
    uint8_t *raw;      /* RAW */
    size_t head, tail; /* raw[head..tail) is not used yet */
    z_stream gzip;
    int gzip_open;
    ZSTD_DStream *zstd;
};

static int add(source *s, const char *name)
{
    if (memory_reserve((void **)&s->files, &s->files_room, s->n + 1, sizeof *s->files))
        return -1;
    file *f = &s->files[s->n];
    *f = (file){.name = strdup(name), .size = -1};
    if (!f->name)
        return fail("%s: out of memory", name);
    s->n++;
    if (!strcmp(name, "-")) {
        s->has_stdin = 1;
        return 0;
    }
    struct stat st;
    if (stat(name, &st))
        return fail("%s: cannot be read: %s", name, strerror(errno));
    f->regular = S_ISREG(st.st_mode);
    if (f->regular)
        f->size = (double)st.st_size;
    if (access(name, R_OK))
        return fail("%s: cannot be read: %s", name, strerror(errno));
    return 0;
}

static int visible(const struct dirent *e)
{
    return e->d_name[0] != '.' && e->d_name[0] != '_';
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int add_directory(source *s, const char *dir)
{
    struct dirent **list = NULL;
    int n = scandir(dir, &list, visible, by_name);
    if (n < 0)
        return fail("%s: cannot be read: %s", dir, strerror(errno));
    size_t before = s->n;
    int rc = 0;
    for (int i = 0; i < n; i++) {
        size_t len = strlen(dir) + strlen(list[i]->d_name) + 2;
        char *path = malloc(len);
        struct stat st;
        if (!path)
            rc = fail("%s: out of memory", dir);
        if (path && !rc) {
            int slash = dir[strlen(dir) - 1] == '/';
            snprintf(path, len, "%s%s%s", dir, slash ? "" : "/", list[i]->d_name);
            if (!stat(path, &st) && !S_ISDIR(st.st_mode))
                rc = add(s, path);
        }
        free(path);
        free(list[i]);
    }
    free(list);
    if (!rc && s->n == before)
        rc = fail("%s: is a directory without files", dir);
    return rc;
}

source *source_open(const char *const *files, size_t n, int follow, const atomic_int *stop)
{
    if (!n)
        return fail_null("reader: no files were given");
    source *s = memory_zero(sizeof *s);
    if (!s)
        return NULL;
    s->fd = -1;
    s->follow = follow;
    s->stop = stop;
    if (!(s->raw = memory_new(RAW)))
        goto failed;
    for (size_t i = 0; i < n; i++) {
        struct stat st;
        int is_dir = strcmp(files[i], "-") && !stat(files[i], &st) && S_ISDIR(st.st_mode);
        if (is_dir ? add_directory(s, files[i]) : add(s, files[i]))
            goto failed;
    }
    for (size_t i = 0; i < s->n; i++)
        if (s->files[i].regular && s->files[i].size == 0 && !(follow && i + 1 == s->n)) {
            fail("%s: is empty", s->files[i].name);
            goto failed;
        }
    return s;
failed:
    source_close(s);
    return NULL;
}

static void file_close(source *s)
{
    if (s->fd > 0)
        close(s->fd);
    s->fd = -1;
    if (s->gzip_open)
        inflateEnd(&s->gzip);
    s->gzip_open = 0;
}

void source_close(source *s)
{
    if (!s)
        return;
    file_close(s);
    if (s->zstd)
        ZSTD_freeDStream(s->zstd);
    for (size_t i = 0; i < s->n; i++)
        free(s->files[i].name);
    memory_free(s->files);
    memory_free(s->raw);
    memory_free(s);
}

const char *source_first(const source *s)
{
    return s->files[0].name;
}

size_t source_file(const source *s)
{
    return s->next ? s->next - 1 : 0;
}

const char *source_file_name(const source *s, size_t file)
{
    const char *name = s->files[file].name;
    return strcmp(name, "-") ? name : "standard input";
}

const char *source_name(const source *s)
{
    return source_file_name(s, source_file(s));
}

double source_offset(const source *s)
{
    return s->offset;
}

double source_bytes(const source *s)
{
    return s->bytes;
}

double source_total(const source *s)
{
    double total = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->files[i].size < 0)
            return -1;
        total += s->files[i].size;
    }
    return s->follow ? -1 : total;
}

int source_is_stdin(const source *s)
{
    return s->has_stdin;
}

int source_rewind(source *s)
{
    file_close(s);
    if (s->used_stdin)
        return fail("standard input: can be read only once");
    s->next = 0;
    s->bytes = s->offset = 0;
    return 0;
}

static int stopped(const source *s)
{
    return s->stop ? atomic_load_explicit(s->stop, memory_order_relaxed) : mr_interrupted();
}

static int following(const source *s)
{
    return s->follow && s->next == s->n && s->files[s->next - 1].regular;
}

/* Stored bytes, waiting for them: > 0, 0 at the end, or a code of source_read. */
static ssize_t stored(source *s, void *out, size_t len, double until)
{
    for (;;) {
        if (stopped(s))
            return SOURCE_STOPPED;
        if (!s->files[s->next - 1].regular) { /* it may block: look first */
            struct pollfd p = {.fd = s->fd, .events = POLLIN};
            int due = until > 0 && mr_clock() >= until;
            int ready = poll(&p, 1, due ? 0 : POLL_MS);
            if (ready <= 0) {
                if (ready < 0 && errno != EINTR)
                    return fail("%s: %s", source_name(s), strerror(errno));
                if (due)
                    return SOURCE_WAITED;
                continue;
            }
        }
        ssize_t got = read(s->fd, out, len);
        if (got > 0) {
            s->bytes += (double)got;
            s->offset += (double)got;
            return got;
        }
        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (got < 0)
            return fail("%s: at byte %.0f: %s", source_name(s), s->offset, strerror(errno));
        if (!following(s))
            return 0;
        struct stat st;
        if (!fstat(s->fd, &st) && (double)st.st_size < s->offset)
            return fail("%s: has shrunk to %.0f bytes, %.0f were read already", source_name(s),
                        (double)st.st_size, s->offset);
        if (until > 0 && mr_clock() >= until)
            return SOURCE_WAITED;
        poll(NULL, 0, POLL_MS);
    }
}

/* More stored bytes into raw. */
static ssize_t refill(source *s, double until)
{
    if (s->head == s->tail)
        s->head = s->tail = 0;
    ssize_t got = stored(s, s->raw + s->tail, RAW - s->tail, until);
    if (got > 0)
        s->tail += (size_t)got;
    if (got == 0)
        s->at_end = 1;
    return got;
}

int source_next(source *s)
{
    file_close(s);
    if (s->next == s->n)
        return 0;
    file *f = &s->files[s->next++];
    s->offset = s->out = 0;
    s->head = s->tail = 0;
    s->at_end = s->inside = 0;
    s->packing = -1;
    if (!strcmp(f->name, "-")) {
        s->used_stdin = 1;
        s->fd = 0;
        return 1;
    }
    s->fd = open(f->name, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0)
        return fail("%s: cannot be read: %s", f->name, strerror(errno));
    if (f->regular)
        posix_fadvise(s->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return 1;
}

/* What the open file is packed with. Two bytes tell gzip, four zstd; a shorter file is plain. */
static ssize_t detect(source *s, double until)
{
    static const uint8_t zstd_magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    while (s->tail < 4 && !s->at_end) {
        ssize_t got = refill(s, until);
        if (got < 0)
            return got;
        if (s->tail && s->raw[0] != 0x1f && s->raw[0] != zstd_magic[0])
            break;
    }
    s->packing = PLAIN;
    if (s->tail >= 2 && s->raw[0] == 0x1f && s->raw[1] == 0x8b) {
        s->packing = GZIP;
        s->gzip = (z_stream){0};
        if (inflateInit2(&s->gzip, 16 + MAX_WBITS) != Z_OK)
            return fail("%s: zlib cannot start", source_name(s));
        s->gzip_open = 1;
    } else if (s->tail >= 4 && !memcmp(s->raw, zstd_magic, 4)) {
        s->packing = ZSTD;
        if (!s->zstd && !(s->zstd = ZSTD_createDStream()))
            return fail("%s: zstd cannot start", source_name(s));
        ZSTD_initDStream(s->zstd);
    }
    if (s->packing != PLAIN && following(s))
        return fail("%s: a packed file cannot be followed", source_name(s));
    return 0;
}

static ssize_t unpack(source *s, void *out, size_t len, double until)
{
    const char *kind = s->packing == GZIP ? "gzip" : "zstd";
    for (;;) {
        if (s->head == s->tail && !s->at_end) {
            ssize_t got = refill(s, until);
            if (got < 0)
                return got;
        }
        if (s->head == s->tail && s->at_end && !s->inside)
            return 0;
        size_t made = 0, used = 0;
        double at = s->offset - (double)(s->tail - s->head);
        if (s->packing == GZIP) {
            s->gzip.next_in = s->raw + s->head;
            s->gzip.avail_in = (uInt)(s->tail - s->head);
            s->gzip.next_out = out;
            s->gzip.avail_out = (uInt)MIN(len, (size_t)1 << 30);
            uInt room = s->gzip.avail_out;
            s->inside = 1;
            int rc = inflate(&s->gzip, Z_NO_FLUSH);
            if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
                return fail("%s: is damaged at byte %.0f: %s", source_name(s), at,
                            s->gzip.msg ? s->gzip.msg : "not gzip");
            made = room - s->gzip.avail_out;
            used = s->tail - s->head - s->gzip.avail_in;
            if (rc == Z_STREAM_END) {
                s->inside = 0;
                inflateReset(&s->gzip);
            }
        } else {
            ZSTD_inBuffer in = {s->raw + s->head, s->tail - s->head, 0};
            ZSTD_outBuffer to = {out, len, 0};
            size_t rc = ZSTD_decompressStream(s->zstd, &to, &in);
            if (ZSTD_isError(rc))
                return fail("%s: is damaged at byte %.0f: %s", source_name(s), at,
                            ZSTD_getErrorName(rc));
            made = to.pos;
            used = in.pos;
            s->inside = rc != 0;
        }
        s->head += used;
        if (made)
            return (ssize_t)made;
        if (!used && s->head == s->tail && s->at_end && s->inside)
            return fail("%s: is truncated: the %s data ends at byte %.0f in the middle of a %s",
                        source_name(s), kind, s->offset, s->packing == GZIP ? "member" : "frame");
    }
}

ssize_t source_read(source *s, void *out, size_t len, double until)
{
    ssize_t got = s->packing < 0 ? detect(s, until) : 0;
    if (got < 0)
        return got;
    if (s->packing != PLAIN) {
        got = unpack(s, out, len, until);
    } else if (s->head < s->tail) {
        got = (ssize_t)MIN(len, s->tail - s->head);
        memcpy(out, s->raw + s->head, (size_t)got);
        s->head += (size_t)got;
    } else {
        got = s->at_end ? 0 : stored(s, out, len, until);
    }
    if (got > 0)
        s->out += (double)got;
    if (got == 0 && s->out == 0 && strcmp(s->files[s->next - 1].name, "-"))
        return fail("%s: is empty", source_name(s));
    return got;
}

int64_t source_seek(source *s, int64_t n)
{
    file *f = &s->files[s->next - 1];
    if (!f->regular || n <= 0 || s->out > 0 || (s->packing < 0 && detect(s, 0) < 0) ||
        s->packing != PLAIN)
        return 0;
    int64_t to = MIN(n, (int64_t)f->size);
    if (lseek(s->fd, (off_t)to, SEEK_SET) < 0)
        return 0;
    s->bytes += (double)to - s->offset;
    s->offset = s->out = (double)to;
    s->head = s->tail = 0;
    s->at_end = 0;
    return to;
}

/* source.c - bytes from plain, gzip and zstd files, pipes and files that grow.
 *
 * What a file is packed with is told by its first bytes, not by its name. Stored bytes pass
 * through `raw`; a plain file's are read straight to where they are wanted once those that
 * were looked at are handed out. A packed file may hold several members or frames, and must
 * end with the end of one. Waiting is done in short polls, so that `stop`, an interrupt or a
 * deadline ends it within POLL_MS. What is no regular file is opened once, without waiting for
 * its writer, when its turn has come, and cannot be read again. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "base/file.h"
#include "data/source.h"
#include "data/unpack.h"

enum { RAW = 256 << 10, POLL_MS = 20 };

typedef struct file {
    char *name;
    double size;  /* bytes, -1: not known */
    double limit; /* bytes that are read, 0: all */
    int regular;
} file;

struct source {
    file *files;
    size_t n, files_room;
    size_t next; /* number of the file to open next */
    int follow;
    int used;       /* a file that can be read only once was opened */
    char *left_out; /* names, separated by blanks, of files in directories that are not read */
    const atomic_int *stop;

    int fd;            /* of the open file, -1: none */
    int packing;       /* enum packing, PACKING_MORE: not known yet */
    int at_end;        /* the stored bytes have ended */
    double bytes;      /* stored bytes read of all files since the rewind */
    double offset;     /* and of the open one */
    double out;        /* unpacked bytes handed out of the open one */
    double out_before; /* and of those before it */
    uint8_t *raw;      /* RAW */
    size_t head, tail; /* raw[head..tail) is not used yet */
    unpacker unpacker;
};

static int is_stdin(const file *f)
{
    return !strcmp(f->name, "-");
}

int mr_path_kind(const char *path)
{
    GIVEN(path, -1);
    struct stat st;
    if (!strcmp(path, "-"))
        return MR_PATH_ONCE;
    if (stat(path, &st)) {
        int error = errno;
        if (error == ENOENT && !lstat(path, &st))
            return fail("%s: cannot be read: is a link to what is not there", path);
        return fail("%s: cannot be read: %s", path, strerror(error));
    }
    if (S_ISDIR(st.st_mode))
        return MR_PATH_DIRECTORY;
    if (access(path, R_OK))
        return fail("%s: cannot be read: %s", path, strerror(errno));
    return S_ISREG(st.st_mode) ? MR_PATH_FILE : MR_PATH_ONCE;
}

static int add(source *s, const char *name)
{
    if (memory_reserve((void **)&s->files, &s->files_room, s->n + 1, sizeof *s->files))
        return -1;
    file *f = &s->files[s->n];
    *f = (file){.name = strdup(name), .size = -1};
    if (!f->name)
        return fail("%s: out of memory", name);
    s->n++;
    int kind = mr_path_kind(name);
    if (kind < 0)
        return -1;
    for (size_t i = 0; kind == MR_PATH_ONCE && i + 1 < s->n; i++)
        if (!strcmp(s->files[i].name, name))
            return fail("%s: can be read only once, and is named twice", source_file_name(s, i));
    struct stat st;
    f->regular = kind == MR_PATH_FILE;
    if (f->regular && !stat(name, &st))
        f->size = (double)st.st_size;
    return 0;
}

/* ---- directories ----------------------------------------------------------------------- */

/* A directory and those it stands in. */
typedef struct level {
    dev_t device;
    ino_t inode;
    const struct level *above;
} level;

/* What hidden files and the records of other systems' jobs begin with, which nobody misses. */
static int is_usual(const char *name)
{
    static const char *const starts[] = {".",          "_SUCCESS",  "_committed_",     "_started_",
                                         "_temporary", "_metadata", "_common_metadata"};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (!strncmp(name, starts[i], strlen(starts[i])))
            return 1;
    return 0;
}

/* What editors and tools leave beside the files that they write. */
static int is_leftover(const char *name)
{
    static const char *const ends[] = {"~", ".bak", ".orig", ".tmp", ".swp", ".crc"};
    size_t len = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (len > strlen(ends[i]) && !strcmp(name + len - strlen(ends[i]), ends[i]))
            return 1;
    return name[0] == '#' && name[len - 1] == '#';
}

static int is_store(const char *dir)
{
    char commit[PATH_SIZE], lock[PATH_SIZE];
    return !path_make(commit, "%s/COMMIT", dir) && !path_make(lock, "%s/LOCK", dir) &&
           !access(commit, F_OK) && !access(lock, F_OK);
}

static int note_left_out(source *s, const char *path)
{
    size_t before = s->left_out ? strlen(s->left_out) : 0;
    if (before > 400) /* enough said */
        return 0;
    size_t len = before + strlen(path) + 3;
    char *grown = realloc(s->left_out, len);
    if (!grown)
        return fail("%s: out of memory", path);
    snprintf(grown + before, len - before, "%s%s", before ? ", " : "", path);
    s->left_out = grown;
    return 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int add_directory(source *s, const char *dir, const level *above);

static int add_entry(source *s, const char *path, const char *name, const level *above)
{
    if (name[0] == '.' || name[0] == '_')
        return is_usual(name) ? 0 : note_left_out(s, path);
    if (is_leftover(name))
        return note_left_out(s, path);
    int kind = mr_path_kind(path);
    if (kind < 0)
        return -1;
    if (kind == MR_PATH_DIRECTORY && is_store(path))
        return fail("%s: is a store, not data; keep it out of the directory that is read", path);
    if (kind == MR_PATH_DIRECTORY)
        return add_directory(s, path, above);
    if (kind == MR_PATH_ONCE)
        return fail("%s: is no file; name it by itself, or take it out of the directory", path);
    return add(s, path);
}

static int add_directory(source *s, const char *dir, const level *above)
{
    struct stat st;
    if (stat(dir, &st))
        return fail("%s: cannot be read: %s", dir, strerror(errno));
    level here = {st.st_dev, st.st_ino, above};
    for (const level *l = above; l; l = l->above)
        if (l->device == here.device && l->inode == here.inode)
            return fail("%s: is a link to a directory that it stands in; take it away", dir);
    struct dirent **list = NULL;
    int n = scandir(dir, &list, NULL, by_name);
    if (n < 0)
        return fail("%s: cannot be read: %s", dir, strerror(errno));
    int rc = 0;
    for (int i = 0; i < n; i++) {
        const char *name = list[i]->d_name;
        size_t len = strlen(dir) + strlen(name) + 2;
        char *path = rc ? NULL : malloc(len);
        if (!path && !rc)
            rc = fail("%s: out of memory", dir);
        if (path) {
            int slash = dir[strlen(dir) - 1] == '/';
            snprintf(path, len, "%s%s%s", dir, slash ? "" : "/", name);
            rc = add_entry(s, path, name, &here);
        }
        free(path);
        free(list[i]);
    }
    free(list);
    return rc;
}

/* ---- opening ----------------------------------------------------------------------------- */

static int add_any(source *s, const char *name)
{
    int kind = mr_path_kind(name);
    if (kind != MR_PATH_DIRECTORY)
        return kind < 0 ? -1 : add(s, name);
    if (is_store(name))
        return fail("%s: is a store, not data", name);
    size_t before = s->n;
    if (add_directory(s, name, NULL))
        return -1;
    return s->n > before ? 0 : fail("%s: is a directory without files", name);
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
    for (size_t i = 0; i < n; i++)
        if (add_any(s, files[i]))
            goto failed;
    if (follow && !s->files[s->n - 1].regular) {
        fail("%s: cannot be followed: only a file can, a pipe ends when its writer closes it",
             source_file_name(s, s->n - 1));
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
    unpacker_end(&s->unpacker);
}

void source_close(source *s)
{
    if (!s)
        return;
    file_close(s);
    unpacker_free(&s->unpacker);
    for (size_t i = 0; i < s->n; i++)
        free(s->files[i].name);
    free(s->left_out);
    memory_free(s->files);
    memory_free(s->raw);
    memory_free(s);
}

const char *source_first(const source *s)
{
    return s->files[0].name;
}

size_t source_count(const source *s)
{
    return s->n;
}

const char *source_path(const source *s, size_t file)
{
    return s->files[file].name;
}

void source_limit(source *s, const double *sizes, size_t n)
{
    for (size_t i = 0; i < MIN(n, s->n); i++)
        if (sizes[i] > 0 && s->files[i].size > sizes[i])
            s->files[i].limit = s->files[i].size = sizes[i];
}

void source_follow(source *s, int on)
{
    s->follow = on;
    s->at_end = 0;
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

double source_plain_size(const source *s)
{
    return s->packing == PLAIN ? s->files[s->next - 1].size : -1;
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

const char *source_once(const source *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (!s->files[i].regular)
            return source_file_name(s, i);
    return NULL;
}

size_t source_files(const source *s)
{
    return s->n;
}

const char *source_left_out(const source *s)
{
    return s->left_out ? s->left_out : "";
}

int source_rewind(source *s)
{
    file_close(s);
    if (s->used)
        return fail("%s: can be read only once", source_once(s));
    s->next = 0;
    s->bytes = s->offset = s->out = s->out_before = 0;
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

/* Whether a followed file that was read to its end now has another one in its place, which was begun:
 * 0 no, 1 yes, -1 it has shrunk. */
static int replaced(const source *s)
{
    struct stat open, named;
    if (fstat(s->fd, &open))
        return 0;
    if ((double)open.st_size < s->offset)
        return fail(
            "%s: has shrunk to %.0f bytes, %.0f were read already: it was truncated, and what "
            "was written to it since the last read is lost here. --from start goes on with "
            "what it has now",
            source_name(s), (double)open.st_size, s->offset);
    return !stat(s->files[s->next - 1].name, &named) && named.st_size > 0 &&
           (named.st_ino != open.st_ino || named.st_dev != open.st_dev);
}

/* Stored bytes, waiting for them: > 0, 0 at the end, or a code of source_read. */
static ssize_t stored(source *s, void *out, size_t len, double until)
{
    double limit = s->files[s->next - 1].limit;
    if (limit > 0 && (double)len > limit - s->offset)
        len = (size_t)(limit - s->offset);
    if (!len)
        return 0;
    for (int last = 0;;) {
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
        int other = replaced(s);
        if (other < 0)
            return -1;
        if (other && last)
            return 0;
        last = other; /* what was written to it until it was replaced comes first */
        if (other)
            continue;
        if (until > 0 && mr_clock() >= until)
            return SOURCE_WAITED;
        poll(NULL, 0, POLL_MS);
    }
}

/* More stored bytes into raw. */
static ssize_t refill(source *s, double until)
{
    if (s->head == s->tail) {
        s->head = s->tail = 0;
    } else if (s->tail == RAW) {
        memmove(s->raw, s->raw + s->head, s->tail - s->head);
        s->tail -= s->head;
        s->head = 0;
    }
    ssize_t got = stored(s, s->raw + s->tail, RAW - s->tail, until);
    if (got > 0)
        s->tail += (size_t)got;
    if (got == 0)
        s->at_end = 1;
    return got;
}

/* Fails if none of the files had a byte. */
static int all_empty(source *s)
{
    s->out_before += s->out;
    s->out = 0;
    if (s->out_before > 0 || source_once(s) || s->follow)
        return 0;
    return s->n == 1
               ? fail("%s: is empty", s->files[0].name)
               : fail("%s and %zu more files: all of them are empty", s->files[0].name, s->n - 1);
}

int source_next(source *s)
{
    file_close(s);
    if (s->next == s->n)
        return all_empty(s);
    file *f = &s->files[s->next++];
    s->out_before += s->out;
    s->offset = s->out = 0;
    s->head = s->tail = 0;
    s->at_end = 0;
    s->packing = PACKING_MORE;
    if (!f->regular)
        s->used = 1;
    if (is_stdin(f)) {
        s->fd = 0;
        return 1;
    }
    s->fd = open(f->name, O_RDONLY | O_CLOEXEC | (f->regular ? 0 : O_NONBLOCK));
    if (s->fd < 0)
        return fail("%s: cannot be read: %s", f->name, strerror(errno));
    if (f->regular)
        posix_fadvise(s->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return 1;
}

/* What the open file is packed with. */
static ssize_t detect(source *s, double until)
{
    int packing;
    while ((packing = packing_of(s->raw, s->tail)) == PACKING_MORE && !s->at_end) {
        ssize_t got = refill(s, until);
        if (got < 0)
            return got;
    }
    s->packing = packing == PACKING_MORE ? PLAIN : packing;
    if (s->packing == PLAIN)
        return 0;
    if (following(s))
        return fail("%s: a packed file cannot be followed", source_name(s));
    return unpacker_begin(&s->unpacker, s->packing, source_name(s));
}

static ssize_t unpack(source *s, void *out, size_t len, double until)
{
    unpacker *u = &s->unpacker;
    for (;;) {
        while (s->tail - s->head < unpacker_needs(u, s->raw + s->head, s->tail - s->head) &&
               !s->at_end) {
            ssize_t got = refill(s, until);
            if (got < 0)
                return got;
        }
        if (s->head == s->tail && s->at_end && !u->inside)
            return 0;
        size_t made, used;
        double at = s->offset - (double)(s->tail - s->head);
        if (unpacker_run(u, source_name(s), at, s->raw + s->head, s->tail - s->head, out, len,
                         &used, &made))
            return -1;
        s->head += used;
        if (made)
            return (ssize_t)made;
        if (!used && s->head == s->tail && s->at_end && u->inside)
            return fail("%s: is truncated: the %s data ends at byte %.0f in the middle of a %s",
                        source_name(s), s->packing == GZIP ? "gzip" : "zstd", s->offset,
                        s->packing == GZIP ? "member" : "frame");
    }
}

ssize_t source_read(source *s, void *out, size_t len, double until)
{
    ssize_t got = s->packing == PACKING_MORE ? detect(s, until) : 0;
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
    return got;
}

int64_t source_seek(source *s, int64_t n)
{
    file *f = &s->files[s->next - 1];
    if (!f->regular || n <= 0 || s->out > 0 || (s->packing == PACKING_MORE && detect(s, 0) < 0) ||
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

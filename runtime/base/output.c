/* output.c - files that are made. One is written without a name, or beside its place as
 * NAME.writing-PID, and takes the place once it is whole and synced: until then what was there stays as
 * it was, and there is never half of a file. Pipes, devices and standard output are written to as they
 * are. */
#include "base/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER = 1 << 18, LINKS = 40 };

struct mr_output {
    int fd, failed;
    int standard; /* fd is standard output or another descriptor that was open already */
    int beside;   /* takes the place of `target` at the end */
    int nameless; /* beside, and without a name so far */
    int signal;   /* that had come before it was opened */
    char path[PATH_SIZE], target[PATH_SIZE];
    char *buffer;
    size_t n;
    uint64_t len;
};

/* ---- where a path leads to ---- */

/* The descriptor that a path such as -, /dev/stdout or /dev/fd/3 stands for, or -1. */
static int path_descriptor(const char *path)
{
    static const char *const prefix[] = {"/dev/fd/", "/proc/self/fd/"};
    if (!strcmp(path, "-") || !strcmp(path, "/dev/stdout"))
        return STDOUT_FILENO;
    if (!strcmp(path, "/dev/stderr"))
        return STDERR_FILENO;
    for (int i = 0; i < 2; i++) {
        size_t len = strlen(prefix[i]);
        const char *digits = path + len;
        if (!strncmp(path, prefix[i], len) && *digits && strlen(digits) < 6 &&
            strspn(digits, "0123456789") == strlen(digits))
            return atoi(digits);
    }
    return -1;
}

/* What a path that may be a link, also to nothing, leads to. */
static int path_follow(const char *path, char target[PATH_SIZE])
{
    char link[PATH_SIZE], parent[PATH_SIZE];
    if (path_make(target, "%s", path))
        return -1;
    for (int i = 0; i < LINKS; i++) {
        ssize_t len = readlink(target, link, sizeof link - 1);
        if (len < 0)
            return 0;
        link[len] = 0;
        path_parent(target, parent);
        if (link[0] == '/' ? path_make(target, "%s", link)
                           : path_make(target, "%s/%s", parent, link))
            return -1;
    }
    return fail("%s: %s", path, strerror(ELOOP));
}

static int same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Whether a directory is one or lies in it, however deep. */
static int lies_in(const char *dir, const struct stat *outer)
{
    char real[PATH_SIZE];
    struct stat st;
    if (!realpath(dir, real))
        return 0;
    for (;;) {
        if (!stat(real, &st) && same(&st, outer))
            return 1;
        char *slash = strrchr(real, '/');
        if (!slash || !real[1])
            return 0;
        slash[slash == real] = 0;
    }
}

int mr_output_check(const char *path, const char *input, const char *what)
{
    struct stat in, out;
    char target[PATH_SIZE], parent[PATH_SIZE];
    int fd = path_descriptor(path);
    if (strcmp(input, "-") ? stat(input, &in) : fstat(STDIN_FILENO, &in))
        return 0;
    if (!S_ISREG(in.st_mode) && !S_ISDIR(in.st_mode))
        return 0;
    if (fd >= 0) {
        if (!fstat(fd, &out) && same(&in, &out))
            return fail("%s: is %s itself", fd == STDOUT_FILENO ? "standard output" : path, what);
        return 0;
    }
    if (path_follow(path, target))
        return -1;
    if (!stat(target, &out) && same(&in, &out))
        return fail("%s: is %s itself", path, what);
    if (!S_ISDIR(in.st_mode))
        return 0;
    for (path_parent(target, parent); stat(parent, &out); path_parent(target, parent)) {
        if (!strcmp(target, parent) || path_make(target, "%s", parent))
            return 0;
    }
    return lies_in(parent, &in) ? fail("%s: lies in %s, %s", path, what, input) : 0;
}

/* ---- writing ---- */

static int output_fail(mr_output *o, int why)
{
    o->failed = 1;
    return fail("%s: could not be written: %s", o->standard ? "standard output" : o->target,
                strerror(why));
}

void leftovers_remove(const char *target, const char *mark)
{
    char parent[PATH_SIZE], prefix[PATH_SIZE], path[PATH_SIZE];
    path_parent(target, parent);
    const char *slash = strrchr(target, '/');
    if (path_make(prefix, "%s.%s-", slash ? slash + 1 : target, mark))
        return;
    DIR *d = opendir(parent);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strncmp(e->d_name, prefix, strlen(prefix)))
            continue;
        char *end;
        long pid = strtol(e->d_name + strlen(prefix), &end, 10);
        if (pid > 0 && !*end && kill((pid_t)pid, 0) && errno == ESRCH &&
            !path_make(path, "%s/%s", parent, e->d_name))
            tree_remove(path);
    }
    if (d)
        closedir(d);
}

/* Opens a file that will take the place of o->target, of which st tells if it is there. */
static int open_beside(mr_output *o, const struct stat *st)
{
    char parent[PATH_SIZE];
    path_parent(o->target, parent);
    leftovers_remove(o->target, "writing");
    if (path_make(o->path, "%s.writing-%d", o->target, (int)getpid()))
        return -1;
    if (st && access(o->target, W_OK))
        return output_fail(o, errno);
    mode_t mode = st ? st->st_mode & 0777 : 0666;
    o->fd = open(parent, O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
    o->nameless = o->fd >= 0;
    if (o->fd < 0)
        o->fd = open(o->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (o->fd < 0)
        return output_fail(o, errno);
    if (st)
        fchmod(o->fd, mode);
    return 0;
}

static int open_path(mr_output *o, const char *path, int beside)
{
    struct stat st;
    int fd = path_descriptor(path);
    if (fd >= 0) {
        o->fd = fd;
        o->standard = 1;
        return path_make(o->target, "%s", fd == STDOUT_FILENO ? "standard output" : path);
    }
    if (path_follow(path, o->target))
        return -1;
    int there = !stat(o->target, &st);
    if (there && S_ISDIR(st.st_mode))
        return output_fail(o, EISDIR);
    o->beside = beside && (!there || S_ISREG(st.st_mode));
    if (o->beside)
        return open_beside(o, there ? &st : NULL);
    o->fd =
        open(o->target,
             O_WRONLY | (there && !S_ISREG(st.st_mode) ? 0 : O_CREAT | O_TRUNC) | O_CLOEXEC, 0666);
    return o->fd < 0 ? output_fail(o, errno) : path_make(o->path, "%s", o->target);
}

static void output_free(mr_output *o)
{
    if (o->fd >= 0 && !o->standard)
        close(o->fd);
    memory_free(o->buffer);
    memory_free(o);
}

static mr_output *output_new(const char *path, int beside)
{
    mr_output *o = memory_zero(sizeof *o);
    if (!o)
        return NULL;
    o->fd = -1;
    o->signal = mr_interrupted();
    o->buffer = memory_new(BUFFER);
    if (o->buffer && !open_path(o, path, beside))
        return o;
    output_free(o);
    return NULL;
}

mr_output *mr_output_open(const char *path)
{
    return output_new(path, 1);
}

mr_output *output_inside(const char *path)
{
    return output_new(path, 0);
}

static int write_all(mr_output *o, const char *bytes, size_t len)
{
    while (len) {
        ssize_t n = write(o->fd, bytes, len);
        if (n < 0 && errno == EINTR && mr_interrupted() == o->signal)
            continue;
        if (n <= 0)
            return output_fail(o, n ? errno : ENOSPC);
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

int mr_output_flush(mr_output *o)
{
    size_t n = o->n;
    o->n = 0;
    if (o->failed)
        return fail("%s: could not be written before", o->target);
    if (mr_interrupted() != o->signal) {
        o->failed = 1;
        return fail("%s: interrupted", o->target);
    }
    return write_all(o, o->buffer, n);
}

int mr_output_write(mr_output *o, const void *bytes, size_t len)
{
    if (o->n + len > BUFFER && mr_output_flush(o))
        return -1;
    o->len += len;
    if (len > BUFFER)
        return write_all(o, bytes, len);
    memcpy(o->buffer + o->n, bytes, len);
    o->n += len;
    return 0;
}

int output_over(mr_output *o, uint64_t at, const void *bytes, size_t len)
{
    if (mr_output_flush(o))
        return -1;
    ssize_t n = pwrite(o->fd, bytes, len, (off_t)at);
    return n == (ssize_t)len ? 0 : output_fail(o, n < 0 ? errno : ENOSPC);
}

uint64_t output_len(const mr_output *o)
{
    return o->len;
}

/* ---- the end ---- */

/* Gives a file without a name the one beside its place. */
static int give_name(mr_output *o)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", o->fd);
    unlink(o->path);
    if (linkat(AT_FDCWD, link, AT_FDCWD, o->path, AT_SYMLINK_FOLLOW))
        return output_fail(o, errno);
    o->nameless = 0;
    return 0;
}

static int take_place(mr_output *o)
{
    char parent[PATH_SIZE];
    if (o->nameless && give_name(o))
        return -1;
    if (rename(o->path, o->target))
        return output_fail(o, errno);
    o->beside = 0;
    path_parent(o->target, parent);
    return directory_sync(parent);
}

static void output_drop(mr_output *o)
{
    struct stat st;
    int made = !o->standard && !o->nameless && !lstat(o->path, &st) && S_ISREG(st.st_mode);
    if (made)
        unlink(o->path);
    output_free(o);
}

void mr_output_abort(mr_output *o)
{
    if (o)
        output_drop(o);
}

int mr_output_end(mr_output *o)
{
    struct stat st;
    int bad = mr_output_flush(o);
    int file = !o->standard && !fstat(o->fd, &st) && S_ISREG(st.st_mode);
    if (!bad && file && fsync(o->fd))
        bad = output_fail(o, errno);
    if (!bad && o->beside)
        bad = take_place(o);
    if (bad) {
        char why[900];
        snprintf(why, sizeof why, "%s", mr_error());
        output_drop(o);
        return fail("%s", why);
    }
    if (!o->standard) {
        int closed = close(o->fd);
        o->fd = -1;
        if (closed)
            bad = output_fail(o, errno);
    }
    output_free(o);
    return bad ? -1 : 0;
}

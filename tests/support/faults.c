/* faults.c - what can go wrong with files, from outside: a library for LD_PRELOAD. It stands
 * between a program and libc for every call that touches files below one directory, and fails
 * the n-th, kills the process at it, or has record.c keep what a loss of power would leave, from
 * which recover.c rebuilds the directory.
 *
 *   FAULTS_DIR     the directory, an absolute path; without it nothing is done
 *   FAULTS_PLAN    words, all optional:
 *     class=write|sync|open|read|name|any    the calls that count (any)
 *     nth=N          the call that is met, from 1; 0 (the default): none, they are only counted
 *     do=ENOSPC|EIO|short|kill|after         what happens: an error, half of a write, SIGKILL
 *                    before the call or after it (EIO)
 *     sticky         from that call on. A full disk (ENOSPC) still reads, and removes files
 *     match=TEXT     only calls whose path has TEXT in it
 *     readable=TEXT  reads of a path that has TEXT in it are not met, nor counted
 *     thread=NAME    only calls from threads of this name
 *     nosync         syncing is not handed on to the kernel: faster, and a killed process loses
 *                    nothing by it
 *   FAULTS_COUNTS  a file that is written to with `counts`, also when the process is killed
 *   FAULTS_RECORD  a directory for the record, on the same file system as FAULTS_DIR. It must
 *                  not exist: it is used up by recover.c
 *
 * faults_plan() replaces the plan while the program runs, and sets the counts to 0. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "record.h"

#define EXPORT __attribute__((visibility("default")))

enum { WRITE, SYNC, OPEN, READ, NAME, ANY, CLASSES };
enum { FAIL, SHORT, KILL, AFTER };
enum { FDS = 1 << 16, TEXT = 128 };

static const char *const class_name[CLASSES] = {"write", "sync", "open", "read", "name", "any"};

/* Shared with whoever reads the file: calls that matched, by class, and how often one was met. */
typedef struct counts {
    atomic_uint_least64_t calls[CLASSES];
    atomic_uint_least64_t met;
} counts;

typedef struct plan {
    int class, action, error, sticky, nosync;
    uint64_t nth;
    char match[TEXT], thread[TEXT], readable[TEXT];
} plan;

static char dir[PATH_MAX];
static size_t dir_len;
static pid_t owner; /* a child that was forked off records nothing and is not harmed */
static counts here, *count = &here;
static plan now;
static atomic_uchar inside_fd[FDS];

/* ---- the plan ---- */

EXPORT void faults_plan(const char *text);
EXPORT void faults_plan(const char *text)
{
    plan p = {.class = ANY, .error = EIO};
    char words[1024], *rest = words;
    snprintf(words, sizeof words, "%s", text ? text : "");
    for (char *word; (word = strsep(&rest, " "));) {
        char *value = strchr(word, '=');
        value = value ? value + 1 : word + strlen(word);
        if (!strncmp(word, "class=", 6)) {
            for (int i = 0; i < CLASSES; i++)
                if (!strcmp(value, class_name[i]))
                    p.class = i;
        } else if (!strncmp(word, "nth=", 4)) {
            p.nth = strtoull(value, NULL, 10);
        } else if (!strncmp(word, "do=", 3)) {
            p.action = !strcmp(value, "short")   ? SHORT
                       : !strcmp(value, "kill")  ? KILL
                       : !strcmp(value, "after") ? AFTER
                                                 : FAIL;
            p.error = !strcmp(value, "ENOSPC") ? ENOSPC : EIO;
        } else if (!strncmp(word, "match=", 6)) {
            snprintf(p.match, TEXT, "%s", value);
        } else if (!strncmp(word, "readable=", 9)) {
            snprintf(p.readable, TEXT, "%s", value);
        } else if (!strncmp(word, "thread=", 7)) {
            snprintf(p.thread, TEXT, "%s", value);
        } else if (!strcmp(word, "sticky")) {
            p.sticky = 1;
        } else if (!strcmp(word, "nosync")) {
            p.nosync = 1;
        } else if (*word) {
            dprintf(2, "faults: the plan has the word %s\n", word);
            _exit(99);
        }
    }
    record_lock();
    for (int i = 0; i < CLASSES; i++)
        atomic_store(&count->calls[i], 0);
    atomic_store(&count->met, 0);
    now = p;
    record_unlock();
}

static void die(void)
{
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

/* ---- paths and descriptors ---- */

/* Whether a path lies below the directory (or is it): the path made absolute, or NULL. */
static const char *below(int at, const char *path, char absolute[PATH_MAX])
{
    if (!dir_len || !path)
        return NULL;
    size_t len = 0;
    if (*path != '/') {
        char link[64];
        snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        ssize_t n = readlink(link, absolute, PATH_MAX - 2);
        if (n < 0)
            return NULL;
        absolute[n] = '/';
        len = (size_t)n + 1;
    }
    int made = snprintf(absolute + len, PATH_MAX - len, "%s", path);
    if (made < 0 || (size_t)made >= PATH_MAX - len)
        return NULL;
    len += (size_t)made;
    while (len > 1 && absolute[len - 1] == '/')
        absolute[--len] = 0;
    int is = len >= dir_len && !memcmp(absolute, dir, dir_len) &&
             (!absolute[dir_len] || absolute[dir_len] == '/');
    return is ? absolute : NULL;
}

static int inside(int fd)
{
    return fd >= 0 && fd < FDS && atomic_load_explicit(&inside_fd[fd], memory_order_relaxed) &&
           getpid() == owner;
}

static void mark(int fd, int is)
{
    if (fd >= 0 && fd < FDS)
        atomic_store_explicit(&inside_fd[fd], (unsigned char)is, memory_order_relaxed);
}

/* ---- meeting a call ---- */

static int wanted(const plan *p, int class, int fd, const char *path)
{
    char name[PATH_MAX];
    if (*p->thread) {
        prctl(PR_GET_NAME, name);
        if (strcmp(name, p->thread))
            return 0;
    }
    const char *unwanted = class == READ ? p->readable : "";
    if (!*p->match && !*unwanted)
        return 1;
    if (!path) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, name, sizeof name - 1);
        if (n < 0)
            return 0;
        name[n] = 0;
        path = name;
    }
    return strstr(path, p->match) && !(*unwanted && strstr(path, unwanted));
}

/* Counts a call. Returns 0: go on; an errno; or -1: go on, but only half of it (short) or not for
 * long (after), as the plan's action says. */
static int meet(int class, int fd, const char *path, int frees)
{
    const plan *p = &now;
    if (!wanted(p, class, fd, path))
        return 0;
    int saved = errno;
    uint64_t n = atomic_fetch_add(&count->calls[class], 1) + 1;
    uint64_t any = atomic_fetch_add(&count->calls[ANY], 1) + 1;
    uint64_t at = p->class == ANY ? any : n;
    errno = saved;
    if (!p->nth || (p->class != ANY && p->class != class) ||
        !(at == p->nth || (p->sticky && at > p->nth)))
        return 0;
    if (frees && p->action == FAIL && p->error == ENOSPC)
        return 0;
    atomic_fetch_add(&count->met, 1);
    if (p->action == KILL)
        die();
    return p->action == FAIL ? p->error : -1;
}

static int meet_fails(int met)
{
    if (met > 0)
        errno = met;
    return met > 0;
}

static void meet_after(int met)
{
    if (met < 0 && now.action == AFTER)
        die();
}

static size_t meet_len(int met, size_t len)
{
    return met < 0 && now.action == SHORT && len > 1 ? len / 2 : len;
}

static void begin(void)
{
    record_lock();
}

/* Leaves errno as the call left it. */
static void end(int met)
{
    record_unlock();
    meet_after(met);
}

/* ---- the start ---- */

__attribute__((constructor)) static void start(void)
{
    const char *d = getenv("FAULTS_DIR"), *c = getenv("FAULTS_COUNTS"),
               *r = getenv("FAULTS_RECORD");
    if (!d)
        return;
    owner = getpid();
    if (c) {
        int fd = raw_open(c, O_RDWR | O_CREAT);
        void *p = fd < 0 || syscall(SYS_ftruncate, fd, (off_t)sizeof(counts))
                      ? MAP_FAILED
                      : mmap(NULL, sizeof(counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            dprintf(2, "faults: %s: %s\n", c, strerror(errno));
            _exit(99);
        }
        count = p;
        syscall(SYS_close, fd);
    }
    faults_plan(getenv("FAULTS_PLAN"));
    snprintf(dir, sizeof dir, "%s", d);
    if (r)
        record_start(dir, r);
    dir_len = strlen(dir);
}

/* ---- writes ---- */

#define CALL_FD(type, class, fd, raw, changes)                                                     \
    do {                                                                                           \
        if (!inside(fd))                                                                           \
            return (type)(raw);                                                                    \
        int met = meet(class, fd, NULL, (class) == READ);                                          \
        if (meet_fails(met))                                                                       \
            return -1;                                                                             \
        n = meet_len(met, n);                                                                      \
        begin();                                                                                   \
        if ((changes) && recording())                                                              \
            record_changing_fd(fd);                                                                \
        type result = (type)(raw);                                                                 \
        int error = errno;                                                                         \
        end(met);                                                                                  \
        errno = error;                                                                             \
        return result;                                                                             \
    } while (0)

EXPORT ssize_t write(int fd, const void *bytes, size_t n)
{
    CALL_FD(ssize_t, WRITE, fd, syscall(SYS_write, fd, bytes, n), 1);
}

EXPORT ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at)
{
    CALL_FD(ssize_t, WRITE, fd, syscall(SYS_pwrite64, fd, bytes, n, at), 1);
}

EXPORT ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at)
{
    CALL_FD(ssize_t, WRITE, fd, syscall(SYS_pwrite64, fd, bytes, n, at), 1);
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count_of_parts)
{
    size_t n = (size_t)count_of_parts;
    CALL_FD(ssize_t, WRITE, fd, syscall(SYS_writev, fd, parts, (int)n), 1);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int count_of_parts, off_t at)
{
    size_t n = (size_t)count_of_parts;
    CALL_FD(ssize_t, WRITE, fd, syscall(SYS_pwritev, fd, parts, (int)n, at, 0), 1);
}

EXPORT ssize_t pwritev64(int fd, const struct iovec *parts, int count_of_parts, off64_t at)
{
    size_t n = (size_t)count_of_parts;
    CALL_FD(ssize_t, WRITE, fd, syscall(SYS_pwritev, fd, parts, (int)n, at, 0), 1);
}

EXPORT int ftruncate(int fd, off_t len)
{
    size_t n = 0;
    CALL_FD(int, WRITE, fd, syscall(SYS_ftruncate, fd, len), 1);
}

EXPORT int ftruncate64(int fd, off64_t len)
{
    size_t n = 0;
    CALL_FD(int, WRITE, fd, syscall(SYS_ftruncate, fd, len), 1);
}

EXPORT int fallocate(int fd, int mode, off_t at, off_t len)
{
    size_t n = 0;
    CALL_FD(int, WRITE, fd, syscall(SYS_fallocate, fd, mode, at, len), 1);
}

EXPORT int fallocate64(int fd, int mode, off64_t at, off64_t len)
{
    size_t n = 0;
    CALL_FD(int, WRITE, fd, syscall(SYS_fallocate, fd, mode, at, len), 1);
}

/* Returns its error. */
EXPORT int posix_fallocate(int fd, off_t at, off_t len)
{
    return fallocate(fd, 0, at, len) ? errno : 0;
}

EXPORT int posix_fallocate64(int fd, off64_t at, off64_t len)
{
    return fallocate(fd, 0, at, len) ? errno : 0;
}

/* ---- reads ---- */

EXPORT ssize_t read(int fd, void *bytes, size_t n)
{
    CALL_FD(ssize_t, READ, fd, syscall(SYS_read, fd, bytes, n), 0);
}

EXPORT ssize_t pread(int fd, void *bytes, size_t n, off_t at)
{
    CALL_FD(ssize_t, READ, fd, syscall(SYS_pread64, fd, bytes, n, at), 0);
}

EXPORT ssize_t pread64(int fd, void *bytes, size_t n, off64_t at)
{
    CALL_FD(ssize_t, READ, fd, syscall(SYS_pread64, fd, bytes, n, at), 0);
}

/* RocksDB reads its manifest through these; what they return is less than asked for, at no end. */
#define CALL_STREAM(name)                                                                          \
    EXPORT size_t name(void *bytes, size_t size, size_t n, FILE *file)                             \
    {                                                                                              \
        static size_t (*real)(void *, size_t, size_t, FILE *);                                     \
        if (!real)                                                                                 \
            *(void **)&real = dlsym(RTLD_NEXT, #name);                                             \
        int met = inside(fileno(file)) ? meet(READ, fileno(file), NULL, 1) : 0;                    \
        if (meet_fails(met))                                                                       \
            return 0;                                                                              \
        size_t result = real(bytes, size, n, file);                                                \
        meet_after(met);                                                                           \
        return result;                                                                             \
    }
#undef fread_unlocked
CALL_STREAM(fread)
CALL_STREAM(fread_unlocked)

/* ---- syncing ---- */

static int sync_fd(int fd, long call)
{
    if (!inside(fd))
        return (int)syscall(call, fd);
    int met = meet(SYNC, fd, NULL, 0);
    if (meet_fails(met))
        return -1;
    begin();
    int result = now.nosync ? 0 : (int)syscall(call, fd), error = errno;
    if (!result && recording())
        record_synced(fd);
    end(met);
    errno = error;
    return result;
}

EXPORT int fsync(int fd)
{
    return sync_fd(fd, SYS_fsync);
}

EXPORT int fdatasync(int fd)
{
    return sync_fd(fd, SYS_fdatasync);
}

/* Makes nothing durable: it leaves out what says where the bytes are. Without flags it does nothing
 * and does not fail: RocksDB asks so whether there is such a call. */
EXPORT int sync_file_range(int fd, off64_t at, off64_t len, unsigned flags)
{
    if (!flags)
        return (int)syscall(SYS_sync_file_range, fd, at, len, flags);
    size_t n = 0;
    CALL_FD(int, SYNC, fd, now.nosync ? 0 : syscall(SYS_sync_file_range, fd, at, len, flags), 0);
}

/* ---- opening and closing ---- */

static int open_at(int at, const char *path, int flags, mode_t mode)
{
    char absolute[PATH_MAX];
    const char *full = getpid() == owner ? below(at, path, absolute) : NULL;
    if (!full) {
        int fd = (int)syscall(SYS_openat, at, path, flags, mode);
        mark(fd, 0);
        return fd;
    }
    if (recording() && (flags & O_TMPFILE) == O_TMPFILE) { /* files are recorded by their names */
        errno = EOPNOTSUPP;
        return -1;
    }
    int met = meet(OPEN, -1, full, !(flags & O_CREAT));
    if (meet_fails(met))
        return -1;
    begin();
    struct stat st;
    int was = !stat(full, &st);
    if (recording() && was && (flags & O_TRUNC) && S_ISREG(st.st_mode) && st.st_size)
        record_changing(st.st_ino);
    int fd = (int)syscall(SYS_openat, at, path, flags, mode), error = errno;
    mark(fd, 1);
    if (recording() && fd >= 0 && !was)
        record_added(full, 1);
    end(met);
    errno = error;
    return fd;
}

static mode_t mode_of(int flags, va_list args)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
}

#define OPEN_WITH_MODE(at)                                                                         \
    va_list args;                                                                                  \
    va_start(args, flags);                                                                         \
    mode_t mode = mode_of(flags, args);                                                            \
    va_end(args);                                                                                  \
    return open_at(at, path, flags, mode)

EXPORT int open(const char *path, int flags, ...)
{
    OPEN_WITH_MODE(AT_FDCWD);
}

EXPORT int open64(const char *path, int flags, ...)
{
    OPEN_WITH_MODE(AT_FDCWD);
}

EXPORT int openat(int at, const char *path, int flags, ...)
{
    OPEN_WITH_MODE(at);
}

EXPORT int openat64(int at, const char *path, int flags, ...)
{
    OPEN_WITH_MODE(at);
}

EXPORT int creat(const char *path, mode_t mode)
{
    return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

EXPORT DIR *opendir(const char *path)
{
    static DIR *(*real)(const char *);
    char absolute[PATH_MAX];
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "opendir");
    const char *full = getpid() == owner ? below(AT_FDCWD, path, absolute) : NULL;
    int met = full ? meet(OPEN, -1, full, 1) : 0;
    if (meet_fails(met))
        return NULL;
    DIR *d = real(path);
    int error = errno;
    meet_after(met);
    errno = error;
    return d;
}

EXPORT int close(int fd)
{
    mark(fd, 0);
    return (int)syscall(SYS_close, fd);
}

EXPORT int fclose(FILE *file)
{
    static int (*real)(FILE *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "fclose");
    mark(fileno(file), 0);
    return real(file);
}

/* ---- names ---- */

static int link_at(int at, const char *from, int to_at, const char *to, int flags)
{
    char absolute[PATH_MAX];
    const char *full = getpid() == owner ? below(to_at, to, absolute) : NULL;
    if (!full)
        return (int)syscall(SYS_linkat, at, from, to_at, to, flags);
    int met = meet(NAME, -1, full, 0);
    if (meet_fails(met))
        return -1;
    begin();
    int result = (int)syscall(SYS_linkat, at, from, to_at, to, flags), error = errno;
    if (!result && recording())
        record_added(full, 0);
    end(met);
    errno = error;
    return result;
}

EXPORT int link(const char *from, const char *to)
{
    return link_at(AT_FDCWD, from, AT_FDCWD, to, 0);
}

EXPORT int linkat(int at, const char *from, int to_at, const char *to, int flags)
{
    return link_at(at, from, to_at, to, flags);
}

static int rename_at(int at, const char *from, int to_at, const char *to, unsigned flags)
{
    char absolute[PATH_MAX], other[PATH_MAX];
    const char *source = getpid() == owner ? below(at, from, absolute) : NULL;
    const char *target = source ? below(to_at, to, other) : NULL;
    if (!target)
        return (int)syscall(SYS_renameat2, at, from, to_at, to, flags);
    int met = meet(NAME, -1, target, 0);
    if (meet_fails(met))
        return -1;
    begin();
    const char *source_name, *target_name;
    unsigned long long number = number_of(source);
    unsigned long long source_dir = parent_of(source, &source_name);
    unsigned long long target_dir = parent_of(target, &target_name);
    int result = (int)syscall(SYS_renameat2, at, from, to_at, to, flags), error = errno;
    if (!result && recording())
        record_say("mov %llu %s %llu %s %llu\n", source_dir, source_name, target_dir, target_name,
                   number);
    end(met);
    errno = error;
    return result;
}

EXPORT int rename(const char *from, const char *to)
{
    return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0);
}

EXPORT int renameat(int at, const char *from, int to_at, const char *to)
{
    return rename_at(at, from, to_at, to, 0);
}

EXPORT int renameat2(int at, const char *from, int to_at, const char *to, unsigned flags)
{
    return rename_at(at, from, to_at, to, flags);
}

static int unlink_at(int at, const char *path, int flags)
{
    char absolute[PATH_MAX];
    const char *full = getpid() == owner ? below(at, path, absolute) : NULL;
    if (!full)
        return (int)syscall(SYS_unlinkat, at, path, flags);
    int met = meet(NAME, -1, full, 1);
    if (meet_fails(met))
        return -1;
    begin();
    const char *name;
    unsigned long long number = number_of(full), parent = parent_of(full, &name);
    int result = (int)syscall(SYS_unlinkat, at, path, flags), error = errno;
    if (!result && recording())
        record_say("del %llu %s %llu\n", parent, name, number);
    end(met);
    errno = error;
    return result;
}

EXPORT int unlink(const char *path)
{
    return unlink_at(AT_FDCWD, path, 0);
}

EXPORT int unlinkat(int at, const char *path, int flags)
{
    return unlink_at(at, path, flags);
}

EXPORT int rmdir(const char *path)
{
    return unlink_at(AT_FDCWD, path, AT_REMOVEDIR);
}

static int mkdir_at(int at, const char *path, mode_t mode)
{
    char absolute[PATH_MAX];
    const char *full = getpid() == owner ? below(at, path, absolute) : NULL;
    if (!full)
        return (int)syscall(SYS_mkdirat, at, path, mode);
    int met = meet(NAME, -1, full, 0);
    if (meet_fails(met))
        return -1;
    begin();
    int result = (int)syscall(SYS_mkdirat, at, path, mode), error = errno;
    if (!result && recording())
        record_added(full, 1);
    end(met);
    errno = error;
    return result;
}

EXPORT int mkdir(const char *path, mode_t mode)
{
    return mkdir_at(AT_FDCWD, path, mode);
}

EXPORT int mkdirat(int at, const char *path, mode_t mode)
{
    return mkdir_at(at, path, mode);
}

EXPORT int truncate(const char *path, off_t len)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int bad = fd < 0 || ftruncate(fd, len), error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    return bad ? -1 : 0;
}

EXPORT int remove(const char *path)
{
    struct stat st;
    return !lstat(path, &st) && S_ISDIR(st.st_mode) ? rmdir(path) : unlink(path);
}

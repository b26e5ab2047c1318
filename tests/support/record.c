/* record.c - see record.h. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "record.h"

enum { INODES = 1 << 16 };
enum { UNKNOWN, CLEAN, CHANGED };

static struct {
    ino_t number;
    int state;
} inode[INODES];

static char record[PATH_MAX];
static int journal = -1;
static unsigned saves;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int *inode_state(ino_t number)
{
    size_t i = (size_t)(number * 0x9e3779b97f4a7c15ull >> 48) % INODES;
    for (size_t tried = 0; inode[i].number && inode[i].number != number; i = (i + 1) % INODES)
        if (++tried == INODES - 1) {
            dprintf(2, "faults: more than %d files\n", INODES);
            _exit(99);
        }
    inode[i].number = number;
    return &inode[i].state;
}

void record_say(const char *format, ...)
{
    char line[3 * PATH_MAX];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (syscall(SYS_write, journal, line, (size_t)len) != len) {
        dprintf(2, "faults: the record could not be written\n");
        _exit(99);
    }
}

static void record_path(char path[PATH_MAX], const char *kind, uint64_t n)
{
    snprintf(path, PATH_MAX, "%.*s/%s/%llu", PATH_MAX - 64, record, kind, (unsigned long long)n);
}

int raw_open(const char *path, int flags)
{
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0666);
}

ino_t number_of(const char *path)
{
    struct stat st;
    return lstat(path, &st) ? 0 : st.st_ino;
}

ino_t parent_of(const char *path, const char **name)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    *name = slash + 1;
    snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
    return number_of(parent);
}

/* Keeps the inode of a path, so that its number stays its own. */
static void keep(const char *path, ino_t number, int is_dir)
{
    char link[PATH_MAX];
    if (is_dir) {
        raw_open(path, O_RDONLY | O_DIRECTORY); /* never closed */
        return;
    }
    record_path(link, "inode", number);
    if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, link, 0) && errno != EEXIST) {
        dprintf(2, "faults: %s could not be linked: %s\n", path, strerror(errno));
        _exit(99);
    }
}

static void copy(const char *from, const char *to)
{
    static char block[1 << 16];
    int in = raw_open(from, O_RDONLY), out = raw_open(to, O_WRONLY | O_CREAT | O_TRUNC);
    ssize_t n = in < 0 || out < 0 ? -1 : 1;
    while (n > 0 && (n = syscall(SYS_read, in, block, sizeof block)) > 0)
        if (syscall(SYS_write, out, block, (size_t)n) != n)
            n = -1;
    if (n < 0) {
        dprintf(2, "faults: %s could not be copied\n", from);
        _exit(99);
    }
    syscall(SYS_close, in);
    syscall(SYS_close, out);
}

void record_changing(ino_t number)
{
    char from[PATH_MAX], to[PATH_MAX];
    int *state = inode_state(number);
    if (*state != CLEAN)
        return;
    record_path(from, "inode", number);
    record_path(to, "saved", saves);
    copy(from, to);
    record_say("old %llu %u\n", (unsigned long long)number, saves++);
    *state = CHANGED;
}

void record_changing_fd(int fd)
{
    struct stat st;
    if (!fstat(fd, &st))
        record_changing(st.st_ino);
}

void record_synced(int fd)
{
    struct stat st;
    if (fstat(fd, &st))
        return;
    int *state = inode_state(st.st_ino);
    if (S_ISDIR(st.st_mode) || *state != CLEAN)
        record_say("syn %llu\n", (unsigned long long)st.st_ino);
    *state = CLEAN;
}

void record_added(const char *path, int is_new)
{
    struct stat st;
    const char *name;
    ino_t parent = parent_of(path, &name);
    if (lstat(path, &st))
        return;
    unsigned long long number = st.st_ino;
    if (is_new) {
        keep(path, st.st_ino, S_ISDIR(st.st_mode));
        record_say(S_ISDIR(st.st_mode) ? "dir %llu\n" : "new %llu\n", number);
        *inode_state(st.st_ino) = CHANGED;
    }
    record_say("add %llu %s %llu\n", (unsigned long long)parent, name, number);
}

/* What is there at the start is durable. */
static void record_tree(const char *path, ino_t number)
{
    DIR *(*open_dir)(const char *) = NULL;
    *(void **)&open_dir = dlsym(RTLD_NEXT, "opendir");
    record_say("dir %llu\n", (unsigned long long)number);
    keep(path, number, 1);
    DIR *d = open_dir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        char inner[PATH_MAX];
        struct stat st;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        snprintf(inner, sizeof inner, "%.3000s/%s", path, e->d_name);
        if (lstat(inner, &st))
            continue;
        record_say("has %llu %s %llu\n", (unsigned long long)number, e->d_name,
                   (unsigned long long)st.st_ino);
        *inode_state(st.st_ino) = CLEAN;
        if (S_ISDIR(st.st_mode))
            record_tree(inner, st.st_ino);
        else
            keep(inner, st.st_ino, 0);
    }
    if (d)
        closedir(d);
}

void record_start(const char *root, const char *to)
{
    snprintf(record, sizeof record, "%s", to);
    char path[PATH_MAX];
    if (syscall(SYS_mkdirat, AT_FDCWD, record, 0777)) {
        dprintf(2, "faults: the record %s: %s\n", record, strerror(errno));
        _exit(99);
    }
    snprintf(path, sizeof path, "%.*s/inode", PATH_MAX - 64, record);
    syscall(SYS_mkdirat, AT_FDCWD, path, 0777);
    snprintf(path, sizeof path, "%.*s/saved", PATH_MAX - 64, record);
    syscall(SYS_mkdirat, AT_FDCWD, path, 0777);
    snprintf(path, sizeof path, "%.*s/journal", PATH_MAX - 64, record);
    journal = raw_open(path, O_WRONLY | O_CREAT | O_APPEND);
    record_say("root %llu\n", (unsigned long long)number_of(root));
    record_tree(root, number_of(root));
}

int recording(void)
{
    return journal >= 0;
}

void record_lock(void)
{
    if (recording())
        pthread_mutex_lock(&lock);
}

void record_unlock(void)
{
    if (recording())
        pthread_mutex_unlock(&lock);
}

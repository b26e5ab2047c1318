/* file.c - files and directories that must survive a crash. A change is durable once the file and
 * the directory that holds its name are both synced. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"

int path_make(char path[PATH_SIZE], const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(path, PATH_SIZE, format, args);
    va_end(args);
    return len < 0 || len >= PATH_SIZE ? fail("%.60s...: the path is too long", path) : 0;
}

void path_parent(const char *path, char parent[PATH_SIZE])
{
    snprintf(parent, PATH_SIZE, "%s", path);
    char *slash = strrchr(parent, '/');
    if (!slash)
        strcpy(parent, ".");
    else
        slash[slash == parent] = 0;
}

static int is_dots(const char *name)
{
    return !strcmp(name, ".") || !strcmp(name, "..");
}

int directory_empty(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d)
        return errno == ENOENT ? 1 : fail("%s: %s", dir, strerror(errno));
    int files = 0;
    for (struct dirent *e; (e = readdir(d));)
        files += !is_dots(e->d_name);
    closedir(d);
    return files == 0;
}

static int sync_path(const char *path, int flags)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    int bad = fd < 0 || fsync(fd), why = errno;
    if (fd >= 0)
        close(fd);
    return bad ? fail("%s: could not be synced: %s", path, strerror(why)) : 0;
}

int directory_sync(const char *dir)
{
    return sync_path(dir, O_DIRECTORY);
}

int directory_make(const char *dir)
{
    struct stat st;
    if (!stat(dir, &st))
        return S_ISDIR(st.st_mode) ? 0 : fail("%s: is not a directory", dir);
    char parent[PATH_SIZE];
    path_parent(dir, parent);
    if (directory_make(parent))
        return -1;
    if (mkdir(dir, 0777) && errno != EEXIST)
        return fail("%s: could not be made: %s", dir, strerror(errno));
    return directory_sync(parent);
}

static int write_all(int fd, const char *bytes, size_t len)
{
    while (len) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

int file_write(const char *path, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int bad = fd < 0 || write_all(fd, bytes, len) || fsync(fd), why = errno;
    if (fd >= 0 && close(fd) && !bad) {
        bad = 1;
        why = errno;
    }
    return bad ? fail("%s: could not be written: %s", path, strerror(why)) : 0;
}

void *file_read(const char *path, size_t *len)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *bytes = NULL;
    if (fd < 0 || fstat(fd, &st))
        fail("%s: could not be opened: %s", path, strerror(errno));
    else
        bytes = memory_new((size_t)st.st_size);
    for (*len = 0; bytes && *len < (size_t)st.st_size;) {
        ssize_t n = read(fd, bytes + *len, (size_t)st.st_size - *len);
        if (n > 0) {
            *len += (size_t)n;
        } else if (n == 0 || errno != EINTR) {
            fail("%s: could not be read: %s", path, n ? strerror(errno) : "it became shorter");
            memory_free(bytes);
            bytes = NULL;
        }
    }
    if (fd >= 0)
        close(fd);
    return bytes;
}

int64_t file_ends(const char *path, size_t len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail("%s: could not be opened: %s", path, strerror(errno));
    off_t size = lseek(fd, 0, SEEK_END);
    int bad = size < 0;
    char block[16384];
    for (size_t at = 0; !bad && at < len && (off_t)at < size; at += sizeof block)
        bad = pread(fd, block, sizeof block, (off_t)at) < 0 ||
              pread(fd, block, sizeof block,
                    size > (off_t)len ? size - (off_t)len + (off_t)at : 0) < 0;
    int why = errno;
    close(fd);
    return bad ? fail("%s: could not be read: %s", path, strerror(why)) : size;
}

const char *mr_path_absolute(const char *path)
{
    static _Thread_local char absolute[PATH_SIZE];
    char here[PATH_SIZE];
    while (!strncmp(path, "./", 2))
        for (path += 2; *path == '/';)
            path++;
    if (*path != '/' && !getcwd(here, sizeof here)) {
        fail("%s: the working directory is not known: %s", path, strerror(errno));
        return NULL;
    }
    int bad = *path == '/' ? path_make(absolute, "%s", path)
                           : path_make(absolute, "%s/%s", strcmp(here, "/") ? here : "", path);
    return bad ? NULL : absolute;
}

double mr_path_bytes(const char *path)
{
    struct stat st;
    if (stat(path, &st))
        return fail("%s: %s", path, strerror(errno));
    return S_ISREG(st.st_mode) ? (double)st.st_size : 0;
}

int file_want(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail("%s: could not be opened: %s", path, strerror(errno));
    posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
    close(fd);
    return 0;
}

int tree_remove(const char *path)
{
    if (!unlink(path) || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return fail("%s: could not be removed: %s", path, strerror(errno));
    DIR *d = opendir(path);
    if (!d)
        return fail("%s: could not be removed: %s", path, strerror(errno));
    int bad = 0;
    for (struct dirent *e; !bad && (e = readdir(d));) {
        char inner[PATH_SIZE];
        if (!is_dots(e->d_name))
            bad = path_make(inner, "%s/%s", path, e->d_name) || tree_remove(inner) ? -1 : 0;
    }
    closedir(d);
    if (!bad && rmdir(path))
        bad = fail("%s: could not be removed: %s", path, strerror(errno));
    return bad;
}

int tree_sync(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return errno == ENOTDIR ? sync_path(path, 0) : fail("%s: %s", path, strerror(errno));
    int bad = 0;
    for (struct dirent *e; !bad && (e = readdir(d));) {
        char inner[PATH_SIZE];
        if (!is_dots(e->d_name))
            bad = path_make(inner, "%s/%s", path, e->d_name) || tree_sync(inner) ? -1 : 0;
    }
    closedir(d);
    return bad ? -1 : directory_sync(path);
}

int file_copy(const char *from, const char *to)
{
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return fail("%s: %s", from, strerror(errno));
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    int bad = out < 0 ? fail("%s: could not be made: %s", to, strerror(errno)) : 0;
    char block[16384];
    for (ssize_t n = 1; !bad && n;) {
        n = read(in, block, sizeof block);
        if (n < 0)
            bad = fail("%s: %s", from, strerror(errno));
        else if (write_all(out, block, (size_t)n))
            bad = fail("%s: could not be written: %s", to, strerror(errno));
    }
    close(in);
    if (out >= 0 && close(out) && !bad)
        bad = fail("%s: could not be written: %s", to, strerror(errno));
    return bad;
}

int file_link(const char *from, const char *to)
{
    if (!link(from, to))
        return 0;
    if (errno == EXDEV || errno == EPERM || errno == EMLINK || errno == EOPNOTSUPP)
        return file_copy(from, to);
    return fail("%s: could not be linked: %s", from, strerror(errno));
}

int tree_copy(const char *from, const char *to, const char *shared)
{
    if (mkdir(to, 0777))
        return fail("%s: could not be made: %s", to, strerror(errno));
    DIR *d = opendir(from);
    if (!d)
        return fail("%s: %s", from, strerror(errno));
    int bad = 0;
    for (struct dirent *e; !bad && (e = readdir(d));) {
        char source[PATH_SIZE], target[PATH_SIZE];
        struct stat st;
        if (is_dots(e->d_name))
            continue;
        if (path_make(source, "%s/%s", from, e->d_name) ||
            path_make(target, "%s/%s", to, e->d_name) || stat(source, &st)) {
            bad = -1;
        } else if (S_ISREG(st.st_mode)) {
            size_t len = strlen(e->d_name), end = strlen(shared);
            int linked = len >= end && !strcmp(e->d_name + len - end, shared);
            bad = linked ? file_link(source, target) : file_copy(source, target);
        }
    }
    closedir(d);
    return bad;
}

/* store.c - making, opening and closing a store; store.h has the layout.
 *
 * Opening reads and checks everything before it changes anything. The lock is one of an open file
 * description (not of a process), so that a second opening in the same process is refused too, and
 * a reader can ask for it without taking it. */
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_TRIES = 200, READ_TRIES_ALONE = 3, READ_PAUSE_US = 20000 };

/* ---- the lock ---- */

static struct flock whole_file(void)
{
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
}

/* Locks DIR/LOCK: the descriptor, or -1 after fail(). */
static int lock_take(const char *dir)
{
    char path[PATH_SIZE], pid[32] = "";
    if (path_make(path, "%s/LOCK", dir))
        return -1;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return fail("store %s: LOCK could not be opened: %s", dir, strerror(errno));
    struct flock lock = whole_file();
    if (!fcntl(fd, F_OFD_SETLK, &lock))
        return fd;
    int why = errno;
    ssize_t len = pread(fd, pid, sizeof pid - 1, 0);
    close(fd);
    if (why != EAGAIN && why != EACCES)
        return fail("store %s: LOCK could not be locked: %s", dir, strerror(why));
    pid[len > 0 ? len : 0] = 0;
    pid[strspn(pid, "0123456789")] = 0;
    return fail(
        "store %s: process %s is writing to it; only one process may. Wait until it ends, or "
        "use another directory",
        dir, *pid ? pid : "(not known yet)");
}

static int lock_sign(const mr_store *s)
{
    char pid[32];
    int len = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    if (ftruncate(s->lock, 0) || pwrite(s->lock, pid, (size_t)len, 0) != len)
        return fail("store %s: LOCK could not be written: %s", s->dir, strerror(errno));
    return 0;
}

/* Whether another process holds DIR/LOCK; -1: there is none. */
static int lock_held(const char *dir)
{
    char path[PATH_SIZE];
    if (path_make(path, "%s/LOCK", dir))
        return -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    struct flock lock = whole_file();
    int held = !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
    close(fd);
    return held;
}

/* ---- making ---- */

void creations_clean(const char *dir)
{
    char parent[PATH_SIZE], prefix[PATH_SIZE], path[PATH_SIZE];
    path_parent(dir, parent);
    const char *slash = strrchr(dir, '/');
    if (path_make(prefix, "%s.creating-", slash ? slash + 1 : dir))
        return;
    DIR *d = opendir(parent);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strncmp(e->d_name, prefix, strlen(prefix)))
            continue;
        pid_t pid = (pid_t)strtol(e->d_name + strlen(prefix), NULL, 10);
        if (pid <= 0 || path_make(path, "%s/%s", parent, e->d_name))
            continue;
        if (lock_held(path) <= 0 && kill(pid, 0) && errno == ESRCH)
            tree_remove(path);
    }
    if (d)
        closedir(d);
}

/* Fills the new directory with a database whose log holds commit 0. */
static int creation_fill(mr_store *s, const char *dir)
{
    char path[PATH_SIZE], file[PATH_SIZE], *message = NULL;
    commit first = {.s = s, .mark = {0, 0, (uint64_t)(mr_clock_wall() * 1e6), "db-1"}};
    database d = {NULL, NULL};
    if (path_make(path, "%s/db-1", dir) || path_make(file, "%s/state.sst", dir))
        return -1;
    if ((message = state_file_write(&first, file)))
        return database_fail(s, "could not be made", message);
    rocksdb_options_set_create_if_missing(s->options, 1);
    d.db = rocksdb_open(s->options, path, &message);
    rocksdb_options_set_create_if_missing(s->options, 0);
    if (message)
        return database_fail(s, "could not be made", message);
    message = database_ingest(d, (const char *[]){file}, 1);
    database_close(&d);
    if (message)
        return database_fail(s, "could not be made", message);
    return tree_remove(file) || tree_sync(dir) || commit_file_write(dir, &first.mark) ? -1 : 0;
}

/* A store is made beside its place and renamed into it: there is never half of one. */
static int store_create(mr_store *s)
{
    char parent[PATH_SIZE], beside[PATH_SIZE], target[PATH_SIZE];
    char *real = realpath(s->dir, NULL); /* an empty directory, perhaps behind a link */
    int bad = path_make(target, "%s", real ? real : s->dir), existed = real != NULL;
    free(real);
    path_parent(target, parent);
    if (bad || directory_make(parent))
        return -1;
    creations_clean(target);
    if (path_make(beside, "%s.creating-%d", target, (int)getpid()) || tree_remove(beside))
        return -1;
    if (mkdir(beside, 0777))
        return fail("store %s: could not be made: %s", s->dir, strerror(errno));
    s->lock = lock_take(beside);
    bad = s->lock < 0 || creation_fill(s, beside);
    if (!bad && rename(beside, target)) {
        int why = errno;
        if (why == ENOTEMPTY || why == EEXIST) { /* another process made it meanwhile */
            close(s->lock);
            s->lock = -1;
            return tree_remove(beside);
        }
        bad = fail("store %s: could not be made: %s", s->dir, strerror(why));
    }
    if (!bad) {
        s->made = existed ? 2 : 1;
        return directory_sync(parent);
    }
    char why[900];
    snprintf(why, sizeof why, "%s", mr_error());
    tree_remove(beside);
    return fail("%s", why);
}

/* ---- opening ---- */

/* Removes what an interrupted commit, checkpoint or restore left behind. */
static int leftovers_remove(const mr_store *s)
{
    char path[PATH_SIZE];
    if (path_make(path, "%s/COMMIT.new", s->dir) || tree_remove(path) ||
        path_make(path, "%s/staging", s->dir) || tree_remove(path))
        return -1;
    if (mkdir(path, 0777))
        return fail("store %s: staging could not be made: %s", s->dir, strerror(errno));
    DIR *d = opendir(s->dir);
    if (!d)
        return fail("store %s: %s", s->dir, strerror(errno));
    int bad = 0;
    for (struct dirent *e; !bad && (e = readdir(d));)
        if (!strncmp(e->d_name, "db-", 3) && strcmp(e->d_name, s->last.database))
            bad = path_make(path, "%s/%s", s->dir, e->d_name) || tree_remove(path) ? -1 : 0;
    closedir(d);
    return bad ? -1 : kept_clean(s);
}

static int open_writing(mr_store *s)
{
    if (s->lock < 0 && (s->lock = lock_take(s->dir)) < 0)
        return -1;
    if (commit_file_read(s->dir, &s->last) || store_database_open(s))
        return -1;
    if (s->ahead.number) {
        if (commit_repair(s) || commit_file_write(s->dir, &s->ahead))
            return -1;
        s->last = s->ahead;
        s->ahead.number = 0;
    }
    return lock_sign(s) || leftovers_remove(s) ? -1 : 0;
}

/* One try to open the database that COMMIT names, as the writer goes on: 0 done, 1 something
 * changed meanwhile, -1 after fail(). */
static int open_reading_once(mr_store *s)
{
    commit_mark before, log, now;
    char path[PATH_SIZE];
    if (commit_file_read(s->dir, &before) || path_make(path, "%s/%s", s->dir, before.database))
        return -1;
    database d;
    int bad = database_open(s, path, s->mode, &d, &log) &&
              (lock_held(s->dir) > 0 || database_rescue_tail(s, path, 0, &d, &log));
    if (commit_file_read(s->dir, &now)) {
        database_close(&d);
        return -1;
    }
    int moved = strcmp(before.database, now.database) || before.number != now.number;
    if (bad)
        return moved ? 1 : -1;
    /* Commits made between the two looks at COMMIT are no damage. */
    int later = !strcmp(before.database, now.database) && now.number <= log.number;
    if (database_check(s, d, later ? &now : &before, &log)) {
        database_close(&d);
        return moved ? 1 : -1;
    }
    snprintf(log.database, sizeof log.database, "%s", strrchr(path, '/') + 1);
    pthread_rwlock_wrlock(&s->using);
    database_close(&s->base);
    s->base = d;
    pthread_rwlock_unlock(&s->using);
    s->last = log;
    return 0;
}

/* Files may vanish between the reading of a manifest and their opening: compaction or a restore
 * removed them. */
int store_open_reading(mr_store *s)
{
    for (int try = 1;; try++) {
        int changed = open_reading_once(s);
        if (changed == 0)
            return 0;
        int tries = changed > 0 || lock_held(s->dir) > 0 ? READ_TRIES : READ_TRIES_ALONE;
        if (try >= tries)
            return changed < 0
                       ? -1
                       : fail("store %s: it changed at each of %d tries to open it", s->dir, try);
        usleep(READ_PAUSE_US);
    }
}

/* Whether a directory without COMMIT has a database, or had a writer. */
static int was_store(const char *dir)
{
    DIR *d = opendir(dir);
    int found = 0;
    for (struct dirent *e; d && !found && (e = readdir(d));)
        found = !strncmp(e->d_name, "db-", 3) || !strcmp(e->d_name, "LOCK");
    if (d)
        closedir(d);
    return found;
}

static int store_begin(mr_store *s)
{
    char path[PATH_SIZE];
    struct stat st;
    int exists = !stat(s->dir, &st);
    if (!exists && errno != ENOENT)
        return fail("store %s: %s", s->dir, strerror(errno));
    if (exists && !S_ISDIR(st.st_mode))
        return fail("store %s: is not a directory", s->dir);
    if (!exists && s->mode != MR_STORE_CREATE)
        return fail("store %s: does not exist", s->dir);
    int empty = directory_empty(s->dir);
    if (empty < 0)
        return -1;
    if (empty && s->mode != MR_STORE_CREATE)
        return fail("store %s: the directory is empty", s->dir);
    if (empty && store_create(s))
        return -1;
    if (path_make(path, "%s/COMMIT", s->dir))
        return -1;
    if (access(path, F_OK) && errno == ENOENT && !was_store(s->dir))
        return fail(
            "store %s: the directory is not a store, it holds other files; give an empty or a "
            "new one",
            s->dir);
    int reads = s->mode == MR_STORE_READ || s->mode == MR_STORE_FOLLOW;
    return (reads ? store_open_reading(s) : open_writing(s)) || store_states_read(s) ? -1 : 0;
}

mr_store *mr_store_open(const char *dir, int mode)
{
    GIVEN(dir, NULL);
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    if (len == 0 || len > PATH_SIZE - 512)
        return fail_null("store: its path has %zu characters, expected 1 to %d", len,
                         PATH_SIZE - 512);
    mr_store *s = memory_zero(sizeof *s);
    if (!s)
        return NULL;
    memcpy(s->dir, dir, len);
    s->lock = -1;
    s->mode = mode;
    pthread_rwlock_init(&s->using, NULL);
    if (database_options(s) || (mode == MR_STORE_FOLLOW && follow_begin(s)) || store_begin(s)) {
        mr_store_close(s);
        return NULL;
    }
    return s;
}

/* A store that was made, but never committed to, is no use to anyone. */
static void unmake(const mr_store *s)
{
    char *real = realpath(s->dir, NULL);
    if (real && !tree_remove(real) && s->made == 2 && mkdir(real, 0777))
        fail("store %s: its directory could not be made again: %s", s->dir, strerror(errno));
    free(real);
}

void mr_store_close(mr_store *s)
{
    if (!s)
        return;
    mr_commit_abort(s);
    mr_commit_wait(s);
    while (s->tables)
        table_attach(s->tables, NULL);
    rocksdb_free(s->value);
    store_database_close(s);
    follow_end(s);
    rocksdb_readoptions_destroy(s->read);
    rocksdb_options_destroy(s->options);
    rocksdb_cache_destroy(s->cache);
    rocksdb_compactionfilter_destroy(s->filter);
    memory_leave(&s->blocks);
    memory_leave(&s->working);
    if (s->made && !s->last.number)
        unmake(s);
    if (s->lock >= 0)
        close(s->lock);
    pthread_rwlock_destroy(&s->using);
    memory_free(s);
}

/* copy.c - a copy of a whole store in another directory, by hard links: what RocksDB has written it
 * never writes again, so that files are shared until one of the two removes its name for them.
 *
 * The writer has its database make the copy. Another process has nothing but the directory, in which
 * files come and go: it links the files that are there, copies the manifest, and links those that came
 * meanwhile. What the manifest names is then there, unless a file came and went in between; the copy is
 * opened to see. Its log says which commit it is. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store.h"

enum { TRIES = 100, PAUSE_US = 20000 };

/* Links the sorted files of a directory that the other has not; those that vanish are left out. */
static int files_link(const char *from, const char *to)
{
    char source[PATH_SIZE], target[PATH_SIZE];
    DIR *d = opendir(from);
    int bad = d ? 0 : fail("%s: %s", from, strerror(errno));
    for (struct dirent *e; d && !bad && (e = readdir(d));) {
        if (!is_sorted_file(e->d_name))
            continue;
        if (path_make(source, "%s/%s", from, e->d_name) ||
            path_make(target, "%s/%s", to, e->d_name))
            bad = -1;
        else if (access(target, F_OK) && file_link(source, target) && !access(source, F_OK))
            bad = -1;
    }
    if (d)
        closedir(d);
    return bad;
}

/* Copies CURRENT and the manifest that it names. */
static int manifest_copy(const char *from, const char *to)
{
    char source[PATH_SIZE], target[PATH_SIZE], name[64] = "";
    if (path_make(source, "%s/CURRENT", from) || path_make(target, "%s/CURRENT", to) ||
        file_copy(source, target))
        return -1;
    FILE *f = fopen(target, "r");
    int got = f && fscanf(f, "%63s", name) == 1;
    if (f)
        fclose(f);
    if (!got || strncmp(name, "MANIFEST-", 9) || strchr(name, '/'))
        return fail("%s: names no manifest", source);
    return path_make(source, "%s/%s", from, name) || path_make(target, "%s/%s", to, name) ||
                   file_copy(source, target)
               ? -1
               : 0;
}

/* Removes the files that an open database does not have. */
static int files_trim(database d, const char *dir)
{
    const rocksdb_livefiles_t *live = rocksdb_livefiles(d.db);
    DIR *entries = opendir(dir);
    for (struct dirent *e; entries && (e = readdir(entries));) {
        int known = !is_sorted_file(e->d_name);
        for (int i = 0; !known && i < rocksdb_livefiles_count(live); i++) {
            const char *name = rocksdb_livefiles_name(live, i);
            known = !strcmp(name + (*name == '/'), e->d_name);
        }
        char path[PATH_SIZE];
        if (!known && !path_make(path, "%s/%s", dir, e->d_name))
            unlink(path);
    }
    if (entries)
        closedir(entries);
    rocksdb_livefiles_destroy(live);
    return 0;
}

/* What is kept in the store, by name and number: a hash; and, with `to`, copies of it. */
static int kept_copy(const mr_store *s, const char *to, uint64_t *hash)
{
    char from[PATH_SIZE], source[PATH_SIZE], target[PATH_SIZE];
    *hash = 0;
    if (path_make(from, "%s/kept", s->dir))
        return -1;
    DIR *d = opendir(from);
    int bad = 0, any = 0;
    for (struct dirent *e; d && !bad && (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        *hash += mr_hash(e->d_name, strlen(e->d_name), 0);
        if (!to)
            continue;
        if (!any++)
            bad = path_make(target, "%s/kept", to) || mkdir(target, 0777);
        bad = bad || path_make(source, "%s/%s", from, e->d_name) ||
              path_make(target, "%s/kept/%s", to, e->d_name) || tree_copy(source, target, ".sst") ||
              path_make(source, "%s/%s/db-1", from, e->d_name) ||
              path_make(target, "%s/kept/%s/db-1", to, e->d_name) ||
              tree_copy(source, target, ".sst");
    }
    if (d)
        closedir(d);
    return bad ? -1 : 0;
}

/* The writer's way: RocksDB's own checkpoint, of the last commit. */
static int copy_own(mr_store *s, const char *to)
{
    char path[PATH_SIZE], *message = NULL;
    uint64_t hash;
    commit_mark mark = s->last;
    if (path_make(path, "%s/db-1", to) || kept_copy(s, to, &hash))
        return -1;
    rocksdb_checkpoint_t *c = rocksdb_checkpoint_object_create(s->base.db, &message);
    if (c) {
        rocksdb_checkpoint_create(c, path, 0, &message);
        rocksdb_checkpoint_object_destroy(c);
    }
    if (message)
        return database_fail(s, "it could not be copied", message);
    snprintf(mark.database, sizeof mark.database, "db-1");
    return commit_file_write(to, &mark);
}

/* Another process' way: 0, 1: something changed meanwhile, -1 after fail(). */
static int copy_other_once(mr_store *s, const char *to)
{
    commit_mark before, now, log;
    char from[PATH_SIZE], path[PATH_SIZE];
    uint64_t kept, still;
    database d;
    if (commit_file_read(s->dir, &before) || path_make(from, "%s/%s", s->dir, before.database) ||
        path_make(path, "%s/db-1", to))
        return -1;
    if (mkdir(path, 0777))
        return fail("%s: could not be made: %s", path, strerror(errno));
    int bad = kept_copy(s, to, &kept) || files_link(from, path) || manifest_copy(from, path) ||
              files_link(from, path) || database_open(s, path, MR_STORE_READ, &d, &log);
    char why[900];
    snprintf(why, sizeof why, "%s", bad ? mr_error() : "");
    if (kept_copy(s, NULL, &still) || commit_file_read(s->dir, &now)) {
        if (!bad)
            database_close(&d);
        return -1;
    }
    int moved =
        before.number != now.number || strcmp(before.database, now.database) || kept != still;
    if (bad)
        return moved ? 1 : fail("%s", why);
    int later = !strcmp(before.database, now.database) && now.number <= log.number;
    bad = kept != still || database_check(s, d, later ? &now : &before, &log);
    if (!bad)
        files_trim(d, path);
    database_close(&d);
    if (bad)
        return moved ? 1 : -1;
    snprintf(log.database, sizeof log.database, "db-1");
    return commit_file_write(to, &log);
}

static int copy_other(mr_store *s, const char *to)
{
    for (int try = 1;; try++) {
        int changed = copy_other_once(s, to);
        if (!changed)
            return 0;
        /* A compaction removes files and leaves COMMIT as it is: also then it is tried again. */
        if (try >= (changed > 0 ? TRIES : TRIES / 10))
            return changed < 0
                       ? -1
                       : fail("store %s: it changed at each of %d tries to copy it", s->dir, try);
        if (tree_remove(to) || mkdir(to, 0777))
            return -1;
        usleep(PAUSE_US);
    }
}

static int copy_fill(mr_store *s, const char *to)
{
    if (mkdir(to, 0777))
        return fail("%s: could not be made: %s", to, strerror(errno));
    int writes = s->mode == MR_STORE_WRITE || s->mode == MR_STORE_CREATE;
    return (writes ? copy_own(s, to) : copy_other(s, to)) || tree_sync(to) ? -1 : 0;
}

int mr_store_copy(mr_store *s, const char *dir)
{
    GIVEN(s && dir, -1);
    char target[PATH_SIZE], parent[PATH_SIZE], fresh[PATH_SIZE];
    struct stat st;
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    if (path_make(target, "%.*s", (int)len, dir))
        return -1;
    if (!lstat(target, &st))
        return fail("%s: exists already; a copy of store %s needs a new directory", target, s->dir);
    if (mr_output_check(target, s->dir, "the store"))
        return -1;
    path_parent(target, parent);
    if (((s->mode == MR_STORE_WRITE || s->mode == MR_STORE_CREATE) && state_settle(s)) ||
        directory_make(parent))
        return -1;
    creations_clean(target);
    if (path_make(fresh, "%s.creating-%d", target, (int)getpid()) || tree_remove(fresh))
        return -1;
    int bad = copy_fill(s, fresh);
    if (!bad && (!lstat(target, &st) || rename(fresh, target)))
        bad = fail("%s: the copy of store %s could not be moved there: %s", target, s->dir,
                   strerror(errno));
    if (!bad)
        return directory_sync(parent);
    char why[900];
    snprintf(why, sizeof why, "%s", mr_error());
    tree_remove(fresh);
    return fail("%s", why);
}

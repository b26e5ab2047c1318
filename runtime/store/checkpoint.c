/* checkpoint.c - keeping the last committed state under a name, and returning to it; store.h has
 * the layout. A kept state is never written to: restoring makes a database of its own from it, by
 * hard links, and then replaces COMMIT. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "store/store.h"

enum { KEPT_NAME = 64 };

static int name_check(const mr_store *s, const char *name)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    return len && !name[len] && len < KEPT_NAME
               ? 0
               : fail("store %s: a state cannot be kept as \"%.80s\": expected letters, digits, _ "
                      "and -",
                      s->dir, name);
}

/* Splits "best.3" into its name and its number, from 1; 0 if it is something else. */
static uint64_t kept_number(const char *entry, char name[KEPT_NAME])
{
    const char *dot = strrchr(entry, '.');
    if (!dot || dot == entry || dot - entry >= KEPT_NAME || !isdigit((unsigned char)dot[1]))
        return 0;
    memcpy(name, entry, (size_t)(dot - entry));
    name[dot - entry] = 0;
    return strtoull(dot + 1, NULL, 10);
}

/* The largest number of a kept name; 0: there is none. */
static uint64_t kept_latest(const mr_store *s, const char *name)
{
    char path[PATH_SIZE], other[KEPT_NAME];
    uint64_t latest = 0;
    DIR *d = path_make(path, "%s/kept", s->dir) ? NULL : opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        uint64_t n = kept_number(e->d_name, other);
        if (n && !strcmp(other, name))
            latest = MAX(latest, n);
    }
    if (d)
        closedir(d);
    return latest;
}

int kept_clean(const mr_store *s)
{
    char path[PATH_SIZE], name[KEPT_NAME];
    if (path_make(path, "%s/kept", s->dir))
        return -1;
    DIR *d = opendir(path);
    int bad = 0;
    for (struct dirent *e; d && !bad && (e = readdir(d));) {
        uint64_t n = kept_number(e->d_name, name);
        if (n && n < kept_latest(s, name))
            bad = path_make(path, "%s/kept/%s", s->dir, e->d_name) || tree_remove(path) ? -1 : 0;
    }
    if (d)
        closedir(d);
    return bad;
}

int state_settle(mr_store *s)
{
    if (s->preparing)
        return fail("store %s: a commit is under way", s->dir);
    if (mr_commit_begin(s))
        return -1;
    mr_commit_abort(s);
    return 0;
}

static int checkpoint_make(mr_store *s, const char *dir)
{
    char path[PATH_SIZE], *message = NULL;
    if (tree_remove(dir) || path_make(path, "%s/db-1", dir))
        return -1;
    if (mkdir(dir, 0777))
        return fail("store %s: the state could not be kept: %s", s->dir, strerror(errno));
    rocksdb_checkpoint_t *c = rocksdb_checkpoint_object_create(s->base.db, &message);
    if (c) {
        rocksdb_checkpoint_create(c, path, 0, &message);
        rocksdb_checkpoint_object_destroy(c);
    }
    if (message)
        return database_fail(s, "the state could not be kept", message);
    commit_mark mark = s->last;
    snprintf(mark.database, sizeof mark.database, "db-1");
    return commit_file_write(dir, &mark) || tree_sync(dir) ? -1 : 0;
}

int mr_store_checkpoint(mr_store *s, const char *name)
{
    GIVEN(s && name, -1);
    char fresh[PATH_SIZE], kept[PATH_SIZE], target[PATH_SIZE];
    if (name_check(s, name))
        return -1;
    if (!s->last.number && !s->ahead.number && !s->behind)
        return fail("store %s: it holds no commit yet that could be kept as \"%s\"; commit first",
                    s->dir, name);
    if (state_settle(s) || path_make(fresh, "%s/staging/kept", s->dir) ||
        path_make(kept, "%s/kept", s->dir) ||
        path_make(target, "%s/%s.%llu", kept, name, (unsigned long long)kept_latest(s, name) + 1) ||
        directory_make(kept))
        return -1;
    if (checkpoint_make(s, fresh)) {
        char why[900];
        snprintf(why, sizeof why, "%s", mr_error());
        tree_remove(fresh);
        return fail("%s", why);
    }
    if (rename(fresh, target))
        return fail("%s: could not be made: %s", target, strerror(errno));
    return directory_sync(kept) || kept_clean(s) ? -1 : 0;
}

/* Makes a database from a kept one, checks that it is what the kept COMMIT says, and opens it. */
static int restored_open(mr_store *s, const char *kept, const char *path, database *d,
                         commit_mark *mark)
{
    char from[PATH_SIZE];
    commit_mark log;
    *d = (database){NULL, NULL};
    if (commit_file_read(kept, mark) || path_make(from, "%s/%s", kept, mark->database) ||
        tree_remove(path) || database_open(s, from, MR_STORE_READ, d, &log))
        return -1;
    int bad = log.number != mark->number || database_check(s, *d, mark, &log);
    database_close(d);
    if (bad)
        return fail("store %s: the state kept in %s is damaged: its manifest does not lead to "
                    "commit %llu. Nothing was changed",
                    s->dir, kept, (unsigned long long)mark->number);
    if (tree_copy(from, path, ".sst") || tree_sync(path) || directory_sync(s->dir))
        return -1;
    return database_open(s, path, MR_STORE_WRITE, d, &log);
}

int mr_store_restore(mr_store *s, const char *name)
{
    GIVEN(s && name, -1);
    char kept[PATH_SIZE], path[PATH_SIZE], before[PATH_SIZE], number_text[DATABASE_NAME];
    commit_mark mark;
    database d;
    if (name_check(s, name) || state_settle(s))
        return -1;
    uint64_t number = kept_latest(s, name);
    if (!number)
        return fail("store %s: no state is kept as %s", s->dir, name);
    snprintf(number_text, sizeof number_text, "db-%llu",
             strtoull(s->last.database + strlen("db-"), NULL, 10) + 1);
    if (path_make(kept, "%s/kept/%s.%llu", s->dir, name, (unsigned long long)number) ||
        path_make(before, "%s/%s", s->dir, s->last.database) ||
        path_make(path, "%s/%s", s->dir, number_text))
        return -1;
    store_states_forget(s); /* compactions of the other state would go by those of this one */
    int bad = restored_open(s, kept, path, &d, &mark);
    memcpy(mark.database, number_text, sizeof number_text);
    if (bad || commit_file_write(s->dir, &mark)) {
        char why[900];
        snprintf(why, sizeof why, "%s", mr_error());
        database_close(&d);
        store_states_read(s);
        /* COMMIT may name it, if only the syncing failed: then the next opening decides. */
        commit_mark now;
        if (!commit_file_read(s->dir, &now) && strcmp(now.database, number_text))
            tree_remove(path);
        return fail("%s", why);
    }
    store_database_close(s);
    s->base = d;
    s->last = mark;
    return store_states_read(s) || tree_remove(before) ? -1 : 0;
}

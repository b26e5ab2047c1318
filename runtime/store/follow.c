/* follow.c - a reader that follows a writer: RocksDB's secondary instance reads the manifest on as
 * it grows. It keeps open what it reads, so files may vanish from the directory meanwhile. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/store.h"

int follow_begin(mr_store *s)
{
    const char *parent = getenv("TMPDIR");
    if (snprintf(s->secondary, sizeof s->secondary, "%s/moonrock-XXXXXX",
                 parent && *parent ? parent : "/tmp") >= (int)sizeof s->secondary ||
        !mkdtemp(s->secondary)) {
        *s->secondary = 0;
        return fail("store %s: no directory could be made in %s for a reader's own files", s->dir,
                    parent ? parent : "/tmp");
    }
    return 0;
}

void follow_end(mr_store *s)
{
    if (*s->secondary)
        tree_remove(s->secondary);
    *s->secondary = 0;
}

/* Reads the manifest on: 0 the store is at a newer commit, 1 another way must be taken. */
static int catch_up(mr_store *s, commit_mark now)
{
    commit_mark log = {0, 0, 0, ""}, later;
    char *message = NULL;
    pthread_rwlock_wrlock(&s->using);
    rocksdb_try_catch_up_with_primary(s->base.db, &message);
    int bad =
        message || database_log(s, s->base, UINT64_MAX, &log) || commit_file_read(s->dir, &later);
    if (!bad && !strcmp(later.database, now.database) && later.number <= log.number)
        now = later; /* commits made meanwhile are no damage */
    bad = bad || database_check(s, s->base, &now, &log);
    if (bad) /* it may have come half the way: nothing may be read from it */
        database_close(&s->base);
    pthread_rwlock_unlock(&s->using);
    rocksdb_free(message);
    if (bad)
        return 1;
    memcpy(log.database, now.database, sizeof log.database);
    s->last = log;
    return 0;
}

int mr_store_follow(mr_store *s)
{
    GIVEN(s, -1);
    commit_mark now;
    if (s->mode != MR_STORE_FOLLOW)
        return fail("store %s: was not opened to follow it", s->dir);
    if (commit_file_read(s->dir, &now))
        return -1;
    int same = s->base.db && !strcmp(now.database, s->last.database);
    if (same && now.number <= s->last.number)
        return 0;
    /* another database, or one that cannot be read on, is opened anew */
    if (!(same && !catch_up(s, now)) && store_open_reading(s))
        return -1;
    return store_states_read(s) ? -1 : 1;
}

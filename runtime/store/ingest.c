/* ingest.c - handing the sorted files of a commit to RocksDB, all at once, and making sure that it
 * has them. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/store.h"

enum {
    LEVEL0_SLOW = 24,       /* files in level 0, from which on commits wait for compaction */
    LEVEL0_WAIT_MS = 20000, /* at most so long: later ones are slower to read, no more */
    KEEP_MOST = 8 << 20,    /* bytes of a file that is copied before an ingest */
    READ_ENDS = 256 << 10   /* bytes that are read at both ends of a file before it */
};

char *database_ingest(database d, const char *const *files, size_t n)
{
    char *message = NULL;
    rocksdb_ingestexternalfileoptions_t *o = rocksdb_ingestexternalfileoptions_create();
    rocksdb_ingestexternalfileoptions_set_move_files(o, 1);
    rocksdb_ingest_external_file(d.db, files, n, o, &message);
    rocksdb_ingestexternalfileoptions_destroy(o);
    return message;
}

/* RocksDB never stalls an ingest, so commits wait here while compaction is far behind. */
static void level0_wait(mr_store *s)
{
    double begin = mr_clock();
    int ms = 0;
    for (; ms < LEVEL0_WAIT_MS && mr_store_number(s, "level0") >= LEVEL0_SLOW &&
           mr_store_number(s, "errors") == 0;
         ms += 5)
        usleep(5000);
    if (ms) /* not when it was only asked, and the processor was another's meanwhile */
        s->waited += mr_clock() - begin;
}

static int keep_path(const commit *c, size_t i, char path[PATH_SIZE])
{
    return path_make(path, "%s.keep", c->file[i]);
}

static int seen_path(const commit *c, char path[PATH_SIZE])
{
    return path_make(path, "%s/staging/%" PRIu64 ".seen", c->s->dir, c->mark.number);
}

/* What has to be found in the database after the ingest, for an opening that comes before COMMIT. */
static int seen_write(const commit *c)
{
    char path[PATH_SIZE];
    witness list[2 * COMMIT_FILES];
    memcpy(list, c->seen, sizeof list);
    for (size_t i = 0; i < c->seen_n; i++)
        list[i].hash = c->seen[i].bytes ? mr_hash(c->seen[i].bytes, c->seen[i].len, 1) : 0;
    return seen_path(c, path) || file_write(path, list, c->seen_n * sizeof *list) ? -1 : 0;
}

/* Copies of files that are small (RocksDB writes into those it takes over), to take over once more
 * should it be needed; of large ones only the ends are read, where an ingest reads them. */
int commit_keep(const commit *c)
{
    char path[PATH_SIZE];
    for (size_t i = 0; i < c->files; i++) {
        int64_t size = file_ends(c->file[i], READ_ENDS);
        if (size < 0 || keep_path(c, i, path) || tree_remove(path))
            return -1;
        if (size <= KEEP_MOST ? file_copy(c->file[i], path) : seen_write(c))
            return -1;
    }
    return 0;
}

void commit_forget(const commit *c)
{
    char path[PATH_SIZE];
    for (size_t i = 0; i < c->files; i++)
        if (!keep_path(c, i, path))
            unlink(path);
    if (!seen_path(c, path))
        unlink(path);
}

/* Puts copies in the places of the files, for another ingest: 0, 1: there are not all, -1. */
static int files_again(const commit *c)
{
    char path[PATH_SIZE];
    for (size_t i = 0; i < c->files; i++) {
        if (keep_path(c, i, path))
            return -1;
        if (access(path, R_OK))
            return 1;
    }
    for (size_t i = 0; i < c->files; i++)
        if (keep_path(c, i, path) || tree_remove(c->file[i]) || file_copy(path, c->file[i]) ||
            tree_sync(c->file[i]))
            return -1;
    return 0;
}

/* Whether what was ingested can be read. RocksDB 7.8 does not look at all errors of reading the files
 * it takes over: one whose first block it could not read is taken for one without records. */
static int files_seen(const commit *c)
{
    const mr_store *s = c->s;
    int good = 1;
    for (size_t i = 0; i < c->seen_n && good; i++) {
        const witness *w = &c->seen[i];
        char *message = NULL;
        size_t len = 0;
        char *found = rocksdb_get(s->base.db, s->read, w->key, w->key_len, &len, &message);
        good = !message &&
               (w->bytes ? found && len == w->len && !memcmp(found, w->bytes, len) : !found);
        rocksdb_free(message);
        rocksdb_free(found);
    }
    return good;
}

/* RocksDB takes no more after an error of writing, also one of compaction: the database is opened
 * anew, which tells what became of the commit, and it is tried once more. */
int commit_ingest(commit *c)
{
    mr_store *s = c->s;
    const char *files[COMMIT_FILES];
    level0_wait(s);
    for (size_t i = 0; i < c->files; i++)
        files[i] = c->file[i];
    for (int try = 1;; try++) {
        pthread_rwlock_rdlock(&s->using);
        char *message = database_ingest(s->base, files, c->files);
        int done = !message, seen = done && files_seen(c);
        pthread_rwlock_unlock(&s->using);
        char why[700];
        snprintf(why, sizeof why, "%s", message ? message : "what was ingested cannot be read");
        rocksdb_free(message);
        if (seen)
            return 0;
        if (store_database_open(s)) {
            char opening[300];
            snprintf(opening, sizeof opening, "%s", mr_error());
            return fail("store %s: the commit could not be made: %s; then: %s", s->dir, why,
                        opening);
        }
        done = s->ahead.number != 0;
        s->ahead.number = 0;
        if (done && files_seen(c))
            return 0;
        if (try == 3)
            return fail("store %s: the commit could not be made, the last one stays: %s", s->dir,
                        why);
        int again = files_again(c);
        if (again)
            return again < 0 ? -1 : fail("store %s: the commit could not be made: %s", s->dir, why);
    }
}

/* Whether the database has what the commit noted before its ingest; 1 too if it noted nothing. */
static int seen_check(const commit *c)
{
    char path[PATH_SIZE];
    size_t len = 0;
    int good = 1;
    witness *list = seen_path(c, path) || access(path, R_OK) ? NULL : file_read(path, &len);
    for (size_t i = 0; list && good && i < len / sizeof *list; i++) {
        const witness *w = &list[i];
        char *message = NULL;
        size_t found_len = 0;
        char *found = rocksdb_get(c->s->base.db, c->s->read, w->key, MIN(w->key_len, sizeof w->key),
                                  &found_len, &message);
        good = !message &&
               (found ? w->hash && found_len == w->len && mr_hash(found, found_len, 1) == w->hash
                      : !w->hash);
        rocksdb_free(message);
        rocksdb_free(found);
    }
    memory_free(list);
    return good;
}

int commit_repair(mr_store *s)
{
    commit *c = memory_zero(sizeof *c);
    if (!c)
        return -1;
    const char *files[COMMIT_FILES];
    char path[PATH_SIZE];
    c->s = s;
    c->mark = s->ahead;
    for (; c->files < COMMIT_FILES; c->files++) {
        files[c->files] = c->file[c->files];
        if (commit_file_path(c, c->files, c->file[c->files]) || keep_path(c, c->files, path) ||
            access(path, R_OK))
            break;
    }
    if (c->files && !files_again(c)) /* if it cannot be, nothing is worse than before */
        rocksdb_free(database_ingest(s->base, files, c->files));
    int good = seen_check(c);
    memory_free(c);
    return good ? 0
                : fail("store %s: commit %" PRIu64
                       " was under way when the process ended, and is not "
                       "complete. Restore the directory from a copy",
                       s->dir, s->ahead.number);
}

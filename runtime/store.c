/* store.c - opening a store and reading from it; store.h has the layout. COMMIT is read before
 * RocksDB is, and the database is first looked at read-only: a truncated or flipped manifest opens
 * without complaint as an older state, and a writing open would delete the evidence. */
#include "store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "table.h"

const char *store_path(const mr_store *s, const char *name, char *path)
{
    snprintf(path, STORE_PATH, "%s/%s", s->dir, name);
    return path;
}

int store_fail(const mr_store *s, const char *doing, char *message)
{
    fail("store %s: %s: %s", s->dir, doing, message);
    rocksdb_free(message);
    return -1;
}

/* ---- directories ---- */

int directory_sync(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY);
    int bad = fd < 0 || fsync(fd);
    int why = errno;
    if (fd >= 0)
        close(fd);
    return bad ? fail("%s: could not sync the directory: %s", dir, strerror(why)) : 0;
}

int directory_remove(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d)
        return errno == ENOENT ? 0 : fail("%s: %s", dir, strerror(errno));
    struct dirent *e;
    int bad = 0;
    while (!bad && (e = readdir(d))) {
        char path[STORE_PATH + 300];
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        struct stat st;
        if (!lstat(path, &st) && S_ISDIR(st.st_mode))
            bad = directory_remove(path);
        else if (unlink(path) && errno != ENOENT)
            bad = fail("%s: %s", path, strerror(errno));
    }
    closedir(d);
    if (!bad && rmdir(dir))
        bad = fail("%s: %s", dir, strerror(errno));
    return bad;
}

/* ---- COMMIT ---- */

int store_commit_write(const char *dir, const char *database, const commit_log *log)
{
    char text[512], path[STORE_PATH + 16], beside[STORE_PATH + 16];
    int len = snprintf(text, sizeof text,
                       "moonrock store %d\ndatabase %s\ncommit %" PRIu64 "\nstep %" PRIu64
                       "\ntime %.6f\n",
                       STORE_FORMAT, database, log->number, log->step, log->time);
    len += snprintf(text + len, sizeof text - (size_t)len, "check %016" PRIx64 "\n",
                    (uint64_t)XXH64(text, (size_t)len, 0));
    snprintf(path, sizeof path, "%s/COMMIT", dir);
    snprintf(beside, sizeof beside, "%s/COMMIT.new", dir);
    int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int bad = fd < 0 || write(fd, text, (size_t)len) != len || fsync(fd);
    if (fd >= 0)
        bad |= close(fd) != 0;
    if (bad || rename(beside, path))
        return fail("store %s: COMMIT could not be written: %s", dir, strerror(errno));
    return directory_sync(dir);
}

static int commit_read(mr_store *s)
{
    char path[STORE_PATH], text[513];
    FILE *f = fopen(store_path(s, "COMMIT", path), "rb");
    if (!f)
        return fail("store %s: COMMIT is missing: %s. Without it nobody knows which state was the "
                    "last; restore the directory from a copy",
                    s->dir, strerror(errno));
    size_t len = fread(text, 1, 512, f);
    fclose(f);
    text[len] = 0;
    int format = 0;
    if (sscanf(text, "moonrock store %d\n", &format) == 1 && format != STORE_FORMAT)
        return fail("store %s: COMMIT is of format %d, this program reads format %d: use the "
                    "program that wrote it",
                    s->dir, format, STORE_FORMAT);
    char *check = strstr(text, "check "), expected[32];
    if (check)
        snprintf(expected, sizeof expected, "check %016" PRIx64 "\n",
                 (uint64_t)XXH64(text, (size_t)(check - text), 0));
    if (!check || strcmp(check, expected) ||
        sscanf(text,
               "moonrock store %d\ndatabase %63s\ncommit %" SCNu64 "\nstep %" SCNu64 "\ntime %lf\n",
               &format, s->database, &s->last.number, &s->last.step, &s->last.time) != 5)
        return fail("store %s: COMMIT is damaged (%zu bytes, its checksum does not match). Restore "
                    "the directory from a copy",
                    s->dir, len);
    return 0;
}

/* ---- the database ---- */

static int options_new(mr_store *s)
{
    s->options = rocksdb_options_create();
    s->read = rocksdb_readoptions_create();
    s->cache = rocksdb_cache_create_lru(8 << 20);
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, s->cache);
    rocksdb_block_based_options_set_block_size(table, 16 << 10);
    rocksdb_block_based_options_set_format_version(table, 5);
    rocksdb_options_set_block_based_table_factory(s->options, table);
    rocksdb_block_based_options_destroy(table);
    rocksdb_options_set_compression(s->options, rocksdb_no_compression);
    rocksdb_options_set_paranoid_checks(s->options, 1);
    rocksdb_options_set_max_open_files(s->options, -1);
    rocksdb_options_set_write_buffer_size(s->options, 1 << 20);
    rocksdb_options_set_max_background_jobs(s->options, 2);
    rocksdb_options_set_level0_file_num_compaction_trigger(s->options, 8);
    rocksdb_options_set_info_log_level(s->options, 2);
    rocksdb_options_set_keep_log_file_num(s->options, 2);
    rocksdb_options_set_max_log_file_size(s->options, 1 << 20);
    rocksdb_readoptions_set_verify_checksums(s->read, 1);
    rocksdb_readoptions_set_fill_cache(s->read, 0);
    return 0;
}

int store_log_read(mr_store *s, rocksdb_t *db, commit_log *log)
{
    char *message = NULL;
    size_t len;
    char *value = rocksdb_get(db, s->read, "\0commit", 7, &len, &message);
    if (message)
        return store_fail(s, "the last commit could not be read", message);
    if (!value)
        return 1;
    int bad = len != sizeof *log;
    if (!bad)
        memcpy(log, value, sizeof *log);
    rocksdb_free(value);
    return bad ? fail("store %s: the commit record has %zu bytes, expected %zu", s->dir, len,
                      sizeof *log)
               : 0;
}

/* Looks at the database read-only. Returns 0, and leaves it open in s->db. */
static int database_look(mr_store *s)
{
    char path[STORE_PATH], *message = NULL;
    store_path(s, s->database, path);
    struct stat st;
    if (stat(path, &st))
        return fail("store %s: the database %s that COMMIT names is missing: %s", s->dir,
                    s->database, strerror(errno));
    s->db = rocksdb_open_for_read_only(s->options, path, 0, &message);
    if (message)
        return store_fail(s, "the database could not be opened; restore it from a copy", message);
    commit_log log = {0, 0, 0};
    int found = store_log_read(s, s->db, &log);
    if (found < 0)
        return -1;
    if (log.number < s->last.number)
        return fail("store %s: the database %s is damaged: it holds commit %" PRIu64
                    ", COMMIT says %" PRIu64 ". Nothing was changed; restore it from a copy",
                    s->dir, s->database, log.number, s->last.number);
    if (log.number > s->last.number + 1 && s->mode != MR_STORE_READ)
        return fail("store %s: COMMIT says commit %" PRIu64 ", but the database holds %" PRIu64
                    ": COMMIT is from an older copy",
                    s->dir, s->last.number, log.number);
    if (!found)
        s->last = log;
    return 0;
}

void store_database_close(mr_store *s)
{
    if (s->db)
        rocksdb_close(s->db);
    s->db = NULL;
}

int store_database_open(mr_store *s, int writable)
{
    if (database_look(s)) {
        store_database_close(s);
        return -1;
    }
    if (!writable)
        return 0;
    store_database_close(s);
    char path[STORE_PATH], *message = NULL;
    s->db = rocksdb_open(s->options, store_path(s, s->database, path), &message);
    return message ? store_fail(s, "the database could not be opened for writing", message) : 0;
}

/* ---- making, opening, closing ---- */

static int is_empty(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d)
        return errno == ENOENT;
    struct dirent *e;
    int files = 0;
    while ((e = readdir(d)))
        files += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(d);
    return files == 0;
}

/* A store is made beside its place and renamed into it, so that there is never half of one. */
static int store_create(mr_store *s)
{
    char parent[STORE_PATH], beside[STORE_PATH + 32], path[STORE_PATH + 64], *message = NULL;
    snprintf(beside, sizeof beside, "%s.creating", s->dir);
    if (directory_remove(beside))
        return -1;
    if (mkdir(beside, 0755))
        return fail("store %s: could not be made: %s", s->dir, strerror(errno));
    snprintf(path, sizeof path, "%s/db-1", beside);
    rocksdb_options_set_create_if_missing(s->options, 1);
    rocksdb_t *db = rocksdb_open(s->options, path, &message);
    rocksdb_options_set_create_if_missing(s->options, 0);
    if (message)
        return store_fail(s, "the database could not be made", message);
    rocksdb_close(db);
    if (store_commit_write(beside, "db-1", &(commit_log){0, 0, mr_clock_wall()}))
        return -1;
    if (rename(beside, s->dir))
        return fail("store %s: could not be made: %s", s->dir, strerror(errno));
    snprintf(parent, sizeof parent, "%s", s->dir);
    char *slash = strrchr(parent, '/');
    if (slash == parent)
        slash[1] = 0;
    else if (slash)
        *slash = 0;
    return directory_sync(slash ? parent : ".");
}

static int store_lock(mr_store *s)
{
    char path[STORE_PATH], pid[32] = "";
    s->lock = open(store_path(s, "LOCK", path), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (s->lock < 0)
        return fail("store %s: LOCK could not be opened: %s", s->dir, strerror(errno));
    if (flock(s->lock, LOCK_EX | LOCK_NB)) {
        ssize_t len = read(s->lock, pid, sizeof pid - 1);
        pid[len > 0 ? len : 0] = 0;
        pid[strcspn(pid, "\n")] = 0;
        return fail("store %s: process %s is writing to it; only one may", s->dir,
                    *pid ? pid : "unknown");
    }
    int len = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    if (ftruncate(s->lock, 0) || pwrite(s->lock, pid, (size_t)len, 0) != len)
        return fail("store %s: LOCK could not be written: %s", s->dir, strerror(errno));
    return 0;
}

/* Removes what an interrupted commit, checkpoint or restore left behind. */
static int leftovers_remove(mr_store *s)
{
    char path[STORE_PATH];
    DIR *d = opendir(s->dir);
    if (!d)
        return fail("store %s: %s", s->dir, strerror(errno));
    struct dirent *e;
    int bad = 0;
    while (!bad && (e = readdir(d))) {
        const char *dot = strrchr(e->d_name, '.');
        int stale = !strcmp(e->d_name, "staging") ||
                    (!strncmp(e->d_name, "db-", 3) && strcmp(e->d_name, s->database)) ||
                    (!strncmp(e->d_name, "keep-", 5) && dot &&
                     (!strcmp(dot, ".new") || !strcmp(dot, ".old")));
        if (stale)
            bad = directory_remove(store_path(s, e->d_name, path));
    }
    closedir(d);
    if (!bad && mkdir(store_path(s, "staging", path), 0755))
        bad = fail("store %s: staging could not be made: %s", s->dir, strerror(errno));
    return bad;
}

static int store_begin(mr_store *s)
{
    char path[STORE_PATH];
    struct stat st;
    options_new(s);
    int exists = !stat(s->dir, &st);
    if (exists && !S_ISDIR(st.st_mode))
        return fail("store %s: is not a directory", s->dir);
    if (s->mode == MR_STORE_CREATE && is_empty(s->dir)) {
        if (store_create(s))
            return -1;
    } else if (!exists) {
        return fail("store %s: does not exist", s->dir);
    }
    char database[STORE_PATH];
    if (access(store_path(s, "COMMIT", path), F_OK) && access(store_path(s, "LOCK", path), F_OK) &&
        access(store_path(s, "db-1", database), F_OK))
        return fail("store %s: the directory is not a store; give an empty or a new one", s->dir);
    if (s->mode == MR_STORE_READ) {
        /* The writer may remove a file between the manifest's reading and the file's opening. */
        for (int attempt = 0; attempt < 20; attempt++) {
            if (commit_read(s))
                return -1;
            if (!store_database_open(s, 0))
                return 0;
            usleep(50000);
        }
        return -1;
    }
    if (store_lock(s) || commit_read(s) || store_database_open(s, 1) || leftovers_remove(s))
        return -1;
    return store_commit_write(s->dir, s->database, &s->last);
}

mr_store *mr_store_open(const char *dir, int mode)
{
    mr_store *s = memory_zero(sizeof *s);
    if (!s)
        return NULL;
    s->lock = -1;
    s->mode = mode;
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    if (len == 0 || len > STORE_DIR - 1) {
        memory_free(s);
        return fail_null("store: the path has %zu characters, expected 1 to %d", len,
                         STORE_DIR - 1);
    }
    memcpy(s->dir, dir, len);
    if (store_begin(s)) {
        mr_store_close(s);
        return NULL;
    }
    return s;
}

void mr_store_close(mr_store *s)
{
    if (!s)
        return;
    mr_commit_abort(s);
    if (s->value)
        rocksdb_free(s->value);
    store_database_close(s);
    if (s->read)
        rocksdb_readoptions_destroy(s->read);
    if (s->options)
        rocksdb_options_destroy(s->options);
    if (s->cache)
        rocksdb_cache_destroy(s->cache);
    if (s->lock >= 0)
        close(s->lock);
    memory_free(s->put);
    memory_free(s->tables);
    memory_free(s);
}

/* ---- reading ---- */

static int database_ready(mr_store *s)
{
    return s->db ? 0 : store_database_open(s, s->mode != MR_STORE_READ);
}

int mr_store_get(mr_store *s, const char *name)
{
    char key[1024], *message = NULL;
    size_t len = strlen(name);
    if (len > sizeof key - 1)
        return fail("store %s: the name of a record has %zu characters", s->dir, len);
    if (database_ready(s))
        return -1;
    key[0] = PREFIX_STATE;
    memcpy(key + 1, name, len);
    if (s->value)
        rocksdb_free(s->value);
    s->value = rocksdb_get(s->db, s->read, key, len + 1, &s->value_len, &message);
    if (message)
        return store_fail(s, name, message);
    return s->value != NULL;
}

const void *mr_store_value(const mr_store *s)
{
    return s->value;
}

double mr_store_value_len(const mr_store *s)
{
    return (double)s->value_len;
}

static uint64_t big_endian(const char *p)
{
    uint64_t x;
    memcpy(&x, p, 8);
    return __builtin_bswap64(x);
}

int mr_store_load(mr_store *s, mr_table *t)
{
    if (database_ready(s))
        return -1;
    uint32_t id = table_id(t);
    char prefix[5] = {PREFIX_ROW, (char)(id >> 24), (char)(id >> 16), (char)(id >> 8), (char)id};
    rocksdb_iterator_t *i = rocksdb_create_iterator(s->db, s->read);
    int bad = 0;
    for (rocksdb_iter_seek(i, prefix, 5); !bad && rocksdb_iter_valid(i); rocksdb_iter_next(i)) {
        size_t key_len, len;
        const char *key = rocksdb_iter_key(i, &key_len);
        if (key_len < 5 || memcmp(key, prefix, 5))
            break;
        const char *value = rocksdb_iter_value(i, &len);
        bad =
            key_len != ROW_KEY
                ? fail("store %s: a row's key has %zu bytes, expected %d", s->dir, key_len, ROW_KEY)
                : table_decode(t, big_endian(key + 5), (const uint8_t *)value, len);
    }
    char *message = NULL;
    rocksdb_iter_get_error(i, &message);
    rocksdb_iter_destroy(i);
    if (message)
        return store_fail(s, table_name(t), message);
    return bad;
}

int mr_store_digest(mr_store *s, char *hex)
{
    if (database_ready(s))
        return -1;
    XXH3_state_t *state = XXH3_createState();
    if (!state)
        return fail("store %s: out of memory", s->dir);
    XXH3_128bits_reset(state);
    rocksdb_iterator_t *i = rocksdb_create_iterator(s->db, s->read);
    const char from = PREFIX_STATE;
    for (rocksdb_iter_seek(i, &from, 1); rocksdb_iter_valid(i); rocksdb_iter_next(i)) {
        size_t len[2];
        const char *key = rocksdb_iter_key(i, &len[0]);
        const char *value = rocksdb_iter_value(i, &len[1]);
        if (key[0] > PREFIX_ROW)
            break;
        XXH3_128bits_update(state, len, sizeof len);
        XXH3_128bits_update(state, key, len[0]);
        XXH3_128bits_update(state, value, len[1]);
    }
    char *message = NULL;
    rocksdb_iter_get_error(i, &message);
    rocksdb_iter_destroy(i);
    XXH128_hash_t h = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    if (message)
        return store_fail(s, "the digest could not be taken", message);
    snprintf(hex, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64, (uint64_t)h.low64);
    return 0;
}

double mr_store_number(const mr_store *s, const char *what)
{
    uint64_t n = 0;
    if (!strcmp(what, "commit"))
        return (double)s->last.number;
    if (!strcmp(what, "step"))
        return (double)s->last.step;
    if (!strcmp(what, "time"))
        return s->last.time;
    const char *property = !strcmp(what, "bytes")    ? "rocksdb.live-sst-files-size"
                           : !strcmp(what, "level0") ? "rocksdb.num-files-at-level0"
                                                     : NULL;
    if (!property || !s->db)
        return -1;
    if (!strcmp(what, "level0")) {
        char *text = rocksdb_property_value(s->db, property);
        n = text ? strtoull(text, NULL, 10) : 0;
        rocksdb_free(text);
    } else if (rocksdb_property_int(s->db, property, &n)) {
        return -1;
    }
    return (double)n;
}

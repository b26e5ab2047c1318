/* store_test.c - the store under kills, faults and damage: `store_test [SEED [KILLS [DAMAGES]]]`.
 *
 * What a store holds after step n is a function of n alone (`advance`), so whatever was committed,
 * killed, kept and restored before, its digest must be digest[n]. Calls of write, sync, link and
 * the like pass through functions of this file on their way to libc, which can fail the n-th. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/check.h"
#include "support/store.h"

enum { STEPS = 150, KEYS = 120 };

static char digest[STEPS + 1][33];

/* ---- faults ---- */

static atomic_int fault_in = -1; /* calls until one fails; -1: none does */
static int fault_errno, fault_sticky;
static atomic_int faulted;

static int fault(void)
{
    int left = atomic_load(&fault_in);
    if (left < 0)
        return 0;
    if (left > 0 && atomic_fetch_sub(&fault_in, 1) > 0)
        return 0;
    if (!fault_sticky)
        atomic_store(&fault_in, -1);
    atomic_fetch_add(&faulted, 1);
    errno = fault_errno;
    return 1;
}

/* An entry before libc's: fails when it is its turn. Writes to the terminal are let through, and a
 * full disk still takes names. */
#define EXPORT __attribute__((visibility("default")))
#define PASS(type, name, parameters, arguments, counts)                                            \
    EXPORT type name parameters;                                                                   \
    EXPORT type name parameters                                                                    \
    {                                                                                              \
        static type(*real) parameters;                                                             \
        if (!real)                                                                                 \
            *(void **)&real = dlsym(RTLD_NEXT, #name);                                             \
        return (counts) && fault() ? (type)-1 : real arguments;                                    \
    }
PASS(ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n), fd > 2)
PASS(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t at), (fd, b, n, at), 1)
PASS(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t at), (fd, b, n, at), 1)
PASS(int, fsync, (int fd), (fd), 1)
PASS(int, fdatasync, (int fd), (fd), 1)
PASS(int, link, (const char *from, const char *to), (from, to), !fault_sticky)
PASS(int, rename, (const char *from, const char *to), (from, to), !fault_sticky)
PASS(int, mkdir, (const char *path, mode_t mode), (path, mode), 1)

/* ---- a table and what each step does to it ---- */

static void advance(mr_table *t, uint64_t step)
{
    uint64_t keys[KEYS];
    for (int i = 0; i < KEYS; i++)
        keys[i] = mix64(random_at(step, (uint64_t)i) % 1000);
    push(t, keys, KEYS, step);
}

static void expected_make(void)
{
    mr_store *s = mr_store_open(at("reference/deep/er"), MR_STORE_CREATE);
    mr_table *t = table_make();
    must(s && !mr_store_digest(s, digest[0]), "reference");
    for (uint64_t step = 1; step <= STEPS; step++) {
        advance(t, step);
        must(!commit_all(s, t, step) && !mr_store_digest(s, digest[step]), "reference");
    }
    mr_store_close(s);
    mr_table_free(t);
    must(!file_write(at("digests"), digest, sizeof digest), "digests");
}

/* Whether a store is at a step, to the byte. */
static int is_at(mr_store *s, uint64_t step)
{
    char hex[33], state[64];
    snprintf(state, sizeof state, "step %llu", (unsigned long long)step);
    if (mr_store_digest(s, hex) || mr_store_number(s, "step") != (double)step ||
        strcmp(hex, digest[step]))
        return 0;
    return step == 0 ||
           (mr_store_get(s, "state") == 1 && mr_store_value_len(s) == (double)strlen(state) &&
            !memcmp(mr_store_value(s), state, strlen(state)));
}

static mr_store *store_made(const char *name, uint64_t steps)
{
    must(!tree_remove(at(name)), "remove");
    mr_store *s = mr_store_open(at(name), MR_STORE_CREATE);
    mr_table *t = table_make();
    must(s != NULL, "create");
    for (uint64_t step = 1; step <= steps; step++) {
        advance(t, step);
        must(!commit_all(s, t, step), "commit");
    }
    mr_table_free(t);
    return s;
}

/* ---- kills ---- */

typedef struct event {
    char begun, kind; /* kind: commit, keep, restore */
    uint16_t step;    /* the store's after it; for a keep: what is kept */
} event;

static void child_runs(int out, uint64_t seed, int kept)
{
    mr_store *s = mr_store_open(at("killed"), MR_STORE_CREATE);
    if (!s) {
        fprintf(stderr, "  child: %s\n", mr_error());
        _exit(3);
    }
    mr_table *t = table_make();
    if (mr_store_load(s, t))
        _exit(4);
    uint64_t step = (uint64_t)mr_store_number(s, "step");
    for (uint64_t i = 0;; i++) {
        uint64_t dice = random_at(seed, i) % 8;
        event e = {1, 'c', (uint16_t)(step + 1)};
        if (dice == 0 && step > 0)
            e = (event){1, 'k', (uint16_t)step};
        else if ((dice == 1 || step == STEPS) && kept >= 0)
            e = (event){1, 'r', (uint16_t)kept};
        else if (step == STEPS)
            continue;
        int bad = write(out, &e, sizeof e) != sizeof e;
        if (e.kind == 'c') {
            advance(t, e.step);
            bad |= commit_all(s, t, e.step);
        } else if (e.kind == 'k') {
            bad |= mr_store_checkpoint(s, "best");
            kept = e.step;
        } else {
            bad |= mr_store_restore(s, "best");
            mr_table_clear(t);
            bad |= mr_store_load(s, t);
        }
        step = e.step;
        e.begun = 0;
        bad |= write(out, &e, sizeof e) != sizeof e;
        if (bad || !is_at(s, e.kind == 'k' ? step : e.step)) {
            fprintf(stderr, "  child at %c to step %d: %s\n", e.kind, e.step, mr_error());
            _exit(5);
        }
    }
}

/* Starts this program anew, since RocksDB's threads do not survive a fork, to do `role`. */
static pid_t start(const char *role, uint64_t seed, int kept, int out)
{
    char text[3][32];
    snprintf(text[0], 32, "%llu", (unsigned long long)seed);
    snprintf(text[1], 32, "%d", kept);
    snprintf(text[2], 32, "%d", out);
    pid_t pid = fork();
    if (!pid) {
        execl("/proc/self/exe", "store_test", "child", root, role, text[0], text[1], text[2], NULL);
        _exit(9);
    }
    return pid;
}

static void kill_test(uint64_t seed, int kills)
{
    int before = failures, kept = -1, kept_begun = -1;
    uint64_t last = 0;
    must(!tree_remove(at("killed")), "remove");
    for (int k = 0; k < kills && failures == before; k++) {
        int pipes[2];
        must(!pipe(pipes), "pipe");
        must(!fcntl(pipes[0], F_SETFD, FD_CLOEXEC), "pipe");
        pid_t pid = start("runs", seed + (uint64_t)k, kept, pipes[1]);
        close(pipes[1]);
        usleep((unsigned)(random_at(seed, 1000 + (uint64_t)k) % 120000));
        int status;
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        check(WIFSIGNALED(status), "kill %d: the child ended by itself with status %d", k,
              WEXITSTATUS(status));
        uint64_t begun = last;
        event e;
        while (read(pipes[0], &e, sizeof e) == sizeof e) {
            if (e.kind == 'k') {
                kept_begun = e.step;
                kept = e.begun ? kept : e.step;
            } else {
                begun = e.step;
                last = e.begun ? last : e.step;
            }
        }
        close(pipes[0]);
        if (access(at("killed"), F_OK)) {
            check(last == 0, "kill %d: there is no store, but step %d was acknowledged", k,
                  (int)last);
            continue;
        }
        mr_store *r = mr_store_open(at("killed"), MR_STORE_READ);
        if (!check(r != NULL, "kill %d: could not be read", k))
            break;
        uint64_t now = (uint64_t)mr_store_number(r, "step");
        check((now == last || now == begun) && is_at(r, now),
              "kill %d: the store is at step %d, acknowledged %d, under way %d", k, (int)now,
              (int)last, (int)begun);
        mr_store_close(r);
        last = now;
        /* a keep that was under way may have been made: the next child must know */
        if (kept_begun < 0 || (k % 4 && kept_begun == kept))
            continue;
        mr_store *s = mr_store_open(at("killed"), MR_STORE_WRITE);
        if (!check(s != NULL && is_at(s, now), "kill %d: could not be opened for writing", k))
            break;
        int rc = mr_store_restore(s, "best");
        last = (uint64_t)mr_store_number(s, "step");
        check(kept < 0 || (!rc && ((int)last == kept || (int)last == kept_begun) && is_at(s, last)),
              "kill %d: kept %d or %d, restored %d", k, kept, kept_begun, (int)last);
        if (!rc)
            kept = (int)last;
        kept_begun = kept;
        mr_store_close(s);
    }
    report("after SIGKILL at any instant of commits, checkpoints and restores the store is exactly "
           "at a state acknowledged or under way",
           before);
}

/* ---- faults ---- */

static void fault_test(const char *name, int error, int sticky)
{
    int before = failures, reached = 0;
    mr_store *s = store_made("faulty", 2);
    mr_table *t = table_make();
    must(!mr_store_load(s, t), "load");
    uint64_t step = 2;
    for (int n = 0; failures == before && step < STEPS - 1; n++) {
        advance(t, step + 1);
        fault_errno = error;
        fault_sticky = sticky;
        atomic_store(&faulted, 0);
        atomic_store(&fault_in, n);
        int bad = commit_all(s, t, step + 1);
        atomic_store(&fault_in, -1);
        if (!atomic_load(&faulted)) {
            check(!bad, "a commit without fault failed");
            step++;
            break;
        }
        reached++;
        if (bad) {
            check(mr_error()[0] != 0, "no message");
            mr_store *r = mr_store_open(at("faulty"), MR_STORE_READ);
            check(r != NULL, "fault %d: could not be read", n);
            uint64_t now = r ? (uint64_t)mr_store_number(r, "step") : 0;
            check(r && (now == step || now == step + 1) && is_at(r, now),
                  "fault %d: a reader finds step %d after a failed commit to %d", n, (int)now,
                  (int)step + 1);
            mr_store_close(r);
            check(!commit_all(s, t, step + 1), "fault %d: the next commit failed too", n);
        }
        step++;
        check(is_at(s, step), "fault %d: not at step %d", n, (int)step);
    }
    check(reached > 10, "only %d calls were met", reached);
    mr_store_close(s);
    s = mr_store_open(at("faulty"), MR_STORE_WRITE);
    check(s && is_at(s, step), "after reopening it is not at step %d", (int)step);
    mr_store_close(s);
    mr_table_free(t);
    report(name, before);
}

static void restore_fault_test(void)
{
    int before = failures, failed = 0;
    mr_store *s = store_made("faulty", 3);
    mr_table *t = table_make();
    must(!mr_store_load(s, t) && !mr_store_checkpoint(s, "best"), "keep");
    advance(t, 4);
    must(!commit_all(s, t, 4), "commit");
    for (int n = 0; failures == before; n++) {
        fault_errno = EIO;
        fault_sticky = 0;
        atomic_store(&faulted, 0);
        atomic_store(&fault_in, n);
        int bad = n & 1 ? mr_store_checkpoint(s, "other") : mr_store_restore(s, "best");
        int reached = atomic_load(&faulted);
        atomic_store(&fault_in, -1);
        failed += bad != 0;
        uint64_t now = (uint64_t)mr_store_number(s, "step");
        if (!bad && !(n & 1))
            check(now == 3, "restored to step %d", (int)now);
        check((now == 3 || now == 4) && is_at(s, now), "fault %d: it is not at step %d", n,
              (int)now);
        if (now == 3) {
            mr_table_clear(t);
            must(!mr_store_load(s, t), "load");
            advance(t, 4);
            check(!commit_all(s, t, 4) && is_at(s, 4), "fault %d: no commit after it", n);
        }
        if (!reached && n > 20)
            break;
    }
    check(failed > 10, "only %d faults had an effect", failed);
    mr_store_close(s);
    mr_table_free(t);
    report("a checkpoint or restore whose n-th call fails leaves the state before or after",
           before);
}

/* ---- damage ---- */

static void copy_store(const char *from, const char *to)
{
    char command[700];
    snprintf(command, sizeof command, "rm -rf %s && cp -r %s %s", to, from, to);
    must(!system(command), "copy");
}

static void commit_file_copy(const char *from, const char *to)
{
    char command[700];
    snprintf(command, sizeof command, "cp %s/COMMIT %s/COMMIT", from, to);
    must(!system(command), "copy");
}

static int refused(const char *name, int mode, const char *why)
{
    mr_store *s = mr_store_open(at(name), mode);
    int good = !s && strstr(mr_error(), why) && strstr(mr_error(), at(name));
    mr_store_close(s);
    return good;
}

static void commit_file_test(void)
{
    int before = failures;
    mr_store_close(store_made("old", 4));
    mr_store_close(store_made("one", 5));
    copy_store(at("one"), at("new"));
    mr_store *s = mr_store_open(at("new"), MR_STORE_WRITE);
    mr_table *t = table_make();
    must(s && !mr_store_load(s, t), "load");
    advance(t, 6);
    must(!commit_all(s, t, 6), "commit");
    copy_store(at("new"), at("ahead"));
    advance(t, 7);
    must(!commit_all(s, t, 7), "commit");
    mr_store_close(s);
    mr_table_free(t);

    commit_file_copy(at("one"), at("ahead"));
    s = mr_store_open(at("ahead"), MR_STORE_READ);
    check(s && is_at(s, 6), "COMMIT one behind: a reader is not at the commit that was under way");
    mr_store_close(s);
    s = mr_store_open(at("ahead"), MR_STORE_WRITE);
    check(s && is_at(s, 6), "COMMIT one behind: a writer is not at the commit that was under way");
    mr_store_close(s);

    copy_store(at("new"), at("behind"));
    commit_file_copy(at("one"), at("behind"));
    for (int mode = MR_STORE_READ; mode <= MR_STORE_CREATE; mode++)
        check(refused("behind", mode, "from an older copy"), "COMMIT two behind, mode %d", mode);
    copy_store(at("one"), at("lost"));
    commit_file_copy(at("new"), at("lost"));
    for (int mode = MR_STORE_READ; mode <= MR_STORE_CREATE; mode++)
        check(refused("lost", mode, "is damaged"), "database behind COMMIT, mode %d", mode);
    copy_store(at("old"), at("mixed"));
    s = mr_store_open(at("mixed"), MR_STORE_WRITE);
    t = table_make();
    must(s && !mr_store_load(s, t), "load");
    advance(t, 5);
    must(!commit_all(s, t, 5), "commit");
    mr_store_close(s);
    mr_table_free(t);
    commit_file_copy(at("one"), at("mixed"));
    check(refused("mixed", MR_STORE_WRITE, "different stores"), "COMMIT of another store");

    copy_store(at("one"), at("gone"));
    must(!tree_remove(at("gone/db-1")), "remove");
    check(refused("gone", MR_STORE_WRITE, "is missing"), "database missing");
    char text[512];
    FILE *f = fopen(at("one/COMMIT"), "r");
    size_t len = f ? fread(text, 1, sizeof text - 1, f) : 0;
    text[len] = 0;
    must(f && !fclose(f) && !strncmp(text, "moonrock store 2", 16), "COMMIT");
    report("a COMMIT that is one commit behind is brought up to date, any other is refused",
           before);
}

/* The files below a directory. */
static int files_below(const char *dir, char files[][300], int n, int most)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d)) && n < most;) {
        struct stat st;
        char path[300];
        snprintf(path, sizeof path, "%.150s/%.140s", dir, e->d_name);
        if (e->d_name[0] == '.' || stat(path, &st))
            continue;
        if (S_ISDIR(st.st_mode))
            n = files_below(path, files, n, most);
        else if (st.st_size > 0)
            memcpy(files[n++], path, sizeof path);
    }
    if (d)
        closedir(d);
    return n;
}

/* One bit flipped, or the end cut off, in any file of a store: reading it all tells, or the state is what
 * it was. */
static void damage_test(uint64_t seed, int times)
{
    int before = failures, reported = 0;
    mr_store_close(store_made("whole", 6));
    uint64_t i = 0;
    for (int k = 0; k < times && failures == before; k++) {
        copy_store(at("whole"), at("damaged"));
        char files[64][300];
        int n = files_below(at("damaged"), files, 0, 64);
        const char *file = files[random_at(seed, i++) % (uint64_t)n];
        struct stat st;
        must(!stat(file, &st) && st.st_size > 0, file);
        off_t place = (off_t)(random_at(seed, i++) % (uint64_t)st.st_size);
        uint64_t dice = random_at(seed, i++);
        int cut = dice >> 8 & 1;
        if (cut) {
            must(!truncate(file, place), "truncate");
        } else {
            uint8_t byte;
            int fd = open(file, O_RDWR);
            must(pread(fd, &byte, 1, place) == 1, "read");
            byte ^= (uint8_t)(1u << dice % 8);
            must(pwrite(fd, &byte, 1, place) == 1 && !close(fd), "write");
        }
        mr_store *s = mr_store_open(at("damaged"), k & 1 ? MR_STORE_READ : MR_STORE_WRITE);
        mr_table *t = table_make();
        char hex[33];
        if (!s || mr_store_digest(s, hex) || mr_store_load(s, t))
            reported += check(strstr(mr_error(), at("damaged")) || strstr(mr_error(), "table t"),
                              "the message names no store");
        else
            check(is_at(s, 6),
                  "seed %llu, %d: %s at byte %lld of %s: unnoticed, and the state is "
                  "another",
                  (unsigned long long)seed, k, cut ? "cut" : "a flipped bit", (long long)place,
                  file);
        mr_store_close(s);
        mr_table_free(t);
    }
    check(reported > times / 3, "only %d of %d were reported", reported, times);
    report("a flipped bit, and an end that is cut off, are reported, or change nothing", before);
}

/* The one bit of a sorted file at which RocksDB would end the process (damage.c): the highest of a count
 * of 1, wherever one stands. */
static void properties_test(void)
{
    int before = failures, told = 0;
    mr_store_close(store_made("whole", 6));
    char files[64][300];
    int n = files_below(at("whole"), files, 0, 64), k = 0;
    while (k < n && !strstr(files[k], ".sst"))
        k++;
    must(k < n, "a sorted file");
    static uint8_t bytes[65536];
    int fd = open(files[k], O_RDWR);
    ssize_t len = pread(fd, bytes, sizeof bytes, 0);
    must(len > 4 && len < (ssize_t)sizeof bytes, "read");
    for (ssize_t i = 3; i < len; i++) {
        if (memcmp(bytes + i - 3, "\1\0\0", 4))
            continue;
        must(pwrite(fd, "\x80", 1, i) == 1, "write");
        mr_store *s = mr_store_open(at("whole"), MR_STORE_READ);
        told += !s && strstr(mr_error(), "its properties are not what was written");
        mr_store_close(s);
        must(pwrite(fd, "", 1, i) == 1, "write");
    }
    close(fd);
    check(told == 1, "%d of the file's counts are its properties'", told);
    mr_store *s = mr_store_open(at("whole"), MR_STORE_READ);
    check(s && is_at(s, 6), "whole again: %s", mr_error());
    mr_store_close(s);
    report("damage at which RocksDB would end the process is told before", before);
}

/* ---- processes ---- */

static void child_second(uint64_t first)
{
    char pid[64];
    snprintf(pid, sizeof pid, "process %d is writing", (int)first);
    mr_store *second = mr_store_open(at("shared"), MR_STORE_WRITE);
    _exit(!second && strstr(mr_error(), pid) ? 0 : 1);
}

static void child_creates(void)
{
    mr_store *s = mr_store_open(at("raced"), MR_STORE_CREATE);
    int told = !s && strstr(mr_error(), "is writing to it") != NULL;
    if (s && mr_store_number(s, "step") == 0) { /* one that is never committed to would not stay */
        mr_table *t = table_make();
        advance(t, 1);
        must(!commit_all(s, t, 1), "commit");
        mr_table_free(t);
    }
    if (s)
        usleep(200000);
    else if (!told)
        fprintf(stderr, "  %s\n", mr_error());
    mr_store_close(s);
    _exit(s ? 0 : told ? 1 : 2);
}

static void child_writes(void)
{
    mr_store *s = mr_store_open(at("read"), MR_STORE_WRITE);
    mr_table *t = table_make();
    int bad = !s || mr_store_load(s, t) || mr_store_checkpoint(s, "first");
    for (uint64_t step = 2; !bad && step <= STEPS; step++) {
        advance(t, step);
        bad = commit_all(s, t, step);
        if (!bad && step % 25 == 0 && step < STEPS / 2) {
            bad = mr_store_restore(s, "first");
            mr_table_clear(t);
            bad |= mr_store_load(s, t);
            for (uint64_t again = 2; !bad && again <= step; again++) {
                advance(t, again);
                bad = commit_all(s, t, again);
            }
        }
    }
    mr_store_close(s);
    _exit(bad ? 1 : 0);
}

static void writers_test(void)
{
    int before = failures;
    mr_store *s = store_made("shared", 3);
    char pid[64];
    snprintf(pid, sizeof pid, "process %d is writing", (int)getpid());
    check(refused("shared", MR_STORE_WRITE, pid), "a second writer in the same process");
    pid_t other = start("second", (uint64_t)getpid(), 0, 0);
    int status;
    waitpid(other, &status, 0);
    check(WIFEXITED(status) && !WEXITSTATUS(status), "a second writer in another process");
    mr_store_close(s);
    report("a second writer is refused, with the pid of the first", before);
}

/* Two processes make the same store at once: one of them gets it. */
static void creators_test(void)
{
    int before = failures;
    for (int round = 0; round < 5; round++) {
        must(!tree_remove(at("raced")), "remove");
        pid_t pid[4];
        for (int i = 0; i < 4; i++)
            pid[i] = start("creates", 0, 0, 0);
        int made = 0;
        for (int i = 0; i < 4; i++) {
            int status;
            waitpid(pid[i], &status, 0);
            check(WIFEXITED(status) && WEXITSTATUS(status) < 2, "a creator ended with %d",
                  WEXITSTATUS(status));
            made += WIFEXITED(status) && WEXITSTATUS(status) == 0;
        }
        check(made >= 1, "%d of four creators have the store", made);
        mr_store *s = mr_store_open(at("raced"), MR_STORE_READ);
        check(s && is_at(s, 1), "round %d: it is not at its first commit", round);
        mr_store_close(s);
    }
    report("a store that several processes make at once is made once", before);
}

/* A store under way whose process is not of this machine, or not to be seen from here, holds its lock. */
static void under_way_test(void)
{
    int before = failures;
    char path[300];
    snprintf(path, sizeof path, "%s/under_way.creating-999999999", root);
    must(!mkdir(path, 0777), "mkdir");
    snprintf(path, sizeof path, "%s/under_way.creating-999999999/LOCK", root);
    int fd = open(path, O_RDWR | O_CREAT, 0666);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    must(fd >= 0 && !fcntl(fd, F_OFD_SETLK, &lock), "lock");
    mr_store *s = mr_store_open(at("under_way"), MR_STORE_CREATE);
    check(s && !access(path, F_OK), "a store that another makes is removed");
    mr_store_close(s);
    close(fd);
    s = mr_store_open(at("under_way"), MR_STORE_CREATE);
    check(s && access(path, F_OK), "what a process that is no more left behind stays");
    mr_store_close(s);
    report("what another process makes is left alone while it holds the lock", before);
}

static void reader_test(void)
{
    int before = failures;
    must(!tree_remove(at("read")), "remove");
    mr_store_close(store_made("read", 1));
    pid_t pid = start("writes", 0, 0, 0);
    int status = 0, reads = 0;
    while (!waitpid(pid, &status, WNOHANG)) {
        mr_store *s = mr_store_open(at("read"), MR_STORE_READ);
        check(s && is_at(s, (uint64_t)mr_store_number(s, "step")), "reader %d", reads);
        mr_store_close(s);
        reads++;
    }
    check(WIFEXITED(status) && !WEXITSTATUS(status), "the writer failed");
    check(reads > 3, "only %d reads", reads);
    report("readers find a whole commit at any time of a writer that commits and restores", before);
}

int main(int argc, char **argv)
{
    tape = mr_tape_new(1, 4);
    must(tape != NULL, "tape");
    if (argc == 7 && !strcmp(argv[1], "child")) {
        snprintf(root, sizeof root, "%s", argv[2]);
        FILE *f = fopen(at("digests"), "rb");
        must(f && fread(digest, sizeof digest, 1, f) == 1 && !fclose(f), "digests");
        uint64_t seed = strtoull(argv[4], NULL, 10);
        if (!strcmp(argv[3], "runs"))
            child_runs(atoi(argv[6]), seed, atoi(argv[5]));
        if (!strcmp(argv[3], "second"))
            child_second(seed);
        if (!strcmp(argv[3], "creates"))
            child_creates();
        child_writes();
    }
    snprintf(root, sizeof root, "%s/moonrock-store-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    must(mkdtemp(root) != NULL, "temporary directory");
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)(mr_clock_wall() * 1e6);
    printf("seed %llu\n", (unsigned long long)seed);
    expected_make();
    RUN(kill_test, seed, argc > 2 ? atoi(argv[2]) : 40);
    RUN(writers_test);
    RUN(creators_test);
    RUN(under_way_test);
    RUN(reader_test);
    RUN(fault_test,
        "a commit whose n-th call fails leaves the last one or is whole, and the next succeeds",
        EIO, 0);
    RUN(fault_test,
        "a disk that is full from the n-th call on leaves the last commit, and takes the next "
        "one once there is room",
        ENOSPC, 1);
    RUN(restore_fault_test);
    RUN(commit_file_test);
    RUN(properties_test);
    RUN(damage_test, seed, argc > 3 ? atoi(argv[3]) : 2000);
    mr_tape_free(tape);
    tree_remove(root);
    if (failures)
        printf("seed %llu\n", (unsigned long long)seed);
    return failures != 0;
}

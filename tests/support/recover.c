/* recover.c - the directory that a loss of power leaves, from the record that record.c kept:
 *
 *   faults-recover DIR RECORD [SEED]
 *
 * Without a seed everything that was not synced is lost. With one, of the operations on each
 * directory since it was synced a random number of the first survives, and each file that changed
 * since it was synced is, by chance, as it was synced, as it was written last, cut within what was
 * added since, or has zeros there. RECORD is removed. Prints what there was to lose and what was.
 *
 * A rename from one directory to another is there as soon as it is in either. The inodes live on
 * under RECORD/inode, so the tree is made anew of links to them, and files are put back in
 * place. */
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_SIZE = 256, ADD = 0, DELETE, MOVE };

typedef uint64_t number;

typedef struct entry {
    number dir, inode;
    char name[NAME_SIZE];
} entry;

typedef struct change {
    int kind, settled; /* settled: durable, or lost */
    number dir, to_dir, inode;
    char name[NAME_SIZE], to_name[NAME_SIZE];
} change;

typedef struct content {
    number inode;
    long saved; /* -1: nothing; NOW: what it holds */
} content;

enum { NOTHING = -1, NOW = -2 };

static entry *entries;
static size_t entry_n, entry_room;
static change *changes;
static size_t change_n, change_room;
static content *contents;
static size_t content_n, content_room;
static number *dirs;
static size_t dir_n, dir_room;
static number root;
static uint64_t seed;
static int chance;

static void stop(const char *what, const char *about)
{
    fprintf(stderr, "faults-recover: %s: ", about);
    perror(what);
    exit(1);
}

static void *grown(void *array, size_t n, size_t *room, size_t size)
{
    if (n < *room)
        return array;
    *room = 2 * n + 64;
    array = realloc(array, *room * size);
    if (!array)
        stop("memory", "record");
    return array;
}

static uint64_t dice(uint64_t sides)
{
    uint64_t x = seed += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return (x ^ x >> 31) % sides;
}

/* ---- the state that is durable ---- */

static void entry_remove(number dir, const char *name)
{
    for (size_t i = 0; i < entry_n; i++)
        if (entries[i].dir == dir && !strcmp(entries[i].name, name)) {
            entries[i] = entries[--entry_n];
            return;
        }
}

static void entry_add(number dir, const char *name, number inode)
{
    entry_remove(dir, name);
    entries = grown(entries, entry_n, &entry_room, sizeof *entries);
    entry *e = &entries[entry_n++];
    e->dir = dir;
    e->inode = inode;
    strcpy(e->name, name);
}

static int same_entry(const change *c, number dir, const char *name)
{
    return (c->kind != ADD && c->dir == dir && !strcmp(c->name, name)) ||
           (c->kind != DELETE && c->to_dir == dir && !strcmp(c->to_name, name));
}

/* Makes a change durable, and first those of the same entries that it stands upon. */
static void settle(change *c)
{
    for (change *b = changes; b < c; b++)
        if (!b->settled && ((c->kind != ADD && same_entry(b, c->dir, c->name)) ||
                            (c->kind != DELETE && same_entry(b, c->to_dir, c->to_name))))
            settle(b);
    c->settled = 1;
    if (c->kind != ADD)
        entry_remove(c->dir, c->name);
    if (c->kind != DELETE)
        entry_add(c->to_dir, c->to_name, c->inode);
}

static int touches(const change *c, number dir)
{
    return !c->settled &&
           ((c->kind != ADD && c->dir == dir) || (c->kind != DELETE && c->to_dir == dir));
}

static content *content_of(number inode)
{
    for (size_t i = 0; i < content_n; i++)
        if (contents[i].inode == inode)
            return &contents[i];
    contents = grown(contents, content_n, &content_room, sizeof *contents);
    contents[content_n] = (content){inode, NOW};
    return &contents[content_n++];
}

static int is_dir(number inode)
{
    for (size_t i = 0; i < dir_n; i++)
        if (dirs[i] == inode)
            return 1;
    return 0;
}

static void synced(number inode)
{
    if (!is_dir(inode)) {
        content_of(inode)->saved = NOW;
        return;
    }
    for (size_t i = 0; i < change_n; i++)
        if (touches(&changes[i], inode))
            settle(&changes[i]);
}

static void read_journal(const char *record)
{
    char path[PATH_MAX], line[2048];
    snprintf(path, sizeof path, "%s/journal", record);
    FILE *f = fopen(path, "r");
    if (!f)
        stop("journal", record);
    while (fgets(line, sizeof line, f)) {
        change c = {0};
        unsigned long long a, b, i;
        long n;
        if (!strchr(line, '\n'))
            break; /* cut by the kill */
        if (sscanf(line, "root %llu", &i) == 1) {
            root = i;
        } else if (sscanf(line, "dir %llu", &i) == 1) {
            dirs = grown(dirs, dir_n, &dir_room, sizeof *dirs);
            dirs[dir_n++] = i;
        } else if (sscanf(line, "has %llu %255s %llu", &a, c.name, &i) == 3) {
            entry_add(a, c.name, i);
        } else if (sscanf(line, "new %llu", &i) == 1) {
            content_of(i)->saved = NOTHING;
        } else if (sscanf(line, "old %llu %ld", &i, &n) == 2) {
            content_of(i)->saved = n;
        } else if (sscanf(line, "syn %llu", &i) == 1) {
            synced(i);
        } else {
            if (sscanf(line, "add %llu %255s %llu", &b, c.to_name, &i) == 3) {
                c.kind = ADD, c.to_dir = b;
            } else if (sscanf(line, "del %llu %255s %llu", &a, c.name, &i) == 3) {
                c.kind = DELETE, c.dir = a;
            } else if (sscanf(line, "mov %llu %255s %llu %255s %llu", &a, c.name, &b, c.to_name,
                              &i) == 5) {
                c.kind = MOVE, c.dir = a, c.to_dir = b;
            } else {
                fprintf(stderr, "faults-recover: the record says %s", line);
                exit(1);
            }
            c.inode = i;
            changes = grown(changes, change_n, &change_room, sizeof *changes);
            changes[change_n++] = c;
        }
    }
    fclose(f);
}

/* Of what is pending in each directory, lets some of the first survive. */
static void survive(void)
{
    char *kept = calloc(change_n + 1, 1);
    for (size_t d = 0; kept && d < dir_n; d++) {
        size_t pending = 0, left;
        for (size_t i = 0; i < change_n; i++)
            pending += (size_t)touches(&changes[i], dirs[d]);
        left = dice(pending + 1);
        for (size_t i = 0; i < change_n && left; i++)
            if (touches(&changes[i], dirs[d])) {
                kept[i] = 1;
                left--;
            }
    }
    for (size_t i = 0; kept && i < change_n; i++)
        if (kept[i] && !changes[i].settled)
            settle(&changes[i]);
    free(kept);
}

/* ---- making it ---- */

static off_t length(const char *path)
{
    struct stat st;
    return stat(path, &st) ? 0 : st.st_size;
}

/* A file as it was synced, in place, since other names lead to it. */
static void put_back(const char *path, const char *saved)
{
    static char block[1 << 16];
    int out = open(path, O_WRONLY | O_TRUNC), in = saved ? open(saved, O_RDONLY) : -1;
    if (out < 0 || (saved && in < 0))
        stop(path, "put back");
    for (ssize_t n; in >= 0 && (n = read(in, block, sizeof block)) > 0;)
        if (write(out, block, (size_t)n) != n)
            stop(path, "put back");
    close(out);
    if (in >= 0)
        close(in);
}

static int lose(const char *record, const content *c)
{
    char path[PATH_MAX], saved[PATH_MAX];
    snprintf(path, sizeof path, "%s/inode/%llu", record, (unsigned long long)c->inode);
    snprintf(saved, sizeof saved, "%s/saved/%ld", record, c->saved);
    off_t was = c->saved == NOTHING ? 0 : length(saved), is = length(path);
    uint64_t outcome = chance ? dice(4) : 0;
    if (outcome == 1)
        return 0;
    if (outcome < 2 || is <= was) {
        put_back(path, c->saved == NOTHING ? NULL : saved);
        return 1;
    }
    off_t cut = was + (off_t)dice((uint64_t)(is - was));
    if (truncate(path, cut) || (outcome == 3 && truncate(path, is)))
        stop(path, "cut");
    return 1;
}

static void make(const char *record, const char *path, number dir)
{
    if (mkdir(path, 0777))
        stop(path, "make");
    for (size_t i = 0; i < entry_n; i++) {
        char inner[PATH_MAX], inode[PATH_MAX];
        if (entries[i].dir != dir)
            continue;
        snprintf(inner, sizeof inner, "%.3000s/%s", path, entries[i].name);
        snprintf(inode, sizeof inode, "%s/inode/%llu", record,
                 (unsigned long long)entries[i].inode);
        if (is_dir(entries[i].inode))
            make(record, inner, entries[i].inode);
        else if (link(inode, inner))
            stop(inner, inode);
    }
}

static void command(const char *format, const char *a, const char *b)
{
    char text[3 * PATH_MAX];
    snprintf(text, sizeof text, format, a, b);
    if (system(text))
        stop(text, "command");
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: faults-recover DIR RECORD [SEED]\n");
        return 2;
    }
    const char *dir = argv[1], *record = argv[2];
    char fresh[PATH_MAX];
    chance = argc > 3;
    seed = chance ? strtoull(argv[3], NULL, 10) : 0;
    read_journal(record);
    size_t pending = 0, lost = 0, unsynced = 0, cut = 0;
    for (size_t i = 0; i < change_n; i++)
        pending += (size_t)!changes[i].settled;
    if (chance)
        survive();
    for (size_t i = 0; i < change_n; i++)
        lost += (size_t)!changes[i].settled;
    for (size_t i = 0; i < content_n; i++)
        if (contents[i].saved != NOW) {
            unsynced++;
            cut += (size_t)lose(record, &contents[i]);
        }
    snprintf(fresh, sizeof fresh, "%s.recovered", dir);
    make(record, fresh, root);
    command("rm -rf '%s' '%s'", dir, record);
    if (rename(fresh, dir))
        stop(dir, "rename");
    printf("lost %zu of %zu names, %zu of %zu files\n", lost, pending, cut, unsynced);
    return 0;
}

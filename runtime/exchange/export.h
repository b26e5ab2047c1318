/* export.h - the inside of exports and imports, shared by export.c (the binary format and what all
 * formats do), export_text.c, export_npy.c, export_file.c (files), import.c (a binary export into a
 * store) and import_rows.c (rows into the tables of a store). */
#ifndef MR_EXPORT_H
#define MR_EXPORT_H

#include <stdio.h>

#include "base/output.h"
#include "store/store.h"
#include "table/table_room.h"

/* ---- export_file.c: files that are read ---- */

/* A file that is read in order; "-" is standard input. */
typedef struct in_file {
    int fd;
    char path[PATH_SIZE];
    char *buffer;
    size_t from, to; /* of the buffer: what was not read yet */
    uint64_t at;     /* of the file: where `from` is */
    char *line;      /* the last line */
    size_t line_room;
} in_file;
in_file *in_open(const char *path);
/* Reads up to len bytes: how many, fewer only at the end of the file; -1 after fail(). */
int64_t in_read(in_file *f, void *bytes, size_t len);
/* A line without its newline, with a zero behind it, which stays until the next: 1; 0: the end, -1. */
int in_line(in_file *f, char **line, size_t *len);
void in_close(in_file *f); /* f may be NULL */

/* ---- blocks of the binary format (runtime/exchange/README.md) ---- */

enum { BLOCK_LOG = 1, BLOCK_NAME, BLOCK_TABLE, BLOCK_DROP, BLOCK_ROW, BLOCK_END, BLOCK_KINDS };
enum { EXPORT_VERSION = 1, EXPORT_HEAD = 64, EXPORT_PART = 1, BLOCK_HEAD = 24 };

typedef struct export_head {
    char magic[8];
    uint32_t version, flags; /* EXPORT_PART: some rows only, which make no store */
    uint64_t commit, step, time, since, zero, hash;
} export_head;

typedef struct block_head {
    uint64_t hash; /* XXH3 of what follows, the content included, under the block's number */
    uint32_t kind, table, records, len;
} block_head;

/* The content of the last block. */
typedef struct export_end {
    uint64_t records[BLOCK_KINDS - 1]; /* by kind; [0]: blocks before this one */
    uint64_t bytes;                    /* before this block */
    uint64_t hash;                     /* XXH3 of the hashes of the head and of all blocks before */
} export_end;

/* A binary export that is read block by block, each checked before it is handed out. */
typedef struct block_reader block_reader;
block_reader *block_open(const char *path);
const export_head *block_file_head(const block_reader *r);
/* 1: a block, 0: the last one was read, and all is well, -1 after fail(). */
int block_next(block_reader *r, const block_head **head, const uint8_t **content);
void block_close(block_reader *r); /* r may be NULL */
/* Goes through the records of a block: *at moves on; 1: one, 0: no more, -1 after fail(). Names and
 * records: key_len bytes of key, len of value. */
typedef struct block_record {
    uint64_t key, step;
    const uint8_t *name, *bytes;
    size_t name_len, len;
    table_state state;
    commit_mark mark;
} block_record;
int block_record_next(block_reader *r, const block_head *head, const uint8_t *content, size_t *at,
                      block_record *out);

/* ---- export.c ---- */

typedef struct exporting {
    mr_store *s;
    mr_table *const *table; /* [tables], ascending by number */
    size_t tables;
    const mr_export *o;
    const char *path;
    row *row;      /* the row at hand, decoded */
    mr_table *now; /* its table */
    uint64_t rows, drops;
} exporting;

/* Calls work for the rows of a table that are wanted, ascending, decoded into e->row. */
typedef int export_row(void *context, exporting *e, uint64_t key, const char *record, size_t len);
int export_rows(exporting *e, mr_table *t, export_row *work, void *context);

int export_text(exporting *e);
int export_npy(exporting *e);

/* ---- import_rows.c: rows that are added to a commit ---- */

typedef struct adding adding;

/* The table of a name; NULL after fail(). */
mr_table *adding_table(const adding *a, const char *name);
/* Goes on with the rows of a table, each table once. */
int adding_begin(adding *a, mr_table *t);
/* The next row, for the caller to fill in: its key; a step or 0; and of each column that is given in
 * `columns`, count (or 0: 1) and weights, and its state, if it is given in `states`. NULL after fail(). */
row *adding_row(adding *a, uint32_t columns, uint32_t states);
/* Which columns that row does have after all. */
void adding_given(adding *a, uint32_t columns);
/* It is filled in: -1 after fail(), if its key is not above the one before or a number is not finite. */
int adding_done(adding *a);

int import_text(adding *a, const char *path);
int import_npy(adding *a, const char *dir, mr_table *const *tables, size_t n);

/* ---- export_npy.c ---- */

/* A name as a part of a file's name: other bytes than letters, digits, _ and - as %XX, a dot as it is
 * but for the first. */
void file_name(const char *name, char out[3 * 256]);

#endif

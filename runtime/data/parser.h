/* parser.h - one record of text or bytes becomes one sample.
 *
 * A parser sees whole records only; the scan (scan.h) finds their ends, numbers them, and says
 * where an error stands. */
#ifndef MR_PARSER_H
#define MR_PARSER_H

#include "base/base.h"
#include "data/samples.h"
#include "data/schema.h"

typedef enum format { LIBSVM, LIBFFM, LIBFM, CSV, TSV, BIN, FORMATS } format;

#define MARK "\xef\xbb\xbf" /* a byte order mark in UTF-8 */
enum { MARK_LEN = 3 };

enum { PARSED = 0, BAD = 1 }; /* or -1 after fail(): the reader cannot go on */

typedef struct parser {
    format format;
    int fields;              /* as in mr_reader_options */
    int task;                /* mr_task */
    int labels;              /* mr_labels */
    int has_label;           /* the data has labels: 1, 0, -1 not known yet */
    int saw_zero, saw_minus; /* binary labels so far */
    size_t record_len;       /* BIN: bytes */
    char error[512];         /* why the last record is BAD */

    /* CSV and TSV */
    extractor extractor;
    fit *fit;             /* records are observed, not extracted */
    int running;          /* statistics take records in that run along */
    int separator, quote; /* the separator's first byte */
    int escape, decimal;  /* as in the schema */
    int blanks;           /* cells are separated by runs of spaces and tabs */
    size_t more;          /* bytes of the separator behind its first */
    int *map;             /* [map_n] slot of each cell of a record, or -1 */
    size_t map_n;
    cell *cells; /* [slots] */
} parser;

/* The number of a format by its name, -1 and a message with the nearest one otherwise. */
int format_find(const char *name);
/* By a file's name, -1 if that does not tell. */
int format_of_name(const char *path);
/* By a line of text that holds a sample: 0 if it does not tell. */
int format_of_line(const char *at, size_t len, format *f);
/* Whether at[0..len), the first bytes of a file of `size` bytes (-1: not known), are records of ids: whole ones,
 * with labels as the task has them. */
int looks_bin(const mr_reader_options *o, const char *at, size_t len, double size);

/* file: whom an error is about. Keeps the schema alive. */
parser *parser_new(format f, const mr_reader_options *o, const char *file);
void parser_free(parser *p);

/* Tells `out` what this parser's samples hold, before the first of them. */
void parser_prepare(const parser *p, samples *out);

/* Parses the record at[0..len), with a '\n' and 7 bytes more behind it for text, and commits it to
 * `out`. */
int parse(parser *p, char *at, size_t len, int64_t record, samples *out);

int parse_csv(parser *p, char *at, size_t len, int64_t record, samples *out);

/* The end of the CSV record that starts at `at`: its '\n', or NULL if it is not in
 * at[0..len). *quoted tells whether that is within quotes. */
const char *csv_end(const parser *p, const char *at, size_t len, int *quoted);

/* Binds the columns of a file by its first line, which has a number: 1 if that was a header, 0 if it is a
 * record, or -1. */
int csv_bind(parser *p, const char *file, uint64_t number, char *line, size_t len);

/* Says why the record is bad. `found` is quoted up to the next blank. */
int bad(parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Checks a label, and makes a binary one 0 or 1. */
int label_check(parser *p, float *label);

#endif

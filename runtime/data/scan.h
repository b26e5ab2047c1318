/* scan.h - the records of a source, numbered, parsed and chosen. */
#ifndef MR_SCAN_H
#define MR_SCAN_H

#include "data/parser.h"
#include "data/place.h"
#include "data/source.h"

/* Bytes first..head are done with; head..tail are still to be read. */
typedef struct scan {
    mr_reader_options options; /* its strings are not used once scan_open is left */
    source *source;
    parser *parser; /* NULL until the format is known */
    fit *fit;
    char *buffer;
    size_t room, head, tail;
    size_t searched;  /* bytes behind head known to hold no line end */
    int open;         /* a file is */
    int fresh;        /* nothing of it was handled yet */
    int file_end;     /* all of it is in the buffer */
    uint64_t line;    /* of the file, 1 is the first; BIN: record */
    int64_t record;   /* number of the next record of the epoch */
    places places;    /* of the records read so far */
    double started;   /* mr_clock() when the batch under way got its first sample, 0: none */
    int64_t bad;      /* bad records since the rewind */
    int64_t bad_most; /* in any one epoch */
    char first_bad[1024];
} scan;

enum { SCAN_MORE = 1, SCAN_END = 0, SCAN_WAITED = 2, SCAN_STOPPED = 3 }; /* or -1 */

/* Looks the files up, and opens the first one to find out its format and columns, unless that
 * might block. */
int scan_open(scan *s, const mr_reader_options *o, fit *f, const atomic_int *stop);
void scan_close(scan *s);

/* Back to the first record. */
int scan_rewind(scan *s);

/* Goes on to record `to` of the epoch without parsing what is before. SCAN_END if there are
 * fewer, in a stream an error. Standard input is not read: it is taken to start there. */
int scan_skip(scan *s, int64_t to);

/* Parses up to n records into `out`. */
int scan_read(scan *s, int64_t n, samples *out);

/* Where a record of the epoch stands, as messages have it: "a.svm:3". 0 if that is not known any
 * more. For any thread. */
int scan_where(scan *s, int64_t record, char *out, size_t len);

/* Part of the stored bytes read, 0 to 1, or -1. */
double scan_progress(const scan *s);

#endif

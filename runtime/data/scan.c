/* scan.c - finds the ends of records in a buffer that is refilled from the source, gives each its
 * number and line, and leaves out what the options say.
 *
 * The buffer holds whole records and the start of the next; what is left of that moves to its
 * front before a refill, and the buffer doubles for a record that does not fit. A last line
 * without '\n' gets one. Records do not span files. Whether a record is held out depends on its
 * number alone, and bad records have numbers too, so a resumed read counts as the first did. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/scan.h"
#include "data/signature.h"

#define FIRST_ROOM ((size_t)256 << 10)
#define LINE_MAX_LEN ((size_t)64 << 20)  /* bytes of a line */
#define QUOTED_MAX_LEN ((size_t)1 << 20) /* bytes of a record with line ends in quotes */
#define SPLIT_SEED 0x73706c6974000000ull

typedef struct span {
    char *at;
    size_t len;      /* without the line end */
    size_t used;     /* with it */
    uint64_t line;   /* where it starts */
    const char *why; /* it cannot be a record: why not; or NULL */
} span;

static int is_text(const scan *s)
{
    return s->parser->format != BIN;
}

static int is_table(const scan *s)
{
    return s->parser->format == CSV || s->parser->format == TSV;
}

/* ---- the buffer -------------------------------------------------------------------------- */

/* More bytes behind tail; SCAN_MORE also at the end of the file, which it notes. */
static int refill(scan *s)
{
    if (s->head) {
        memmove(s->buffer, s->buffer + s->head, s->tail - s->head);
        s->tail -= s->head;
        s->head = 0;
    }
    if (s->tail + 64 >= s->room) {
        if (s->tail > LINE_MAX_LEN)
            return fail("%s:%llu: a line of more than %zu bytes", source_name(s->source),
                        (unsigned long long)s->line + 1, LINE_MAX_LEN);
        char *p = memory_resize(s->buffer, s->tail, s->room * 2);
        if (!p)
            return -1;
        s->buffer = p;
        s->room *= 2;
    }
    double until =
        s->started > 0 && s->options.max_wait >= 0 ? s->started + s->options.max_wait : 0;
    ssize_t got = source_read(s->source, s->buffer + s->tail, s->room - s->tail - 64, until);
    if (got == SOURCE_WAITED)
        return SCAN_WAITED;
    if (got == SOURCE_STOPPED)
        return SCAN_STOPPED;
    if (got < 0)
        return -1;
    if (got == 0)
        s->file_end = 1;
    s->tail += (size_t)got;
    return SCAN_MORE;
}

static int open_next(scan *s)
{
    int rc = source_next(s->source);
    if (rc <= 0)
        return rc;
    s->open = s->fresh = 1;
    s->file_end = 0;
    s->line = 0;
    s->head = s->tail = s->searched = 0;
    return SCAN_MORE;
}

/* The next record-like span of the open file: SCAN_MORE, SCAN_END at the file's end, ... */
static int span_bytes(scan *s, span *out)
{
    size_t len = s->parser->record_len;
    while (s->tail - s->head < len) {
        if (s->file_end) {
            if (s->head == s->tail)
                return SCAN_END;
            return fail("%s: record %llu is cut short: %zu bytes of %zu (%d fields of 8 bytes "
                        "and the label)",
                        source_name(s->source), (unsigned long long)s->line + 1, s->tail - s->head,
                        len, s->parser->fields);
        }
        int rc = refill(s);
        if (rc != SCAN_MORE)
            return rc;
    }
    *out = (span){s->buffer + s->head, len, len, s->line + 1, NULL};
    return SCAN_MORE;
}

static int span_line(scan *s, span *out)
{
    int quoted = 0, table = s->parser && is_table(s);
    for (;;) {
        char *at = s->buffer + s->head;
        size_t have = s->tail - s->head;
        const char *end;
        if (table && s->parser->quote)
            end = csv_end(s->parser, at, have, &quoted);
        else
            end = memchr(at + s->searched, '\n', have - s->searched);
        const char *why = NULL;
        if (!end && quoted && (have > QUOTED_MAX_LEN || s->file_end)) {
            why = "expected the closing quote of a cell";
            end = memchr(at, '\n', have); /* the next line may be a record again */
        }
        if (!end && s->file_end) {
            if (!have)
                return SCAN_END;
            at[have] = '\n';
            end = at + have;
            s->tail++;
        }
        if (end) {
            size_t len = (size_t)(end - at);
            *out = (span){at, len, len + 1, s->line + 1, why};
            s->searched = 0;
            return SCAN_MORE;
        }
        s->searched = have;
        int rc = refill(s);
        if (rc != SCAN_MORE)
            return rc;
    }
}

static int is_blank(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r'))
        at++;
    return at == end;
}

/* Whether at[0..len) begins with a whole line of text. */
static int begins_with_text(const char *at, size_t len)
{
    const char *end = memchr(at, '\n', len);
    for (const char *p = at; end && p < end; p++)
        if (!*p || ((unsigned char)*p >= 14 && (unsigned char)*p < ' '))
            return 0;
    return end != NULL;
}

/* Looks at the first bytes of a file: those that are no records are named, and the mark that UTF-8 may
 * start with is passed. *bin: they are records of ids, though nobody said so. */
static int first_bytes(scan *s, int *bin)
{
    const mr_reader_options *o = &s->options;
    int known_bin = s->parser && s->parser->format == BIN;
    size_t want = known_bin ? MIN(s->parser->record_len, (size_t)SIGNATURE_LEN) : SIGNATURE_LEN;
    const char *name = source_name(s->source), *at;
    size_t have;
    for (;;) {
        at = s->buffer + s->head;
        have = s->tail - s->head;
        if (s->file_end || have >= want || (!known_bin && begins_with_text(at, have)))
            break;
        int rc = refill(s);
        if (rc != SCAN_MORE)
            return rc;
    }
    *bin = known_bin;
    if (signature_check(name, at, MIN(have, (size_t)SIGNATURE_LEN), 0))
        return -1;
    if (!s->parser && !o->schema && memchr(at, 0, have))
        *bin = looks_bin(o, at, have, source_plain_size(s->source));
    if (*bin)
        return SCAN_MORE;
    if (signature_check(name, at, have, 1))
        return -1;
    if (have >= MARK_LEN && !memcmp(at, MARK, MARK_LEN))
        s->head += MARK_LEN;
    return SCAN_MORE;
}

/* The format by the first sample that tells; comments and blank lines before the first one are passed.
 * SCAN_END in a file without samples. */
static int guess(scan *s, format *f)
{
    enum { LOOK = 4096 };
    for (;;) {
        char *at = s->buffer + s->head, *tail = s->buffer + s->tail;
        int samples = 0;
        while (at < tail) {
            char *end = memchr(at, '\n', (size_t)(tail - at));
            if (!end && !s->file_end && tail - at < LOOK)
                break;
            end = end ? end : tail;
            const char *comment = memchr(at, '#', (size_t)(end - at));
            if (!is_blank(at, comment ? comment : end)) {
                samples++;
                if (format_of_line(at, (size_t)((comment ? comment : end) - at), f))
                    return SCAN_MORE;
            } else if (!samples && end < tail) {
                s->head += (size_t)(end + 1 - at);
                s->line++;
            }
            at = MIN(end + 1, tail);
        }
        *f = LIBSVM;
        if (samples && (s->file_end || source_once(s->source) || s->tail - s->head >= LOOK))
            return SCAN_MORE;
        if (s->file_end)
            return SCAN_END;
        int rc = refill(s);
        if (rc != SCAN_MORE)
            return rc;
    }
}

/* Finds out the format and columns of a file of which nothing was handled yet. Without samples in it the
 * format may stay open. */
static int begin_file(scan *s)
{
    int bin = 0, rc = first_bytes(s, &bin);
    if (rc != SCAN_MORE)
        return rc;
    if (!s->parser) {
        format f = s->options.schema ? CSV : BIN;
        if (!s->options.schema && !bin && (rc = guess(s, &f)) != SCAN_MORE) {
            s->fresh = rc != SCAN_END;
            return rc == SCAN_END ? SCAN_MORE : rc;
        }
        if (!(s->parser = parser_new(f, &s->options, source_name(s->source))))
            return -1;
        s->parser->fit = s->fit;
    }
    if (is_table(s)) {
        span line;
        for (;;) {
            rc = span_line(s, &line);
            if (rc == SCAN_END)
                break;
            if (rc != SCAN_MORE)
                return rc;
            if (line.len && !(line.len == 1 && *line.at == '\r'))
                break;
            s->head += line.used;
            s->line++;
        }
        if (rc == SCAN_MORE) {
            int header = csv_bind(s->parser, source_name(s->source), line.line, line.at, line.len);
            if (header < 0)
                return -1;
            if (header) {
                for (size_t i = 0; i < line.len; i++)
                    s->line += line.at[i] == '\n';
                s->line++;
                s->head += line.used;
            }
        }
    }
    s->fresh = 0;
    return SCAN_MORE;
}

/* Opens files until one has a record-like span. */
static int next_span(scan *s, span *out)
{
    for (;;) {
        int rc;
        if (!s->open && (rc = open_next(s)) != SCAN_MORE)
            return rc;
        if (s->fresh && (rc = begin_file(s)) != SCAN_MORE)
            return rc;
        rc = !s->parser ? SCAN_END : is_text(s) ? span_line(s, out) : span_bytes(s, out);
        if (rc != SCAN_END)
            return rc;
        s->open = 0;
    }
}

static void pass(scan *s, const span *x)
{
    s->head += x->used;
    s->line++;
    if (!x->why && is_text(s) && is_table(s) && s->parser->quote)
        for (const char *p = x->at; (p = memchr(p, '\n', (size_t)(x->at + x->len - p))); p++)
            s->line++;
}

/* ---- choosing ---------------------------------------------------------------------------- */

/* Blank, or a comment: no record. */
static int is_empty(const scan *s, const span *x)
{
    if (!is_text(s))
        return 0;
    const char *p = x->at, *end = p + x->len;
    if (s->parser->format == TSV || (is_table(s) && s->parser->separator == '\t'))
        return x->len == 0 || (x->len == 1 && *p == '\r');
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r'))
        p++;
    return p == end || (*p == '#' && !is_table(s));
}

static int chosen(const scan *s, int64_t record)
{
    const mr_reader_options *o = &s->options;
    if (record < o->skip)
        return 0;
    if (!o->part)
        return 1;
    double at = (double)(random_at(SPLIT_SEED, (uint64_t)record) >> 11) * 0x1p-53;
    return (at >= o->split_from && at < o->split) == (o->part == 2);
}

static int past_limit(const scan *s)
{
    const mr_reader_options *o = &s->options;
    return o->limit > 0 && s->record - o->skip >= o->limit;
}

static int note(scan *s, int64_t record, uint64_t line)
{
    return places_note(&s->places, (place){record, line, source_file(s->source)});
}

/* Adds an empty sample for a record that gives none. */
static int commit_bad(const scan *s, samples *out, int64_t record)
{
    const mr_schema *schema = s->options.schema;
    return samples_commit_bad(out, schema ? schema->n : (size_t)s->parser->fields, record);
}

/* Handles a bad record as the options say: 0, or -1. */
static int on_bad(scan *s, const span *x, const char *why, int64_t record, samples *out)
{
    char message[sizeof s->first_bad];
    if (is_text(s))
        snprintf(message, sizeof message, "%s:%llu: %s", source_name(s->source),
                 (unsigned long long)x->line, why);
    else
        snprintf(message, sizeof message, "%s: record %llu (byte %llu): %s", source_name(s->source),
                 (unsigned long long)x->line, (unsigned long long)((x->line - 1) * x->len), why);
    if (s->options.bad_lines == MR_BAD_ERROR)
        return fail("%s", message);
    printable(message);
    if (!s->bad++ && !*s->first_bad)
        memcpy(s->first_bad, message, sizeof message);
    s->bad_most = MAX(s->bad, s->bad_most);
    return s->options.bad_lines == MR_BAD_KEEP && !s->fit ? commit_bad(s, out, record) : 0;
}

int scan_read(scan *s, int64_t n, samples *out)
{
    if (s->parser)
        parser_prepare(s->parser, out);
    for (int64_t i = 0; i < n;) {
        span x;
        if (past_limit(s))
            return SCAN_END;
        int rc = next_span(s, &x);
        if (rc != SCAN_MORE)
            return rc;
        if (!out->n)
            parser_prepare(s->parser, out);
        if (!is_empty(s, &x)) {
            int64_t record = s->record++;
            i++;
            if (note(s, record, x.line))
                return -1;
            if (chosen(s, record)) {
                if (x.why)
                    rc = on_bad(s, &x, x.why, record, out);
                else if ((rc = parse(s->parser, x.at, x.len, record, out)) == BAD)
                    rc = on_bad(s, &x, s->parser->error, record, out);
                if (rc < 0)
                    return -1;
                out->labelled = s->parser->has_label != 0;
                if (s->started == 0 && s->options.max_wait >= 0 && out->n)
                    s->started = mr_clock();
            }
        }
        pass(s, &x);
    }
    return SCAN_MORE;
}

/* Whole records of a plain `bin` file are not even read. */
static int seek_bytes(scan *s, int64_t to)
{
    if (s->parser->format != BIN || s->head != s->tail || s->line)
        return 0;
    int64_t len = (int64_t)s->parser->record_len;
    int64_t n = source_seek(s->source, (to - s->record) * len);
    int64_t records = n / len;
    if (n % len)
        return fail("%s: record %lld is cut short: %lld bytes of %lld", source_name(s->source),
                    (long long)records + 1, (long long)(n % len), (long long)len);
    s->record += records;
    s->line += (uint64_t)records;
    return 0;
}

static int skip(scan *s, int64_t to)
{
    while (s->record < to) {
        span x;
        int rc;
        if (past_limit(s))
            return SCAN_END;
        if (s->parser && s->parser->format == BIN) {
            if (!s->open && (rc = open_next(s)) != SCAN_MORE)
                return rc;
            int64_t before = s->record;
            if (seek_bytes(s, to))
                return -1;
            if (s->record > before)
                s->fresh = 0;
            if (s->record == to)
                break;
        }
        rc = next_span(s, &x);
        if (rc != SCAN_MORE)
            return rc;
        if (!is_empty(s, &x) && note(s, s->record++, x.line))
            return -1;
        pass(s, &x);
    }
    return SCAN_MORE;
}

int scan_skip(scan *s, int64_t to)
{
    if (source_once(s->source)) {
        s->record = to;
        return SCAN_MORE;
    }
    source_follow(s->source, 0); /* what is skipped is there */
    int rc = skip(s, to);
    source_follow(s->source, s->options.follow);
    if (s->options.follow && rc == SCAN_MORE)
        s->file_end = 0;
    if (s->options.stream && rc == SCAN_END && s->record < to)
        return fail(
            "%s: has %lld records, and the position in it is behind %lld: it is shorter than "
            "it was. --from start goes on with what it has now",
            source_name(s->source), (long long)s->record, (long long)to);
    return rc;
}

int64_t mr_records_count(const mr_reader_options *options)
{
    enum { ALL = 40 }; /* bits: more records than there can be */
    scan s;
    int rc = scan_open(&s, options, NULL, NULL);
    if (!rc)
        rc = skip(&s, (int64_t)1 << ALL);
    int64_t n = s.record;
    if (rc == SCAN_STOPPED || rc == SCAN_WAITED)
        rc = fail("reader: interrupted while records were counted");
    scan_close(&s);
    return rc < 0 ? -1 : n;
}

/* ---- the whole --------------------------------------------------------------------------- */

int scan_rewind(scan *s)
{
    s->open = 0;
    s->record = 0;
    s->bad = 0;
    s->head = s->tail = s->searched = 0;
    return source_rewind(s->source);
}

static int check(const mr_reader_options *o)
{
    double held = o->split - o->split_from;
    if (o->part && !(held > 0 && held < 1 && o->split_from >= 0 && o->split <= 1))
        return fail("split: %g is out of range, expected more than 0 and less than 1", held);
    if (o->skip < 0 || o->limit < 0)
        return fail("reader: skip and limit cannot be negative");
    return 0;
}

int scan_open(scan *s, const mr_reader_options *o, fit *f, const atomic_int *stop)
{
    memset(s, 0, sizeof *s);
    places_open(&s->places);
    s->options = *o;
    s->fit = f;
    if (o->schema)
        atomic_fetch_add(&o->schema->refs, 1);
    if (check(o))
        return -1;
    if (!(s->source = source_open(o->files, o->files_n, o->follow, stop)))
        return -1;
    if (o->sizes)
        source_limit(s->source, o->sizes, o->files_n);
    s->room = FIRST_ROOM;
    if (!(s->buffer = memory_new(s->room)))
        return -1;
    int known = o->format ? format_find(o->format) : format_of_name(source_first(s->source));
    if (o->format && known < 0)
        return -1;
    if (!o->format && o->schema && known != TSV)
        known = CSV;
    if (known >= 0) {
        if (!(s->parser = parser_new((format)known, o, source_first(s->source))))
            return -1;
        s->parser->fit = f;
    }
    if (source_once(s->source) || o->follow)
        return 0;
    /* the first file's columns, or lack of them, are the caller's to hear about at once */
    int rc = open_next(s);
    if (rc == SCAN_MORE && (!s->parser || is_table(s))) {
        rc = begin_file(s);
        if (rc == SCAN_STOPPED)
            return fail("reader: interrupted");
    }
    if (rc < 0)
        return -1;
    if (s->parser && s->parser->format == BIN && s->tail && scan_rewind(s))
        return -1; /* so that it can be sought */
    return 0;
}

void scan_close(scan *s)
{
    parser_free(s->parser);
    mr_schema_free(s->options.schema);
    source_close(s->source);
    places_close(&s->places);
    memory_free(s->buffer);
    memset(s, 0, sizeof *s);
}

int scan_where(scan *s, int64_t record, char *out, size_t len)
{
    place at;
    if (!places_find(&s->places, record, &at))
        return 0;
    snprintf(out, len, is_text(s) ? "%s:%llu" : "%s: record %llu",
             source_file_name(s->source, at.file), (unsigned long long)at.line);
    return 1;
}

double scan_progress(const scan *s)
{
    double total = source_total(s->source);
    return total > 0 ? MIN(source_bytes(s->source) / total, 1.0) : -1;
}

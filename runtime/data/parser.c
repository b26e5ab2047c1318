/* parser.c - the formats, and those whose ids stand as they are: libsvm, libffm, libfm, bin.
 *
 *   libsvm, libfm   label [qid:group] key:value ...
 *   libffm          label [qid:group] field:key:value ...
 *   bin             `fields` int64 keys and an int64 label, little-endian
 *
 * Blanks are spaces and tabs; '#' starts a comment. libfm differs from libsvm only in what its
 * users take for a label, so it is read the same way. Digits are read in place by one loop:
 * every line ends in '\n', which stops it. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/number.h"
#include "data/parser.h"

enum { BIN_FIELDS = 39, NUMBERS = 65536 }; /* that a field may have in libffm */

static const char *const names[FORMATS] = {"libsvm", "libffm", "libfm", "csv", "tsv", "bin"};

int format_find(const char *name)
{
    for (int i = 0; i < FORMATS; i++)
        if (!strcmp(name, names[i]))
            return i;
    return fail("format \"%s\": is not one of libsvm, libffm, libfm, csv, tsv, bin", name);
}

int format_of_name(const char *path)
{
    static const struct {
        const char *end;
        format format;
    } known[] = {{"libsvm", LIBSVM}, {"svm", LIBSVM},  {"libffm", LIBFFM},
                 {"ffm", LIBFFM},    {"libfm", LIBFM}, {"fm", LIBFM},
                 {"csv", CSV},       {"tsv", TSV},     {"bin", BIN}};
    const char *base = strrchr(path, '/');
    char name[NAME_LEN];
    snprintf(name, sizeof name, "%s", base ? base + 1 : path);
    char *dot = strrchr(name, '.');
    if (dot && (!strcasecmp(dot, ".gz") || !strcasecmp(dot, ".zst"))) {
        *dot = 0;
        dot = strrchr(name, '.');
    }
    for (size_t i = 0; dot && i < sizeof known / sizeof *known; i++)
        if (!strcasecmp(dot + 1, known[i].end))
            return (int)known[i].format;
    return -1;
}

int format_of_line(const char *at, size_t len, format *f)
{
    size_t tabs = 0, commas = 0, colons = 0, most = 0;
    for (size_t i = 0, here = 0; i < len; i++) {
        tabs += at[i] == '\t';
        commas += at[i] == ',';
        here = at[i] == ' ' || at[i] == '\t' ? 0 : here + (at[i] == ':');
        most = MAX(most, here);
        colons += at[i] == ':';
    }
    *f = colons > commas ? (most == 2 ? LIBFFM : LIBSVM) : tabs > commas ? TSV : CSV;
    return tabs + commas + colons > 0;
}

static int64_t little_endian(const char *at)
{
    uint64_t v;
    memcpy(&v, at, sizeof v);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return (int64_t)v;
}

int looks_bin(const mr_reader_options *o, const char *at, size_t len, double size)
{
    const int64_t most = o->task == MR_BINARY ? 1 : (int64_t)1 << 40;
    size_t record = ((size_t)(o->fields ? o->fields : BIN_FIELDS) + 1) * 8;
    if (len < record || (size >= 0 && fmod(size, (double)record) != 0))
        return 0;
    for (size_t i = record; i <= len; i += record) {
        int64_t label = little_endian(at + i - 8);
        if (label < -most || label > most)
            return 0;
    }
    return 1;
}

int bad(parser *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(p->error, sizeof p->error, format, args);
    va_end(args);
    return BAD;
}

int label_check(parser *p, float *label)
{
    if (p->task != MR_BINARY)
        return PARSED;
    if (*label == 0 && !p->saw_minus) {
        p->saw_zero = 1;
        return PARSED;
    }
    if (*label == -1 && !p->saw_zero) {
        p->saw_minus = 1;
        *label = 0;
        return PARSED;
    }
    if (*label == 1)
        return PARSED;
    return bad(p, "expected a label of %s, found %g",
               p->saw_zero    ? "0 or 1, as before"
               : p->saw_minus ? "-1 or 1, as before"
                              : "0 or 1 (or -1 or 1)",
               (double)*label);
}

/* ---- libsvm, libffm, libfm --------------------------------------------------------------- */

static inline int blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static inline int stop(char c) /* of an entry */
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '#';
}

/* Bytes of the word at s that a message shows. */
static int word(const char *s)
{
    int n = 0;
    while (n < 40 && !stop(s[n]))
        n++;
    return n;
}

static int bad_key(parser *p, const char *s, const char *what, int rc)
{
    if (!strncmp(s, "qid:", 4))
        return bad(p, "expected a query id (\"%.*s\") right behind the label, once", word(s), s);
    if (rc == NUMBER_RANGE)
        return bad(p, "expected %s of at most 64 bits, found \"%.*s\"", what, word(s), s);
    return bad(p, "expected %s, found \"%.*s\"", what, word(s), s);
}

/* Reads the label, if the line has one, and moves behind it. */
static int read_label(parser *p, const char **at, float *label)
{
    const char *s = *at, *t = s;
    *label = 0;
    int rc = number_read_float(&t, label);
    int is_entry = t > s && *t == ':';
    if (p->labels == MR_LABELS_AUTO && p->has_label < 0)
        p->has_label = !is_entry && !stop(*s);
    if (p->labels == MR_LABELS_IGNORED || p->has_label == 0) {
        if (is_entry || stop(*s))
            return PARSED;
        if (p->labels != MR_LABELS_IGNORED)
            return bad(p, "expected key:value, as the first line has no label, found \"%.*s\"",
                       word(s), s);
        for (*at = s; !stop(**at); ++*at)
            ;
        return PARSED;
    }
    if (is_entry || rc == NUMBER_NONE || !stop(*t))
        return bad(p, "expected a label, found \"%.*s\"", word(s), s);
    if (rc == NUMBER_RANGE)
        return bad(p, "expected a finite label, found \"%.*s\"", word(s), s);
    *at = t;
    return label_check(p, label);
}

/* Reads "qid:N" at *at, if it is there, and moves behind it. */
static int read_group(parser *p, const char **at, samples *out)
{
    const char *s = *at + 4;
    uint64_t group;
    if (strncmp(*at, "qid:", 4))
        return PARSED;
    if (integer_read_padded(&s, &group) != NUMBER_OK || !stop(*s))
        return bad(p, "expected a query id of up to 64 bits, found \"%.*s\"", word(*at), *at);
    if (samples_group(out))
        return -1;
    out->group[out->n] = group;
    *at = s;
    return PARSED;
}

static inline int parse_sparse(parser *p, const char *s, size_t len, int64_t record, samples *out,
                               const int with_field)
{
    float label;
    size_t end = out->entries;
    if (samples_reserve(out, len / 2 + 1))
        return -1;
    while (blank(*s))
        s++;
    while (*s == MARK[0] && !strncmp(s, MARK, MARK_LEN)) /* of files that were put together */
        s += MARK_LEN;
    if (read_label(p, &s, &label))
        return BAD;
    while (blank(*s))
        s++;
    if (out->grouped)
        out->group[out->n] = 0;
    int rc = *s == 'q' ? read_group(p, &s, out) : PARSED;
    if (rc != PARSED)
        return rc;
    for (;;) {
        while (blank(*s))
            s++;
        if (*s == '\n' || *s == '#')
            break;
        const char *start = s;
        uint64_t key, number = 0;
        float value = 1;
        if (with_field) {
            rc = integer_read_padded(&s, &number);
            if (rc != NUMBER_OK)
                return bad_key(p, start, "field:key:value", rc);
            if (*s != ':')
                return bad_key(p, start, "field:key:value", NUMBER_NONE);
            s++;
        }
        const char *what = with_field ? "a key after the field" : "key:value";
        rc = integer_read_padded(&s, &key);
        if (rc != NUMBER_OK)
            return bad_key(p, s, rc == NUMBER_RANGE ? "a key" : what, rc);
        if (*s != ':')
            return bad_key(p, start, with_field ? "field:key:value" : "key:value", NUMBER_NONE);
        s++;
        if (with_field && number >= (p->fields ? (uint64_t)p->fields : NUMBERS))
            return bad(p, "expected a field below %d, found %llu",
                       p->fields && number < NUMBERS ? p->fields : NUMBERS,
                       (unsigned long long)number);
        if (*s == '1' && stop(s[1])) {
            s++;
        } else {
            const char *at = s;
            rc = number_read_float(&s, &value);
            if (rc == NUMBER_RANGE)
                return bad(p, "expected a finite value of key %llu, found \"%.*s\"",
                           (unsigned long long)key, word(at), at);
            if (rc != NUMBER_OK || !stop(*s))
                return bad(p, "expected a number as value of key %llu, found \"%.*s\"",
                           (unsigned long long)key, word(at), at);
        }
        if (value != 1 && !out->valued && samples_value(out, end))
            return -1;
        out->keys[end] = key;
        if (out->valued)
            out->values[end] = value;
        if (with_field)
            out->field[end] = (uint16_t)number;
        end++;
    }
    if (!with_field && p->fields && end - out->entries != (size_t)p->fields)
        return bad(p, "expected %d entries, one of each field, found %zu", p->fields,
                   end - out->entries);
    samples_commit(out, end, label, 1, record);
    return PARSED;
}

/* ---- bin --------------------------------------------------------------------------------- */

static int parse_bin(parser *p, const char *at, int64_t record, samples *out)
{
    size_t n = (size_t)p->fields;
    if (samples_reserve(out, n))
        return -1;
    memcpy(out->keys + out->entries, at, n * sizeof *out->keys);
    int64_t label = little_endian(at + n * sizeof *out->keys);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    for (size_t i = 0; i < n; i++)
        out->keys[out->entries + i] = __builtin_bswap64(out->keys[out->entries + i]);
#endif
    float y = p->labels == MR_LABELS_IGNORED ? 0 : (float)label;
    if (p->labels != MR_LABELS_IGNORED && label_check(p, &y))
        return BAD;
    if (out->valued)
        for (size_t i = 0; i < n; i++)
            out->values[out->entries + i] = 1;
    samples_commit(out, out->entries + n, y, 1, record);
    return PARSED;
}

void parser_prepare(const parser *p, samples *out)
{
    const mr_schema *s = p->extractor.schema;
    out->fielded = s ? !s->single : p->format == LIBFFM;
    out->weighted = s && s->weight && p->labels != MR_LABELS_IGNORED;
    out->width = p->running ? s->moving : 0;
}

/* ---- any --------------------------------------------------------------------------------- */

int parse(parser *p, char *at, size_t len, int64_t record, samples *out)
{
    switch (p->format) {
    case LIBSVM:
    case LIBFM:
        return parse_sparse(p, at, len, record, out, 0);
    case LIBFFM:
        return parse_sparse(p, at, len, record, out, 1);
    case BIN:
        return parse_bin(p, at, record, out);
    default:
        return parse_csv(p, at, len, record, out);
    }
}

parser *parser_new(format f, const mr_reader_options *o, const char *file)
{
    int table = f == CSV || f == TSV;
    if (table && !o->schema)
        return fail_null("%s: format %s needs a schema (--schema FILE.lua)", file, names[f]);
    if (!table && o->schema)
        return fail_null("%s: format %s does not go with a schema, which reads csv and tsv", file,
                         names[f]);
    if (o->fields < 0 || o->fields >= NUMBERS)
        return fail_null("fields: %d is out of range, expected 1 to %d", o->fields, NUMBERS - 1);
    parser *p = memory_zero(sizeof *p);
    if (!p)
        return NULL;
    p->format = f;
    p->fields = f == BIN && !o->fields ? BIN_FIELDS : o->fields;
    p->task = o->task;
    p->labels = o->labels;
    p->has_label = o->labels == MR_LABELS_IGNORED ? 0 : o->labels == MR_LABELS_AUTO ? -1 : 1;
    if (table && o->labels == MR_LABELS_REQUIRED && !o->schema->label) {
        fail("schema \"%s\": names no label", o->schema->name);
        memory_free(p);
        return NULL;
    }
    if (f == BIN) {
        p->record_len = (size_t)(p->fields + 1) * 8;
        p->has_label = o->labels != MR_LABELS_IGNORED;
    }
    if (table) {
        const char *separator = o->schema->separator;
        p->blanks = !*separator;
        p->separator = p->blanks ? ' ' : *separator;
        p->more = p->blanks ? 0 : strlen(separator) - 1;
        p->quote = o->schema->quote;
        p->escape = o->schema->escape;
        p->decimal = o->schema->decimal;
        p->running = o->running && o->schema->moving;
        p->cells = memory_zero(MAX(o->schema->slots.n, (size_t)1) * sizeof *p->cells);
        if (!p->cells || extractor_new(&p->extractor, o->schema)) {
            parser_free(p);
            return NULL;
        }
    }
    return p;
}

void parser_free(parser *p)
{
    if (!p)
        return;
    if (p->extractor.schema)
        extractor_free(&p->extractor);
    memory_free(p->map);
    memory_free(p->cells);
    memory_free(p);
}

/* parser_csv.c - CSV and TSV: cells by the schema's columns.
 *
 * As in RFC 4180 a cell that starts with a quote ends with one, holds separators and line ends
 * as they are, and "" for a quote. A quote elsewhere is a byte like any other. With an escape, it makes
 * a quote, a separator or itself behind it text. A record has as many cells as the file has columns. Cells
 * point into the record, which is changed only where a cell has quotes or escapes inside. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/parser.h"

/* Whether a separator starts at s. */
static inline int separates(const parser *p, const char *s, const char *end)
{
    if (*s != p->separator)
        return p->blanks && *s == '\t';
    return !p->more || ((size_t)(end - s) > p->more &&
                        !memcmp(s + 1, p->extractor.schema->separator + 1, p->more));
}

/* Behind the separator at s. */
static char *behind(const parser *p, char *s, const char *end)
{
    if (!p->blanks)
        return s + 1 + p->more;
    while (s < end && (*s == ' ' || *s == '\t'))
        s++;
    return s;
}

/* Whether the byte at s makes the next one text. */
static inline int escapes(const parser *p, const char *s, const char *end)
{
    return p->escape && *s == p->escape && s + 1 < end &&
           (s[1] == p->escape || (p->quote && s[1] == '"') || separates(p, s + 1, end));
}

/* The quote that ends a cell: the next one that is not escaped; NULL if there is none. */
static char *quote_end(const parser *p, char *s, const char *end)
{
    if (!p->escape)
        return memchr(s, '"', (size_t)(end - s));
    for (; s < end; s++) {
        if (*s == p->escape && s + 1 < end && (s[1] == '"' || s[1] == p->escape))
            s++;
        else if (*s == '"')
            return s;
    }
    return NULL;
}

/* Takes the escapes out of from[0..len); the new length. */
static size_t unescape(const parser *p, char *from, size_t len)
{
    char *to = from, *end = from + len;
    for (char *s = from; s < end; *to++ = *s++)
        s += escapes(p, s, end);
    return (size_t)(to - from);
}

const char *csv_end(const parser *p, const char *at, size_t len, int *quoted)
{
    const char *end = at + len, *line = memchr(at, '\n', len);
    *quoted = 0;
    size_t first = line ? (size_t)(line - at) : len;
    if (!p->quote || !memchr(at, '"', first))
        return line;
    enum { START, PLAIN, QUOTED } state = START;
    int trim = p->extractor.schema->trim;
    for (const char *s = at; s < end; s++) {
        if (state == QUOTED) {
            s = quote_end(p, (char *)(uintptr_t)s, end);
            if (!s)
                break;
            if (s + 1 < end && s[1] == '"')
                s++;
            else
                state = PLAIN;
        } else if (*s == '\n') {
            return s;
        } else if (separates(p, s, end)) {
            state = START;
            s += p->more;
        } else if (state == START && *s == '"') {
            state = QUOTED;
        } else if (!(state == START && trim && *s == ' ')) {
            state = PLAIN;
            s += escapes(p, s, end);
        }
    }
    *quoted = state == QUOTED;
    return NULL;
}

/* What may help where a quoted cell ends in its middle. */
static const char *quote_hint(const parser *p, const char *quote)
{
    return !p->escape && quote[-1] == '\\'
               ? "; if \\\" stands for a quote, say so in the schema: escape = \"\\\\\""
               : "";
}

/* Takes the next cell off *at; 0, or BAD. *last: it was the record's last. */
static int take(parser *p, char **at, const char *end, cell *c, int *last)
{
    char *s = *at;
    int trim = p->extractor.schema->trim;
    c->parsed = 0;
    c->decimal = p->decimal;
    while (trim && s < end && *s == ' ' && !separates(p, s, end))
        s++;
    if (p->quote && s < end && *s == '"') {
        char *from = ++s, *to = s, *q;
        for (;;) {
            q = quote_end(p, s, end);
            if (!q)
                return bad(p, "expected a closing quote of the cell \"%.*s",
                           (int)MIN(end - from, 40), from);
            size_t n = (size_t)(q - s);
            if (to != s)
                memmove(to, s, n);
            to += n;
            s = q + 1;
            if (s == end || *s != '"')
                break;
            *to++ = '"';
            s++;
        }
        if (p->escape)
            to = from + unescape(p, from, (size_t)(to - from));
        *to = 0; /* stands in place of a quote */
        c->at = from;
        c->len = (size_t)(to - from);
        while (trim && s < end && *s == ' ' && !separates(p, s, end))
            s++;
        if (s < end && !separates(p, s, end))
            return bad(p, "expected the separator after a closing quote, found \"%.*s\"%s",
                       (int)MIN(end - s, 40), s, quote_hint(p, q));
    } else {
        char *from = s;
        if (p->more || p->blanks || p->escape)
            while (s < end && !separates(p, s, end))
                s += 1 + escapes(p, s, end);
        else
            while (s < end && *s != p->separator)
                s++;
        char *to = s;
        while (trim && to > from && (to[-1] == ' ' || (to[-1] == '\t')))
            to--;
        c->at = from;
        c->len = (size_t)(to - from);
        if (p->escape && memchr(from, p->escape, c->len)) {
            size_t len = unescape(p, from, c->len);
            if (len < c->len)
                from[len] = 0;
            c->len = len;
        }
    }
    *last = s == end;
    *at = *last ? s : behind(p, s, end);
    return PARSED;
}

/* Without the line end's '\r', byte order marks, and blanks around where these separate. */
static void strip(const parser *p, char **at, size_t *len)
{
    for (; *len >= MARK_LEN && !memcmp(*at, MARK, MARK_LEN); *at += MARK_LEN)
        *len -= MARK_LEN;
    if (*len && (*at)[*len - 1] == '\r')
        --*len;
    if (!p->blanks)
        return;
    while (*len && ((*at)[*len - 1] == ' ' || (*at)[*len - 1] == '\t'))
        --*len;
    for (; *len && (**at == ' ' || **at == '\t'); ++*at)
        --*len;
}

static int bind(parser *p, const char *file, const char *where, char *const *columns, size_t n)
{
    const mr_schema *s = p->extractor.schema;
    int *map = memory_new(MAX(n, (size_t)1) * sizeof *map);
    int has_label = 0;
    if (!map || schema_bind(s, where, columns, n, p->labels == MR_LABELS_REQUIRED && !p->fit,
                            p->labels != MR_LABELS_IGNORED && !p->fit, map, &has_label)) {
        memory_free(map);
        return -1;
    }
    memory_free(p->map);
    p->map = map;
    p->map_n = n;
    if (p->has_label == 1 && !has_label && s->label && p->labels != MR_LABELS_REQUIRED)
        return fail("%s: has no label column \"%s\", but the files before it have one", file,
                    s->label);
    if (p->labels == MR_LABELS_AUTO)
        p->has_label = has_label;
    return 0;
}

/* The names of the cells of a line, in `found`; 0, -1, or BAD. */
static int names_of(parser *p, const char *line, size_t len, list *found)
{
    char *copied = malloc(len + 1), *at = copied;
    int rc = copied ? 0 : fail("schema: out of memory"), last = 0;
    if (copied)
        memcpy(copied, line, len);
    while (!rc && !last) {
        cell c = {0};
        char name[NAME_LEN];
        if ((rc = take(p, &at, copied + len, &c, &last)))
            break;
        snprintf(name, sizeof name, "%.*s", (int)MIN(c.len, (size_t)NAME_LEN - 1), c.at);
        rc = list_add(found, name) < 0 ? -1 : 0;
    }
    free(copied);
    return rc;
}

/* The schema's columns, by their place, for records of n cells: without the label or the weight where that
 * makes them as many, and neither is needed. */
static int bind_places(parser *p, const char *file, const char *where, size_t n)
{
    const mr_schema *s = p->extractor.schema;
    const list *all = &s->columns;
    size_t lacks = all->n > n ? all->n - n : 0;
    int label = s->label && p->labels != MR_LABELS_REQUIRED;
    int weight = s->weight && p->labels == MR_LABELS_IGNORED;
    if (!lacks || lacks > (size_t)(label + weight))
        return bind(p, file, where, all->at, all->n);
    if (lacks == 1 && label && weight)
        return fail("%s: has %zu cells for the schema's %zu columns, and it cannot be told whether "
                    "the label "
                    "\"%s\" is missing or the weight \"%s\": leave both out, or give a header",
                    where, n, all->n, s->label, s->weight);
    char **left = malloc(all->n * sizeof *left);
    if (!left)
        return fail("%s: out of memory", file);
    size_t m = 0;
    for (size_t i = 0; i < all->n; i++)
        if (!(label && !strcmp(all->at[i], s->label)) &&
            !(weight && !strcmp(all->at[i], s->weight)))
            left[m++] = all->at[i];
    int rc = bind(p, file, where, left, m);
    free(left);
    return rc;
}

int csv_bind(parser *p, const char *file, uint64_t number, char *line, size_t len)
{
    const mr_schema *s = p->extractor.schema;
    char where[1024];
    list found = {0};
    strip(p, &line, &len);
    snprintf(where, sizeof where, "%s:%llu", file, (unsigned long long)number);
    int rc = names_of(p, line, len, &found);
    if (rc == BAD && s->header)
        rc = fail("%s: %s", where, p->error);
    else if (rc == BAD) /* the record will say so itself */
        rc = bind(p, file, file, s->columns.at, s->columns.n);
    else if (!rc && s->header == MR_HEADER_NAMES)
        rc = bind(p, file, where, found.at, found.n);
    else if (!rc)
        rc = bind_places(p, file, s->header ? where : file, found.n);
    for (size_t i = 0; i < found.n; i++)
        free(found.at[i]);
    free(found.at);
    return rc < 0 ? -1 : s->header != MR_HEADER_NONE;
}

static int shown(const cell *c)
{
    return (int)MIN(c->len, (size_t)60);
}

static int read_label(parser *p, cell *c, float *label)
{
    const mr_schema *s = p->extractor.schema;
    *label = 0;
    if (s->positive.n) {
        *label = (float)values_have(&s->positive, c);
        if (*label > 0 || (!c->missing && (!s->negative.n || values_have(&s->negative, c))))
            return PARSED;
        return bad(p, "column \"%.200s\": expected a label the schema names, found \"%.*s\"",
                   s->label, shown(c), c->at);
    }
    if (!cell_number(c) && c->missing)
        return bad(p, "column \"%.200s\": expected a label, found \"%.*s\"", s->label, shown(c),
                   c->at);
    if (!cell_number(c))
        return bad(p,
                   "column \"%.100s\": expected a label, found \"%.*s\"; the schema names labels "
                   "that are texts: label = { \"%.100s\", positive = { \"%.*s\" } }",
                   s->label, shown(c), c->at, s->label, shown(c), c->at);
    *label = (float)c->number;
    if (!isfinite(*label))
        return bad(p, "column \"%.200s\": expected a finite label, found \"%.*s\"", s->label,
                   shown(c), c->at);
    return label_check(p, label);
}

int parse_csv(parser *p, char *at, size_t len, int64_t record, samples *out)
{
    const mr_schema *s = p->extractor.schema;
    strip(p, &at, &len);
    char *end = at + len;
    float label = 0, weight = 1;
    int last = 0;
    size_t n = 0;
    while (!last) {
        cell c;
        if (take(p, &at, end, &c, &last))
            return BAD;
        int slot = n < p->map_n ? p->map[n] : -1;
        if (slot >= 0) {
            c.missing = list_find(&s->missing, c.at, c.len) >= 0;
            p->cells[slot] = c;
        }
        n++;
    }
    if (n != p->map_n && s->header == MR_HEADER_NAMES)
        return bad(p, "expected %zu cells, found %zu", p->map_n, n);
    if (n != p->map_n)
        return bad(p, "expected %zu cells, one for each column of schema \"%.200s\", found %zu",
                   p->map_n, s->name, n);
    if (p->fit)
        return fit_observe(p->fit, p->cells, record, p->error, sizeof p->error);
    if (p->has_label > 0 && s->label && read_label(p, &p->cells[s->label_slot], &label))
        return BAD;
    if (out->weighted) {
        cell *c = &p->cells[s->weight_slot];
        if (!cell_number(c) || !(c->number >= 0) || !isfinite((float)c->number))
            return bad(p,
                       "column \"%.200s\": expected a sample weight of at least 0, found "
                       "\"%.*s\"",
                       s->weight, shown(c), c->at);
        weight = (float)c->number;
    }
    size_t entries;
    if (samples_reserve(out, s->n))
        return -1;
    int rc = extract(&p->extractor, p->cells, out, &entries, p->error, sizeof p->error);
    if (rc)
        return rc;
    if (p->running)
        moving_observe(&p->extractor, p->cells, out->numbers + out->n * out->width);
    samples_commit(out, entries, label, weight, record);
    return PARSED;
}

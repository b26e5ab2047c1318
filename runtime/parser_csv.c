/* parser_csv.c - CSV and TSV: cells by the schema's columns.
 *
 * As in RFC 4180 a cell that starts with a quote ends with one, holds separators and line ends
 * as they are, and "" for a quote. A quote elsewhere is a byte like any other. A record has as
 * many cells as the file has columns. Cells point into the record, which is changed only where
 * a cell has quotes inside. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parser.h"

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
            s = memchr(s, '"', (size_t)(end - s));
            if (!s)
                break;
            if (s + 1 < end && s[1] == '"')
                s++;
            else
                state = PLAIN;
        } else if (*s == '\n') {
            return s;
        } else if (*s == p->separator) {
            state = START;
        } else if (state == START && *s == '"') {
            state = QUOTED;
        } else if (state == START && !(trim && *s == ' ')) {
            state = PLAIN;
        }
    }
    *quoted = state == QUOTED;
    return NULL;
}

/* Takes the next cell off *at; 0, or BAD. *last: it was the record's last. */
static int take(parser *p, char **at, const char *end, cell *c, int *last)
{
    char *s = *at;
    int trim = p->extractor.schema->trim;
    c->parsed = 0;
    while (trim && s < end && *s == ' ' && *s != p->separator)
        s++;
    if (p->quote && s < end && *s == '"') {
        char *from = ++s, *to = s;
        for (;;) {
            char *q = memchr(s, '"', (size_t)(end - s));
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
        *to = 0; /* stands in place of a quote */
        c->at = from;
        c->len = (size_t)(to - from);
        while (trim && s < end && *s == ' ' && *s != p->separator)
            s++;
        if (s < end && *s != p->separator)
            return bad(p, "expected the separator after a closing quote, found \"%.*s\"",
                       (int)MIN(end - s, 40), s);
    } else {
        char *from = s;
        while (s < end && *s != p->separator)
            s++;
        char *to = s;
        while (trim && to > from && (to[-1] == ' ' || (to[-1] == '\t')))
            to--;
        c->at = from;
        c->len = (size_t)(to - from);
    }
    *last = s == end;
    *at = s + !*last;
    return PARSED;
}

static size_t without_cr(const char *at, size_t len)
{
    return len && at[len - 1] == '\r' ? len - 1 : len;
}

static int bind(parser *p, const char *file, char *const *columns, size_t n)
{
    const mr_schema *s = p->extractor.schema;
    int *map = memory_new(MAX(n, (size_t)1) * sizeof *map);
    int has_label = 0;
    if (!map || schema_bind(s, file, columns, n, p->labels == MR_LABELS_REQUIRED && !p->fit, map,
                            &has_label)) {
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

int csv_bind(parser *p, const char *file, char *line, size_t len)
{
    const mr_schema *s = p->extractor.schema;
    list found = {0};
    char *copied = NULL;
    int rc = -1, last = 0;
    len = without_cr(line, len);
    if (!(copied = malloc(len + 1))) {
        fail("%s: out of memory", file);
        goto done;
    }
    memcpy(copied, line, len);
    for (char *at = copied; !last;) {
        cell c = {0};
        if (take(p, &at, copied + len, &c, &last)) {
            if (s->header) {
                fail("%s:1: %s", file, p->error);
                goto done;
            }
            found.n = 0; /* the record will say so itself */
            break;
        }
        char name[NAME_LEN];
        snprintf(name, sizeof name, "%.*s", (int)MIN(c.len, (size_t)NAME_LEN - 1), c.at);
        if (list_add(&found, name) < 0)
            goto done;
    }
    if (!s->header || s->columns.n) {
        list columns = s->columns;
        char **without = NULL;
        int label = s->label ? list_find(&columns, s->label, strlen(s->label)) : -1;
        if (found.n + 1 == columns.n && label >= 0 && p->labels != MR_LABELS_REQUIRED) {
            without = malloc(columns.n * sizeof *without);
            if (!without) {
                fail("%s: out of memory", file);
                goto done;
            }
            memcpy(without, columns.at, (size_t)label * sizeof *without);
            memcpy(without + label, columns.at + label + 1,
                   (columns.n - (size_t)label - 1) * sizeof *without);
            columns = (list){without, columns.n - 1};
        }
        if (s->header && found.n != columns.n)
            rc = fail("%s:1: expected a header of %zu columns, as the schema names, found %zu",
                      file, columns.n, found.n);
        else
            rc = bind(p, file, columns.at, columns.n);
        free(without);
    } else {
        rc = bind(p, file, found.at, found.n);
    }
    if (!rc)
        rc = s->header;
done:
    for (size_t i = 0; i < found.n; i++)
        free(found.at[i]);
    free(found.at);
    free(copied);
    return rc;
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
        *label = list_find(&s->positive, c->at, c->len) >= 0;
        if (*label ||
            (!c->missing && (!s->negative.n || list_find(&s->negative, c->at, c->len) >= 0)))
            return PARSED;
        return bad(p, "column \"%.200s\": expected a label the schema names, found \"%.*s\"",
                   s->label, shown(c), c->at);
    }
    if (!cell_number(c))
        return bad(p, "column \"%.200s\": expected a label, found \"%.*s\"", s->label, shown(c),
                   c->at);
    *label = (float)c->number;
    if (!isfinite(*label))
        return bad(p, "column \"%.200s\": expected a finite label, found \"%.*s\"", s->label,
                   shown(c), c->at);
    return label_check(p, label);
}

int parse_csv(parser *p, char *at, size_t len, int64_t record, samples *out)
{
    const mr_schema *s = p->extractor.schema;
    char *end = at + without_cr(at, len);
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
    if (n != p->map_n)
        return bad(p, "expected %zu cells, found %zu", p->map_n, n);
    if (p->fit)
        return fit_observe(p->fit, p->cells, record, p->error, sizeof p->error);
    if (p->has_label > 0 && s->label && read_label(p, &p->cells[s->label_slot], &label))
        return BAD;
    if (s->weight) {
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
    samples_commit(out, entries, label, weight, record);
    return PARSED;
}

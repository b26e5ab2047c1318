/* import_text.c - rows from lines of tab-separated cells, as export_text.c writes them. A line of names
 * holds until the next one: table, key, perhaps step, and cells of columns in any order: all weights of
 * a column, perhaps its count, perhaps all of its state. Empty cells: the row has not got the column. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/export.h"

enum { CELL_STEP, CELL_COUNT, CELL_NUMBER };

typedef struct cell {
    uint8_t kind, column;
    uint32_t index; /* of the column's floats, state included */
} cell;

typedef struct text {
    adding *a;
    in_file *in;
    uint64_t line, head_line;
    char *head; /* the last line of names */
    size_t head_room;
    mr_table *t; /* that the names were understood for, or NULL */
    cell *cells; /* [n], those after table and key */
    size_t n, room;
    uint32_t columns, states; /* that the names tell of */
} text;

static int text_fail(const text *x, uint64_t line, const char *what)
{
    char why[700];
    snprintf(why, sizeof why, "%s", what);
    return fail("%s:%" PRIu64 ": %s", x->in->path, line, why);
}

/* Cuts the next cell off; NULL after the last. */
static char *cell_next(char **rest)
{
    char *cell = *rest;
    if (!cell)
        return NULL;
    char *tab = strchr(cell, '\t');
    if (tab)
        *tab = 0;
    *rest = tab ? tab + 1 : NULL;
    return cell;
}

static int whole_number(const char *cell, uint64_t most, uint64_t *out)
{
    if (!*cell || cell[strspn(cell, "0123456789")])
        return -1;
    errno = 0;
    *out = strtoull(cell, NULL, 10);
    return errno || *out > most ? -1 : 0;
}

/* ---- the line of names ---- */

static int name_read(const mr_table *t, const char *name, cell *out)
{
    uint64_t i;
    *out = (cell){CELL_STEP, 0, 0};
    if (!strcmp(name, "step"))
        return 0;
    for (uint32_t c = 0; c < t->columns; c++) {
        const table_column *column = &t->column[c];
        size_t len = strlen(column->name);
        if (strncmp(name, column->name, len) || name[len] != '.')
            continue;
        const char *rest = name + len + 1;
        out->column = (uint8_t)c;
        out->kind = !strcmp(rest, "count") ? CELL_COUNT : CELL_NUMBER;
        if (out->kind == CELL_COUNT)
            return 0;
        int state = !strncmp(rest, "state.", 6);
        if (whole_number(rest + (state ? 6 : 0), UINT32_MAX, &i) ||
            i >= (state ? column->state : column->dim))
            continue;
        out->index = (uint32_t)i + (state ? column->dim : 0);
        return 0;
    }
    return -1;
}

/* Each column that is named has all of its weights, and all of its state or none of it. */
static int names_check(text *x)
{
    char what[400];
    x->columns = x->states = 0;
    for (uint32_t c = 0; c < x->t->columns; c++) {
        const table_column *column = &x->t->column[c];
        uint32_t weights = 0, states = 0, counts = 0;
        for (size_t i = 0; i < x->n; i++) {
            if (x->cells[i].kind == CELL_STEP || x->cells[i].column != c)
                continue;
            counts += x->cells[i].kind == CELL_COUNT;
            weights += x->cells[i].kind == CELL_NUMBER && x->cells[i].index < column->dim;
            states += x->cells[i].kind == CELL_NUMBER && x->cells[i].index >= column->dim;
        }
        if (!weights && !states && !counts)
            continue;
        if (weights != column->dim || (states && states != column->state)) {
            snprintf(what, sizeof what,
                     "table %.100s: column %.100s has %u numbers and %u of state here, expected %u "
                     "and %u "
                     "(or no state)",
                     x->t->name, column->name, weights, states, column->dim, column->state);
            return text_fail(x, x->head_line, what);
        }
        x->columns |= 1u << c;
        x->states |= (uint32_t)(states || !column->state) << c;
    }
    return 0;
}

static int names_read(text *x, mr_table *t)
{
    char what[400], *rest = x->head + strlen("table\tkey");
    if (!x->head_line)
        return text_fail(x, x->line, "expected a line of names first: table, key, ...");
    x->t = t;
    x->n = 0;
    rest = *rest ? rest + 1 : NULL;
    for (char *name; (name = cell_next(&rest)); name[strlen(name)] = rest ? '\t' : 0) {
        if (memory_reserve((void **)&x->cells, &x->room, x->n + 1, sizeof *x->cells))
            return -1;
        if (name_read(t, name, &x->cells[x->n++])) {
            snprintf(what, sizeof what, "table %.100s has no column for the cells %.100s", t->name,
                     name);
            return text_fail(x, x->head_line, what);
        }
    }
    return names_check(x);
}

static int names_keep(text *x, const char *line, size_t len)
{
    if (memory_reserve((void **)&x->head, &x->head_room, len + 1, 1))
        return -1;
    memcpy(x->head, line, len + 1);
    x->head_line = x->line;
    x->t = NULL;
    return 0;
}

/* ---- a row ---- */

static int cell_read(const text *x, row *r, const cell *c, const char *cell, uint32_t *empty)
{
    uint64_t number = 0;
    char *end;
    if (c->kind == CELL_STEP)
        return whole_number(cell, UINT64_MAX, &r->step);
    if (!*cell) {
        *empty |= 1u << c->column;
        return 0;
    }
    if (c->kind == CELL_COUNT) {
        if (whole_number(cell, UINT32_MAX, &number))
            return -1;
        r->count[c->column] = (uint32_t)number;
        return 0;
    }
    row_column(x->t, r, c->column)[c->index] = strtof(cell, &end);
    return end == cell || *end ? -1 : 0;
}

static int line_read(text *x, char *line)
{
    char what[400], *rest = line, *name = cell_next(&rest), *key = cell_next(&rest);
    mr_table *t = adding_table(x->a, name);
    uint64_t number;
    if (!t)
        return text_fail(x, x->line, mr_error());
    if (x->t != t && names_read(x, t))
        return -1;
    if (adding_begin(x->a, t))
        return text_fail(x, x->line, mr_error());
    if (!key || whole_number(key, UINT64_MAX, &number)) {
        snprintf(what, sizeof what, "\"%.40s\" is no key, a whole number below 2^64",
                 key ? key : "");
        return text_fail(x, x->line, what);
    }
    row *r = adding_row(x->a, x->columns, x->states);
    if (!r)
        return -1;
    r->key = number;
    uint32_t empty = 0;
    size_t i = 0;
    for (char *cell; (cell = cell_next(&rest)); i++) {
        if (i < x->n && cell_read(x, r, &x->cells[i], cell, &empty)) {
            snprintf(what, sizeof what,
                     "table %.100s, key %" PRIu64 ": cell %zu, \"%.40s\", is no number", t->name,
                     r->key, i + 3, cell);
            return text_fail(x, x->line, what);
        }
    }
    if (i != x->n) {
        snprintf(what, sizeof what, "%zu cells, expected %zu, as line %" PRIu64 " has", i + 2,
                 x->n + 2, x->head_line);
        return text_fail(x, x->line, what);
    }
    adding_given(x->a, x->columns & ~empty);
    return adding_done(x->a) ? text_fail(x, x->line, mr_error()) : 0;
}

int import_text(adding *a, const char *path)
{
    text x = {.a = a, .in = in_open(path)};
    char *line;
    size_t len;
    int more = x.in ? 0 : -1, bad = 0;
    while (x.in && !bad && (more = in_line(x.in, &line, &len)) > 0) {
        x.line++;
        if (!strcmp(line, "table\tkey") || !strncmp(line, "table\tkey\t", 10))
            bad = names_keep(&x, line, len);
        else if (*line)
            bad = line_read(&x, line);
    }
    in_close(x.in);
    memory_free(x.head);
    memory_free(x.cells);
    return bad || more < 0 ? -1 : 0;
}

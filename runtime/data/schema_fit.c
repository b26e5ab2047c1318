/* schema_fit.c - means, deviations and quantiles over the training data, and their text.
 *
 * Records come in order, on one thread, so the same data gives the same bits. Means and
 * deviations (of the population) are Welford's. Quantiles are exact up to SAMPLE values of a
 * column; beyond, they are those of the SAMPLE values whose records have the smallest hashes:
 * a uniform sample that depends on nothing but the records. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "data/schema.h"

enum { SAMPLE = 1 << 20 };

typedef struct picked {
    uint64_t hash; /* of the record's number */
    double value;
} picked;

typedef struct column {
    double n, mean, squares; /* Welford's */
    picked *values;          /* bucket fields */
    size_t values_n, values_room;
    uint64_t bound; /* hashes from here on are left out */
} column;

struct fit {
    mr_schema *schema;
    column *columns; /* [schema->n], by field */
    int64_t records; /* observed */
};

fit *fit_new(mr_schema *s)
{
    fit *f = memory_zero(sizeof *f);
    if (!f)
        return NULL;
    f->schema = s;
    f->columns = memory_zero(MAX(s->n, (size_t)1) * sizeof *f->columns);
    if (!f->columns) {
        memory_free(f);
        return NULL;
    }
    for (size_t i = 0; i < s->n; i++)
        f->columns[i].bound = UINT64_MAX;
    return f;
}

void fit_free(fit *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->schema->n; i++)
        memory_free(f->columns[i].values);
    memory_free(f->columns);
    memory_free(f);
}

static int wanted(const field *f)
{
    if (f->kind == MR_NUMERIC)
        return !f->literal && (f->scale == MR_SCALE_STANDARD || f->scale == MR_SCALE_LOG_STANDARD);
    return f->kind == MR_BUCKET && f->quantiles;
}

static int by_hash(const void *a, const void *b)
{
    const picked *p = a, *q = b;
    if (p->hash != q->hash)
        return p->hash < q->hash ? -1 : 1;
    return 0;
}

static int by_value(const void *a, const void *b)
{
    const picked *p = a, *q = b;
    return p->value < q->value ? -1 : p->value > q->value;
}

static void thin(column *c)
{
    if (c->values_n <= SAMPLE)
        return;
    qsort(c->values, c->values_n, sizeof *c->values, by_hash);
    c->bound = c->values[SAMPLE].hash;
    c->values_n = SAMPLE;
}

static int pick(column *c, int64_t record, double v)
{
    uint64_t hash = random_at(0x7175616e74696c65ull, (uint64_t)record); /* distinct */
    if (hash >= c->bound)
        return 0;
    if (c->values_n == 2 * SAMPLE)
        thin(c);
    if (hash >= c->bound)
        return 0;
    if (memory_reserve((void **)&c->values, &c->values_room, c->values_n + 1, sizeof *c->values))
        return -1;
    c->values[c->values_n++] = (picked){hash, v};
    return 0;
}

int fit_observe(fit *f, cell *cells, int64_t record, char *error, size_t len)
{
    f->records++;
    for (size_t j = 0; j < f->schema->n; j++) {
        const field *d = &f->schema->fields[j];
        if (!wanted(d) || cells[d->slot].missing)
            continue;
        cell *c = &cells[d->slot];
        if (!cell_number(c))
            return cell_no_number(f->schema, d->slot, c, error, len);
    }
    for (size_t j = 0; j < f->schema->n; j++) { /* the record is good */
        const field *d = &f->schema->fields[j];
        if (!wanted(d) || cells[d->slot].missing)
            continue;
        double v = cells[d->slot].number;
        column *t = &f->columns[j];
        if (d->kind == MR_BUCKET) {
            t->n++;
            if (pick(t, record, v))
                return -1;
            continue;
        }
        if (d->scale == MR_SCALE_LOG_STANDARD)
            v = v < 0 ? -log1p(-v) : log1p(v);
        double before = v - t->mean;
        t->mean += before / ++t->n;
        t->squares += before * (v - t->mean);
    }
    return 0;
}

/* The edges between q buckets of equal weight, interpolated between neighbours; equal ones
 * are one. */
static int quantile_edges(fit *f, field *d, column *c)
{
    thin(c);
    qsort(c->values, c->values_n, sizeof *c->values, by_value);
    double *edges = schema_edges_new(f->schema, (size_t)d->quantiles);
    if (!edges)
        return -1;
    size_t n = 0;
    for (int q = 1; q < d->quantiles; q++) {
        double at = (double)(c->values_n - 1) * q / d->quantiles;
        size_t i = (size_t)at;
        double a = c->values[i].value;
        double b = c->values[MIN(i + 1, c->values_n - 1)].value;
        double edge = a + (b - a) * (at - (double)i);
        if (!n || edge > edges[n - 1])
            edges[n++] = edge;
    }
    d->edges = edges;
    d->edges_n = n;
    return 0;
}

int fit_finish(fit *f, int64_t bad, const char *first)
{
    mr_schema *s = f->schema;
    for (size_t j = 0; j < s->n; j++) {
        if (!wanted(&s->fields[j]) || f->columns[j].n)
            continue;
        if (bad)
            return fail(AT "no numbers to fit: %lld bad lines; the first: %.600s", s->name,
                        s->fields[j].name, (long long)bad, first);
        return fail(AT "no numbers to fit: %s", s->name, s->fields[j].name,
                    f->records ? "every cell is missing" : "no sample is left to train on");
    }
    for (size_t j = 0; j < s->n; j++) {
        field *d = &s->fields[j];
        column *c = &f->columns[j];
        if (!wanted(d))
            continue;
        if (d->kind == MR_BUCKET) {
            if (quantile_edges(f, d, c))
                return -1;
        } else {
            d->mean = c->mean;
            d->deviation = sqrt(c->squares / c->n);
            if (!(d->deviation > 0))
                d->deviation = 1; /* a constant column: x - mean is 0 */
        }
        d->fitted = 1;
        if (d->moving)
            s->moving--;
        memory_free(d->moving);
        d->moving = NULL;
    }
    return 0;
}

/* ---- statistics as text: a line a field ---------------------------------------------- */

#define FIRST_LINE "moonrock statistics 1\n"

const char *mr_schema_statistics(mr_schema *s)
{
    GIVEN(s, NULL);
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f)
        return fail_null("schema \"%s\": out of memory", s->name);
    fputs(FIRST_LINE, f);
    for (size_t i = 0; i < s->n; i++) {
        const field *d = &s->fields[i];
        if (!d->fitted || d->moving)
            continue;
        if (d->kind == MR_NUMERIC &&
            (d->scale == MR_SCALE_STANDARD || d->scale == MR_SCALE_LOG_STANDARD)) {
            fprintf(f, "numeric\t%s\t%.17g\t%.17g\n", d->name, d->mean, d->deviation);
        } else if (d->kind == MR_BUCKET) {
            fprintf(f, "bucket\t%s\t%zu", d->name, d->edges_n);
            for (size_t e = 0; e < d->edges_n; e++)
                fprintf(f, "\t%.17g", d->edges[e]);
            fputc('\n', f);
        }
    }
    if (fclose(f) || !text) {
        free(text);
        return fail_null("schema \"%s\": out of memory", s->name);
    }
    free(s->text);
    return s->text = text;
}

static int restore_line(mr_schema *s, const char *line, const char *end)
{
    const char *kind = line;
    const char *name = memchr(line, '\t', (size_t)(end - line));
    const char *rest = name ? memchr(name + 1, '\t', (size_t)(end - name - 1)) : NULL;
    if (!rest)
        return fail("schema \"%s\": statistics: cannot read \"%.*s\"", s->name,
                    (int)MIN(end - line, 60), line);
    name++;
    char copied[NAME_LEN];
    snprintf(copied, sizeof copied, "%.*s", (int)(rest - name), name);
    int j = schema_find(s, copied);
    int numeric = !strncmp(kind, "numeric\t", 8);
    if (j < 0 || s->fields[j].kind != (numeric ? MR_NUMERIC : MR_BUCKET))
        return fail("schema \"%s\": statistics of %s field \"%s\", which it does not have", s->name,
                    numeric ? "numeric" : "bucket", copied);
    field *f = &s->fields[j];
    double v[2];
    const char *p = rest;
    if (numeric) {
        for (int i = 0; i < 2; i++)
            if (*p++ != '\t' || number_read(&p, &v[i]) != NUMBER_OK)
                return fail(AT "statistics: expected two numbers", s->name, f->name);
        f->mean = v[0];
        f->deviation = v[1];
        f->fitted = 1;
        return 0;
    }
    uint64_t n = 0;
    p++;
    if (integer_read(&p, &n) != NUMBER_OK || n > (uint64_t)(end - line))
        return fail(AT "statistics: expected a number of edges", s->name, f->name);
    double *edges = schema_edges_new(s, n);
    if (!edges)
        return -1;
    for (uint64_t i = 0; i < n; i++)
        if (*p++ != '\t' || number_read(&p, &edges[i]) != NUMBER_OK)
            return fail(AT "statistics: expected %llu edges", s->name, f->name,
                        (unsigned long long)n);
    f->edges = edges;
    f->edges_n = n;
    f->fitted = 1;
    return 0;
}

int mr_schema_restore(mr_schema *s, const char *text)
{
    GIVEN(s && text, -1);
    if (strncmp(text, FIRST_LINE, strlen(FIRST_LINE)))
        return fail("schema \"%s\": not the statistics of a schema", s->name);
    for (const char *p = text + strlen(FIRST_LINE); *p;) {
        const char *end = strchr(p, '\n');
        if (!end)
            return fail("schema \"%s\": statistics are cut short", s->name);
        if (restore_line(s, p, end))
            return -1;
        p = end + 1;
    }
    return 0;
}

/* schema_fit.c - means, deviations and quantiles over the training data.
 *
 * Records come in order, on one thread, so the same data gives the same bits. Means and
 * deviations (of the population) are Welford's. Quantiles are exact up to SAMPLE values of a
 * column; beyond, they are those of the SAMPLE values whose records have the smallest hashes:
 * a uniform sample that depends on nothing but the records. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schema.h"

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
    for (size_t j = 0; j < f->schema->n; j++) {
        const field *d = &f->schema->fields[j];
        if (!wanted(d) || cells[d->slot].missing)
            continue;
        cell *c = &cells[d->slot];
        if (!cell_number(c)) {
            snprintf(error, len, "column \"%.200s\": expected a number, found \"%.*s\"",
                     f->schema->slots.at[d->slot], (int)MIN(c->len, (size_t)60), c->at);
            return 1;
        }
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

int fit_finish(fit *f)
{
    mr_schema *s = f->schema;
    for (size_t j = 0; j < s->n; j++)
        if (wanted(&s->fields[j]) && !f->columns[j].n)
            return fail("schema \"%s\": field \"%s\": no numbers to fit: every cell is missing",
                        s->name, s->fields[j].name);
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
    }
    return 0;
}

/* schema_run.c - statistics of fields that run along with a stream: what standard scales and quantile buckets
 * use where no data was fitted.
 *
 * A sample is scaled by the statistics of the samples before it; then they take it in. So they depend
 * on the samples in their order alone. Mean and variance are those of all numbers up to SPAN (Welford's), then
 * weights fade by 1 - 1/SPAN a number. Edges are the quantiles of a uniform sample of the numbers since the last
 * multiple of SPAN, drawn anew at 8, 16, 32, ... and at each multiple of SPAN numbers; in between they stay, so
 * that a bucket keeps its meaning.
 *
 * The reader's thread runs ahead with a copy of its own. The numbers of a batch come with it
 * (mr_batch.numbers) and wait in the schema until the batch is done with: its statistics are those of the
 * position that is committed. As bytes: uint32 version (1), fields; then for each running field, in their
 * order, the struct moving without its padding; little-endian. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "data/schema.h"

enum { SPAN = 8192, SAMPLE = 1024, EDGES_MAX = 1023, FIRST = 8, VERSION = 1 };
enum { WAITING_MAX = 1 << 24 }; /* numbers that wait for a step at most */

#define FARTHEST 10.0 /* deviations that a scaled number is from the mean at most */

struct moving {
    uint64_t name;    /* hash of the field's name */
    uint64_t numbers; /* taken in */
    double mean, variance;
    uint64_t drawn; /* numbers since the last multiple of SPAN: `sample` is of these */
    uint64_t edges_n;
    double edges[EDGES_MAX];
    double sample[SAMPLE];
};

/* ---- one number --------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    const double *p = a, *q = b;
    return (*p > *q) - (*p < *q);
}

static void edges_draw(moving *m, int quantiles)
{
    double sorted[SAMPLE];
    size_t n = MIN(m->drawn, (uint64_t)SAMPLE), edges = 0;
    memcpy(sorted, m->sample, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_number);
    for (int q = 1; q < quantiles; q++) {
        double at = (double)(n - 1) * q / quantiles;
        size_t i = (size_t)at;
        double a = sorted[i], b = sorted[MIN(i + 1, n - 1)], edge = a + (b - a) * (at - (double)i);
        if (!edges || edge > m->edges[edges - 1])
            m->edges[edges++] = edge;
    }
    m->edges_n = edges;
}

static int is_time(uint64_t n)
{
    return n % SPAN == 0 || (n >= FIRST && n < SPAN && !(n & (n - 1)));
}

static void take_in(moving *m, const field *f, double v)
{
    if (f->kind == MR_BUCKET) {
        if (m->numbers % SPAN == 0)
            m->drawn = 0;
        m->numbers++;
        uint64_t at = m->drawn++;
        if (at >= SAMPLE)
            at = random_at(m->name, m->numbers) % m->drawn;
        if (at < SAMPLE)
            m->sample[at] = v;
        if (is_time(m->numbers))
            edges_draw(m, f->quantiles);
        return;
    }
    if (f->scale == MR_SCALE_LOG_STANDARD)
        v = v < 0 ? -log1p(-v) : log1p(v);
    m->numbers++;
    double share = 1.0 / (double)MIN(m->numbers, (uint64_t)SPAN), d = v - m->mean;
    m->mean += d * share;
    m->variance = (1 - share) * (m->variance + d * d * share);
}

double moving_scaled(const moving *m, double v)
{
    if (!m->numbers)
        return 0;
    double d = v - m->mean, bound = MIN(sqrt((double)m->numbers), FARTHEST);
    if (d == 0)
        return 0;
    return fmin(fmax(d / sqrt(m->variance), -bound), bound);
}

size_t moving_edges(const moving *m, const double **edges)
{
    *edges = m->edges;
    return m->edges_n;
}

/* ---- a schema's --------------------------------------------------------------------------- */

int mr_schema_run(mr_schema *s)
{
    s->waiting_n = s->marked_n = 0; /* of a reader that is no more */
    for (size_t j = 0; j < s->n; j++) {
        field *f = &s->fields[j];
        if (f->fitted)
            continue;
        if (f->kind == MR_BUCKET && f->quantiles > EDGES_MAX + 1)
            return fail(AT "%d quantiles, expected at most %d in a stream", s->name, f->name,
                        f->quantiles, EDGES_MAX + 1);
        if (!(f->moving = memory_zero(sizeof *f->moving)))
            return -1;
        f->moving->name = f->seed;
        f->fitted = 1;
        s->moving++;
    }
    return (int)s->moving;
}

int mr_schema_running(const mr_schema *s)
{
    return (int)s->moving;
}

int mr_schema_observe(mr_schema *s, const mr_batch *b)
{
    size_t n = b->numbers ? (size_t)b->numbers_n * s->moving : 0;
    if (s->waiting_n + n > WAITING_MAX)
        return fail(
            "schema \"%s\": %zu numbers of its fields wait for a step; call model:step() or "
            "model:skip() for each batch of a stream",
            s->name, s->waiting_n + n);
    if (memory_reserve((void **)&s->waiting, &s->waiting_room, s->waiting_n + n,
                       sizeof *s->waiting))
        return -1;
    if (n)
        memcpy(s->waiting + s->waiting_n, b->numbers, n * sizeof *s->waiting);
    s->waiting_n += n;
    return 0;
}

void mr_schema_mark(mr_schema *s)
{
    s->marked_n = s->waiting_n;
}

void mr_schema_advance(mr_schema *s)
{
    const double *v = s->waiting, *end = v + s->marked_n;
    while (v < end)
        for (size_t j = 0; j < s->n; j++)
            if (s->fields[j].moving) {
                if (!isnan(*v))
                    take_in(s->fields[j].moving, &s->fields[j], *v);
                v++;
            }
    s->waiting_n -= s->marked_n;
    if (s->waiting_n)
        memmove(s->waiting, s->waiting + s->marked_n, s->waiting_n * sizeof *s->waiting);
    s->marked_n = 0;
}

/* ---- a reader's copy ---------------------------------------------------------------------- */

int moving_copy(extractor *x)
{
    for (size_t j = 0; j < x->schema->n; j++)
        if (x->fields[j].moving) {
            moving *own = memory_new(sizeof *own);
            if (own)
                *own = *x->schema->fields[j].moving;
            else
                x->failed = 1;
            x->fields[j].moving = own;
        }
    return x->failed ? -1 : 0;
}

void moving_free(field *fields, size_t n)
{
    for (size_t j = 0; fields && j < n; j++)
        memory_free(fields[j].moving);
}

void moving_observe(extractor *x, cell *cells, double *numbers)
{
    for (size_t j = 0; j < x->schema->n; j++) {
        const field *f = &x->fields[j];
        if (!f->moving)
            continue;
        cell *c = &cells[f->slot];
        *numbers = c->missing ? NAN : c->number;
        if (!c->missing)
            take_in(f->moving, f, c->number);
        numbers++;
    }
}

/* ---- as bytes ----------------------------------------------------------------------------- */

const void *mr_schema_moving_bytes(mr_schema *s, size_t *len)
{
    *len = 2 * sizeof(uint32_t) + s->moving * sizeof(moving);
    char *bytes = realloc(s->bytes, *len);
    if (!bytes)
        return fail_null("schema \"%s\": out of memory", s->name);
    s->bytes = bytes;
    memcpy(bytes, (uint32_t[]){VERSION, (uint32_t)s->moving}, 2 * sizeof(uint32_t));
    bytes += 2 * sizeof(uint32_t);
    for (size_t j = 0; j < s->n; j++)
        if (s->fields[j].moving) {
            memcpy(bytes, s->fields[j].moving, sizeof(moving));
            bytes += sizeof(moving);
        }
    return s->bytes;
}

int mr_schema_moving_load(mr_schema *s, const void *at, size_t len)
{
    const char *bytes = at;
    uint32_t head[2] = {0, 0};
    if (len >= sizeof head)
        memcpy(head, bytes, sizeof head);
    if (head[0] != VERSION || len != sizeof head + head[1] * sizeof(moving))
        return fail("schema \"%s\": not the running statistics of a schema", s->name);
    bytes += sizeof head;
    for (size_t j = 0; j < s->n && !s->moving; j++)
        if (!s->fields[j].fitted && mr_schema_run(s) < 0)
            return -1;
    if (head[1] != s->moving)
        return fail("schema \"%s\": running statistics of %u fields, but it has %zu such fields",
                    s->name, head[1], s->moving);
    for (size_t j = 0; j < s->n; j++) {
        field *f = &s->fields[j];
        if (!f->moving)
            continue;
        moving m;
        memcpy(&m, bytes, sizeof m);
        bytes += sizeof m;
        if (m.name != f->seed || m.edges_n > EDGES_MAX || m.drawn > SPAN)
            return fail(AT "these running statistics are not its", s->name, f->name);
        *f->moving = m;
    }
    s->waiting_n = s->marked_n = 0;
    return 0;
}

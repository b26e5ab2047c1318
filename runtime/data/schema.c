/* schema.c - how the cells of a row become keys and values.
 *
 * A schema names columns; each one in use has a slot, and a parser maps the cells of a file to
 * slots once per file. Keys of a field stand under the hash of its name, so equal cells of two
 * fields differ:
 *
 *   category   XXH3(bytes, seed)             bucket   XXH3(number of the bucket as u32, seed)
 *   numeric    mix64(seed ^ VALUE)           cross    XXH3(keys of its parts as u64s, seed)
 *   missing    mix64(seed ^ MISSING)
 *
 * Fields are append-only. Arrays of edges are never changed once a field points to them, so a
 * parser's copy of the fields stays good while the schema is fitted again. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/number.h"
#include "data/schema.h"

#define VALUE 0x76616c7565000000ull
#define MISSING 0x6d697373696e6700ull

int list_add(list *l, const char *name)
{
    char **grown = realloc(l->at, (l->n + 1) * sizeof *grown);
    if (!grown)
        return fail("schema: out of memory");
    l->at = grown;
    if (!(l->at[l->n] = strdup(name)))
        return fail("schema: out of memory");
    return (int)l->n++;
}

int list_find(const list *l, const char *at, size_t len)
{
    for (size_t i = 0; i < l->n; i++)
        if (strlen(l->at[i]) == len && !memcmp(l->at[i], at, len))
            return (int)i;
    return -1;
}

static void list_free(list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->at[i]);
    free(l->at);
}

static int list_copy(list *l, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (list_add(l, names[i]) < 0)
            return -1;
    return 0;
}

static int values_copy(values *v, const char *const *texts, size_t n, const double *numbers,
                       size_t m)
{
    if (list_copy(&v->texts, texts, n) ||
        !(v->numbers = memory_new(MAX(m, (size_t)1) * sizeof *numbers)))
        return -1;
    if (m)
        memcpy(v->numbers, numbers, m * sizeof *numbers);
    v->n = n + m;
    return 0;
}

int values_have(const values *v, cell *c)
{
    if (list_find(&v->texts, c->at, c->len) >= 0)
        return 1;
    size_t m = v->n - v->texts.n;
    for (size_t i = 0; m && cell_number(c) && i < m; i++)
        if (v->numbers[i] == c->number)
            return 1;
    return 0;
}

/* ---- names of columns ---------------------------------------------------------------- */

static size_t distance(const char *a, const char *b)
{
    enum { LEN = 64 };
    size_t n = strlen(a), m = strlen(b), row[LEN + 1];
    if (n > LEN || m > LEN)
        return SIZE_MAX;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            int same = tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]);
            size_t best = MIN(MIN(row[j], row[j - 1]) + 1, diagonal + !same);
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[m];
}

static int no_column(const char *subject, const char *name, const char *among, char *const *names,
                     size_t n)
{
    char all[512] = "";
    size_t used = 0, best = SIZE_MAX, which = 0;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(name, names[i]);
        if (d < best)
            best = d, which = i;
        if (used < sizeof all - 1)
            used +=
                (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", names[i]);
    }
    if (used >= sizeof all)
        memcpy(all + sizeof all - 4, "...", 4);
    char hint[NAME_LEN + 32] = "";
    if (n && best < strlen(name) && best <= MAX(strlen(name) / 2, (size_t)1))
        snprintf(hint, sizeof hint, " (did you mean \"%.200s\"?)", names[which]);
    if (n == 1) { /* all of a line: another separator, or none */
        size_t at = strcspn(names[0], ";\t|");
        if (names[0][at])
            snprintf(hint, sizeof hint, " (say what separates them: separator = \"%s\")",
                     names[0][at] == ';'   ? ";"
                     : names[0][at] == '|' ? "|"
                                           : "\\t");
    }
    return fail("%s: no column \"%s\"%s; %s are: %s", subject, name, hint, among, all);
}

static int find_name(char *const *names, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(names[i], name))
            return (int)i;
    return -1;
}

/* Whether a field reads a slot. */
static int is_used(const mr_schema *s, int slot)
{
    for (size_t i = 0; i < s->n; i++) {
        const field *f = &s->fields[i];
        if (f->slot == slot)
            return 1;
        for (size_t j = 0; j < f->parts_n; j++)
            if (f->part[j].field < 0 && f->part[j].slot == slot)
                return 1;
    }
    return 0;
}

int schema_bind(const mr_schema *s, const char *where, char *const *names, size_t n, int labelled,
                int weighted, int *map, int *has_label)
{
    for (size_t i = 0; i < n; i++)
        map[i] = -1;
    *has_label = s->label_slot >= 0;
    for (size_t j = 0; j < s->slots.n; j++) {
        const char *name = s->slots.at[j];
        int i = find_name(names, n, name);
        int is_label = (int)j == s->label_slot, is_weight = (int)j == s->weight_slot;
        if (i >= 0) {
            if (find_name(names + i + 1, n - (size_t)i - 1, name) >= 0)
                return fail("%s: two columns are called \"%s\"", where, name);
            map[i] = (int)j;
        } else if (is_label && !labelled && !is_used(s, (int)j)) {
            *has_label = 0;
        } else if (!is_weight || weighted || is_used(s, (int)j)) {
            char subject[1024];
            snprintf(subject, sizeof subject, "%s: schema \"%s\"%s", where, s->name,
                     is_weight ? ": weight" : "");
            return no_column(subject, name, "the file's columns", names, n);
        }
    }
    return 0;
}

/* The slot of a column, made if it is new. */
static int slot_of(mr_schema *s, const char *column)
{
    int slot = list_find(&s->slots, column, strlen(column));
    if (slot >= 0)
        return slot;
    if (s->columns.n && find_name(s->columns.at, s->columns.n, column) < 0) {
        char subject[NAME_LEN + 32];
        snprintf(subject, sizeof subject, "schema \"%.200s\"", s->name);
        return no_column(subject, column, "its columns", s->columns.at, s->columns.n);
    }
    return list_add(&s->slots, column);
}

/* ---- building ------------------------------------------------------------------------ */

static char *copy(const char *text)
{
    char *p = strdup(text);
    return p ? p : fail_null("schema: out of memory");
}

mr_schema *mr_schema_new(const mr_schema_options *o)
{
    GIVEN(o, NULL);
    mr_schema *s = memory_zero(sizeof *s);
    if (!s)
        return NULL;
    atomic_store(&s->refs, 1);
    s->header = o->header;
    s->trim = o->trim;
    s->quote = o->quote;
    s->escape = o->escape;
    s->decimal = o->decimal == ',' ? ',' : 0;
    s->single = 1;
    s->label_slot = s->weight_slot = -1;
    if (!(s->name = copy(o->name ? o->name : "schema")) ||
        !(s->separator = copy(o->separator ? o->separator : ",")) ||
        list_copy(&s->columns, o->columns, o->columns_n) ||
        list_copy(&s->missing, o->missing, o->missing_n) ||
        values_copy(&s->positive, o->positive, o->positive_n, o->positive_numbers,
                    o->positive_numbers_n) ||
        values_copy(&s->negative, o->negative, o->negative_n, o->negative_numbers,
                    o->negative_numbers_n))
        goto failed;
    if (s->header != MR_HEADER_NAMES && !s->columns.n) {
        fail("schema \"%s\": without a header, columns are needed", s->name);
        goto failed;
    }
    if (strpbrk(s->separator, "\r\n\"") || strlen(s->separator) > 16) {
        fail("schema \"%s\": separator: expected up to 16 bytes that are no quotes or line ends",
             s->name);
        goto failed;
    }
    for (size_t i = 0; i < s->columns.n; i++)
        if (find_name(s->columns.at, i, s->columns.at[i]) >= 0) {
            fail("schema \"%s\": column \"%s\" is named twice", s->name, s->columns.at[i]);
            goto failed;
        }
    if (o->label && (!(s->label = copy(o->label)) || (s->label_slot = slot_of(s, o->label)) < 0))
        goto failed;
    if (o->weight &&
        (!(s->weight = copy(o->weight)) || (s->weight_slot = slot_of(s, o->weight)) < 0))
        goto failed;
    return s;
failed:
    mr_schema_free(s);
    return NULL;
}

void mr_schema_free(mr_schema *s)
{
    if (!s || atomic_fetch_sub(&s->refs, 1) > 1)
        return;
    for (size_t i = 0; i < s->n; i++)
        free(s->fields[i].name);
    moving_free(s->fields, s->n);
    memory_free(s->waiting);
    for (size_t i = 0; i < s->edges_n; i++)
        memory_free(s->edges[i]);
    memory_free(s->edges);
    memory_free(s->fields);
    list_free(&s->columns);
    list_free(&s->missing);
    list_free(&s->positive.texts);
    list_free(&s->negative.texts);
    memory_free(s->positive.numbers);
    memory_free(s->negative.numbers);
    list_free(&s->slots);
    free(s->name);
    free(s->separator);
    free(s->label);
    free(s->weight);
    free(s->text);
    free(s->bytes);
    memory_free(s);
}

double *schema_edges_new(mr_schema *s, size_t n)
{
    if (memory_reserve((void **)&s->edges, &s->edges_room, s->edges_n + 1, sizeof *s->edges))
        return NULL;
    double *edges = memory_new(MAX(n, (size_t)1) * sizeof *edges);
    if (edges)
        s->edges[s->edges_n++] = edges;
    return edges;
}

int schema_find(const mr_schema *s, const char *name)
{
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->fields[i].name, name))
            return (int)i;
    return -1;
}

static int field_bucket(mr_schema *s, field *f, const mr_field *o)
{
    f->quantiles = o->quantiles;
    if (f->quantiles) {
        if (f->quantiles < 2 || f->quantiles > 65536)
            return fail(AT "%d quantiles, expected 2 to 65536", s->name, f->name, f->quantiles);
        return 0;
    }
    if (!o->edges_n)
        return fail(AT "a bucket needs quantiles or edges", s->name, f->name);
    double *edges = schema_edges_new(s, o->edges_n);
    if (!edges)
        return -1;
    for (size_t i = 0; i < o->edges_n; i++) {
        edges[i] = o->edges[i];
        if (!isfinite(edges[i]) || (i && edges[i] <= edges[i - 1]))
            return fail(AT "edge %zu (%g) is not above the one before it", s->name, f->name, i + 1,
                        edges[i]);
    }
    f->edges = edges;
    f->edges_n = o->edges_n;
    f->fitted = 1;
    return 0;
}

static int field_numeric(mr_schema *s, field *f, const mr_field *o)
{
    int standard = o->scale == MR_SCALE_STANDARD || o->scale == MR_SCALE_LOG_STANDARD;
    f->scale = o->scale;
    f->literal = o->literal;
    f->mean = o->mean;
    f->deviation = o->deviation;
    f->fitted = !standard || o->literal;
    if (o->literal && (!isfinite(o->mean) || !isfinite(o->deviation) || o->deviation <= 0))
        return fail(AT "mean %g and deviation %g, expected finite ones, the deviation above 0",
                    s->name, f->name, o->mean, o->deviation);
    return 0;
}

static int field_cross(mr_schema *s, field *f, const mr_field *o)
{
    if (o->parts_n < 2 || o->parts_n > PARTS_MAX)
        return fail(AT "a cross of %zu parts, expected 2 to %d", s->name, f->name, o->parts_n,
                    PARTS_MAX);
    f->parts_n = o->parts_n;
    f->single = 1;
    for (size_t i = 0; i < o->parts_n; i++) {
        const char *name = o->parts[i];
        int j = schema_find(s, name);
        if (j >= 0 && s->fields[j].kind == MR_NUMERIC)
            j = -1; /* the exact numbers of its column, as categories */
        f->part[i].field = j;
        f->part[i].seed = mr_hash(name, strlen(name), 0);
        if (j < 0 && (f->part[i].slot = slot_of(s, name)) < 0)
            return -1;
        f->single &= j < 0 || s->fields[j].single;
    }
    return 0;
}

int mr_schema_field(mr_schema *s, const mr_field *o)
{
    GIVEN(s && o, -1);
    field f = {.kind = o->kind, .separator = o->separator, .slot = -1, .single = 1};
    if (!o->name || !*o->name || strlen(o->name) >= NAME_LEN || strpbrk(o->name, "\t\r\n"))
        return fail("schema \"%s\": field %zu needs a name of 1 to %d bytes without tabs and "
                    "line ends",
                    s->name, s->n + 1, NAME_LEN - 1);
    if (s->n == FIELDS_MAX)
        return fail("schema \"%s\": more than %d fields", s->name, FIELDS_MAX);
    if (schema_find(s, o->name) >= 0)
        return fail("schema \"%s\": two fields are called \"%s\"; give one of them a name of "
                    "its own (name = ...)",
                    s->name, o->name);
    if (o->kind != MR_CROSS && (f.slot = slot_of(s, o->column)) < 0)
        return -1;
    if (memory_reserve((void **)&s->fields, &s->fields_room, s->n + 1, sizeof *s->fields))
        return -1;
    if (!(f.name = copy(o->name)))
        return -1;
    f.seed = mr_hash(f.name, strlen(f.name), 0);
    f.fitted = 1;
    f.single = o->kind != MR_CATEGORIES;
    int rc = 0;
    if (o->kind == MR_NUMERIC)
        rc = field_numeric(s, &f, o);
    else if (o->kind == MR_BUCKET)
        f.fitted = 0, rc = field_bucket(s, &f, o);
    else if (o->kind == MR_CROSS)
        rc = field_cross(s, &f, o);
    if (rc) {
        free(f.name);
        return -1;
    }
    s->single &= f.single;
    s->valued |= f.kind == MR_NUMERIC;
    s->fields[s->n++] = f;
    return 0;
}

int mr_schema_fields(const mr_schema *s)
{
    GIVEN(s, -1);
    return (int)s->n;
}

const char *mr_schema_field_name(const mr_schema *s, int j)
{
    GIVEN(s, NULL);
    if (j < 0 || (size_t)j >= s->n)
        return fail_null("schema \"%s\": field %d of %zu", s->name, j + 1, s->n);
    return s->fields[j].name;
}

const char *mr_schema_unfitted(const mr_schema *s)
{
    GIVEN(s, NULL);
    for (size_t i = 0; i < s->n; i++)
        if (!s->fields[i].fitted)
            return s->fields[i].name;
    return NULL;
}

/* ---- extracting ---------------------------------------------------------------------- */

int extractor_new(extractor *x, mr_schema *s)
{
    x->fields = memory_new(MAX(s->n, (size_t)1) * sizeof *x->fields);
    if (!x->fields)
        return -1;
    memcpy(x->fields, s->fields, s->n * sizeof *x->fields);
    x->schema = s;
    atomic_fetch_add(&s->refs, 1);
    return moving_copy(x);
}

void extractor_free(extractor *x)
{
    moving_free(x->fields, x->schema ? x->schema->n : 0);
    memory_free(x->fields);
    memory_free(x->scratch);
    mr_schema_free(x->schema);
    memset(x, 0, sizeof *x);
}

/* With a comma for the point; a point, which may stand for thousands there, is not taken. */
static int number_with_comma(const cell *c, double *out)
{
    char text[64];
    if (c->len >= sizeof text || memchr(c->at, '.', c->len))
        return 0;
    memcpy(text, c->at, c->len);
    text[c->len] = '\n';
    char *comma = memchr(text, ',', c->len);
    if (comma)
        *comma = '.';
    cell plain = {.at = text, .len = c->len};
    int rc = cell_number(&plain);
    *out = plain.number;
    return rc;
}

int cell_number(cell *c)
{
    if (!c->parsed && c->decimal) {
        c->parsed = number_with_comma(c, &c->number) ? 1 : -1;
    } else if (!c->parsed) {
        const char *p = c->at, *end = c->at + c->len;
        while (p < end && (*p == ' ' || *p == '\t'))
            p++;
        int rc = p < end ? number_read(&p, &c->number) : NUMBER_NONE;
        while (p < end && (*p == ' ' || *p == '\t'))
            p++;
        c->parsed = rc == NUMBER_OK && p == end ? 1 : -1;
    }
    return c->parsed > 0;
}

static uint64_t category(uint64_t seed, const cell *c)
{
    return c->missing ? mix64(seed ^ MISSING) : XXH3_64bits_withSeed(c->at, c->len, seed);
}

static uint64_t bucket(const field *f, double v)
{
    const double *edges = f->edges;
    size_t low = 0, high = f->moving ? moving_edges(f->moving, &edges) : f->edges_n;
    while (low < high) { /* how many edges are <= v */
        size_t middle = (low + high) / 2;
        if (edges[middle] <= v)
            low = middle + 1;
        else
            high = middle;
    }
    uint32_t number = (uint32_t)low;
    return XXH3_64bits_withSeed(&number, sizeof number, f->seed);
}

static double scaled(const field *f, double v)
{
    if (f->scale == MR_SCALE_LOG || f->scale == MR_SCALE_LOG_STANDARD)
        v = v < 0 ? -log1p(-v) : log1p(v);
    if (f->moving)
        return moving_scaled(f->moving, v);
    if (f->scale == MR_SCALE_STANDARD || f->scale == MR_SCALE_LOG_STANDARD)
        v = (v - f->mean) / f->deviation;
    return v;
}

int cell_no_number(const mr_schema *s, int slot, const cell *c, char *error, size_t len)
{
    static const char *const none[] = {"NA", "N/A", "NaN", "null", "None", "\\N", "-", "?"};
    int n = (int)MIN(c->len, (size_t)60), usual = 0;
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        usual |= c->len == strlen(none[i]) && !strncasecmp(c->at, none[i], c->len);
    int used = snprintf(error, len, "column \"%.200s\": expected a number, found \"%.*s\"",
                        s->slots.at[slot], n, c->at);
    if (usual)
        snprintf(error + used, len - (size_t)used,
                 "; if that stands for none, say so in the schema: missing = { \"\", \"%.*s\" }", n,
                 c->at);
    return 1;
}

/* The keys of a field that is not a cross, at most as many as its cell has bytes, plus 1. */
static int keys_of(extractor *x, const field *f, cell *cells, uint64_t *keys, size_t *n,
                   float *value, char *error, size_t len)
{
    cell *c = &cells[f->slot];
    *value = 1;
    *n = 1;
    if (c->missing) {
        keys[0] = mix64(f->seed ^ MISSING);
        return 0;
    }
    switch (f->kind) {
    case MR_CATEGORY:
        keys[0] = XXH3_64bits_withSeed(c->at, c->len, f->seed);
        return 0;
    case MR_CATEGORIES: {
        const char *p = c->at, *end = c->at + c->len;
        *n = 0;
        for (;;) {
            const char *q = memchr(p, f->separator, (size_t)(end - p));
            const char *a = p, *b = q ? q : end;
            while (x->schema->trim && a < b && (*a == ' ' || *a == '\t'))
                a++;
            while (x->schema->trim && a < b && (b[-1] == ' ' || b[-1] == '\t'))
                b--;
            if (a < b && list_find(&x->schema->missing, a, (size_t)(b - a)) < 0)
                keys[(*n)++] = XXH3_64bits_withSeed(a, (size_t)(b - a), f->seed);
            if (!q)
                break;
            p = q + 1;
        }
        if (!*n)
            keys[(*n)++] = mix64(f->seed ^ MISSING);
        return 0;
    }
    case MR_NUMERIC:
        if (!cell_number(c))
            return cell_no_number(x->schema, f->slot, c, error, len);
        keys[0] = mix64(f->seed ^ VALUE);
        *value = (float)scaled(f, c->number);
        if (!isfinite(*value)) {
            snprintf(error, len, "field \"%.200s\": %g is too large when scaled", f->name,
                     c->number);
            return 1;
        }
        return 0;
    default:
        if (!cell_number(c))
            return cell_no_number(x->schema, f->slot, c, error, len);
        keys[0] = bucket(f, c->number);
        return 0;
    }
}

/* Room for n more entries behind `end`. */
static int room(samples *s, size_t end, size_t n)
{
    return samples_reserve(s, end - s->entries + n);
}

static int cross(const field *f, int number, const cell *cells, samples *out, size_t *end,
                 const size_t *starts)
{
    uint64_t own[PARTS_MAX], tuple[PARTS_MAX];
    size_t from[PARTS_MAX], count[PARTS_MAX], at[PARTS_MAX], total = 1;
    for (size_t i = 0; i < f->parts_n; i++) {
        int j = f->part[i].field;
        if (j < 0) {
            own[i] = category(f->part[i].seed, &cells[f->part[i].slot]);
            count[i] = 1;
        } else {
            from[i] = starts[j];
            count[i] = starts[j + 1] - starts[j];
        }
        at[i] = 0;
        total *= count[i];
        if (total > CROSS_MAX)
            return (int)CROSS_MAX;
    }
    if (room(out, *end, total))
        return -1;
    for (size_t t = 0; t < total; t++) {
        for (size_t i = 0; i < f->parts_n; i++)
            tuple[i] = f->part[i].field < 0 ? own[i] : out->keys[from[i] + at[i]];
        out->keys[*end] = XXH3_64bits_withSeed(tuple, f->parts_n * sizeof *tuple, f->seed);
        if (out->valued)
            out->values[*end] = 1;
        if (out->fielded)
            out->field[*end] = (uint16_t)number;
        ++*end;
        for (size_t i = f->parts_n; i-- > 0;) {
            if (++at[i] < count[i])
                break;
            at[i] = 0;
        }
    }
    return 0;
}

int extract(extractor *x, cell *cells, samples *out, size_t *end_out, char *error, size_t len)
{
    mr_schema *s = x->schema;
    if (memory_reserve((void **)&x->scratch, &x->scratch_room, s->n + 1, sizeof *x->scratch))
        return -1;
    size_t *starts = (size_t *)x->scratch; /* where the entries of each field start */
    size_t end = out->entries;
    for (size_t j = 0; j < s->n; j++) {
        const field *f = &x->fields[j];
        starts[j] = end;
        if (f->kind == MR_CROSS) {
            int rc = cross(f, (int)j, cells, out, &end, starts);
            if (rc < 0)
                return -1;
            if (rc) {
                snprintf(error, len, "field \"%.200s\": more than %d combinations", f->name,
                         CROSS_MAX);
                return 1;
            }
            continue;
        }
        size_t n = f->kind == MR_CATEGORIES ? cells[f->slot].len + 1 : 1;
        float value = 1;
        if (room(out, end, n))
            return -1;
        int rc = keys_of(x, f, cells, out->keys + end, &n, &value, error, len);
        if (rc)
            return rc;
        if (value != 1 && !out->valued && samples_value(out, end))
            return -1;
        for (size_t i = 0; i < n; i++, end++) {
            if (out->valued)
                out->values[end] = value;
            if (out->fielded)
                out->field[end] = (uint16_t)j;
        }
    }
    starts[s->n] = end;
    *end_out = end;
    return 0;
}

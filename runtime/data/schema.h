/* schema.h - a compiled schema, as parsers use it. */
#ifndef MR_SCHEMA_H
#define MR_SCHEMA_H

#include <stdatomic.h>

#include "base/base.h"
#include "data/samples.h"

enum { FIELDS_MAX = 4096, PARTS_MAX = 16, CROSS_MAX = 65536, NAME_LEN = 256 };

/* A cell of a record: bytes of the record's buffer. The byte after it is no part of a number. */
typedef struct cell {
    const char *at;
    size_t len;
    int missing;
    int decimal; /* what stands for the point; 0: '.' */
    int parsed;  /* `number` is: 0 not yet, 1 it is one, -1 it is none */
    double number;
} cell;

typedef struct moving moving; /* see schema_run.c */

typedef struct field {
    int kind, scale, quantiles, separator, literal, fitted;
    char *name;
    uint64_t seed; /* hash of the name */
    int slot;      /* of the column */
    double mean, deviation;
    const double *edges; /* owned by the schema, never changed in place */
    size_t edges_n;
    struct {
        int field; /* or -1: */
        int slot;  /* a column taken as a category */
        uint64_t seed;
    } part[PARTS_MAX];
    size_t parts_n;
    int single;     /* always one entry */
    moving *moving; /* statistics that run, or NULL; owned by whoever has the fields */
} field;

typedef struct list {
    char **at;
    size_t n;
} list;

/* Values of a label that stand for 0 or for 1. */
typedef struct values {
    list texts;
    double *numbers;
    size_t n; /* of both */
} values;

struct mr_schema {
    atomic_int refs;
    char *name, *label, *weight; /* label, weight: columns or NULL */
    char *separator;             /* "": blanks */
    int header, trim, quote, escape, decimal;
    list columns, missing;
    values positive, negative;
    list slots;                  /* the columns in use: slots.at[j] is the name of slot j */
    int label_slot, weight_slot; /* or -1 */
    field *fields;
    size_t n, fields_room;
    int single;     /* every field is */
    int valued;     /* some field is numeric */
    double **edges; /* all arrays of edges that fields have pointed to */
    size_t edges_n, edges_room;
    char *text;      /* of mr_schema_statistics */
    size_t moving;   /* fields whose statistics run */
    double *waiting; /* numbers of observed batches, marked_n of them for the next advance */
    size_t waiting_n, waiting_room, marked_n;
    char *bytes; /* of mr_schema_moving_bytes */
};

/* What a parser keeps of a schema: its fields as they were, and room to cross in. */
typedef struct extractor {
    mr_schema *schema;
    field *fields; /* [schema->n] */
    uint64_t *scratch;
    size_t scratch_room;
    int failed; /* there was no memory for a copy of the statistics that run */
} extractor;

int extractor_new(extractor *x, mr_schema *s);
void extractor_free(extractor *x);

/* Appends the entries of all fields to `out`, uncommitted; *end is where they end. 0, or 1: the
 * record is bad, error[0..len) says why; or -1. */
int extract(extractor *x, cell *cells, samples *out, size_t *end, char *error, size_t len);

/* The number of a cell; 0 if it is none. */
int cell_number(cell *c);

/* Says in error[0..len) that a cell of a column is no number; 1. */
int cell_no_number(const mr_schema *s, int slot, const cell *c, char *error, size_t len);

/* Slots of the columns in a file with these names: map[i] is the slot of cell i or -1. A label
 * that is not there is an error only where `labelled`; a weight, where `weighted`, else it has none.
 * where: whom errors are about, "a.csv:1". */
int schema_bind(const mr_schema *s, const char *where, char *const *names, size_t n, int labelled,
                int weighted, int *map, int *has_label);

/* The number of the field of this name, or -1. */
int schema_find(const mr_schema *s, const char *name);

/* How messages about a field begin: the names of the schema and of the field. */
#define AT "schema \"%s\": field \"%s\": "

int list_find(const list *l, const char *at, size_t len);
int values_have(const values *v, cell *c);
int list_add(list *l, const char *name);
double *schema_edges_new(mr_schema *s, size_t n); /* kept by the schema */

/* Statistics that run; see schema_run.c. */
int moving_copy(extractor *x); /* of the schema's, for its fields */
void moving_free(field *fields, size_t n);
double moving_scaled(const moving *m, double v); /* v behind its logarithm */
size_t moving_edges(const moving *m, const double **edges);
/* Takes a good record in; numbers[0..schema->moving): its, NaN where they are missing. */
void moving_observe(extractor *x, cell *cells, double *numbers);

/* Fits; see schema_fit.c. Only observe() sees cells. */
typedef struct fit fit;
fit *fit_new(mr_schema *s);
void fit_free(fit *f);
int fit_observe(fit *f, cell *cells, int64_t record, char *error, size_t len);
/* Writes the statistics to the schema. bad: records that could not be read, the first of them `first`. */
int fit_finish(fit *f, int64_t bad, const char *first);

#endif

/* export_npy.c - rows as NumPy arrays, a directory of .npy files (format version 1.0: a magic, the
 * length of a head that is a Python dictionary, padded to 128 bytes, then the numbers, little-endian,
 * row-major): TABLE.keys <u8 [n], TABLE.steps <u8 [n]; of each column TABLE.COLUMN <f4 [n, dim],
 * TABLE.COLUMN.count <u4 [n], 0 where a row has not got the column, and TABLE.COLUMN.state <f4
 * [n, vectors, dim] (row-wise Adagrad's [n, 1]), if it has any; params/NAME of the param's shape.
 * The directory is made beside its place, and renamed. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "exchange/export.h"

enum { NPY_HEAD = 128 };

void file_name(const char *name, char out[3 * 256])
{
    char *at = out;
    for (const char *c = name; *c && at < out + 3 * 255; c++) {
        int plain = isalnum((unsigned char)*c) || *c == '_' || *c == '-' || (*c == '.' && c > name);
        at += plain ? sprintf(at, "%c", *c) : sprintf(at, "%%%02X", (unsigned char)*c);
    }
    *at = 0;
}

/* ---- one array ---- */

/* shape: "N, 4, 8": n of the first dimension, then the text. */
static void npy_head(char head[NPY_HEAD + 1], const char *type, uint64_t n, const char *more)
{
    uint16_t len = NPY_HEAD - 10;
    int at = snprintf(head + 10, NPY_HEAD - 10,
                      "{'descr': '%s', 'fortran_order': False, 'shape': (%" PRIu64 ",%s), }", type,
                      n, more);
    memcpy(head, "\x93NUMPY\x01\x00", 8);
    memcpy(head + 8, &len, 2);
    memset(head + 10 + at, ' ', (size_t)(NPY_HEAD - 11 - at));
    head[NPY_HEAD - 1] = '\n';
}

/* ---- a table ---- */

enum { ARRAYS = 2 + 3 * COLUMNS_MAX };

typedef struct arrays {
    mr_output *keys, *steps, *weight[COLUMNS_MAX], *count[COLUMNS_MAX], *state[COLUMNS_MAX];
    uint64_t n;
} arrays;

static mr_output *array_open(const char *dir, const mr_table *t, const char *format,
                             const char *column)
{
    char path[PATH_SIZE], table[3 * 256], inner[3 * 256], head[NPY_HEAD + 1];
    file_name(t->name, table);
    file_name(column, inner);
    char file[PATH_SIZE];
    snprintf(file, sizeof file, format, inner);
    if (path_make(path, "%s/%s.%s.npy", dir, table, file))
        return NULL;
    mr_output *f = output_inside(path);
    memset(head, 0, sizeof head);
    if (f && mr_output_write(f, head, NPY_HEAD)) {
        mr_output_abort(f);
        return NULL;
    }
    return f;
}

static int arrays_open(arrays *a, const char *dir, const mr_table *t)
{
    a->n = 0;
    if (!(a->keys = array_open(dir, t, "keys%s", "")) ||
        !(a->steps = array_open(dir, t, "steps%s", "")))
        return -1;
    for (uint32_t c = 0; c < t->columns; c++) {
        const char *name = t->column[c].name;
        if (!(a->weight[c] = array_open(dir, t, "%s", name)) ||
            !(a->count[c] = array_open(dir, t, "%s.count", name)) ||
            (t->column[c].state && !(a->state[c] = array_open(dir, t, "%s.state", name))))
            return -1;
    }
    return 0;
}

static int array_end(mr_output **f, const char *type, uint64_t n, const char *more)
{
    char head[NPY_HEAD + 1];
    mr_output *out = *f;
    *f = NULL;
    npy_head(head, type, n, more);
    if (output_over(out, 0, head, NPY_HEAD)) {
        mr_output_abort(out);
        return -1;
    }
    return mr_output_end(out);
}

static int arrays_end(arrays *a, const mr_table *t)
{
    char more[64];
    int bad = array_end(&a->keys, "<u8", a->n, "") || array_end(&a->steps, "<u8", a->n, "");
    for (uint32_t c = 0; c < t->columns && !bad; c++) {
        uint32_t dim = t->column[c].dim;
        snprintf(more, sizeof more, " %u", dim);
        bad =
            array_end(&a->weight[c], "<f4", a->n, more) || array_end(&a->count[c], "<u4", a->n, "");
        if (optimizer_floats(&t->column[c].optim))
            snprintf(more, sizeof more, " %u", t->column[c].state);
        else
            snprintf(more, sizeof more, " %u, %u", t->column[c].state / dim, dim);
        if (!bad && a->state[c])
            bad = array_end(&a->state[c], "<f4", a->n, more);
    }
    return bad ? -1 : 0;
}

static void arrays_abort(arrays *a)
{
    mr_output_abort(a->keys);
    mr_output_abort(a->steps);
    for (int c = 0; c < COLUMNS_MAX; c++) {
        mr_output_abort(a->weight[c]);
        mr_output_abort(a->count[c]);
        mr_output_abort(a->state[c]);
    }
}

static int npy_row(void *context, exporting *e, uint64_t key, const char *record, size_t len)
{
    arrays *a = context;
    const mr_table *t = e->now;
    (void)record, (void)len;
    int bad = mr_output_write(a->keys, &key, 8) || mr_output_write(a->steps, &e->row->step, 8);
    for (uint32_t c = 0; c < t->columns && !bad; c++) {
        const table_column *column = &t->column[c];
        const float *w = row_column(t, e->row, c);
        bad = mr_output_write(a->weight[c], w, 4 * (size_t)column->dim) ||
              mr_output_write(a->count[c], &e->row->count[c], 4) ||
              (a->state[c] &&
               mr_output_write(a->state[c], w + column->dim, 4 * (size_t)column->state));
    }
    a->n++;
    return bad ? -1 : 0;
}

static int table_arrays(exporting *e, const char *dir, mr_table *t)
{
    arrays a;
    memset(&a, 0, sizeof a);
    int bad = arrays_open(&a, dir, t) || export_rows(e, t, npy_row, &a) || arrays_end(&a, t);
    if (bad) {
        char why[900];
        snprintf(why, sizeof why, "%s", mr_error());
        arrays_abort(&a);
        return fail("%s", why);
    }
    return 0;
}

/* ---- params ---- */

typedef struct params {
    exporting *e;
    const char *dir;
} params;

static int npy_param(void *context, const char *key, size_t key_len, const char *value, size_t len)
{
    const params *p = context;
    char name[256] = "", file[3 * 256], path[PATH_SIZE], more[64] = "", head[NPY_HEAD + 1];
    uint32_t shape[6];
    memcpy(name, key + 7, MIN(key_len - 7, sizeof name - 1));
    if (mr_param_check(name, value, len))
        return -1;
    memcpy(shape, value, sizeof shape); /* version, rank, dim[4] */
    size_t count = 1;
    for (uint32_t i = 0, at = 0; i < shape[1]; i++) {
        count *= shape[2 + i];
        if (i)
            at += (uint32_t)snprintf(more + at, sizeof more - at, "%s %u", i > 1 ? "," : "",
                                     shape[2 + i]);
    }
    file_name(name, file);
    npy_head(head, "<f4", shape[2], more);
    if (path_make(path, "%s/params", p->dir) || directory_make(path) ||
        path_make(path, "%s/params/%s.npy", p->dir, file))
        return -1;
    mr_output *f = output_inside(path);
    if (!f)
        return -1;
    if (mr_output_write(f, head, NPY_HEAD) || mr_output_write(f, value + 64, 4 * count)) {
        mr_output_abort(f);
        return -1;
    }
    return mr_output_end(f);
}

/* ---- the directory ---- */

static int directory_fill(exporting *e, const char *dir)
{
    params p = {e, dir};
    for (size_t i = 0; i < e->tables; i++)
        if (table_arrays(e, dir, e->table[i]))
            return -1;
    return store_scan(e->s, "params could not be exported", "\1param/", "\1param0", 7, npy_param,
                      &p);
}

int export_npy(exporting *e)
{
    char target[PATH_SIZE], dir[PATH_SIZE], parent[PATH_SIZE];
    size_t len = strlen(e->path);
    while (len > 1 && e->path[len - 1] == '/')
        len--;
    int empty = directory_empty(e->path);
    if (empty < 0 || path_make(target, "%.*s", (int)len, e->path))
        return -1;
    if (!empty)
        return fail("%s: is there already, and not empty; remove it or give another name", e->path);
    leftovers_remove(target, "writing");
    if (path_make(dir, "%s.writing-%d", target, (int)getpid()) || tree_remove(dir))
        return -1;
    if (mkdir(dir, 0777))
        return fail("%s: could not be made: %s", dir, strerror(errno));
    int bad = directory_fill(e, dir) || directory_sync(dir);
    if (!bad && rename(dir, target))
        bad = fail("%s: could not be made: %s", e->path, strerror(errno));
    if (bad) {
        char why[900];
        snprintf(why, sizeof why, "%s", mr_error());
        tree_remove(dir);
        return fail("%s", why);
    }
    path_parent(target, parent);
    return directory_sync(parent);
}

/* import_npy.c - rows from a directory of NumPy arrays, as export_npy.c writes it: TABLE.keys, and
 * TABLE.steps, TABLE.COLUMN, TABLE.COLUMN.count and TABLE.COLUMN.state where there are such. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "exchange/export.h"

enum { DIMENSIONS = 3, HEAD_MOST = 1 << 16 };

typedef struct array {
    in_file *in; /* NULL: there is none */
    uint64_t shape[DIMENSIONS];
    int rank;
    char type[8];
} array;

/* ---- the head of an array ---- */

static int head_fail(const array *a, const char *what)
{
    return fail("%s: is no NumPy array that can be read: %s", a->in->path, what);
}

static int shape_read(array *a, const char *text)
{
    const char *at = strstr(text, "'shape':");
    if (!at || !(at = strchr(at, '(')))
        return -1;
    for (a->rank = 0; at[1] && *at != ')';) {
        at++;
        at += strspn(at, " ");
        if (*at == ')')
            break;
        int used = 0;
        if (a->rank == DIMENSIONS || sscanf(at, "%" SCNu64 "%n", &a->shape[a->rank++], &used) != 1)
            return -1;
        at += used;
        at += strspn(at, " L");
        if (*at != ',' && *at != ')')
            return -1;
    }
    return 0;
}

static int head_read(array *a)
{
    uint8_t magic[8], size[4] = {0, 0, 0, 0};
    int64_t got = in_read(a->in, magic, 8);
    if (got < 0)
        return -1;
    if (got < 8 || memcmp(magic, "\x93NUMPY", 6) || magic[6] < 1 || magic[6] > 3)
        return head_fail(a, "it does not begin as one of version 1 to 3");
    if (in_read(a->in, size, magic[6] == 1 ? 2 : 4) < 0)
        return -1;
    uint32_t len =
        size[0] | (uint32_t)size[1] << 8 | (uint32_t)size[2] << 16 | (uint32_t)size[3] << 24;
    if (len > HEAD_MOST)
        return head_fail(a, "its head is too long");
    char *text = memory_zero(len + 1);
    if (!text)
        return -1;
    got = in_read(a->in, text, len);
    const char *descr = strstr(text, "'descr':"), *order = strstr(text, "'fortran_order':");
    int bad = got < 0;
    if (!bad && (got < (int64_t)len || !descr || !order ||
                 sscanf(descr, "'descr': '%7[^']'", a->type) != 1 || shape_read(a, text)))
        bad = head_fail(a, "its head is not as NumPy writes it");
    else if (!bad && a->rank > 1 && strncmp(order + strlen("'fortran_order':"), " False", 6))
        bad = head_fail(a, "it is in Fortran's order, expected C's");
    memory_free(text);
    return bad ? -1 : 0;
}

static const char *shape_text(const array *a, char out[80])
{
    int at = snprintf(out, 80, "%s [", a->type);
    for (int i = 0; i < a->rank; i++)
        at += snprintf(out + at, (size_t)(80 - at), "%s%" PRIu64, i ? ", " : "", a->shape[i]);
    snprintf(out + at, (size_t)(80 - at), "]");
    return out;
}

/* Opens NAME.npy, if it is there, and checks that it is of one of two types and a shape; n 0: any
 * number of rows. Trailing dimensions of 1 may be left out. */
static int array_open(array *a, const char *dir, const char *name, const char *type,
                      const char *other, uint64_t n, int known, uint64_t d1, uint64_t d2)
{
    char path[PATH_SIZE], is[80];
    if (path_make(path, "%s/%s.npy", dir, name))
        return -1;
    if (access(path, F_OK))
        return 0;
    if (!(a->in = in_open(path)) || head_read(a))
        return -1;
    for (int i = a->rank; i < DIMENSIONS; i++)
        a->shape[i] = 1;
    if (!a->rank || (strcmp(a->type, type) && strcmp(a->type, other)) ||
        (known && a->shape[0] != n) || a->shape[1] * a->shape[2] != d1 * d2 ||
        (d2 > 1 && a->shape[2] != d2))
        return fail("%s: is %s, expected %s of %" PRIu64 " rows of [%" PRIu64 ", %" PRIu64 "]",
                    path, shape_text(a, is), type, known ? n : a->shape[0], d1, d2);
    return 0;
}

/* ---- a table ---- */

typedef struct arrays {
    array keys, steps, weight[COLUMNS_MAX], count[COLUMNS_MAX], state[COLUMNS_MAX];
} arrays;

static void column_names(const mr_table *t, uint32_t c, char name[3][PATH_SIZE])
{
    char table[3 * 256], column[3 * 256];
    file_name(t->name, table);
    file_name(t->column[c].name, column);
    snprintf(name[0], PATH_SIZE, "%s.%s", table, column);
    snprintf(name[1], PATH_SIZE, "%s.%s.count", table, column);
    snprintf(name[2], PATH_SIZE, "%s.%s.state", table, column);
}

static void table_names(const mr_table *t, char name[2][PATH_SIZE])
{
    char table[3 * 256];
    file_name(t->name, table);
    snprintf(name[0], PATH_SIZE, "%s.keys", table);
    snprintf(name[1], PATH_SIZE, "%s.steps", table);
}

/* 1: it has rows there, 0: it has not, -1. */
static int arrays_open(arrays *x, const char *dir, const mr_table *t)
{
    char name[3][PATH_SIZE];
    table_names(t, name);
    if (array_open(&x->keys, dir, name[0], "<u8", "<i8", 0, 0, 1, 1))
        return -1;
    if (!x->keys.in)
        return 0;
    uint64_t n = x->keys.shape[0];
    if (array_open(&x->steps, dir, name[1], "<u8", "<i8", n, 1, 1, 1))
        return -1;
    for (uint32_t c = 0; c < t->columns; c++) {
        uint32_t dim = t->column[c].dim, state = t->column[c].state;
        uint32_t inner = optimizer_floats(&t->column[c].optim) ? 1 : dim;
        column_names(t, c, name);
        if (array_open(&x->weight[c], dir, name[0], "<f4", "<f4", n, 1, dim, 1) ||
            array_open(&x->count[c], dir, name[1], "<u4", "<i4", n, 1, 1, 1) ||
            array_open(&x->state[c], dir, name[2], "<f4", "<f4", n, 1, state / inner, inner))
            return -1;
    }
    return 1;
}

static void arrays_close(arrays *x)
{
    in_close(x->keys.in);
    in_close(x->steps.in);
    for (int c = 0; c < COLUMNS_MAX; c++) {
        in_close(x->weight[c].in);
        in_close(x->count[c].in);
        in_close(x->state[c].in);
    }
}

static int array_take(array *a, void *to, size_t len)
{
    int64_t got = a->in ? in_read(a->in, to, len) : (int64_t)len;
    return got < 0             ? -1
           : (size_t)got < len ? fail("%s: ends before its last row, it is not whole", a->in->path)
                               : 0;
}

static int row_take(adding *a, arrays *x, const mr_table *t, uint64_t i)
{
    uint32_t columns = 0, states = 0;
    for (uint32_t c = 0; c < t->columns; c++) {
        columns |= (uint32_t)(x->weight[c].in != NULL) << c;
        states |= (uint32_t)(x->state[c].in || !t->column[c].state) << c;
    }
    row *r = adding_row(a, columns, states);
    if (!r || array_take(&x->keys, &r->key, 8) || array_take(&x->steps, &r->step, 8))
        return -1;
    for (uint32_t c = 0; c < t->columns; c++) {
        float *w = row_column(t, r, c);
        if (array_take(&x->weight[c], w, 4 * (size_t)t->column[c].dim) ||
            array_take(&x->count[c], &r->count[c], 4) ||
            array_take(&x->state[c], w + t->column[c].dim, 4 * (size_t)t->column[c].state))
            return -1;
        if (x->count[c].in && !r->count[c])
            columns &= ~(1u << c);
    }
    adding_given(a, columns);
    if (!adding_done(a))
        return 0;
    char why[700];
    snprintf(why, sizeof why, "%s", mr_error());
    return fail("%s: row %" PRIu64 ": %s", x->keys.in->path, i, why);
}

static int table_take(adding *a, const char *dir, mr_table *t)
{
    arrays x;
    memset(&x, 0, sizeof x);
    int there = arrays_open(&x, dir, t), bad = there < 0 || (there && adding_begin(a, t));
    for (uint64_t i = 0; there > 0 && !bad && i < x.keys.shape[0]; i++)
        bad = row_take(a, &x, t, i);
    arrays_close(&x);
    return bad ? -1 : there;
}

/* ---- the directory ---- */

static int is_known(const char *file, mr_table *const *tables, size_t n)
{
    char name[5][PATH_SIZE];
    size_t len = strlen(file) - strlen(".npy");
    for (size_t i = 0; i < n; i++)
        for (uint32_t c = 0; c < tables[i]->columns; c++) {
            table_names(tables[i], name);
            column_names(tables[i], c, name + 2);
            for (int k = 0; k < 5; k++)
                if (!strncmp(file, name[k], len) && !name[k][len])
                    return 1;
        }
    return 0;
}

static int files_check(const char *dir, mr_table *const *tables, size_t n)
{
    DIR *d = opendir(dir);
    int bad = d ? 0 : fail("%s: is no directory of .npy files", dir);
    for (struct dirent *e; d && !bad && (e = readdir(d));) {
        size_t len = strlen(e->d_name);
        if (len > 4 && !strcmp(e->d_name + len - 4, ".npy") && !is_known(e->d_name, tables, n))
            bad = fail("%s/%s: the model has no table and column for it", dir, e->d_name);
    }
    if (d)
        closedir(d);
    return bad;
}

int import_npy(adding *a, const char *dir, mr_table *const *tables, size_t n)
{
    int found = 0;
    if (files_check(dir, tables, n))
        return -1;
    for (size_t i = 0; i < n; i++) {
        int rc = table_take(a, dir, tables[i]);
        if (rc < 0)
            return -1;
        found += rc;
    }
    return found ? 0 : fail("%s: holds no TABLE.keys.npy of a table of the model", dir);
}

/* tape.c - a step's tensors as nodes in the order they were made, and the walk back over them.
 *
 * Nodes live in chunks that never move and are reused from step to step; everything else that a
 * step makes lives in the arena. Backward clears has_grad of all nodes but leaves, sets the
 * gradient of its start to 1 and walks down: each node that got a gradient passes it to its
 * inputs, the first to write overwrites, later ones add. So two passes over one tape add up in
 * the leaves and nowhere else. */
#include "tape.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernel.h"
#include "operation.h"

KERNEL_PICK(operation_table, operation_table)
extern const operation_table operation_table_f64;

enum { CHUNK = 128, ARGUMENTS_MAX = 1024 };

struct mr_tape {
    node **chunk; /* [chunks] of CHUNK nodes */
    size_t chunks, chunk_room;
    int nodes;
    lookup **lookup; /* [lookups], in the arena */
    size_t lookups, lookup_room;
    arena *arena;
    const operation_table *table;
    size_t real; /* bytes */
    int training;
    uint64_t seed, step;
    int32_t *argument; /* [ARGUMENTS_MAX], the first `arguments` are taken for the next node */
    int arguments;
    int at; /* the node that backward looks at next, or -1 */
};

/* ---- the tape ---------------------------------------------------------------------------- */

mr_tape *mr_tape_new(uint64_t seed, int real)
{
    if (real != sizeof(float) && real != sizeof(double))
        return fail_null("tape: real is %d bytes, expected 4 or 8", real);
    mr_tape *t = memory_zero(sizeof *t);
    if (!t)
        return NULL;
    t->real = (size_t)real;
    t->table = real == sizeof(double) ? &operation_table_f64 : operation_table_pick();
    t->seed = seed;
    t->at = -1;
    t->arena = arena_new();
    t->argument = memory_new(sizeof *t->argument * ARGUMENTS_MAX);
    if (!t->arena || !t->argument) {
        mr_tape_free(t);
        return NULL;
    }
    return t;
}

void mr_tape_free(mr_tape *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->chunks; i++)
        memory_free(t->chunk[i]);
    memory_free(t->chunk);
    memory_free(t->lookup);
    memory_free(t->argument);
    arena_free(t->arena);
    memory_free(t);
}

void mr_tape_reset(mr_tape *t)
{
    t->nodes = 0;
    t->lookups = 0;
    t->arguments = 0;
    t->at = -1;
    arena_reset(t->arena);
}

void mr_tape_begin(mr_tape *t, int training, double step)
{
    mr_tape_reset(t);
    t->training = training;
    t->step = (uint64_t)step;
}

arena *tape_arena(mr_tape *t)
{
    return t->arena;
}

int tape_training(const mr_tape *t)
{
    return t->training;
}

size_t tape_real(const mr_tape *t)
{
    return t->real;
}

uint64_t tape_stream(mr_tape *t, const node *n)
{
    return random_at(random_at(t->seed, t->step), (uint64_t)node_number(t, n));
}

/* ---- lookups ------------------------------------------------------------------------------- */

int tape_lookup_add(mr_tape *t, lookup *l)
{
    if (memory_reserve((void **)&t->lookup, &t->lookup_room, t->lookups + 1, sizeof *t->lookup))
        return -1;
    t->lookup[t->lookups] = l;
    return (int)t->lookups++;
}

void *lookup_grad(mr_tape *t, const node *n, int *add)
{
    lookup *l = n->lookup;
    uint32_t bit = 1u << (n->column - l->column);
    if (!l->grad)
        l->grad = arena_take(t->arena, (size_t)l->unique * l->grad_width * t->real);
    if (!l->grad)
        return NULL;
    *add = (l->set & bit) != 0;
    l->set |= bit;
    l->touched |= bit;
    return (char *)l->grad + n->column->grad_offset * t->real;
}

/* Sets the columns of gradients that no node wrote: whoever reads them finds no undefined one. */
static void lookups_finish(mr_tape *t)
{
    for (size_t i = 0; i < t->lookups; i++) {
        lookup *l = t->lookup[i];
        for (uint32_t c = 0; l->grad && c < l->columns; c++) {
            if (l->set >> c & 1)
                continue;
            l->set |= 1u << c;
            for (size_t u = 0; u < l->unique; u++)
                memset((char *)l->grad + (u * l->grad_width + l->column[c].grad_offset) * t->real,
                       0, l->column[c].dim * t->real);
        }
    }
}

typedef struct keyed {
    uint64_t key;
    uint32_t entry;
} keyed;

static int keyed_compare(const void *pa, const void *pb)
{
    const keyed *a = pa, *b = pb;
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    return (a->entry > b->entry) - (a->entry < b->entry);
}

static void sort(keyed *k, size_t n) /* shell sort: qsort may call malloc, and n is small */
{
    for (size_t gap = n / 2; gap; gap = gap == 2 ? 1 : gap * 5 / 11)
        for (size_t i = gap; i < n; i++) {
            keyed moving = k[i];
            size_t j = i;
            for (; j >= gap && keyed_compare(&k[j - gap], &moving) > 0; j -= gap)
                k[j] = k[j - gap];
            k[j] = moving;
        }
}

int mr_tape_lookup(mr_tape *t, const mr_batch *b, const int32_t *dims, int columns,
                   const double *rows, int unique)
{
    if (columns < 1 || columns > 32)
        return fail("lookup: %d columns, expected 1 to 32", columns);
    arena *a = t->arena;
    size_t width = 0, entries = (size_t)b->entries;
    for (int c = 0; c < columns; c++)
        width += (size_t)dims[c];
    lookup *l = arena_take(a, sizeof *l);
    lookup_column *column = arena_take(a, sizeof *column * (size_t)columns);
    keyed *order = arena_take(a, sizeof *order * entries);
    uint32_t *at = arena_take(a, sizeof *at * entries);
    uint32_t *start = arena_take(a, sizeof *start * ((size_t)unique + 1));
    occurrence *o = arena_take(a, sizeof *o * entries);
    void **row = arena_take(a, sizeof *row * (size_t)unique);
    char *copy = arena_take(a, width * (size_t)unique * t->real);
    if (!l || !column || !order || !at || !start || !o || !row || !copy)
        return -1;
    for (size_t e = 0; e < entries; e++)
        order[e] = (keyed){b->keys[e], (uint32_t)e};
    sort(order, entries);
    size_t u = 0;
    for (size_t i = 0; i < entries; i++) {
        if (i == 0 || order[i].key != order[i - 1].key) {
            if (u == (size_t)unique)
                return fail("lookup: the batch has more than %d distinct keys", unique);
            start[u++] = (uint32_t)i;
        }
        at[order[i].entry] = (uint32_t)u - 1;
        o[i].entry = order[i].entry;
    }
    if (u != (size_t)unique)
        return fail("lookup: the batch has %zu distinct keys, expected %d", u, unique);
    start[u] = (uint32_t)entries;
    for (size_t i = 0; i < entries; i++)
        for (int32_t s = 0; s < b->n; s++)
            if (o[i].entry >= b->offsets[s] && o[i].entry < b->offsets[s + 1])
                o[i].sample = (uint32_t)s;
    for (size_t i = 0, offset = 0; i < (size_t)columns; offset += (size_t)dims[i++])
        column[i] = (lookup_column){"", (uint32_t)dims[i], (uint32_t)offset, (uint32_t)offset};
    for (size_t i = 0; i < width * (size_t)unique; i++)
        if (t->real == sizeof(double))
            ((double *)copy)[i] = rows[i];
        else
            ((float *)copy)[i] = (float)rows[i];
    for (size_t i = 0; i < (size_t)unique; i++)
        row[i] = copy + i * width * t->real;
    *l = (lookup){.batch = b,
                  .table = "given",
                  .column = column,
                  .columns = (uint32_t)columns,
                  .unique = (uint32_t)unique,
                  .grad_width = (uint32_t)width,
                  .at = at,
                  .row = row,
                  .start = t->training ? start : NULL,
                  .occurrence = t->training ? o : NULL};
    return tape_lookup_add(t, l);
}

static double real_at(const mr_tape *t, const void *p, size_t i)
{
    return t->real == sizeof(double) ? ((const double *)p)[i] : (double)((const float *)p)[i];
}

double mr_tape_lookup_gradient(mr_tape *t, int number, int index)
{
    const lookup *l = t->lookup[number];
    return l->grad ? real_at(t, l->grad, (size_t)index) : 0;
}

/* ---- nodes ----------------------------------------------------------------------------------- */

node *tape_node(mr_tape *t, int id)
{
    return &t->chunk[id / CHUNK][id % CHUNK];
}

int node_number(mr_tape *t, const node *n)
{
    for (size_t i = 0; i < t->chunks; i++)
        if (n >= t->chunk[i] && n < t->chunk[i] + CHUNK)
            return (int)(i * CHUNK + (size_t)(n - t->chunk[i]));
    return -1;
}

const char *node_text(const node *n)
{
    static _Thread_local char ring[4][64];
    static _Thread_local unsigned turn;
    char *text = ring[turn++ % 4];
    size_t len = (size_t)sprintf(text, "[");
    for (int i = 0; i < n->rank; i++)
        len += (size_t)snprintf(text + len, 64 - len, i ? ", %d" : "%d", (int)n->dim[i]);
    snprintf(text + len, 64 - len, "]");
    return text;
}

int node_shape(node *n, int rank, const int32_t *dim)
{
    size_t count = 1;
    n->rank = rank;
    for (int i = 0; i < RANK_MAX; i++) {
        n->dim[i] = i < rank ? dim[i] : 1;
        if (n->dim[i] < 0)
            return fail("tensor: dimension %d is %d", i + 1, (int)n->dim[i]);
        if (n->dim[i] && count > INT32_MAX / (size_t)n->dim[i])
            return fail("tensor: shape %s has more than 2^31 elements", node_text(n));
        count *= (size_t)n->dim[i];
    }
    n->count = count;
    return 0;
}

int node_data(mr_tape *t, node *n)
{
    n->data = arena_take(t->arena, n->count * t->real);
    return n->data ? 0 : -1;
}

int node_sink(mr_tape *t, node *n, sink *out)
{
    *out = (sink){NULL, 0};
    if (!n->needs_grad)
        return 0;
    if (n->op == OP_LEAF && n->param[0] && t->real == sizeof(float)) {
        out->grad = param_grad(n->param[0], &out->add);
        return out->grad ? 0 : -1;
    }
    if (!n->grad) {
        n->grad = arena_take(t->arena, n->count * t->real);
        if (!n->grad)
            return -1;
    }
    *out = (sink){n->grad, n->has_grad};
    n->has_grad = 1;
    return 0;
}

static int known(const mr_tape *t, int id)
{
    if (id < 0 || id >= t->nodes)
        return fail("tape: node %d is not among its %d", id, t->nodes);
    return 0;
}

/* A new node, blank; not yet on the tape: node_keep() puts it there. */
static node *node_next(mr_tape *t, op_code op)
{
    if ((size_t)t->nodes == t->chunks * CHUNK) {
        if (memory_reserve((void **)&t->chunk, &t->chunk_room, t->chunks + 1, sizeof *t->chunk))
            return NULL;
        t->chunk[t->chunks] = memory_new(sizeof(node) * CHUNK);
        if (!t->chunk[t->chunks])
            return NULL;
        t->chunks++;
    }
    node *n = tape_node(t, t->nodes);
    *n = (node){.op = (int32_t)op};
    return n;
}

static int node_keep(mr_tape *t)
{
    return t->nodes++;
}

/* Gives a node the inputs in[0..inputs); one that is -1 is left out, and so are those behind. */
static int node_inputs(mr_tape *t, node *n, const int *in, int inputs)
{
    while (inputs && in[inputs - 1] < 0)
        inputs--;
    int32_t *copy = arena_take(t->arena, sizeof *copy * (size_t)MAX(inputs, 1));
    if (!copy)
        return -1;
    for (int i = 0; i < inputs; i++) {
        if (in[i] >= 0 && known(t, in[i]))
            return -1;
        copy[i] = in[i];
        if (in[i] >= 0 && t->training && tape_node(t, in[i])->needs_grad)
            n->needs_grad = 1;
    }
    n->in = copy;
    n->inputs = inputs;
    return 0;
}

static int record(mr_tape *t, node *n, const int *in, int inputs)
{
    if (!n || node_inputs(t, n, in, inputs) || t->table->op[n->op].forward(t, n))
        return -1;
    return node_keep(t);
}

/* ---- what a node holds
 * --------------------------------------------------------------------------- */

int mr_tape_nodes(const mr_tape *t)
{
    return t->nodes;
}

int mr_tape_rank(mr_tape *t, int a)
{
    return known(t, a) ? -1 : tape_node(t, a)->rank;
}

int mr_tape_dim(mr_tape *t, int a, int axis)
{
    if (known(t, a))
        return -1;
    node *n = tape_node(t, a);
    if (axis < 0 || axis >= n->rank)
        return fail("tensor: %s has no dimension %d", node_text(n), axis + 1);
    return n->dim[axis];
}

int mr_tape_elements(mr_tape *t, int a)
{
    return known(t, a) ? -1 : (int)tape_node(t, a)->count;
}

void *mr_tape_data(mr_tape *t, int a)
{
    return known(t, a) ? NULL : tape_node(t, a)->data;
}

const float *mr_tape_floats(mr_tape *t, int a)
{
    if (t->real != sizeof(float))
        return fail_null("tape: it holds doubles");
    return mr_tape_data(t, a);
}

double mr_tape_scalar(mr_tape *t, int a, int index)
{
    if (known(t, a) || index < 0 || (size_t)index >= tape_node(t, a)->count)
        return (double)NAN;
    return real_at(t, tape_node(t, a)->data, (size_t)index);
}

double mr_tape_gradient(mr_tape *t, int a, int index)
{
    if (known(t, a) || index < 0 || (size_t)index >= tape_node(t, a)->count)
        return (double)NAN;
    node *n = tape_node(t, a);
    if (!n->has_grad || !n->keeps_grad)
        return (double)NAN;
    return real_at(t, n->grad, (size_t)index);
}

/* ---- leaves
 * ---------------------------------------------------------------------------------------- */

/* Copies count reals from floats or doubles (one of them NULL) into the arena. */
static void *copied(mr_tape *t, size_t count, const float *f, const double *d)
{
    void *p = arena_take(t->arena, count * t->real);
    if (!p)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        double value = d ? d[i] : (double)f[i];
        if (t->real == sizeof(double))
            ((double *)p)[i] = value;
        else
            ((float *)p)[i] = (float)value;
    }
    return p;
}

int mr_tape_param(mr_tape *t, mr_param *p)
{
    node *n = node_next(t, OP_LEAF);
    int32_t dim[RANK_MAX];
    if (!n || node_shape(n, param_shape(p, dim), dim))
        return -1;
    n->param[0] = p;
    n->needs_grad = t->training && param_trainable(p);
    n->keeps_grad = 1;
    n->data =
        t->real == sizeof(float) ? mr_param_data(p) : copied(t, n->count, mr_param_data(p), NULL);
    return n->data ? node_keep(t) : -1;
}

static int vector(mr_tape *t, const mr_batch *b, const float *data, const char *name)
{
    node *n = node_next(t, OP_LEAF);
    if (!n)
        return -1;
    if (!data)
        return fail("batch: its samples have no %s", name);
    node_shape(n, 1, &b->n);
    n->data = t->real == sizeof(float) ? (void *)(uintptr_t)data : copied(t, n->count, data, NULL);
    return n->data ? node_keep(t) : -1;
}

int mr_tape_label(mr_tape *t, const mr_batch *batch)
{
    return vector(t, batch, batch->label, "label");
}

int mr_tape_weight(mr_tape *t, const mr_batch *batch)
{
    if (batch->weight)
        return vector(t, batch, batch->weight, "weight");
    node *n = node_next(t, OP_LEAF);
    if (!n || node_shape(n, 1, &batch->n) || node_data(t, n))
        return -1;
    for (size_t i = 0; i < n->count; i++)
        if (t->real == sizeof(double))
            ((double *)n->data)[i] = 1;
        else
            ((float *)n->data)[i] = 1;
    return node_keep(t);
}

int mr_tape_leaf(mr_tape *t, const int32_t *dim, int rank, const double *data, int wants_grad)
{
    node *n = node_next(t, OP_LEAF);
    if (!n)
        return -1;
    if (rank < 1 || rank > RANK_MAX)
        return fail("leaf: %d dimensions, expected 1 to %d", rank, RANK_MAX);
    if (node_shape(n, rank, dim))
        return -1;
    n->needs_grad = n->keeps_grad = wants_grad && t->training;
    n->data = copied(t, n->count, NULL, data);
    return n->data ? node_keep(t) : -1;
}

int mr_tape_constant(mr_tape *t, double value)
{
    const int32_t one = 1;
    return mr_tape_leaf(t, &one, 1, &value, 0);
}

/* ---- operations
 * -------------------------------------------------------------------------------------- */

static int pool(mr_tape *t, op_code op, int number, int c)
{
    if (number < 0 || (size_t)number >= t->lookups)
        return fail("tape: lookup %d is not among its %zu", number, t->lookups);
    lookup *l = t->lookup[number];
    if (c < 0 || (uint32_t)c >= l->columns)
        return fail("table %s: column %d is not among its %u", l->table, c, l->columns);
    node *n = node_next(t, op);
    if (!n)
        return -1;
    n->lookup = l;
    n->column = &l->column[c];
    n->needs_grad = (uint8_t)t->training;
    if (t->table->op[op].forward(t, n))
        return -1;
    return node_keep(t);
}

int mr_tape_pool_sum(mr_tape *t, int lookup, int c)
{
    return pool(t, OP_POOL_SUM, lookup, c);
}

int mr_tape_pool_mean(mr_tape *t, int lookup, int c)
{
    return pool(t, OP_POOL_MEAN, lookup, c);
}

int mr_tape_pool_fields(mr_tape *t, int lookup, int c)
{
    return pool(t, OP_POOL_FIELDS, lookup, c);
}

int mr_tape_pool_fm(mr_tape *t, int lookup, int c)
{
    return pool(t, OP_POOL_FM, lookup, c);
}

int mr_tape_linear(mr_tape *t, int x, int w, int b, int act)
{
    if (act < LINEAR_NONE || act > LINEAR_TANH)
        return fail("linear: activation %d is unknown", act);
    node *n = node_next(t, OP_LINEAR);
    if (n)
        n->code = act;
    return record(t, n, (const int[]){x, w, b}, 3);
}

static int binary(mr_tape *t, op_code op, int a, int b)
{
    return record(t, node_next(t, op), (const int[]){a, b}, 2);
}

int mr_tape_add(mr_tape *t, int a, int b)
{
    return binary(t, OP_ADD, a, b);
}

int mr_tape_sub(mr_tape *t, int a, int b)
{
    return binary(t, OP_SUB, a, b);
}

int mr_tape_mul(mr_tape *t, int a, int b)
{
    return binary(t, OP_MUL, a, b);
}

int mr_tape_div(mr_tape *t, int a, int b)
{
    return binary(t, OP_DIV, a, b);
}

/* An operation on one tensor, with two settings. */
static int unary(mr_tape *t, op_code op, int a, double first, double second)
{
    node *n = node_next(t, op);
    if (n) {
        n->a = first;
        n->b = second;
    }
    return record(t, n, &a, 1);
}

int mr_tape_affine(mr_tape *t, int a, double scale, double shift)
{
    return unary(t, OP_AFFINE, a, scale, shift);
}

int mr_tape_relu(mr_tape *t, int a)
{
    return unary(t, OP_RELU, a, 0, 0);
}

int mr_tape_sigmoid(mr_tape *t, int a)
{
    return unary(t, OP_SIGMOID, a, 0, 0);
}

int mr_tape_tanh(mr_tape *t, int a)
{
    return unary(t, OP_TANH, a, 0, 0);
}

int mr_tape_dropout(mr_tape *t, int a, double rate)
{
    if (!(rate >= 0 && rate < 1))
        return fail("dropout: rate is %g, expected 0 to below 1", rate);
    if (!t->training || rate == 0)
        return known(t, a) ? -1 : a;
    return unary(t, OP_DROPOUT, a, rate, 0);
}

int mr_tape_batch_norm(mr_tape *t, int a, int gamma, int beta, mr_param *mean, mr_param *variance,
                       double momentum, double eps)
{
    node *n = node_next(t, OP_BATCH_NORM);
    if (n) {
        n->a = momentum;
        n->b = eps;
        n->param[0] = mean;
        n->param[1] = variance;
    }
    return record(t, n, (const int[]){a, gamma, beta}, 3);
}

int mr_tape_argument(mr_tape *t, int a)
{
    if (t->arguments == ARGUMENTS_MAX)
        return fail("tape: an operation of more than %d tensors", ARGUMENTS_MAX);
    t->argument[t->arguments++] = a;
    return 0;
}

static int arguments_take(mr_tape *t)
{
    int n = t->arguments;
    t->arguments = 0;
    return n;
}

int mr_tape_concat(mr_tape *t)
{
    int n = arguments_take(t);
    if (n == 0)
        return fail("concat: expected tensors, got none");
    return record(t, node_next(t, OP_CONCAT), t->argument, n);
}

int mr_tape_user(mr_tape *t, int rank, int d0, int d1, int d2, int d3)
{
    int inputs = arguments_take(t);
    const int32_t dim[] = {d0, d1, d2, d3};
    node *n = node_next(t, OP_USER);
    if (!n)
        return -1;
    if (rank < 1 || rank > RANK_MAX)
        return fail("operation: its shape has %d dimensions, expected 1 to %d", rank, RANK_MAX);
    if (node_inputs(t, n, t->argument, inputs) || node_shape(n, rank, dim) || node_data(t, n))
        return -1;
    return node_keep(t);
}

int mr_tape_reshape(mr_tape *t, int a, int rank, int d0, int d1, int d2, int d3)
{
    node *n = node_next(t, OP_RESHAPE);
    if (!n)
        return -1;
    if (rank < 1 || rank > RANK_MAX)
        return fail("reshape: %d dimensions, expected 1 to %d", rank, RANK_MAX);
    n->rank = rank;
    memcpy(n->dim, (const int32_t[]){d0, d1, d2, d3}, sizeof n->dim);
    return record(t, n, &a, 1);
}

int mr_tape_sum(mr_tape *t, int a)
{
    return unary(t, OP_SUM, a, 0, 0);
}

int mr_tape_mean(mr_tape *t, int a)
{
    return unary(t, OP_MEAN, a, 0, 0);
}

int mr_tape_bce(mr_tape *t, int logits, int labels, int weights)
{
    return record(t, node_next(t, OP_BCE), (const int[]){logits, labels, weights}, 3);
}

int mr_tape_mse(mr_tape *t, int a, int labels, int weights)
{
    return record(t, node_next(t, OP_MSE), (const int[]){a, labels, weights}, 3);
}

/* ---- backward
 * ------------------------------------------------------------------------------------------ */

int mr_tape_backward_next(mr_tape *t)
{
    while (t->at >= 0) {
        int id = t->at--;
        node *n = tape_node(t, id);
        if (!n->has_grad || n->op == OP_LEAF)
            continue;
        int user = n->op == OP_USER;
        if (!user && !t->table->op[n->op].backward(t, n))
            continue;
        lookups_finish(t); /* the caller may not come back */
        return user ? id : -1;
    }
    lookups_finish(t);
    return -2;
}

int mr_tape_backward(mr_tape *t, int from)
{
    if (known(t, from))
        return -1;
    node *loss = tape_node(t, from);
    if (!t->training)
        return fail("backward: the tape does not train");
    if (loss->count != 1)
        return fail("backward: expected a loss of shape [1], got %s", node_text(loss));
    double value = real_at(t, loss->data, 0);
    if (!isfinite(value))
        return fail("backward: the loss is %g", isnan(value) ? (double)NAN : value);
    for (int i = 0; i <= from; i++) {
        node *n = tape_node(t, i);
        if (!n->keeps_grad)
            n->has_grad = 0;
    }
    if (!loss->needs_grad)
        return -2;
    sink s;
    if (node_sink(t, loss, &s))
        return -1;
    if (t->real == sizeof(double))
        *(double *)s.grad = s.add ? *(double *)s.grad + 1 : 1;
    else
        *(float *)s.grad = s.add ? *(float *)s.grad + 1 : 1;
    t->at = from;
    return mr_tape_backward_next(t);
}

void *mr_tape_user_grad(mr_tape *t, int a)
{
    return known(t, a) ? NULL : tape_node(t, a)->grad;
}

void *mr_tape_user_sink(mr_tape *t, int a, int input)
{
    if (known(t, a))
        return NULL;
    node *n = tape_node(t, a);
    if (input < 0 || input >= n->inputs)
        return fail_null("operation: it has no input %d", input + 1);
    node *to = node_in(t, n, input);
    sink s;
    if (node_sink(t, to, &s))
        return NULL;
    if (!s.grad) /* nobody wants it, but the caller need not know */
        s.grad = arena_take(t->arena, to->count * t->real);
    if (s.grad && !s.add)
        memset(s.grad, 0, to->count * t->real);
    return s.grad;
}

/* tape.c - a step's tensors as nodes in the order they were made, and the walk back over them.
 *
 * Nodes live in chunks that never move and are reused from step to step; everything else that a
 * step makes lives in the arena. Backward clears has_grad of all nodes but leaves, sets the
 * gradient of its start to 1 and walks down: each node that got a gradient passes it to its
 * inputs, the first to write overwrites, later ones add. So two passes over one tape add up in
 * the leaves and nowhere else. */
#include "tensor/tape.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/profile.h"
#include "kernel/kernel.h"
#include "tensor/operation.h"

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
    int at;             /* the node that backward looks at next, or -1 */
    double *generation; /* counts resets */
};

/* ---- the tape ---- */

_Static_assert((int)OP_COUNT <= PROFILE_OPERATIONS, "a profile has room for all operations");

__attribute__((constructor)) static void operations_register(void)
{
    profile_operations(operation_name, OP_COUNT);
}

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
    t->generation = generation_new();
    if (!t->arena || !t->argument || !t->generation) {
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
    generation_free(t->generation);
    memory_free(t);
}

void mr_tape_reset(mr_tape *t)
{
    GIVEN(t, );
    for (size_t i = 0; i < t->lookups; i++)
        if (t->lookup[i]->in_use && *t->lookup[i]->table_now == t->lookup[i]->table_then)
            *t->lookup[i]->in_use = 0;
    t->nodes = 0;
    t->lookups = 0;
    t->arguments = 0;
    t->at = -1;
    ++*t->generation;
    arena_reset(t->arena);
}

const double *mr_tape_generation(const mr_tape *t)
{
    GIVEN(t, NULL);
    return t->generation;
}

void mr_tape_begin(mr_tape *t, int training, double step)
{
    GIVEN(t, );
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
    return t && t->training;
}

uint64_t tape_step(const mr_tape *t)
{
    return t->step;
}

size_t tape_real(const mr_tape *t)
{
    return t->real;
}

uint64_t tape_stream(mr_tape *t, const node *n)
{
    return random_at(random_at(t->seed, t->step), (uint64_t)node_number(t, n));
}

/* ---- lookups ---- */

int tape_lookup_add(mr_tape *t, lookup *l)
{
    if (memory_reserve((void **)&t->lookup, &t->lookup_room, t->lookups + 1, sizeof *t->lookup))
        return -1;
    t->lookup[t->lookups] = l;
    return (int)t->lookups++;
}

lookup *tape_lookup(mr_tape *t, int number)
{
    GIVEN(t, NULL);
    if (number < 0 || (size_t)number >= t->lookups)
        return fail_null("tape: lookup %d is not among its %zu", number, t->lookups);
    return t->lookup[number];
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

static double real_at(const mr_tape *t, const void *p, size_t i)
{
    return t->real == sizeof(double) ? ((const double *)p)[i] : (double)((const float *)p)[i];
}

double mr_tape_lookup_gradient(mr_tape *t, int number, int index)
{
    GIVEN(t, -1);
    const lookup *l = tape_lookup(t, number);
    if (!l || !l->grad || index < 0 || (size_t)index >= (size_t)l->unique * l->grad_width)
        return 0;
    return real_at(t, l->grad, (size_t)index);
}

/* ---- nodes ---- */

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

int node_known(const mr_tape *t, int id)
{
    GIVEN(t, -1);
    if (id < 0 || id >= t->nodes)
        return fail("tape: node %d is not among its %d", id, t->nodes);
    return 0;
}

node *node_next(mr_tape *t, op_code op)
{
    GIVEN(t, NULL);
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

int node_keep(mr_tape *t)
{
    return t->nodes++;
}

int node_inputs(mr_tape *t, node *n, const int *in, int inputs)
{
    while (inputs && in[inputs - 1] < 0)
        inputs--;
    int32_t *copy = arena_take(t->arena, sizeof *copy * (size_t)MAX(inputs, 1));
    if (!copy)
        return -1;
    for (int i = 0; i < inputs; i++) {
        if (in[i] >= 0 && node_known(t, in[i]))
            return -1;
        copy[i] = in[i];
        if (in[i] >= 0 && t->training && tape_node(t, in[i])->needs_grad)
            n->needs_grad = 1;
    }
    n->in = copy;
    n->inputs = inputs;
    return 0;
}

/* -1 after fail() if what a node pools of a lookup is no more. */
static int lookup_over(const node *n)
{
    const lookup *l = n->lookup;
    if (!l)
        return 0;
    if (l->batch_now && *l->batch_now != l->batch_then)
        return fail(
            "table %s, column %s: its batch is over: the iterator gave the next one, or was "
            "closed, before this; compute and go backward before that",
            l->table, n->column->name);
    if (l->table_now && *l->table_now != l->table_then)
        return fail("%s: the rows that were looked up are no more: their table was closed, or read "
                    "anew; look them up again",
                    operation_name(n->op));
    return 0;
}

static int node_forward(mr_tape *t, node *n)
{
    PROFILE(PART_OPERATIONS + n->op);
    if (lookup_over(n))
        return -1;
    return t->table->op[n->op].forward(t, n);
}

int node_record(mr_tape *t, node *n, const int *in, int inputs)
{
    if (!n || node_inputs(t, n, in, inputs))
        return -1;
    const operation *o = &t->table->op[n->op];
    for (int i = 0; i < o->required; i++)
        if (i >= n->inputs || n->in[i] < 0)
            return fail("%s: tensor %d of %d is left out", o->name, i + 1, o->required);
    if (node_forward(t, n))
        return -1;
    return node_keep(t);
}

int mr_tape_argument(mr_tape *t, int a)
{
    GIVEN(t, -1);
    if (node_known(t, a))
        return -1;
    if (t->arguments == ARGUMENTS_MAX)
        return fail("tape: an operation of more than %d tensors", ARGUMENTS_MAX);
    t->argument[t->arguments++] = a;
    return 0;
}

const int32_t *tape_arguments(mr_tape *t, int *n)
{
    *n = t ? t->arguments : 0;
    if (!t)
        return NULL;
    t->arguments = 0;
    return t->argument;
}

const char *operation_name(int code)
{
    return operation_table_base.op[code].name;
}

/* ---- what a node holds ---- */

int mr_tape_nodes(const mr_tape *t)
{
    GIVEN(t, -1);
    return t->nodes;
}

int mr_tape_rank(mr_tape *t, int a)
{
    GIVEN(t, -1);
    return node_known(t, a) ? -1 : tape_node(t, a)->rank;
}

int mr_tape_dim(mr_tape *t, int a, int axis)
{
    GIVEN(t, -1);
    if (node_known(t, a))
        return -1;
    node *n = tape_node(t, a);
    if (axis < 0 || axis >= n->rank)
        return fail("tensor: %s has no dimension %d", node_text(n), axis + 1);
    return n->dim[axis];
}

int mr_tape_elements(mr_tape *t, int a)
{
    GIVEN(t, -1);
    return node_known(t, a) ? -1 : (int)tape_node(t, a)->count;
}

void *mr_tape_data(mr_tape *t, int a)
{
    GIVEN(t, NULL);
    return node_known(t, a) ? NULL : tape_node(t, a)->data;
}

const float *mr_tape_floats(mr_tape *t, int a)
{
    GIVEN(t, NULL);
    if (t->real != sizeof(float))
        return fail_null("tape: it holds doubles");
    return mr_tape_data(t, a);
}

double mr_tape_scalar(mr_tape *t, int a, int index)
{
    GIVEN(t, -1);
    if (node_known(t, a) || index < 0 || (size_t)index >= tape_node(t, a)->count)
        return (double)NAN;
    return real_at(t, tape_node(t, a)->data, (size_t)index);
}

double mr_tape_gradient(mr_tape *t, int a, int index)
{
    GIVEN(t, -1);
    if (node_known(t, a) || index < 0 || (size_t)index >= tape_node(t, a)->count)
        return (double)NAN;
    node *n = tape_node(t, a);
    if (!n->has_grad || !n->keeps_grad)
        return (double)NAN;
    return real_at(t, n->grad, (size_t)index);
}

/* ---- leaves ---- */

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
    GIVEN(t && p, -1);
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
    if (node_shape(n, 1, &b->n))
        return -1;
    n->data = copied(t, n->count, data, NULL); /* the batch may be gone by the time of backward */
    return n->data ? node_keep(t) : -1;
}

int mr_tape_label(mr_tape *t, const mr_batch *batch)
{
    GIVEN(t && batch, -1);
    return vector(t, batch, batch->label, "label");
}

int mr_tape_weight(mr_tape *t, const mr_batch *batch)
{
    GIVEN(t && batch, -1);
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
    GIVEN(t && dim && data, -1);
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
    GIVEN(t, -1);
    const int32_t one = 1;
    return mr_tape_leaf(t, &one, 1, &value, 0);
}

/* ---- backward ---- */

static int node_backward(mr_tape *t, node *n)
{
    PROFILE(PART_OPERATIONS + OP_COUNT + n->op);
    if (lookup_over(n))
        return -1;
    return t->table->op[n->op].backward(t, n);
}

int mr_tape_backward_next(mr_tape *t)
{
    GIVEN(t, -1);
    while (t->at >= 0) {
        int id = t->at--;
        node *n = tape_node(t, id);
        if (!n->has_grad || n->op == OP_LEAF)
            continue;
        int user = n->op == OP_USER;
        if (!user && !node_backward(t, n))
            continue;
        lookups_finish(t); /* the caller may not come back */
        return user ? id : -1;
    }
    lookups_finish(t);
    return -2;
}

int mr_tape_backward(mr_tape *t, int from)
{
    GIVEN(t, -1);
    if (node_known(t, from))
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
    GIVEN(t, NULL);
    return node_known(t, a) ? NULL : tape_node(t, a)->grad;
}

void *mr_tape_user_sink(mr_tape *t, int a, int input)
{
    GIVEN(t, NULL);
    if (node_known(t, a))
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

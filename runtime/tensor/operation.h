/* operation.h - the nodes of a tape and what an operation is made of.
 *
 * A node is one tensor: a leaf, or the result of an operation on earlier nodes, so inputs have
 * smaller numbers than the node and the walk back is the walk down. Data, gradients and what an
 * operation saves for its backward are `real`s in the tape's arena (operation files are compiled
 * for float and for double, see kernel.h), but for the data and gradients of params, which are
 * the param's own.
 *
 * An operation is two functions. `forward` checks shapes, sets node->rank and dim, takes the
 * node's data and computes it. `backward` reads node->grad and adds to the gradients of its
 * inputs: node_sink() says where, and whether the buffer holds something already. It may
 * overwrite node->grad, which nobody reads after it. */
#ifndef MR_OPERATION_H
#define MR_OPERATION_H

#include "table/lookup.h"
#include "tensor/tape.h"

enum { RANK_MAX = 4, ELEMENTS = 16384 /* of an element-wise operation in one piece */ };

typedef enum op_code {
    OP_LEAF, /* no operation: data is given */
    OP_USER, /* computed in Lua */
#define OPERATION(code, name, required, functions) code,
#include "tensor/operations.h"
    OP_COUNT
} op_code;

/* What a linear layer applies to its result. */
typedef enum activation { LINEAR_NONE, LINEAR_RELU, LINEAR_SIGMOID, LINEAR_TANH } activation;

typedef struct node {
    int32_t op;   /* op_code */
    int32_t rank; /* 1 to RANK_MAX */
    int32_t dim[RANK_MAX];
    size_t count;      /* elements */
    void *data;        /* [count] */
    void *grad;        /* [count], or NULL; meaningful only if has_grad */
    void *saved;       /* for backward; the operation's own */
    const int32_t *in; /* numbers of the inputs */
    int32_t inputs;
    uint8_t needs_grad; /* some leaf below it wants one, and the tape trains */
    uint8_t has_grad;   /* grad holds the sum so far */
    uint8_t keeps_grad; /* leaf: backward passes add up */
    uint8_t updated;    /* batch norm: the running statistics have taken this batch in */
    int32_t code;       /* activation, axis, mr_loss, mr_pool, fields of an FFM, rows of a norm */
    double a, b;        /* settings, as the operation says */
    lookup *lookup;     /* pooling: from where */
    const lookup_column *column;
    mr_param *param[2]; /* leaf: its param; batch norm: running mean and variance */
} node;

typedef struct operation {
    const char *name; /* in messages */
    int required;     /* the first so many inputs are not left out */
    int (*forward)(mr_tape *t, node *n);
    int (*backward)(mr_tape *t, node *n);
} operation;

/* All of them by op_code: one such table for each variant. */
typedef struct operation_table {
    operation op[OP_COUNT];
} operation_table;

const char *operation_name(int code);

/* -1 after fail() if there is no node of that number. */
int node_known(const mr_tape *t, int id);
node *tape_node(mr_tape *t, int id); /* id is known to be on the tape */
int node_number(mr_tape *t, const node *n);
static inline node *node_in(mr_tape *t, const node *n, int i)
{
    return tape_node(t, n->in[i]);
}
/* The same where an input may be left out: NULL then. */
static inline node *node_in_or(mr_tape *t, const node *n, int i)
{
    return i < n->inputs && n->in[i] >= 0 ? node_in(t, n, i) : NULL;
}

/* A new node, blank, that the tape does not have yet: node_keep() makes it the last one and returns
 * its number. NULL after fail(). */
node *node_next(mr_tape *t, op_code op);
int node_keep(mr_tape *t);

/* Gives a node the inputs in[0..inputs). One that is -1 is left out. */
int node_inputs(mr_tape *t, node *n, const int *in, int inputs);

/* Both, with the operation's forward between them. n NULL: -1, for node_next() has failed. */
int node_record(mr_tape *t, node *n, const int *in, int inputs);

/* What mr_tape_argument() collected, until its next call. */
const int32_t *tape_arguments(mr_tape *t, int *n);

/* A lookup of the tape by number; NULL after fail(). */
lookup *tape_lookup(mr_tape *t, int number);

/* Sets a shape and takes the data of a node from the arena. dim has `rank` elements. */
int node_shape(node *n, int rank, const int32_t *dim);
int node_data(mr_tape *t, node *n);

/* n as text, "[1024, 16]"; valid until the fourth call after it. */
const char *node_text(const node *n);

/* Where the gradient of a node goes. */
typedef struct sink {
    void *grad; /* [count], or NULL: it wants none */
    int add;    /* 1: add to what is there; 0: overwrite it */
} sink;
int node_sink(mr_tape *t, node *n, sink *out);

/* The gradient of the column of a pooling node, [unique, dim] with grad_width reals from one to the
 * next: add is 0 for the first node of a step that writes it. NULL after fail(). */
void *lookup_grad(mr_tape *t, const node *n, int *add);

/* The numbers that dropout draws from for node n. */
uint64_t tape_stream(mr_tape *t, const node *n);

/* The gradient of a param, [count] floats, and whether it holds one already. */
float *param_grad(mr_param *p, int *add);
size_t param_count(const mr_param *p);
int param_shape(const mr_param *p, int32_t *dim); /* returns the rank */
int param_trainable(const mr_param *p);
const char *param_name(const mr_param *p);

#ifdef MR_KERNEL_H
#define OPERATION(code, name, required, functions)                                                 \
    int KERNEL(functions##_forward)(mr_tape * t, node * n);                                        \
    int KERNEL(functions##_backward)(mr_tape * t, node * n);
#include "tensor/operations.h"
#endif

#endif

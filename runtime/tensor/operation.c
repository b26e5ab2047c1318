/* operation.c - what records an operation: its settings go into a new node, its inputs are looked
 * up, and its forward function checks shapes and computes (op_*.c, by way of node_record()). In the
 * order of the header. */
#include "tensor/operation.h"

#include <string.h>

static node *pool_node(mr_tape *t, op_code op, int number, int c)
{
    lookup *l = tape_lookup(t, number);
    node *n = node_next(t, op);
    if (!l || !n)
        return NULL;
    if (c < 0 || (uint32_t)c >= l->columns)
        return fail_null("table %s: column %d is not among its %u", l->table, c, l->columns);
    n->lookup = l;
    n->column = &l->column[c];
    n->needs_grad = (uint8_t)tape_training(t);
    return n;
}

static int pool(mr_tape *t, op_code op, int number, int c, int code)
{
    node *n = pool_node(t, op, number, c);
    if (n)
        n->code = code;
    return node_record(t, n, NULL, 0);
}

int mr_tape_pool(mr_tape *t, int lookup, int c, int how, int by_field)
{
    if (how < MR_POOL_SUM || how > MR_POOL_MAX)
        return fail("pool: %d is no way to pool", how);
    if (how == MR_POOL_MAX)
        return pool(t, OP_POOL_MAX, lookup, c, by_field);
    return pool(t, by_field ? OP_POOL_FIELDS : OP_POOL_SUM, lookup, c, how);
}

static int sequence(mr_tape *t, op_code op, int lookup, int c, int field, int length, int padded)
{
    node *n = pool_node(t, op, lookup, c);
    if (n) {
        n->code = padded;
        n->a = field;
        n->b = length;
    }
    return node_record(t, n, NULL, 0);
}

int mr_tape_sequence(mr_tape *t, int lookup, int c, int field, int length, int padded)
{
    return sequence(t, OP_SEQUENCE, lookup, c, field, length, padded);
}

int mr_tape_sequence_mask(mr_tape *t, int lookup, int c, int field, int length)
{
    return sequence(t, OP_SEQUENCE_MASK, lookup, c, field, length, 1);
}

int mr_tape_pool_fm(mr_tape *t, int lookup, int c)
{
    return pool(t, OP_POOL_FM, lookup, c, 0);
}

int mr_tape_pool_bi(mr_tape *t, int lookup, int c)
{
    return pool(t, OP_POOL_BI, lookup, c, 0);
}

int mr_tape_pool_ffm(mr_tape *t, int lookup, int c, int fields)
{
    return pool(t, OP_POOL_FFM, lookup, c, fields);
}

int mr_tape_inner(mr_tape *t, int x, int y)
{
    return node_record(t, node_next(t, OP_INNER), (const int[]){x, y}, 2);
}

int mr_tape_cross(mr_tape *t, int x0, int z, int x, int b)
{
    return node_record(t, node_next(t, OP_CROSS), (const int[]){x0, z, x, b}, 4);
}

int mr_tape_cin(mr_tape *t, int x, int x0, int w)
{
    return node_record(t, node_next(t, OP_CIN), (const int[]){x, x0, w}, 3);
}

int mr_tape_linear(mr_tape *t, int x, int w, int b, int act)
{
    if (act < LINEAR_NONE || act > LINEAR_TANH)
        return fail("linear: activation %d is unknown", act);
    node *n = node_next(t, OP_LINEAR);
    if (n)
        n->code = act;
    return node_record(t, n, (const int[]){x, w, b}, 3);
}

int mr_tape_matmul(mr_tape *t, int x, int y, int across)
{
    if (node_known(t, x) || node_known(t, y))
        return -1;
    int dense = tape_node(t, y)->rank == 2;
    if (dense && across) {
        y = mr_tape_transpose(t, y, 0, 1);
        if (y < 0)
            return -1;
    }
    node *n = node_next(t, dense ? OP_LINEAR : OP_MATMUL);
    if (!n)
        return -1;
    if (dense)
        n->a = 1;
    else
        n->code = across;
    return node_record(t, n, (const int[]){x, y}, 2);
}

static int binary(mr_tape *t, op_code op, int a, int b)
{
    return node_record(t, node_next(t, op), (const int[]){a, b}, 2);
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
    return node_record(t, n, &a, 1);
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

int mr_tape_leaky_relu(mr_tape *t, int a, double slope)
{
    return unary(t, OP_LEAKY_RELU, a, slope, 0);
}

int mr_tape_gelu(mr_tape *t, int a)
{
    return unary(t, OP_GELU, a, 0, 0);
}

int mr_tape_silu(mr_tape *t, int a)
{
    return unary(t, OP_SILU, a, 0, 0);
}

int mr_tape_exp(mr_tape *t, int a)
{
    return unary(t, OP_EXP, a, 0, 0);
}

int mr_tape_log(mr_tape *t, int a)
{
    return unary(t, OP_LOG, a, 0, 0);
}

int mr_tape_sqrt(mr_tape *t, int a)
{
    return unary(t, OP_SQRT, a, 0, 0);
}

int mr_tape_abs(mr_tape *t, int a)
{
    return unary(t, OP_ABS, a, 0, 0);
}

int mr_tape_square(mr_tape *t, int a)
{
    return unary(t, OP_SQUARE, a, 0, 0);
}

int mr_tape_dropout(mr_tape *t, int a, double rate)
{
    if (!(rate >= 0 && rate < 1))
        return fail("dropout: rate is %g, expected 0 to below 1", rate);
    if (!tape_training(t) || rate == 0)
        return node_known(t, a) ? -1 : a;
    return unary(t, OP_DROPOUT, a, rate, 0);
}

int mr_tape_batch_norm(mr_tape *t, int a, int gamma, int beta, int mask, mr_param *mean,
                       mr_param *variance, double momentum, double eps)
{
    GIVEN(t && mean && variance, -1);
    node *n = node_next(t, OP_BATCH_NORM);
    if (n) {
        n->a = momentum;
        n->b = eps;
        n->param[0] = mean;
        n->param[1] = variance;
    }
    return node_record(t, n, (const int[]){a, gamma, beta, mask}, 4);
}

static int joined(mr_tape *t, int axis, int stack)
{
    int inputs;
    const int32_t *in = tape_arguments(t, &inputs);
    if (inputs == 0)
        return fail("%s: expected tensors, got none", stack ? "stack" : "concat");
    node *n = node_next(t, OP_CONCAT);
    if (!n || node_known(t, in[0]))
        return -1;
    n->code = axis == -1 ? tape_node(t, in[0])->rank - 1 + stack : axis;
    n->a = stack;
    return node_record(t, n, in, inputs);
}

int mr_tape_layer_norm(mr_tape *t, int a, int gamma, int beta, double eps)
{
    node *n = node_next(t, OP_LAYER_NORM);
    if (n)
        n->b = eps;
    return node_record(t, n, (const int[]){a, gamma, beta}, 3);
}

int mr_tape_pairs(mr_tape *t, int a, int b)
{
    return node_record(t, node_next(t, OP_PAIRS), (const int[]){a, b}, 2);
}

int mr_tape_concat(mr_tape *t, int axis)
{
    return joined(t, axis, 0);
}

int mr_tape_stack(mr_tape *t, int axis)
{
    return joined(t, axis, 1);
}

/* An operation on one tensor along an axis. */
static int along(mr_tape *t, op_code op, int a, int axis, double first, double second)
{
    node *n = node_next(t, op);
    if (n) {
        n->code = axis;
        n->a = first;
        n->b = second;
    }
    return node_record(t, n, &a, 1);
}

int mr_tape_slice(mr_tape *t, int a, int axis, int first, int last)
{
    return along(t, OP_SLICE, a, axis, first, last);
}

int mr_tape_transpose(mr_tape *t, int a, int axis, int other)
{
    return along(t, OP_TRANSPOSE, a, axis, other, 0);
}

int mr_tape_user(mr_tape *t, int rank, int d0, int d1, int d2, int d3)
{
    int inputs;
    const int32_t *in = tape_arguments(t, &inputs);
    const int32_t dim[] = {d0, d1, d2, d3};
    node *n = node_next(t, OP_USER);
    if (!n)
        return -1;
    if (rank < 1 || rank > RANK_MAX)
        return fail("operation: its shape has %d dimensions, expected 1 to %d", rank, RANK_MAX);
    if (node_inputs(t, n, in, inputs) || node_shape(n, rank, dim) || node_data(t, n))
        return -1;
    return node_keep(t);
}

int mr_tape_element(mr_tape *t, const mr_element_step *step, int steps)
{
    GIVEN(t && step, -1);
    int inputs;
    const int32_t *in = tape_arguments(t, &inputs);
    if (steps < 1 || steps > MR_ELEMENT_STEPS)
        return fail("element: %d steps, expected 1 to %d", steps, MR_ELEMENT_STEPS);
    for (int i = 0; i < steps; i++) {
        int low = MIN(step[i].a, step[i].b), high = MAX(step[i].a, step[i].b);
        if (low < 0 || high >= (step[i].op == MR_ELEMENT_INPUT ? inputs : MAX(i, 1)))
            return fail("element: step %d is of steps or inputs that are not there", i + 1);
    }
    node *n = node_next(t, OP_ELEMENT);
    if (!n || !(n->saved = arena_take(tape_arena(t), sizeof *step * (size_t)steps)))
        return -1;
    memcpy(n->saved, step, sizeof *step * (size_t)steps);
    n->code = steps;
    return node_record(t, n, in, inputs);
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
    return node_record(t, n, &a, 1);
}

int mr_tape_sum(mr_tape *t, int a)
{
    return unary(t, OP_SUM, a, 0, 0);
}

int mr_tape_mean(mr_tape *t, int a)
{
    return unary(t, OP_MEAN, a, 0, 0);
}

int mr_tape_sum_axis(mr_tape *t, int a, int axis, int keep)
{
    return along(t, OP_SUM_AXIS, a, axis, keep, 0);
}

int mr_tape_mean_axis(mr_tape *t, int a, int axis, int keep)
{
    return along(t, OP_MEAN_AXIS, a, axis, keep, 0);
}

int mr_tape_max_axis(mr_tape *t, int a, int axis, int keep)
{
    return along(t, OP_MAX_AXIS, a, axis, keep, 0);
}

int mr_tape_softmax(mr_tape *t, int a, int mask)
{
    return node_record(t, node_next(t, OP_SOFTMAX), (const int[]){a, mask}, 2);
}

int mr_tape_loss(mr_tape *t, int kind, int scores, int labels, int weights, double a, double b)
{
    if (kind < MR_BCE || kind > MR_BPR)
        return fail("loss: kind %d is unknown", kind);
    node *n = node_next(t, OP_LOSS);
    if (n) {
        n->code = kind;
        n->a = a;
        n->b = b;
    }
    return node_record(t, n, (const int[]){scores, labels, weights}, 3);
}

int mr_tape_cross_entropy(mr_tape *t, int logits, int labels, int weights, double smoothing)
{
    node *n = node_next(t, OP_CROSS_ENTROPY);
    if (n)
        n->a = smoothing;
    return node_record(t, n, (const int[]){logits, labels, weights}, 3);
}

int mr_tape_pairwise(mr_tape *t, int scores, int labels, int groups, int weights)
{
    return node_record(t, node_next(t, OP_PAIRWISE), (const int[]){scores, labels, groups, weights},
                       4);
}

int mr_tape_listwise(mr_tape *t, int scores, int labels, int groups, int weights)
{
    return node_record(t, node_next(t, OP_LISTWISE), (const int[]){scores, labels, groups, weights},
                       4);
}

int mr_tape_in_batch(mr_tape *t, int users, int items, int labels, int weights, int log_q, int ids,
                     double temperature)
{
    node *n = node_next(t, OP_IN_BATCH);
    if (n)
        n->a = temperature;
    return node_record(t, n, (const int[]){users, items, labels, weights, log_q, ids}, 6);
}

int mr_tape_l2_normalize(mr_tape *t, int a)
{
    return unary(t, OP_L2_NORMALIZE, a, 0, 0);
}

int mr_tape_frequency(mr_tape *t, const mr_batch *batch, int field, mr_param *seen, double rate)
{
    GIVEN(t && batch && seen, -1);
    uint64_t *keys = arena_take(tape_arena(t), sizeof *keys * (size_t)batch->n);
    node *n = node_next(t, OP_FREQUENCY);
    if (!keys || !n || mr_batch_keys(batch, field, keys) || node_shape(n, 1, &batch->n))
        return -1;
    n->a = rate;
    n->param[0] = seen;
    n->saved = keys;
    return node_record(t, n, NULL, 0);
}

/* op_table.c - the operations of one variant, by code. */
#include "kernel.h"
#include "operation.h"

#define ENTRY(code, name, functions)                                                               \
    [code] = {name, KERNEL(functions##_forward), KERNEL(functions##_backward)}

const operation_table KERNEL(operation_table) = {{
    [OP_LEAF] = {"leaf", NULL, NULL},
    [OP_USER] = {"operation", NULL, NULL},
    ENTRY(OP_POOL_SUM, "sum", pool_sum),
    ENTRY(OP_POOL_MEAN, "mean", pool_mean),
    ENTRY(OP_POOL_FIELDS, "fields", pool_fields),
    ENTRY(OP_POOL_FM, "fm", pool_fm),
    ENTRY(OP_LINEAR, "linear", linear),
    ENTRY(OP_ADD, "add", binary),
    ENTRY(OP_SUB, "sub", binary),
    ENTRY(OP_MUL, "mul", binary),
    ENTRY(OP_DIV, "div", binary),
    ENTRY(OP_AFFINE, "affine", affine),
    ENTRY(OP_RELU, "relu", unary),
    ENTRY(OP_SIGMOID, "sigmoid", unary),
    ENTRY(OP_TANH, "tanh", unary),
    ENTRY(OP_DROPOUT, "dropout", dropout),
    ENTRY(OP_CONCAT, "concat", concat),
    ENTRY(OP_RESHAPE, "reshape", reshape),
    ENTRY(OP_BATCH_NORM, "batch_norm", batch_norm),
    ENTRY(OP_ELEMENT, "element", element),
    ENTRY(OP_SUM, "sum", reduce),
    ENTRY(OP_MEAN, "mean", reduce),
    ENTRY(OP_BCE, "bce", bce),
    ENTRY(OP_MSE, "mse", mse),
}};

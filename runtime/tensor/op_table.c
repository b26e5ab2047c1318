/* op_table.c - the operations of one variant, by code. */
#include "kernel/kernel.h"
#include "tensor/operation.h"

const operation_table KERNEL(operation_table) = {{
    [OP_LEAF] = {"leaf", 0, NULL, NULL},
    [OP_USER] = {"operation", 0, NULL, NULL},
#define OPERATION(code, name, required, functions)                                                 \
    [code] = {name, required, KERNEL(functions##_forward), KERNEL(functions##_backward)},
#include "tensor/operations.h"
}};

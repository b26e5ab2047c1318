/* kernel.h - for files that are compiled once for each instruction set.
 *
 * The build defines VARIANT as base, v3 or v4 (x86-64 levels; float), or f64 (baseline, double,
 * with MR_F64: the tape that checks gradients). A file exports one table of functions, named
 * KERNEL(table): table_base, table_v3, ...; kernel_variant() says which to use. */
#ifndef MR_KERNEL_H
#define MR_KERNEL_H

#include "base/base.h"
#include "base/blas.h"

#ifdef MR_F64
typedef double real;
#define GEMM cblas_dgemm
#else
typedef float real;
#define GEMM cblas_sgemm
#endif

#define KERNEL_PASTE(name, variant) name##_##variant
#define KERNEL_NAME(name, variant) KERNEL_PASTE(name, variant)
#define KERNEL(name) KERNEL_NAME(name, VARIANT)

typedef enum kernel_level { KERNEL_BASE, KERNEL_V3, KERNEL_V4 } kernel_level;

/* The best level that this processor and MOONROCK_KERNELS=base|v3|v4 allow. */
kernel_level kernel_variant(void);

/* Declares a table of type `type` in all its float variants, and defines a static function
 * `name`_pick() that returns the one to use. */
#if defined(__x86_64__)
#define KERNEL_PICK(type, name)                                                                    \
    extern const type name##_base, name##_v3, name##_v4;                                           \
    static inline const type *name##_pick(void)                                                    \
    {                                                                                              \
        static const type *const by_level[] = {&name##_base, &name##_v3, &name##_v4};              \
        return by_level[kernel_variant()];                                                         \
    }
#else
#define KERNEL_PICK(type, name)                                                                    \
    extern const type name##_base;                                                                 \
    static inline const type *name##_pick(void)                                                    \
    {                                                                                              \
        return &name##_base;                                                                       \
    }
#endif

#endif

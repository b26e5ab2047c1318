/* blas.h - OpenBLAS, one thread at a time: our pool cuts the work, OpenBLAS computes a piece. */
#ifndef MR_BLAS_H
#define MR_BLAS_H

#include <cblas.h>

/* Makes OpenBLAS single-threaded for the calling thread. Called once by every thread of the
 * pool and by the main one: in the OpenMP build the setting belongs to the thread. */
void blas_thread_begin(void);

#endif

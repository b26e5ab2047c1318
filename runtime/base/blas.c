/* blas.c - keeps OpenBLAS single-threaded inside the pool's pieces. Its own threads are slow on
 * small shapes, fight with ours, and make results depend on their number. */
#include "base/blas.h"

#include <dlfcn.h>
#include <pthread.h>

#include "base/base.h"

void blas_thread_begin(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock); /* OpenBLAS resizes its pool here: one at a time */
    void (*omp)(int);
    *(void **)&omp = dlsym(RTLD_DEFAULT, "omp_set_num_threads");
    if (omp)
        omp(1);
    openblas_set_num_threads(1);
    pthread_mutex_unlock(&lock);
}

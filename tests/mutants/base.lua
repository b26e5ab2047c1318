-- The pool of threads, files.
return {
  { "a thread that comes late waits for ever: the order of two stores when a call begins",
    find = "    atomic_store(&pool.done, 0);\n    size_t threads = (size_t)pool.threads;\n    for (size_t i = 0; i < threads; i++)\n        atomic_store(&pool.share[i].ticket,\n                     (pieces * (i + 1) / threads) << 32 | pieces * i / threads);\n",
    replace = "    size_t threads = (size_t)pool.threads;\n    for (size_t i = 0; i < threads; i++)\n        atomic_store(&pool.share[i].ticket,\n                     (pieces * (i + 1) / threads) << 32 | pieces * i / threads);\n    atomic_store(&pool.done, 0);\n",
    tests = "thread_test" },
  { "a call within a piece takes the pool from the call under way", find = "if (pieces <= 1 || pool.threads == 1 || inside) {",
    replace = "if (pieces <= 1 || pool.threads == 1) {", tests = "thread_test" },
  { "nobody helps with the last thread's share", find = "&pool.share[(thread + i) % pool.threads];",
    replace = "&pool.share[(thread + i) % (pool.threads - (pool.threads > 2))];", tests = "thread_test" },
  { "the shares of a call leave its last piece out", find = "(pieces * (i + 1) / threads) << 32 | pieces * i / threads);",
    replace = "(pieces / threads * (i + 1)) << 32 | pieces / threads * i);", tests = "thread_test" },
  { "the pool's threads take signals", find = "    sigfillset(&all);\n", replace = "    sigemptyset(&all);\n", tests = "thread_test" },
  { "a caller leaves before the last piece is done", find = "    while (atomic_load(&pool.done) < pieces)\n",
    replace = "    while (atomic_load(&pool.done) + 1 < pieces)\n", tests = "thread_test" },
  { "a caller that sleeps is not woken", find = "atomic_fetch_add(&pool.done, 1) + 1 == pieces && atomic_load(&pool.waiting)",
    replace = "atomic_fetch_add(&pool.done, 1) == pieces && atomic_load(&pool.waiting)", tests = "thread_test" },
}

/* store.h - what the programs that test and time the store share: a table, steps that change its
 * rows, commits. A failure that leaves no way on ends the program. */
#ifndef TESTS_SUPPORT_STORE_H
#define TESTS_SUPPORT_STORE_H

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "base/file.h"

enum { DIM = 23 }; /* rows of 200 bytes */

static char root[256]; /* the directory that everything is made in */

static void must(int good, const char *what)
{
    if (good)
        return;
    printf("not ok %s\n  %s\n", what, mr_error());
    fflush(stdout);
    _exit(1);
}

static mr_tape *tape;

static mr_table *table_make(void)
{
    mr_column column = {.name = "v", .dim = DIM};
    column.init.kind = MR_UNIFORM;
    column.init.a = -1;
    column.init.b = 1;
    column.optim.kind = MR_ADAGRAD;
    column.optim.lr = 0.1f;
    column.optim.eps = 1e-8f;
    mr_table *t = mr_table_new("t", 7, 42, &column, 1);
    must(t != NULL, "table");
    return t;
}

static inline void push(mr_table *t, const uint64_t *keys, int n, uint64_t step)
{
    uint32_t *offsets = memory_new((size_t)(n + 1) * 4);
    for (int i = 0; i <= n; i++)
        offsets[i] = (uint32_t)i;
    mr_batch batch = {.n = n, .entries = n, .fields = 1, .keys = keys, .offsets = offsets};
    mr_tape_begin(tape, 1, (double)step);
    int lookup = mr_table_pull(t, tape, &batch);
    int rows = lookup < 0 ? -1 : mr_tape_pool(tape, lookup, 0, MR_POOL_SUM, 0);
    int squares = rows < 0 ? -1 : mr_tape_mul(tape, rows, rows);
    int sum = squares < 0 ? -1 : mr_tape_sum(tape, squares);
    must(sum >= 0 && mr_tape_backward(tape, sum) == -2, "gradient");
    must(mr_table_push(t, step) >= 0, "push");
    mr_tape_reset(tape);
    memory_free(offsets);
}

static inline int commit_all(mr_store *s, mr_table *t, uint64_t step)
{
    char state[64];
    snprintf(state, sizeof state, "step %llu", (unsigned long long)step);
    if (mr_commit_begin(s) || mr_commit_put(s, "state", "overwritten", 11) ||
        mr_commit_put(s, "empty", "", 0) || mr_commit_table(s, t) ||
        mr_commit_put(s, "state", state, strlen(state))) {
        mr_commit_abort(s);
        return -1;
    }
    return mr_commit_end(s, step);
}

static inline const char *at(const char *name)
{
    static char path[4][300];
    static int next;
    char *p = path[next++ & 3];
    snprintf(p, 300, "%s/%s", root, name);
    return p;
}

#endif

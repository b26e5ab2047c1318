/* verify_test.c - what verify tells of a store whose records contradict each other, though each of them is whole. */
#include <stdlib.h>
#include <unistd.h>

#include "store/store.h"
#include "support/check.h"
#include "support/store.h"
#include "table/table_room.h"

enum { COMMITS = 4 };

static const uint64_t key = 12;

static mr_store *made(const char *name, mr_table **t)
{
    mr_store *s = mr_store_open(at(name), MR_STORE_CREATE);
    *t = table_make();
    must(s && !mr_store_load(s, *t), "create");
    for (uint64_t step = 1; step <= COMMITS; step++) {
        push(*t, &key, 1, step);
        must(!commit_all(s, *t, step), "commit");
    }
    return s;
}

/* One problem, that holds a text; NULL: none. */
static void tells(mr_store *s, mr_table *t, const char *text)
{
    mr_verification *v = mr_store_verify(s, &t, 1);
    const char *first = v ? mr_verification_problem(v, 0) : NULL;
    check(v && (text ? first && strstr(first, text) && !mr_verification_problem(v, 1) : !first),
          "expected %s, got %s", text ? text : "nothing", first ? first : "nothing");
    mr_verification_free(v);
}

static void log_test(void)
{
    int before = failures;
    mr_table *t;
    mr_store *s = made("log", &t);
    char name[COMMIT_KEY] = {PREFIX_COMMIT};
    uint64_t number = __builtin_bswap64(3);
    memcpy(name + 1, &number, 8);
    tells(s, t, NULL);
    must(!mr_commit_begin(s), "begin");
    rows_file *f = rows_file_new(s);
    must(f && !rows_file_drop(f, name, sizeof name) && !rows_file_end(f) &&
             !mr_commit_end(s, COMMITS),
         "commit");
    tells(s, t, "the log of commits: 4 follows 2");
    mr_store_close(s);
    mr_table_free(t);
    report("a commit that is missing in the log is told", before);
}

static void step_test(void)
{
    int before = failures;
    mr_table *t;
    mr_store *s = made("step", &t);
    uint8_t record[4096];
    char name[ROW_KEY];
    row *r = table_find(t, key);
    must(r && table_record_most(t) <= sizeof record, "row");
    r->step = COMMITS + 1;
    size_t len = table_encode(t, r, record);
    r->step = COMMITS;
    row_key(name, PREFIX_ROW, 7, key);
    must(!mr_commit_begin(s), "begin");
    rows_file *f = rows_file_new(s);
    must(f && !rows_file_put(f, name, sizeof name, record, len) && !rows_file_end(f) &&
             !mr_commit_end(s, COMMITS),
         "commit");
    tells(s, t, "is of step 5, the last commit of step 4");
    mr_store_close(s);
    mr_table_free(t);
    report("a row of a step that was not committed is told", before);
}

int main(void)
{
    tape = mr_tape_new(1, 4);
    must(tape != NULL, "tape");
    snprintf(root, sizeof root, "%s/moonrock-verify-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    must(mkdtemp(root) != NULL, "temporary directory");
    RUN(log_test);
    RUN(step_test);
    mr_tape_free(tape);
    tree_remove(root);
    return failures != 0;
}

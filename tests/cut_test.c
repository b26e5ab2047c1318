/* cut_test.c - a commit takes rows as they were at its step, whatever training does to them meanwhile: its
 * thread loses the processor in the middle of each row, for as long as a step takes. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "store/store.h"
#include "support/check.h"
#include "support/store.h"
#include "table/table_room.h"

static void encode_slowly(void);
#define table_cut table_cut_slow
#define table_unchanged table_unchanged_slow
#define sort_rows sort_rows_slow
#define table_cut_sort table_cut_sort_slow
#define table_cut_encode table_cut_encode_slow
#define table_cut_abandon table_cut_abandon_slow
#define cut_keep cut_keep_slow
#define table_cut_end table_cut_end_slow
#define table_encode(t, r, record) (encode_slowly(), table_encode(t, r, record))
#include "table/cut.c"
#undef table_encode

enum { KEYS = 300, AT_ONCE = 64, STEPS = 12, PATIENCE = 60 };

static void encode_slowly(void)
{
    usleep(300);
}

typedef struct cutting {
    mr_table *t;
    uint8_t *record; /* [KEYS, most] */
    uint64_t key[KEYS];
    size_t most;
} cutting;

static void *encode_all(void *context)
{
    cutting *c = context;
    uint8_t *records = memory_new(c->most * AT_ONCE);
    size_t n = (size_t)table_cut_sort_slow(c->t), ends[AT_ONCE];
    for (size_t from = 0; records && from < n;) {
        size_t begin = 0;
        size_t got = table_cut_encode_slow(c->t, from, AT_ONCE, c->key + from, records, ends);
        for (size_t i = 0; i < got; begin = ends[i++])
            memcpy(c->record + (from + i) * c->most, records + begin, ends[i] - begin);
        from += got;
    }
    memory_free(records);
    return NULL;
}

static void torn_test(void)
{
    int before = failures, wrong = 0;
    mr_table *t = table_make();
    uint64_t keys[KEYS];
    for (int i = 0; i < KEYS; i++)
        keys[i] = mix64((uint64_t)i);
    push(t, keys, KEYS, 1);
    cutting c = {.t = t, .most = table_record_most(t)};
    uint8_t *expected = memory_zero(KEYS * c.most);
    c.record = memory_zero(KEYS * c.most);
    must(expected && c.record, "memory");
    for (uint64_t step = 1; step < STEPS; step++) {
        pthread_t thread;
        for (int i = 0; i < KEYS; i++)
            table_encode(t, table_find(t, keys[i]), expected + (size_t)i * c.most);
        must(!table_cut_slow(t, step) && !pthread_create(&thread, NULL, encode_all, &c), "cut");
        usleep((unsigned)step * 2000); /* in some place of the commit */
        push(t, keys, KEYS, step + 1);
        pthread_join(thread, NULL);
        table_cut_end_slow(t, 1);
        for (int i = 0; i < KEYS; i++)
            for (int k = 0; k < KEYS; k++)
                if (c.key[k] == keys[i])
                    wrong += memcmp(c.record + (size_t)k * c.most, expected + (size_t)i * c.most,
                                    c.most) != 0;
    }
    check(!wrong, "%d rows are not as they were at their step", wrong);
    memory_free(expected);
    memory_free(c.record);
    mr_table_free(t);
    report("rows of a commit are those of its step, though they change while they are written",
           before);
}

int main(void)
{
    alarm(PATIENCE);
    tape = mr_tape_new(1, 4);
    must(tape != NULL, "tape");
    RUN(torn_test);
    mr_tape_free(tape);
    return failures != 0;
}

/* grouping.c - samples that have a key in common: the keys of a field as numbers, and samples in the
 * order of their groups. Keys are found in an open-addressing table of twice as many places, at least. */
#include <string.h>

#include "tensor/grouping.h"

#include "tensor/operation.h"

static uint32_t number_all(const uint64_t *keys, size_t n, uint32_t *place, size_t places,
                           uint64_t *first, uint32_t *of)
{
    uint32_t groups = 0;
    for (size_t i = 0; i < places; i++)
        place[i] = UINT32_MAX;
    for (size_t s = 0; s < n; s++) {
        size_t at = mix64(keys[s]) & (places - 1);
        while (place[at] != UINT32_MAX && first[place[at]] != keys[s])
            at = (at + 1) & (places - 1);
        if (place[at] == UINT32_MAX) {
            first[groups] = keys[s];
            place[at] = groups++;
        }
        of[s] = place[at];
    }
    return groups;
}

int grouping_make(arena *a, const uint64_t *keys, size_t n, grouping *out)
{
    size_t places = 16;
    while (places < 2 * n)
        places *= 2;
    uint32_t *place = arena_take(a, sizeof *place * places);
    uint64_t *first = arena_take(a, sizeof *first * n);
    out->of = arena_take(a, sizeof *out->of * n);
    out->start = arena_take(a, sizeof *out->start * (n + 2));
    out->member = arena_take(a, sizeof *out->member * n);
    if (!place || !first || !out->of || !out->start || !out->member)
        return -1;
    out->groups = number_all(keys, n, place, places, first, out->of);
    for (size_t g = 0; g < out->groups + 2; g++)
        out->start[g] = 0;
    for (size_t s = 0; s < n; s++)
        out->start[out->of[s] + 2]++;
    for (size_t g = 2; g < out->groups + 2; g++)
        out->start[g] += out->start[g - 1];
    for (size_t s = 0; s < n; s++)
        out->member[out->start[out->of[s] + 1]++] = (uint32_t)s;
    return 0;
}

int mr_batch_keys(const mr_batch *b, int field, uint64_t *keys)
{
    GIVEN(b && keys, -1);
    if (field == -1 && !b->group)
        return fail("batch: its samples have no query ids (qid:N behind the label)");
    if (field == -1) {
        memcpy(keys, b->group, (size_t)b->n * sizeof *keys);
        return 0;
    }
    if (b->fields == 0)
        return fail("batch: its samples are plain sets of keys, without fields to take one from");
    if (field < 0 || field >= b->fields)
        return fail("batch: field %d is not among its %d", field + 1, (int)b->fields);
    for (int32_t s = 0; s < b->n; s++) {
        uint32_t e = b->offsets[s], end = b->offsets[s + 1];
        if (b->field)
            while (e < end && b->field[e] != field)
                e++;
        else
            e += (uint32_t)field;
        keys[s] = e < end ? b->keys[e] : 0;
    }
    return 0;
}

int mr_tape_keys(mr_tape *t, const mr_batch *b, int field)
{
    GIVEN(t && b, -1);
    node *n = node_next(t, OP_LEAF);
    grouping g;
    uint64_t *keys = arena_take(tape_arena(t), sizeof *keys * (size_t)b->n);
    if (!n || !keys || mr_batch_keys(b, field, keys) ||
        grouping_make(tape_arena(t), keys, (size_t)b->n, &g) || node_shape(n, 1, &b->n) ||
        !(n->data = arena_take(tape_arena(t), n->count * tape_real(t))))
        return -1;
    for (size_t s = 0; s < n->count; s++)
        if (tape_real(t) == sizeof(double))
            ((double *)n->data)[s] = g.of[s];
        else
            ((float *)n->data)[s] = (float)g.of[s];
    return node_keep(t);
}

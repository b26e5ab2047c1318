/* batch.c - what is done to a batch of a reader before it is learned from: negatives are dropped by
 * chance, classes are weighted. */
#include "base/base.h"

/* What is drawn for a record: a pure function of (seed, epoch, record), from 0 to below 1. */
static double drawn(uint64_t seed, uint64_t epoch, int64_t record)
{
    uint64_t x = random_at(random_at(seed ^ UINT64_C(0x6e6567617469), epoch), (uint64_t)record);
    return (double)(x >> 11) * 0x1p-53;
}

static void *writable(const void *p)
{
    return (void *)(uintptr_t)p;
}

int mr_batch_draw(mr_batch *b, uint64_t seed, double epoch, double rate)
{
    GIVEN(b, -1);
    if (!b->label || !b->record)
        return fail("batch: negatives cannot be dropped, it has no %s",
                    b->label ? "numbers of its records" : "labels");
    if (b->shared)
        return fail("batch: negatives cannot be dropped from the data that is kept in memory: open "
                    "the reader with `own`");
    uint64_t *keys = writable(b->keys);
    float *values = writable(b->values), *label = writable(b->label), *weight = writable(b->weight);
    uint16_t *field = writable(b->field);
    uint64_t *group = writable(b->group);
    uint32_t *offsets = writable(b->offsets), begin = 0, entries = 0;
    int64_t *record = writable(b->record);
    uint8_t *bad = writable(b->bad);
    int32_t n = 0;
    for (int32_t s = 0; s < b->n; s++) {
        uint32_t end = offsets[s + 1];
        if (!(label[s] < 0.5f) || drawn(seed, (uint64_t)epoch, record[s]) < rate) {
            for (uint32_t e = begin; e < end; e++, entries++) {
                keys[entries] = keys[e];
                if (values)
                    values[entries] = values[e];
                if (field)
                    field[entries] = field[e];
            }
            label[n] = label[s];
            record[n] = record[s];
            if (weight)
                weight[n] = weight[s];
            if (group)
                group[n] = group[s];
            if (bad)
                bad[n] = bad[s];
            offsets[++n] = entries;
        }
        begin = end;
    }
    if (n != b->n && b->generation) /* lookups were of all of it */
        ++*(double *)writable(b->generation);
    if (n != b->n)
        b->number = 0; /* what was read ahead was for all of it */
    b->n = n;
    b->entries = (int32_t)entries;
    return n;
}

double mr_batch_weight(const mr_batch *b)
{
    double sum = 0;
    if (!b->weight)
        return b->n;
    for (int32_t s = 0; s < b->n; s++)
        sum += (double)b->weight[s];
    return sum;
}

int mr_batch_weigh(mr_batch *b, double negative, double positive, float *weight)
{
    GIVEN(b && weight, -1);
    if (!b->label)
        return fail("batch: classes cannot be weighted, it has no labels");
    for (int32_t s = 0; s < b->n; s++)
        weight[s] = (float)((b->label[s] < 0.5f ? negative : positive) *
                            (b->weight ? (double)b->weight[s] : 1));
    b->weight = weight;
    return 0;
}

/* samples.c - see samples.h. Every array has room of its own and grows by half. */
#include <math.h>
#include <string.h>

#include "base/base.h"
#include "data/samples.h"

#define GROW(array, need)                                                                          \
    memory_reserve((void **)&s->array, &s->array##_room, need, sizeof *s->array)

void samples_free(samples *s)
{
    memory_free(s->offsets);
    if (!s->view) {
        memory_free(s->keys);
        memory_free(s->values);
        memory_free(s->field);
        memory_free(s->label);
        memory_free(s->weight);
        memory_free(s->group);
        memory_free(s->bad);
        memory_free(s->record);
        memory_free(s->numbers);
    }
    memset(s, 0, sizeof *s);
}

void samples_clear(samples *s)
{
    s->n = s->entries = 0;
    s->valued = 0;
    s->marked = 0;
    s->grouped = 0;
}

static int grow(samples *s, size_t n, size_t entries)
{
    if (entries > UINT32_MAX || n > UINT32_MAX)
        return fail("reader: more than 2^32 entries at once; use a smaller window");
    entries = MAX(entries, (size_t)1); /* no array is NULL */
    if (GROW(keys, entries) || GROW(offsets, n + 1) || GROW(label, n) || GROW(record, n))
        return -1;
    if ((s->valued && GROW(values, entries)) || (s->fielded && GROW(field, entries)) ||
        (s->weighted && GROW(weight, n)) || (s->grouped && GROW(group, n)) ||
        (s->marked && GROW(bad, n)) || (s->width && GROW(numbers, n * s->width)))
        return -1;
    s->offsets[0] = 0;
    return 0;
}

int samples_reserve(samples *s, size_t entries)
{
    return grow(s, s->n + 1, s->entries + entries);
}

/* memory_reserve grows by half at least; one that starts from nothing takes what is asked. */
int samples_reserve_all(samples *s, size_t n, size_t entries)
{
    return grow(s, n + 1, entries);
}

int samples_value(samples *s, size_t at)
{
    if (s->valued)
        return 0;
    if (GROW(values, s->keys_room))
        return -1;
    for (size_t i = 0; i < at; i++)
        s->values[i] = 1;
    s->valued = 1;
    return 0;
}

int samples_group(samples *s)
{
    if (s->grouped)
        return 0;
    if (GROW(group, s->record_room))
        return -1;
    memset(s->group, 0, s->n * sizeof *s->group);
    s->grouped = 1;
    return 0;
}

void samples_commit(samples *s, size_t end, float label, float weight, int64_t record)
{
    s->label[s->n] = label;
    s->record[s->n] = record;
    if (s->weighted)
        s->weight[s->n] = weight;
    if (s->marked)
        s->bad[s->n] = 0;
    s->entries = end;
    s->offsets[++s->n] = (uint32_t)end;
}

int samples_commit_bad(samples *s, size_t fields, int64_t record)
{
    size_t entries = s->fielded ? 0 : fields;
    if (samples_reserve(s, entries))
        return -1;
    if (!s->marked) {
        s->marked = 1;
        if (GROW(bad, s->n + 1))
            return -1;
        memset(s->bad, 0, s->n);
    }
    for (size_t i = 0; i < s->width; i++)
        s->numbers[s->n * s->width + i] = NAN;
    for (size_t i = s->entries; i < s->entries + entries; i++) {
        s->keys[i] = 0;
        if (s->valued)
            s->values[i] = 1;
    }
    if (s->grouped)
        s->group[s->n] = 0;
    samples_commit(s, s->entries + entries, NAN, 1, record);
    s->bad[s->n - 1] = 1;
    return 0;
}

int samples_plain(const samples *s, size_t fields)
{
    if (!fields || s->entries != s->n * fields)
        return 0;
    const uint16_t *field = s->field;
    for (size_t i = 0; i < s->n; i++, field += fields) {
        int differs = s->offsets[i + 1] != (i + 1) * fields;
        for (size_t f = 0; f < fields; f++)
            differs |= field[f] != f;
        if (differs)
            return 0;
    }
    return 1;
}

size_t samples_bytes(const samples *s)
{
    return s->keys_room * 8 + s->values_room * 4 + s->field_room * 2 + s->offsets_room * 4 +
           s->label_room * 4 + s->weight_room * 4 + s->group_room * 8 + s->bad_room +
           s->record_room * 8 + s->numbers_room * 8;
}

/* Copies n elements; a short run without a call. */
static inline void copy_keys(uint64_t *restrict to, const uint64_t *restrict from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = from[i];
}

int samples_gather(samples *s, const samples *from, const uint32_t *order, size_t first, size_t n)
{
    const uint32_t *of = from->offsets;
    size_t entries = 0;
    if (order)
        for (size_t i = 0; i < n; i++)
            entries += of[order[i] + 1] - of[order[i]];
    else
        entries = of[first + n] - of[first];
    s->fielded = from->fielded;
    s->weighted = from->weighted;
    s->labelled = from->labelled;
    s->width = from->width;
    if (s->n + n > INT32_MAX || s->entries + entries > INT32_MAX)
        return fail("reader: a batch of more than 2^31 entries; use a smaller batch");
    if (grow(s, s->n + n, s->entries + entries))
        return -1;
    if (from->valued && samples_value(s, s->entries))
        return -1;
    if (from->grouped && samples_group(s))
        return -1;
    if (from->marked && !s->marked) {
        s->marked = 1;
        if (GROW(bad, s->n + n))
            return -1;
        memset(s->bad, 0, s->n);
    }
    if (!order) {
        size_t a = of[first], e = s->entries;
        memcpy(s->keys + e, from->keys + a, entries * sizeof *s->keys);
        if (s->fielded)
            memcpy(s->field + e, from->field + a, entries * sizeof *s->field);
        if (from->valued)
            memcpy(s->values + e, from->values + a, entries * sizeof *s->values);
        memcpy(s->label + s->n, from->label + first, n * sizeof *s->label);
        memcpy(s->record + s->n, from->record + first, n * sizeof *s->record);
        if (s->weighted)
            memcpy(s->weight + s->n, from->weight + first, n * sizeof *s->weight);
        if (s->width)
            memcpy(s->numbers + s->n * s->width, from->numbers + first * s->width,
                   n * s->width * sizeof *s->numbers);
        for (size_t i = 1; i <= n; i++)
            s->offsets[s->n + i] = (uint32_t)(e + (of[first + i] - a));
    } else {
        size_t e = s->entries;
        enum { AHEAD = 6 };
        for (size_t i = 0; i < n; i++) {
            if (i + AHEAD < n) {
                uint32_t next = order[i + AHEAD];
                const char *p = (const char *)(from->keys + of[next]);
                size_t len = (of[next + 1] - of[next]) * sizeof *from->keys;
                for (size_t b = 0; b < len + 64 && b < 1024; b += 64)
                    __builtin_prefetch(p + b);
                __builtin_prefetch(&from->label[next]);
                __builtin_prefetch(&from->record[next]);
            }
            if (i + 4 * AHEAD < n)
                __builtin_prefetch(&of[order[i + 4 * AHEAD]]);
            uint32_t j = order[i];
            size_t a = of[j], len = of[j + 1] - a;
            copy_keys(s->keys + e, from->keys + a, len);
            if (s->fielded)
                memcpy(s->field + e, from->field + a, len * sizeof *s->field);
            if (from->valued)
                memcpy(s->values + e, from->values + a, len * sizeof *s->values);
            s->label[s->n + i] = from->label[j];
            s->record[s->n + i] = from->record[j];
            if (s->weighted)
                s->weight[s->n + i] = from->weight[j];
            for (size_t k = 0; k < s->width; k++)
                s->numbers[(s->n + i) * s->width + k] = from->numbers[j * s->width + k];
            e += len;
            s->offsets[s->n + i + 1] = (uint32_t)e;
        }
    }
    if (s->valued && !from->valued)
        for (size_t i = 0; i < entries; i++)
            s->values[s->entries + i] = 1;
    if (s->grouped)
        for (size_t i = 0; i < n; i++)
            s->group[s->n + i] = from->grouped ? from->group[order ? order[i] : first + i] : 0;
    if (s->marked)
        for (size_t i = 0; i < n; i++)
            s->bad[s->n + i] = from->marked ? from->bad[order ? order[i] : first + i] : 0;
    s->n += n;
    s->entries += entries;
    return 0;
}

int samples_view(samples *s, const samples *from, size_t first, size_t n)
{
    size_t a = from->offsets[first], entries = from->offsets[first + n] - a;
    uint32_t *offsets = s->offsets;
    size_t room = s->offsets_room;
    if (n > INT32_MAX || entries > INT32_MAX)
        return fail("reader: a batch of more than 2^31 entries; use a smaller batch");
    if (memory_reserve((void **)&offsets, &room, n + 1, sizeof *offsets))
        return -1;
    for (size_t i = 0; i <= n; i++)
        offsets[i] = (uint32_t)(from->offsets[first + i] - a);
    *s = *from;
    s->view = 1;
    s->n = n;
    s->entries = entries;
    s->keys += a;
    s->values = s->valued ? s->values + a : NULL;
    s->field = s->fielded ? s->field + a : NULL;
    s->offsets = offsets;
    s->offsets_room = room;
    s->label += first;
    s->weight = s->weighted ? s->weight + first : NULL;
    s->group = s->grouped ? s->group + first : NULL;
    s->bad = s->marked ? s->bad + first : NULL;
    s->record += first;
    s->numbers = s->width ? s->numbers + first * s->width : NULL;
    return 0;
}

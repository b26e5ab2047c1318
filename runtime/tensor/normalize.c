/* normalize.c - values of any scale made comparable before a model sees them, and the numbers that tell that
 * they were not.
 *
 *     sample   x' = x / sqrt(sum of x^2 over the sample's entries): each sample has length 1, as in libffm
 *              and xLearn
 *     key      x' = x / s_k,  s_k = max(s_k, |x|) before each entry in training, in the order of entries
 *
 * The scale of a key is the largest |x| that training met so far, the entry's own included, so that x' is
 * within -1 .. 1. A linear model under SGD then makes the steps of algorithm NG of Ross, Mineiro and
 * Langford, "Normalized Online Learning", UAI 2013, which is VW's --normalized: there the weight is of x and
 * moves by g x / s^2; here it is of x / s and moves by g x / s. When s grows it is the weight of x / s that
 * stays (NG multiplies that of x by the square of the ratio of old and new s; here it is the ratio itself),
 * and NG's factor for the learning rate as a whole is the optimizer's business.
 *
 * Evaluation changes nothing: s_k is then the larger of what training left and this entry's |x|, whatever
 * else is in the batch. A key whose values were all 1 has no scale and needs none: it is kept from the first
 * other one on. 12 bytes a key, in a table of open addressing that is at most half full; as bytes for the
 * store, in ascending order: key u64, scale f32 each, little-endian, nothing between. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "tensor/tape.h"

enum { ENTRY = 12, PART = 8 /* of the memory limit, at most */ };

struct mr_scales {
    int how;
    uint64_t *keys; /* [room] */
    float *largest; /* [room]; 0: the place is free */
    size_t n, room; /* room: 0 or a power of two */
    int changed;    /* since the last mr_scales_bytes or load */
    char *bytes;    /* [n * ENTRY]: what mr_scales_bytes returned */
    size_t bytes_room;
};

mr_scales *mr_scales_new(int how)
{
    if (how != MR_NORMALIZE_SAMPLE && how != MR_NORMALIZE_KEY)
        return fail_null("normalize: way %d is unknown", how);
    mr_scales *s = memory_zero(sizeof *s);
    if (s)
        s->how = how;
    return s;
}

void mr_scales_free(mr_scales *s)
{
    if (!s)
        return;
    memory_free(s->keys);
    memory_free(s->largest);
    memory_free(s->bytes);
    memory_free(s);
}

/* The place of a key, or the free one where it would be. room is not 0. */
static inline size_t place(const mr_scales *s, uint64_t key)
{
    size_t at = mix64(key) & (s->room - 1);
    while (s->largest[at] != 0 && s->keys[at] != key)
        at = (at + 1) & (s->room - 1);
    return at;
}

static int grow(mr_scales *s)
{
    size_t room = s->room ? 2 * s->room : 64;
    mr_scales wide = {.keys = NULL, .room = room};
    if ((double)(room * ENTRY) > mr_memory_limit() / PART)
        return fail("normalize: the scales of more than %zu keys take over an eighth of the memory "
                    "limit of "
                    "%.0f MB; raise it (--memory), or normalize by sample",
                    s->n, mr_memory_limit() / 1e6);
    wide.keys = memory_new(sizeof *wide.keys * room);
    wide.largest = memory_zero(sizeof *wide.largest * room);
    if (!wide.keys || !wide.largest) {
        memory_free(wide.keys);
        memory_free(wide.largest);
        return -1;
    }
    for (size_t i = 0; i < s->room; i++)
        if (s->largest[i] != 0) {
            size_t at = place(&wide, s->keys[i]);
            wide.keys[at] = s->keys[i];
            wide.largest[at] = s->largest[i];
        }
    memory_free(s->keys);
    memory_free(s->largest);
    s->keys = wide.keys;
    s->largest = wide.largest;
    s->room = room;
    return 0;
}

static int put(mr_scales *s, uint64_t key, float largest)
{
    if (2 * (s->n + 1) > s->room && grow(s))
        return -1;
    size_t at = place(s, key);
    s->n += s->largest[at] == 0;
    s->keys[at] = key;
    s->largest[at] = largest;
    s->changed = 1;
    return 0;
}

/* x' of every entry of a batch by keys. */
static int by_key(mr_scales *s, int training, const mr_batch *b, const float *x, float *out)
{
    for (int32_t e = 0; e < b->entries; e++) {
        float value = x ? x[e] : 1, size = fabsf(value);
        size_t at = s->room ? place(s, b->keys[e]) : 0;
        float largest = s->room ? s->largest[at] : 0;
        if (size > largest && !(largest == 0 && size == 1)) {
            if (training && largest != 0) {
                s->largest[at] = size;
                s->changed = 1;
            } else if (training && put(s, b->keys[e], size)) {
                return -1;
            }
            largest = size;
        }
        out[e] = largest > 0 ? value / largest : value;
    }
    return 0;
}

static void by_sample(const mr_batch *b, const float *x, float *out)
{
    for (int32_t i = 0; i < b->n; i++) {
        double squares = 0;
        for (uint32_t e = b->offsets[i]; e < b->offsets[i + 1]; e++)
            squares += x ? (double)x[e] * (double)x[e] : 1;
        double by = squares > 0 ? 1 / sqrt(squares) : 0;
        for (uint32_t e = b->offsets[i]; e < b->offsets[i + 1]; e++)
            out[e] = (float)((x ? (double)x[e] : 1) * by);
    }
}

int mr_scales_apply(mr_scales *s, mr_tape *t, mr_batch *b)
{
    GIVEN(s && t && b, -1);
    const float *x = b->normalized ? b->given : b->values;
    if (s->how == MR_NORMALIZE_KEY && !x && !s->n)
        return 0; /* all are 1, and always were */
    float *out = arena_take(tape_arena(t), sizeof *out * MAX((size_t)b->entries, (size_t)1));
    if (!out)
        return -1;
    if (s->how == MR_NORMALIZE_SAMPLE)
        by_sample(b, x, out);
    else if (by_key(s, tape_training(t), b, x, out))
        return -1;
    b->given = x;
    b->values = out;
    b->normalized = 1;
    return 0;
}

double mr_scales_count(const mr_scales *s)
{
    GIVEN(s, -1);
    return (double)s->n;
}

double mr_scales_of(const mr_scales *s, uint64_t key)
{
    GIVEN(s, -1);
    return s->room ? (double)s->largest[place(s, key)] : 0;
}

int mr_scales_changed(const mr_scales *s)
{
    GIVEN(s, -1);
    return s->changed;
}

static uint64_t key_at(const char *at)
{
    uint64_t key;
    memcpy(&key, at, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    key = __builtin_bswap64(key);
#endif
    return key;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = key_at(a), y = key_at(b);
    return x < y ? -1 : x > y;
}

const void *mr_scales_bytes(mr_scales *s)
{
    GIVEN(s, NULL);
    if (memory_reserve((void **)&s->bytes, &s->bytes_room, MAX(s->n, (size_t)1) * ENTRY, 1))
        return NULL;
    char *to = s->bytes;
    for (size_t i = 0; i < s->room; i++) {
        if (s->largest[i] == 0)
            continue;
        uint64_t key = s->keys[i];
        uint32_t bits;
        memcpy(&bits, &s->largest[i], 4);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        key = __builtin_bswap64(key);
        bits = __builtin_bswap32(bits);
#endif
        memcpy(to, &key, 8);
        memcpy(to + 8, &bits, 4);
        to += ENTRY;
    }
    qsort(s->bytes, s->n, ENTRY, by_number);
    s->changed = 0;
    return s->bytes;
}

size_t mr_scales_len(const mr_scales *s)
{
    GIVEN(s, 0);
    return s->n * ENTRY;
}

int mr_scales_load(mr_scales *s, const void *bytes, size_t len)
{
    GIVEN(s && bytes, -1);
    const char *at = bytes;
    if (len % ENTRY)
        return fail("record normalize: has %zu bytes, expected a multiple of %d", len, ENTRY);
    for (size_t i = 0; i < s->room; i++)
        s->largest[i] = 0;
    s->n = 0;
    for (size_t i = 0; i < len; i += ENTRY) {
        uint32_t bits;
        float largest;
        memcpy(&bits, at + i + 8, 4);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        bits = __builtin_bswap32(bits);
#endif
        memcpy(&largest, &bits, 4);
        if (!(largest > 0) || isinf(largest))
            return fail("record normalize: the scale of key %llu is %g, expected a number above 0",
                        (unsigned long long)key_at(at + i), (double)largest);
        if (put(s, key_at(at + i), largest))
            return -1;
    }
    s->changed = 0;
    return 0;
}

/* ---- what data is like -------------------------------------------------------------------- */

int mr_summary_add(mr_summary *s, const mr_batch *b)
{
    GIVEN(s && b, -1);
    for (int32_t i = 0; b->label && i < b->n; i++) { /* weighted, after West, 1979 */
        double w = b->weight ? (double)b->weight[i] : 1, off = (double)b->label[i] - s->mean;
        s->weight += w;
        if (s->weight > 0)
            s->mean += off * w / s->weight;
        s->squares += w * off * ((double)b->label[i] - s->mean);
    }
    s->rows += b->n;
    const float *x = b->normalized ? b->given : b->values;
    float most = 0;
    for (int32_t e = 0; x && e < b->entries; e++) {
        float size = fabsf(x[e]);
        most = size > most ? size : most;
    }
    if (!(most > s->largest))
        return 0;
    int32_t e = 0, i = 0;
    while (fabsf(x[e]) != most)
        e++;
    while (b->offsets[i + 1] <= (uint32_t)e)
        i++;
    s->largest = most;
    s->key = b->keys[e];
    s->field = b->field ? b->field[e] : b->fields ? e - (int32_t)b->offsets[i] : -1;
    return 1;
}

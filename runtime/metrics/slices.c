/* slices.c - the metrics of each value of a field: a table from keys to accumulators (metrics.c), open
 * addressing with at most half of its places taken. */
#include <string.h>

#include "metrics/metrics.h"

enum { PLACES = 1 << 17, SLICES_MAX = PLACES / 2 };

typedef struct slice {
    uint64_t key;
    mr_metrics *metrics; /* owned */
} slice;

struct mr_slices {
    int link, bins;
    int32_t *place; /* [PLACES], a slice or -1; owned */
    slice *slice;   /* [slices], owned */
    size_t slices, room;
};

mr_slices *mr_slices_new(int link, int bins)
{
    mr_slices *s = memory_zero(sizeof *s);
    if (!s)
        return NULL;
    s->link = link;
    s->bins = bins;
    s->place = memory_new(PLACES * sizeof *s->place);
    if (!s->place) {
        mr_slices_free(s);
        return NULL;
    }
    mr_slices_reset(s);
    return s;
}

void mr_slices_free(mr_slices *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->slices; i++)
        mr_metrics_free(s->slice[i].metrics);
    memory_free(s->slice);
    memory_free(s->place);
    memory_free(s);
}

void mr_slices_reset(mr_slices *s)
{
    GIVEN(s, );
    for (size_t i = 0; i < s->slices; i++)
        mr_metrics_free(s->slice[i].metrics);
    s->slices = 0;
    memset(s->place, 0xff, PLACES * sizeof *s->place);
}

static mr_metrics *metrics_of(mr_slices *s, uint64_t key)
{
    size_t at = mix64(key) & (PLACES - 1);
    while (s->place[at] >= 0 && s->slice[s->place[at]].key != key)
        at = (at + 1) & (PLACES - 1);
    if (s->place[at] >= 0)
        return s->slice[s->place[at]].metrics;
    if (s->slices == SLICES_MAX)
        return fail_null("metrics: the field to slice by has more than %d values", SLICES_MAX);
    if (memory_reserve((void **)&s->slice, &s->room, s->slices + 1, sizeof *s->slice))
        return NULL;
    mr_metrics *m = mr_metrics_new(s->link, s->bins);
    if (!m)
        return NULL;
    s->slice[s->slices] = (slice){key, m};
    s->place[at] = (int32_t)s->slices++;
    return m;
}

int mr_slices_add(mr_slices *s, const uint64_t *keys, const float *score, const float *label,
                  const float *weight, int n)
{
    GIVEN(s && keys && score && label, -1);
    if (metrics_check(s->link, score, label, weight, n))
        return -1;
    for (int i = 0; i < n; i++) {
        mr_metrics *m = metrics_of(s, keys[i]);
        if (!m || metrics_one(m, score[i], label[i], weight ? weight[i] : 1))
            return -1;
    }
    return 0;
}

int mr_slices_read(mr_slices *s, int i, uint64_t *key, mr_score *out)
{
    GIVEN(s && key && out, -1);
    if (i < 0 || (size_t)i >= s->slices)
        return 0;
    *key = s->slice[i].key;
    return mr_metrics_read(s->slice[i].metrics, out) ? -1 : 1;
}

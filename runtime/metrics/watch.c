/* watch.c - progressive validation: samples are scored before they are learned from, and their
 * scores watched over a window of the last samples and over all there ever were.
 *
 * The window is a ring of (score, label, weight), 12 bytes a sample, whose exact metrics are
 * worked out when asked for; all samples together are a streaming accumulator. The state is a
 * function of the samples alone, no clock in it, so that it can be a part of a commit:
 *
 *   u32 magic, u32 link, u32 window, u32 bins | f64 batches | u32 held, u32 0
 *   then `held` samples from the oldest, as three arrays of f32, then the accumulator */
#include <string.h>

#include "metrics/metrics.h"

enum { WATCH_MAGIC = 0x3257524d, WATCH_BINS = 4096, WATCH_WINDOW_MAX = 1 << 26 };

typedef struct watch_head {
    uint32_t magic, link, window, bins;
    double batches;
    uint32_t held, zero;
} watch_head;

struct mr_watch {
    mr_metrics *all;    /* streaming; owned */
    mr_metrics *recent; /* exact, filled from the ring at each reading; owned */
    uint32_t link;      /* mr_link */
    uint32_t window;
    float *score, *label, *weight; /* [window] rings, owned */
    uint32_t next;                 /* where the next sample goes */
    uint32_t held;                 /* samples in the ring */
    double batches;
    uint8_t *bytes; /* of the last save; owned */
    size_t len, room;
};

mr_watch *mr_watch_new(int link, int window)
{
    if (window < 1 || window > WATCH_WINDOW_MAX)
        return fail_null("watch: a window of %d samples, expected 1 to %d", window,
                         WATCH_WINDOW_MAX);
    mr_watch *w = memory_zero(sizeof *w);
    if (!w)
        return NULL;
    size_t len = (size_t)window * sizeof(float);
    w->link = (uint32_t)link;
    w->window = (uint32_t)window;
    w->all = mr_metrics_new(link, WATCH_BINS);
    w->recent = mr_metrics_new(link, 0);
    w->score = memory_new(len);
    w->label = memory_new(len);
    w->weight = memory_new(len);
    if (!w->all || !w->recent || !w->score || !w->label || !w->weight) {
        mr_watch_free(w);
        return NULL;
    }
    return w;
}

void mr_watch_free(mr_watch *w)
{
    if (!w)
        return;
    mr_metrics_free(w->all);
    mr_metrics_free(w->recent);
    memory_free(w->score);
    memory_free(w->label);
    memory_free(w->weight);
    memory_free(w->bytes);
    memory_free(w);
}

int mr_watch_add(mr_watch *w, const float *score, const mr_batch *batch)
{
    GIVEN(w && score && batch, -1);
    if (mr_metrics_add_batch(w->all, score, batch))
        return -1;
    for (int32_t i = 0; i < batch->n; i++) {
        w->score[w->next] = score[i];
        w->label[w->next] = batch->label[i];
        w->weight[w->next] = batch->weight ? batch->weight[i] : 1;
        w->next = w->next + 1 == w->window ? 0 : w->next + 1;
        w->held += w->held < w->window;
    }
    w->batches += 1;
    return 0;
}

/* The ring in order of age is two runs: [*from, *from + *first), then [0, held - *first). */
static void runs(const mr_watch *w, uint32_t *from, uint32_t *first)
{
    *from = w->held < w->window ? 0 : w->next;
    *first = MIN(w->held, w->window - *from);
}

int mr_watch_read(mr_watch *w, mr_score *window, mr_score *all)
{
    GIVEN(w && window && all, -1);
    uint32_t from, first;
    runs(w, &from, &first);
    mr_metrics_reset(w->recent);
    if (mr_metrics_add(w->recent, w->score + from, w->label + from, w->weight + from, (int)first) ||
        mr_metrics_add(w->recent, w->score, w->label, w->weight, (int)(w->held - first)) ||
        mr_metrics_read(w->recent, window) || mr_metrics_read(w->all, all))
        return -1;
    return 0;
}

double mr_watch_batches(const mr_watch *w)
{
    GIVEN(w, -1);
    return w->batches;
}

static uint8_t *ring_save(uint8_t *p, const mr_watch *w, const float *ring)
{
    uint32_t from, first;
    runs(w, &from, &first);
    memcpy(p, ring + from, first * sizeof(float));
    memcpy(p + first * sizeof(float), ring, (w->held - first) * sizeof(float));
    return p + w->held * sizeof(float);
}

const void *mr_watch_bytes(mr_watch *w)
{
    GIVEN(w, NULL);
    size_t need =
        sizeof(watch_head) + 3 * (size_t)w->held * sizeof(float) + metrics_save_room(w->all);
    if (memory_reserve((void **)&w->bytes, &w->room, need, 1))
        return NULL;
    watch_head h = {WATCH_MAGIC, w->link, w->window, WATCH_BINS, w->batches, w->held, 0};
    memcpy(w->bytes, &h, sizeof h);
    uint8_t *p = w->bytes + sizeof h;
    p = ring_save(p, w, w->score);
    p = ring_save(p, w, w->label);
    p = ring_save(p, w, w->weight);
    p += metrics_save(w->all, p);
    w->len = (size_t)(p - w->bytes);
    return w->bytes;
}

size_t mr_watch_len(const mr_watch *w)
{
    GIVEN(w, 0);
    return w->len;
}

/* Forgets everything. */
static void clear(mr_watch *w)
{
    mr_metrics_reset(w->all);
    w->next = w->held = 0;
    w->batches = 0;
}

static const char *link_name(uint32_t link)
{
    return link == MR_LOGIT ? "labels" : link == MR_LOG ? "counts" : "regression";
}

int mr_watch_load(mr_watch *w, const void *bytes, size_t len)
{
    GIVEN(w && bytes, -1);
    watch_head h;
    const uint8_t *p = bytes;
    clear(w);
    if (len < sizeof h)
        return fail("watch: %zu saved bytes, expected at least %zu", len, sizeof h);
    memcpy(&h, p, sizeof h);
    if (h.magic != WATCH_MAGIC || h.bins != WATCH_BINS)
        return fail("watch: the saved bytes are not a watch of this version");
    if (h.link != w->link)
        return fail("watch: saved for %s, expected %s", link_name(h.link), link_name(w->link));
    if (h.window != w->window)
        return fail("watch: saved with a window of %u samples, expected %u", h.window, w->window);
    size_t ring = (size_t)h.held * sizeof(float);
    if (h.held > h.window || len - sizeof h < 3 * ring)
        return fail("watch: %zu saved bytes are too few for %u samples", len, h.held);
    p += sizeof h;
    int64_t used = metrics_load(w->all, p + 3 * ring, len - sizeof h - 3 * ring);
    if (used < 0)
        return -1;
    if ((size_t)used != len - sizeof h - 3 * ring) {
        clear(w);
        return fail("watch: %zu saved bytes, expected %zu", len,
                    sizeof h + 3 * ring + (size_t)used);
    }
    memcpy(w->score, p, ring);
    memcpy(w->label, p + ring, ring);
    memcpy(w->weight, p + 2 * ring, ring);
    w->held = h.held;
    w->next = h.held == w->window ? 0 : h.held;
    w->batches = h.batches;
    return 0;
}

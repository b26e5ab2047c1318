/* window.c - see window.h. The order of a window is the first steps of a Fisher-Yates shuffle
 * whose random numbers depend on (seed, epoch, number of the window), taken as samples are
 * asked for. In memory, samples are found by the number of their record, so that both ways
 * cut the same windows. */
#include <stdlib.h>
#include <string.h>

#include "data/window.h"

#define SMALL_FILES ((double)(16 << 20)) /* stored bytes below which memory -1 keeps samples */
#define SMALL_KEPT ((double)(128 << 20)) /* and what they may take */

enum { CHUNK = 1024, LOAD = 65536 }; /* records of a window in order, and of a step of loading */

static window *current(windows *w)
{
    return &w->pair[w->current];
}

int windows_open(windows *w, const mr_reader_options *o, const atomic_int *stop)
{
    memset(w, 0, sizeof *w);
    w->options = *o;
    w->shuffled = o->window != 0;
    w->span = o->window < 0 ? INT64_MAX : o->window ? o->window : CHUNK;
    if (o->window > UINT32_MAX)
        return fail("reader: a window of %lld records, expected at most 2^32",
                    (long long)o->window);
    return scan_open(&w->scan, o, NULL, stop);
}

void windows_close(windows *w)
{
    scan_close(&w->scan);
    samples_free(&w->kept);
    for (int i = 0; i < 2; i++) {
        samples_free(&w->pair[i].own);
        memory_free(w->pair[i].order);
    }
}

/* ---- in memory --------------------------------------------------------------------------- */

static int keeping_wanted(const windows *w)
{
    const mr_reader_options *o = &w->options;
    if (o->stream || o->memory == 0)
        return o->window < 0 && !o->stream;
    if (o->memory > 0 || o->window < 0)
        return 1;
    double total = source_total(w->scan.source);
    return o->epochs != 1 && total >= 0 && total <= SMALL_FILES;
}

/* Reads all; SCAN_END when it is done, SCAN_MORE if it is too large and need not be kept. */
static int keep(windows *w)
{
    const mr_reader_options *o = &w->options;
    int must = o->memory > 0 || o->window < 0;
    double most = o->bytes > 0 ? o->bytes : must ? 1e300 : SMALL_KEPT;
    if (!must)
        most = most < SMALL_KEPT ? most : SMALL_KEPT;
    parser *p = w->scan.parser;
    if (p && p->format == BIN && !o->part && !o->limit) { /* its size is known */
        double n = source_total(w->scan.source) / (double)p->record_len;
        if (n >= 1 && n < UINT32_MAX && n * (double)p->record_len < most &&
            samples_reserve_all(&w->kept, (size_t)n, (size_t)n * (size_t)p->fields))
            return -1;
    }
    for (;;) {
        int rc = scan_read(&w->scan, LOAD, &w->kept);
        if (rc < 0 || rc == SCAN_STOPPED)
            return rc;
        if ((double)samples_bytes(&w->kept) > most) {
            if (!must)
                return SCAN_MORE;
            return fail("%s: %zu samples take %.0f bytes of memory, more than the %.0f allowed; "
                        "%s",
                        source_name(w->scan.source), w->kept.n, (double)samples_bytes(&w->kept),
                        most,
                        o->window < 0 ? "shuffle within a window, or allow more"
                                      : "do not keep them in memory, or allow more");
        }
        if (rc == SCAN_END)
            break;
    }
    w->in_memory = 1;
    w->in_place = !w->shuffled && !o->own;
    if (w->in_place)
        w->span = INT64_MAX; /* a batch is of one window */
    w->kept_records = w->scan.record;
    return SCAN_END;
}

/* How many kept samples are of records before `record`. */
static size_t kept_before(const windows *w, int64_t record)
{
    size_t low = 0, high = w->kept.n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (w->kept.record[middle] < record)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* ---- filling ----------------------------------------------------------------------------- */

/* Begins the next window in v. SCAN_END when no epoch is left. */
static int begin(windows *w, window *v)
{
    if (w->exhausted)
        return SCAN_END;
    v->epoch = w->fill_epoch;
    v->index = w->fill_index;
    v->first = w->fill_record;
    v->given = v->low = v->n = 0;
    v->complete = v->last = 0;
    samples_clear(&v->own);
    v->from = w->in_memory ? &w->kept : &v->own;
    return SCAN_MORE;
}

/* v is complete: shuffle what was given before, and note where the next one begins. */
static int complete(windows *w, window *v, int last)
{
    v->complete = 1;
    v->last = last;
    if (!w->in_memory)
        v->n = v->own.n;
    if (w->shuffled) {
        if (memory_reserve((void **)&v->order, &v->order_room, v->n, sizeof *v->order))
            return -1;
        for (size_t i = 0; i < v->n; i++)
            v->order[i] = (uint32_t)(v->low + i);
    }
    w->fill_index++;
    w->fill_record = w->span == INT64_MAX ? INT64_MAX
                     : w->shuffled        ? v->index * w->span + w->span
                                          : v->first + w->span;
    if (!w->in_memory && !w->shuffled)
        w->fill_record = w->scan.record;
    if (last) {
        if (!w->in_memory)
            w->kept_records = w->scan.record;
        w->fill_epoch++;
        w->fill_record = w->fill_index = 0;
        if (w->options.epochs && w->fill_epoch >= w->options.epochs)
            w->exhausted = 1;
        else if (!w->in_memory && !w->options.follow)
            return scan_rewind(&w->scan) ? -1 : 0;
    }
    return 0;
}

static int fill(windows *w, window *v, int64_t n)
{
    if (v->complete)
        return SCAN_MORE;
    if (w->in_memory) {
        int64_t end = w->span > INT64_MAX - v->first ? INT64_MAX : v->first + w->span;
        if (w->shuffled && w->span != INT64_MAX)
            end = (v->index + 1) * w->span;
        v->low = kept_before(w, v->first);
        size_t high = kept_before(w, end);
        v->n = high - v->low;
        return complete(w, v, high == w->kept.n) ? -1 : SCAN_MORE;
    }
    int64_t left = v->first + w->span - w->scan.record;
    int rc = scan_read(&w->scan, n < left ? n : left, &v->own);
    v->n = v->own.n;
    if (rc == SCAN_END)
        return complete(w, v, 1) ? -1 : SCAN_MORE;
    if (rc == SCAN_MORE && w->scan.record >= v->first + w->span && complete(w, v, 0))
        return -1;
    return rc;
}

__extension__ typedef unsigned __int128 wide;

/* A number below n, from 64 random bits. */
static size_t below(uint64_t random, size_t n)
{
    return (size_t)(((wide)random * n) >> 64);
}

/* Steps [given, given + n) of the shuffle. */
static void shuffle(const windows *w, window *v, size_t n)
{
    uint64_t seed = mix64(mix64(w->options.seed ^ 0x73687566666c6500ull) +
                          mix64((uint64_t)v->epoch + 1) * 3 + (uint64_t)v->index);
    for (size_t i = v->given; i < v->given + n; i++) {
        size_t j = i + below(random_at(seed, i), v->n - i);
        uint32_t swap = v->order[i];
        v->order[i] = v->order[j];
        v->order[j] = swap;
    }
}

static int fill_whole(windows *w, window *v)
{
    while (!v->complete) {
        int rc = fill(w, v, w->span);
        if (rc != SCAN_MORE)
            return rc;
    }
    if (w->fill_give) { /* the window in which a resumed read starts */
        size_t n = MIN(w->fill_give, v->n);
        if (w->shuffled)
            shuffle(w, v, n);
        v->given = n;
        w->fill_give = 0;
    }
    return SCAN_MORE;
}

int windows_seek(windows *w, mr_position from)
{
    int rc;
    w->filling = w->exhausted = 0;
    w->fill_give = 0;
    for (int i = 0; i < 2; i++) {
        window *v = &w->pair[i];
        v->n = v->given = 0;
        v->complete = v->last = 0;
    }
    if (!w->in_memory && keeping_wanted(w)) {
        rc = keep(w);
        if (rc < 0 || rc == SCAN_STOPPED)
            return rc;
        if (rc == SCAN_MORE) {
            samples_free(&w->kept);
            w->options.memory = 0;
            if (scan_rewind(&w->scan))
                return -1;
        }
    }
    if (w->options.epochs && from.epoch >= w->options.epochs) {
        w->exhausted = 1;
        return SCAN_END;
    }
    w->fill_epoch = from.epoch;
    w->fill_record = from.sample;
    w->fill_index = 0;
    if (w->shuffled) {
        w->fill_index = from.sample / w->span;
        w->fill_record = w->fill_index * w->span;
        w->fill_give = (size_t)(from.sample - w->fill_record);
    }
    if (w->in_memory || (!w->fill_record && !w->scan.record))
        return SCAN_MORE;
    const char *once = source_once(w->scan.source);
    if (once && w->fill_give)
        return fail(
            "%s: is read once, and cannot go on in the middle of a shuffled window; start at "
            "record %lld",
            once, (long long)w->fill_record);
    if (w->scan.record && scan_rewind(&w->scan))
        return -1;
    rc = scan_skip(&w->scan, w->fill_record);
    return rc == SCAN_END ? SCAN_MORE : rc; /* the window will be empty and the last */
}

/* ---- draining ---------------------------------------------------------------------------- */

/* Makes the window that was filled meanwhile the current one. */
static int turn(windows *w)
{
    window *next = &w->pair[!w->current];
    if (!w->filling) {
        int rc = begin(w, next);
        if (rc != SCAN_MORE)
            return rc;
    }
    w->filling = 1;
    int rc = fill_whole(w, next);
    if (rc != SCAN_MORE)
        return rc;
    w->filling = 0;
    w->current = !w->current;
    return SCAN_MORE;
}

/* Streams take what has come, in windows no larger than what the batch still wants. */
static int ready_stream(windows *w, int64_t wanted)
{
    window *v = current(w);
    w->fill_record = w->scan.record;
    int rc = begin(w, v);
    if (rc != SCAN_MORE)
        return rc;
    rc = scan_read(&w->scan, wanted, &v->own);
    if (rc < 0 || rc == SCAN_STOPPED)
        return rc;
    if (rc != SCAN_END || v->own.n) {
        v->n = v->own.n;
        v->complete = 1;
    } else {
        complete(w, v, 1);
    }
    return rc == SCAN_WAITED ? SCAN_WAITED : SCAN_MORE;
}

int windows_ready(windows *w, int64_t wanted)
{
    for (;;) {
        window *v = current(w);
        if (v->complete && (window_left(v) || v->last))
            return SCAN_MORE;
        int rc = w->options.stream ? ready_stream(w, wanted) : turn(w);
        if (rc != SCAN_MORE)
            return rc;
    }
}

int windows_next_epoch(windows *w, int64_t wanted)
{
    window *v = current(w);
    v->complete = v->last = 0;
    v->n = v->given = 0;
    return windows_ready(w, wanted);
}

int windows_ahead(windows *w, int64_t n)
{
    window *next = &w->pair[!w->current];
    if (w->options.stream || w->in_memory || w->fill_give)
        return SCAN_MORE;
    if (!w->filling) {
        int rc = begin(w, next);
        if (rc == SCAN_END)
            return SCAN_MORE;
        if (rc != SCAN_MORE)
            return rc;
        w->filling = 1;
    }
    return fill(w, next, n);
}

int64_t windows_take(windows *w, size_t n, samples *out)
{
    window *v = current(w);
    n = MIN(n, window_left(v));
    if (!n)
        return 0;
    if (w->in_place) {
        if (samples_view(out, v->from, v->low + v->given, n))
            return -1;
        v->given += n;
        return (int64_t)n;
    }
    if (w->shuffled)
        shuffle(w, v, n);
    const uint32_t *order = w->shuffled ? v->order + v->given : NULL;
    if (samples_gather(out, v->from, order, v->low + v->given, n))
        return -1;
    v->given += n;
    return (int64_t)n;
}

/* reader.c - a thread that reads ahead, and the ring of batches between it and its consumer.
 *
 * The thread owns slot made % RING while it fills it; the consumer owns slot taken % RING from
 * one mr_reader_next to the next; those between are full. Slots keep their memory, so a steady
 * state allocates nothing. A batch is published only when it is known whether another sample of
 * its epoch follows (not so in a stream, which would have to wait for it). Signals are the
 * main thread's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/profile.h"
#include "data/reader.h"

/* ---- the thread's side ------------------------------------------------------------------- */

/* The slot to fill next; NULL when the reader is to stop. */
static slot *slot_wait(mr_reader *r)
{
    pthread_mutex_lock(&r->lock);
    if (r->made - r->taken >= RING)
        while (!atomic_load(&r->stop) && r->made - r->taken > RING - BURST)
            pthread_cond_wait(&r->changed, &r->lock);
    int stop = atomic_load(&r->stop);
    pthread_mutex_unlock(&r->lock);
    return stop ? NULL : &r->ring[r->made % RING];
}

static void report(mr_reader *r)
{
    const scan *s = &r->windows.scan;
    r->bad = (double)s->bad_most;
    if (!*r->first_bad)
        memcpy(r->first_bad, s->first_bad, sizeof r->first_bad);
}

/* Of the samples given out, not of the bytes read, which are a window and a ring ahead. How many records an
 * epoch has is known at its first end; until then it is guessed from the bytes that those so far took. */
static double progress(const mr_reader *r, mr_position p)
{
    const windows *w = &r->windows;
    double epochs = (double)r->options.epochs, records = (double)w->kept_records;
    if (!epochs)
        return -1;
    if (!records) {
        double part = scan_progress(&w->scan), limit = (double)r->options.limit;
        records = part > 0 ? (double)w->scan.record / part : 0;
        if (limit > 0 && (!records || limit < records))
            records = limit;
    }
    if (!p.sample)
        return MIN((double)p.epoch / epochs, 1.0);
    if (!records)
        return -1;
    return MIN(((double)p.epoch + MIN((double)p.sample / records, 1.0)) / epochs, 1.0);
}

static void publish(mr_reader *r, slot *s, mr_position position, int last)
{
    int schema = r->options.schema != NULL;
    const parser *p = r->windows.scan.parser;
    samples *m = &s->samples;
    int32_t fields = schema ? (int32_t)r->options.schema->n : p->fields;
    s->batch = (mr_batch){
        .n = (int32_t)m->n,
        .entries = (int32_t)m->entries,
        .fields = fields,
        .last_of_epoch = last,
        .keys = m->keys,
        .values = m->valued ? m->values : NULL,
        .field = m->fielded && !samples_plain(m, (size_t)fields) ? m->field : NULL,
        .offsets = m->offsets,
        .label = m->labelled ? m->label : NULL,
        .weight = m->weighted ? m->weight : NULL,
        .group = m->grouped ? m->group : NULL,
        .position = position,
        .bad = m->marked ? m->bad : NULL,
        .record = m->record,
        .shared = m->view,
        .numbers = m->width ? m->numbers : NULL,
        .numbers_n = (int32_t)m->n,
    };
    static atomic_uint_fast64_t number;
    s->batch.number = atomic_fetch_add(&number, 1) + 1;
    s->progress = progress(r, position);
    pthread_mutex_lock(&r->lock);
    r->made++;
    report(r);
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    r->windows.scan.started = 0;
}

/* Where the next sample is: a window in order counts records, a shuffled one what it gave. */
static mr_position position_of(const windows *w, const samples *taken)
{
    const window *v = &w->pair[w->current];
    if (!window_left(v) && v->last && !w->options.stream) /* a stream may grow on */
        return (mr_position){v->epoch + 1, 0};
    if (!w->shuffled)
        return (mr_position){v->epoch, taken->record[taken->n - 1] + 1};
    if (!window_left(v))
        return (mr_position){v->epoch, (v->index + 1) * w->span};
    return (mr_position){v->epoch,
                         v->index * (w->span == INT64_MAX ? 0 : w->span) + (int64_t)v->given};
}

/* One batch: SCAN_MORE, SCAN_END, SCAN_STOPPED, or -1. A batch does not cross epochs. */
static int make_batch(mr_reader *r, slot *s, mr_position *position)
{
    windows *w = &r->windows;
    size_t size = (size_t)r->options.size;
    samples_clear(&s->samples);
    const window *v;
    while (s->samples.n < size) {
        int rc = windows_ready(w, (int64_t)(size - s->samples.n));
        v = &w->pair[w->current];
        if (rc == SCAN_WAITED) {
            if (windows_take(w, size - s->samples.n, &s->samples) < 0)
                return -1;
            if (s->samples.n) /* cut short */
                break;
            w->scan.started = 0;
            continue;
        }
        if (rc == SCAN_END && s->samples.n)
            break;
        if (rc != SCAN_MORE)
            return rc;
        if (!window_left(v)) { /* the epoch's last, and used up */
            if (s->samples.n)
                break;
            if (!position->sample && position->epoch == v->epoch && !r->options.stream)
                return fail("%s: holds no samples%s", source_name(w->scan.source),
                            r->options.part ? " of that part of the split"
                            : w->scan.bad   ? ", only bad lines"
                                            : "");
            *position = (mr_position){v->epoch + 1, 0};
            rc = windows_next_epoch(w, (int64_t)size);
            if (rc != SCAN_MORE && rc != SCAN_WAITED)
                return rc;
            continue;
        }
        if (windows_take(w, size - s->samples.n, &s->samples) < 0)
            return -1;
        int64_t ahead = 2 * (int64_t)size;
        if (w->shuffled && (rc = windows_ahead(w, ahead)) != SCAN_MORE)
            return rc;
    }
    /* is there another sample in this epoch? */
    int ended = 0;
    if (!r->options.stream) {
        *position = position_of(w, &s->samples);
        int rc = windows_ready(w, 1);
        if (rc < 0 || rc == SCAN_STOPPED)
            return rc;
        v = &w->pair[w->current];
        ended = rc == SCAN_END || !window_left(v);
        if (ended)
            *position = (mr_position){v->epoch + 1, 0};
    } else {
        *position = position_of(w, &s->samples);
    }
    publish(r, s, *position, ended);
    return SCAN_MORE;
}

static void *read_ahead(void *argument)
{
    mr_reader *r = argument;
    mr_position position = r->options.from;
    int rc = windows_seek(&r->windows, position);
    while (rc == SCAN_MORE) {
        slot *s = slot_wait(r);
        if (!s)
            break;
        rc = make_batch(r, s, &position);
    }
    pthread_mutex_lock(&r->lock);
    report(r);
    r->ended = 1;
    if (rc < 0) {
        r->failed = 1;
        snprintf(r->error, sizeof r->error, "%s", mr_error());
    }
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* ---- the consumer's side ----------------------------------------------------------------- */

static int start(mr_reader *r)
{
    int rc = thread_start(&r->thread, read_ahead, r);
    if (rc)
        return fail("reader: cannot start its thread: %s", strerror(rc));
    r->started = 1;
    return 0;
}

static void halt(mr_reader *r)
{
    if (!r->started)
        return;
    pthread_mutex_lock(&r->lock);
    atomic_store(&r->stop, 1);
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    r->started = 0;
}

static int check(const mr_reader_options *o)
{
    if (o->size < 1 || o->size > 1 << 24)
        return fail("batch size: %d is out of range, expected 1 to %d", o->size, 1 << 24);
    if (o->from.epoch < 0 || o->from.sample < 0 || o->epochs < 0)
        return fail("reader: epochs and positions cannot be negative");
    if (o->window < -1)
        return fail("reader: a window of %lld samples, expected 0 or more", (long long)o->window);
    if (o->stream && o->window)
        return fail("reader: a stream cannot be shuffled");
    if (o->follow && (!o->stream || o->epochs != 1))
        return fail("reader: a growing file is a stream of one epoch");
    const char *unfitted = o->schema ? mr_schema_unfitted(o->schema) : NULL;
    if (unfitted)
        return fail("schema \"%s\": field \"%s\" is not fitted to any data yet: fit the schema "
                    "first, or write its statistics in it",
                    o->schema->name, unfitted);
    if (o->schema && !o->schema->n)
        return fail("schema \"%s\": has no fields", o->schema->name);
    return 0;
}

/* What can be read only once is not asked for more. */
static int check_once(const mr_reader_options *o, const source *files)
{
    const char *once = source_once(files);
    if (!once)
        return 0;
    if (o->epochs != 1 && o->memory != 1)
        return fail("%s: is read once, so only one epoch of it is possible", once);
    if (o->window < 0)
        return fail("%s: cannot be shuffled as a whole, it is read once; give a window", once);
    if (source_files(files) > 1 && (o->from.epoch || o->from.sample))
        return fail("%s: can be read only once, so reading cannot go on in the middle of several "
                    "files",
                    once);
    return 0;
}

mr_reader *mr_reader_open(const mr_reader_options *o)
{
    GIVEN(o, NULL);
    if (check(o))
        return NULL;
    mr_reader *r = memory_zero(sizeof *r);
    if (!r)
        return NULL;
    r->options = *o;
    r->options.files = NULL;
    r->options.format = NULL;
    r->progress = -1;
    if (!(r->generation = generation_new())) {
        memory_free(r);
        return NULL;
    }
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    if (windows_open(&r->windows, o, &r->stop) || check_once(o, r->windows.scan.source) ||
        start(r)) {
        mr_reader_close(r);
        return NULL;
    }
    return r;
}

void mr_reader_close(mr_reader *r)
{
    if (!r)
        return;
    halt(r);
    windows_close(&r->windows);
    for (int i = 0; i < RING; i++)
        samples_free(&r->ring[i].samples);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->changed);
    generation_free(r->generation);
    memory_free(r);
}

const mr_batch *mr_reader_batch(const mr_reader *r)
{
    GIVEN(r, NULL);
    return &r->batch;
}

int mr_reader_next(mr_reader *r)
{
    GIVEN(r, -1);
    PROFILE(PART_READ);
    int n = 0;
    ++*r->generation;
    pthread_mutex_lock(&r->lock);
    if (r->holding) {
        r->taken++;
        r->holding = 0;
        if (r->made - r->taken <= RING - BURST)
            pthread_cond_broadcast(&r->changed);
    }
    r->batch.n = r->batch.entries = 0;
    while (!mr_interrupted()) {
        if (r->made > r->taken) {
            slot *s = &r->ring[r->taken % RING];
            r->batch = s->batch;
            r->batch.generation = r->generation;
            r->progress = s->progress;
            r->holding = 1;
            n = r->batch.n;
            break;
        }
        if (r->ended) {
            n = r->failed ? fail("%s", r->error) : 0;
            break;
        }
        struct timespec until; /* a signal does not end the wait by itself */
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 20 * 1000 * 1000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&r->changed, &r->lock, &until);
    }
    pthread_mutex_unlock(&r->lock);
    return n;
}

const mr_batch *mr_reader_coming(mr_reader *r, int i)
{
    GIVEN(r && i >= 0, NULL);
    pthread_mutex_lock(&r->lock);
    uint64_t at = r->taken + (uint64_t)i;
    const mr_batch *batch = at < r->made ? &r->ring[at % RING].batch : NULL;
    pthread_mutex_unlock(&r->lock);
    return batch;
}

int mr_reader_seek(mr_reader *r, int64_t epoch, int64_t sample)
{
    GIVEN(r, -1);
    if (epoch < 0 || sample < 0)
        return fail("reader: positions cannot be negative");
    halt(r);
    ++*r->generation;
    r->batch.n = r->batch.entries = 0;
    atomic_store(&r->stop, 0);
    r->options.from = (mr_position){epoch, sample};
    r->made = r->taken = 0;
    r->holding = r->ended = r->failed = 0;
    r->progress = -1;
    r->windows.scan.started = 0;
    if (r->windows.scan.record && !r->windows.in_memory && scan_rewind(&r->windows.scan))
        return -1;
    return start(r);
}

double mr_reader_skipped(mr_reader *r)
{
    GIVEN(r, -1);
    pthread_mutex_lock(&r->lock);
    double n = r->bad;
    pthread_mutex_unlock(&r->lock);
    return n;
}

const char *mr_reader_first_bad(mr_reader *r)
{
    GIVEN(r, NULL);
    pthread_mutex_lock(&r->lock);
    const char *text = r->first_bad; /* written once */
    pthread_mutex_unlock(&r->lock);
    return text;
}

const char *mr_reader_left_out(const mr_reader *r)
{
    GIVEN(r, NULL);
    return source_left_out(r->windows.scan.source);
}

const char *mr_reader_where(mr_reader *r, int i)
{
    GIVEN(r, NULL);
    if (i < 0 || i >= r->batch.n || !r->batch.record)
        return fail_null("reader: sample %d of a batch of %d", i, r->batch.n);
    int64_t record = r->batch.record[i];
    if (!scan_where(&r->windows.scan, record, r->where, sizeof r->where))
        snprintf(r->where, sizeof r->where, "record %lld", (long long)record + 1);
    return r->where;
}

double mr_reader_progress(const mr_reader *r)
{
    GIVEN(r, -1);
    return r->progress;
}

/* ---- fitting ----------------------------------------------------------------------------- */

int mr_schema_fit(mr_schema *s, const mr_reader_options *given)
{
    GIVEN(s && given, -1);
    mr_reader_options o = *given;
    o.schema = s;
    o.follow = 0;
    o.max_wait = -1;
    scan scan;
    samples none = {0};
    fit *f = fit_new(s);
    if (!f)
        return -1;
    int rc = scan_open(&scan, &o, f, NULL) ? -1 : SCAN_MORE;
    const char *once = rc == SCAN_MORE ? source_once(scan.source) : NULL;
    if (once)
        rc = fail("%s: can be read only once, and schema \"%s\" has a field, \"%s\", that is to be "
                  "fitted "
                  "to the data first: give its statistics in the schema, or fit it to a file",
                  once, s->name, mr_schema_unfitted(s) ? mr_schema_unfitted(s) : "");
    while (rc == SCAN_MORE)
        rc = scan_read(&scan, 1 << 16, &none);
    if (rc == SCAN_STOPPED || rc == SCAN_WAITED)
        rc = fail("schema \"%s\": interrupted while it was fitted", s->name);
    if (!rc && !scan.record)
        rc = fail("%s: holds no samples", source_name(scan.source));
    if (!rc)
        rc = fit_finish(f, scan.bad_most, scan.first_bad);
    scan_close(&scan);
    samples_free(&none);
    fit_free(f);
    return rc;
}

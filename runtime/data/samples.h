/* samples.h - a growing list of samples in compressed rows: what parsers write to and batches
 * are cut from. Sample i owns the entries offsets[i]..offsets[i+1).
 *
 * A parser reserves room for a whole record, writes entries from `entries` on, and commits the
 * sample; what was written for a record that turned out to be bad is just never committed.
 * `values` is written only once an entry's value is not 1 (`valued`), `field` only where
 * entries name their fields (`fielded`), `weight`, `group` and `bad` where there are some. */
#ifndef MR_SAMPLES_H
#define MR_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

typedef struct samples {
    size_t n;       /* samples */
    size_t entries; /* offsets[n] */
    int valued, fielded, weighted, labelled, marked, grouped;
    int view;          /* all arrays but the offsets are of other samples */
    uint64_t *keys;    /* [entries] */
    float *values;     /* [entries] if valued */
    uint16_t *field;   /* [entries] if fielded */
    uint32_t *offsets; /* [n + 1] */
    float *label;      /* [n] */
    float *weight;     /* [n] if weighted */
    uint64_t *group;   /* [n] query id if grouped, 0 where a sample has none */
    uint8_t *bad;      /* [n] if marked */
    int64_t *record;   /* [n] number of the sample's record in its epoch */
    double *numbers;   /* [n x width] of the fields whose statistics run along */
    size_t width;
    size_t keys_room, values_room, field_room, offsets_room, label_room, weight_room, group_room,
        bad_room, record_room, numbers_room;
} samples;

void samples_free(samples *s);
void samples_clear(samples *s);

/* Room for one more sample of up to `entries` entries. */
int samples_reserve(samples *s, size_t entries);
/* Room for exactly n samples and entries, known beforehand. */
int samples_reserve_all(samples *s, size_t n, size_t entries);

/* From here on values are written: those before are 1. at: entries written so far, the
 * uncommitted ones included. */
int samples_value(samples *s, size_t at);

/* From here on samples have a group: those before have 0. */
int samples_group(samples *s);

/* Adds the sample whose entries end at `end`. */
void samples_commit(samples *s, size_t end, float label, float weight, int64_t record);

/* Adds a sample that stands for a record that could not be read: empty, or with key 0 in each of
 * `fields` fields where entries do not name theirs. */
int samples_commit_bad(samples *s, size_t fields, int64_t record);

/* Whether every sample has one entry of each of `fields` fields, in their order: then `field` says
 * nothing. */
int samples_plain(const samples *s, size_t fields);

/* Bytes held. */
size_t samples_bytes(const samples *s);

/* Appends the samples order[0..n) of `from`, or those from `first` on where order is NULL. */
int samples_gather(samples *s, const samples *from, const uint32_t *order, size_t first, size_t n);

/* Makes s the samples [first, first + n) of `from`, in place: they stay where they are, and must not be
 * changed. s is always made by this, or never. */
int samples_view(samples *s, const samples *from, size_t first, size_t n);

#endif

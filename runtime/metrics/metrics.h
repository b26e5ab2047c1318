/* metrics.h - an accumulator sample by sample, and its state as bytes, for the watch that commits it. */
#ifndef MR_METRICS_H
#define MR_METRICS_H

#include "base/base.h"

/* Refuses what is no score, label or weight. Samples that passed are added one by one; -1 only when
 * memory is out. */
int metrics_check(int link, const float *score, const float *label, const float *weight, int n);
int metrics_one(mr_metrics *m, float score, float label, float weight);

/* Largest number of bytes that metrics_save() may write for m, and the number it wrote. Only a
 * streaming accumulator is saved: sums, then the bins that are not empty. */
size_t metrics_save_room(const mr_metrics *m);
size_t metrics_save(const mr_metrics *m, uint8_t *out);

/* The inverse, for an accumulator of the same kind and number of bins; returns the bytes read,
 * or -1 if they are damaged (m is then empty). */
int64_t metrics_load(mr_metrics *m, const uint8_t *bytes, size_t len);

#endif

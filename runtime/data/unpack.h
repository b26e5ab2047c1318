/* unpack.h - gzip and zstd: stored bytes become data. */
#ifndef MR_UNPACK_H
#define MR_UNPACK_H

#include <zlib.h>
#include <zstd.h>

#include "base/base.h"

enum packing { PACKING_MORE = -1, PLAIN, GZIP, ZSTD };

typedef struct unpacker {
    int packing; /* GZIP or ZSTD */
    int inside;  /* in the middle of a member or frame */
    z_stream gzip;
    int gzip_open;
    ZSTD_DStream *zstd;
    size_t window; /* bytes of the largest zstd window so far, where the budget has to know */
    memory_client memory; /* of it */
} unpacker;

/* What a file is packed with by its first bytes; PACKING_MORE: more of them are needed. */
int packing_of(const uint8_t *at, size_t len);

/* For a zeroed unpacker, and for one that was ended. file: whom errors are about. */
int unpacker_begin(unpacker *u, int packing, const char *file);
void unpacker_end(unpacker *u);
void unpacker_free(unpacker *u);

/* How many of the stored bytes in[0..len) it must see at once to go on, at most. */
size_t unpacker_needs(const unpacker *u, const uint8_t *in, size_t len);

/* Unpacks some of in[0..len), which starts at byte `at` of the file, to out[0..room). 0, or -1. */
int unpacker_run(unpacker *u, const char *file, double at, const uint8_t *in, size_t len, void *out,
                 size_t room, size_t *used, size_t *made);

#endif

/* unpack.c - see unpack.h. A packed file may hold several members or frames in a row, and zstd's skippable
 * ones anywhere among them.
 *
 * A zstd frame says in its header (RFC 8878, 3.1.1.1) how large the window is that unpacking it takes. One of
 * more than WINDOW_USUAL bytes, as `zstd --long` makes, has to fit in what the memory budget has left, and
 * counts there as long as the file is open. */
#include <stdio.h>
#include <string.h>
#include <zstd_errors.h>

#include "data/unpack.h"

#define WINDOW_USUAL ((size_t)8 << 20) /* all levels but the --ultra ones do with that */
#define WINDOW_LOG_MAX 31

enum { HEADER_MAX = 18 };

static int is_magic(const uint8_t *at)
{
    return at[0] == 0x28 && at[1] == 0xb5 && at[2] == 0x2f && at[3] == 0xfd;
}

static int is_skippable(const uint8_t *at)
{
    return (at[0] & 0xf0) == 0x50 && at[1] == 0x2a && at[2] == 0x4d && at[3] == 0x18;
}

int packing_of(const uint8_t *at, size_t len)
{
    if (!len)
        return PACKING_MORE;
    if (at[0] == 0x1f) { /* byte 2 is the method, deflate; of the flags three bits must be 0 */
        if (len < 4)
            return len > 1 && at[1] != 0x8b ? PLAIN : PACKING_MORE;
        return at[1] == 0x8b && at[2] == 8 && !(at[3] & 0xe0) ? GZIP : PLAIN;
    }
    if (at[0] == 0x28 || (at[0] & 0xf0) == 0x50) {
        if (len > 1 && at[1] != 0xb5 && at[1] != 0x2a)
            return PLAIN;
        if (len < 4)
            return PACKING_MORE;
        return is_magic(at) || is_skippable(at) ? ZSTD : PLAIN;
    }
    return PLAIN;
}

int unpacker_begin(unpacker *u, int packing, const char *file)
{
    u->packing = packing;
    u->inside = 0;
    if (packing == GZIP) {
        u->gzip = (z_stream){0};
        if (inflateInit2(&u->gzip, 16 + MAX_WBITS) != Z_OK)
            return fail("%s: zlib cannot start", file);
        u->gzip_open = 1;
    } else {
        if (!u->zstd && !(u->zstd = ZSTD_createDStream()))
            return fail("%s: zstd cannot start", file);
        ZSTD_initDStream(u->zstd);
        ZSTD_DCtx_setParameter(u->zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    }
    return 0;
}

void unpacker_end(unpacker *u)
{
    if (u->gzip_open)
        inflateEnd(&u->gzip);
    u->gzip_open = 0;
    if (u->window) { /* it may be large: give it back */
        ZSTD_freeDStream(u->zstd);
        u->zstd = NULL;
        u->window = 0;
        memory_leave(&u->memory);
    }
}

void unpacker_free(unpacker *u)
{
    unpacker_end(u);
    ZSTD_freeDStream(u->zstd);
    u->zstd = NULL;
}

size_t unpacker_needs(const unpacker *u, const uint8_t *in, size_t len)
{
    if (u->packing != ZSTD || u->inside)
        return 1;
    if (len < 5 || !is_magic(in))
        return 5;
    return HEADER_MAX;
}

/* Bytes of the window of the frame whose header is in[0..len); 0 if that does not tell. */
static double window_of(const uint8_t *in, size_t len)
{
    static const size_t dictionary_len[] = {0, 1, 2, 4}, size_len[] = {0, 2, 4, 8};
    if (len < 6 || !is_magic(in))
        return 0;
    uint8_t flags = in[4];
    if (!(flags & 0x20)) {
        double base = (double)((uint64_t)1 << (10 + (in[5] >> 3)));
        return base + base / 8 * (in[5] & 7);
    }
    size_t at = 5 + dictionary_len[flags & 3], n = flags >> 6 ? size_len[flags >> 6] : 1;
    if (len < at + n)
        return 0;
    uint64_t size = 0; /* a frame of a single segment: all of its content */
    for (size_t i = 0; i < n; i++)
        size |= (uint64_t)in[at + i] << (8 * i);
    return (double)size + (n == 2 ? 256 : 0);
}

/* zstd's number for a window, as in --long=N. */
static int window_log(double window)
{
    int n = 10;
    while (n < 64 && (double)((uint64_t)1 << n) < window)
        n++;
    return n;
}

static int too_large(const char *file, double window)
{
    int n = window_log(window);
    if (n > WINDOW_LOG_MAX)
        return fail(
            "%s: is packed with a window of %.0f MB, more than the 2147 MB that are read; pack "
            "it anew, with zstd --long=%d at most",
            file, window / 1e6, WINDOW_LOG_MAX);
    return fail(
        "%s: is packed with a window of %.0f MB (zstd --long=%d), and %.0f MB of memory are left; "
        "allow more (--memory), or unpack it (zstd -dc --long=%d FILE | moonrock ... --data -)",
        file, window / 1e6, n, MAX(memory_left(), 0) / 1e6, n);
}

/* Sees to it that there is memory for the window of the frame that begins. */
static int admit(unpacker *u, const char *file, double window)
{
    if (window <= (double)MAX(WINDOW_USUAL, u->window))
        return 0;
    if (window_log(window) > WINDOW_LOG_MAX)
        return too_large(file, window);
    if (!u->window)
        memory_join(&u->memory, "unpacking", 0);
    memory_gave(&u->memory, u->memory.held); /* zstd frees the smaller one first */
    memory_promise(&u->memory, 0);
    u->window = WINDOW_USUAL;
    if (window > memory_left())
        return too_large(file, window);
    u->window = (size_t)window;
    memory_promise(&u->memory, u->window);
    return 0;
}

static int run_gzip(unpacker *u, const char *file, double at, const uint8_t *in, size_t len,
                    void *out, size_t room, size_t *used, size_t *made)
{
    uInt most = (uInt)MIN(room, (size_t)1 << 30);
    u->gzip.next_in = (Bytef *)(uintptr_t)in;
    u->gzip.avail_in = (uInt)len;
    u->gzip.next_out = out;
    u->gzip.avail_out = most;
    u->inside = 1;
    int rc = inflate(&u->gzip, Z_NO_FLUSH);
    if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
        return fail("%s: is damaged at byte %.0f: %s", file, at + (double)(len - u->gzip.avail_in),
                    u->gzip.msg ? u->gzip.msg : "not gzip");
    *made = most - u->gzip.avail_out;
    *used = len - u->gzip.avail_in;
    if (rc == Z_STREAM_END) {
        u->inside = 0;
        inflateReset(&u->gzip);
    }
    return 0;
}

static int run_zstd(unpacker *u, const char *file, double at, const uint8_t *in, size_t len,
                    void *out, size_t room, size_t *used, size_t *made)
{
    double window = u->inside ? 0 : window_of(in, len);
    if (window > 0 && admit(u, file, window))
        return -1;
    ZSTD_inBuffer from = {in, len, 0};
    ZSTD_outBuffer to = {out, room, 0};
    size_t rc = ZSTD_decompressStream(u->zstd, &to, &from);
    if (ZSTD_isError(rc)) {
        switch (ZSTD_getErrorCode(rc)) {
        case ZSTD_error_dictionary_wrong:
            return fail(
                "%s: is packed with a dictionary, which is not read; unpack it (zstd -dc -D "
                "DICTIONARY FILE | moonrock ... --data -)",
                file);
        case ZSTD_error_memory_allocation:
            return fail("%s: out of memory while it is unpacked", file);
        case ZSTD_error_frameParameter_windowTooLarge:
            return too_large(file, MAX(window, 0x1p32));
        default:
            return fail("%s: is damaged at byte %.0f: %s", file, at + (double)from.pos,
                        ZSTD_getErrorName(rc));
        }
    }
    *made = to.pos;
    *used = from.pos;
    u->inside = rc != 0;
    if (u->window > u->memory.held) { /* as much more of the window is resident now */
        size_t more = MIN(to.pos, u->window - u->memory.held);
        if (more && memory_grant(&u->memory, more))
            memory_took(more);
    }
    return 0;
}

int unpacker_run(unpacker *u, const char *file, double at, const uint8_t *in, size_t len, void *out,
                 size_t room, size_t *used, size_t *made)
{
    *used = *made = 0;
    return (u->packing == GZIP ? run_gzip : run_zstd)(u, file, at, in, len, out, room, used, made);
}

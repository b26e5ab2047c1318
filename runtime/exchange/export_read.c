/* export_read.c - binary exports, read block by block. A block is handed out once its checksum, which
 * depends on its number in the file, is right, and its records are whole; the last block's counts and
 * checksum of checksums then say that nothing is missing. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "exchange/export.h"

struct block_reader {
    in_file *in;
    export_head head;
    block_head block;
    uint8_t *content;
    size_t room;
    uint64_t start; /* of the block at hand, in the file */
    export_end seen;
    XXH3_state_t *hash;
    /* the last record, of which the next must be after */
    uint64_t key;
    uint32_t table, kind;
};

static int damaged(const block_reader *r, const char *what)
{
    return fail("%s: is damaged at byte %" PRIu64
                ": %s; nothing was changed. Copy or export it anew",
                r->in->path, r->start, what);
}

block_reader *block_open(const char *path)
{
    block_reader *r = memory_zero(sizeof *r);
    if (!r)
        return NULL;
    int bad = !(r->in = in_open(path)) || !(r->hash = memory_new(sizeof *r->hash));
    int64_t got = bad ? -1 : in_read(r->in, &r->head, EXPORT_HEAD);
    if (!bad && got >= 0) {
        const export_head *h = &r->head;
        if (got < 8 || memcmp(h->magic, "moonrock", 8))
            bad = fail("%s: is no export in the binary format: it does not begin with \"moonrock\"",
                       path);
        else if (got < EXPORT_HEAD || h->hash != XXH3_64bits(h, EXPORT_HEAD - 8))
            bad = damaged(r, "its head does not match its checksum");
        else if (h->version != EXPORT_VERSION)
            bad = fail("%s: is of version %u, this program reads version %d; use the version of "
                       "moonrock that wrote it",
                       path, h->version, EXPORT_VERSION);
        else if (h->flags & ~(uint32_t)EXPORT_PART || h->zero)
            bad = fail("%s: its head says what this program does not know", path);
    }
    if (bad || got < 0) {
        block_close(r);
        return NULL;
    }
    XXH3_64bits_reset(r->hash);
    XXH3_64bits_update(r->hash, &r->head.hash, 8);
    return r;
}

const export_head *block_file_head(const block_reader *r)
{
    return &r->head;
}

static int end_check(block_reader *r)
{
    export_end end;
    char more;
    if (r->block.len != sizeof end || r->block.records != 1)
        return damaged(r, "its last block is of another size");
    memcpy(&end, r->content, sizeof end);
    r->seen.bytes = r->start;
    r->seen.hash = XXH3_64bits_digest(r->hash);
    if (memcmp(&end, &r->seen, sizeof end))
        return damaged(r, "its last block counts other blocks and records than there are");
    int64_t got = in_read(r->in, &more, 1);
    return got < 0 ? -1 : got ? damaged(r, "bytes follow its last block") : 0;
}

int block_next(block_reader *r, const block_head **head, const uint8_t **content)
{
    r->start = r->in->at;
    int64_t got = in_read(r->in, &r->block, BLOCK_HEAD);
    if (got < 0)
        return -1;
    if (got < BLOCK_HEAD)
        return damaged(r, "it ends here, and is not whole");
    if (r->block.kind < BLOCK_LOG || r->block.kind > BLOCK_END || r->block.len > INT32_MAX)
        return damaged(r, "a block is of no known kind");
    size_t len = r->block.len, from = 0;
    /* A length that is wrong must not ask for memory: it grows with what is there. */
    while (from < len) {
        size_t part = MIN(len - from, (size_t)1 << 20);
        if (memory_reserve((void **)&r->content, &r->room, BLOCK_HEAD + from + part, 1))
            return -1;
        got = in_read(r->in, r->content + BLOCK_HEAD + from, part);
        if (got < 0)
            return -1;
        if ((size_t)got < part)
            return damaged(r, "it ends in this block, and is not whole");
        from += part;
    }
    if (memory_reserve((void **)&r->content, &r->room, BLOCK_HEAD + 1, 1))
        return -1;
    memcpy(r->content, &r->block, BLOCK_HEAD);
    if (r->block.hash !=
        XXH3_64bits_withSeed(r->content + 8, BLOCK_HEAD - 8 + len, r->seen.records[0]))
        return damaged(r, "a block does not match its checksum");
    memmove(r->content, r->content + BLOCK_HEAD, len);
    if (r->block.kind == BLOCK_END)
        return end_check(r);
    r->seen.records[0]++;
    r->seen.records[r->block.kind] += r->block.records;
    XXH3_64bits_update(r->hash, &r->block.hash, 8);
    *head = &r->block;
    *content = r->content;
    return 1;
}

void block_close(block_reader *r)
{
    if (!r)
        return;
    in_close(r->in);
    memory_free(r->hash);
    memory_free(r->content);
    memory_free(r);
}

/* ---- records ---- */

static const uint8_t *take(const block_head *h, const uint8_t *content, size_t *at, size_t len)
{
    if (len > h->len - *at)
        return NULL;
    *at += len;
    return content + *at - len;
}

static int record_read(const block_head *h, const uint8_t *content, size_t *at, block_record *out)
{
    const uint8_t *p;
    uint32_t lens[2];
    switch (h->kind) {
    case BLOCK_LOG:
        if (!(p = take(h, content, at, 24)))
            return -1;
        memcpy(&out->mark.number, p, 8);
        memcpy(&out->mark.step, p + 8, 8);
        memcpy(&out->mark.time, p + 16, 8);
        out->key = out->mark.number;
        return 0;
    case BLOCK_NAME:
        if (!(p = take(h, content, at, 8)))
            return -1;
        memcpy(lens, p, 8);
        out->name_len = lens[0];
        out->len = lens[1];
        return (out->name = take(h, content, at, lens[0])) &&
                       (out->bytes = take(h, content, at, lens[1]))
                   ? 0
                   : -1;
    case BLOCK_TABLE:
        if (!(p = take(h, content, at, sizeof out->state + 4)))
            return -1;
        memcpy(&out->state, p, sizeof out->state);
        memcpy(lens, p + sizeof out->state, 4);
        out->key = out->state.id;
        out->name_len = lens[0];
        return (out->name = take(h, content, at, lens[0])) && out->state.id < TABLES_MAX ? 0 : -1;
    case BLOCK_DROP:
        if (!(p = take(h, content, at, 16)))
            return -1;
        memcpy(&out->key, p, 8);
        memcpy(&out->step, p + 8, 8);
        return 0;
    default:
        if (!(p = take(h, content, at, 12)))
            return -1;
        memcpy(&out->key, p, 8);
        memcpy(lens, p + 8, 4);
        out->len = lens[0];
        if (!(out->bytes = take(h, content, at, lens[0])) || out->len < 12)
            return -1;
        memcpy(&out->step, out->bytes + 4, 8);
        return 0;
    }
}

int block_record_next(block_reader *r, const block_head *h, const uint8_t *content, size_t *at,
                      block_record *out)
{
    if (*at == h->len)
        return 0;
    if (record_read(h, content, at, out))
        return damaged(r, "a record is longer than its block");
    int follows = h->kind == BLOCK_NAME || h->kind != r->kind || h->table > r->table ||
                  (h->table == r->table && out->key > r->key);
    r->kind = h->kind;
    r->key = out->key;
    r->table = h->table;
    return follows ? 1 : damaged(r, "records do not ascend by key");
}

/* ---- looking at a file ---- */

/* Reads all of it, and what it holds of the log and names. */
static int read_all(block_reader *r)
{
    const block_head *h;
    const uint8_t *content;
    block_record record = {0};
    uint32_t kind = 0;
    for (int more; (more = block_next(r, &h, &content));) {
        if (more < 0)
            return -1;
        if (h->kind < kind)
            return damaged(r, "its blocks are not in order");
        kind = h->kind;
        size_t at = 0;
        uint32_t n = 0;
        int one;
        while ((one = block_record_next(r, h, content, &at, &record)) > 0)
            n++;
        if (one < 0)
            return -1;
        if (n != h->records)
            return damaged(r, "a block holds another number of records than it says");
    }
    return 0;
}

int mr_export_read(const char *path, mr_exported *out)
{
    GIVEN(path && out, -1);
    char magic[8];
    in_file *in = in_open(path);
    int64_t got = in ? in_read(in, magic, 8) : -1;
    in_close(in);
    if (got < 0)
        return -1;
    if (got < 8 || memcmp(magic, "moonrock", 8))
        return 0;
    block_reader *r = block_open(path);
    if (!r)
        return -1;
    int bad = read_all(r);
    const export_head *h = &r->head;
    *out = (mr_exported){
        (int32_t)(h->flags & EXPORT_PART), h->commit, h->step, h->since, r->seen.records[BLOCK_ROW],
        r->seen.records[BLOCK_DROP]};
    block_close(r);
    return bad ? -1 : 1;
}

static _Thread_local struct {
    uint8_t *bytes;
    size_t len;
} got;

int mr_export_get(const char *path, const char *name)
{
    GIVEN(path && name, -1);
    const block_head *h;
    const uint8_t *content;
    block_record record = {0};
    int found = 0, more = 0;
    memory_free(got.bytes);
    got.bytes = NULL;
    got.len = 0;
    block_reader *r = block_open(path);
    while (r && !found && (more = block_next(r, &h, &content)) > 0 && h->kind <= BLOCK_NAME) {
        size_t at = 0;
        int one = 1;
        while (h->kind == BLOCK_NAME && !found &&
               (one = block_record_next(r, h, content, &at, &record)) > 0)
            if (record.name_len == strlen(name) && !memcmp(record.name, name, record.name_len)) {
                got.bytes = memory_new(record.len + 1);
                found = got.bytes ? 1 : -1;
                if (got.bytes)
                    memcpy(got.bytes, record.bytes, record.len);
                got.len = record.len;
            }
        if (one < 0)
            found = -1;
    }
    int bad = !r || more < 0;
    block_close(r);
    return bad ? -1 : found;
}

const void *mr_export_value(void)
{
    return got.bytes;
}

double mr_export_value_len(void)
{
    return (double)got.len;
}

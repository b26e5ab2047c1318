/* signature.c - see signature.h. */
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "data/signature.h"

/* What to do with one kind: a command writes it to standard output, or it is to be written anew. */
enum when {
    ALWAYS,
    NOT_IDS, /* records of ids might begin so, text does not */
    BINARY   /* text might, too: only with a control byte among the first ones */
};

typedef struct kind {
    const char *bytes;
    size_t len;
    int when;
    const char *is;
    const char *command; /* its output is the data, "%s" the file; NULL: */
    const char *remedy;
} kind;

#define BYTES(text) text, sizeof(text) - 1
#define UNPACK_ONCE "unpack it once (gzip -dc FILE, or zstd -dc FILE, | moonrock ... --data -)"
#define AS_TEXT "write it as CSV first, as by pandas' or DuckDB's export"

static const kind kinds[] = {
    {BYTES("BZh"), BINARY, "is packed by bzip2, which is not read", "bzip2 -dc %s", NULL},
    {BYTES("\xfd"
           "7zXZ\0"),
     ALWAYS, "is packed by xz, which is not read", "xz -dc %s", NULL},
    {BYTES("\x5d\0\0"), NOT_IDS, "is packed by lzma, which is not read", "xz -dc %s", NULL},
    {BYTES("\x04\x22\x4d\x18"), NOT_IDS, "is packed by lz4, which is not read", "lz4 -dc %s", NULL},
    {BYTES("\x02\x21\x4c\x18"), NOT_IDS, "is packed by lz4, which is not read", "lz4 -dc %s", NULL},
    {BYTES("LZIP"), BINARY, "is packed by lzip, which is not read", "lzip -dc %s", NULL},
    {BYTES("\x89LZO\0\r\n\x1a\n"), ALWAYS, "is packed by lzop, which is not read", "lzop -dc %s",
     NULL},
    {BYTES("\xff\x06\0\0sNaPpY"), ALWAYS, "is packed by snappy, which is not read", "snzip -dc %s",
     NULL},
    {BYTES("\x1f\x9d"), NOT_IDS, "is packed by compress, which is not read", "gzip -dc %s", NULL},
    {BYTES("\x1f\x8b"), NOT_IDS, "is packed twice, or by gzip in a way that is not read", NULL,
     UNPACK_ONCE},
    {BYTES("\x28\xb5\x2f\xfd"), NOT_IDS, "is packed twice", NULL, UNPACK_ONCE},
    {BYTES("PK\x03\x04"), NOT_IDS, "is a zip archive, which is not read", "unzip -p %s", NULL},
    {BYTES("PK\x05\x06"), NOT_IDS, "is an empty zip archive", NULL, "give the data itself"},
    {BYTES("7z\xbc\xaf\x27\x1c"), ALWAYS, "is a 7z archive, which is not read", "7z x -so %s",
     NULL},
    {BYTES("Rar!\x1a\x07"), ALWAYS, "is a rar archive, which is not read", "unrar p -inul %s",
     NULL},
    {BYTES("PAR1"), BINARY, "is a Parquet file, which is not read", NULL, AS_TEXT},
    {BYTES("ORC"), BINARY, "is an ORC file, which is not read", NULL, AS_TEXT},
    {BYTES("Obj\x01"), NOT_IDS, "is an Avro file, which is not read", NULL, AS_TEXT},
    {BYTES("ARROW1"), ALWAYS, "is an Arrow (Feather) file, which is not read", NULL, AS_TEXT},
    {BYTES("FEA1"), BINARY, "is a Feather file, which is not read", NULL, AS_TEXT},
    {BYTES("SQLite format 3\0"), ALWAYS, "is an SQLite database, which is not read",
     "sqlite3 -csv -header %s 'SELECT ...'", NULL},
    {BYTES("\x89HDF\r\n\x1a\n"), ALWAYS, "is an HDF5 file, which is not read", NULL, AS_TEXT},
    {BYTES("\x93NUMPY"), ALWAYS, "is a NumPy array, which is not read", NULL, AS_TEXT},
    {BYTES("\x80\x03"), NOT_IDS, "looks like a Python pickle, which is not read", NULL, AS_TEXT},
    {BYTES("\x80\x04\x95"), NOT_IDS, "is a Python pickle, which is not read", NULL, AS_TEXT},
    {BYTES("\x80\x05\x95"), NOT_IDS, "is a Python pickle, which is not read", NULL, AS_TEXT},
    {BYTES("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), ALWAYS,
     "is an Excel (or other Office) file, which is not read", NULL, "save it as CSV UTF-8"},
    {BYTES("\x7f"
           "ELF"),
     NOT_IDS, "is a program, not data", NULL, "give the data itself"},
    {BYTES("%PDF-"), NOT_IDS, "is a PDF file, not data", NULL, "give the data itself"},
    {BYTES("\x89PNG\r\n\x1a\n"), ALWAYS, "is a PNG image, not data", NULL, "give the data itself"},
    {BYTES("\xff\xd8\xff"), NOT_IDS, "is a JPEG image, not data", NULL, "give the data itself"},
    {BYTES("version https://git-lfs.github.com/"), ALWAYS, "is a pointer of Git LFS, not the data",
     NULL, "fetch that by git lfs pull"},
    {BYTES("{\""), NOT_IDS, "is JSON, which is not read", NULL, AS_TEXT},
    {BYTES("[{"), NOT_IDS, "is JSON, which is not read", NULL, AS_TEXT},
    {BYTES("<!DOCTYPE"), ALWAYS, "is a web page, not data", NULL, "fetch the data itself"},
    {BYTES("<!doctype"), ALWAYS, "is a web page, not data", NULL, "fetch the data itself"},
    {BYTES("<html"), ALWAYS, "is a web page, not data", NULL, "fetch the data itself"},
    {BYTES("<?xml"), ALWAYS, "is XML, which is not read", NULL, AS_TEXT},
    {BYTES("\xff\xfe\0\0"), NOT_IDS, "is text in UTF-32; UTF-8 is read",
     "iconv -f UTF-32 -t UTF-8 %s", NULL},
    {BYTES("\0\0\xfe\xff"), NOT_IDS, "is text in UTF-32; UTF-8 is read",
     "iconv -f UTF-32 -t UTF-8 %s", NULL},
    {BYTES("\xff\xfe"), NOT_IDS, "is text in UTF-16; UTF-8 is read", "iconv -f UTF-16 -t UTF-8 %s",
     NULL},
    {BYTES("\xfe\xff"), NOT_IDS, "is text in UTF-16; UTF-8 is read", "iconv -f UTF-16 -t UTF-8 %s",
     NULL},
};

/* A block of a tar archive starts with a header whose bytes add up to the number written in it, where that
 * number itself counts as eight blanks. */
static int is_tar(const unsigned char *at, size_t len)
{
    enum { SUM_AT = 148, SUM_LEN = 8, BLOCK = 512 };
    if (len < BLOCK || !at[0])
        return 0;
    unsigned sum = 0, written = 0;
    int digits = 0;
    for (size_t i = 0; i < BLOCK; i++)
        sum += i >= SUM_AT && i < SUM_AT + SUM_LEN ? ' ' : at[i];
    for (size_t i = SUM_AT; i < SUM_AT + SUM_LEN; i++) {
        if (at[i] >= '0' && at[i] <= '7')
            written = written * 8 + (unsigned)(at[i] - '0'), digits++;
        else if (digits)
            break;
        else if (at[i] != ' ')
            return 0;
    }
    return digits > 0 && sum == written;
}

static int say(const char *file, const kind *k)
{
    int standard = !strcmp(file, "standard input");
    if (!k->command)
        return fail("%s: %s; %s", file, k->is, k->remedy);
    char command[512];
    const char *hole = strstr(k->command, "%s");
    snprintf(command, sizeof command, "%.*s%s%s", (int)(hole - k->command), k->command,
             standard ? "-" : file, hole + 2);
    return fail("%s: %s; unpack it (%s | moonrock ... --data -)", file, k->is, command);
}

/* Text of two or four bytes a character, without a mark, has zeros in step. */
static int is_wide(const char *at, size_t len)
{
    size_t zeros[2] = {0, 0};
    for (size_t i = 0; i < len; i++)
        zeros[i & 1] += !at[i];
    return len >= 8 && ((zeros[0] >= len / 4 && !zeros[1]) || (zeros[1] >= len / 4 && !zeros[0]));
}

/* Whether lines end with carriage returns alone, as far as can be seen. */
static int is_mac(const char *at, size_t len)
{
    const char *cr = memchr(at, '\r', len);
    return cr && cr + 1 < at + len && !memchr(at, '\n', len) && !memchr(at, '"', (size_t)(cr - at));
}

static int has_control(const char *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)at[i] < 9 || ((unsigned char)at[i] > 13 && (unsigned char)at[i] < 32))
            return 1;
    return 0;
}

int signature_check(const char *file, const char *at, size_t len, int text)
{
    static const kind tar = {.is = "is a tar archive, which is not read", .command = "tar -xOf %s"};
    static const kind wide = {.is = "is text in UTF-16; UTF-8 is read",
                              .command = "iconv -f UTF-16 -t UTF-8 %s"};
    if (is_tar((const unsigned char *)at, len))
        return say(file, &tar);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const kind *k = &kinds[i];
        if (len >= k->len && !memcmp(at, k->bytes, k->len) && (text || k->when == ALWAYS) &&
            (k->when != BINARY || has_control(at, len)))
            return say(file, k);
    }
    if (!text)
        return 0;
    size_t odd = 0;
    len = MIN(len, (size_t)SIGNATURE_LEN);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)at[i];
        odd += !c || (c >= 14 && c < 32) || c == 127;
    }
    if (odd <= 4 + len / 50 && !memchr(at, 0, len)) /* bytes of a packed file are odd in 7 % */
        return !is_mac(at, len)
                   ? 0
                   : fail("%s: its lines end with carriage returns alone, as of old Macs, which is "
                          "not read; make them line feeds (tr '\\r' '\\n')",
                          file);
    if (is_wide(at, len))
        return say(file, &wide);
    return fail("%s: is not text: of its first %zu bytes %zu are no characters; if it holds "
                "records of ids, say "
                "so (--format bin)",
                file, len, odd);
}

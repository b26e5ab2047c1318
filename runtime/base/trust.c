/* trust.c - what tells the code of this user's stores from that of others: a key that only this user
 * can read, and HMAC-SHA256 with it (libnettle). A hash without a key would not do: whoever changes the
 * code of a store can hash it again. */
#include <errno.h>
#include <fcntl.h>
#include <nettle/hmac.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "base/file.h"

static void hex_write(const uint8_t *bytes, size_t len, char *hex)
{
    for (size_t i = 0; i < len; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
}

void mr_sha256(const void *bytes, size_t len, char *hex)
{
    struct sha256_ctx c;
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_init(&c);
    sha256_update(&c, len, bytes);
    sha256_digest(&c, sizeof digest, digest);
    hex_write(digest, sizeof digest, hex);
}

void mr_hmac_sha256(const void *key, size_t key_len, const void *bytes, size_t len, char *hex)
{
    struct hmac_sha256_ctx c;
    uint8_t digest[SHA256_DIGEST_SIZE];
    hmac_sha256_set_key(&c, key_len, key);
    hmac_sha256_update(&c, len, bytes);
    hmac_sha256_digest(&c, sizeof digest, digest);
    hex_write(digest, sizeof digest, hex);
}

/* 1: read, 0: there is none, -1 after fail(). */
static int key_read(const char *path, void *key, size_t len)
{
    int f = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (f < 0)
        return errno == ENOENT ? 0 : fail("key %s: %s", path, strerror(errno));
    struct stat s;
    int rc = 1;
    if (fstat(f, &s))
        rc = fail("key %s: %s", path, strerror(errno));
    else if (!S_ISREG(s.st_mode) || s.st_uid != geteuid() || s.st_mode & 077)
        rc = fail("key %s: others may read it or wrote it; remove it, a new one is made", path);
    else if (read(f, key, len) != (ssize_t)len)
        rc = fail("key %s: has not the %zu bytes that it should have; remove it, a new one is made",
                  path, len);
    close(f);
    return rc;
}

/* Makes it under another name first: it is there as a whole or not at all. */
static int key_make(const char *path, void *key, size_t len)
{
    char folder[PATH_SIZE], above[PATH_SIZE], temporary[PATH_SIZE];
    path_parent(path, folder);
    path_parent(folder, above);
    if (directory_make(above) || path_make(temporary, "%s.%d", path, (int)getpid()))
        return -1;
    if (mkdir(folder, 0700) && errno != EEXIST)
        return fail("%s: could not be made: %s", folder, strerror(errno));
    if (getrandom(key, len, 0) != (ssize_t)len)
        return fail("key %s: the system gave no random bytes: %s", path, strerror(errno));
    int f = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f < 0)
        return fail("key %s: %s", temporary, strerror(errno));
    int rc = 0;
    if (write(f, key, len) != (ssize_t)len || fsync(f))
        rc = fail("key %s: %s", temporary, strerror(errno));
    close(f);
    if (!rc && link(temporary, path) && errno != EEXIST)
        rc = fail("key %s: %s", path, strerror(errno));
    unlink(temporary);
    return rc;
}

int mr_key_load(const char *path, void *key, size_t len)
{
    int rc = key_read(path, key, len);
    if (rc)
        return rc < 0 ? -1 : 0;
    if (key_make(path, key, len))
        return -1;
    rc = key_read(path, key, len); /* another process may have been first */
    return rc == 1 ? 0 : rc < 0 ? -1 : fail("key %s: cannot be read back", path);
}

/* source.h - bytes from a list of files, one after another, whatever they are packed with. */
#ifndef MR_SOURCE_H
#define MR_SOURCE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct source source;

enum { SOURCE_WAITED = -2, SOURCE_STOPPED = -3 };

/* Looks the files up: a directory stands for the files in it, in order of name, hidden ones
 * left out; "-" is standard input. follow: the last file is expected to grow. stop, when not
 * NULL, ends a read that waits; without it an interrupt does. */
source *source_open(const char *const *files, size_t n, int follow, const atomic_int *stop);
void source_close(source *s);

/* Back to before the first file. -1 for standard input that was read already. */
int source_rewind(source *s);

/* Opens the next file: 1, 0 when there is none left, -1. */
int source_next(source *s);

/* Up to len bytes of the open file; 0 at its end; SOURCE_WAITED when `until` (mr_clock(), 0:
 * never) has come, SOURCE_STOPPED, or -1. */
ssize_t source_read(source *s, void *out, size_t len, double until);

/* Skips up to n bytes of the open file without reading them, where it can be sought and
 * nothing of it was read yet; returns how many. */
int64_t source_seek(source *s, int64_t n);

/* The open file's name in messages, and how far it was read, in bytes as stored. */
const char *source_name(const source *s);
size_t source_file(const source *s); /* its number */
const char *source_file_name(const source *s, size_t file);
double source_offset(const source *s);

/* Bytes as stored: read since the rewind, and of all files (-1: not known). */
double source_bytes(const source *s);
double source_total(const source *s);

int source_is_stdin(const source *s); /* one of the files is */
const char *source_first(const source *s);

#endif

/* source.h - bytes from a list of files, one after another, whatever they are packed with. */
#ifndef MR_SOURCE_H
#define MR_SOURCE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct source source;

enum { SOURCE_WAITED = -2, SOURCE_STOPPED = -3 };

/* Looks the files up: a directory stands for the files in it and in those below, in order of name,
 * hidden ones (. and _) left out; "-" is standard input. follow: the last file is expected to
 * grow. stop, when not NULL, ends a read that waits; without it an interrupt does. */
source *source_open(const char *const *files, size_t n, int follow, const atomic_int *stop);
void source_close(source *s);

/* The files, in order, as they are opened. */
size_t source_count(const source *s);
const char *source_path(const source *s, size_t file);

/* Takes sizes[i] bytes as the size of the i-th file (0: what it has), though it may have grown. */
void source_limit(source *s, const double *sizes, size_t n);

/* Whether the end of the last file is waited at; 0 also takes back that its end was met. */
void source_follow(source *s, int on);

/* Back to before the first file. -1 if one that can be read only once was opened. */
int source_rewind(source *s);

/* Opens the next file: 1; 0 when there is none left; -1, also when all of them were empty. */
int source_next(source *s);

/* Up to len bytes of the open file; 0 at its end; SOURCE_WAITED when `until` (mr_clock(), 0:
 * never) has come, SOURCE_STOPPED, or -1. */
ssize_t source_read(source *s, void *out, size_t len, double until);

/* Skips up to n bytes of the open file without reading them, where it can be sought and
 * nothing of it was read yet; returns how many. */
int64_t source_seek(source *s, int64_t n);

/* Bytes of the open file; -1 if that is not known, or if it is packed. */
double source_plain_size(const source *s);

/* The open file's name in messages, and how far it was read, in bytes as stored. */
const char *source_name(const source *s);
size_t source_file(const source *s); /* its number */
const char *source_file_name(const source *s, size_t file);
double source_offset(const source *s);

/* Bytes as stored: read since the rewind, and of all files (-1: not known). */
double source_bytes(const source *s);
double source_total(const source *s);

/* Standard input, a pipe or a device among the files, which can be read only once; or NULL. */
const char *source_once(const source *s);
size_t source_files(const source *s); /* how many there are */

/* Files in directories that are not read, though they are not of the usual hidden ones; or "". */
const char *source_left_out(const source *s);
const char *source_first(const source *s);

#endif

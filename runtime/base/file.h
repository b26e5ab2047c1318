/* file.h - files and directories that must survive a crash. Messages name the path. */
#ifndef MR_FILE_H
#define MR_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { PATH_SIZE = 4096 };

/* Writes a path by a format; -1 if it is too long. */
int path_make(char path[PATH_SIZE], const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The directory a path stands in, and whether a directory has no entries (1 also if there is none;
 * -1 after fail()). */
void path_parent(const char *path, char parent[PATH_SIZE]);
int directory_empty(const char *dir);

/* Makes a directory and those above it, each synced into the one above. */
int directory_make(const char *dir);
int directory_sync(const char *dir);

/* Writes a whole file and syncs it (its directory not). */
int file_write(const char *path, const void *bytes, size_t len);

/* Copies a file; the new one must not exist. Not synced. */
int file_copy(const char *from, const char *to);

/* Reads up to len bytes at both ends of a file; its size, or -1. */
int64_t file_ends(const char *path, size_t len);

/* Asks the system to have a file in its page cache. */
int file_want(const char *path);

/* The bytes of a file, freed by memory_free(); NULL after fail(). */
void *file_read(const char *path, size_t *len);

/* Removes a file or a directory with all it holds; what is not there is no error. */
int tree_remove(const char *path);

/* Syncs every file and directory below a path, and the path itself. */
int tree_sync(const char *path);

/* Links a file, or copies it where it cannot be linked, as across file systems. */
int file_link(const char *from, const char *to);
int file_copy(const char *from, const char *to);

/* Makes `to`, a directory with the files of `from` (not its directories): those whose names end
 * with `shared` are linked, the others copied. Not synced. */
int tree_copy(const char *from, const char *to, const char *shared);

#endif

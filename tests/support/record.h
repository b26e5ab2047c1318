/* record.h - what a loss of power would leave of a directory, written down by faults.c while a program
 * runs in it; recover.c rebuilds the directory from it.
 *
 * An inode is named by its number; a link in RECORD/inode (for a directory, an open
 * descriptor) keeps that number from being used again. RECORD/journal has a line for each thing
 * that happened, after it happened; RECORD/saved/N is what a file held when it was last synced,
 * copied before the first change since:
 *
 *   root I         the directory FAULTS_DIR
 *   dir I          I is a directory
 *   has D NAME I   durable: the entry NAME of the directory D is I (at the start)
 *   add D NAME I   an entry was made: create, mkdir, link
 *   del D NAME I   it was removed: unlink, rmdir
 *   mov D NAME E OTHER I   rename, within a directory or to another
 *   new I          a file was made; nothing of it is durable
 *   old I N        a synced file is about to change; RECORD/saved/N holds what it held
 *   syn I          the file or the directory was synced (fsync, fdatasync)
 *
 * A call holds one lock from before it happens until its line is written, so that lines stand in
 * the order of calls. A kill between the two leaves a call that is not recorded, and it is lost,
 * as it may be. */
#ifndef RECORD_H
#define RECORD_H

#include <sys/types.h>

/* Begins the record `to` of the directory `root`, both absolute. Ends the process if it cannot, as all
 * of these do. */
void record_start(const char *root, const char *to);
int recording(void);

/* Around a call and its line; nothing while there is no record. */
void record_lock(void);
void record_unlock(void);

/* A line of the journal. */
void record_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Before a change of a file's content. */
void record_changing(ino_t number);
void record_changing_fd(int fd);
/* After a sync. */
void record_synced(int fd);
/* After an entry was made, of an inode that is new or not. */
void record_added(const char *path, int is_new);

ino_t number_of(const char *path);
/* The directory that holds a path, and the name there. */
ino_t parent_of(const char *path, const char **name);

/* open, not seen by the library. */
int raw_open(const char *path, int flags);

#endif

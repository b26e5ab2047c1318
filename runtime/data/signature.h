/* signature.h - files that are no records of any format: named by their first bytes, with what to do. */
#ifndef MR_SIGNATURE_H
#define MR_SIGNATURE_H

#include <stddef.h>

enum { SIGNATURE_LEN = 512 }; /* bytes that tell all there is to tell */

/* Fails, naming the file, what it is and the remedy, if at[0..len), its first bytes, are those of an
 * archive, of another packer, of a binary format or of text that is not UTF-8 or has no line feeds. text: the format is one, so
 * that bytes that are no characters are an error too. 0, or -1. */
int signature_check(const char *file, const char *at, size_t len, int text);

#endif

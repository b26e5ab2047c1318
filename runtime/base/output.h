/* output.h - what the runtime itself asks of outputs (output.c), besides mr_output_... in moonrock.h. */
#ifndef MR_OUTPUT_H
#define MR_OUTPUT_H

#include "base/base.h"
#include "base/file.h"

/* A file in its place at once, in a directory that is itself beside its place. */
mr_output *output_inside(const char *path);
/* Writes over what is there already, at an offset; not to pipes. */
int output_over(mr_output *o, uint64_t at, const void *bytes, size_t len);
uint64_t output_len(const mr_output *o);

/* Removes files and directories TARGET.MARK-PID whose process is gone. */
void leftovers_remove(const char *target, const char *mark);

#endif

/* error.c - the last error of each thread. A message is kept until the next one. */
#include <stdarg.h>
#include <stdio.h>

#include "base/base.h"

static _Thread_local char message[1024];

const char *mr_error(void)
{
    return message;
}

void printable(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p; p++)
        if ((*p < ' ' && *p != '\n' && *p != '\t') || *p == 127)
            *p = '?';
}

int fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    printable(message);
    return -1;
}

void *fail_null(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    printable(message);
    return NULL;
}

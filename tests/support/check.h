/* check.h - what the C tests say to the runner, on standard output. */
#ifndef TESTS_SUPPORT_CHECK_H
#define TESTS_SUPPORT_CHECK_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moonrock.h"

static int failures;

/* Counts a failure and says what is wrong, with the runtime's last error. Returns `good`. */
__attribute__((format(printf, 2, 3))) static int check(int good, const char *format, ...)
{
    if (!good) {
        char what[512];
        va_list args;
        va_start(args, format);
        vsnprintf(what, sizeof what, format, args);
        va_end(args);
        printf("  %s (last error: %s)\n", what, mr_error());
        failures++;
    }
    return good;
}

/* The end of a test that began with `before` failures. */
static void report(const char *name, int before)
{
    printf("%s %s\n", failures == before ? "ok" : "not ok", name);
    fflush(stdout);
}

/* Runs a test, unless ONLY in the environment is no part of its name. */
#define RUN(test, ...)                                                                             \
    do {                                                                                           \
        if (!getenv("ONLY") || strstr(#test, getenv("ONLY")))                                      \
            test(__VA_ARGS__);                                                                     \
    } while (0)

#endif

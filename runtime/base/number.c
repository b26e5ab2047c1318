/* number.c - the slow ways of number.h: the C library's conversions, in the "C" locale whatever
 * the program's is. */
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/number.h"

enum { NUMBER_LEN = 1024 }; /* a longer decimal is out of range */

static locale_t plain;
static pthread_once_t plain_once = PTHREAD_ONCE_INIT;

static void plain_make(void)
{
    plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

static int copy(const char *s, size_t len, char *out)
{
    pthread_once(&plain_once, plain_make);
    if (len >= NUMBER_LEN)
        return NUMBER_RANGE;
    memcpy(out, s, len);
    out[len] = 0;
    return NUMBER_OK;
}

int number_slow(const char *s, size_t len, double *out)
{
    char text[NUMBER_LEN];
    if (copy(s, len, text) < 0)
        return NUMBER_RANGE;
    *out = plain ? strtod_l(text, NULL, plain) : strtod(text, NULL);
    return isfinite(*out) ? NUMBER_OK : NUMBER_RANGE;
}

int number_slow_float(const char *s, size_t len, float *out)
{
    char text[NUMBER_LEN];
    if (copy(s, len, text) < 0)
        return NUMBER_RANGE;
    *out = plain ? strtof_l(text, NULL, plain) : strtof(text, NULL);
    return isfinite(*out) ? NUMBER_OK : NUMBER_RANGE;
}

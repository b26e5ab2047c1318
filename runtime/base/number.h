/* number.h - reading numbers from text, without a locale and without a copy where that can be.
 *
 * The text must end in a byte that is no part of a number (a line's '\n' does). A decimal of up
 * to 15 digits and a power of ten within 22 is one exact integer times or over one exact power:
 * IEEE division and multiplication round that correctly. All else goes to the C library. */
#ifndef MR_NUMBER_H
#define MR_NUMBER_H

#include <stdint.h>
#include <string.h>

enum { NUMBER_NONE = 0, NUMBER_OK = 1, NUMBER_RANGE = -1 };

static inline int is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

/* The slow ways: the text s[0..len) is known to be a decimal number. */
int number_slow(const char *s, size_t len, double *out);
int number_slow_float(const char *s, size_t len, float *out);

/* Reads the digits at *p and moves it behind them. NUMBER_RANGE: more than 64 bits. */
static inline int integer_read(const char **p, uint64_t *out)
{
    const char *s = *p;
    uint64_t v = 0;
    if (!is_digit(*s))
        return NUMBER_NONE;
    const char *safe = s + 19; /* 19 digits always fit */
    do
        v = v * 10 + (uint64_t)(*s++ - '0');
    while (is_digit(*s) && s < safe);
    for (; is_digit(*s); s++)
        if (__builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            return NUMBER_RANGE;
    *p = s;
    *out = v;
    return NUMBER_OK;
}

/* The same where 7 bytes behind the text can be read too: up to 7 digits, as ids mostly have, are found and
 * added up eight bytes at a time, since branches on their number would be mispredicted. */
static inline int integer_read_padded(const char **p, uint64_t *out)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t v;
    memcpy(&v, *p, sizeof v);
    v ^= 0x3030303030303030u; /* digits are 0 to 9 now; all else is more */
    uint64_t other = ((v + 0x7676767676767676u) | v) & 0x8080808080808080u;
    int digits = other ? __builtin_ctzll(other) / 8 : 8;
    if (digits > 0 && digits < 8) {
        v <<= 64 - 8 * digits;
        v = v * 10 + (v >> 8); /* two digits in every other byte, then four, then eight */
        *out = ((v & 0x000000ff000000ffu) * 0x000f424000000064u +
                (v >> 16 & 0x000000ff000000ffu) * 0x0000271000000001u) >>
               32;
        *p += digits;
        return NUMBER_OK;
    }
#endif
    return integer_read(p, out);
}

/* The parts of a decimal number: its value is +-m * 10^e if it has no more than 19 digits. */
typedef struct decimal {
    uint64_t m;
    int64_t e;
    int digits; /* significant ones */
    int negative;
    const char *end;
} decimal;

static inline int decimal_scan(const char *s, decimal *d)
{
    uint64_t m = 0;
    int64_t e = 0;
    int digits = 0, any = 0;
    d->negative = *s == '-';
    s += *s == '-' || *s == '+';
    for (; is_digit(*s); s++, any = 1) {
        if (digits < 19)
            m = m * 10 + (uint64_t)(*s - '0');
        digits += digits > 0 || *s != '0';
    }
    if (*s == '.')
        for (s++; is_digit(*s); s++, any = 1, e--) {
            if (digits < 19)
                m = m * 10 + (uint64_t)(*s - '0');
            digits += digits > 0 || *s != '0';
        }
    if (!any)
        return NUMBER_NONE;
    if ((*s | 32) == 'e') {
        const char *t = s + 1;
        int minus = *t == '-';
        t += *t == '-' || *t == '+';
        if (is_digit(*t)) {
            int64_t x = 0;
            for (; is_digit(*t); t++)
                if (x < 100000)
                    x = x * 10 + (*t - '0');
            e += minus ? -x : x;
            s = t;
        }
    }
    d->m = m;
    d->e = e;
    d->digits = digits;
    d->end = s;
    return NUMBER_OK;
}

static inline int decimal_exact(const decimal *d, double *out)
{
    static const double power[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                   1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                   1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (d->digits > 15 || d->e < -22 || d->e > 22)
        return 0;
    double v = (double)d->m;
    v = d->e < 0 ? v / power[-d->e] : v * power[d->e];
    *out = d->negative ? -v : v;
    return 1;
}

/* Reads the number at *p and moves it behind. NUMBER_RANGE: too large for the type. */
static inline int number_read(const char **p, double *out)
{
    decimal d;
    const char *s = *p;
    if (!decimal_scan(s, &d))
        return NUMBER_NONE;
    *p = d.end;
    return decimal_exact(&d, out) ? NUMBER_OK : number_slow(s, (size_t)(d.end - s), out);
}

/* The same, rounded to float once: a double half way between two floats does not say which of
 * them its decimal was nearer to, so that case takes the slow way. */
static inline int number_read_float(const char **p, float *out)
{
    decimal d;
    double v;
    const char *s = *p;
    if (!decimal_scan(s, &d))
        return NUMBER_NONE;
    *p = d.end;
    if (decimal_exact(&d, &v)) {
        uint64_t bits;
        memcpy(&bits, &v, sizeof bits);
        double a = v < 0 ? -v : v;
        if (v == 0 || ((bits & 0x1fffffff) != 0x10000000 && a >= 0x1p-126 && a < 0x1p127)) {
            *out = (float)v;
            return NUMBER_OK;
        }
    }
    return number_slow_float(s, (size_t)(d.end - s), out);
}

#endif

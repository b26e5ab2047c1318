/* text.c - what the program writes: scores as lines of text, and whether a person reads them, on how wide a screen. */
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"

#define SCORE_LEN 24 /* bytes of "%.7g\n" at most, and its terminating 0 */

int mr_text_scores(const float *scores, const uint8_t *bad, int n, int link, char *out, size_t room,
                   int32_t *undefined)
{
    GIVEN(scores && out, -1);
    size_t len = 0;
    undefined[0] = undefined[1] = 0;
    for (int i = 0; i < n; i++) {
        if (room - len < SCORE_LEN)
            return fail("text: %zu bytes for %d scores, expected %d each", room, n, SCORE_LEN);
        double score = scores[i];
        int known = isfinite(score);
        if (link == MR_LOGIT)
            score = 1 / (1 + exp(-score));
        else if (link == MR_LOG)
            score = exp(score);
        if (bad && bad[i]) {
            score = NAN;
        } else if (!known || !isfinite(score)) {
            if (!undefined[0]++)
                undefined[1] = i;
            score = NAN;
        }
        if (isnan(score)) {
            memcpy(out + len, "nan\n", 4);
            len += 4;
        } else {
            len += (size_t)snprintf(out + len, SCORE_LEN, "%.7g\n", score);
        }
    }
    return (int)len;
}

int mr_terminal(int descriptor)
{
    return isatty(descriptor);
}

int mr_terminal_columns(int descriptor)
{
    struct winsize size;
    if (!isatty(descriptor))
        return 0;
    if (ioctl(descriptor, TIOCGWINSZ, &size) || !size.ws_col)
        return 80;
    return size.ws_col;
}

int mr_piped(int descriptor)
{
    struct stat st;
    struct pollfd p = {.fd = descriptor, .events = POLLIN};
    if (fstat(descriptor, &st))
        return 0;
    if (S_ISREG(st.st_mode))
        return st.st_size > 0;
    if (!S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode))
        return 0;
    int ready = poll(&p, 1, 0) > 0;
    return ready ? (p.revents & POLLIN) != 0 : S_ISFIFO(st.st_mode);
}

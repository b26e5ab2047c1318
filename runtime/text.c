/* text.c - what the program writes: scores as lines of text, and whether a person reads them, on how wide a screen. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base.h"

#define SCORE_LEN 24 /* bytes of "%.7g\n" at most, and its terminating 0 */

int mr_text_scores(const float *scores, const uint8_t *bad, int n, int link, char *out, size_t room)
{
    GIVEN(scores && out, -1);
    size_t len = 0;
    for (int i = 0; i < n; i++) {
        if (room - len < SCORE_LEN)
            return fail("text: %zu bytes for %d scores, expected %d each", room, n, SCORE_LEN);
        double score = scores[i];
        if (bad && bad[i]) {
            memcpy(out + len, "nan\n", 4);
            len += 4;
            continue;
        }
        if (isnan(score))
            return fail("score of sample %d of the batch is not a number", i);
        if (link == MR_LOGIT)
            score = 1 / (1 + exp(-score));
        else if (link == MR_LOG)
            score = exp(score);
        len += (size_t)snprintf(out + len, SCORE_LEN, "%.7g\n", score);
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

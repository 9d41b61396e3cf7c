// infer/base/nearest.c - edit distance, for "did you mean".
#include "infer/base/nearest.h"

#include <stddef.h>
#include <string.h>

enum { ROOM = 96 };

int edit_distance(const char *a, const char *b) {
    const int n = (int)strnlen(a, ROOM), m = (int)strnlen(b, ROOM);
    if (n >= ROOM || m >= ROOM) return ROOM;
    int before[ROOM] = {0}, last[ROOM], now[ROOM];
    for (int j = 0; j <= m; j++) last[j] = j;
    for (int i = 1; i <= n; i++) {
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            const int swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && before[j - 2] + 1 < best) best = before[j - 2] + 1;
            now[j] = best;
        }
        memcpy(before, last, sizeof before);
        memcpy(last, now, sizeof last);
    }
    return last[m];
}

void nearest_offer(const char *name, const char *candidate, const char **best) {
    const int d = edit_distance(name, candidate), limit = 2 + (int)strlen(name) / 6;
    if (d <= limit && d < (int)strlen(name) && (*best == NULL || d < edit_distance(name, *best)))
        *best = candidate;
}

// infer/base/log.h - progress and notes on stderr; results go to stdout by printf elsewhere.
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "infer/base/err.h"

void log_set_quiet(bool quiet);
void log_set_rank(int rank);                           // its warnings say so
void log_info(const char *fmt, ...) PRINTF_LIKE(1, 2); // one line
void log_warn(const char *fmt, ...) PRINTF_LIKE(1, 2); // "warning: ..."

// A tqdm-like line: redrawn at most 10 times a second on a terminal, a full line every 30 s else
// (NO_COLOR, TERM=dumb and CI count as "not a terminal"). The rate is that of a moving window.
typedef struct {
    const char *what; // "capture"
    const char *unit; // "tok"
    int64_t total;    // 0: unknown
    double started, shown;
    double first_t; // the first progress_at: what a resumed job had already done is no speed
    int64_t first_done;
    double window_t[16];
    int64_t window_n[16];
    int window_used;
} Progress;

// A resumed job calls progress_at once with what is already done, before it works.
void progress_start(Progress *p, const char *what, const char *unit, int64_t total);
void progress_at(Progress *p, int64_t done, const char *note); // note: e.g. "loss 0.41", may be ""
void progress_end(Progress *p, int64_t done, const char *note);

double now_s(void); // monotonic seconds

#endif

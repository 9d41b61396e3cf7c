// infer/base/log.c - notes and a progress line on stderr.
#include "infer/base/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "infer/base/watchdog.h"

static const double redraw_s = 0.1, plain_s = 30.0, sample_s = 1.0;

static bool quiet_on;
static char rank_text[24]; // "rank 1: "
static bool line_open;     // the cursor stands behind a progress line without a newline

double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void log_set_quiet(bool quiet) {
    quiet_on = quiet;
}

void log_set_rank(int rank) {
    snprintf(rank_text, sizeof rank_text, "rank %d: ", rank);
}

static void print_line(const char *prefix, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
static void print_line(const char *prefix, const char *fmt, va_list ap) {
    char text[2048];
    vsnprintf(text, sizeof text, fmt, ap);
    fprintf(stderr, "%s%s%s%s\n", line_open ? "\r\033[K" : "", rank_text, prefix, text);
    line_open = false;
}

void log_info(const char *fmt, ...) {
    if (quiet_on) return;
    va_list ap;
    va_start(ap, fmt);
    print_line("", fmt, ap);
    va_end(ap);
}

void log_warn(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    print_line("warning: ", fmt, ap);
    va_end(ap);
}

static bool env_set(const char *name) {
    const char *v = getenv(name);
    return v != NULL && *v != '\0';
}

static bool on_terminal(void) {
    static int known = -1;
    if (known < 0) {
        const char *term = getenv("TERM");
        const bool plain = env_set("NO_COLOR") || env_set("CI") || (term && !strcmp(term, "dumb"));
        known = !plain && isatty(STDERR_FILENO);
    }
    return known == 1;
}

static void clock_text(char *out, size_t room, double seconds) {
    const long s = seconds > 0 && seconds < 3.6e6 ? (long)seconds : 0;
    if (s >= 3600)
        snprintf(out, room, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, room, "%02ld:%02ld", s / 60, s % 60);
}

static void count_text(char *out, size_t room, double n) {
    const char *unit = "";
    if (n >= 1e6)
        n /= 1e6, unit = "M";
    else if (n >= 1e4)
        n /= 1e3, unit = "k";
    snprintf(out, room,
             *unit                             ? "%.2f%s"
             : n < 100 && n != (double)(long)n ? "%.1f%s"
                                               : "%.0f%s",
             n, unit);
}

// Keeps the oldest sample first; one sample a second, so the window is about a quarter of a minute.
static void remember(Progress *p, double t, int64_t done) {
    const int room = (int)(sizeof p->window_t / sizeof p->window_t[0]);
    if (p->window_used > 0 && t - p->window_t[p->window_used - 1] < sample_s) return;
    if (p->window_used == room) {
        memmove(p->window_t, p->window_t + 1, (size_t)(room - 1) * sizeof p->window_t[0]);
        memmove(p->window_n, p->window_n + 1, (size_t)(room - 1) * sizeof p->window_n[0]);
        p->window_used--;
    }
    p->window_t[p->window_used] = t;
    p->window_n[p->window_used++] = done;
}

static void draw(Progress *p, double t, int64_t done, double rate, const char *note) {
    char n[32], total[32], speed[32], spent[32], left[32], bar[64] = "";
    count_text(n, sizeof n, (double)done);
    count_text(speed, sizeof speed, rate);
    clock_text(spent, sizeof spent, t - p->started);
    if (p->total > 0) {
        const double share = (double)done / (double)p->total;
        const int full = share >= 1 ? 20 : share > 0 ? (int)(20 * share) : 0;
        snprintf(bar, sizeof bar, " %3d%% |%.*s%.*s|", (int)(100 * share), full,
                 "####################", 20 - full, "                    ");
        count_text(total, sizeof total, (double)p->total);
        clock_text(left, sizeof left, rate > 0 ? (double)(p->total - done) / rate : 0);
    }
    fprintf(stderr, "%s%s:%s %s%s%s %s [%s%s%s, %s %s/s]%s%s", on_terminal() ? "\r\033[K" : "",
            p->what, bar, n, p->total > 0 ? "/" : "", p->total > 0 ? total : "", p->unit, spent,
            p->total > 0 ? "<" : "", p->total > 0 ? left : "", speed, p->unit, *note ? " " : "",
            note);
    line_open = on_terminal();
    if (!line_open) fputc('\n', stderr);
    p->shown = t;
}

void progress_start(Progress *p, const char *what, const char *unit, int64_t total) {
    *p = (Progress){.what = what, .unit = unit, .total = total, .started = now_s()};
    watchdog_at(what, unit, 0);
    p->shown = p->started;
}

void progress_at(Progress *p, int64_t done, const char *note) {
    const double t = now_s();
    watchdog_at(p->what, p->unit, done);
    if (p->window_used == 0) p->first_done = done, p->first_t = t;
    remember(p, t, done);
    if (quiet_on || t - p->shown < (on_terminal() ? redraw_s : plain_s)) return;
    const double dt = t - p->window_t[0];
    draw(p, t, done, dt > 0 ? (double)(done - p->window_n[0]) / dt : 0, note);
}

void progress_end(Progress *p, int64_t done, const char *note) {
    if (quiet_on) return;
    const double t = now_s(), from = p->window_used ? p->first_t : p->started;
    draw(p, t, done, t > from ? (double)(done - p->first_done) / (t - from) : 0, note);
    if (line_open) fputc('\n', stderr);
    line_open = false;
}

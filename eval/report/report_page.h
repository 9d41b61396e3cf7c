// eval/report/report_page.h - what a report writes through: escaped text, and figures that are
// looked up in the JSON object and printed by one code path. A figure of an HTML page carries the
// JSON pointer of its value (data-p), so that a page can be checked against the object.
#ifndef EVAL_REPORT_PAGE_H
#define EVAL_REPORT_PAGE_H

#include <jansson.h>

#include "infer/base/file.h"

typedef enum { PAGE_HTML, PAGE_MARKDOWN } PageKind;
typedef struct {
    OutFile *f; // open; errors are sticky in it
    PageKind kind;
} Page;

// Our own markup and words; what comes from data goes through page_text.
void page_markup(Page *p, const char *fmt, ...) PRINTF_LIKE(2, 3);
void page_text(Page *p, const char *text); // escaped for the kind of page; NULL: nothing

// A place in a JSON object. v is NULL where the object has no such place; path is "" where it got
// too long to be told.
enum { REF_PATH = 400 };
typedef struct {
    const json_t *v; // borrowed
    bool lost;       // the path did not fit
    char path[REF_PATH];
} Ref;
Ref ref_root(const json_t *root);
Ref ref_key(Ref r, const char *key);
Ref ref_at(Ref r, size_t i);
double ref_number(Ref r);                  // NaN where there is no number
void page_path(Page *p, const char *path); // the attribute data-p; nothing for ""

typedef enum {
    FIG_TAU,     // 2.40
    FIG_SHARE,   // 0.634
    FIG_GAIN,    // +12.3 %
    FIG_PERCENT, // 63.4 %
    FIG_COUNT,   // 22,771; expected counts with one decimal
    FIG_SPEED,   // 1.82 x
    FIG_MS,      // 12.34 ms
    FIG_RATE     // 41.2
} Figure;
enum { FIGURE_ROOM = 64 };

char *figure_text(char out[FIGURE_ROOM], Figure kind, double value); // unit included; returns out
void page_figure(Page *p, Ref r, Figure kind);                       // "–" without a number
void page_interval(Page *p, Ref pair, Figure kind);                  // "2.35 – 2.46" of [lo, hi]

#endif

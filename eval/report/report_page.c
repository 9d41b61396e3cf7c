// eval/report/report_page.c - escaping, JSON pointers and the one place where figures become text.
#include "eval/report/report_page.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void page_markup(Page *p, const char *fmt, ...) {
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    const int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    CHECK_MEMORY(n < 0 ? NULL : text);
    out_write(p->f, text, (size_t)n);
    free(text);
}

static const char *html_escape(char c) {
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

void page_text(Page *p, const char *text) {
    for (const char *c = text; c != NULL && *c != '\0'; c++) {
        const bool control = (unsigned char)*c < 0x20 || *c == 0x7f;
        const char *escaped = p->kind == PAGE_HTML ? html_escape(*c) : NULL;
        if (control)
            out_write(p->f, " ", 1);
        else if (escaped != NULL)
            out_write(p->f, escaped, strlen(escaped));
        else if (p->kind == PAGE_MARKDOWN && strchr("\\`*_[]<>|", *c) != NULL)
            out_printf(p->f, "\\%c", *c);
        else
            out_write(p->f, c, 1);
    }
}

Ref ref_root(const json_t *root) {
    return (Ref){.v = root};
}

static void extend(Ref *r, const char *key) { // RFC 6901
    char *to = r->path + strlen(r->path), *end = r->path + sizeof r->path - 3;
    if (r->lost) return;
    if (to < end) *to++ = '/';
    for (; *key != '\0' && to < end; key++) {
        if (*key == '~' || *key == '/') {
            *to++ = '~';
            *to++ = *key == '~' ? '0' : '1';
        } else {
            *to++ = *key;
        }
    }
    *to = '\0';
    if (*key == '\0' && to < end) return;
    r->lost = true;
    r->path[0] = '\0';
}

Ref ref_key(Ref r, const char *key) {
    r.v = json_object_get(r.v, key);
    extend(&r, key);
    return r;
}

Ref ref_at(Ref r, size_t i) {
    char index[24];
    snprintf(index, sizeof index, "%zu", i);
    r.v = json_array_get(r.v, i);
    extend(&r, index);
    return r;
}

double ref_number(Ref r) {
    return json_is_number(r.v) ? json_number_value(r.v) : NAN;
}

void page_path(Page *p, const char *path) {
    if (path[0] == '\0') return;
    page_markup(p, " data-p=\"");
    page_text(p, path);
    page_markup(p, "\"");
}

typedef struct {
    double scale;
    int digits;
    bool sign;
    const char *unit;
} Format;

static const Format formats[] = {
    [FIG_TAU] = {1, 2, false, ""},          [FIG_SHARE] = {1, 3, false, ""},
    [FIG_GAIN] = {100, 1, true, "\u00a0%"}, [FIG_PERCENT] = {100, 1, false, "\u00a0%"},
    [FIG_COUNT] = {1, 0, false, ""},        [FIG_SPEED] = {1, 2, false, "\u00a0×"},
    [FIG_MS] = {1, 2, false, "\u00a0ms"},   [FIG_RATE] = {1, 1, false, ""},
};

// 22771 -> 22,771
static void group(char out[FIGURE_ROOM], const char *digits) {
    const size_t n = strcspn(digits, ".");
    size_t to = 0;
    for (size_t i = 0; digits[i] != '\0' && to + 2 < FIGURE_ROOM; i++) {
        if (i > 0 && i < n && (n - i) % 3 == 0 && digits[i - 1] != '-') out[to++] = ',';
        out[to++] = digits[i];
    }
    out[to] = '\0';
}

static void number_text(char out[FIGURE_ROOM], Figure kind, double value) {
    const Format *f = &formats[kind];
    char text[FIGURE_ROOM];
    const double v = value * f->scale;
    const int digits = kind == FIG_COUNT && v != floor(v) ? 1 : f->digits;
    if (fabs(v) >= 1e15) { // no count of ours; a file may say so
        snprintf(out, FIGURE_ROOM, "%.3g", v);
        return;
    }
    // rounds to zero: no sign of its own
    const double shown = fabs(v) < 0.5 * pow(10, -digits) ? 0.0 : v;
    snprintf(text, sizeof text, f->sign ? "%+.*f" : "%.*f", digits, shown);
    if (kind == FIG_COUNT)
        group(out, text);
    else
        memcpy(out, text, sizeof text);
}

char *figure_text(char out[FIGURE_ROOM], Figure kind, double value) {
    if (isnan(value)) {
        strcpy(out, "–");
        return out;
    }
    number_text(out, kind, value);
    strncat(out, formats[kind].unit, FIGURE_ROOM - 1 - strlen(out));
    return out;
}

// The number in an element of its own, without its unit.
static void number(Page *p, Ref r, Figure kind) {
    char text[FIGURE_ROOM];
    number_text(text, kind, ref_number(r));
    if (p->kind == PAGE_HTML) {
        page_markup(p, "<span");
        page_path(p, r.path);
        if (formats[kind].scale != 1) page_markup(p, " data-x=\"%g\"", formats[kind].scale);
        page_markup(p, ">%s</span>", text);
    } else {
        page_markup(p, "%s", text);
    }
}

void page_figure(Page *p, Ref r, Figure kind) {
    if (!json_is_number(r.v)) {
        page_markup(p, "–");
        return;
    }
    number(p, r, kind);
    page_markup(p, "%s", formats[kind].unit);
}

void page_interval(Page *p, Ref pair, Figure kind) {
    const Ref lo = ref_at(pair, 0), hi = ref_at(pair, 1);
    if (!json_is_number(lo.v) || !json_is_number(hi.v)) {
        page_markup(p, "–");
        return;
    }
    number(p, lo, kind);
    page_markup(p, formats[kind].sign ? " to " : " – ");
    number(p, hi, kind);
    page_markup(p, "%s", formats[kind].unit);
}

// eval/report/report_svg.c - scales, axes, lines, bands, markers.
#include "eval/report/report_svg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 420, HEIGHT = 270, LEFT = 48, RIGHT = 14, TOP = 30, BOTTOM = 44, TICKS_MAX = 24 };

typedef struct {
    double lo, hi;   // of the data, rounded outwards to ticks
    double from, to; // where they are drawn
    double step;     // between ticks
    int decimals;
} Scale;

static double place(const Scale *s, double v) {
    return s->from + (s->to - s->from) * (v - s->lo) / (s->hi - s->lo);
}

// Ticks at 1, 2 or 5 times a power of ten; `most` of them at most.
static void round_scale(Scale *s, int most, bool outwards) {
    if (!(s->hi > s->lo)) {
        const double room = fabs(s->lo) > 0 ? 0.1 * fabs(s->lo) : 1.0;
        s->lo -= room;
        s->hi += room;
    }
    const double raw = (s->hi - s->lo) / most, power = pow(10, floor(log10(raw))), r = raw / power;
    s->step = power * (r <= 1 ? 1 : r <= 2 ? 2 : r <= 5 ? 5 : 10);
    if (outwards) {
        s->lo = s->step * floor(s->lo / s->step + 1e-9);
        s->hi = s->step * ceil(s->hi / s->step - 1e-9);
    }
    const double digits = -floor(log10(s->step) + 1e-9);
    s->decimals = digits > 0 ? (int)digits : 0;
}

static void widen(double *lo, double *hi, double v) {
    if (!isfinite(v)) return;
    if (!(v >= *lo)) *lo = v;
    if (!(v <= *hi)) *hi = v;
}

static void open_svg(Page *p, const char *label, double height) {
    page_markup(p, "<svg viewBox=\"0 0 %d %.0f\" role=\"img\" aria-label=\"", WIDTH, height);
    page_text(p, label);
    page_markup(p, "\">\n");
}

// "0.5", "25 %" where the figure is a percentage
static void tick_text(char out[48], const Scale *s, double v, Figure figure) {
    if (fabs(v) < 1e-9 * s->step) v = 0.0;
    const bool percent = figure == FIG_GAIN || figure == FIG_PERCENT;
    const int d = percent ? (s->decimals > 2 ? s->decimals - 2 : 0) : s->decimals;
    if (fabs(v) >= 1e6)
        snprintf(out, 48, "%.3g", v);
    else
        snprintf(out, 48, percent ? "%.*f %%" : "%.*f", d, percent ? 100 * v : v);
}

static void y_axis(Page *p, const Scale *s, const char *label, Figure figure) {
    page_markup(p, "<text class=\"ax\" x=\"2\" y=\"14\">");
    page_text(p, label);
    page_markup(p, "</text>\n");
    for (int i = 0; i <= TICKS_MAX; i++) {
        char text[48];
        const double v = s->lo + i * s->step, y = place(s, v);
        if (v > s->hi + 1e-9 * s->step) break;
        tick_text(text, s, v, figure);
        page_markup(p,
                    "<line class=\"gr\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
                    "<text class=\"tk\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                    LEFT, WIDTH - RIGHT, y, y, LEFT - 6, y + 4.5, text);
    }
}

static void x_axis(Page *p, const Scale *s, double bottom, const char *label, Figure figure) {
    const double first = s->step * ceil(s->lo / s->step - 1e-9);
    for (int i = 0; i <= TICKS_MAX; i++) {
        char text[48];
        const double v = first + i * s->step, x = place(s, v);
        if (v > s->hi + 1e-9 * s->step) break;
        tick_text(text, s, v, figure);
        // the outermost ones stay inside the picture
        const char *anchor = x > WIDTH - 24 ? "end" : "middle";
        page_markup(p, "<text class=\"tk\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n",
                    x > WIDTH - 24 ? WIDTH - 1.0 : x, bottom + 17, anchor, text);
    }
    page_markup(p, "<text class=\"ax\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">",
                0.5 * (s->from + s->to), bottom + 36);
    page_text(p, label);
    page_markup(p, "</text>\n");
}

// A different outline for each style, so that no colour is needed to tell them apart.
static void marker(Page *p, double x, double y, int style, double r, const char *path) {
    static const char *const shapes[SVG_STYLES] = {
        NULL,
        NULL,
        "M-.9-.9H.9V.9H-.9Z",
        "M0-1.15L1.1.85H-1.1Z",
        "M0-1.3L1.3 0L0 1.3L-1.3 0Z",
        "M0 1.15L1.1-.85H-1.1Z",
        "M-.35-1.1H.35V-.35H1.1V.35H.35V1.1H-.35V.35H-1.1V-.35H-.35Z",
        "M0-1.3L.35-.4L1.25-.4L.5.15L.8 1.1L0 .55L-.8 1.1L-.5.15L-1.25-.4L-.35-.4Z"};
    const char *shape = shapes[style % SVG_STYLES];
    if (shape == NULL)
        page_markup(p, "<circle class=\"mk\" cx=\"%.2f\" cy=\"%.2f\" r=\"%.1f\"", x, y, r);
    else
        page_markup(p, "<path class=\"mk\" transform=\"translate(%.2f,%.2f) scale(%.1f)\" d=\"%s\"",
                    x, y, r, shape);
    page_path(p, path);
    page_markup(p, "/>");
}

static void series_open(Page *p, int style) {
    page_markup(p, "<g class=\"s%d%s\">\n", style % SVG_STYLES, style >= SVG_STYLES ? " more" : "");
}

static void band(Page *p, const SvgLine *l, const Scale *sx, const Scale *sy) {
    int first = -1, n = 0;
    for (int i = 0; l->lo != NULL && i < l->n; i++) {
        if (!isfinite(l->lo[i]) || !isfinite(l->hi[i])) continue;
        if (first < 0) first = i;
        n++;
    }
    if (n < 2) return;
    page_markup(p, "<path class=\"bd\" d=\"");
    char move = 'M';
    for (int i = 0; i < l->n; i++) {
        if (!isfinite(l->lo[i]) || !isfinite(l->hi[i])) continue;
        page_markup(p, "%c%.1f %.1f", move, place(sx, l->x[i]), place(sy, l->hi[i]));
        move = 'L';
    }
    for (int i = l->n - 1; i >= first; i--)
        if (isfinite(l->lo[i]) && isfinite(l->hi[i]))
            page_markup(p, "L%.1f %.1f", place(sx, l->x[i]), place(sy, l->lo[i]));
    page_markup(p, "Z\"/>\n");
}

static void line_marks(Page *p, const SvgChart *c, const SvgLine *l, const Scale *sx,
                       const Scale *sy) {
    char y[FIGURE_ROOM], lo[FIGURE_ROOM], hi[FIGURE_ROOM], path[REF_PATH + 16] = "";
    for (int i = 0; i < l->n; i++) {
        if (!isfinite(l->y[i])) continue;
        if (l->path[0]) snprintf(path, sizeof path, "%s/%d", l->path, i);
        page_markup(p, "<g><title>");
        page_text(p, l->name);
        page_markup(p, ", %s%g: %s", c->x_prefix, l->x[i], figure_text(y, c->figure, l->y[i]));
        if (l->lo != NULL && isfinite(l->lo[i]))
            page_markup(p, " (%s – %s)", figure_text(lo, c->figure, l->lo[i]),
                        figure_text(hi, c->figure, l->hi[i]));
        page_markup(p, "</title>");
        marker(p, place(sx, l->x[i]), place(sy, l->y[i]), l->style, 3.6, path);
        page_markup(p, "</g>\n");
    }
}

static void line(Page *p, const SvgChart *c, const SvgLine *l, const Scale *sx, const Scale *sy) {
    bool drawing = false;
    series_open(p, l->style);
    band(p, l, sx, sy);
    page_markup(p, "<path class=\"ln\" d=\"");
    for (int i = 0; i < l->n; i++) {
        const bool there = isfinite(l->y[i]);
        if (there)
            page_markup(p, "%c%.1f %.1f", drawing ? 'L' : 'M', place(sx, l->x[i]),
                        place(sy, l->y[i]));
        drawing = there;
    }
    page_markup(p, "\"/>\n");
    if (l->marks) line_marks(p, c, l, sx, sy);
    page_markup(p, "</g>\n");
}

void svg_chart(Page *p, const SvgChart *c) {
    Scale sx = {.lo = NAN, .hi = NAN, .from = LEFT + 10, .to = WIDTH - RIGHT - 12},
          sy = {.lo = NAN, .hi = NAN, .from = HEIGHT - BOTTOM, .to = TOP};
    for (int s = 0; s < c->lines; s++)
        for (int i = 0; i < c->line[s].n; i++) {
            const SvgLine *l = &c->line[s];
            widen(&sx.lo, &sx.hi, l->x[i]);
            widen(&sy.lo, &sy.hi, l->y[i]);
            if (l->lo == NULL) continue;
            widen(&sy.lo, &sy.hi, l->lo[i]);
            widen(&sy.lo, &sy.hi, l->hi[i]);
        }
    if (!isfinite(sx.lo) || !isfinite(sy.lo)) return; // nothing to show
    widen(&sy.lo, &sy.hi, c->level);
    round_scale(&sy, 5, true);
    round_scale(&sx, 6, false);
    if (c->integers) sx.step = 1, sx.decimals = 0;
    open_svg(p, c->label, HEIGHT);
    y_axis(p, &sy, c->y, c->figure);
    x_axis(p, &sx, HEIGHT - BOTTOM, c->x, FIG_COUNT);
    if (isfinite(c->level)) {
        const double y = place(&sy, c->level);
        page_markup(p, "<line class=\"lv\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT,
                    WIDTH - RIGHT, y, y);
    }
    for (int s = 0; s < c->lines; s++) line(p, c, &c->line[s], &sx, &sy);
    page_markup(p, "</svg>\n");
}

static void dot(Page *p, const SvgDots *d, int row, int series, double y, const Scale *sx) {
    const int at = row * d->series + series;
    char value[FIGURE_ROOM], lo[FIGURE_ROOM], hi[FIGURE_ROOM];
    if (!isfinite(d->y[at])) return;
    series_open(p, series);
    page_markup(p, "<title>");
    page_text(p, d->row[row]);
    page_markup(p, ", ");
    page_text(p, d->series_name[series]);
    page_markup(p, ": %s", figure_text(value, d->figure, d->y[at]));
    const bool interval = isfinite(d->lo[at]) && isfinite(d->hi[at]);
    if (interval)
        page_markup(p, " (%s – %s)", figure_text(lo, d->figure, d->lo[at]),
                    figure_text(hi, d->figure, d->hi[at]));
    page_markup(p, "</title>");
    if (interval)
        page_markup(p, "<line class=\"wk\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>",
                    place(sx, d->lo[at]), place(sx, d->hi[at]), y, y);
    marker(p, place(sx, d->y[at]), y, series, 3.6, d->path[at]);
    page_markup(p, "</g>\n");
}

// The label of a row stands above its dots: there it has the width of the picture.
static void row_label(Page *p, const char *text, double y) {
    enum { CHARS = 48 };
    char cut[4 * CHARS + 8];
    size_t used = 0, chars = 0;
    for (const char *c = text; *c != '\0' && used < sizeof cut - 5; c++) {
        if (((unsigned char)*c & 0xC0) != 0x80 && chars++ == CHARS) {
            memcpy(cut + used, "…", 3);
            used += 3;
            break;
        }
        cut[used++] = *c;
    }
    cut[used] = '\0';
    page_markup(p, "<text class=\"rw\" x=\"2\" y=\"%.1f\">", y);
    page_text(p, cut[0] ? cut : "(none)");
    page_markup(p, "</text>\n");
}

void svg_dots(Page *p, const SvgDots *d) {
    enum { LABEL = 22, DOT = 11, GAP = 9, MARGIN = 20 };
    Scale sx = {.lo = NAN, .hi = NAN, .from = MARGIN, .to = WIDTH - MARGIN - 4};
    for (int i = 0; i < d->rows * d->series; i++) {
        widen(&sx.lo, &sx.hi, d->y[i]);
        widen(&sx.lo, &sx.hi, d->lo[i]);
        widen(&sx.lo, &sx.hi, d->hi[i]);
    }
    if (!isfinite(sx.lo)) return;
    round_scale(&sx, 6, true);
    const double row = LABEL + DOT * d->series + GAP, bottom = d->rows * row;
    open_svg(p, d->label, bottom + BOTTOM);
    const int ticks = (int)lround((sx.hi - sx.lo) / sx.step);
    for (int i = 0; i <= ticks && i <= TICKS_MAX; i++) {
        const double x = place(&sx, sx.lo + i * sx.step);
        page_markup(p, "<line class=\"gr\" x1=\"%.1f\" x2=\"%.1f\" y1=\"0\" y2=\"%.1f\"/>\n", x, x,
                    bottom);
    }
    for (int r = 0; r < d->rows; r++) {
        if (r > 0)
            page_markup(p, "<line class=\"gr\" x1=\"0\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>\n",
                        WIDTH, r * row - 4, r * row - 4);
        row_label(p, d->row[r], r * row + 16);
        for (int s = 0; s < d->series; s++) dot(p, d, r, s, r * row + LABEL + DOT * (s + 0.5), &sx);
    }
    x_axis(p, &sx, bottom, d->x, d->figure);
    page_markup(p, "</svg>\n");
}

void svg_swatch(Page *p, int style) {
    page_markup(p, "<svg class=\"sw\" viewBox=\"0 0 34 14\" aria-hidden=\"true\">");
    series_open(p, style);
    page_markup(p, "<path class=\"ln\" d=\"M1 7H33\"/>");
    marker(p, 17, 7, style, 4, "");
    page_markup(p, "</g></svg>");
}

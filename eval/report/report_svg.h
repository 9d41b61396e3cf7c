// eval/report/report_svg.h - line charts with bands and dot plots with intervals, as inline SVG.
//
// Drawn for a column of 420 units; text stays readable from 340 pixels of width on. Colours, dashes
// and markers come from the classes s0..s7 of the page's style sheet: every series has its own
// colour, dash and marker.
#ifndef EVAL_REPORT_SVG_H
#define EVAL_REPORT_SVG_H

#include "eval/report/report_page.h"

enum { SVG_STYLES = 8 };

// One line. lo, hi: NULL, or a band (NaN: none at that point). y that is NaN is a gap.
typedef struct {
    const char *name;
    int style; // any; 0 is the base of comparison
    int n;
    const double *x, *y, *lo, *hi; // (n)
    char path[REF_PATH];           // JSON pointer of the array y came from, "" = none
    bool marks;
} SvgLine;

typedef struct {
    const char *label;    // of the chart, for those who cannot see it
    const char *x, *y;    // axis labels
    const char *x_prefix; // before the x of a hover title: "k = "
    Figure figure;        // how y is printed
    double level;         // a dotted line at this y; NaN: none
    bool integers;        // x is a count: a tick at each
    const SvgLine *line;
    int lines;
} SvgChart;
void svg_chart(Page *p, const SvgChart *c);

// rows x series; y, lo, hi: (rows, series), NaN where there is none.
typedef struct {
    const char *label, *x;
    Figure figure;
    int rows, series;
    const char *const *row, *const *series_name; // (rows), (series)
    const double *y, *lo, *hi;
    const char (*path)[REF_PATH]; // (rows, series): JSON pointers of y
} SvgDots;
void svg_dots(Page *p, const SvgDots *d);

void svg_swatch(Page *p, int style); // line and marker of a legend

#endif

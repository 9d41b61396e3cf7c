// eval/report/report_where.c - the charts of where (slices of the prompts) and of training.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/report/report_metrics.h"
#include "eval/report/report_parts.h"
#include "eval/report/report_svg.h"

enum { ROWS = 24 };

typedef struct {
    const char *row[ROWS], *series[VIEW_DRAFTERS];
    double *y, *lo, *hi; // (ROWS, drafters)
    char (*path)[REF_PATH];
    int rows, total;
} Dots;

// Slices with fewer prompts than `least` are left to the table.
static void fill(Dots *t, const ReportView *v, Ref group, json_int_t least) {
    const char *name;
    json_t *slice;
    json_object_foreach((json_t *)group.v, name, slice) {
        t->total++;
        if (json_integer_value(json_object_get(slice, "prompts")) < least || t->rows == ROWS)
            continue;
        for (int d = 0; d < v->drafters; d++) {
            const int at = t->rows * v->drafters + d;
            const size_t i = (size_t)v->select_k - 1;
            const Ref head = ref_key(ref_key(ref_key(group, name), v->name[d]), v->key[0]);
            const Ref tau = ref_at(ref_key(head, "tau"), i),
                      ci = ref_at(ref_key(head, "tau_ci"), i);
            t->y[at] = ref_number(tau);
            t->lo[at] = ref_number(ref_at(ci, 0));
            t->hi[at] = ref_number(ref_at(ci, 1));
            memcpy(t->path[at], tau.path, REF_PATH);
        }
        t->row[t->rows++] = name;
    }
}

static int descending(const void *pa, const void *pb) {
    const json_int_t a = *(const json_int_t *)pa, b = *(const json_int_t *)pb;
    return (a < b) - (a > b);
}

// The number of prompts that the ROWS largest slices have at least.
static json_int_t threshold(Ref group) {
    const size_t n = json_object_size(group.v);
    if (n <= ROWS) return 0;
    json_int_t *prompts = calloc(n, sizeof *prompts), least;
    const char *name;
    json_t *slice;
    size_t i = 0;
    CHECK_MEMORY(prompts);
    json_object_foreach((json_t *)group.v, name, slice) prompts[i++] =
        json_integer_value(json_object_get(slice, "prompts"));
    qsort(prompts, n, sizeof *prompts, descending);
    least = prompts[ROWS - 1];
    free(prompts);
    return least;
}

bool charts_slices(Page *p, const ReportView *v, const char *group, const char *title) {
    const Ref all = view_ref(v, group);
    if (!json_is_object(all.v) || json_object_size(all.v) < 2) return false;
    const size_t cells = (size_t)ROWS * (size_t)v->drafters;
    Dots t = {.y = malloc(cells * sizeof(double)),
              .lo = malloc(cells * sizeof(double)),
              .hi = malloc(cells * sizeof(double)),
              .path = calloc(cells, REF_PATH)};
    if (t.y == NULL || t.lo == NULL || t.hi == NULL) memory_failed();
    CHECK_MEMORY(t.path);
    char note[400], words[160], more[64] = "";
    fill(&t, v, all, threshold(all));
    view_key_words(words, v, 0, v->key[0]);
    if (t.total > t.rows)
        snprintf(more, sizeof more, " The %d of %d with most prompts.", t.rows, t.total);
    snprintf(
        note, sizeof note,
        "k = %d, %s. Bonus in, pooled over the prompts of the part; bars: %g\u00a0%% intervals.%s",
        v->select_k, words, 100 * view_confidence(v), more);
    figure_open(p, v, v->key[0], title, note);
    svg_dots(p, &(SvgDots){.label = title,
                           .x = "tokens per target step",
                           .figure = FIG_TAU,
                           .rows = t.rows,
                           .series = v->drafters,
                           .row = t.row,
                           .series_name = v->name,
                           .y = t.y,
                           .lo = t.lo,
                           .hi = t.hi,
                           .path = (const char(*)[REF_PATH])t.path});
    figure_close(p);
    free(t.y);
    free(t.lo);
    free(t.hi);
    free(t.path);
    return true;
}

// Names of lines that are no drafters: runs, or draft steps.
static void legend(Page *p, const SvgLine *line, int n) {
    page_markup(p, "<ul class=\"lg\">");
    for (int i = 0; i < n; i++) {
        page_markup(p, "<li>");
        svg_swatch(p, line[i].style);
        page_text(p, line[i].name);
        page_markup(p, "</li>");
    }
    page_markup(p, "</ul>\n");
}

static void draw(Page *p, const SvgLine *line, int n, const char *title, const char *note,
                 const char *y, Figure figure) {
    if (n == 0) return;
    figure_open(p, NULL, NULL, title, note);
    if (n > 1) legend(p, line, n);
    svg_chart(p, &(SvgChart){.label = title,
                             .x = "optimiser step",
                             .y = y,
                             .x_prefix = "step ",
                             .figure = figure,
                             .level = NAN,
                             .line = line,
                             .lines = n});
    figure_close(p);
}

static SvgLine metric_line(const MetricLine *m, const char *name, int style, bool marks) {
    return (SvgLine){
        .name = name, .style = style, .n = m->n, .x = m->step, .y = m->value, .marks = marks};
}

// Match rates of the first, middle and last draft step of one run.
static void match_chart(Page *p, const RunMetrics *m) {
    SvgLine line[3];
    char name[3][32], note[160];
    int deepest = 0, n = 0;
    for (int j = 0; j < DRAFT_MAX; j++)
        if (m->match[j].n > 0) deepest = j + 1;
    const int step[3] = {1, (deepest + 1) / 2, deepest};
    for (int i = 0; i < 3; i++) {
        if (step[i] < 1 || (i > 0 && step[i] == step[i - 1])) continue;
        snprintf(name[n], sizeof name[n], "draft step %d", step[i]);
        line[n] = metric_line(&m->match[step[i] - 1], name[n], n + 1, false);
        n++;
    }
    snprintf(
        note, sizeof note,
        "Share of anchors whose draft is the target's choice, means over %lld optimiser steps.",
        (long long)m->averaged * METRIC_COARSE);
    draw(p, line, n, "Match rate by optimiser step", note, "share of drafts that match", FIG_SHARE);
}

bool charts_training(Page *p, const ReportRun *run, int runs, Err *err) {
    RunMetrics *m = calloc((size_t)runs + 1, sizeof *m);
    SvgLine *loss = calloc((size_t)runs + 1, sizeof *loss),
            *dev = calloc((size_t)runs + 1, sizeof *dev);
    int losses = 0, devs = 0;
    int64_t averaged = 1;
    bool ok = true;
    if (m == NULL || loss == NULL || dev == NULL) memory_failed();
    for (int i = 0; i < runs && ok; i++) {
        ok = run_metrics_read(&m[i], run[i].metrics_path, err);
        if (m[i].averaged > averaged) averaged = m[i].averaged;
        if (ok && m[i].loss.n > 0)
            loss[losses++] = metric_line(&m[i].loss, run[i].name, i + 1, false);
        if (ok && m[i].dev.n > 0) dev[devs++] = metric_line(&m[i].dev, run[i].name, i + 1, true);
    }
    if (ok && losses + devs > 0) {
        char note[160] = "Training loss, each optimiser step.";
        if (averaged > 1)
            snprintf(note, sizeof note, "Training loss, means over %lld optimiser steps.",
                     (long long)averaged);
        page_markup(p, "<section><h2 id=\"training\">Training</h2>\n<div class=\"charts\">\n");
        draw(p, loss, losses, "Loss by step", note, "loss", FIG_SHARE);
        draw(p, dev, devs, "Tokens per target step on the dev split",
             "What chooses the best checkpoint: simulated, bonus in, pooled; step 0 is the stock "
             "drafter.",
             "tokens per target step", FIG_TAU);
        if (runs == 1) match_chart(p, &m[0]);
        page_markup(p, "</div></section>\n");
    }
    free(m);
    free(loss);
    free(dev);
    return ok;
}

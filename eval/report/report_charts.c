// eval/report/report_charts.c - the charts of tau, positions, speed and recall, from the JSON
// object.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "eval/report/report_parts.h"
#include "eval/report/report_svg.h"

typedef struct {
    double x[DRAFT_MAX], y[DRAFT_MAX], lo[DRAFT_MAX], hi[DRAFT_MAX];
} Points;

void figure_open(Page *p, const ReportView *v, const char *key, const char *title,
                 const char *note) {
    page_markup(p, "<figure>\n<figcaption><b>");
    page_text(p, title);
    page_markup(p, "</b><span>");
    page_text(p, note);
    page_markup(p, "</span></figcaption>\n");
    if (key == NULL) return;
    page_markup(p, "<ul class=\"lg\">");
    for (int d = 0; d < v->drafters; d++) {
        if (view_head(v, d, key).v == NULL) continue;
        page_markup(p, "<li>");
        svg_swatch(p, d);
        page_text(p, v->name[d]);
        page_markup(p, "</li>");
    }
    page_markup(p, "</ul>\n");
}

void figure_close(Page *p) {
    page_markup(p, "</figure>\n");
}

// y over x = 1, 2, ... from an array and, ci not NULL, its intervals.
static bool points(SvgLine *l, Points *s, Ref values, const Ref *ci) {
    const size_t n = json_array_size(values.v);
    *l = (SvgLine){.x = s->x, .y = s->y, .marks = true};
    memcpy(l->path, values.path, sizeof l->path);
    for (; l->n < DRAFT_MAX && (size_t)l->n < n; l->n++) {
        const size_t i = (size_t)l->n;
        s->x[i] = (double)i + 1;
        s->y[i] = ref_number(ref_at(values, i));
        s->lo[i] = ci != NULL ? ref_number(ref_at(ref_at(*ci, i), 0)) : NAN;
        s->hi[i] = ci != NULL ? ref_number(ref_at(ref_at(*ci, i), 1)) : NAN;
    }
    if (ci != NULL) l->lo = s->lo, l->hi = s->hi;
    return l->n > 0;
}

typedef bool (*LineOf)(SvgLine *l, Points *s, const ReportView *v, int d, const char *key);

// One line a drafter. Returns how many there are.
static int lines_of(SvgLine *line, Points *room, const ReportView *v, const char *key, LineOf of) {
    int n = 0;
    for (int d = 0; d < v->drafters; d++) {
        if (!of(&line[n], &room[n], v, d, key)) continue;
        line[n].name = v->name[d];
        line[n].style = d;
        n++;
    }
    return n;
}

static bool chart(Page *p, const ReportView *v, const char *key, LineOf of, SvgChart c,
                  const char *title, const char *note) {
    SvgLine line[VIEW_DRAFTERS];
    Points room[VIEW_DRAFTERS];
    c.lines = lines_of(line, room, v, key, of);
    c.line = line;
    c.label = title;
    c.integers = true;
    if (c.lines == 0) return false;
    figure_open(p, v, key, title, note);
    svg_chart(p, &c);
    figure_close(p);
    return true;
}

static bool tau_line(SvgLine *l, Points *s, const ReportView *v, int d, const char *key) {
    const Ref head = view_head(v, d, key), ci = ref_key(head, "tau_ci");
    return points(l, s, ref_key(head, "tau"), &ci);
}

void charts_tau(Page *p, const ReportView *v) {
    for (int i = 0; i < v->keys; i++) {
        char words[160], note[320], rule[80], title[160];
        view_key_words(words, v, 0, v->key[i]);
        view_key_short(rule, v->key[i]);
        snprintf(title, sizeof title, "Tokens per target step: %s", rule);
        snprintf(note, sizeof note,
                 "Rule: %s. Bonus token in (ceiling k + 1), pooled over prompts; bands: %g\u00a0%% "
                 "intervals.",
                 words, 100 * view_confidence(v));
        chart(p, v, v->key[i], tau_line,
              (SvgChart){.x = "draft tokens k",
                         .y = "tokens per target step",
                         .x_prefix = "k = ",
                         .figure = FIG_TAU,
                         .level = NAN},
              title, note);
    }
}

static bool visited_line(SvgLine *l, Points *s, const ReportView *v, int d, const char *key) {
    const Ref u = ref_key(view_head(v, d, key), "u");
    return points(l, s, ref_at(u, (size_t)v->K - 1), NULL);
}

static bool all_line(SvgLine *l, Points *s, const ReportView *v, int d, const char *key) {
    return points(l, s, ref_key(view_head(v, d, key), "u_all"), NULL);
}

void charts_position(Page *p, const ReportView *v) {
    char words[160], note[400];
    const char *key = v->key[0];
    SvgChart c = {.x = "position i of the draft",
                  .y = "share accepted up to i",
                  .x_prefix = "i = ",
                  .figure = FIG_SHARE,
                  .level = NAN};
    view_key_words(words, v, 0, key);
    snprintf(note, sizeof note,
             "u_i over the rounds that decoding with k = %d visits: share with at least i drafts "
             "accepted. Rule: %s.",
             v->K, words);
    chart(p, v, key, visited_line, c, "Acceptance by position, visited rounds", note);
    snprintf(note, sizeof note,
             "u_i over every position of the text, visited or not: does not depend on k. Rule: %s.",
             words);
    chart(p, v, key, all_line, c, "Acceptance by position, all anchors", note);
}

static bool speed_line(SvgLine *l, Points *s, const ReportView *v, int d, const char *key) {
    return points(l, s, ref_key(view_recommendation(v, d, key), "speedup"), NULL);
}

bool charts_speed(Page *p, const ReportView *v) {
    bool any = false;
    for (int i = 0; i < v->keys; i++) {
        char words[160], note[320], rule[80], title[160];
        view_key_words(words, v, 0, v->key[i]);
        view_key_short(rule, v->key[i]);
        snprintf(title, sizeof title, "Speed-up: %s", rule);
        snprintf(note, sizeof note,
                 "Rule: %s. Tokens per second with drafts over tokens per second without, from the "
                 "costs below and the acceptance above; below 1 a drafter slows down.",
                 words);
        any |= chart(p, v, v->key[i], speed_line,
                     (SvgChart){.x = "draft tokens k",
                                .y = "speed-up (dotted: no drafter)",
                                .x_prefix = "k = ",
                                .figure = FIG_SPEED,
                                .level = 1.0},
                     title, note);
    }
    return any;
}

static bool recall_line(SvgLine *l, Points *s, const ReportView *v, int d, const char *key) {
    (void)key;
    return points(l, s, ref_key(ref_key(view_drafter(v, d), "recall"), "share"), NULL);
}

void charts_recall(Page *p, const ReportView *v) {
    chart(p, v, v->key[0], recall_line,
          (SvgChart){.x = "draft step",
                     .y = "share of anchors",
                     .x_prefix = "step ",
                     .figure = FIG_SHARE,
                     .level = NAN},
          "Centroid recall by step",
          "Share of anchors whose best target token lies in the clusters that the centroid head "
          "selects; what lies outside can never be drafted.");
}

// eval/report/report_html.c - headline, tiles, and the order of the sections.
#include "eval/report/report_html.h"

#include <stdio.h>
#include <string.h>

#include "eval/count/stats.h"
#include "eval/report/report_parts.h"

static void names_joined(Page *p, const ReportView *v) {
    if (v->drafters > 3) {
        page_markup(p, "%d drafters on the same prompts", v->drafters);
        return;
    }
    for (int d = v->drafters - 1; d >= 0; d--) {
        page_text(p, v->name[d]);
        if (d > 0) page_markup(p, " against ");
    }
    if (v->drafters == 1) page_markup(p, " drafter");
}

static void head(Page *p, const ReportView *v) {
    page_markup(p, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                   "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                   "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                   "style-src 'unsafe-inline'\">\n"
                   "<meta name=\"color-scheme\" content=\"light dark\">\n<title>Acceptance: ");
    names_joined(p, v);
    page_markup(p, "</title>\n<style>");
    out_write(p->f, report_style, strlen(report_style));
    page_markup(p, "</style>\n</head>\n<body>\n<main>\n");
}

void page_counting(Page *p, const ReportView *v) {
    page_markup(p,
                "Unless a figure says otherwise: tokens per target step with the bonus token in "
                "(ceiling k + 1), pooled over prompts, the last round cut at the end of the text; "
                "%g\u00a0%% intervals from a %sbootstrap over prompts.",
                100 * view_confidence(v), v->drafters > 1 ? "paired " : "");
}

static void fact(Page *p, const char *what, const char *text) {
    page_markup(p, "<li><span>%s</span> ", what);
    page_text(p, text);
    page_markup(p, "</li>");
}

static void facts(Page *p, const ReportView *v) {
    char words[160], k[48];
    const char *dtype = json_string_value(ref_key(view_drafter(v, v->leader), "dtype").v);
    view_key_words(words, v, v->leader, v->key[0]);
    snprintf(k, sizeof k, "1 to %d, chosen at %d", v->K, v->select_k);
    page_markup(p, "<ul class=\"facts\"><li><span>prompts</span> ");
    page_figure(p, view_ref(v, "prompts"), FIG_COUNT);
    page_markup(p, "</li><li><span>generated tokens</span> ");
    page_figure(p, view_ref(v, "tokens"), FIG_COUNT);
    page_markup(p, "</li>");
    fact(p, "text of the target", view_sampler(v));
    fact(p, "rule and head", words);
    fact(p, "draft tokens k", k);
    if (dtype != NULL) fact(p, "drafter dtype", dtype);
    page_markup(p, "</ul>\n");
}

static void tile(Page *p, const char *label, int k, Ref value, Figure kind, Ref ci) {
    page_markup(p, "<li><span>%s, k = %d</span><b>", label, k);
    page_figure(p, value, kind);
    page_markup(p, "</b><small>");
    page_interval(p, ci, kind);
    page_markup(p, "</small></li>\n");
}

static void gain_tile(Page *p, const ReportView *v, int k) {
    const Ref pair = view_pair(v, NULL, v->leader, v->key[0]);
    if (v->leader == 0 || k > v->K) return;
    tile(p, "gain", k, ref_at(ref_key(pair, "gain"), (size_t)k - 1), FIG_GAIN,
         ref_at(ref_key(pair, "ci"), (size_t)k - 1));
}

static void tiles(Page *p, const ReportView *v) {
    const int k = v->select_k;
    const Ref top = view_head(v, v->leader, v->key[0]),
              r = view_recommendation(v, v->leader, v->key[0]);
    page_markup(p, "<ul class=\"tiles\">\n");
    tile(p, "tokens per target step", k, ref_at(ref_key(top, "tau"), (size_t)k - 1), FIG_TAU,
         ref_at(ref_key(top, "tau_ci"), (size_t)k - 1));
    gain_tile(p, v, k);
    if (k != 3) gain_tile(p, v, 3);
    if (json_is_number(ref_key(r, "best_speedup").v)) {
        page_markup(p, "<li><span>fastest draft length</span><b>k = ");
        page_figure(p, ref_key(r, "best_k"), FIG_COUNT);
        page_markup(p, "</b><small>");
        page_figure(p, ref_key(r, "best_speedup"), FIG_SPEED);
        page_markup(p, " plain decoding</small></li>\n");
    } else {
        const Ref base = view_head(v, 0, v->key[0]);
        page_markup(p, "<li><span>first draft right, all anchors</span><b>");
        page_figure(p, ref_at(ref_key(top, "u_all"), 0), FIG_PERCENT);
        page_markup(p, "</b>");
        if (v->leader > 0) {
            page_markup(p, "<small>");
            page_text(p, v->name[0]);
            page_markup(p, " ");
            page_figure(p, ref_at(ref_key(base, "u_all"), 0), FIG_PERCENT);
            page_markup(p, "</small>");
        }
        page_markup(p, "</li>\n");
    }
    page_markup(p, "</ul>\n");
}

static void headline(Page *p, const ReportView *v) {
    page_markup(p, "<header>\n<p class=\"eyebrow\">draftsmith · acceptance report</p>\n<h1>");
    names_joined(p, v);
    page_markup(p, "</h1>\n<p class=\"verdict\">");
    report_verdict(p, v);
    page_markup(p, "</p>\n");
    if (view_prompts(v) < STATS_FEW_PROMPTS)
        page_markup(p,
                    "<p class=\"warn\">Only %lld prompts: below %d an interval is not to be "
                    "trusted.</p>\n",
                    (long long)view_prompts(v), STATS_FEW_PROMPTS);
    tiles(p, v);
    facts(p, v);
    page_markup(p, "<p class=\"note\">");
    page_counting(p, v);
    page_markup(p, "</p>\n</header>\n");
}

static void section(Page *p, const char *id, const char *title) {
    page_markup(p, "<section><h2 id=\"%s\">%s</h2>\n<div class=\"charts\">\n", id, title);
}

static void where(Page *p, const ReportView *v) {
    static const char *const groups[][3] = {{"categories", "category", "By category"},
                                            {"contexts", "context", "By length of the context"},
                                            {"sources", "source", "By source"},
                                            {"kinds", "kind of token", "By kind of token"}};
    enum { GROUPS = sizeof groups / sizeof *groups };
    bool any = false;
    for (int g = 0; g < GROUPS; g++) any |= json_object_size(view_ref(v, groups[g][0]).v) > 1;
    if (!any) return;
    page_markup(p, "<section><h2 id=\"where\">Where it helps</h2>\n<div class=\"charts flow\">\n");
    for (int g = 0; g < GROUPS; g++) charts_slices(p, v, groups[g][0], groups[g][2]);
    page_markup(p, "</div>\n<details><summary>As tables, with gains</summary>\n");
    for (int g = 0; g < GROUPS; g++) table_slices(p, v, groups[g][0], groups[g][1]);
    page_markup(p, "</details></section>\n");
}

static void speed(Page *p, const ReportView *v) {
    if (!json_is_object(view_ref(v, "recommendation").v)) return;
    section(p, "speed", "Speed on the device at hand");
    charts_speed(p, v);
    page_markup(p, "</div>\n");
    tables_speed(p, v);
    page_markup(p, "</section>\n");
}

static void counting(Page *p, const ReportView *v) {
    page_markup(
        p, "<section><h2 id=\"counting\">Why others print other numbers</h2>\n<p>Every "
           "line is the same drafts on the same text. k draft tokens here are "
           "num_speculative_tokens k in vLLM, --spec-draft-n-max k in llama.cpp and block size "
           "k + 1 in MTPLX.</p>\n");
    table_countings(p, v);
    page_markup(p, "</section>\n");
}

static void recall(Page *p, const ReportView *v) {
    bool any = false;
    for (int d = 0; d < v->drafters; d++)
        any |= json_is_object(ref_key(view_drafter(v, d), "recall").v);
    if (!any) return;
    section(p, "recall", "What the centroid head leaves out");
    charts_recall(p, v);
    page_markup(p, "</div>\n<details><summary>As a table, with its ceiling on tokens per target "
                   "step</summary>\n");
    tables_recall(p, v);
    page_markup(p, "</details></section>\n");
}

static void statistics(Page *p, const ReportView *v) {
    const char *text = json_string_value(ref_key(view_ref(v, "statistics"), "multiplicity").v);
    const Ref boot = view_ref(v, "bootstrap");
    page_markup(p, "<section><h2 id=\"statistics\">Statistics and definitions</h2>\n<p>");
    page_counting(p, v);
    page_markup(p, " ");
    page_figure(p, ref_key(boot, "resamples"), FIG_COUNT);
    page_markup(p, " resamples, seed ");
    page_figure(p, ref_key(boot, "seed"), FIG_COUNT);
    page_markup(p, ".</p>\n");
    if (text != NULL) {
        page_markup(p, "<p>");
        page_text(p, text);
        page_markup(p, "</p>\n");
    }
    table_power(p, v);
    table_sweep(p, v);
    table_audit(p, v);
    list_texts(p, view_ref(v, "definitions"));
    page_markup(p, "</section>\n");
}

bool report_html(OutFile *f, const ReportView *v, const ReportRun *run, int runs, Err *err) {
    Page page = {.f = f, .kind = PAGE_HTML}, *p = &page;
    head(p, v);
    headline(p, v);
    section(p, "tau", "Tokens per target step");
    charts_tau(p, v);
    page_markup(p, "</div>\n");
    tables_tau(p, v);
    table_artifacts(p, v);
    page_markup(p, "</section>\n");
    section(p, "position", "Acceptance by position");
    charts_position(p, v);
    page_markup(p, "</div></section>\n");
    speed(p, v);
    where(p, v);
    if (!charts_training(p, run, runs, err)) return false;
    recall(p, v);
    counting(p, v);
    page_markup(p, "<section><h2 id=\"all\">Everything</h2>\n");
    table_drafters(p, v);
    tables_everything(p, v);
    tables_p_min(p, v);
    page_markup(p, "</section>\n");
    statistics(p, v);
    page_markup(p, "</main>\n</body>\n</html>\n");
    return true;
}

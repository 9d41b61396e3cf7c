// eval/report/report_tables.c - the tables that everybody looks at: tau by k, slices, speed.
#include <stdio.h>
#include <string.h>

#include "eval/count/stats.h"
#include "eval/report/report_parts.h"

void table_open(Page *p, const char *caption) {
    page_markup(p, "<p class=\"cap\">");
    page_text(p, caption);
    page_markup(p, "</p>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"");
    page_text(p, caption);
    page_markup(p, "\"><table>\n");
}

void table_close(Page *p) {
    page_markup(p, "</table></div>\n");
}

static void cell(Page *p, Ref r, Figure kind) {
    page_markup(p, "<td>");
    page_figure(p, r, kind);
    page_markup(p, "</td>");
}

static void drafter_heads(Page *p, const ReportView *v, const char *first) {
    page_markup(p, "<thead><tr><th scope=\"col\">%s</th>", first);
    for (int d = 0; d < v->drafters; d++) {
        page_markup(p, "<th scope=\"col\">");
        page_text(p, v->name[d]);
        page_markup(p, "</th>");
    }
    page_markup(p, "</tr></thead>\n");
}

// tau, its interval and the gain beside drafter 0, one below the other.
static void tau_cell(Page *p, Ref head, Ref pair, size_t i, int d) {
    page_markup(p, "<td><b>");
    page_figure(p, ref_at(ref_key(head, "tau"), i), FIG_TAU);
    page_markup(p, "</b><small>");
    page_interval(p, ref_at(ref_key(head, "tau_ci"), i), FIG_TAU);
    page_markup(p, "</small>");
    if (d > 0 && json_is_number(ref_at(ref_key(pair, "gain"), i).v)) {
        page_markup(p, "<small class=\"gain\">");
        page_figure(p, ref_at(ref_key(pair, "gain"), i), FIG_GAIN);
        page_markup(p, "</small><small>");
        page_interval(p, ref_at(ref_key(pair, "ci"), i), FIG_GAIN);
        page_markup(p, "</small>");
    }
    page_markup(p, "</td>");
}

static void tau_table(Page *p, const ReportView *v, const char *key) {
    char words[160], caption[320];
    view_key_words(words, v, 0, key);
    snprintf(caption, sizeof caption,
             "Tokens per target step, %g\u00a0%% interval%s: %s; bonus in, pooled",
             100 * view_confidence(v), v->drafters > 1 ? ", gain and its interval" : "", words);
    table_open(p, caption);
    drafter_heads(p, v, "k");
    page_markup(p, "<tbody%s>\n", v->drafters <= 2 ? " class=\"flat\"" : "");
    for (int k = 1; k <= v->K; k++) {
        page_markup(p, "<tr%s><th scope=\"row\">%d</th>", k == v->select_k ? " class=\"sel\"" : "",
                    k);
        for (int d = 0; d < v->drafters; d++)
            tau_cell(p, view_head(v, d, key), view_pair(v, NULL, d, key), (size_t)k - 1, d);
        page_markup(p, "</tr>\n");
    }
    page_markup(p, "</tbody>");
    table_close(p);
}

void tables_tau(Page *p, const ReportView *v) {
    tau_table(p, v, v->key[0]);
    if (v->keys == 1) return;
    page_markup(p, "<details><summary>The same by the other rules and heads</summary>\n");
    for (int n = 1; n < v->keys; n++) tau_table(p, v, v->key[n]);
    page_markup(p, "</details>\n");
}

void table_drafters(Page *p, const ReportView *v) {
    static const char *const names[] = {"name", "folder", "dtype", "head",
                                        "SHA-256 of the weights"};
    table_open(p, "Drafters");
    page_markup(p, "<thead><tr>");
    for (int i = 0; i < 5; i++) page_markup(p, "<th scope=\"col\" class=\"t\">%s</th>", names[i]);
    page_markup(p, "</tr></thead>\n<tbody>\n");
    for (int d = 0; d < v->drafters; d++) {
        const Ref o = view_drafter(v, d);
        const json_t *text[] = {ref_key(o, "path").v, ref_key(o, "dtype").v,
                                ref_key(view_head(v, d, v->key[0]), "head").v,
                                ref_key(o, "sha256").v};
        page_markup(p, "<tr><th scope=\"row\">");
        page_text(p, v->name[d]);
        page_markup(p, "</th>");
        for (int i = 0; i < 4; i++) {
            char cut[24];
            const char *s = json_string_value(text[i]);
            if (i == 3 && s != NULL) {
                snprintf(cut, sizeof cut, "%.12s…", s);
                s = cut;
            }
            page_markup(p, "<td class=\"t\">");
            page_text(p, s != NULL ? s : "–");
            page_markup(p, "</td>");
        }
        page_markup(p, "</tr>\n");
    }
    page_markup(p, "</tbody>");
    table_close(p);
}

void table_slices(Page *p, const ReportView *v, const char *group, const char *what) {
    const Ref all = view_ref(v, group);
    const size_t i = (size_t)v->select_k - 1;
    const char *name;
    json_t *slice;
    char caption[200];
    if (!json_is_object(all.v) || json_object_size(all.v) == 0) return;
    snprintf(caption, sizeof caption, "By %s, k = %d, rule \"%s\" (* fewer than %d prompts)", what,
             v->select_k, v->key[0], STATS_FEW_PROMPTS);
    table_open(p, caption);
    char first[120];
    snprintf(first, sizeof first, "%s</th><th scope=\"col\">prompts</th><th scope=\"col\">tokens",
             what);
    drafter_heads(p, v, first);
    page_markup(p, "<tbody>\n");
    json_object_foreach((json_t *)all.v, name, slice) {
        const Ref o = ref_key(all, name), prompts = ref_key(o, "prompts");
        page_markup(p, "<tr><th scope=\"row\" class=\"lab\">");
        page_text(p, name[0] ? name : "(none)");
        page_markup(p, "</th><td>");
        page_figure(p, prompts, FIG_COUNT);
        page_markup(p, "%s</td>", ref_number(prompts) < STATS_FEW_PROMPTS ? "*" : "");
        cell(p, ref_key(o, "tokens"), FIG_COUNT);
        for (int d = 0; d < v->drafters; d++)
            tau_cell(p, ref_key(ref_key(o, v->name[d]), v->key[0]), view_pair(v, &o, d, v->key[0]),
                     i, d);
        page_markup(p, "</tr>\n");
    }
    page_markup(p, "</tbody>");
    table_close(p);
}

static void cost_row(Page *p, const char *what, const char *head, Ref x, Figure kind) {
    if (x.v == NULL) return;
    page_markup(p, "<tr><th scope=\"row\">%s", what);
    page_text(p, head);
    page_markup(p, "</th><td class=\"t\">");
    if (json_is_string(x.v))
        page_text(p, json_string_value(x.v));
    else
        page_figure(p, x, kind);
    page_markup(p, "</td></tr>\n");
}

// A number for each head.
static void cost_heads(Page *p, const char *what, Ref heads) {
    const char *name;
    json_t *x;
    json_object_foreach((json_t *)heads.v, name, x)
        cost_row(p, what, name, ref_key(heads, name), FIG_MS);
}

static void spread_cell(Page *p, Ref x, Ref spread, Figure kind) {
    page_markup(p, "<td>");
    page_figure(p, x, kind);
    if (json_is_number(spread.v)) {
        page_markup(p, "<small>± ");
        page_figure(p, spread, kind);
        page_markup(p, "</small>");
    }
    page_markup(p, "</td>");
}

// What is told by how many: a column each, with its spread where it was measured.
static void cost_columns(Page *p, Ref cost) {
    const Ref drafts = ref_key(cost, "drafts_ms"), spread = ref_key(cost, "drafts_spread_ms");
    const struct {
        const char *name;
        Ref row, spread;
        Figure kind;
    } column[] = {
        {"target step of n positions", ref_key(cost, "target_ms"),
         ref_key(cost, "target_spread_ms"), FIG_MS},
        {"n drafts, dense head", ref_key(drafts, "dense"), ref_key(spread, "dense"), FIG_MS},
        {"n drafts, centroid head", ref_key(drafts, "centroid"), ref_key(spread, "centroid"),
         FIG_MS},
        {"round of n drafts / plain step", ref_key(cost, "round_ratio"), (Ref){0}, FIG_SPEED}};
    enum { COLUMNS = sizeof column / sizeof *column };
    size_t rows = 0;
    page_markup(p, "<thead><tr><th scope=\"col\">n</th>");
    for (int c = 0; c < COLUMNS; c++) {
        const size_t n = json_array_size(column[c].row.v);
        if (n > 0) page_markup(p, "<th scope=\"col\">%s</th>", column[c].name);
        if (n > rows) rows = n;
    }
    page_markup(p, "</tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < rows; i++) {
        page_markup(p, "<tr><th scope=\"row\">%zu</th>", i + 1);
        for (int c = 0; c < COLUMNS; c++)
            if (json_array_size(column[c].row.v) > 0)
                spread_cell(p, ref_at(column[c].row, i), ref_at(column[c].spread, i),
                            column[c].kind);
        page_markup(p, "</tr>\n");
    }
    page_markup(p, "</tbody>");
}

static void cost_table(Page *p, const ReportView *v) {
    const Ref cost = view_ref(v, "cost");
    if (!json_is_object(cost.v)) return;
    table_open(p, "Costs that the speed-up is computed with");
    page_markup(p, "<tbody>\n");
    cost_row(p, "device", "", ref_key(cost, "device"), FIG_COUNT);
    cost_row(p, "source", "", ref_key(cost, "source"), FIG_COUNT);
    cost_row(p, "dtype", "", ref_key(cost, "dtype"), FIG_COUNT);
    cost_row(p, "context, tokens", "", ref_key(cost, "context"), FIG_COUNT);
    cost_row(p, "repetitions", "", ref_key(cost, "repetitions"), FIG_COUNT);
    cost_heads(p, "drafter step, head ", ref_key(cost, "drafter_ms"));
    cost_heads(p, "drafter, once a round, head ", ref_key(cost, "drafter_round_ms"));
    page_markup(p, "</tbody>");
    table_close(p);
    table_open(p, "Costs by n; medians where they were measured here");
    cost_columns(p, cost);
    table_close(p);
}

// A draft length, the p-min with it, and what both gain.
static void fastest_cell(Page *p, Ref k, Ref p_min, Ref speedup) {
    page_markup(p, "<td><b>");
    page_figure(p, k, FIG_COUNT);
    page_markup(p, "</b><small>");
    if (p_min.v != NULL) {
        page_markup(p, "p-min ");
        page_figure(p, p_min, FIG_TAU);
        page_markup(p, "</small><small>");
    }
    page_figure(p, speedup, FIG_SPEED);
    page_markup(p, "</small></td>");
}

static void best_row(Page *p, const ReportView *v, int d, const char *key) {
    const Ref r = view_recommendation(v, d, key), min = ref_key(r, "best_p_min");
    if (r.v == NULL) return;
    page_markup(p, "<tr><th scope=\"row\">");
    page_text(p, v->name[d]);
    page_markup(p, "</th><td class=\"t\">");
    page_text(p, key);
    page_markup(p, "</td>");
    fastest_cell(p, ref_key(r, "best_k"), (Ref){0}, ref_key(r, "best_speedup"));
    fastest_cell(p, ref_key(min, "k"), ref_key(min, "p"), ref_key(min, "speedup"));
    page_markup(p, "</tr>\n");
}

static void speed_cells(Page *p, const ReportView *v, const char *key) {
    drafter_heads(p, v, "k");
    page_markup(p, "<tbody>\n");
    for (int k = 1; k <= v->K; k++) {
        page_markup(p, "<tr><th scope=\"row\">%d</th>", k);
        for (int d = 0; d < v->drafters; d++) {
            const Ref r = view_recommendation(v, d, key);
            const size_t i = (size_t)k - 1;
            page_markup(p, "<td><b>");
            page_figure(p, ref_at(ref_key(r, "speedup"), i), FIG_SPEED);
            page_markup(p, "</b><small>");
            page_figure(p, ref_at(ref_key(r, "tokens_per_s"), i), FIG_RATE);
            page_markup(p, " tokens/s</small><small>breaks even at ");
            page_figure(p, ref_at(ref_key(r, "break_even_tau"), i), FIG_TAU);
            page_markup(p, " (rate ");
            page_figure(p, ref_at(ref_key(r, "break_even_rate"), i), FIG_SHARE);
            page_markup(p, ")</small></td>");
        }
        page_markup(p, "</tr>\n");
    }
    page_markup(p, "</tbody>");
}

void tables_speed(Page *p, const ReportView *v) {
    if (!json_is_object(view_ref(v, "recommendation").v)) return;
    table_open(
        p,
        "Fastest draft length and its speed-up (k = 0: use no drafter), constant and with p-min");
    page_markup(
        p, "<thead><tr><th scope=\"col\">drafter</th><th scope=\"col\" class=\"t\">rule</th><th "
           "scope=\"col\">constant k</th><th scope=\"col\">k with p-min</th></tr></thead>\n"
           "<tbody>\n");
    for (int d = 0; d < v->drafters; d++)
        for (int n = 0; n < v->keys; n++) best_row(p, v, d, v->key[n]);
    page_markup(p, "</tbody>");
    table_close(p);
    cost_table(p, v);
    page_markup(p, "<details><summary>Speed-up, tokens per second and break-even at every "
                   "k</summary>\n");
    for (int n = 0; n < v->keys; n++) {
        char caption[160];
        snprintf(caption, sizeof caption, "Speed by k, rule \"%s\"", v->key[n]);
        table_open(p, caption);
        speed_cells(p, v, v->key[n]);
        table_close(p);
    }
    page_markup(p, "</details>\n");
}

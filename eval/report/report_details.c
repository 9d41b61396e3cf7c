// eval/report/report_details.c - the tables for those who want to know all: what others would
// print, every count, p-min, recall, power, audit.
#include <stdio.h>
#include <string.h>

#include "eval/report/report_parts.h"
#include "infer/base/utf8.h"

static void heads(Page *p, const char *const *name, int n) {
    page_markup(p, "<thead><tr>");
    for (int i = 0; i < n; i++)
        page_markup(p, "<th scope=\"col\"%s>%s</th>",
                    strcmp(name[i], "rule") == 0 ? " class=\"t\"" : "", name[i]);
    page_markup(p, "</tr></thead>\n<tbody>\n");
}

static void end(Page *p) {
    page_markup(p, "</tbody>");
    table_close(p);
}

static void cell(Page *p, Ref r, Figure kind) {
    page_markup(p, "<td>");
    page_figure(p, r, kind);
    page_markup(p, "</td>");
}

static void text_cell(Page *p, const char *text) {
    page_markup(p, "<td class=\"t\">");
    page_text(p, text);
    page_markup(p, "</td>");
}

typedef struct {
    const char *member, *label, *who;
    Figure kind;
    bool diagnostic; // of "diagnostics", else of the counts
} Counting;

static const Counting countings[] = {
    {"tau", "tokens per target step", "this report: last round cut where the text ends", FIG_TAU,
     false},
    {"acceptance_length", "1 + accepted / rounds", "vLLM, speculators: not cut", FIG_TAU, false},
    {"tau_prompt_mean", "mean of the prompts' own", "HASS, specdec_bench: prompts weigh alike",
     FIG_TAU, false},
    {"acceptance_rate", "accepted / drafted", "llama.cpp, MTPLX: bonus out, falls with k",
     FIG_SHARE, false},
    {"u_all", "u_k over all anchors", "trainers that score every position", FIG_SHARE, false},
    {"uniform_anchors", "1 + sum of u over all anchors", "simulators that start rounds anywhere",
     FIG_TAU, true},
    {"product_of_means", "1 + sum of products of mean matches",
     "simulators that multiply rates per step", FIG_TAU, true},
    {"uniform_alpha", "1 + sum of mean products of alpha",
     "formulas with the mean acceptance probability", FIG_TAU, true},
};
enum { COUNTINGS = sizeof countings / sizeof *countings };

static Ref counted(const ReportView *v, int d, const char *key, const Counting *c) {
    const Ref from = c->diagnostic ? ref_key(ref_key(view_drafter(v, d), "diagnostics"), key)
                                   : view_head(v, d, key);
    return ref_at(ref_key(from, c->member), (size_t)v->select_k - 1);
}

void table_countings(Page *p, const ReportView *v) {
    char caption[200];
    const char *key = v->key[0];
    snprintf(caption, sizeof caption, "The same drafts counted in other ways, k = %d, rule \"%s\"",
             v->select_k, key);
    table_open(p, caption);
    page_markup(p, "<thead><tr><th scope=\"col\" class=\"lab\">counted as</th>");
    for (int d = 0; d < v->drafters; d++) {
        page_markup(p, "<th scope=\"col\">");
        page_text(p, v->name[d]);
        page_markup(p, "</th>");
    }
    page_markup(p, "<th scope=\"col\" class=\"t\">who prints it</th></tr></thead>\n<tbody>\n");
    for (int i = 0; i < COUNTINGS; i++) {
        bool any = false;
        for (int d = 0; d < v->drafters; d++)
            any |= json_is_number(counted(v, d, key, &countings[i]).v);
        if (!any) continue;
        page_markup(p, "<tr><th scope=\"row\" class=\"lab\">%s</th>", countings[i].label);
        for (int d = 0; d < v->drafters; d++)
            cell(p, counted(v, d, key, &countings[i]), countings[i].kind);
        text_cell(p, countings[i].who);
        page_markup(p, "</tr>\n");
    }
    end(p);
}

static void counts_row(Page *p, const ReportView *v, int d, const char *key, size_t i) {
    const struct {
        const char *member;
        Figure kind;
    } columns[] = {{"tau_prompt_mean", FIG_TAU},
                   {"num_drafts", FIG_COUNT},
                   {"num_draft_tokens", FIG_COUNT},
                   {"num_accepted_tokens", FIG_COUNT},
                   {"acceptance_length", FIG_TAU},
                   {"acceptance_rate", FIG_SHARE},
                   {"u_all", FIG_SHARE}};
    const Ref head = view_head(v, d, key), pair = view_pair(v, NULL, d, key);
    page_markup(p, "<tr><th scope=\"row\">");
    page_text(p, v->name[d]);
    page_markup(p, "</th>");
    text_cell(p, key);
    page_markup(p, "<td>%zu</td>", i + 1);
    cell(p, ref_at(ref_key(head, "tau"), i), FIG_TAU);
    page_markup(p, "<td>");
    page_interval(p, ref_at(ref_key(head, "tau_ci"), i), FIG_TAU);
    page_markup(p, "</td>");
    for (size_t c = 0; c < sizeof columns / sizeof *columns; c++)
        cell(p, ref_at(ref_key(head, columns[c].member), i), columns[c].kind);
    cell(p, ref_at(ref_key(pair, "gain"), i), FIG_GAIN);
    page_markup(p, "<td>");
    page_interval(p, ref_at(ref_key(pair, "ci"), i), FIG_GAIN);
    page_markup(p, "</td></tr>\n");
}

// Row k, column i: a triangle.
static void triangle(Page *p, const ReportView *v, int d, const char *key, const char *member,
                     const char *what) {
    char caption[256], name[80];
    const Ref rows = ref_key(view_head(v, d, key), member);
    if (!json_is_array(rows.v)) return;
    snprintf(caption, sizeof caption, "%s: %s, rule \"%s\"", what,
             utf8_fit(name, sizeof name, v->name[d]), key);
    table_open(p, caption);
    page_markup(p, "<thead><tr><th scope=\"col\">k</th>");
    for (int i = 1; i <= v->K; i++) page_markup(p, "<th scope=\"col\">i = %d</th>", i);
    page_markup(p, "</tr></thead>\n<tbody>\n");
    for (int k = 1; k <= v->K; k++) {
        page_markup(p, "<tr><th scope=\"row\">%d</th>", k);
        for (int i = 1; i <= k; i++)
            cell(p, ref_at(ref_at(rows, (size_t)k - 1), (size_t)i - 1), FIG_SHARE);
        page_markup(p, "</tr>\n");
    }
    end(p);
}

void tables_everything(Page *p, const ReportView *v) {
    static const char *const names[] = {"drafter",  "rule",
                                        "k",        "tau",
                                        "interval", "mean of prompts",
                                        "rounds",   "drafted",
                                        "accepted", "1 + accepted / rounds",
                                        "rate",     "u_k all",
                                        "gain",     "interval"};
    page_markup(p, "<details><summary>Every draft length, rule and head</summary>\n");
    table_open(p, "Counts; bonus in except drafted, accepted and rate; pooled except the mean of "
                  "prompts");
    heads(p, names, sizeof names / sizeof *names);
    for (int d = 0; d < v->drafters; d++)
        for (int n = 0; n < v->keys; n++)
            for (int k = 0; k < v->K && view_head(v, d, v->key[n]).v != NULL; k++)
                counts_row(p, v, d, v->key[n], (size_t)k);
    end(p);
    page_markup(p, "</details>\n<details><summary>Acceptance by position for every k</summary>\n");
    for (int d = 0; d < v->drafters; d++)
        for (int n = 0; n < v->keys; n++) {
            triangle(p, v, d, v->key[n], "u",
                     "u_i, share of visited rounds with at least i accepted");
            triangle(p, v, d, v->key[n], "c", "c_i = u_i / u_(i-1)");
        }
    page_markup(p, "</details>\n");
}

static void p_min_rows(Page *p, const ReportView *v, Ref o, Ref speed) {
    static const struct {
        const char *member;
        Figure kind;
    } part[] = {{"tau", FIG_TAU}, {"accepted_per_round", FIG_TAU}, {"steps_per_round", FIG_TAU}};
    const Ref list = ref_key(o, "p");
    for (size_t i = 0; i < json_array_size(list.v); i++) {
        page_markup(p, "<tr><th scope=\"row\">");
        page_figure(p, ref_at(list, i), FIG_TAU);
        page_markup(p, "</th>");
        for (int k = 0; k < v->K; k++) {
            page_markup(p, "<td>");
            for (int m = 0; m < 3; m++) {
                page_markup(p, m == 0 ? "<b>" : "<small>");
                page_figure(p, ref_at(ref_at(ref_key(o, part[m].member), i), (size_t)k),
                            part[m].kind);
                page_markup(p, m == 0 ? "</b>" : m == 1 ? " accepted</small>" : " steps</small>");
            }
            const Ref x = ref_at(ref_at(ref_key(speed, "speedup"), i), (size_t)k);
            if (json_is_number(x.v)) {
                page_markup(p, "<small>");
                page_figure(p, x, FIG_SPEED);
                page_markup(p, "</small>");
            }
            page_markup(p, "</td>");
        }
        page_markup(p, "</tr>\n");
    }
}

void tables_p_min(Page *p, const ReportView *v) {
    bool open = false;
    for (int d = 0; d < v->drafters; d++)
        for (int n = 0; n < v->keys; n++) {
            char caption[256], name[80];
            const Ref o = ref_key(ref_key(view_drafter(v, d), "p_min"), v->key[n]);
            if (!json_is_object(o.v)) continue;
            if (!open)
                page_markup(p, "<details><summary>Stopping early: p-min</summary>\n<p>A draft "
                               "round ends before a token that the drafter itself gives less "
                               "than p. In a cell: tokens per target step (bonus in), accepted "
                               "per round (bonus out), drafter steps per round, speed-up where "
                               "costs are known.</p>\n");
            open = true;
            snprintf(caption, sizeof caption, "By p-min and k: %s, rule \"%s\"",
                     utf8_fit(name, sizeof name, v->name[d]), v->key[n]);
            table_open(p, caption);
            page_markup(p, "<thead><tr><th scope=\"col\">p</th>");
            for (int k = 1; k <= v->K; k++) page_markup(p, "<th scope=\"col\">k = %d</th>", k);
            page_markup(p, "</tr></thead>\n<tbody>\n");
            p_min_rows(p, v, o, ref_key(view_recommendation(v, d, v->key[n]), "p_min"));
            end(p);
        }
    if (open) page_markup(p, "</details>\n");
}

void tables_recall(Page *p, const ReportView *v) {
    static const char *const names[] = {"drafter", "step or k", "recall at this step",
                                        "ceiling of tau at this k"};
    table_open(p, "Recall of the centroid head, and the most that it allows; bonus in");
    heads(p, names, 4);
    for (int d = 0; d < v->drafters; d++) {
        const Ref recall = ref_key(view_drafter(v, d), "recall");
        for (int k = 0; k < v->K && recall.v != NULL; k++) {
            page_markup(p, "<tr><th scope=\"row\">");
            page_text(p, v->name[d]);
            page_markup(p, "</th><td>%d</td>", k + 1);
            cell(p, ref_at(ref_key(recall, "share"), (size_t)k), FIG_SHARE);
            cell(p, ref_at(ref_key(recall, "tau_ceiling"), (size_t)k), FIG_TAU);
            page_markup(p, "</tr>\n");
        }
    }
    end(p);
}

void table_power(Page *p, const ReportView *v) {
    static const char *const names[] = {"rule", "k", "standard error of the gain",
                                        "prompts that show 1 %"};
    const Ref power = ref_key(view_ref(v, "statistics"), "power");
    if (!json_is_object(power.v)) return;
    table_open(p, "How many prompts a change needs");
    heads(p, names, 4);
    for (int n = 0; n < v->keys; n++) {
        const Ref o = ref_key(power, v->key[n]);
        for (int k = 0; k < v->K && o.v != NULL; k++) {
            page_markup(p, "<tr><th scope=\"row\">");
            page_text(p, v->key[n]);
            page_markup(p, "</th><td>%d</td>", k + 1);
            cell(p, ref_at(ref_key(o, "se_gain"), (size_t)k), FIG_PERCENT);
            cell(p, ref_at(ref_key(o, "prompts_for_1_percent"), (size_t)k), FIG_COUNT);
            page_markup(p, "</tr>\n");
        }
    }
    end(p);
}

static void speed_row(Page *p, const char *rule, Ref sweep_s, Ref live) {
    page_markup(p, "<tr><th scope=\"row\">");
    page_text(p, rule);
    page_markup(p, "</th>");
    cell(p, sweep_s, FIG_TAU);
    cell(p, ref_key(live, "live_s"), FIG_TAU);
    cell(p, ref_key(live, "ratio"), FIG_SPEED);
    page_markup(p, "</tr>\n");
}

// How much faster all draft lengths come from one sweep than from decoding live.
void table_sweep(Page *p, const ReportView *v) {
    static const char *const names[] = {"rule", "one sweep, s", "live, every k, s",
                                        "times as fast"};
    const Ref o = view_ref(v, "speed"), texts = ref_key(o, "texts");
    const char *drawn = json_string_value(ref_key(ref_at(texts, 1), "sampler").v);
    char caption[512];
    if (!json_is_object(o.v)) return;
    snprintf(caption, sizeof caption,
             "All draft lengths from one sweep (capture, drafter pass and counts of every rule), "
             "beside decoding the same prompts live, once for every k and rule, one sequence at a "
             "time%s%.64s",
             drawn != NULL ? "; drawn text: " : "", drawn != NULL ? drawn : "");
    table_open(p, caption);
    heads(p, names, 4);
    for (size_t i = 0; i < json_array_size(texts.v); i++) {
        const Ref text = ref_at(texts, i), live = ref_key(text, "live");
        for (size_t r = 0; r < json_array_size(live.v); r++)
            speed_row(p, json_string_value(ref_key(ref_at(live, r), "rule").v),
                      ref_key(text, "sweep_s"), ref_at(live, r));
    }
    speed_row(p, "all", ref_key(o, "sweep_s"), o);
    end(p);
}

void table_audit(Page *p, const ReportView *v) {
    static const char *const names[] = {"k",      "texts",        "equal",     "near ties",
                                        "rounds", "as simulated", "mismatches"};
    static const char *const members[] = {"texts",  "texts_equal", "texts_near_tie",
                                          "rounds", "equal",       "mismatches"};
    const Ref rows = ref_key(view_ref(v, "audit"), "by_k");
    if (!json_is_array(rows.v)) return;
    page_markup(p, "<details><summary>Live decoding beside the simulator</summary>\n");
    table_open(p, "The same prompts decoded live, text by text and round by round");
    heads(p, names, 7);
    for (size_t i = 0; i < json_array_size(rows.v); i++) {
        const Ref o = ref_at(rows, i);
        page_markup(p, "<tr><th scope=\"row\">");
        page_figure(p, ref_key(o, "k"), FIG_COUNT);
        page_markup(p, "</th>");
        for (int c = 0; c < 6; c++) cell(p, ref_key(o, members[c]), FIG_COUNT);
        page_markup(p, "</tr>\n");
    }
    end(p);
    page_markup(p, "</details>\n");
}

void list_texts(Page *p, Ref object) {
    const char *name;
    json_t *x;
    page_markup(p, "<dl>\n");
    json_object_foreach((json_t *)object.v, name, x) {
        if (!json_is_string(x)) continue;
        page_markup(p, "<dt>");
        page_text(p, name);
        page_markup(p, "</dt><dd>");
        page_text(p, json_string_value(x));
        page_markup(p, "</dd>\n");
    }
    page_markup(p, "</dl>\n");
}

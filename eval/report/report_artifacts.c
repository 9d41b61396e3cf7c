// eval/report/report_artifacts.c - the quant x k matrix: what drafters are stored as, beside their
// tau.
#include <stdio.h>
#include <string.h>

#include "eval/report/report_parts.h"

static void text_cell(Page *p, Ref r) {
    page_markup(p, "<td class=\"t\">");
    page_text(p, json_is_string(r.v) ? json_string_value(r.v) : "–");
    page_markup(p, "</td>");
}

static void row(Page *p, const ReportView *v, Ref a, int K, const char *reference) {
    const char *name = json_string_value(ref_key(a, "name").v);
    const Ref change = ref_at(ref_key(a, "change"), (size_t)v->select_k - 1);
    page_markup(p, "<tr><th scope=\"row\" class=\"lab\">");
    page_text(p, name != NULL ? name : "–");
    page_markup(p, "</th><td class=\"t\">");
    page_text(p, json_string_value(ref_key(a, "format").v));
    page_markup(p, " ");
    page_text(p, json_string_value(ref_key(a, "stored").v));
    page_markup(p, "</td>");
    text_cell(p, ref_key(a, "head"));
    page_markup(p, "<td>");
    page_figure(p, ref_key(a, "bits_per_weight"), FIG_TAU);
    page_markup(p, "</td><td>");
    page_figure(p, ref_key(a, "bytes"), FIG_COUNT);
    page_markup(p, "</td>");
    for (int k = 1; k <= K; k++) {
        page_markup(p, "<td%s>", k == v->select_k ? " class=\"sel\"" : "");
        page_figure(p, ref_at(ref_key(a, "tau"), (size_t)k - 1), FIG_TAU);
        page_markup(p, "</td>");
    }
    page_markup(p, "<td>");
    if (name != NULL && reference != NULL && strcmp(name, reference) != 0) {
        page_markup(p, "<b>");
        page_figure(p, change, FIG_GAIN);
        page_markup(p, "</b><small>");
        page_interval(p, ref_at(ref_key(a, "change_ci"), (size_t)v->select_k - 1), FIG_GAIN);
        page_markup(p, "</small>");
    }
    page_markup(p, "</td></tr>\n");
}

void table_artifacts(Page *p, const ReportView *v) {
    const Ref matrix = view_ref(v, "quant_matrix"), list = ref_key(matrix, "artifacts");
    const char *reference = json_string_value(ref_key(matrix, "reference").v);
    char caption[200];
    if (!json_is_array(list.v)) return;
    snprintf(caption, sizeof caption,
             "What is stored, and tau by draft length; change at k = %d beside %.60s with the same "
             "head",
             v->select_k, reference != NULL ? reference : "the first");
    table_open(p, caption);
    page_markup(p, "<thead><tr><th scope=\"col\">artifact</th><th scope=\"col\" "
                   "class=\"t\">stored as</th><th scope=\"col\" class=\"t\">head</th><th "
                   "scope=\"col\">bits / weight</th><th scope=\"col\">bytes</th>");
    for (int k = 1; k <= v->K; k++) page_markup(p, "<th scope=\"col\">%d</th>", k);
    page_markup(p, "<th scope=\"col\">change</th></tr></thead>\n<tbody class=\"flat\">\n");
    for (size_t i = 0; i < json_array_size(list.v); i++)
        row(p, v, ref_at(list, i), v->K, reference);
    page_markup(p, "</tbody>");
    table_close(p);
}

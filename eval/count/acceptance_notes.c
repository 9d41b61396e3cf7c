// eval/count/acceptance_notes.c - the Markdown tables beside those of tau: slices, p-min, recall,
// and the numbers that other tools would print.
#include "eval/count/acceptance_notes.h"

#include "eval/count/stats.h"

// One slice at draft length i + 1, deployed head, first rule.
static void slice_row(FILE *out, const char *name, const json_t *report, const json_t *s, size_t i,
                      const DrafterNames *names) {
    char shown[64];
    const char *rule = report_rule(report, 0);
    const json_int_t prompts = json_integer_value(json_object_get(s, "prompts"));
    const json_t *pairs = json_object_get(s, "pairs");
    fprintf(out, "| %s | %lld%s | %lld |", table_cell(shown, name), (long long)prompts,
            prompts < STATS_FEW_PROMPTS ? "*" : "",
            (long long)json_integer_value(json_object_get(s, "tokens")));
    for (int d = 0; d < names->n; d++) {
        const json_t *head = json_object_get(json_object_get(s, names->name[d]), rule),
                     *ci = json_array_get(json_object_get(head, "tau_ci"), i);
        fprintf(out, " %.2f |", real_at(json_object_get(head, "tau"), i));
        if (d == 0) fprintf(out, " %.2f – %.2f |", real_at(ci, 0), real_at(ci, 1));
        if (d == 0) continue;
        const json_t *pair = pairs != NULL ? json_object_get(pairs, names->name[d])
                                           : json_object_get(s, "paired"),
                     *gain = json_object_get(pair, rule),
                     *gain_ci = json_array_get(json_object_get(gain, "ci"), i);
        fprintf(out, " %+.1f %% | %+.1f – %+.1f %% |",
                100 * real_at(json_object_get(gain, "gain"), i), 100 * real_at(gain_ci, 0),
                100 * real_at(gain_ci, 1));
    }
    fputc('\n', out);
}

// By category, source, kind and context, where there is more than one of them.
void acceptance_slices(FILE *out, const json_t *report, const DrafterNames *names) {
    static const char *const groups[][2] = {{"categories", "category"},
                                            {"sources", "source"},
                                            {"kinds", "kind of token"},
                                            {"contexts", "tokens before the round"}};
    const size_t k = (size_t)json_integer_value(json_object_get(report, "select_k"));
    for (size_t g = 0; g < sizeof groups / sizeof *groups && k > 0; g++) {
        const char *name;
        json_t *slice;
        json_t *all = json_object_get(report, groups[g][0]);
        if (json_object_size(all) < 2) continue;
        fprintf(out, "\nBy %s, k = %zu, deployed head (* fewer than %d prompts)\n\n", groups[g][1],
                k, STATS_FEW_PROMPTS);
        fprintf(out, "| %s | prompts | tokens | %s | interval |", groups[g][1], names->shown[0]);
        for (int d = 1; d < names->n; d++) fprintf(out, " %s | gain | interval |", names->shown[d]);
        fputs("\n|---|---|---|---|---|", out);
        for (int d = 1; d < names->n; d++) fputs("---|---|---|", out);
        fputc('\n', out);
        json_object_foreach(all, name, slice) slice_row(out, name, report, slice, k - 1, names);
    }
}

static const json_t *of_drafter(const json_t *report, const char *drafter, const char *what) {
    return json_object_get(json_object_get(json_object_get(report, "drafters"), drafter), what);
}

// One row: a name, then tau of k = 1..K.
static void tau_row(FILE *out, const char *drafter, const char *what, const json_t *tau, size_t K) {
    fprintf(out, "| %s | %s |", drafter, what);
    for (size_t i = 0; i < K; i++) fprintf(out, " %.2f |", real_at(tau, i));
    fputc('\n', out);
}

static void tau_header(FILE *out, const char *what, size_t K) {
    fprintf(out, "\n| drafter | %s |", what);
    for (size_t i = 0; i < K; i++) fprintf(out, " k = %zu |", i + 1);
    fputs("\n|---|---|", out);
    for (size_t i = 0; i < K; i++) fputs("---|", out);
    fputc('\n', out);
}

static void p_mins(FILE *out, const json_t *report, const DrafterNames *names, size_t K) {
    const char *rule = report_rule(report, 0);
    const json_t *any = json_object_get(of_drafter(report, names->name[0], "p_min"), rule);
    if (json_array_size(json_object_get(any, "p")) == 0) return;
    fputs("\ntau with p-min (a round's drafts end before one whose most probable token has less), "
          "deployed head\n",
          out);
    tau_header(out, "p-min", K);
    for (int d = 0; d < names->n; d++) {
        const json_t *o = json_object_get(of_drafter(report, names->name[d], "p_min"), rule),
                     *p = json_object_get(o, "p");
        for (size_t i = 0; i < json_array_size(p); i++) {
            char what[32];
            snprintf(what, sizeof what, "%g", real_at(p, i));
            tau_row(out, names->shown[d], what, json_array_get(json_object_get(o, "tau"), i), K);
        }
    }
}

static void recall(FILE *out, const json_t *report, const DrafterNames *names, size_t K) {
    if (of_drafter(report, names->name[0], "recall") == NULL) return;
    fputs("\nCentroid recall: share of anchors whose teacher's best token is among what the "
          "centroid head offers at draft step k, and the tau that a perfect choice among it would "
          "give\n",
          out);
    tau_header(out, "", K);
    for (int d = 0; d < names->n; d++) {
        const json_t *o = of_drafter(report, names->name[d], "recall"),
                     *share = json_object_get(o, "share");
        if (o == NULL) continue;
        fprintf(out, "| %s | recall |", names->shown[d]);
        for (size_t i = 0; i < K; i++) fprintf(out, " %.3f |", real_at(share, i));
        fputc('\n', out);
        tau_row(out, names->shown[d], "ceiling of tau", json_object_get(o, "tau_ceiling"), K);
    }
}

static void diagnostics(FILE *out, const json_t *report, const DrafterNames *names, size_t K) {
    static const char *const forms[][2] = {{"uniform_anchors", "mean over all anchors"},
                                           {"product_of_means", "products of mean acceptances"},
                                           {"uniform_alpha", "mean products of alpha"}};
    const char *rule = report_rule(report, 0);
    if (of_drafter(report, names->name[0], "diagnostics") == NULL) return;
    fputs("\nWhat other tools would print for the same drafts, bonus in: all of them biased, the "
          "first row is what decoding gives\n",
          out);
    tau_header(out, "counted as", K);
    for (int d = 0; d < names->n; d++) {
        const json_t *o = json_object_get(of_drafter(report, names->name[d], "diagnostics"), rule);
        tau_row(out, names->shown[d], "rounds (tau)",
                report_head(report, names->name[d], rule, "tau"), K);
        for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
            tau_row(out, names->shown[d], forms[i][1], json_object_get(o, forms[i][0]), K);
    }
}

void acceptance_notes(FILE *out, const json_t *report, const DrafterNames *names) {
    const size_t K = json_array_size(json_object_get(report, "draft_tokens"));
    p_mins(out, report, names, K);
    recall(out, report, names, K);
    diagnostics(out, report, names, K);
}

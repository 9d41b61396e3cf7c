// eval/acceptance_table.c - the Markdown table of an acceptance.json object, whoever made it.
#include <string.h>

#include "eval/acceptance_json.h"
#include "infer/base/utf8.h"

static double real_at(const json_t *array, size_t i) {
    return json_number_value(json_array_get(array, i));
}

static const json_t *member(const json_t *report, const char *drafter, const char *head,
                            const char *what) {
    const json_t *d = json_object_get(json_object_get(report, "drafters"), drafter);
    return json_object_get(json_object_get(d, head), what);
}

static const json_t *paired(const json_t *report, const char *head, const char *what) {
    return json_object_get(json_object_get(json_object_get(report, "paired"), head), what);
}

static void row(FILE *out, const json_t *report, const char *head, size_t i, bool two) {
    const json_t *ci = json_array_get(member(report, "stock", head, "tau_ci"), i);
    fprintf(out, "| %zu | %.2f | %.2f – %.2f |", i + 1,
            real_at(member(report, "stock", head, "tau"), i), real_at(ci, 0), real_at(ci, 1));
    if (two) {
        const json_t *gain_ci = json_array_get(paired(report, head, "ci"), i);
        ci = json_array_get(member(report, "trained", head, "tau_ci"), i);
        fprintf(out, " %.2f | %.2f – %.2f | %+.1f %% | %+.1f – %+.1f %% |",
                real_at(member(report, "trained", head, "tau"), i), real_at(ci, 0), real_at(ci, 1),
                100 * real_at(paired(report, head, "gain"), i), 100 * real_at(gain_ci, 0),
                100 * real_at(gain_ci, 1));
    }
    fprintf(out, " %.3f |", real_at(member(report, "stock", head, "u_all"), i));
    if (two) fprintf(out, " %.3f |", real_at(member(report, "trained", head, "u_all"), i));
    fputc('\n', out);
}

static void table(FILE *out, const json_t *report, const char *head, size_t K, bool two) {
    const char *name = json_string_value(member(report, "stock", head, "head"));
    fprintf(out, "\n%s head%s\n\n", name, head[6] == '\0' ? " (deployed)" : "");
    fputs(two ? "| k | stock | interval | trained | interval | gain | interval | u_k stock | u_k "
                "trained |\n"
                "|---|---|---|---|---|---|---|---|---|\n"
              : "| k | stock | interval | u_k |\n|---|---|---|---|\n",
          out);
    for (size_t i = 0; i < K; i++) row(out, report, head, i, two);
}

// What people call their files and categories must not break the table.
static const char *cell(char out[64], const char *name) {
    utf8_fit(out, 64, name[0] ? name : "(none)");
    for (char *p = out; (p = strchr(p, '|')) != NULL;) *p = '/';
    return out;
}

// One slice at draft length i + 1, deployed head.
static void slice_row(FILE *out, const char *name, const json_t *s, size_t i, bool two) {
    char shown[64];
    const json_int_t prompts = json_integer_value(json_object_get(s, "prompts"));
    const json_t *stock = json_object_get(json_object_get(s, "stock"), "greedy"),
                 *ci = json_array_get(json_object_get(stock, "tau_ci"), i);
    fprintf(out, "| %s | %lld%s | %lld | %.2f | %.2f – %.2f |", cell(shown, name),
            (long long)prompts, prompts < STATS_FEW_PROMPTS ? "*" : "",
            (long long)json_integer_value(json_object_get(s, "tokens")),
            real_at(json_object_get(stock, "tau"), i), real_at(ci, 0), real_at(ci, 1));
    if (two) {
        const json_t *trained = json_object_get(json_object_get(s, "trained"), "greedy"),
                     *gain = json_object_get(json_object_get(s, "paired"), "greedy"),
                     *gain_ci = json_array_get(json_object_get(gain, "ci"), i);
        fprintf(out, " %.2f | %+.1f %% | %+.1f – %+.1f %% |",
                real_at(json_object_get(trained, "tau"), i),
                100 * real_at(json_object_get(gain, "gain"), i), 100 * real_at(gain_ci, 0),
                100 * real_at(gain_ci, 1));
    }
    fputc('\n', out);
}

// By category, source and kind, where there is more than one of them.
static void slices(FILE *out, const json_t *report, bool two) {
    static const char *const groups[][2] = {
        {"categories", "category"}, {"sources", "source"}, {"kinds", "kind of token"}};
    const size_t k = (size_t)json_integer_value(json_object_get(report, "select_k"));
    for (size_t g = 0; g < 3 && k > 0; g++) {
        const char *name;
        json_t *slice;
        json_t *all = json_object_get(report, groups[g][0]);
        if (json_object_size(all) < 2) continue;
        fprintf(out, "\nBy %s, k = %zu, deployed head (* fewer than %d prompts)\n\n", groups[g][1],
                k, STATS_FEW_PROMPTS);
        fprintf(out, "| %s | prompts | tokens | stock | interval |%s\n|---|---|---|---|---|%s\n",
                groups[g][1], two ? " trained | gain | interval |" : "", two ? "---|---|---|" : "");
        json_object_foreach(all, name, slice) slice_row(out, name, slice, k - 1, two);
    }
}

void acceptance_markdown(FILE *out, const json_t *report) {
    const size_t K = json_array_size(json_object_get(report, "draft_tokens"));
    const bool two = json_object_get(json_object_get(report, "drafters"), "trained") != NULL;
    const json_t *boot = json_object_get(report, "bootstrap");
    const json_int_t prompts = json_integer_value(json_object_get(report, "prompts"));
    fprintf(out,
            "Tokens per target step on %lld prompts (%lld tokens, text: %s), greedy drafts, bonus "
            "in (ceiling "
            "k + 1), pooled; %.0f %% intervals: %sbootstrap over prompts. u_k: share of all "
            "anchors whose first k "
            "drafts match. Drafter dtype %s.\n",
            (long long)prompts, (long long)json_integer_value(json_object_get(report, "tokens")),
            json_string_value(json_object_get(report, "sampler")),
            100 * json_number_value(json_object_get(boot, "confidence")), two ? "paired " : "",
            json_string_value(json_object_get(
                json_object_get(json_object_get(report, "drafters"), "stock"), "dtype")));
    table(out, report, "greedy", K, two);
    if (member(report, "stock", "greedy_dense", "tau") != NULL)
        table(out, report, "greedy_dense", K, two);
    slices(out, report, two);
    if (prompts < STATS_FEW_PROMPTS)
        fprintf(out, "\nOnly %lld prompts: below %d an interval is not to be trusted.\n",
                (long long)prompts, STATS_FEW_PROMPTS);
}

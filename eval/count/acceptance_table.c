// eval/count/acceptance_table.c - the Markdown tables of tau by draft length of an acceptance.json
// object, whoever made it.
#include <string.h>

#include "eval/count/acceptance_json.h"
#include "eval/count/acceptance_notes.h"
#include "eval/count/acceptance_read.h"
#include "eval/count/quantmatrix.h"

// Gain of a drafter over the first one; files of one pair hold it as "paired".
static const json_t *gain_of(const json_t *report, const char *drafter, const char *key,
                             const char *what) {
    const json_t *pairs = json_object_get(report, "pairs"),
                 *pair = pairs != NULL ? json_object_get(pairs, drafter)
                                       : json_object_get(report, "paired");
    return json_object_get(json_object_get(pair, key), what);
}

static void print_interval(FILE *out, const json_t *ci, double scale, const char *form) {
    fprintf(out, form, scale * real_at(ci, 0), scale * real_at(ci, 1));
}

// Stock, and one drafter beside it.
static void pair_row(FILE *out, const json_t *report, const DrafterNames *names, const char *key,
                     size_t i) {
    const char *stock = names->name[0], *other = names->n > 1 ? names->name[1] : NULL;
    fprintf(out, "| %zu | %.2f |", i + 1, real_at(report_head(report, stock, key, "tau"), i));
    print_interval(out, json_array_get(report_head(report, stock, key, "tau_ci"), i), 1,
                   " %.2f – %.2f |");
    if (other) {
        fprintf(out, " %.2f |", real_at(report_head(report, other, key, "tau"), i));
        print_interval(out, json_array_get(report_head(report, other, key, "tau_ci"), i), 1,
                       " %.2f – %.2f |");
        fprintf(out, " %+.1f %% |", 100 * real_at(gain_of(report, other, key, "gain"), i));
        print_interval(out, json_array_get(gain_of(report, other, key, "ci"), i), 100,
                       " %+.1f – %+.1f %% |");
    }
    for (int d = 0; d < names->n; d++)
        fprintf(out, " %.3f |", real_at(report_head(report, names->name[d], key, "u_all"), i));
    fputc('\n', out);
}

static void pair_table(FILE *out, const json_t *report, const DrafterNames *names, const char *key,
                       size_t K) {
    const char *stock = names->shown[0], *other = names->n > 1 ? names->shown[1] : NULL;
    if (other)
        fprintf(out,
                "| k | %s | interval | %s | interval | gain | interval | u_k %s | u_k %s |\n"
                "|---|---|---|---|---|---|---|---|---|\n",
                stock, other, stock, other);
    else
        fprintf(out, "| k | %s | interval | u_k |\n|---|---|---|---|\n", stock);
    for (size_t i = 0; i < K; i++) pair_row(out, report, names, key, i);
}

// Many drafters: tau, then the gains over the first.
static void matrix(FILE *out, const json_t *report, const DrafterNames *names, const char *key,
                   size_t K) {
    fprintf(out, "| k |");
    for (int d = 0; d < names->n; d++) fprintf(out, " %s |", names->shown[d]);
    for (int d = 1; d < names->n; d++) fprintf(out, " %s: gain, interval |", names->shown[d]);
    fprintf(out, "\n|---|");
    for (int d = 0; d < 2 * names->n - 1; d++) fprintf(out, "---|");
    for (size_t i = 0; i < K; i++) {
        fprintf(out, "\n| %zu |", i + 1);
        for (int d = 0; d < names->n; d++)
            fprintf(out, " %.2f |", real_at(report_head(report, names->name[d], key, "tau"), i));
        for (int d = 1; d < names->n; d++) {
            fprintf(out, " %+.1f %%",
                    100 * real_at(gain_of(report, names->name[d], key, "gain"), i));
            print_interval(out, json_array_get(gain_of(report, names->name[d], key, "ci"), i), 100,
                           ", %+.1f – %+.1f %% |");
        }
    }
    fputc('\n', out);
}

// Those of the drafters that were measured by this rule and head.
static DrafterNames measured_by(const json_t *report, const DrafterNames *names, const char *key) {
    DrafterNames some = {0};
    for (int d = 0; d < names->n; d++) {
        if (report_head(report, names->name[d], key, "tau") == NULL) continue;
        some.name[some.n] = names->name[d];
        memcpy(some.shown[some.n++], names->shown[d], sizeof some.shown[0]);
    }
    return some;
}

// Who deploys another head than the table's first drafter (a GGUF file has no centroids).
static void other_heads(FILE *out, const json_t *report, const DrafterNames *names, const char *key,
                        const char *head) {
    bool any = false;
    for (int d = 1; d < names->n; d++) {
        const char *own = json_string_value(report_head(report, names->name[d], key, "head"));
        if (own == NULL || strcmp(own, head) == 0) continue;
        fprintf(out, "%s%s", any ? ", " : "; the dense head: ", names->shown[d]);
        any = true;
    }
}

static void tables(FILE *out, const json_t *report, const DrafterNames *names, size_t K) {
    for (size_t r = 0; report_rule(report, r) != NULL; r++)
        for (int dense = 0; dense < 2; dense++) {
            char key[64];
            snprintf(key, sizeof key, "%s%s", report_rule(report, r), dense ? "_dense" : "");
            const char *head = json_string_value(report_head(report, names->name[0], key, "head"));
            if (head == NULL) continue;
            fprintf(out, "\n%s head%s", head, dense ? "" : " (deployed)");
            if (strcmp(report_rule(report, r), "greedy") != 0)
                fprintf(out, ", rule: %s", report_rule(report, r));
            other_heads(out, report, names, key, head);
            fputs("\n\n", out);
            const DrafterNames some = measured_by(report, names, key);
            (some.n > 2 ? matrix : pair_table)(out, report, &some, key, K);
        }
}

// What the intervals can show, and that there are several of them.
static void statistics(FILE *out, const json_t *report) {
    const json_t *all = json_object_get(report, "statistics"),
                 *power = json_object_get(json_object_get(all, "power"), report_rule(report, 0));
    const char *several = json_string_value(json_object_get(all, "multiplicity"));
    const size_t k = (size_t)json_integer_value(json_object_get(report, "select_k"));
    const double n = real_at(json_object_get(power, "prompts_for_1_percent"), k - 1);
    if (several != NULL) fprintf(out, "\n%s\n", several);
    if (k > 0 && n > 0)
        fprintf(out,
                "A change of 1 %% at k = %zu shows on %.0f prompts like these (80 %% power).\n", k,
                n);
}

void acceptance_markdown(FILE *out, const json_t *report, bool detailed) {
    const size_t K = json_array_size(json_object_get(report, "draft_tokens"));
    const json_t *boot = json_object_get(report, "bootstrap");
    const json_int_t prompts = json_integer_value(json_object_get(report, "prompts"));
    DrafterNames names;
    drafter_names(&names, report);
    if (names.n == 0) return;
    const bool greedy = strcmp(report_rule(report, 0), "greedy") == 0;
    fprintf(out,
            "Tokens per target step on %lld prompts (%lld tokens, text: %s), %s, bonus in (ceiling "
            "k + 1), pooled; %.0f %% intervals: %sbootstrap over prompts. u_k: share of all "
            "anchors whose first k drafts %s. Drafter dtype %s.\n",
            (long long)prompts, (long long)json_integer_value(json_object_get(report, "tokens")),
            json_string_value(json_object_get(report, "sampler")),
            greedy ? "greedy drafts" : "expected over the drafter's draws and coins",
            100 * json_number_value(json_object_get(boot, "confidence")),
            names.n > 1 ? "paired " : "", greedy ? "match" : "stand",
            json_string_value(json_object_get(
                json_object_get(json_object_get(report, "drafters"), names.name[0]), "dtype")));
    tables(out, report, &names, K);
    if (json_object_get(report, "quant_matrix") != NULL)
        quantmatrix_markdown(out, json_object_get(report, "quant_matrix"));
    acceptance_slices(out, report, &names);
    statistics(out, report);
    if (detailed) acceptance_notes(out, report, &names);
    if (prompts < STATS_FEW_PROMPTS)
        fprintf(out, "\nOnly %lld prompts: below %d an interval is not to be trusted.\n",
                (long long)prompts, STATS_FEW_PROMPTS);
}

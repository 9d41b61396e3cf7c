// eval/report/report_mtplx.c - mtplx.json: accepted + rejected = drafted, and sums by depth are the
// totals, because all of them come from the same counts. A round drafts k tokens, past the end too.
#include <math.h>
#include <string.h>

#include "eval/report/report_export.h"
#include "infer/base/json.h"

static json_t *count_of(double x) { // whole counts stay whole
    return x == floor(x) && fabs(x) < 9e15 ? json_integer((json_int_t)x) : json_real(x);
}

static void put(json_t *o, const char *key, double x) {
    if (!isnan(x)) json_object_set_new(o, key, count_of(x)); // not counted: left out
}

static void put_rate(json_t *o, const char *key, double x) {
    if (!isnan(x)) json_object_set_new(o, key, json_real(x));
}

static double at(Ref o, const char *member, size_t i) {
    return ref_number(ref_at(ref_key(o, member), i));
}

static void put_counts(json_t *o, double rounds, double drafted, double accepted) {
    put(o, "verify_calls", rounds);
    put(o, "drafted_tokens", drafted);
    put(o, "accepted_drafts", accepted);
    put(o, "rejected_drafts", drafted - accepted);
    if (!(rounds > 0) || !(drafted > 0)) return;
    put_rate(o, "acceptance_rate", accepted / drafted);
    put_rate(o, "mean_accepted_drafts_per_cycle", accepted / rounds);
}

static void put_depths(json_t *o, Ref accepted, double rounds, int k) {
    if (json_array_size(accepted.v) < (size_t)k) return;
    json_t *got = json_array(), *drafted = json_array(), *rate = json_array();
    for (int i = 0; i < k; i++) {
        const double x = ref_number(ref_at(accepted, (size_t)i));
        json_array_append(got, json_array_get(accepted.v, (size_t)i));
        json_array_append_new(drafted, count_of(rounds));
        json_array_append_new(rate, json_real(rounds > 0 ? x / rounds : 0.0));
    }
    json_object_set_new(o, "accepted_by_depth", got);
    json_object_set_new(o, "drafted_by_depth", drafted);
    json_object_set_new(o, "acceptance_by_depth", rate);
}

static json_t *summary(const ReportView *v, Ref head, int k) {
    const size_t i = (size_t)k - 1;
    const double rounds = at(head, "num_drafts", i);
    json_t *o = json_object();
    put(o, "prompts", ref_number(view_ref(v, "prompts")));
    put(o, "generated_tokens", ref_number(view_ref(v, "tokens")));
    static const char *const timed[] = {"mean_tok_s", "mean_ar_tok_s", "mean_speedup_vs_ar"};
    for (int t = 0; t < 3; t++) json_object_set_new(o, timed[t], json_null());
    put_counts(o, rounds, at(head, "num_draft_tokens", i), at(head, "num_accepted_tokens", i));
    put_depths(o, ref_at(ref_key(head, "accepted_by_position"), i), rounds, k);
    put_rate(o, "tokens_per_target_step", at(head, "tau", i));
    return o;
}

static json_t *rows(const ReportView *v, int d, const char *key, int k) {
    json_t *list = json_array();
    const Ref counts = view_ref(v, "prompt_counts"), id = ref_key(counts, "id"),
              category = ref_key(counts, "category"),
              of = ref_key(ref_key(ref_key(counts, "drafters"), v->name[d]), key);
    const size_t at_k = (size_t)k - 1;
    for (size_t i = 0; of.v != NULL && i < json_array_size(id.v); i++) {
        const char *name = json_string_value(ref_at(id, i).v),
                   *kind = json_string_value(ref_at(category, i).v);
        json_t *o = json_object();
        json_object_set_new(o, "prompt_id", json_string(name != NULL ? name : ""));
        if (kind != NULL) json_object_set_new(o, "category", json_string(kind));
        const double rounds = ref_number(ref_at(ref_at(ref_key(of, "rounds"), i), at_k));
        put(o, "generated_tokens", ref_number(ref_at(ref_at(ref_key(of, "tokens"), i), at_k)));
        put(o, "verify_calls", rounds);
        put(o, "drafted_tokens", rounds * k);
        json_array_append_new(list, o);
    }
    return list;
}

// rows_at: the depth whose prompts are listed, 0 = none.
static json_t *depths(const ReportView *v, int d, const char *key, int rows_at) {
    json_t *list = json_array();
    const Ref head = view_head(v, d, key);
    for (int k = 1; k <= v->K; k++)
        json_array_append_new(list,
                              json_pack("{si si so so}", "depth", k, "block_size", k + 1, "rows",
                                        k == rows_at ? rows(v, d, key, k) : json_array(), "summary",
                                        summary(v, head, k)));
    return list;
}

static json_t *series(const ReportView *v) {
    json_t *list = json_array();
    for (int d = 0; d < v->drafters; d++)
        for (int n = 0; n < v->keys; n++) {
            if (view_head(v, d, v->key[n]).v == NULL) continue;
            json_array_append_new(list,
                                  json_pack("{ss ss so}", "drafter", v->name[d], "acceptance_rule",
                                            v->key[n], "depths", depths(v, d, v->key[n], 0)));
        }
    return list;
}

// MTPLX accepts while the target's sample equals the draft: on sampled text that is "strict".
static const char *rule_of(const ReportView *v) {
    for (int n = 0; n < v->keys; n++)
        if (!strcmp(v->key[n], "strict") && view_head(v, v->leader, v->key[n]).v != NULL)
            return v->key[n];
    return v->key[0];
}

bool report_mtplx(const ReportView *v, const char *dir, Err *err) {
    char path[PATH_ROOM];
    const char *key = rule_of(v);
    json_t *o = json_pack(
        "{ss ss ss ss so s{so} so s[sss]}", "engine", "draftsmith simulator", "drafter",
        v->name[v->leader], "acceptance_rule", key, "text_sampler", view_sampler(v), "depths",
        depths(v, v->leader, key, v->select_k), "ar", "rows", json_array(), "series", series(v),
        "notes",
        "Counted by simulation on the target's own text, not run in MTPLX: every time (tok_s, "
        "elapsed_s, verify_time_s, draft_time_s, speedup_vs_ar) and peak memory is null or left "
        "out.",
        "depth k drafts k tokens a cycle: draft_block_size k + 1. drafted counts k a cycle, past "
        "the end of the text too; accepted counts drafts inside the text. On sampled text counts "
        "are expected values.",
        "Rows by prompt are listed at the selected depth only; what they accepted is not kept by "
        "prompt.");
    if (o == NULL) return err_set(err, ERR_FAILED, "%s/mtplx.json: out of memory", dir);
    const bool ok = json_write_file(path_join(path, dir, "mtplx.json"), o, err);
    json_decref(o);
    return ok;
}

// eval/report/report_view.c - which drafters, rules and draft lengths an acceptance.json object
// holds.
#include "eval/report/report_view.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool lengths(ReportView *v, Err *err) {
    const json_t *list = json_object_get(v->root, "draft_tokens");
    const size_t n = json_array_size(list);
    if (n < 1 || n > DRAFT_MAX)
        return err_set(err, ERR_INPUT, "\"draft_tokens\" has %zu entries, expected 1 to %d", n,
                       (int)DRAFT_MAX);
    for (size_t i = 0; i < n; i++) {
        const json_int_t k = json_integer_value(json_array_get(list, i));
        if (k != (json_int_t)i + 1)
            return err_set(err, ERR_INPUT, "\"draft_tokens\" entry %zu is %lld, expected %zu", i,
                           (long long)k, i + 1);
    }
    v->K = (int)n;
    const json_int_t k = json_integer_value(json_object_get(v->root, "select_k"));
    v->select_k = k >= 1 && k <= v->K ? (int)k : v->K;
    return true;
}

static bool names(ReportView *v, Err *err) {
    json_t *all = json_object_get(v->root, "drafters"), *d;
    const char *name;
    json_object_foreach(all, name, d) {
        if (v->drafters == VIEW_DRAFTERS)
            return err_set(err, ERR_INPUT, "more than %d drafters", (int)VIEW_DRAFTERS);
        v->name[v->drafters++] = name;
    }
    return v->drafters > 0 || err_set(err, ERR_INPUT, "no \"drafters\" in it");
}

bool view_has(const ReportView *v, const char *key) {
    for (int d = 0; d < v->drafters; d++)
        if (json_is_array(ref_key(view_head(v, d, key), "tau").v)) return true;
    return false;
}

static void add_key(ReportView *v, const char *key) {
    if (v->keys < VIEW_KEYS && view_has(v, key))
        snprintf(v->key[v->keys++], sizeof v->key[0], "%s", key);
}

static bool rules(ReportView *v, Err *err) {
    const json_t *list = json_object_get(v->root, "rules");
    const size_t n = list != NULL ? json_array_size(list) : 1;
    for (int dense = 0; dense < 2; dense++)
        for (size_t i = 0; i < n; i++) {
            const char *rule = list != NULL ? json_string_value(json_array_get(list, i)) : "greedy";
            char key[48];
            if (rule == NULL || strlen(rule) > 40)
                return err_set(err, ERR_INPUT, "\"rules\" entry %zu is not the name of a rule", i);
            snprintf(key, sizeof key, "%s%s", rule, dense ? "_dense" : "");
            add_key(v, key);
        }
    return v->keys > 0 || err_set(err, ERR_INPUT, "no drafter holds \"tau\" by a rule");
}

bool report_view(ReportView *v, const json_t *acceptance, Err *err) {
    *v = (ReportView){.root = acceptance};
    if (!lengths(v, err) || !names(v, err) || !rules(v, err)) return false;
    double best = -INFINITY;
    for (int d = 1; d < v->drafters; d++) {
        const Ref tau = ref_key(view_head(v, d, v->key[0]), "tau");
        const double x = ref_number(ref_at(tau, (size_t)v->select_k - 1));
        if (!(x > best)) continue;
        best = x;
        v->leader = d;
    }
    return true;
}

Ref view_ref(const ReportView *v, const char *member) {
    return ref_key(ref_root(v->root), member);
}

Ref view_drafter(const ReportView *v, int d) {
    return ref_key(view_ref(v, "drafters"), v->name[d]);
}

Ref view_head(const ReportView *v, int d, const char *key) {
    return ref_key(view_drafter(v, d), key);
}

Ref view_pair(const ReportView *v, const Ref *slice, int d, const char *key) {
    const Ref where = slice != NULL ? *slice : ref_root(v->root);
    const Ref pair = ref_key(ref_key(ref_key(where, "pairs"), v->name[d]), key);
    if (pair.v != NULL || strcmp(v->name[d], "trained") != 0) return pair;
    return ref_key(ref_key(where, "paired"), key);
}

Ref view_recommendation(const ReportView *v, int d, const char *key) {
    return ref_key(ref_key(view_ref(v, "recommendation"), v->name[d]), key);
}

const char *view_sampler(const ReportView *v) {
    const char *s = json_string_value(json_object_get(v->root, "sampler"));
    return s != NULL ? s : "unknown";
}

double view_confidence(const ReportView *v) {
    const double c = ref_number(ref_key(view_ref(v, "bootstrap"), "confidence"));
    return c > 0 && c < 1 ? c : 0.95;
}

int64_t view_prompts(const ReportView *v) {
    return json_integer_value(json_object_get(v->root, "prompts"));
}

// Characters of the rule in a key.
static int rule_of(const char *key) {
    const size_t n = strlen(key);
    return (int)(n > 6 && !strcmp(key + n - 6, "_dense") ? n - 6 : n);
}

void view_key_short(char out[80], const char *key) {
    const int rule = rule_of(key);
    snprintf(out, 80, "%.*s%s", rule, key, key[rule] != '\0' ? ", dense head" : "");
}

void view_key_words(char out[160], const ReportView *v, int d, const char *key) {
    static const char *const words[][2] = {
        {"greedy", "greedy drafts on the target's greedy text"},
        {"rejection", "exact rejection sampling"},
        {"best", "the drafter's best token against the target's sample"},
        {"strict", "the drafter's sample against the target's own sample"}};
    const int rule = rule_of(key);
    const bool dense = key[rule] != '\0';
    const char *head = json_string_value(ref_key(view_head(v, d, key), "head").v);
    char name[48];
    snprintf(name, sizeof name, "%.*s", rule, key);
    const char *said = name;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(name, words[i][0])) said = words[i][1];
    if (dense) head = "dense";
    snprintf(out, 160, "%s, %.20s head%s", said, head != NULL ? head : "deployed",
             !dense && head != NULL && !strcmp(head, "centroid") ? " (deployed)" : "");
}

// eval/cost/recommend.c - the best draft length of a device.
#include "eval/cost/recommend.h"

#include <math.h>

#include "infer/base/json.h"

void recommend(Recommendation *out, const CostTable *c, Head head, const RoundMix *mix, int K) {
    CHECK(K >= 1 && K <= DRAFT_MAX);
    *out = (Recommendation){.head = head, .K = K, .limit = cost_limit(c, head)};
    if (out->limit > K) out->limit = K;
    out->plain_tokens_per_s = c->target_ms[1] > 0.0 ? 1e3 / c->target_ms[1] : NAN;
    out->best_k = out->best_p_k = out->limit > 0 ? 0 : -1;
    out->best_speedup = out->best_p_speedup = out->limit > 0 ? 1.0 : NAN;
    for (int k = 1; k <= K; k++) {
        const RoundMix *m = &mix[k - 1];
        const double cost = cost_round(c, head, m), speedup = m->tokens / cost;
        out->tau[k] = m->tokens;
        out->speedup[k] = speedup;
        out->tokens_per_s[k] = speedup * out->plain_tokens_per_s;
        out->break_even_tau[k] = cost;
        out->break_even_rate[k] = fmax(0.0, cost - 1.0) / k;
        if (isnan(cost)) out->break_even_rate[k] = NAN; // fmax drops it
        if (!(speedup > out->best_speedup)) continue;
        out->best_k = out->best_p_k = k;
        out->best_speedup = out->best_p_speedup = speedup;
    }
}

void recommend_p_min(Recommendation *r, const CostTable *c, const double *p, int np,
                     const RoundMix *mix) {
    CHECK(np >= 0 && np <= RECOMMEND_P_MAX && r->np == 0);
    r->np = np;
    for (int i = 0; i < np; i++) {
        r->p[i] = p[i];
        for (int k = 1; k <= r->K; k++) {
            const RoundMix *m = &mix[i * r->K + k - 1];
            const double speedup = m->tokens / cost_round(c, r->head, m);
            r->p_speedup[i][k] = speedup;
            if (!(speedup > r->best_p_speedup)) continue;
            r->best_p = p[i];
            r->best_p_k = k;
            r->best_p_speedup = speedup;
        }
    }
}

static json_t *known(double x) {
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *by_k(const double *from, int K) {
    json_t *a = json_array();
    for (int k = 1; k <= K; k++) json_array_append_new(a, known(from[k]));
    return a;
}

static json_t *length(int k) {
    return k >= 0 ? json_integer(k) : json_null();
}

// Published ratios say nothing about rounds that p-min cut short.
static bool has_priced(const Recommendation *r) {
    for (int i = 0; i < r->np; i++)
        for (int k = 1; r->p[i] > 0.0 && k <= r->K; k++)
            if (isfinite(r->p_speedup[i][k])) return true;
    return false;
}

static void add_p_min(json_t *o, const Recommendation *r) {
    json_t *p = json_array(), *speedup = json_array();
    for (int i = 0; i < r->np; i++) {
        json_array_append_new(p, json_real(r->p[i]));
        json_array_append_new(speedup, by_k(r->p_speedup[i], r->K));
    }
    json_object_set_new(o, "p_min", json_pack("{so so}", "p", p, "speedup", speedup));
    json_object_set_new(o, "best_p_min",
                        !has_priced(r)
                            ? json_null()
                            : json_pack("{so so so}", "p", json_real(r->best_p), "k",
                                        length(r->best_p_k), "speedup", known(r->best_p_speedup)));
}

json_t *recommendation_json(const Recommendation *r) {
    json_t *o = json_object();
    json_object_set_new(o, "head", json_string(cost_head_name(r->head)));
    json_object_set_new(o, "tau", by_k(r->tau, r->K));
    json_object_set_new(o, "speedup", by_k(r->speedup, r->K));
    json_object_set_new(o, "tokens_per_s", by_k(r->tokens_per_s, r->K));
    json_object_set_new(o, "plain_tokens_per_s", known(r->plain_tokens_per_s));
    json_object_set_new(o, "break_even_tau", by_k(r->break_even_tau, r->K));
    json_object_set_new(o, "break_even_rate", by_k(r->break_even_rate, r->K));
    json_object_set_new(o, "best_k", length(r->best_k));
    json_object_set_new(o, "best_speedup", known(r->best_speedup));
    if (r->limit < r->K) json_object_set_new(o, "limit_k", json_integer(r->limit));
    if (r->np > 0) add_p_min(o, r);
    return o;
}

static void cell(FILE *out, const json_t *o, const char *key, size_t i, int decimals) {
    const json_t *v = json_array_get(json_object_get(o, key), i);
    if (json_is_number(v))
        fprintf(out, " %.*f |", decimals, json_number_value(v));
    else
        fputs(" – |", out);
}

static void table(FILE *out, const json_t *o) {
    fputs("| k | tokens a step | break-even | rate there | speed-up | tokens/s |\n"
          "|---|---|---|---|---|---|\n",
          out);
    const json_t *plain = json_object_get(o, "plain_tokens_per_s");
    fputs("| 0 | 1.00 | – | – | 1.00 |", out);
    if (json_is_number(plain))
        fprintf(out, " %.1f |\n", json_number_value(plain));
    else
        fputs(" – |\n", out);
    for (size_t i = 0; i < json_array_size(json_object_get(o, "speedup")); i++) {
        fprintf(out, "| %zu |", i + 1);
        cell(out, o, "tau", i, 2);
        cell(out, o, "break_even_tau", i, 2);
        cell(out, o, "break_even_rate", i, 3);
        cell(out, o, "speedup", i, 2);
        cell(out, o, "tokens_per_s", i, 1);
        fputc('\n', out);
    }
}

// The same choice in the words of other runtimes. MTPLX counts the target's token, and takes blocks
// of 2 to 8.
static void elsewhere(FILE *out, int k, double p) {
    fprintf(out,
            "As settings: num_assistant_tokens = %d (transformers), num_speculative_tokens = %d "
            "(vLLM), "
            "--draft-block-size %d (mlx-vlm), block size %d (MTPLX%s), --spec-draft-n-max %d "
            "--spec-draft-p-min %g (llama.cpp), --spec-type mtp:n_max=%d,p_min=%g (ik_llama.cpp; "
            "before: --draft-max %d --draft-p-min %g).\n",
            k, k, k + 1, k + 1, k + 1 > 8 ? ": 8 at most" : "", k, p, k, p, k, p);
}

static void verdict(FILE *out, const json_t *o) {
    const json_t *best = json_object_get(o, "best_k"), *p_min = json_object_get(o, "best_p_min"),
                 *limit = json_object_get(o, "limit_k");
    if (!json_is_integer(best)) {
        fprintf(out, "The cost table has no round for the %s head: no recommendation.\n",
                json_string_value(json_object_get(o, "head")));
        return;
    }
    int k = (int)json_integer_value(best);
    double p = 0.0;
    if (k == 0)
        fputs("Best constant k: 0. No draft length beats plain decoding here.\n", out);
    else
        fprintf(out, "Best constant k: %d, speed-up %.2f.\n", k,
                json_number_value(json_object_get(o, "best_speedup")));
    if (json_number_value(json_object_get(p_min, "p")) > 0.0) {
        k = (int)json_integer_value(json_object_get(p_min, "k"));
        p = json_number_value(json_object_get(p_min, "p"));
        fprintf(out, "Best p-min: %g at k = %d, speed-up %.2f.\n", p, k,
                json_number_value(json_object_get(p_min, "speedup")));
    } else if (p_min != NULL) {
        fputs(json_is_null(p_min) ? "The cost table cannot price rounds that p-min cuts short.\n"
                                  : "No p-min does better.\n",
              out);
    }
    if (limit != NULL)
        fprintf(out, "The cost table ends at k = %d: longer drafts were not considered.\n",
                (int)json_integer_value(limit));
    if (k > 0) elsewhere(out, k, p);
}

void recommendation_markdown(FILE *out, const char *what, const json_t *recommendation,
                             bool detailed) {
    fprintf(out, "\nSpeed: %s, %s head\n\n", what,
            json_string_value(json_object_get(recommendation, "head")));
    if (detailed) {
        table(out, recommendation);
        fputc('\n', out);
    }
    verdict(out, recommendation);
}

bool recommendations_markdown(FILE *out, const json_t *report, bool detailed, Err *err) {
    CostTable costs;
    const char *name;
    json_t *rules, *all = json_object_get(report, "recommendation");
    const char *rule = json_string_value(json_array_get(json_object_get(report, "rules"), 0));
    if (!json_is_object(all) || rule == NULL) return true;
    if (!cost_from_json(&costs, report, "acceptance.json", err)) return false;
    if (detailed) cost_markdown(out, &costs);
    json_object_foreach(all, name, rules) {
        char what[192];
        snprintf(what, sizeof what, "%.80s, %.20s, on %.80s", name, rule, costs.device);
        const json_t *one = json_object_get(rules, rule);
        if (one != NULL) recommendation_markdown(out, what, one, detailed);
    }
    return true;
}

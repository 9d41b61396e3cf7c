// tests/eval/report/report_made.h - acceptance.json objects with every part of the schema, from
// counts by prompt that are known.
#ifndef TESTS_REPORT_MADE_H
#define TESTS_REPORT_MADE_H

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "tests/testing.h"

enum { MADE_K = 4, MADE_PROMPTS = 6 };
#define MADE_EVIL "<script>evil='x'</script>&\"q\""

// Rounds of prompt i at draft length k by a drafter of the given quality; tokens are 24 + i.
static inline int made_rounds(int quality, int i, int k) {
    return 24 + i - (k * quality + i * (k > 2)) / 2;
}

static inline int made_sum(int quality, int k) {
    int n = 0;
    for (int i = 0; i < MADE_PROMPTS; i++) n += made_rounds(quality, i, k);
    return n;
}

enum { MADE_TOKENS = 24 * MADE_PROMPTS + MADE_PROMPTS * (MADE_PROMPTS - 1) / 2 };

// f(k) of k = 1..K as an array.
#define MADE_ARRAY(K, expression)                                                                  \
    ({                                                                                             \
        json_t *list_ = json_array();                                                              \
        for (int k = 1; k <= (K); k++) json_array_append_new(list_, expression);                   \
        list_;                                                                                     \
    })

static inline json_t *made_interval(double x) {
    return json_pack("[ff]", 0.97 * x - 0.001, 1.04 * x + 0.001);
}

static inline json_t *made_u(int k, double first) {
    json_t *u = json_array();
    for (int i = 0; i < k; i++) json_array_append_new(u, json_real(first / (1 + i)));
    return u;
}

// Accepted by position that add up to `accepted`, never rising.
static inline json_t *made_positions(int k, int accepted) {
    json_t *n = json_array();
    for (int i = 0; i < k; i++) {
        const int here = accepted / (k - i) + (accepted % (k - i) > 0);
        json_array_append_new(n, json_integer(here));
        accepted -= here;
    }
    return n;
}

static inline json_t *made_head(int quality, const char *head) {
    json_t *o = json_pack("{ss}", "head", head);
#define PUT(name, expression) json_object_set_new(o, name, MADE_ARRAY(MADE_K, expression))
    PUT("tau", json_real((double)MADE_TOKENS / made_sum(quality, k)));
    PUT("tau_ci", made_interval((double)MADE_TOKENS / made_sum(quality, k)));
    PUT("u", made_u(k, 0.5 + 0.07 * quality));
    PUT("c", made_u(k, 0.55 + 0.07 * quality));
    PUT("tau_prompt_mean", json_real(1.2345 + 0.1 * k));
    PUT("num_drafts", json_integer(made_sum(quality, k)));
    PUT("num_draft_tokens", json_integer(k * made_sum(quality, k)));
    PUT("num_accepted_tokens", json_integer(MADE_TOKENS - made_sum(quality, k)));
    PUT("acceptance_length", json_real((double)MADE_TOKENS / made_sum(quality, k)));
    PUT("acceptance_rate",
        json_real((double)(MADE_TOKENS - made_sum(quality, k)) / (k * made_sum(quality, k))));
    PUT("u_all", json_real(0.8131 / k));
    PUT("accepted_by_position", made_positions(k, MADE_TOKENS - made_sum(quality, k)));
#undef PUT
    return o;
}

static inline json_t *made_pair(double gain) {
    json_t *o = json_object();
    json_object_set_new(o, "gain", MADE_ARRAY(MADE_K, json_real(gain / k)));
    json_object_set_new(o, "ci", MADE_ARRAY(MADE_K, made_interval(gain / k)));
    return o;
}

static inline json_t *made_prompt_counts(int quality) {
    json_t *rounds = json_array(), *tokens = json_array();
    for (int i = 0; i < MADE_PROMPTS; i++) {
        json_array_append_new(rounds, MADE_ARRAY(MADE_K, json_integer(made_rounds(quality, i, k))));
        json_array_append_new(tokens, MADE_ARRAY(MADE_K, json_integer(24 + i)));
    }
    return json_pack("{so so}", "rounds", rounds, "tokens", tokens);
}

static inline json_t *made_grid(double at) { // thresholds by k
    json_t *rows = json_array();
    for (int p = 0; p < 2; p++)
        json_array_append_new(rows, MADE_ARRAY(MADE_K, json_real(at + 0.1 * p + 0.01 * k)));
    return rows;
}

static inline json_t *made_p_min(void) {
    return json_pack("{s[ff] so so so}", "p", 0.0, 0.35, "tau", made_grid(1.7),
                     "accepted_per_round", made_grid(0.7), "steps_per_round", made_grid(2.3));
}

static inline json_t *made_recommendation(double speed) {
    return json_pack("{so so so so sI sf s{s[ff] so} s{sf sI sf}}", "speedup",
                     MADE_ARRAY(MADE_K, json_real(speed + 0.1 * k)), "tokens_per_s",
                     MADE_ARRAY(MADE_K, json_real(20 * speed + k)), "break_even_tau",
                     MADE_ARRAY(MADE_K, json_real(1.1 + 0.05 * k)), "break_even_rate",
                     MADE_ARRAY(MADE_K, json_real(0.11)), "best_k", (json_int_t)MADE_K,
                     "best_speedup", speed + 0.1 * MADE_K, "p_min", "p", 0.0, 0.35, "speedup",
                     made_grid(speed), "best_p_min", "p", 0.35, "k", (json_int_t)3, "speedup",
                     speed + 0.2);
}

// name "stock" has quality 2; rules: how many of rejection, strict (1: greedy alone).
typedef struct {
    const char *name, *sha;
    int quality;
} MadeDrafter;

static inline void made_rule(json_t *drafter, json_t *counts, const char *key, int quality,
                             const char *head) {
    json_object_set_new(drafter, key, made_head(quality, head));
    json_object_set_new(json_object_get(drafter, "p_min"), key, made_p_min());
    json_object_set_new(json_object_get(drafter, "diagnostics"), key,
                        json_pack("{so so so}", "uniform_anchors",
                                  MADE_ARRAY(MADE_K, json_real(1.31 + k)), "product_of_means",
                                  MADE_ARRAY(MADE_K, json_real(1.42 + k)), "uniform_alpha",
                                  MADE_ARRAY(MADE_K, json_real(1.53 + k))));
    json_object_set_new(counts, key, made_prompt_counts(quality));
}

static inline json_t *made_slices(const MadeDrafter *d, int n, const char *const *key, int keys,
                                  const char *const *name, int names) {
    json_t *all = json_object();
    for (int s = 0; s < names; s++) {
        json_t *o = json_pack("{sI sI}", "prompts", (json_int_t)(3 + 20 * s), "tokens",
                              (json_int_t)(1234 + 567 * s)),
               *pairs = json_object();
        for (int i = 0; i < n; i++) {
            json_t *x = json_object(), *pair = json_object();
            for (int r = 0; r < keys; r++) {
                json_object_set_new(x, key[r], made_head(d[i].quality + s % 3, "centroid"));
                json_object_set_new(pair, key[r], made_pair(0.071 * i + 0.003 * s));
            }
            json_object_set_new(o, d[i].name, x);
            if (i > 0)
                json_object_set_new(pairs, d[i].name, pair);
            else
                json_decref(pair);
        }
        json_object_set_new(o, "pairs", pairs);
        json_object_set_new(all, name[s], o);
    }
    return all;
}

static inline json_t *made_prompts(void) {
    json_t *id = json_array(), *category = json_array(), *source = json_array(),
           *tokens = json_array();
    for (int i = 0; i < MADE_PROMPTS; i++) {
        char name[16];
        snprintf(name, sizeof name, "id-%d", i);
        json_array_append_new(id, json_string(name));
        json_array_append_new(category, json_string(i < 4 ? "plain" : MADE_EVIL));
        json_array_append_new(source, json_string("one.jsonl"));
        json_array_append_new(tokens, json_integer(24 + i));
    }
    return json_pack("{so so so so so}", "id", id, "category", category, "source", source, "tokens",
                     tokens, "drafters", json_object());
}

static inline void made_costs(json_t *o, const MadeDrafter *d, int n, const char *const *key,
                              int keys) {
    json_t *all = json_object();
    for (int i = 0; i < n; i++) {
        json_t *x = json_object();
        for (int r = 0; r < keys; r++)
            json_object_set_new(x, key[r], made_recommendation(0.9 + 0.2 * i));
        json_object_set_new(all, d[i].name, x);
    }
    json_object_set_new(o, "recommendation", all);
    json_object_set_new(o, "cost",
                        json_pack("{ss ss sI ss so s{sf sf}}", "device", "a machine <b>", "source",
                                  "measured", "context", (json_int_t)512, "dtype", "F32",
                                  "target_ms", MADE_ARRAY(MADE_K + 1, json_real(40.5 + k)),
                                  "drafter_ms", "dense", 3.21, "centroid", 1.23));
}

static inline void made_pairs(json_t *o, const MadeDrafter *d, int n, const char *const *key,
                              int keys) {
    json_t *pairs = json_object();
    for (int i = 1; i < n; i++) {
        json_t *pair = json_object();
        for (int r = 0; r < keys; r++) json_object_set_new(pair, key[r], made_pair(0.123 * i));
        json_object_set_new(pairs, d[i].name, pair);
    }
    json_object_set_new(o, "pairs", pairs);
}

// As audit leaves it.
static inline json_t *made_speed(void) {
    return json_pack("{s[{ss sf s[{ss sf sf}]} {ss sf s[{ss sf sf} {ss sf sf}]}] sf sf sf}",
                     "texts", "sampler", "greedy", "sweep_s", 0.25, "live", "rule", "greedy",
                     "live_s", 4.75, "ratio", 19.0, "sampler", "T=1,top_k=64,top_p=0.95", "sweep_s",
                     0.5, "live", "rule", "rejection", "live_s", 8.5, "ratio", 17.0, "rule",
                     "strict", "live_s", 10.25, "ratio", 20.5, "sweep_s", 0.75, "live_s", 23.5,
                     "ratio", 31.333);
}

// sampled: two rules; centroid: both heads and recall. New reference.
static inline json_t *made_report(const MadeDrafter *d, int n, bool sampled, bool centroid) {
    static const char *const greedy[] = {"greedy", "greedy_dense"},
                             *const two[] = {"rejection", "strict", "rejection_dense",
                                             "strict_dense"},
                             *const names[] = {"plain", MADE_EVIL, "a/b~c", "other"};
    const char *const *key = sampled ? two : greedy;
    const int keys = (sampled ? 2 : 1) * (centroid ? 2 : 1);
    json_t *drafters = json_object(), *prompts = made_prompts();
    for (int i = 0; i < n; i++) {
        json_t *x = json_pack("{ss ss ss s{} s{}}", "path", "runs/x <i>", "dtype", "F32", "sha256",
                              d[i].sha, "p_min", "diagnostics"),
               *counts = json_object();
        for (int r = 0; r < keys; r++)
            made_rule(x, counts, key[r], d[i].quality + (r & 1),
                      centroid && r < keys / 2 ? "centroid" : "dense");
        if (centroid)
            json_object_set_new(x, "recall",
                                json_pack("{so so}", "share",
                                          MADE_ARRAY(MADE_K, json_real(0.99 - 0.013 * k)),
                                          "tau_ceiling", MADE_ARRAY(MADE_K, json_real(0.97 + k))));
        json_object_set_new(drafters, d[i].name, x);
        json_object_set_new(json_object_get(prompts, "drafters"), d[i].name, counts);
    }
    json_t *o = json_pack(
        "{so si si si si ss so so so s{si sf si sb} s{ss} s{ss} s{ss}}", "draft_tokens",
        MADE_ARRAY(MADE_K, json_integer(k)), "select_k", 3, "prompts", MADE_PROMPTS, "sequences",
        MADE_PROMPTS, "tokens", MADE_TOKENS, "sampler", sampled ? "T=0.7,top_k=64" : "greedy",
        "rules", sampled ? json_pack("[ss]", two[0], two[1]) : json_pack("[s]", greedy[0]),
        "drafters", drafters, "prompt_counts", prompts, "bootstrap", "resamples", 500, "confidence",
        0.9, "seed", 3, "few_prompts", 1, "capture", "manifest_sha256", "c0ffee", "definitions",
        "tau", "tokens <per> step", "statistics", "multiplicity", "many & more");
    made_pairs(o, d, n, key, keys);
    json_object_set_new(o, "categories", made_slices(d, n, key, keys, names, 4));
    json_object_set_new(o, "contexts", made_slices(d, n, key, keys, names, 3));
    made_costs(o, d, n, key, keys);
    json_t *power = json_object();
    for (int r = 0; r < keys; r++)
        json_object_set_new(
            power, key[r],
            json_pack("{so so}", "se_gain", MADE_ARRAY(MADE_K, json_real(0.0123 * k)),
                      "prompts_for_1_percent", MADE_ARRAY(MADE_K, json_integer(1000 * k + 321))));
    json_object_set_new(json_object_get(o, "statistics"), "power", power);
    json_object_set_new(o, "speed", made_speed());
    return o;
}

#endif

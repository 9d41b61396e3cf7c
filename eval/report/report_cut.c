// eval/report/report_cut.c - the axis of k is the outer one of most arrays, and the inner one where
// rows are thresholds or prompts.
#include "eval/report/report_cut.h"

#include <string.h>

static void cut_outer(json_t *array, int K) {
    while (json_array_size(array) > (size_t)K) json_array_remove(array, json_array_size(array) - 1);
}

static void cut_inner(json_t *rows, int K) {
    for (size_t i = 0; i < json_array_size(rows); i++) cut_outer(json_array_get(rows, i), K);
}

static void cut_members(json_t *o, int K, void (*cut)(json_t *, int)) {
    const char *name;
    json_t *x;
    json_object_foreach(o, name, x) if (strcmp(name, "p") != 0) cut(x, K);
}

static void cut_rules(json_t *by_rule, int K, void (*cut)(json_t *, int)) {
    const char *rule;
    json_t *o;
    json_object_foreach(by_rule, rule, o) cut_members(o, K, cut);
}

json_t *cut_drafter(const json_t *drafter, int K) {
    json_t *o = json_deep_copy(drafter), *x;
    const char *name;
    json_object_foreach(o, name, x) {
        if (!strcmp(name, "p_min"))
            cut_rules(x, K, cut_inner);
        else if (!strcmp(name, "diagnostics"))
            cut_rules(x, K, cut_outer);
        else
            cut_members(x, K, cut_outer);
    }
    return o;
}

json_t *cut_counts(const json_t *counts, int K) {
    json_t *o = json_deep_copy(counts);
    cut_rules(o, K, cut_inner);
    return o;
}

// The best among what is left; 0 where plain decoding is faster.
static void choose_again(json_t *o) {
    const json_t *speed = json_object_get(o, "speedup");
    double best = 1.0;
    size_t k = 0;
    for (size_t i = 0; i < json_array_size(speed); i++) {
        const double x = json_number_value(json_array_get(speed, i));
        if (x <= best) continue;
        best = x;
        k = i + 1;
    }
    json_object_set_new(o, "best_k", json_integer((json_int_t)k));
    json_object_set_new(o, "best_speedup", json_real(best));
}

json_t *cut_recommendation(const json_t *by_rule, int K) {
    json_t *all = json_deep_copy(by_rule), *o;
    const char *rule;
    json_object_foreach(all, rule, o) {
        cut_members(o, K, cut_outer);
        cut_members(json_object_get(o, "p_min"), K, cut_inner);
        if (json_integer_value(json_object_get(o, "best_k")) > K) choose_again(o);
        const json_t *best = json_object_get(o, "best_p_min");
        if (json_integer_value(json_object_get(best, "k")) > K) json_object_del(o, "best_p_min");
    }
    return all;
}

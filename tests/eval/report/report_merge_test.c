// tests/eval/report/report_merge_test.c - several files made one: values counted by hand, names,
// and every refusal.
#include "eval/report/report_merge.h"

#include <math.h>
#include <stdlib.h>

#include "eval/report/report.h"
#include "eval/report/report_cut.h"
#include "infer/base/json.h"
#include "tests/eval/report/report_made.h"

static const MergeSampling HOW = {.resamples = 400, .confidence = 0.9, .seed = 3};
static const MadeDrafter a[] = {{"stock", "aa", 2}, {"trained", "bb", 4}},
                         b[] = {{"stock", "aa", 2}, {"trained", "cc", 3}},
                         other[] = {{"stock", "zz", 1}, {"trained", "bb", 4}, {"q4", "q4", 3}};

static json_t *merged(json_t *x, json_t *y, Err *err) {
    const MergeInput in[] = {{"a.json", "run-a", x}, {"b.json", "run-b", y}};
    return report_merge(in, 2, &HOW, err);
}

static const json_t *at(const json_t *o, const char *path) {
    char copy[256];
    snprintf(copy, sizeof copy, "%s", path);
    for (char *save = NULL, *p = strtok_r(copy, "/", &save); p != NULL;
         p = strtok_r(NULL, "/", &save)) {
        o = json_is_array(o) ? json_array_get(o, (size_t)atoi(p)) : json_object_get(o, p);
        if (o == NULL) fail_msg("no %s", path);
    }
    return o;
}

static double number(const json_t *o, const char *path) {
    if (!json_is_number(at(o, path))) fail_msg("%s is no number", path);
    return json_number_value(at(o, path));
}

static void close_to(double x, double y) {
    if (!(fabs(x - y) < 1e-12)) fail_msg("%.15g is not %.15g", x, y);
}

static void drafters_stand_side_by_side(void **state) {
    (void)state;
    Err err = {0};
    json_t *x = made_report(a, 2, false, true), *y = made_report(b, 2, false, true);
    json_t *o = merged(x, y, &err);
    assert_ok(o != NULL, err);
    const char *name;
    json_t *d;
    const char *const names[] = {"stock", "run-a", "run-b"};
    int n = 0;
    json_object_foreach((json_t *)at(o, "drafters"), name, d) assert_string_equal(name, names[n++]);
    assert_int_equal(n, 3);
    assert_string_equal(json_string_value(at(o, "drafters/run-b/sha256")), "cc");
    for (int k = 1; k <= MADE_K; k++) {
        char path[64];
        snprintf(path, sizeof path, "pairs/run-b/greedy/gain/%d", k - 1);
        close_to(number(o, path), (double)made_sum(2, k) / made_sum(3, k) - 1.0);
        snprintf(path, sizeof path, "pairs/run-a/greedy_dense/gain/%d", k - 1);
        close_to(number(o, path), (double)made_sum(3, k) / made_sum(5, k) - 1.0);
        snprintf(path, sizeof path, "drafters/run-a/greedy/tau/%d", k - 1);
        close_to(number(o, path), (double)MADE_TOKENS / made_sum(4, k));
    }
    close_to(number(o, "categories/plain/run-a/greedy/tau/1"),
             (24 + 25 + 26 + 27) / (double)(made_rounds(4, 0, 2) + made_rounds(4, 1, 2) +
                                            made_rounds(4, 2, 2) + made_rounds(4, 3, 2)));
    assert_true(number(o, "categories/plain/prompts") == 4);
    assert_true(number(o, "categories/plain/tokens") == 24 + 25 + 26 + 27);
    const json_t *evil = json_object_get(at(o, "categories"), MADE_EVIL);
    assert_true(number(evil, "prompts") == 2 && number(evil, "tokens") == 28 + 29);
    close_to(number(evil, "stock/greedy/tau/0"),
             57.0 / (made_rounds(2, 4, 1) + made_rounds(2, 5, 1)));
    assert_true(number(o, "sources/one.jsonl/prompts") == MADE_PROMPTS);
    assert_true(number(o, "prompt_counts/drafters/run-b/greedy/rounds/5/3") ==
                made_rounds(3, 5, 4));
    assert_true(number(o, "select_k") == 3 && number(o, "bootstrap/resamples") == 400);
    assert_string_equal(json_string_value(at(o, "merged_from/1/drafters/trained")), "run-b");
    assert_null(json_object_get(o, "paired"));
    assert_int_equal(json_array_size(at(o, "statistics/power/greedy/se_gain")), MADE_K);
    assert_true(number(o, "statistics/power/greedy/prompts_for_1_percent/3") > 1);
    assert_non_null(strstr(json_string_value(at(o, "statistics/multiplicity")), "2 drafters"));
    json_decref(o);
    json_decref(x);
    json_decref(y);
}

// The resamples do not depend on how many drafters share them: two series alone give the same.
static void intervals_come_from_shared_resamples(void **state) {
    (void)state;
    Err err = {0};
    enum { K_AT = 2 };
    double tokens[2 * MADE_PROMPTS], rounds[2 * MADE_PROMPTS];
    json_t *x = made_report(a, 2, true, true), *y = made_report(b, 2, true, true);
    json_t *o = merged(x, y, &err);
    assert_ok(o != NULL, err);
    for (int i = 0; i < MADE_PROMPTS; i++) {
        tokens[i] = tokens[MADE_PROMPTS + i] = 24 + i;
        rounds[i] = made_rounds(2, i, K_AT);
        rounds[MADE_PROMPTS + i] = made_rounds(3, i, K_AT);
    }
    const BootstrapInput in = {.prompts = MADE_PROMPTS,
                               .series = 2,
                               .tokens = tokens,
                               .rounds = rounds,
                               .resamples = HOW.resamples,
                               .confidence = HOW.confidence,
                               .seed = HOW.seed};
    Bootstrap *boot = bootstrap_run(&in, &err);
    assert_ok(boot != NULL, err);
    const Interval tau = bootstrap_tau(boot, 1), gain = bootstrap_gain(boot, 1, 0);
    close_to(number(o, "drafters/run-b/rejection/tau_ci/1/0"), tau.lo);
    close_to(number(o, "drafters/run-b/rejection/tau_ci/1/1"), tau.hi);
    close_to(number(o, "pairs/run-b/rejection/ci/1/0"), gain.lo);
    close_to(number(o, "pairs/run-b/rejection/ci/1/1"), gain.hi);
    assert_true(gain.lo < number(o, "pairs/run-b/rejection/gain/1") &&
                gain.hi > number(o, "pairs/run-b/rejection/gain/1"));
    bootstrap_free(boot);
    json_decref(o);
    json_decref(x);
    json_decref(y);
}

static void other_weights_keep_their_own_names(void **state) {
    (void)state;
    Err err = {0};
    json_t *x = made_report(a, 2, false, false), *y = made_report(other, 3, false, false);
    json_t *o = merged(x, y, &err);
    assert_ok(o != NULL, err);
    const char *const names[] = {"stock", "run-a", "run-b stock", "q4"};
    const char *name;
    json_t *d;
    int n = 0;
    json_object_foreach((json_t *)at(o, "drafters"), name, d) assert_string_equal(name, names[n++]);
    assert_int_equal(n, 4); // trained "bb" is that of the first file
    json_decref(o);
    json_decref(x);
    json_decref(y);
}

static void the_common_draft_lengths_are_compared(void **state) {
    (void)state;
    Err err = {0};
    const char *name;
    json_t *d;
    void *tmp;
    json_t *x = made_report(a, 2, false, true), *y = made_report(b, 2, false, true);
    json_object_set_new(y, "draft_tokens", json_pack("[ii]", 1, 2));
    json_t *drafters = json_object_get(y, "drafters"),
           *counts = json_object_get(json_object_get(y, "prompt_counts"), "drafters");
    json_object_foreach_safe(drafters, tmp, name, d)
        json_object_set_new(drafters, name, cut_drafter(d, 2));
    json_object_foreach_safe(counts, tmp, name, d)
        json_object_set_new(counts, name, cut_counts(d, 2));
    json_t *o = merged(x, y, &err);
    assert_ok(o != NULL, err);
    assert_int_equal(json_array_size(at(o, "draft_tokens")), 2);
    assert_true(number(o, "select_k") == 2);
    assert_int_equal(json_array_size(at(o, "drafters/run-a/greedy/tau")), 2);
    assert_int_equal(json_array_size(at(o, "drafters/run-a/greedy/u")), 2);
    assert_int_equal(json_array_size(at(o, "drafters/stock/p_min/greedy/tau/1")), 2);
    assert_int_equal(json_array_size(at(o, "drafters/stock/p_min/greedy/p")), 2);
    assert_int_equal(json_array_size(at(o, "drafters/stock/recall/share")), 2);
    assert_int_equal(json_array_size(at(o, "prompt_counts/drafters/stock/greedy/rounds/0")), 2);
    assert_true(number(o, "recommendation/run-a/greedy/best_k") == 2); // was 4
    close_to(number(o, "recommendation/run-a/greedy/best_speedup"), 0.9 + 0.2 + 0.2);
    assert_null(
        json_object_get(at(o, "recommendation/run-a/greedy"), "best_p_min")); // was at k = 3
    assert_ok(report_write(o, NULL, test_dir(), &err), err);
    json_decref(o);
    json_decref(x);
    json_decref(y);
}

static void costs_are_those_of_one_device(void **state) {
    (void)state;
    static const char *const field[] = {"device", "source"};
    for (int i = 0; i < 2; i++) { // another source, and other times: the same device
        Err err = {0};
        json_t *x = made_report(a, 2, false, true), *y = made_report(b, 2, false, true);
        json_object_set_new(json_object_get(y, "cost"), field[i], json_string("another"));
        json_t *o = merged(x, y, &err);
        assert_ok(o != NULL, err);
        const json_t *all = at(o, "recommendation");
        assert_non_null(json_object_get(all, "run-a"));
        assert_true((json_object_get(all, "run-b") != NULL) == (i == 1));
        json_decref(o);
        json_decref(x);
        json_decref(y);
    }
}

// Changes the second object and expects these words in the refusal.
static void refused(void (*change)(json_t *y), const char *const *words) {
    Err err = {0};
    json_t *x = made_report(a, 2, true, false), *y = made_report(b, 2, true, false);
    change(y);
    assert_null(merged(x, y, &err));
    assert_int_equal(err.code, ERR_INPUT);
    for (; *words != NULL; words++)
        if (strstr(err.text, *words) == NULL) fail_msg("\"%s\" lacks \"%s\"", err.text, *words);
    json_decref(x);
    json_decref(y);
}

static json_t *counts(json_t *y) {
    return json_object_get(y, "prompt_counts");
}
static void other_id(json_t *y) {
    json_array_set_new(json_object_get(counts(y), "id"), 2, json_string("else"));
}
static void other_length(json_t *y) {
    json_array_set_new(json_object_get(counts(y), "tokens"), 1, json_integer(99));
}
static void fewer_prompts(json_t *y) {
    const char *name;
    json_t *d, *rule;
    const char *const lists[] = {"id", "tokens", "category", "source"};
    for (int i = 0; i < 4; i++) json_array_remove(json_object_get(counts(y), lists[i]), 5);
    json_object_foreach(json_object_get(counts(y), "drafters"), name, d) {
        const char *key;
        json_object_foreach(d, key, rule) {
            json_array_remove(json_object_get(rule, "rounds"), 5);
            json_array_remove(json_object_get(rule, "tokens"), 5);
        }
    }
}
static void other_sampler(json_t *y) {
    json_object_set_new(y, "sampler", json_string("T=1"));
}
static void other_rules(json_t *y) {
    json_array_remove(json_object_get(y, "rules"), 1);
}
static void other_capture(json_t *y) {
    json_object_set_new(json_object_get(y, "capture"), "manifest_sha256", json_string("beef"));
}
static void no_counts(json_t *y) {
    json_object_del(y, "prompt_counts");
}
static void torn_counts(json_t *y) {
    json_t *d = json_object_get(json_object_get(counts(y), "drafters"), "trained"),
           *rows = json_object_get(json_object_get(d, "strict"), "rounds");
    json_array_set_new(json_array_get(rows, 3), 1, json_string("7"));
}
static void negative_counts(json_t *y) {
    json_t *d = json_object_get(json_object_get(counts(y), "drafters"), "trained"),
           *rows = json_object_get(json_object_get(d, "strict"), "tokens");
    json_array_set_new(json_array_get(rows, 3), 1, json_real(-1.0));
}
static void other_counts(json_t *y) {
    json_t *d = json_object_get(json_object_get(counts(y), "drafters"), "trained"),
           *rows = json_object_get(json_object_get(d, "strict"), "rounds");
    json_array_set_new(json_array_get(rows, 3), 1, json_integer(400));
}
static void no_object(json_t *y) {
    json_object_clear(y);
}

static void what_is_not_comparable_is_refused(void **state) {
    (void)state;
#define WORDS(...) (const char *const[]){__VA_ARGS__, NULL}
    refused(other_id, WORDS("a.json", "b.json", "prompt 2", "\"else\"", "\"id-2\""));
    refused(other_length, WORDS("prompt 1", "\"id-1\" with 99 tokens", "with 25"));
    refused(fewer_prompts, WORDS("b.json was measured on 5 prompts", "a.json on 6"));
    refused(other_sampler, WORDS("b.json has sampler \"T=1\"", "a.json has \"T=0.7,top_k=64\""));
    refused(other_rules, WORDS("rules \"rejection\"", "\"rejection, strict\""));
    refused(other_capture, WORDS("capture manifest \"beef\"", "\"c0ffee\""));
    refused(no_counts, WORDS("b.json holds no counts by prompt"));
    refused(torn_counts, WORDS("b.json", "trained, strict", "\"rounds\"", "6 prompts of 4"));
    refused(negative_counts, WORDS("b.json", "trained, strict", "\"tokens\""));
    refused(other_counts, WORDS("b.json", "trained, strict, give tau", "at k = 2"));
    refused(no_object, WORDS("b.json", "\"draft_tokens\""));
#undef WORDS
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafters_stand_side_by_side),
        cmocka_unit_test(intervals_come_from_shared_resamples),
        cmocka_unit_test(other_weights_keep_their_own_names),
        cmocka_unit_test(the_common_draft_lengths_are_compared),
        cmocka_unit_test(costs_are_those_of_one_device),
        cmocka_unit_test(what_is_not_comparable_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

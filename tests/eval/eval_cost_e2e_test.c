// tests/eval/eval_cost_e2e_test.c - what `eval` recommends: measured here, by another device's
// table, not at all; a bad table is refused before anything is measured.
#include <math.h>

#include "tests/eval/verb_run.h"

enum { K = 3 };
static char work[64], results[80];

static int make_workspace(void **state) {
    (void)state;
    snprintf(work, sizeof work, "%s/run", test_dir());
    snprintf(results, sizeof results, "%s/eval", work);
    static const char *const verbs[] = {"prepare", "regenerate", "capture", "train"};
    for (int i = 0; i < 4; i++) {
        const Said s = run("%s " SMALL "output_dir=%s", verbs[i], work);
        if (s.status != 0) return fprintf(stderr, "%s: %s\n", verbs[i], s.err);
    }
    return 0;
}

static double cell(const json_t *o, const char *path, int k) { // k: 1..
    return json_number_value(json_array_get(at(o, path), (size_t)k - 1));
}

// tau of the drafters / the cost of their rounds, by hand from what the file says.
static void agrees(const json_t *o, const char *name, const char *key, const char *head) {
    const json_t *drafter = at(at(at(o, "drafters"), name), key),
                 *r = at(at(at(o, "recommendation"), name), key);
    double best = 1;
    int best_k = 0;
    assert_string_equal(json_string_value(at(r, "head")), head);
    for (int k = 1; k <= K; k++) {
        const double plain = cell(o, "cost.target_ms", 1),
                     round = (cell(at(o, "cost.drafts_ms"), head, k) +
                              cell(o, "cost.target_ms", k + 1)) /
                             plain,
                     speedup = cell(drafter, "tau", k) / round;
        assert_true(fabs(cell(r, "break_even_tau", k) - round) < 1e-9);
        assert_true(fabs(cell(r, "speedup", k) - speedup) < 1e-9);
        assert_true(fabs(cell(r, "tokens_per_s", k) - 1e3 * speedup / plain) < 1e-6);
        if (speedup > best) best = speedup, best_k = k;
    }
    assert_int_equal((int)number(r, "best_k"), best_k);
    assert_true(fabs(number(r, "best_speedup") - best) < 1e-9);
    assert_true(number(r, "best_p_min.speedup") >= best - 1e-12);
    assert_int_equal(json_array_size(at(r, "p_min.p")), json_array_size(at(r, "p_min.speedup")));
}

static void a_measured_cost_gives_the_best_length(void **state) {
    (void)state;
    const Said s = run("eval " SMALL "output_dir=%s eval.cost=measure", work);
    assert_status(s, 0);
    assert_non_null(strstr(s.out, "Speed: trained, greedy, on "));
    assert_non_null(strstr(s.out, ", centroid head"));
    json_t *o = read_json(work, "eval/acceptance.json");
    assert_string_equal(json_string_value(at(o, "cost.source")), "measured");
    assert_int_equal(json_array_size(at(o, "cost.target_ms")), K + 1);
    agrees(o, "stock", "greedy", "centroid");
    agrees(o, "stock", "greedy_dense", "dense");
    agrees(o, "trained", "greedy", "centroid");
    assert_true(number(o, "statistics.power.greedy.se_gain.0") > 0);
    assert_true(number(o, "statistics.power.greedy.prompts_for_1_percent.2") >= 1);
    assert_non_null(strstr(json_string_value(at(o, "statistics.multiplicity")), "3 draft lengths"));
    json_decref(o);
    const char *before = tree_sum(results); // a second run times nothing anew
    assert_status(run("eval " SMALL "output_dir=%s eval.cost=measure", work), 0);
    assert_string_equal(before, tree_sum(results));
}

static const char *table(const char *text) {
    static char path[PATH_ROOM];
    Err err = {0};
    assert_ok(file_write(path_join(path, test_dir(), "cost.json"), text, strlen(text), &err), err);
    return path;
}

static void another_device_is_taken_at_its_word(void **state) {
    (void)state;
    const char *path = table("{\"device\": \"slow verifier\", \"target_ms\": [1, 9, 9, 9], "
                             "\"drafter_ms\": {\"centroid\": 1}}");
    Said s = run("eval " SMALL "output_dir=%s eval.cost=%s", work, path);
    assert_status(s, 0);
    assert_non_null(strstr(s.out, "Best constant k: 0. No draft length beats plain decoding"));
    json_t *o = read_json(work, "eval/acceptance.json");
    assert_true(number(o, "recommendation.trained.greedy.best_k") == 0);
    assert_true(number(o, "recommendation.trained.greedy.best_speedup") == 1);
    assert_true(json_is_null(at(o, "recommendation.trained.greedy_dense.best_k"))); // no such time
    assert_string_equal(json_string_value(at(o, "cost.source")), path);
    json_decref(o);
    table("{\"device\": \"fast verifier\", \"target_ms\": [9, 9, 9], "
          "\"drafter_ms\": {\"centroid\": 0.001}}"); // the same path, another content
    s = run("eval " SMALL "output_dir=%s eval.cost=%s", work, path);
    assert_status(s, 0);
    o = read_json(work, "eval/acceptance.json");
    assert_true(number(o, "recommendation.trained.greedy.best_k") == 2);
    assert_true(number(o, "recommendation.trained.greedy.limit_k") == 2);
    assert_true(json_is_null(at(o, "recommendation.trained.greedy.speedup.2")));
    json_decref(o);
}

static void a_bad_table_stops_before_anything_is_done(void **state) {
    (void)state;
    const char *before = tree_sum(results),
               *path = table("{\"device\": \"X\", \"target_ms\": [1, 0]}");
    const Said s = run("eval " SMALL "output_dir=%s eval.cost=%s", work, path);
    assert_status(s, ERR_INPUT);
    assert_non_null(strstr(s.err, "cost.json: \"target_ms\"[1] is 0, expected a number above 0"));
    assert_string_equal(before, tree_sum(results));
    assert_status(run("eval " SMALL "output_dir=%s eval.cost=/no/such/file", work), 1);
}

static void without_a_cost_nothing_is_recommended(void **state) {
    (void)state;
    const Said s = run("eval " SMALL "output_dir=%s eval.cost=none", work);
    assert_status(s, 0);
    assert_null(strstr(s.out, "Best constant k"));
    json_t *o = read_json(work, "eval/acceptance.json");
    assert_null(json_object_get(o, "cost"));
    assert_null(json_object_get(o, "recommendation"));
    json_decref(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_measured_cost_gives_the_best_length),
        cmocka_unit_test(another_device_is_taken_at_its_word),
        cmocka_unit_test(a_bad_table_stops_before_anything_is_done),
        cmocka_unit_test(without_a_cost_nothing_is_recommended),
    };
    return cmocka_run_group_tests(tests, make_workspace, NULL);
}

// tests/eval/eval_e2e_test.c - `eval` as people run it: the stable file, its numbers, the table,
// the stock alone, and the gate over text that is not the target's own.
#include <math.h>
#include <unistd.h>

#include "data/token_sample.h"
#include "tests/eval/verb_run.h"

enum { K = 3, PROMPTS = 5 };
static char work[64];

static int make_workspace(void **state) {
    (void)state;
    snprintf(work, sizeof work, "%s/run", test_dir());
    static const char *const verbs[] = {"prepare", "regenerate", "capture", "train"};
    for (int i = 0; i < 4; i++) {
        const Said s = run("%s " SMALL "output_dir=%s", verbs[i], work);
        if (s.status != 0) return fprintf(stderr, "%s: %s\n", verbs[i], s.err);
    }
    const Said s = run("eval " SMALL "output_dir=%s", work);
    return s.status != 0 && fprintf(stderr, "eval: %s\n", s.err);
}

static void is_list(const json_t *o, const char *key, size_t n) {
    if (json_array_size(at(o, key)) != n)
        fail_msg("%s has %zu entries, not %zu", key, json_array_size(at(o, key)), n);
}

// What issue 4 names, under its names.
static void has_the_stable_fields(const json_t *o, bool trained) {
    is_list(o, "draft_tokens", K);
    for (int k = 1; k <= K; k++)
        assert_int_equal(json_integer_value(json_array_get(at(o, "draft_tokens"), (size_t)k - 1)),
                         k);
    assert_true(json_is_integer(at(o, "prompts")) && json_is_integer(at(o, "tokens")));
    static const char *const names[] = {"stock", "trained"};
    static const char *const heads[] = {"greedy", "greedy_dense"};
    assert_int_equal(json_object_size(at(o, "drafters")), trained ? 2 : 1);
    for (int d = 0; d < (trained ? 2 : 1); d++)
        for (int h = 0; h < 2; h++) {
            const json_t *g = at(at(at(o, "drafters"), names[d]), heads[h]);
            assert_string_equal(json_string_value(at(g, "head")), h == 0 ? "centroid" : "dense");
            is_list(g, "tau", K);
            is_list(g, "tau_ci", K);
            is_list(g, "u", K);
            is_list(g, "u_all", K);
            for (size_t k = 0; k < K; k++) {
                assert_int_equal(json_array_size(json_array_get(at(g, "u"), k)), k + 1);
                assert_int_equal(json_array_size(json_array_get(at(g, "tau_ci"), k)), 2);
            }
        }
    assert_int_equal(json_object_get(o, "paired") != NULL, trained);
    for (int h = 0; trained && h < 2; h++) {
        is_list(at(at(o, "paired"), heads[h]), "gain", K);
        is_list(at(at(o, "paired"), heads[h]), "ci", K);
    }
}

static double cell(const json_t *o, const char *key, int k) { // k: 1..K
    return json_number_value(json_array_get(at(o, key), (size_t)k - 1));
}
static double inner(const json_t *o, const char *key, int k, int i) { // i: 0..
    const json_t *row = json_array_get(at(o, key), (size_t)k - 1);
    return json_number_value(json_array_get(row, (size_t)i));
}

// One drafter with one head: every figure follows from rounds, drafts and accepted ones.
static void counts_agree(const json_t *g, double tokens) {
    for (int k = 1; k <= K; k++) {
        const double rounds = cell(g, "num_drafts", k), drafts = cell(g, "num_draft_tokens", k),
                     taken = cell(g, "num_accepted_tokens", k), tau = cell(g, "tau", k);
        double sum = 0, product = 1;
        assert_true(rounds > 0 && drafts == k * rounds && taken <= drafts);
        assert_true(fabs(tau * rounds - tokens) < 1e-6); // every token is emitted in some round
        assert_true(tau >= 1 && tau <= k + 1);
        assert_true(k == 1 || tau >= cell(g, "tau", k - 1)); // greedy: more drafts, no fewer tokens
        assert_true(inner(g, "tau_ci", k, 0) <= tau && tau <= inner(g, "tau_ci", k, 1));
        assert_true(fabs(cell(g, "acceptance_rate", k) - taken / drafts) < 1e-12);
        assert_true(fabs(cell(g, "acceptance_length", k) - (1 + taken / rounds)) < 1e-12);
        for (int i = 0; i < k; i++) {
            const double u = inner(g, "u", k, i);
            assert_true(u >= 0 && u <= (i ? inner(g, "u", k, i - 1) : 1));
            product *= inner(g, "c", k, i);
            assert_true(fabs(product - u) < 1e-9);
            sum += u;
        }
        // tau = 1 + the sum of u, but for rounds that the end of the text cuts
        const double slack = PROMPTS * (double)k / rounds;
        assert_true(fabs(tau - (1 + sum)) <= slack && fabs(tau - (1 + taken / rounds)) <= slack);
        const double all = cell(g, "u_all", k);
        assert_true(all >= 0 && all <= (k > 1 ? cell(g, "u_all", k - 1) : 1));
    }
}

static void numbers_agree(const json_t *o) {
    static const char *const heads[] = {"greedy", "greedy_dense"};
    const json_t *name, *c;
    const char *key;
    double prompts = 0, tokens = 0;
    for (int h = 0; h < 2; h++) {
        json_object_foreach(at(o, "drafters"), key, name)
            counts_agree(at(name, heads[h]), number(o, "tokens"));
        const json_t *pair = json_object_get(json_object_get(o, "paired"), heads[h]);
        for (int k = 1; pair && k <= K; k++) {
            const double s = cell(at(at(o, "drafters.stock"), heads[h]), "tau", k),
                         t = cell(at(at(o, "drafters.trained"), heads[h]), "tau", k),
                         gain = cell(pair, "gain", k);
            assert_true(fabs(gain - (t / s - 1)) < 1e-12);
            assert_true(inner(pair, "ci", k, 0) <= gain && gain <= inner(pair, "ci", k, 1));
        }
    }
    static const char *const parts[] = {"categories", "sources", "kinds"};
    for (int i = 0; i < 3; i++) { // each adds up to the whole
        double drafts = 0;
        prompts = tokens = 0;
        json_object_foreach(at(o, parts[i]), key, c) {
            prompts += number(c, "prompts");
            tokens += number(c, "tokens");
            drafts += cell(at(c, "stock.greedy"), "num_drafts", K);
        }
        assert_true(tokens == number(o, "tokens"));
        assert_true(i == 2 ? prompts >= PROMPTS : prompts == PROMPTS);
        assert_true(drafts == cell(at(o, "drafters.stock.greedy"), "num_drafts", K));
    }
    assert_true(number(o, "prompts") == PROMPTS);
}

static void the_file_has_the_stable_fields_and_its_numbers_agree(void **state) {
    (void)state;
    json_t *o = read_json(work, "eval/acceptance.json");
    has_the_stable_fields(o, true);
    numbers_agree(o);
    assert_string_equal(json_string_value(at(o, "sampler")), "greedy");
    json_decref(o);
}

static void the_live_audit_covers_every_draft_length(void **state) {
    (void)state;
    json_t *o = read_json(work, "eval/acceptance.json");
    assert_true(json_is_true(at(o, "audit.passed")));
    assert_string_equal(json_string_value(at(o, "audit.first_mismatch")), "");
    is_list(o, "audit.by_k", K + 1);
    for (int k = 0; k <= K; k++) {
        const json_t *r = json_array_get(at(o, "audit.by_k"), (size_t)k);
        assert_true(number(r, "k") == k && number(r, "texts") == 2 && number(r, "mismatches") == 0);
        assert_true(number(r, "rounds") == number(r, "equal") + number(r, "near_ties"));
        assert_true(k == 0 || number(r, "rounds") > 0);
        assert_true(number(r, "texts") == number(r, "texts_equal") + number(r, "texts_near_tie"));
    }
    json_decref(o);
}

// The row that the file's numbers make must stand in the table, for both heads.
static void the_table_says_what_the_file_says(void **state) {
    (void)state;
    json_t *o = read_json(work, "eval/acceptance.json");
    const Said s = run("eval " SMALL "output_dir=%s", work); // done before: says it again
    assert_status(s, 0);
    static const char *const heads[] = {"greedy", "greedy_dense"};
    for (int h = 0; h < 2; h++) {
        const json_t *a = at(at(o, "drafters.stock"), heads[h]),
                     *b = at(at(o, "drafters.trained"), heads[h]),
                     *p = at(at(o, "paired"), heads[h]);
        for (int k = 1; k <= K; k++) {
            char row[512];
            snprintf(
                row, sizeof row,
                "\n| %d | %.2f | %.2f – %.2f | %.2f | %.2f – %.2f | %+.1f %% | %+.1f – %+.1f %% "
                "| %.3f | %.3f |\n",
                k, cell(a, "tau", k), inner(a, "tau_ci", k, 0), inner(a, "tau_ci", k, 1),
                cell(b, "tau", k), inner(b, "tau_ci", k, 0), inner(b, "tau_ci", k, 1),
                100 * cell(p, "gain", k), 100 * inner(p, "ci", k, 0), 100 * inner(p, "ci", k, 1),
                cell(a, "u_all", k), cell(b, "u_all", k));
            if (strstr(s.out, row) == NULL) fail_msg("no row %s in\n%s", row, s.out);
        }
    }
    json_decref(o);
}

static void stdout_as_json_is_the_file(void **state) {
    (void)state;
    json_t *o = read_json(work, "eval/acceptance.json");
    json_t *said = documents(run("eval --json " SMALL "output_dir=%s", work).out);
    assert_int_equal(json_array_size(said), 1);
    assert_true(json_equal(json_array_get(said, 0), o));
    json_decref(said);
    json_decref(o);
}

// A copy that shares the files: all of them are replaced, never written into.
static char *copy_of_work(const char *name) {
    static char dir[96];
    char line[512];
    snprintf(dir, sizeof dir, "%s/%s", test_dir(), name);
    snprintf(line, sizeof line, "rm -rf %s && cp -al %s %s && rm -rf %s/eval", dir, work, dir, dir);
    assert_int_equal(system(line), 0);
    return dir;
}

static void the_stock_alone_is_measured_the_same(void **state) {
    (void)state;
    char line[256];
    const char *dir = copy_of_work("alone");
    snprintf(line, sizeof line, "rm -rf %s/ckpt", dir);
    assert_int_equal(system(line), 0);
    const Said s = run("eval " SMALL "output_dir=%s", dir);
    assert_status(s, 0);
    assert_non_null(strstr(s.out, "No trained drafter yet."));
    assert_non_null(strstr(s.out, "| k | stock | interval | u_k |"));
    assert_null(strstr(s.out, "trained |"));
    json_t *alone = read_json(dir, "eval/acceptance.json"),
           *both = read_json(work, "eval/acceptance.json");
    has_the_stable_fields(alone, false);
    numbers_agree(alone);
    static const char *const same[] = {"tau", "u", "u_all", "num_drafts"};
    for (int i = 0; i < 4; i++)
        assert_true(json_equal(at(at(alone, "drafters.stock.greedy"), same[i]),
                               at(at(both, "drafters.stock.greedy"), same[i])));
    assert_true(json_is_true(at(alone, "audit.passed"))); // decoded live with the stock drafter
    json_decref(alone);
    json_decref(both);
}

// Several drafters in one run: the same weights have the same figures, whatever they are called.
static void any_number_of_drafters_is_measured(void **state) {
    (void)state;
    const char *dir = copy_of_work("many"), *again = "tests/smoke.json";
    Said s = run("eval " SMALL "output_dir=%s eval.drafters=%s", dir, again);
    assert_status(s, 2);
    assert_non_null(
        strstr(s.err, "eval.drafters: neither a drafter's folder nor its file: tests/smoke.json"));
    s = run("eval " SMALL "output_dir=%s eval.drafters=stock=%s/ckpt/best", dir, dir);
    assert_status(s, 2);
    assert_non_null(strstr(s.err, "the name \"stock\""));
    s = run("eval " SMALL "output_dir=%s eval.drafters=%s/ckpt/best,"
            "old=configs/demo/stock-assistant",
            dir, dir);
    assert_status(s, 0);
    json_t *o = read_json(dir, "eval/acceptance.json");
    assert_int_equal(json_object_size(at(o, "drafters")), 4);
    assert_true(json_equal(at(o, "drafters.old.greedy"), at(o, "drafters.stock.greedy")));
    assert_true(json_equal(at(o, "drafters.best.greedy"), at(o, "drafters.trained.greedy")));
    assert_true(json_equal(at(o, "pairs.best"), at(o, "paired")));
    for (size_t k = 0; k < K; k++)
        assert_true(json_number_value(json_array_get(at(o, "pairs.old.greedy.gain"), k)) == 0);
    assert_non_null(strstr(s.out, "| k | stock | trained | best | old |"));
    json_decref(o);
}

// Acceptance on text of another sampler says nothing about the deployed one.
static void a_capture_of_another_sampler_is_refused(void **state) {
    (void)state;
    const Said s = run("eval " SMALL "output_dir=%s regenerate.held_out=sampled "
                       "regenerate.temperature=0.7 regenerate.top_k=0 regenerate.top_p=1",
                       work);
    assert_status(s, 3);
    assert_non_null(strstr(s.err, "its text was made with \"greedy\""));
    assert_non_null(strstr(s.err, "\"T=0.7"));
    assert_true(strchr(s.err, '\n') == strrchr(s.err, '\n'));
}

// Answers that the target would not have given: live decoding must notice.
static void text_of_somebody_else_fails_the_gate(void **state) {
    (void)state;
    const char *dir = copy_of_work("foreign");
    char path[PATH_ROOM];
    Sample *s;
    int64_t n;
    Err err = {0};
    assert_ok(samples_load(path_join(path, dir, "regen/eval.jsonl"), 8192, &s, &n, &err), err);
    for (int64_t i = 0; i < n; i++) {
        int32_t *id = &s[i].ids[s[i].prompt + (s[i].n - s[i].prompt) / 2];
        *id = *id == 1000 ? 1001 : 1000;
    }
    assert_ok(samples_save(path, s, n, &err), err);
    samples_free(s, n);
    Said r = run("capture " SMALL "output_dir=%s", dir);
    assert_status(r, 2); // shards of other answers are there
    assert_non_null(strstr(r.err, "samples"));
    assert_status(run("capture --overwrite " SMALL "output_dir=%s", dir), 0);
    r = run("eval " SMALL "output_dir=%s", dir);
    assert_status(r, 4);
    assert_non_null(strstr(r.err, "draftsmith eval: live decoding and the simulator: "));
    assert_non_null(strstr(r.err, "the live text differs from token"));
    assert_true(strchr(r.err, '\n') == strrchr(r.err, '\n'));
    json_t *o = read_json(dir, "eval/acceptance.json");
    assert_true(json_is_false(at(o, "audit.passed")));
    json_decref(o);
    assert_int_equal(access(path_join(path, dir, "eval/stage.json"), F_OK), -1); // not done
    assert_status(run("eval " SMALL "output_dir=%s", dir), 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_has_the_stable_fields_and_its_numbers_agree),
        cmocka_unit_test(the_live_audit_covers_every_draft_length),
        cmocka_unit_test(the_table_says_what_the_file_says),
        cmocka_unit_test(stdout_as_json_is_the_file),
        cmocka_unit_test(the_stock_alone_is_measured_the_same),
        cmocka_unit_test(any_number_of_drafters_is_measured),
        cmocka_unit_test(a_capture_of_another_sampler_is_refused),
        cmocka_unit_test(text_of_somebody_else_fails_the_gate),
    };
    return cmocka_run_group_tests(tests, make_workspace, NULL);
}

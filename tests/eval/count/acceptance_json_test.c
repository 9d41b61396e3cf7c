// tests/eval/count/acceptance_json_test.c - the stable file and its table, from counts that are
// known.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/count/acceptance_json.h"
#include "tests/testing.h"

enum { K = 3, PROMPTS = 4, ANCHORS = 12 };
static const Resampling HOW = {.resamples = 200, .confidence = 0.95, .seed = 4};

// Prompt i of a drafter whose first rejections follow a pattern; its counts go into the pool, too.
static Measured prompt_of(int i, int shift, MeasuredPool *pool) {
    Measured m = {.tokens = ANCHORS};
    double keep[ANCHORS * K], visit[ANCHORS];
    snprintf(m.id, sizeof m.id, "id-%d", i);
    snprintf(m.category, sizeof m.category, i < 3 ? "short" : "long");
    snprintf(m.source, sizeof m.source, i % 2 ? "mine.jsonl" : "a|b.jsonl");
    m.part_tokens[PART_TEXT] = ANCHORS - 4 * (i == 1);
    m.part_tokens[PART_STRUCTURED] = 4 * (i == 1);
    for (int a = 0; a < ANCHORS; a++)
        for (int j = 0; j < K; j++) keep[a * K + j] = j < (a * 7 + i + shift) % 5;
    for (int h = 0; h < 2; h++) {
        const DraftOdds odds = {
            .keep = keep, .anchors = h == HEAD_DENSE ? ANCHORS : ANCHORS - 1, .K = K};
        for (int k = 0; k <= K; k++) {
            Acceptance a = {0};
            acceptance_expect(&a, &odds, k, visit);
            m.k[RULE_GREEDY][h][k] = (StepCount){a.rounds, a.tokens};
            acceptance_merge(&pool->k[RULE_GREEDY][h][k], &a);
            for (int p = 0; p < PART_KINDS; p++)
                if (m.part_tokens[p] > 0)
                    m.part[h][k][p] = (StepCount){.rounds = 3 + k + p, .tokens = 9 + shift + k * p};
        }
        acceptance_reach(&pool->all[RULE_GREEDY][h], &odds);
    }
    return m;
}

static Sweep sweep_of(const char *name, Head deployed, int shift) {
    Sweep s = {.deployed = deployed,
               .has = {true, deployed == HEAD_CENTROID},
               .K = K,
               .rules = 1,
               .n = PROMPTS,
               .sequences = PROMPTS};
    snprintf(s.name, sizeof s.name, "%s", name);
    snprintf(s.path, sizeof s.path, "somewhere/%s", name);
    snprintf(s.dtype, sizeof s.dtype, "F32");
    s.prompt = malloc(PROMPTS * sizeof *s.prompt);
    s.pool = calloc(1, sizeof *s.pool);
    for (int i = 0; i < PROMPTS; i++) s.prompt[i] = prompt_of(i, shift, s.pool);
    return s;
}

static json_t *report_of(Sweep *sweep, int n) {
    Err err = {0};
    SweepIntervals *intervals = sweep_intervals(sweep, n, 1, &SWEEP_WHOLE, &HOW, &err);
    assert_ok(intervals, err);
    const AcceptanceReport r = {.sweep = sweep,
                                .n = n,
                                .intervals = intervals,
                                .sampler = "greedy",
                                .capture = "abc",
                                .select_k = 2,
                                .how = HOW};
    json_t *o = acceptance_json(&r, &err);
    assert_ok(o, err);
    sweep_intervals_free(intervals);
    return o;
}

static const json_t *at(const json_t *o, const char *path) {
    char copy[256];
    snprintf(copy, sizeof copy, "%s", path);
    for (char *save = NULL, *p = strtok_r(copy, ".", &save); p != NULL;
         p = strtok_r(NULL, ".", &save)) {
        o = json_is_array(o) ? json_array_get(o, (size_t)atoi(p)) : json_object_get(o, p);
        if (o == NULL) fail_msg("no %s in the report", path);
    }
    return o;
}

static double number(const json_t *o, const char *path) {
    return json_number_value(at(o, path));
}

static void two_drafters_are_side_by_side(void **state) {
    (void)state;
    Sweep sweep[2] = {sweep_of("stock", HEAD_CENTROID, 0), sweep_of("trained", HEAD_CENTROID, 2)};
    json_t *o = report_of(sweep, 2);
    const Acceptance s = sweep[0].pool->k[RULE_GREEDY][HEAD_CENTROID][2],
                     t = sweep[1].pool->k[RULE_GREEDY][HEAD_CENTROID][2],
                     dense = sweep[1].pool->k[RULE_GREEDY][HEAD_DENSE][3];
    assert_int_equal(json_array_size(at(o, "draft_tokens")), K);
    assert_true(number(o, "draft_tokens.2") == 3 && number(o, "prompts") == PROMPTS);
    assert_true(number(o, "tokens") == PROMPTS * ANCHORS);
    assert_string_equal(json_string_value(at(o, "drafters.stock.greedy.head")), "centroid");
    assert_string_equal(json_string_value(at(o, "drafters.stock.greedy_dense.head")), "dense");
    assert_true(number(o, "drafters.stock.greedy.tau.1") == acceptance_tau(&s));
    assert_true(number(o, "drafters.trained.greedy_dense.tau.2") == acceptance_tau(&dense));
    assert_true(number(o, "drafters.stock.greedy.u.1.0") == acceptance_u(&s, 1));
    assert_int_equal(json_array_size(at(o, "drafters.stock.greedy.u.1")), 2);
    assert_true(fabs(number(o, "drafters.stock.greedy.c.1.1") -
                     acceptance_u(&s, 2) / acceptance_u(&s, 1)) < 1e-15);
    assert_true(number(o, "drafters.stock.greedy.num_drafts.1") == (double)s.rounds);
    assert_true(fabs(number(o, "paired.greedy.gain.1") -
                     (acceptance_tau(&t) / acceptance_tau(&s) - 1)) < 1e-15);
    assert_true(number(o, "paired.greedy.ci.1.0") <= number(o, "paired.greedy.gain.1"));
    assert_true(number(o, "drafters.stock.greedy.tau_ci.1.1") >=
                number(o, "drafters.stock.greedy.tau.1"));
    const AnchorReach all = sweep[0].pool->all[RULE_GREEDY][HEAD_CENTROID];
    assert_true(number(o, "drafters.stock.greedy.u_all.2") == acceptance_u_all(&all, 3));
    assert_true(number(o, "categories.short.prompts") == 3 &&
                number(o, "categories.long.tokens") == ANCHORS);
    assert_true(number(o, "categories.long.trained.greedy.tau.0") ==
                step_tau(sweep[1].prompt[3].k[RULE_GREEDY][HEAD_CENTROID][1]));
    assert_true(number(o, "prompt_counts.drafters.trained.greedy.rounds.3.0") ==
                sweep[1].prompt[3].k[RULE_GREEDY][HEAD_CENTROID][1].rounds);
    assert_true(number(o, "drafters.stock.diagnostics.greedy.uniform_anchors.2") ==
                biased_uniform_anchors(&all, 3));
    assert_string_equal(json_string_value(at(o, "rules.0")), "greedy");
    json_decref(o);
    for (int i = 0; i < 2; i++) sweep_free(&sweep[i]);
}

// Rounds and tokens of a slice, over its prompts alone.
static double tau_over(const Sweep *s, Head h, int k, const char *source) {
    StepCount sum = {0};
    for (int i = 0; i < PROMPTS; i++)
        if (!strcmp(s->prompt[i].source, source)) {
            sum.rounds += s->prompt[i].k[RULE_GREEDY][h][k].rounds;
            sum.tokens += s->prompt[i].k[RULE_GREEDY][h][k].tokens;
        }
    return step_tau(sum);
}

static void sources_and_kinds_stand_apart(void **state) {
    (void)state;
    Sweep sweep[2] = {sweep_of("stock", HEAD_CENTROID, 0), sweep_of("trained", HEAD_CENTROID, 2)};
    json_t *o = report_of(sweep, 2);
    const double base = tau_over(&sweep[0], HEAD_CENTROID, 2, "mine.jsonl"),
                 tau = tau_over(&sweep[1], HEAD_CENTROID, 2, "mine.jsonl");
    const json_t *mine = json_object_get(at(o, "sources"), "mine.jsonl");
    assert_int_equal(json_object_size(at(o, "sources")), 2);
    assert_true(number(mine, "prompts") == 2 && number(mine, "tokens") == 2 * ANCHORS);
    assert_true(number(mine, "stock.greedy.tau.1") == base);
    assert_true(number(mine, "trained.greedy_dense.tau.2") ==
                tau_over(&sweep[1], HEAD_DENSE, 3, "mine.jsonl"));
    assert_true(fabs(number(mine, "paired.greedy.gain.1") - (tau / base - 1)) < 1e-15);
    assert_true(number(mine, "paired.greedy.ci.1.0") <= number(mine, "paired.greedy.gain.1") &&
                number(mine, "paired.greedy.ci.1.1") >= number(mine, "paired.greedy.gain.1"));
    const json_t *kinds = at(o, "kinds");
    assert_int_equal(json_object_size(kinds), 2); // no thoughts in it
    assert_true(number(kinds, "structured.prompts") == 1 &&
                number(kinds, "structured.tokens") == 4);
    assert_true(number(kinds, "text.tokens") == PROMPTS * ANCHORS - 4);
    // one prompt: rounds 3 + k + 2, tokens 9 + shift + 2 k, and no spread
    assert_true(number(kinds, "structured.stock.greedy.tau.1") == 13.0 / 7);
    assert_true(number(kinds, "structured.trained.greedy.tau.1") == 15.0 / 7);
    assert_true(number(kinds, "structured.stock.greedy.num_drafts.2") == 8);
    assert_true(number(kinds, "structured.paired.greedy.ci.1.0") ==
                number(kinds, "structured.paired.greedy.ci.1.1"));
    assert_true(number(kinds, "text.stock.greedy.num_drafts.0") == PROMPTS * 4);
    json_decref(o);
    for (int i = 0; i < 2; i++) sweep_free(&sweep[i]);
}

static void the_stock_alone_has_no_pair(void **state) {
    (void)state;
    Sweep sweep = sweep_of("stock", HEAD_DENSE, 0);
    json_t *o = report_of(&sweep, 1);
    assert_null(json_object_get(o, "paired"));
    assert_string_equal(json_string_value(at(o, "drafters.stock.greedy.head")), "dense");
    assert_null(
        json_object_get(json_object_get(json_object_get(o, "drafters"), "stock"), "greedy_dense"));
    json_decref(o);
    sweep_free(&sweep);
}

static void the_table_shows_what_the_file_holds(void **state) {
    (void)state;
    Sweep sweep[2] = {sweep_of("stock", HEAD_CENTROID, 0), sweep_of("trained", HEAD_CENTROID, 2)};
    json_t *o = report_of(sweep, 2);
    char *text = NULL, want[64];
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    acceptance_markdown(f, o, true);
    fclose(f);
    snprintf(want, sizeof want, "\n| 3 | %.2f |", number(o, "drafters.stock.greedy.tau.2"));
    assert_non_null(strstr(text, want));
    snprintf(want, sizeof want, "| %+.1f %% |", 100 * number(o, "paired.greedy.gain.2"));
    assert_non_null(strstr(text, want));
    assert_non_null(strstr(text, "centroid head (deployed)"));
    assert_non_null(strstr(text, "\ndense head\n"));
    snprintf(want, sizeof want, "| structured | 1* | 4 | %.2f |", 13.0 / 7);
    assert_non_null(strstr(text, want));
    snprintf(want, sizeof want, " %+.1f %% |", 100 * (15.0 / 13 - 1));
    assert_non_null(strstr(strstr(text, "| structured |"), want));
    assert_non_null(strstr(text, "\n| a/b.jsonl | 2* | 24 |"));
    assert_non_null(strstr(text, "By category, k = 2, deployed head"));
    assert_non_null(strstr(text, "below 30 an interval is not to be trusted"));
    free(text);
    json_decref(o);
    for (int i = 0; i < 2; i++) sweep_free(&sweep[i]);
}

static void drafters_on_other_prompts_are_refused(void **state) {
    (void)state;
    Err err = {0};
    Sweep sweep[2] = {sweep_of("stock", HEAD_DENSE, 0), sweep_of("trained", HEAD_DENSE, 0)};
    snprintf(sweep[1].prompt[2].id, sizeof sweep[1].prompt[2].id, "other");
    assert_null(sweep_intervals(sweep, 2, 1, &SWEEP_WHOLE, &HOW, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "id-2"));
    assert_non_null(strstr(err.text, "other"));
    for (int i = 0; i < 2; i++) sweep_free(&sweep[i]);
}

// Any number of drafters: each beside the first, in the file and in the table.
static void more_drafters_stand_in_a_matrix(void **state) {
    (void)state;
    Sweep sweep[3] = {sweep_of("stock", HEAD_CENTROID, 0), sweep_of("trained", HEAD_CENTROID, 2),
                      sweep_of("q4", HEAD_CENTROID, 1)};
    json_t *o = report_of(sweep, 3);
    const double base = acceptance_tau(&sweep[0].pool->k[RULE_GREEDY][HEAD_CENTROID][2]),
                 tau = acceptance_tau(&sweep[2].pool->k[RULE_GREEDY][HEAD_CENTROID][2]);
    assert_true(fabs(number(o, "pairs.q4.greedy.gain.1") - (tau / base - 1)) < 1e-15);
    assert_true(json_equal(at(o, "pairs.trained"), at(o, "paired")));
    assert_true(fabs(number(o, "categories.short.q4.greedy.tau.1")) > 1);
    char *text = NULL, want[96];
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    acceptance_markdown(f, o, true);
    fclose(f);
    assert_non_null(strstr(text, "| k | stock | trained | q4 | trained: gain, interval |"));
    snprintf(want, sizeof want, "| %.2f | %+.1f %%, ", tau,
             100 * number(o, "pairs.trained.greedy.gain.1"));
    assert_non_null(strstr(text, want));
    free(text);
    json_decref(o);
    for (int i = 0; i < 3; i++) sweep_free(&sweep[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_drafters_are_side_by_side),
        cmocka_unit_test(sources_and_kinds_stand_apart),
        cmocka_unit_test(the_stock_alone_has_no_pair),
        cmocka_unit_test(the_table_shows_what_the_file_holds),
        cmocka_unit_test(more_drafters_stand_in_a_matrix),
        cmocka_unit_test(drafters_on_other_prompts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

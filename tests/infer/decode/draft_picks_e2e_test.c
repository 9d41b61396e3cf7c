// tests/infer/decode/draft_picks_e2e_test.c - samples with drafts are distributed as samples
// without, on a model: two-sample chi-square over the tokens of the first rounds.
#include <stdio.h>

#include "infer/decode/draws.h"
#include "tests/infer/decode/mini_pair.h"

enum { PICKS = 8000 };

static MiniPair pair;

static int open_pair(void **state) {
    (void)state;
    pair = mini_pair_open();
    return 0;
}
static int close_pair(void **state) {
    (void)state;
    mini_pair_close(&pair);
    return 0;
}

enum { PROMPT = 19 }; // behind it both are undecided, and often agree

// Least p of the chi-squares of two samples, the second with drafts.
static double compare_distributions(DraftRule rule, double p_min, bool planted) {
    GenerateOptions opt = {.slots = 16,
                           .max_new_tokens = DRAWS_TOKENS,
                           .max_length = PROMPT + DRAWS_TOKENS,
                           .prefill_rows = MINI_ROWS,
                           .sampler = {.temperature = 1.0, .top_k = 6, .top_p = 0.95, .seed = 1},
                           .kv_dtype = DT_F32,
                           .keep_rounds = true,
                           .draft = {.k = DRAWS_MOST, .head = HEAD_DENSE, .feature_dtype = DT_F32}};
    int32_t prompt[PROMPT];
    Err err = {0};
    static Draws plain; // drawn once
    Draws fast;
    mini_fitted(prompt, PROMPT);
    if (plain.n == 0)
        assert_ok(draws_make(pair.target, &opt, prompt, PROMPT, PICKS, &plain, &err), err);
    opt.draft.assistant = pair.assistant;
    opt.draft.rule = rule;
    opt.draft.p_min = p_min;
    opt.sampler.seed = 2;
    if (planted) opt.sampler.temperature = 0.8; // the drafts' temperature for the target as well
    assert_ok(draws_make(pair.target, &opt, prompt, PROMPT, PICKS, &fast, &err), err);
    assert_true(fast.accepted > PICKS / 5 && fast.accepted < fast.drafted);
    const DrawsTest t = draws_compare(&plain, &fast);
    assert_true(t.cells[0] > 4 && t.cells[2] > 10);
    draws_free(&fast);
    return t.least;
}

static void sampled_drafts_leave_the_distribution(void **state) {
    (void)state;
    const double p[] = {compare_distributions(DRAFT_REJECTION, 0, false),
                        compare_distributions(DRAFT_REJECTION, 0.8, false),
                        compare_distributions(DRAFT_STRICT, 0, false),
                        compare_distributions(DRAFT_BEST, 0, false)};
    print_message("p of chi-square: %.2g %.2g %.2g %.2g\n", p[0], p[1], p[2], p[3]);
    for (int i = 0; i < 4; i++) assert_true(p[i] > 1e-4);
    assert_true(compare_distributions(DRAFT_REJECTION, 0, true) < 1e-6); // it can fail
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sampled_drafts_leave_the_distribution)};
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}

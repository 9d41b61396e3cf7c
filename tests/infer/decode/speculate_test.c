// tests/infer/decode/speculate_test.c - drafts change the speed, never the text; the simulator
// counts what live decoding does.
#include "infer/decode/simulate.h"
#include "infer/decode/speculate.h"
#include "tests/infer/decode/mini_pair.h"
#include "tests/infer/decode/plain_walk.h"

enum { PROMPTS = 4, NEW = 40, KMAX = 9 };

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

static Speculator *speculator(int64_t capacity, int64_t chunk) {
    Err err = {0};
    const SpeculatorOptions so = {.k_max = KMAX,
                                  .capacity = capacity,
                                  .chunk = chunk,
                                  .feature_dtype = DT_F32,
                                  .kv_dtype = DT_F32};
    Speculator *s = speculator_open(pair.target, pair.assistant, &so, &err);
    assert_ok(s, err);
    return s;
}

static SpeculateResult decode(Speculator *s, int number, int64_t n, int k, int64_t most,
                              bool ignore_stop) {
    Err err = {0};
    int32_t prompt[64];
    SpeculateResult r;
    const SpeculateOptions opt = {.k = k,
                                  .head = HEAD_CENTROID,
                                  .max_new_tokens = most,
                                  .near_tie = 1e-3,
                                  .ignore_stop = ignore_stop};
    mini_prompt(prompt, n, number);
    assert_ok(speculate(s, &opt, prompt, n, &r, &err), err);
    return r;
}

static void drafts_never_change_the_text(void **state) {
    (void)state;
    Speculator *s = speculator(128, 12), *whole = speculator(128, 64);
    for (int i = 0; i < PROMPTS; i++) {
        SpeculateResult plain = decode(s, i, 20 + 7 * i, 0, NEW, true);
        assert_int_equal(plain.n, plain.first + NEW);
        for (int k = 0; k <= KMAX; k++) {
            SpeculateResult r = decode(k % 2 ? s : whole, i, 20 + 7 * i, k, NEW, true);
            assert_int_equal(r.n, plain.n);
            assert_memory_equal(r.ids, plain.ids, (size_t)plain.n * sizeof *r.ids);
            speculate_result_free(&r);
        }
        speculate_result_free(&plain);
    }
    speculator_close(s);
    speculator_close(whole);
}

static void a_stop_token_ends_the_text(void **state) {
    (void)state;
    Speculator *s = speculator(128, 32);
    TargetConfig *tc = (TargetConfig *)target_config(pair.target); // the test moves the stop set
    const TargetConfig saved = *tc;
    SpeculateResult free_run = decode(s, 1, 20, 0, NEW, true);
    const int32_t stop = free_run.ids[20 + NEW / 2];
    int64_t end = 20;
    while (free_run.ids[end] != stop) end++;
    tc->stop[0] = stop;
    tc->nstop = 1;
    for (int k = 0; k <= KMAX; k += 3) {
        SpeculateResult r = decode(s, 1, 20, k, NEW, false);
        assert_true(r.stopped);
        assert_int_equal(r.n, end + 1);
        assert_int_equal(r.ids[end], stop);
        Acceptance a = {0};
        speculate_count(&a, &r);
        assert_int_equal(a.tokens, end - 20); // after the first, the stop token included
        speculate_result_free(&r);
    }
    *tc = saved;
    speculate_result_free(&free_run);
    speculator_close(s);
}

static void the_simulator_counts_live_rounds(void **state) {
    (void)state;
    Err err = {0};
    Arena *arena = &test_env()->arena;
    const size_t mark = arena_mark(arena);
    FeaturePack pack;
    features_take(&pack, target_config(pair.target), 4 * MINI_ROWS, DT_F32, arena);
    Speculator *s = speculator(128, 32);
    Simulator *sim = simulator_open(pair.assistant, 23, KMAX, &err);
    assert_ok(sim, err);
    int64_t accepted = 0;
    for (int i = 0; i < PROMPTS; i++) {
        SpeculateResult plain = decode(s, i, 10 + 3 * i, 0, NEW, true);
        int32_t drafts[NEW * KMAX], L[NEW];
        features_clear(&pack);
        mini_capture(&pair, &pack, plain.ids, plain.n);
        assert_ok(simulator_drafts(sim, pair.assistant, &pack, 0, plain.ids, plain.n, plain.first,
                                   HEAD_CENTROID, drafts, NULL, &err),
                  err);
        acceptance_lengths(L, drafts, NEW - 1, KMAX, plain.ids, plain.n, plain.first);
        for (int k = 1; k <= KMAX; k++) {
            SpeculateResult r = decode(s, i, 10 + 3 * i, k, NEW, true);
            Acceptance live = {0}, walk = {0};
            speculate_count(&live, &r);
            acceptance_walk(&walk, L, NEW - 1, k, NULL);
            assert_memory_equal(&live, &walk, sizeof live);
            accepted += live.accepted;
            speculate_result_free(&r);
        }
        speculate_result_free(&plain);
    }
    assert_true(accepted > 0); // else nothing was tested
    simulator_close(sim);
    speculator_close(s);
    arena_reset(arena, mark);
}

static void too_small_a_capacity_is_refused(void **state) {
    (void)state;
    Err err = {0};
    int32_t prompt[30];
    SpeculateResult r;
    Speculator *s = speculator(40, 16);
    const SpeculateOptions opt = {.k = 3, .max_new_tokens = 8};
    mini_prompt(prompt, 30, 0);
    assert_false(speculate(s, &opt, prompt, 30, &r, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "capacity 40"));
    speculator_close(s);
}

static void gaps_are_those_that_decided(void **state) {
    (void)state;
    DraftRound r = {.drafted = 3,
                    .accepted = 1,
                    .margin = {3, 2, 0.5f},
                    .verify_margin = {4, 2.5f, 0.25f, 0.1f}};
    assert_true(speculate_gap(&r) == 2.0);
    r.drafted = 1;
    assert_true(speculate_gap(&r) == 2.5); // all accepted: the bonus is the last choice
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafts_never_change_the_text),
        cmocka_unit_test(a_stop_token_ends_the_text),
        cmocka_unit_test(the_simulator_counts_live_rounds),
        cmocka_unit_test(too_small_a_capacity_is_refused),
        cmocka_unit_test(gaps_are_those_that_decided),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}

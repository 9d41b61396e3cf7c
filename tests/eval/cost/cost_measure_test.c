// tests/eval/cost/cost_measure_test.c - times of a real pair: all there, positive, in milliseconds,
// and what live decoding takes.
#include <math.h>

#include "eval/cost/cost.h"
#include "infer/base/log.h"
#include "infer/decode/speculate.h"
#include "tests/infer/decode/mini_pair.h"

enum { K = 5, CONTEXT = 96 };

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

static CostOptions options(void) {
    return (CostOptions){.K = K,
                         .context = CONTEXT,
                         .chunk = MINI_ROWS / 3,
                         .repetitions = 40,
                         .seconds = 2,
                         .kv_dtype = DT_F32,
                         .feature_dtype = DT_BF16};
}

static CostTable measured(const CostOptions *opt) {
    CostTable c;
    Err err = {0};
    assert_ok(cost_measure(&c, pair.target, pair.assistant, opt, &err), err);
    return c;
}

static void every_width_and_head_has_a_time(void **state) {
    (void)state;
    const CostOptions opt = options();
    const double start = now_s();
    const CostTable c = measured(&opt);
    const double all_ms = 1e3 * (now_s() - start);
    double sum = 0.0;
    assert_int_equal(c.widths, K + 1);
    assert_int_equal(c.lengths, K);
    assert_true(c.context == CONTEXT && c.repetitions >= 5 && c.repetitions <= 40);
    assert_string_equal(c.source, "measured");
    assert_string_equal(c.dtype, dtype_name(DT_F32));
    assert_non_null(strstr(c.device, "threads"));
    for (int w = 1; w <= K + 1; w++) {
        assert_true(c.target_ms[w] > 0 && c.target_spread_ms[w] >= 0);
        sum += c.target_ms[w];
    }
    for (int h = 0; h < 2; h++)
        for (int k = 1; k <= K; k++) {
            assert_true(c.drafts_ms[h][k] > 0 && c.drafts_spread_ms[h][k] >= 0);
            sum += c.drafts_ms[h][k];
        }
    // milliseconds: the medians of one turn fit into the time all of them took
    assert_true(sum * 0.5 * (double)c.repetitions < all_ms);
    assert_true(c.target_ms[K + 2] == 0 && c.drafts_ms[0][K + 1] == 0);
}

static void more_rows_and_more_steps_take_longer(void **state) {
    (void)state;
    const CostOptions opt = options();
    const CostTable c = measured(&opt);
    assert_true(c.target_ms[K + 1] > 0.8 * c.target_ms[1]);
    assert_true(c.target_ms[K + 1] < 1.5 * (K + 1) * c.target_ms[1]);
    for (int h = 0; h < 2; h++) {
        assert_true(c.drafts_ms[h][K] > 1.5 * c.drafts_ms[h][1]);
        assert_true(c.drafter_ms[h] > 0);
        // step and set-up are those of the shortest and the longest round
        assert_true(fabs(c.drafter_round_ms[h] + c.drafter_ms[h] - c.drafts_ms[h][1]) < 1e-3);
        assert_true(fabs(c.drafter_round_ms[h] + K * c.drafter_ms[h] - c.drafts_ms[h][K]) < 1e-3);
    }
}

// The decoder itself, same context, same lengths. Neighbours on the machine may disturb either: a
// wide margin.
static void it_is_what_decoding_takes(void **state) {
    (void)state;
    Err err = {0};
    const CostOptions opt = options();
    const CostTable c = measured(&opt);
    const SpeculatorOptions so = {.k_max = K,
                                  .capacity = CONTEXT + 96,
                                  .chunk = MINI_ROWS / 3,
                                  .feature_dtype = DT_BF16,
                                  .kv_dtype = DT_F32};
    Speculator *s = speculator_open(pair.target, pair.assistant, &so, &err);
    assert_ok(s, err);
    int32_t prompt[CONTEXT];
    mini_prompt(prompt, CONTEXT, 1);
    const int lengths[] = {0, 1, K};
    for (int i = 0; i < 3; i++) {
        const SpeculateOptions run = {
            .k = lengths[i], .head = HEAD_CENTROID, .max_new_tokens = 80, .ignore_stop = true};
        SpeculateResult r;
        double live = INFINITY;
        for (int again = 0; again < 3; again++) {
            assert_ok(speculate(s, &run, prompt, CONTEXT, &r, &err), err);
            live = fmin(live, 1e3 * (r.target_s + r.drafter_s) / (double)r.rounds);
            speculate_result_free(&r);
        }
        const RoundMix mix = round_constant(lengths[i], 1.0);
        const double ours = cost_round(&c, HEAD_CENTROID, &mix) * c.target_ms[1];
        print_message("k = %d: %.3f ms a round measured, %.3f ms live\n", lengths[i], ours, live);
        assert_true(ours > live / 8 && ours < live * 8);
    }
    speculator_close(s);
}

static void memory_and_context_are_planned(void **state) {
    (void)state;
    CostOptions small = options(), large = options();
    large.context = 4 * CONTEXT;
    assert_true(cost_bytes(pair.target, pair.assistant, &small) > 0);
    assert_true(cost_bytes(pair.target, pair.assistant, &large) >
                cost_bytes(pair.target, pair.assistant, &small));
    assert_int_equal(cost_context(512, 131072, 9), 512);
    assert_int_equal(cost_context(512, 100, 9), 90);
    assert_int_equal(cost_context(512, 8, 9), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_width_and_head_has_a_time),
        cmocka_unit_test(more_rows_and_more_steps_take_longer),
        cmocka_unit_test(it_is_what_decoding_takes),
        cmocka_unit_test(memory_and_context_are_planned),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}

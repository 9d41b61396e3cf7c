// tests/eval/live_check_long_test.c - five samplers, every draft length: tokens a round of 2,000
// answers decoded live against the simulator on 2,000 others.
//
// 65 values of z with fixed seeds; those of one sampler share the simulated text and go together,
// and the tails are heavier than a normal's (60 prompts): another seed may need a second look.
#include "tests/eval/live_pair.h"

enum { SAMPLES = 34, FEW = 8 }; // of 60 prompts: 2,040 answers, of the other rules 480

static LivePair pair;
static LiveSimulated sim;

static int check(const Sampler *s, AcceptRule rule, int k, int64_t samples) {
    const TauGap gap = live_gap(&pair, s, rule, k, samples, &sim);
    assert_true(gap.error > 0 && gap.error < 0.1);
    return fabs(gap.z) > 3;
}

static void live_rounds_are_the_simulated_ones(void **state) {
    (void)state;
    const Sampler samplers[] = {{.temperature = 1, .top_p = 1, .seed = 11},
                                {.temperature = 1, .top_p = 0.95, .seed = 12},
                                {.temperature = 1, .top_k = 64, .top_p = 1, .seed = 13},
                                {.temperature = 0.7, .top_p = 1, .seed = 14},
                                {.temperature = 1, .top_k = 64, .top_p = 0.95, .seed = 15}};
    int far = 0;
    live_open(&pair);
    for (int i = 0; i < 5; i++) {
        live_simulate(&pair, &samplers[i], i % 2 ? HEAD_DENSE : HEAD_CENTROID, SAMPLES, &sim);
        print_message("tokens of the text without probability: %lld\n",
                      (long long)sim.pool.impossible);
        for (int k = 1; k <= LIVE_K; k++) far += check(&samplers[i], RULE_REJECTION, k, SAMPLES);
        for (int k = 2; k <= 7; k += 5)
            far +=
                check(&samplers[i], RULE_BEST, k, FEW) + check(&samplers[i], RULE_STRICT, k, FEW);
    }
    live_close(&pair);
    assert_int_equal(far, 0);
}

int main(int argc, char **argv) {
    (void)argc;
    start_guard(argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(live_rounds_are_the_simulated_ones)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

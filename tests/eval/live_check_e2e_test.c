// tests/eval/live_check_e2e_test.c - a few hundred answers decoded live give the simulated tokens a
// round; the jackknife on made-up counts.
#include "tests/eval/live_pair.h"

static void live_rounds_are_the_simulated_ones(void **state) {
    (void)state;
    enum { SAMPLES = 5 }; // of 60 prompts
    static LivePair p;
    static LiveSimulated sim;
    const Sampler s = {.temperature = 1, .top_k = 64, .top_p = 0.95, .seed = 5};
    const int k[] = {1, 4, 9};
    live_open(&p);
    live_simulate(&p, &s, HEAD_CENTROID, SAMPLES, &sim);
    for (int i = 0; i < 3; i++) {
        const TauGap gap = live_gap(&p, &s, RULE_REJECTION, k[i], SAMPLES, &sim);
        assert_true(gap.error > 0 && gap.error < 0.1);
        assert_true(fabs(gap.z) <= 4);
    }
    live_close(&p);
}

static void the_jackknife_is_that_of_ratios(void **state) {
    (void)state;
    const StepCount live[3] = {{10, 20}, {10, 30}, {10, 40}},
                    sim[3] = {{10, 20}, {10, 20}, {10, 20}};
    const TauGap gap = tau_gap(live, sim, 3), none = tau_gap(sim, sim, 3);
    assert_true(gap.live == 3 && gap.simulated == 2);
    // Without one: 3.5, 3, 2.5 less 2; mean 1; sum of squares 0.5; times 2/3.
    assert_true(fabs(gap.error - sqrt(1.0 / 3)) < 1e-12);
    assert_true(fabs(gap.z - 1 / sqrt(1.0 / 3)) < 1e-12);
    assert_true(none.error == 0 && none.z == 0);
}

int main(int argc, char **argv) {
    (void)argc;
    start_guard(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_jackknife_is_that_of_ratios),
        cmocka_unit_test(live_rounds_are_the_simulated_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
